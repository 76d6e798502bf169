//! Streams and answers over the death of the daemon: each goes on where it was, nothing runs twice.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says its seed"
)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{BufRead, BufReader},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt;
use testkit::{
    Server,
    api::{
        exec::{Command, Encoding, ExecEvent, ExecRequest},
        id::SandboxId,
        process::{ProcessStdin, StartProcess},
    },
    client::{Client, EventStream},
};
use tokio::task::JoinHandle;

/// Streams that a kill breaks, and how often one is broken in all.
const STREAMS: usize = 8;
const ROUNDS: usize = 200;

/// How long anything awaited may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Moments that differ each time and can be had again.
struct Dice(u64);

impl Dice {
    /// The seed is in the output of a test that failed.
    fn new() -> Self {
        let given = std::env::var("SANDBAR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
        let seed = given.unwrap_or_else(now);
        println!("SANDBAR_TEST_SEED={seed} repeats these moments");
        Self(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64, Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Counts on both outputs until the file `stop` is there. `pause` is what it does between two
/// thousands.
fn counting(name: &str, pause: &str) -> Command {
    Command::Shell(format!(
        "echo run >> runs-{name}; n=0; while [ ! -e stop ]; do seq $n $((n+999)); n=$((n+1000)); \
         echo $n >&2; {pause}; done; echo end $n"
    ))
}

/// Reads what [`counting`] wrote to its end, and checks each line. `events` counts on.
async fn check(name: String, mut stream: EventStream<ExecEvent>, events: Arc<AtomicU64>) {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let (mut next, mut marks, mut end) = (0_u64, 0_u64, None);
    while let Some(event) = stream.next().await {
        let event = event.unwrap_or_else(|error| panic!("{name}: {error}"));
        events.fetch_add(1, Ordering::Relaxed);
        match event {
            ExecEvent::Stdout { data, .. } => stdout += &data,
            ExecEvent::Stderr { data, .. } => stderr += &data,
            ExecEvent::Dropped { bytes } => panic!("{name}: {bytes} bytes are missing"),
            ExecEvent::Start { .. } => {}
            ExecEvent::Exit { exit_code, .. } => assert_eq!(exit_code, 0, "{name}"),
        }
        for line in whole_lines(&mut stdout) {
            assert!(end.is_none(), "{name}: {line:?} after the end");
            match line.strip_prefix("end ") {
                Some(last) => end = Some(last.to_owned()),
                None => {
                    assert_eq!(line, next.to_string(), "{name}");
                    next += 1;
                }
            }
        }
        for line in whole_lines(&mut stderr) {
            marks += 1000;
            assert_eq!(line, marks.to_string(), "{name}");
        }
    }
    assert_eq!((end, marks), (Some(next.to_string()), next), "{name}");
}

/// Takes the lines that have ended out of `text`.
fn whole_lines(text: &mut String) -> Vec<String> {
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    let lines: String = text.drain(..end).collect();
    lines.lines().map(str::to_owned).collect()
}

/// Asks for one small command after the other, each with its key, until told to stop; returns how
/// many there were.
async fn ask(client: Client, id: SandboxId, name: String, stop: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{name}-{count}");
        let command = Command::Shell(format!("echo {key} >> asked; sleep 0.1; echo {key}"));
        let result = client.exec_once(&id, &ExecRequest::new(command), &key).await;
        let result = result.unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(result.stdout, format!("{key}\n"));
        count += 1;
    }
    count
}

/// Half of them execs with a key, as fast as they are read; half of them processes.
async fn begin(client: &Client, id: &SandboxId) -> Vec<(JoinHandle<()>, Arc<AtomicU64>)> {
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let name = number.to_string();
        let stream = if number % 2 == 0 {
            let request = ExecRequest::new(counting(&name, ":"));
            client.exec_stream_once(id, &request, &name, None).await
        } else {
            let process: String = format!("p{number}");
            let request = StartProcess {
                command: counting(&name, "sleep 0.02"),
                id: process.parse().ok(),
                session: None,
                cwd: None,
                env: Default::default(),
                timeout_ms: None,
                stdin: ProcessStdin::Closed,
                auto_cleanup: false,
            };
            client.start_process(id, &request).await.expect("it starts");
            client.follow_process(id, &process, Some(0), Encoding::Utf8).await
        };
        let events = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(check(name, stream.expect("it begins"), Arc::clone(&events)));
        streams.push((task, events));
    }
    streams
}

/// Waits until each stream has had an event since `seen`, so that a kill breaks all of them.
async fn progress(streams: &[(JoinHandle<()>, Arc<AtomicU64>)], seen: &[u64]) {
    let begun = Instant::now();
    for ((task, events), seen) in streams.iter().zip(seen) {
        while events.load(Ordering::Relaxed) <= *seen {
            assert!(!task.is_finished(), "a stream has ended");
            assert!(begun.elapsed() < PATIENCE, "a stream does not go on");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_costs_no_stream_a_byte_and_nothing_runs_twice() {
    let mut dice = Dice::new();
    let mut server = Server::start_at_one_address(env!("CARGO_BIN_EXE_sandbar"));
    let (client, id) = (server.client(), "s".parse::<SandboxId>().expect("it is an id"));
    let streams = begin(&client, &id).await;
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = ["a", "b"]
        .map(|name| {
            tokio::spawn(ask(client.clone(), id.clone(), name.to_owned(), Arc::clone(&stop)))
        })
        .into();

    let mut seen = vec![0; STREAMS];
    for _ in 0..ROUNDS / STREAMS {
        progress(&streams, &seen).await;
        tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
        server.kill();
        seen = streams.iter().map(|(_, events)| events.load(Ordering::Relaxed)).collect();
        server.restart();
    }
    progress(&streams, &seen).await;
    stop.store(true, Ordering::Relaxed);
    let mut asked = BTreeSet::new();
    for (name, task) in ["a", "b"].iter().zip(asking) {
        let count = task.await.expect("each was answered");
        asked.extend((0..count).map(|number| format!("{name}-{number}")));
    }
    server.shell("s", "touch stop").await;
    for (task, _) in streams {
        tokio::time::timeout(PATIENCE, task).await.expect("it ends").expect("it was whole");
    }

    let runs = server.shell("s", "cat runs-*").await;
    assert_eq!(runs, "run\n".repeat(STREAMS), "each ran once");
    let ran = server.shell("s", "sort asked").await;
    let expected = asked.iter().fold(String::new(), |mut text, key| {
        writeln!(text, "{key}").expect("writing to a String cannot fail");
        text
    });
    let (mut ran, mut expected): (Vec<_>, Vec<_>) =
        (ran.lines().collect(), expected.lines().collect());
    ran.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ran, expected, "each ran once");
}

#[test]
fn a_log_that_is_followed_by_hand_goes_on_after_a_restart() {
    let mut server = Server::start_at_one_address(env!("CARGO_BIN_EXE_sandbar"));
    let script = "n=0; while [ ! -e stop ]; do echo $n; n=$((n+1)); sleep 0.01; done";
    let started = server.command(["start", "s", "--id", "p", "--", script]).output().unwrap();
    assert!(started.status.success());
    let mut following =
        server.command(["logs", "-f", "s", "p"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = 0;
    let mut read = |count: u64| {
        for line in lines.by_ref().take(count.try_into().unwrap()) {
            assert_eq!(line.unwrap(), next.to_string());
            next += 1;
        }
    };

    for _ in 0..3 {
        read(20);
        server.kill();
        server.restart();
    }
    read(20);

    assert!(server.command(["exec", "s", "touch", "stop"]).status().unwrap().success());
    read(u64::MAX);
    assert!(following.wait().unwrap().success());
}
