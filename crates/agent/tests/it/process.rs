//! Processes: started, listed, read, fed, ended, forgotten.

use std::{fs, time::Duration};

use api::{
    error::ErrorCode,
    exec::{Ending, ExecEvent},
    limit::{ENDED_PROCESSES, ENDED_PROCESSES_BYTES, LOG_BYTES, PROCESSES_PER_SANDBOX},
    process::{OutputStream, Process, ProcessKind, ProcessList, ProcessLogs, StdinWritten},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::{Agent, cut_off_after_ms, eventually, is_alive, post, request, with, within};

fn get(url: &str) -> Request<Full<Bytes>> {
    request(Method::GET, url, "")
}

fn delete(name: &str) -> Request<Full<Bytes>> {
    request(Method::DELETE, &format!("/processes/{name}"), "")
}

async fn list(agent: &Agent, query: &str) -> Vec<Process> {
    agent.json::<ProcessList>(get(&format!("/processes{query}"))).await.processes
}

fn ids(processes: &[Process]) -> Vec<&str> {
    processes.iter().map(|process| process.id.as_str()).collect()
}

async fn exit(agent: &Agent, name: &str) -> Process {
    agent.wait(name, json!({"type": "exit"})).await.process
}

async fn logs(agent: &Agent, name: &str, query: &str) -> ProcessLogs {
    agent.json(get(&format!("/processes/{name}/logs{query}"))).await
}

/// What one output of a log says, in base64.
fn bytes(logs: &ProcessLogs, stream: OutputStream) -> Vec<u8> {
    let records = logs.records.iter().filter(|record| record.stream == stream);
    records.flat_map(|record| BASE64_STANDARD.decode(&record.data).unwrap()).collect()
}

async fn code(agent: &Agent, request: Request<Full<Bytes>>) -> ErrorCode {
    agent.refused(request).await.1.code
}

#[tokio::test]
async fn a_process_is_started_found_listed_and_forgotten() {
    let agent = Agent::start();

    let started =
        agent.start_process(json!({"command": "echo out; sleep 1000", "id": "web"})).await;

    assert_eq!((started.id.as_str(), started.kind), ("web", ProcessKind::Process));
    assert_eq!(started.command, "echo out; sleep 1000");
    assert!(started.running && started.pid > 1 && started.started_at_ms > 0, "{started:?}");
    assert_eq!(agent.process(&started.pid.to_string()).await.id, started.id);
    let generated = agent.start_process(json!({"command": ["true"]})).await;
    assert!(generated.id.as_str().starts_with("proc_"), "{}", generated.id);
    let ended = exit(&agent, generated.id.as_str()).await;
    assert_eq!((ended.ending, ended.exit_code), (Some(Ending::Exited { code: 0 }), Some(0)));
    assert!(!ended.running && ended.ended_at_ms >= Some(ended.started_at_ms));

    assert_eq!(ids(&list(&agent, "").await), ["web", generated.id.as_str()]);
    assert_eq!(ids(&list(&agent, "?running=true").await), ["web"]);
    assert_eq!(ids(&list(&agent, "?running=false").await), [generated.id.as_str()]);
    assert!(list(&agent, "?kind=exec").await.is_empty());

    assert_eq!(code(&agent, delete("web")).await, ErrorCode::ResourceBusy);
    let killed = agent.kill("web", json!({})).await;
    assert_eq!((killed.ending, killed.exit_code), (Some(Ending::Killed { signal: 15 }), Some(143)));
    assert_eq!(agent.send(delete("web")).await.0, StatusCode::NO_CONTENT);
    for name in ["web", &started.pid.to_string(), "never", "a%2Fb", "%ff"] {
        let found = code(&agent, get(&format!("/processes/{name}"))).await;
        assert_eq!(found, ErrorCode::ProcessNotFound, "{name}");
    }
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing() {
    let agent = Agent::start();
    let start = |body: Value| post("/processes", &body);
    for (body, expected) in [
        (json!({"command": ["nowhere"], "id": "p"}), ErrorCode::CommandNotFound),
        (json!({"command": ["/etc/passwd"], "id": "p"}), ErrorCode::PermissionDenied),
        (json!({"command": "x", "cwd": "nowhere", "id": "p"}), ErrorCode::FileNotFound),
        (json!({"command": "", "id": "p"}), ErrorCode::InvalidCommand),
        (json!({"command": "x", "timeoutMs": 0, "id": "p"}), ErrorCode::ValidationFailed),
        (json!({"command": "x", "id": "1"}), ErrorCode::ValidationFailed),
        (json!({"command": "x", "stdin": "text"}), ErrorCode::ValidationFailed),
    ] {
        assert_eq!(code(&agent, start(body.clone())).await, expected, "{body}");
    }

    assert!(list(&agent, "").await.is_empty());
    assert!(agent.start_process(json!({"command": "true", "id": "p"})).await.pid > 1);
}

#[tokio::test]
async fn an_id_is_given_once() {
    let agent = Agent::start();
    let start = || post("/processes", &json!({"command": ["sleep", "1000"], "id": "one"}));

    let racing = (0..8).map(|_| agent.send(start()));
    let mut statuses: Vec<u16> = within(futures_util::future::join_all(racing))
        .await
        .into_iter()
        .map(|(status, _, _)| status.as_u16())
        .collect();

    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(code(&agent, start()).await, ErrorCode::ProcessExists);
    agent.kill("one", json!({})).await;
    assert_eq!(code(&agent, start()).await, ErrorCode::ProcessExists);
    agent.send(delete("one")).await;
    assert_eq!(agent.send(start()).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_log_has_both_outputs_byte_for_byte_from_any_cursor() {
    let agent = Agent::start();
    let script = "import os\n\
        for i in range(300): os.write(1 + i % 2, bytes([i % 256]) * (i + 1))";
    agent.start_process(json!({"command": ["python3", "-c", script], "id": "p"})).await;
    let log = exit(&agent, "p").await.log;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for i in 0..300_u32 {
        let output = if i % 2 == 0 { &mut stdout } else { &mut stderr };
        output.extend(vec![u8::try_from(i % 256).unwrap(); usize::try_from(i).unwrap() + 1]);
    }

    let whole = logs(&agent, "p", "?encoding=base64").await;

    assert_eq!(bytes(&whole, OutputStream::Stdout), stdout);
    assert_eq!(bytes(&whole, OutputStream::Stderr), stderr);
    assert_eq!((whole.next_cursor, whole.dropped_bytes, whole.running), (45150, 0, false));
    assert_eq!((log.first_cursor, log.next_cursor, log.dropped_bytes), (0, 45150, 0));
    for cursor in [1, 77, 20_000, 45_149, 45_150] {
        let rest = logs(&agent, "p", &format!("?encoding=base64&cursor={cursor}")).await;
        let length =
            bytes(&rest, OutputStream::Stdout).len() + bytes(&rest, OutputStream::Stderr).len();
        assert_eq!(cursor + length as u64, 45_150);
        assert!(stdout.ends_with(&bytes(&rest, OutputStream::Stdout)));
        assert!(stderr.ends_with(&bytes(&rest, OutputStream::Stderr)));
    }
    let after = get("/processes/p/logs?cursor=45151");
    assert_eq!(code(&agent, after).await, ErrorCode::ValidationFailed);
}

#[tokio::test]
async fn a_log_that_grows_is_read_in_steps_without_cutting_characters() {
    let agent = Agent::start();
    let script = "printf 'a\\342'; read x; printf '\\202\\254z\\342\\202'";
    let body = json!({"command": script, "id": "p", "stdin": "open"});
    agent.start_process(body).await;
    agent.wait("p", json!({"type": "log", "text": "a"})).await;
    let text = |logs: &ProcessLogs| {
        logs.records.iter().map(|record| record.data.as_str()).collect::<String>()
    };

    let mut first = logs(&agent, "p", "").await;
    while first.next_cursor < 2 {
        first = logs(&agent, "p", "").await;
    }
    assert_eq!((text(&first).as_str(), first.next_cursor, first.running), ("a", 2, true));
    agent.json::<StdinWritten>(request(Method::POST, "/processes/p/stdin", "\n")).await;
    exit(&agent, "p").await;
    let second = logs(&agent, "p", "?cursor=2").await;

    assert_eq!((text(&second).as_str(), second.running), ("€z\u{fffd}", false));
}

#[tokio::test]
async fn a_followed_log_goes_on_after_each_event() {
    let agent = Agent::start();
    let script = "for i in $(seq 40); do echo out $i; echo err $i >&2; sleep 0.002; done; exit 3";
    agent.start_process(json!({"command": script, "id": "p"})).await;
    let follow = |cursor: u64| {
        let request = get("/processes/p/logs?follow=true");
        agent.events(with(request, "last-event-id", &cursor.to_string()))
    };

    let mut events = follow(0).await;
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push((events.cursor, event));
    }

    let Some((_, ExecEvent::Exit { exit_code: 3, .. })) = seen.last() else { panic!("{seen:?}") };
    let expected: String = (1..=40).map(|i| format!("out {i}\n")).collect();
    let stdout = |events: &[(u64, ExecEvent)]| {
        let texts = events.iter().filter_map(|(_, event)| match event {
            ExecEvent::Stdout { data, .. } => Some(data.as_str()),
            _ => None,
        });
        texts.collect::<String>()
    };
    assert_eq!(stdout(&seen), expected);
    for (index, (cursor, _)) in seen.iter().enumerate().step_by(7) {
        let mut rest = seen.get(..=index).unwrap().to_vec();
        let mut events = follow(*cursor).await;
        while let Some(event) = events.next().await {
            rest.push((events.cursor, event));
        }
        assert_eq!(stdout(&rest), expected, "resumed after {cursor}");
    }
    let not_followed = agent.events(get("/processes/p/logs")).await.all().await;
    assert!(matches!(not_followed.last(), Some(ExecEvent::Exit { .. })));
}

#[tokio::test]
async fn what_is_not_followed_ends_with_what_there_is() {
    let agent = Agent::start();
    agent.start_process(json!({"command": "echo here; sleep 1000", "id": "p"})).await;
    agent.wait("p", json!({"type": "log", "text": "here"})).await;

    let events = agent.events(get("/processes/p/logs")).await.all().await;

    assert!(matches!(&*events, [ExecEvent::Stdout { data, .. }] if data == "here\n"), "{events:?}");
}

#[tokio::test]
async fn a_flood_is_bounded_and_what_is_missed_is_counted() {
    const BYTES: u64 = 200_000_000;
    let agent = Agent::start();
    let command =
        format!("touch on; while [ ! -e go ]; do sleep 0.01; done; yes x | head -c {BYTES}");
    agent.start_process(json!({"command": command, "id": "flood"})).await;
    let mut lagging = agent.events(get("/processes/flood/logs?follow=true")).await;
    fs::write(agent.work().join("go"), "").unwrap();

    let ended = exit(&agent, "flood").await;

    assert_eq!(ended.ending, Some(Ending::Exited { code: 0 }), "nobody is waited for");
    assert_eq!(ended.log.next_cursor, BYTES);
    assert_eq!(ended.log.first_cursor, ended.log.dropped_bytes);
    let kept = BYTES - ended.log.dropped_bytes;
    assert!((LOG_BYTES as u64 / 2..=LOG_BYTES as u64).contains(&kept), "{kept}");
    let (mut read, mut missed) = (0, 0);
    while let Some(event) = lagging.next().await {
        match event {
            ExecEvent::Stdout { data, .. } => read += data.len() as u64,
            ExecEvent::Dropped { bytes } => missed += bytes,
            _ => {}
        }
    }
    assert!(missed > 0);
    assert_eq!((read + missed, lagging.cursor), (BYTES, BYTES));
    let whole = logs(&agent, "flood", "?cursor=0").await;
    assert_eq!((whole.dropped_bytes, whole.next_cursor), (ended.log.dropped_bytes, BYTES));
    let peak = agent.memory_kib("VmHWM");
    assert!(peak < 64 * 1024, "{peak} KiB");
}

#[tokio::test]
async fn stdin_is_written_in_pieces_and_closed() {
    let agent = Agent::start();
    agent.start_process(json!({"command": "cat; echo end", "id": "cat", "stdin": "open"})).await;
    let write = |query: &str, body: &'static str| {
        agent.json::<StdinWritten>(request(
            Method::POST,
            &format!("/processes/cat/stdin{query}"),
            body,
        ))
    };

    assert_eq!(write("", "one ").await.written_bytes, 4);
    agent.wait("cat", json!({"type": "log", "text": "one "})).await;
    assert_eq!(write("", "").await.written_bytes, 0);
    assert_eq!(write("?close=true", "two\n").await.written_bytes, 4);

    exit(&agent, "cat").await;
    let logs = logs(&agent, "cat", "?encoding=base64").await;
    assert_eq!(bytes(&logs, OutputStream::Stdout), b"one two\nend\n");
}

#[tokio::test]
async fn a_process_that_does_not_read_holds_its_writers_back() {
    let agent = Agent::start();
    let script = "while [ ! -e go ]; do sleep 0.01; done; exec cat";
    agent.start_process(json!({"command": script, "id": "p", "stdin": "open"})).await;
    let write = |fill: &str, query: &str| {
        let body = fill.repeat(1_000_000);
        agent.json::<StdinWritten>(request(
            Method::POST,
            &format!("/processes/p/stdin{query}"),
            body,
        ))
    };
    let (first, second) = (write("a", ""), write("b", ""));
    let both = futures_util::future::join(first, second);
    tokio::pin!(both);

    let early = tokio::time::timeout(Duration::from_millis(200), both.as_mut()).await;
    assert!(early.is_err(), "the pipe holds far less");
    fs::write(agent.work().join("go"), "").unwrap();
    let (first, second) = within(both).await;
    assert_eq!((first.written_bytes, second.written_bytes), (1_000_000, 1_000_000));
    write("", "?close=true").await;
    exit(&agent, "p").await;

    let read = bytes(&logs(&agent, "p", "?encoding=base64").await, OutputStream::Stdout);
    assert_eq!(read.len(), 2_000_000);
    assert!(read.is_sorted() || read.iter().rev().is_sorted(), "writers do not mix");
}

#[tokio::test]
async fn input_for_nobody_is_refused() {
    let agent = Agent::start();
    // More than a pipe holds, and less than the sockets do: this client, unlike the daemon's, does
    // not read an answer while it cannot write.
    let write = |name: &str| {
        request(Method::POST, &format!("/processes/{name}/stdin"), "x".repeat(150_000))
    };
    agent.start_process(json!({"command": "sleep 1000", "id": "closed"})).await;
    assert_eq!(code(&agent, write("closed")).await, ErrorCode::StdinClosed);

    let script = "exec 0<&-; echo on; sleep 1000";
    agent.start_process(json!({"command": script, "id": "closes", "stdin": "open"})).await;
    agent.wait("closes", json!({"type": "log", "text": "on"})).await;
    assert_eq!(code(&agent, write("closes")).await, ErrorCode::StdinClosed);

    agent.start_process(json!({"command": "sleep 1000", "id": "ends", "stdin": "open"})).await;
    let writing = agent.refused(write("ends"));
    let killing = agent.kill("ends", json!({"graceMs": 0}));
    let ((_, error), _) = within(futures_util::future::join(writing, killing)).await;
    assert_eq!(error.code, ErrorCode::ProcessEnded);
    assert!(error.details["writtenBytes"].as_u64() <= Some(1 << 17), "{error:?}");
    assert_eq!(code(&agent, write("ends")).await, ErrorCode::ProcessEnded);
    assert_eq!(code(&agent, write("never")).await, ErrorCode::ProcessNotFound);
}

#[tokio::test]
async fn a_signal_reaches_the_whole_tree() {
    let agent = Agent::start();
    let script = "trap 'echo parent' USR1; \
        (trap 'echo child' USR1; echo ready; while :; do sleep 0.01; done) & \
        while :; do sleep 0.01; done";
    agent.start_process(json!({"command": script, "id": "p"})).await;
    agent.wait("p", json!({"type": "log", "text": "ready"})).await;
    let signal = |signal: Value| post("/processes/p/signal", &json!({"signal": signal}));

    assert_eq!(agent.send(signal(json!("USR1"))).await.0, StatusCode::NO_CONTENT);
    agent.wait("p", json!({"type": "log", "text": "parent"})).await;
    agent.wait("p", json!({"type": "log", "text": "child"})).await;

    for bad in [json!("NOPE"), json!(0), json!(65), json!(-1), json!(1.5), json!(null)] {
        assert_eq!(code(&agent, signal(bad)).await, ErrorCode::ValidationFailed);
    }
    agent.send(signal(json!(9))).await;
    assert_eq!(exit(&agent, "p").await.ending, Some(Ending::Signaled { signal: 9 }));
    assert_eq!(code(&agent, signal(json!(9))).await, ErrorCode::ProcessEnded);
}

#[tokio::test]
async fn a_kill_gives_the_whole_tree_its_grace() {
    let agent = Agent::start_with_cgroup();
    // The leader ends of the signal at once; its child has something to write yet.
    let script = "(trap 'sleep 0.3; echo saved; exit' TERM; echo ready; while :; do sleep 0.01; done) & wait";
    agent.start_process(json!({"command": script, "id": "p"})).await;
    agent.wait("p", json!({"type": "log", "text": "ready"})).await;

    let killed = agent.kill("p", json!({"graceMs": 20_000})).await;

    assert_eq!(killed.ending, Some(Ending::Killed { signal: 15 }));
    let logs = logs(&agent, "p", "?encoding=base64").await;
    assert_eq!(bytes(&logs, OutputStream::Stdout), b"ready\nsaved\n");
    eventually("the cgroup is gone", || agent.exec_cgroups() == 0).await;
}

#[tokio::test]
async fn who_ignores_the_signal_is_killed_after_the_grace() {
    let agent = Agent::start_with_cgroup();
    let script = "trap '' TERM INT; setsid sh -c 'setsid sleep 1000 & echo $!'; sleep 1000";
    agent.start_process(json!({"command": script, "id": "p"})).await;
    let daemon = agent.wait("p", json!({"type": "log", "pattern": "^[0-9]+$"})).await;
    let daemon = daemon.line.unwrap().text;

    let killed = agent.kill("p", json!({"signal": "INT", "graceMs": 300})).await;

    assert_eq!((killed.ending, killed.exit_code), (Some(Ending::Killed { signal: 9 }), Some(137)));
    assert!(!is_alive(&daemon));
    let (started, ended) = (killed.started_at_ms, killed.ended_at_ms.unwrap());
    assert!(ended - started >= 300, "{}", ended - started);
}

#[tokio::test]
async fn what_an_ended_process_left_is_killed_too() {
    let agent = Agent::start_with_cgroup();
    let script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!";
    agent.start_process(json!({"command": script, "id": "p"})).await;
    let ended = exit(&agent, "p").await;
    let daemon = agent.wait("p", json!({"type": "log", "pattern": "."})).await.line.unwrap().text;
    assert!(is_alive(&daemon));

    let killed = agent.kill("p", json!({})).await;

    assert_eq!(killed.ending, ended.ending);
    assert!(!is_alive(&daemon));
    eventually("the cgroup is gone", || agent.exec_cgroups() == 0).await;
    agent.kill("p", json!({})).await;
}

#[tokio::test]
async fn all_processes_are_killed_and_no_exec() {
    let agent = Agent::start();
    for script in ["sleep 1000", "trap '' TERM; sleep 1000", "true"] {
        agent.start_process(json!({"command": script})).await;
    }
    let ended = list(&agent, "").await.pop().unwrap();
    exit(&agent, ended.id.as_str()).await;
    let mut exec = agent.follow(json!({"command": "sleep 1000"})).await;
    exec.next().await.unwrap();

    let killed: Value = agent.json(post("/processes:kill", &json!({"graceMs": 100}))).await;

    assert_eq!(killed, json!({"killed": 2}));
    let running = list(&agent, "?running=true").await;
    assert_eq!(running.iter().map(|process| process.kind).collect::<Vec<_>>(), [ProcessKind::Exec]);
    let killed = agent.kill(running[0].id.as_str(), json!({})).await;
    assert_eq!(killed.ending, Some(Ending::Killed { signal: 15 }));
    let last = exec.all().await.pop();
    assert!(matches!(last, Some(ExecEvent::Exit { exit_code: 143, .. })), "{last:?}");
    assert!(list(&agent, "?kind=exec").await.is_empty());
}

#[tokio::test]
async fn ended_processes_are_forgotten_by_number_and_by_bytes() {
    let agent = Agent::start();
    for number in 0..=ENDED_PROCESSES {
        agent.start_process(json!({"command": ["true"], "id": format!("p{number}")})).await;
        exit(&agent, &format!("p{number}")).await;
    }
    assert_eq!(code(&agent, get("/processes/p0")).await, ErrorCode::ProcessNotFound);
    assert_eq!(list(&agent, "").await.len(), ENDED_PROCESSES);

    let logs = ENDED_PROCESSES_BYTES / LOG_BYTES;
    for number in 0..=logs {
        let command = format!("head -c {LOG_BYTES} /dev/zero");
        agent.start_process(json!({"command": command, "id": format!("large{number}")})).await;
        exit(&agent, &format!("large{number}")).await;
    }
    let left = list(&agent, "").await;
    assert!(left.iter().all(|process| process.id.as_str() != "large0"), "{:?}", ids(&left));
    let bytes: u64 = left.iter().map(|p| p.log.next_cursor - p.log.first_cursor).sum();
    assert!(bytes > (ENDED_PROCESSES_BYTES - LOG_BYTES) as u64 / 2, "{bytes}");
    assert!(bytes <= ENDED_PROCESSES_BYTES as u64, "{bytes}");
    let last = format!("large{logs}");
    assert_eq!(left.last().unwrap().id.as_str(), last);
    agent.send(delete(&last)).await;
}

#[tokio::test]
async fn a_process_that_is_to_be_forgotten_goes_when_nobody_follows_it() {
    let agent = Agent::start();
    let start = |id: &str, command: &str| {
        agent.start_process(json!({"command": command, "id": id, "autoCleanup": true}))
    };
    start("alone", "true").await;
    let start_time = std::time::Instant::now();
    while agent.send(get("/processes/alone")).await.0 != StatusCode::NOT_FOUND {
        assert!(start_time.elapsed() < crate::harness::DEADLINE);
    }

    start("followed", "while [ ! -e go ]; do sleep 0.01; done; yes | head -c 4000000").await;
    let events = agent.events(get("/processes/followed/logs?follow=true")).await;
    fs::write(agent.work().join("go"), "").unwrap();
    // The sockets do not hold as much, so its follower is still on the way to the end.
    exit(&agent, "followed").await;
    assert!(!agent.process("followed").await.running);
    drop(events);
    let start_time = std::time::Instant::now();
    while agent.send(get("/processes/followed")).await.0 != StatusCode::NOT_FOUND {
        assert!(start_time.elapsed() < crate::harness::DEADLINE);
    }
}

#[tokio::test]
async fn a_process_has_a_directory_an_environment_and_a_time() {
    let agent = Agent::start();
    let mut written = Vec::new();
    for timeout_ms in cut_off_after_ms() {
        let id = format!("p{timeout_ms}");
        let body = json!({
            "command": "echo $(pwd) $FROM ${HOME-none} $NEW; cat; sleep 1000", "id": id,
            "cwd": "/tmp", "env": {"HOME": null, "NEW": "x"}, "timeoutMs": timeout_ms
        });
        agent.start_process(body).await;

        let ended = exit(&agent, &id).await;

        assert_eq!((ended.ending, ended.exit_code), (Some(Ending::Timeout), Some(124)));
        written = bytes(&logs(&agent, &id, "?encoding=base64").await, OutputStream::Stdout);
        if !written.is_empty() {
            break;
        }
    }
    assert_eq!(written, b"/tmp config none x\n");
}

#[tokio::test]
async fn one_process_too_many_is_told_to_wait_and_execs_have_places_of_their_own() {
    let agent = Agent::start();
    for _ in 0..PROCESSES_PER_SANDBOX {
        agent.start_process(json!({"command": ["sleep", "1000"]})).await;
    }

    let body = json!({"command": ["true"]});
    let (status, headers, _) = agent.send(post("/processes", &body)).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(agent.exec(body).await.exit_code, 0);

    agent.json::<Value>(post("/processes:kill", &json!({"graceMs": 0}))).await;
    agent.start_process(json!({"command": ["true"]})).await;
}

#[tokio::test]
async fn a_caller_who_kills_and_goes_has_killed() {
    let agent = Agent::start();
    let script = "trap 'echo told' TERM; echo on; while :; do sleep 0.01; done";
    let started = agent.start_process(json!({"command": script})).await;
    let name = started.id.as_str();
    agent.wait(name, json!({"type": "log", "text": "on"})).await;

    // Who kills is there until the process is told, or for as long as it takes to end it.
    tokio::select! {
        _ = agent.kill(name, json!({"graceMs": 1000})) => {}
        _ = agent.wait(name, json!({"type": "log", "text": "told"})) => {}
    }

    assert_eq!(exit(&agent, name).await.ending, Some(Ending::Killed { signal: 9 }));
}
