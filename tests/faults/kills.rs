//! Random kills of everything, under mixed load: no acknowledged write is lost, no command runs twice,
//! no request hangs, and nothing is left behind.
//!
//! `KILLS` makes it longer (`scripts/test-faults kills`), `KILLS_SEED` repeats the choices of a run, which it prints.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

mod caller;
mod churn;
mod load;

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use testkit::{Leaks, Server};

use self::{churn::Churn, load::Load};
use crate::failpoints::story::expect_agreement;

/// Kills of one run unless `KILLS` says otherwise.
const KILLS: u64 = 120;

/// Kills between two looks whether everything is as it was acknowledged.
const KILLS_PER_LOOK: u64 = 40;

/// Sandboxes with load.
const SANDBOXES: usize = 3;

/// Between two kills: as long as some requests take, so that kills meet every part of them.
const BETWEEN: Duration = Duration::from_millis(25);

/// How long what happens behind replies may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// `SplitMix64`, as in the simulation: the same victims in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        (!list.is_empty()).then(|| list[self.below(list.len())])
    }
}

/// A process of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Launcher,
    Agent,
    Command,
}

/// The processes of a server but its daemon.
fn processes(server: &Server) -> Vec<(Kind, i32)> {
    let group = format!("/sandbar-{}/", server.slot().name());
    let state = server.state_dir().to_string_lossy().into_owned();
    let kind = |pid: i32| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).into_owned();
        if line.contains("__launcher") && line.contains(&state) {
            return Some(Kind::Launcher);
        }
        let is_inside = String::from_utf8_lossy(&read("cgroup")).contains(&group);
        let kind = if line.contains("__agent") { Kind::Agent } else { Kind::Command };
        is_inside.then_some(kind)
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((kind(pid)?, pid))).collect()
}

/// Kills a process, which may have ended by itself.
fn kill(pid: i32) {
    if let Ok(pidfd) = sys::pidfd::open(pid) {
        sys::signal::send(pidfd.as_fd(), sys::signal::SIGKILL).unwrap_or_default();
    }
}

/// Kills something. Commands and launchers more often than agents, and agents than the daemon: what they
/// do is over sooner.
fn kill_something(server: &mut Server, dice: &mut Dice) -> &'static str {
    let all = processes(server);
    let of = |wanted: Kind| -> Vec<i32> {
        all.iter().filter(|(kind, _)| *kind == wanted).map(|(_, pid)| *pid).collect()
    };
    let (what, victim) = match dice.below(10) {
        0 => ("daemon", None),
        1..4 => ("launcher", dice.one_of(&of(Kind::Launcher))),
        4..6 => ("agent", dice.one_of(&of(Kind::Agent))),
        _ => ("command", dice.one_of(&of(Kind::Command))),
    };
    if what == "daemon" {
        server.kill();
        server.restart();
    } else if let Some(pid) = victim {
        kill(pid);
    } else {
        return "nobody";
    }
    what
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn a_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_under_load_lose_nothing_leave_nothing_and_run_nothing_twice() {
    let kills = from_environment("KILLS").unwrap_or(KILLS);
    let seed = from_environment("KILLS_SEED").unwrap_or_else(a_seed);
    println!("KILLS={kills} KILLS_SEED={seed}");
    // What two kills in a row leave behind is found soon.
    let binary = env!("CARGO_BIN_EXE_sandbar");
    let mut server = Server::start_at_one_address_with(binary, &[("RECONCILE_SECONDS", "2")]);
    let before = server.look();
    let mut dice = Dice(seed);
    let mut loads = Vec::new();
    for number in 0..SANDBOXES {
        loads.push(Load::begin(&server, &format!("s{number}")).await);
    }
    let churn = Churn::new(&server);
    let (mut done, mut victims, begun) = (0, BTreeMap::<_, u64>::new(), Instant::now());
    while done < kills {
        let mut running: Vec<_> =
            loads.iter().map(|load| tokio::spawn(Arc::clone(load).run())).collect();
        running.push(tokio::spawn(Arc::clone(&churn).run()));
        for _ in 0..KILLS_PER_LOOK {
            // Any moment is as good as any other.
            tokio::time::sleep(BETWEEN).await;
            let victim = kill_something(&mut server, &mut dice);
            *victims.entry(victim).or_default() += 1;
            done += u64::from(victim != "nobody");
        }
        loads.iter().for_each(|load| load.stop());
        churn.stop();
        for load in running {
            load.await.unwrap_or_else(|failed| panic!("{failed}\n{}", server.log()));
        }
        for load in &loads {
            load.check(&server).await;
        }
        expect_agreement(&server, &format!("{done} kills")).await;
        println!("{done} kills after {:.1} s: {victims:?}", begun.elapsed().as_secs_f64());
    }
    let remains = server.get("/v1/events?kind=remainsFound").await;
    println!("{}; remains: {}", churn.acknowledged(), remains.text);
    for load in &loads {
        println!("{}", load.acknowledged());
        load.destroy().await;
    }
    expect_nothing_left(&server, before).await;
}

/// Fails unless the machine soon looks as before. A launcher that was killed is replaced when it is needed.
async fn expect_nothing_left(server: &Server, before: Leaks) {
    let (begun, before) = (Instant::now(), before.but_for_launchers());
    loop {
        let now = server.look().but_for_launchers();
        if now == before {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{now:#?}, instead of {before:#?}\n{}", server.log());
        // There is no event for "what was to be removed is removed".
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
