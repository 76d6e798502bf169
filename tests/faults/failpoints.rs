//! Every failpoint of every operation: hit with kill -9, with an error, held up, and left to a launcher
//! whose daemon is gone. After each, and after a restart, what the API says is what the kernel has,
//! what was acknowledged is there, and when all is destroyed nothing is left.

mod list;
mod scenario;
mod steps;
pub(crate) mod story;

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use testkit::Server;

use self::{
    scenario::{ELSEWHERE, SCENARIOS, Scenario},
    story::expect_agreement,
};
use crate::server;

/// How long an operation may take to come to a point, or to end after it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Whoever comes to it is killed with -9: the daemon, or a launcher.
    Kill,
    /// It is told that the kernel, or the disk, refused.
    Error,
    /// It waits while somebody else uses the sandbox.
    Hold,
    /// It waits, the daemon is killed, the next one starts, and then it goes on.
    Orphan,
}

/// What can happen at a point.
fn actions(point: &str) -> &'static [Action] {
    use Action::{Error, Hold, Kill, Orphan};
    match point.split_once('.') {
        // What a launcher has done is not taken back.
        Some(("launcher", name)) if name.ends_with(".done") => &[Kill, Hold, Orphan],
        Some(("launcher" | "launch", _)) => &[Kill, Error, Hold, Orphan],
        _ => &[Kill, Error, Hold],
    }
}

/// What the kernel or a disk refuses to take away is there until it is looked for.
fn is_left_behind(point: &str) -> bool {
    let Some((place, request)) = point.split_once('.') else { return false };
    matches!(place, "ask" | "launcher")
        && matches!(request, "kill" | "clear" | "remove" | "remove-files")
}

/// The points of a server.
pub(crate) struct Points(PathBuf);

impl Points {
    pub(crate) fn of(server: &Server) -> Self {
        let dir = server.state_dir().join("failpoints");
        fs::create_dir_all(&dir).expect("the state directory is there");
        // The server, which is another user, takes points away, and adds to the trace.
        fs::set_permissions(&dir, Permissions::from_mode(0o777)).expect("it is ours");
        Self(dir)
    }

    /// Nothing is armed any more, and whoever waits goes on.
    fn clear(&self) {
        for entry in fs::read_dir(&self.0).expect("the points can be listed").flatten() {
            fs::remove_file(entry.path()).unwrap_or_default();
        }
    }

    pub(crate) fn arm(&self, point: &str, word: &str) {
        // Whole at once: it is taken as soon as it is there.
        let armed = self.0.join("new");
        fs::write(&armed, word).expect("a point can be armed");
        fs::set_permissions(&armed, Permissions::from_mode(0o666)).expect("it is ours");
        fs::rename(armed, self.0.join(point)).expect("a point can be armed");
    }

    fn held(&self, point: &str) -> PathBuf {
        self.0.join(format!("{point}.held"))
    }

    /// Waits until somebody has come to the point.
    async fn taken(&self, point: &str) {
        let begun = Instant::now();
        while self.0.join(point).exists() {
            assert!(begun.elapsed() < PATIENCE, "nobody came to {point}");
            // There is no event for what another process removes.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn trace(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.0.join("trace")).expect("points were traced");
        text.lines().map(str::to_owned).collect()
    }
}

/// Fails when a scenario comes to points that it does not tell of.
async fn expect_no_other_points(server: &mut Server, scenario: &Scenario) {
    let points = Points::of(server);
    (scenario.prepare)(server).await;
    // What is done behind replies is done before a server ends.
    server.stop();
    server.restart();
    points.arm("trace", "");
    let answer = (scenario.carry_out)(server).await;
    assert!(answer.is_done(), "{}: {answer:?}", scenario.name);
    let traced = points.trace();
    points.clear();
    let known: BTreeSet<String> =
        scenario.effects.iter().chain(&ELSEWHERE).flat_map(|effect| effect.points()).collect();
    let unknown: Vec<_> = traced.difference(&known).collect();
    assert!(unknown.is_empty(), "{} comes to {unknown:?} too", scenario.name);
    clean(server).await;
}

/// Destroys every sandbox.
async fn clean(server: &Server) {
    let list = server.get("/v1/sandboxes").await;
    for sandbox in list.json["sandboxes"].as_array().expect(&list.text) {
        let id = sandbox["id"].as_str().expect("an id is text");
        let gone = server.delete(&format!("/v1/sandboxes/{id}")).await;
        assert!(matches!(gone.status, 204 | 404), "{id}: {}", gone.text);
    }
}

/// One operation with something happening at one point.
async fn run(server: &mut Server, scenario: &Scenario, point: &str, action: Action) {
    let case = format!("{action:?} at {point} of {}", scenario.name);
    let points = Points::of(server);
    points.clear();
    (scenario.prepare)(server).await;
    points.arm(
        point,
        match action {
            Action::Kill => "kill",
            Action::Error => "error",
            Action::Hold | Action::Orphan => "hold",
        },
    );
    let answer = match action {
        Action::Kill | Action::Error => (scenario.carry_out)(server).await,
        Action::Hold => {
            let (answer, ()) = tokio::join!((scenario.carry_out)(server), async {
                points.taken(point).await;
                // Others are answered meanwhile, also about this sandbox.
                let seen = server.get("/v1/sandboxes/s").await;
                assert!(matches!(seen.status, 200 | 404), "{case}: {}", seen.text);
                fs::remove_file(points.held(point)).unwrap_or_default();
            });
            answer
        }
        Action::Orphan => {
            let operation = (scenario.carry_out)(server);
            let pid = i32::try_from(server.pid()).expect("a process id is an i32");
            let (answer, ()) = tokio::join!(operation, async {
                points.taken(point).await;
                crate::crash::kill(pid);
            });
            server.kill();
            server.restart();
            fs::remove_file(points.held(point)).unwrap_or_default();
            answer
        }
    };
    points.taken(point).await;
    if action == Action::Hold || (action == Action::Error && !is_left_behind(point)) {
        expect_agreement(server, &case).await;
    }
    if action != Action::Orphan {
        server.kill();
        server.restart();
    }
    expect_agreement(server, &case).await;
    (scenario.check)(server, answer, &case).await;
    clean(server).await;
    expect_agreement(server, &case).await;
}

/// What differs from run to run, the same for all operations of one; `FAILPOINTS_SEED` repeats it.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("FAILPOINTS_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        given.unwrap_or_else(|| now().map_or(0, |now| u64::from(now.subsec_nanos())))
    })
}

/// What is tried at a point in this run: one thing that can happen there, in one of the operations that
/// come to it. So each point has its turn in each run, and in some runs everything has.
fn chosen(point: &str) -> (&'static str, Action) {
    let come: Vec<_> =
        SCENARIOS.iter().filter(|scenario| scenario.points().contains(point)).collect();
    let bytes = point.bytes().map(u64::from);
    let mut mixed = bytes.fold(seed(), |mixed, byte| (mixed ^ byte).wrapping_mul(0x100_0000_01b3));
    mixed ^= mixed >> 31;
    let actions = actions(point);
    let turns = (come.len() * actions.len()) as u64;
    let turn = usize::try_from(mixed % turns).expect("it is below a length");
    (come[turn % come.len()].name, actions[turn / come.len()])
}

/// Does to the points of an operation what has its turn in this run, or with `FAILPOINTS=all` everything
/// that can happen at each.
#[expect(clippy::print_stdout, reason = "a run that failed is repeated by its seed")]
async fn run_all(name: &str) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).expect("there is one");
    let mut server = server();
    expect_no_other_points(&mut server, scenario).await;
    let is_all = std::env::var("FAILPOINTS").is_ok_and(|which| which == "all");
    println!("FAILPOINTS_SEED={}", seed());
    let mut count = 0;
    for point in scenario.points() {
        let (turn, one) = chosen(&point);
        let now: &[Action] = match (is_all, turn == name) {
            (true, _) => actions(&point),
            (false, true) => &[one],
            (false, false) => &[],
        };
        for action in now {
            run(&mut server, scenario, &point, *action).await;
        }
        count += now.len();
    }
    println!("{name}: {count} times");
}

#[tokio::test]
async fn create() {
    run_all("create").await;
}

#[tokio::test]
async fn start() {
    run_all("start").await;
}

#[tokio::test]
async fn stop() {
    run_all("stop").await;
}

#[tokio::test]
async fn destroy() {
    run_all("destroy").await;
}

#[tokio::test]
async fn destroy_with_a_checkpoint() {
    run_all("destroy with a checkpoint").await;
}

#[tokio::test]
async fn freeze() {
    run_all("freeze").await;
}

#[tokio::test]
async fn thaw() {
    run_all("thaw").await;
}

#[tokio::test]
async fn change() {
    run_all("change").await;
}

#[tokio::test]
async fn checkpoint() {
    run_all("checkpoint").await;
}

#[tokio::test]
async fn import() {
    run_all("import").await;
}

#[tokio::test]
async fn remove_a_checkpoint() {
    run_all("remove a checkpoint").await;
}

#[tokio::test]
async fn restore() {
    run_all("restore").await;
}

#[tokio::test]
async fn fork() {
    run_all("fork").await;
}

/// The first volume of a sandbox has the number of its jail, which may run on another one.
#[tokio::test]
async fn the_files_that_a_restore_leaves_go_beside_what_runs_again() {
    let server = server();
    let points = Points::of(&server);
    server.shell("s", "echo kept > kept").await;
    let made = server.post("/v1/sandboxes/s/checkpoints", &json!({"id": "c"})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    points.arm("launcher.remove-files", "hold");
    let restored = server.post("/v1/sandboxes/s/restore", &json!({"checkpoint": "c"})).await;
    assert_eq!(restored.status, 200, "{}", restored.text);
    points.taken("launcher.remove-files").await;
    server.shell("s", "sleep 1000 & echo $! > pid").await;

    fs::remove_file(points.held("launcher.remove-files")).expect("it waits");

    expect_agreement(&server, "a restore").await;
    assert_eq!(server.shell("s", "kill -0 $(cat pid) && cat kept").await, "kept\n");
}
