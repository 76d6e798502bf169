//! Idempotency keys: an exec that is asked for again.

use std::fs;

use api::{
    error::ErrorCode,
    exec::{Ending, ExecEvent, ExecResult},
    limit::{EXEC_OUTPUT_BYTES, KEPT_ANSWERS},
    process::{ProcessKind, ProcessList},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::{
    Agent, Events, cut_off_after_ms, eventually, is_alive, post, request, with, within,
};

fn keyed(key: &str, body: &Value) -> Request<Full<Bytes>> {
    with(post("/exec", body), "idempotency-key", key)
}

async fn exec(agent: &Agent, key: &str, body: &Value) -> ExecResult {
    agent.json(keyed(key, body)).await
}

async fn follow(agent: &Agent, key: &str, body: &Value, after: Option<u64>) -> Events {
    let request = keyed(key, body);
    agent
        .events(match after {
            Some(cursor) => with(request, "last-event-id", &cursor.to_string()),
            None => request,
        })
        .await
}

/// Counts its runs in the file `runs`.
fn counting(rest: &str) -> Value {
    json!({"command": format!("echo run >> runs; {rest}"), "encoding": "base64"})
}

fn runs(agent: &Agent) -> usize {
    fs::read_to_string(agent.work().join("runs")).unwrap().lines().count()
}

/// The bytes of stdout in the rest of a stream, and its last event.
async fn rest(mut events: Events) -> (Vec<u8>, Option<ExecEvent>) {
    let (mut bytes, mut last) = (Vec::new(), None);
    while let Some(event) = events.next().await {
        match &event {
            ExecEvent::Stdout { data, .. } => bytes.extend(BASE64_STANDARD.decode(data).unwrap()),
            ExecEvent::Dropped { bytes } => panic!("{bytes} bytes are missing"),
            _ => {}
        }
        last = Some(event);
    }
    (bytes, last)
}

#[tokio::test]
async fn a_request_that_is_repeated_runs_once() {
    let agent = Agent::start();
    let body = counting("echo out; echo err >&2; exit 3");

    let first = exec(&agent, "k", &body).await;
    let again = exec(&agent, "k", &body).await;
    let (streamed, last) = rest(follow(&agent, "k", &body, None).await).await;

    assert_eq!(again, first);
    assert_eq!((streamed.as_slice(), runs(&agent)), (&b"out\n"[..], 1));
    assert!(matches!(last, Some(ExecEvent::Exit { exit_code: 3, .. })));
    let processes: ProcessList = agent.json(request(Method::GET, "/processes", "")).await;
    let [process] = &*processes.processes else { panic!("{processes:?}") };
    assert_eq!((&process.id, process.kind), (&first.process_id, ProcessKind::Exec));

    let other = keyed("k", &counting("echo other"));
    let (status, error) = agent.refused(other).await;
    assert_eq!((status, error.code), (StatusCode::CONFLICT, ErrorCode::IdempotencyConflict));
    exec(&agent, "other", &body).await;
    assert_eq!(runs(&agent), 2);
    let forget = request(Method::DELETE, &format!("/processes/{}", first.process_id), "");
    assert_eq!(agent.send(forget).await.0, StatusCode::NO_CONTENT);
    exec(&agent, "k", &body).await;
    assert_eq!(runs(&agent), 3);
}

#[tokio::test]
async fn racing_requests_run_once_and_all_have_the_answer() {
    let agent = Agent::start();
    let body = counting("sleep 0.1; echo $RANDOM$RANDOM");

    let racing = (0..16).map(|_| exec(&agent, "k", &body));
    let results = within(futures_util::future::join_all(racing)).await;

    assert!(results.iter().all(|result| *result == results[0]));
    assert_eq!(runs(&agent), 1);
}

#[tokio::test]
async fn a_start_that_fails_is_told_to_all_and_may_be_repeated() {
    let agent = Agent::start();
    let body = json!({"command": ["./program"]});

    let racing = (0..4).map(|_| agent.refused(keyed("k", &body)));
    for (_, error) in within(futures_util::future::join_all(racing)).await {
        assert_eq!(error.code, ErrorCode::CommandNotFound);
    }
    agent.sh("printf '#!/bin/sh\\necho here' > program; chmod +x program").await;

    assert_eq!(exec(&agent, "k", &body).await.stdout, "here\n");
}

#[tokio::test]
async fn a_buffered_command_waits_for_its_caller() {
    let agent = Agent::start();
    let body = counting("touch on; while [ ! -e go ]; do sleep 0.01; done; echo whole");
    let mut sender = agent.connect().await;
    let first = keyed("k", &body);
    let answer = tokio::spawn(async move { sender.send_request(first).await });
    eventually("it runs", || agent.work().join("on").exists()).await;
    answer.abort();
    drop(answer.await);

    let again = exec(&agent, "k", &body);
    let (again, _) = within(futures_util::future::join(again, agent.sh("touch go"))).await;

    assert_eq!(BASE64_STANDARD.decode(again.stdout).unwrap(), b"whole\n");
    assert_eq!(runs(&agent), 1);
}

#[tokio::test]
async fn a_broken_stream_goes_on_where_it_was() {
    const LINES: u64 = 100_000;
    let agent = Agent::start();
    let body = counting(&format!("seq {LINES}"));
    let expected: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    let mut bytes = Vec::new();
    let mut after = None;
    let mut last = None;

    // Each connection is left after some events; what is under way in the sockets is lost.
    for length in 0_usize.. {
        let mut events = follow(&agent, "k", &body, after).await;
        let mut left = length % 3 + 2;
        while let Some(event) = events.next().await {
            if let ExecEvent::Stdout { data, .. } = &event {
                bytes.extend(BASE64_STANDARD.decode(data).unwrap());
            }
            assert!(!matches!(event, ExecEvent::Dropped { .. }));
            after = Some(events.cursor);
            left -= 1;
            if matches!(event, ExecEvent::Exit { .. }) {
                last = Some(event);
            }
            if left == 0 {
                break;
            }
        }
        if last.is_some() {
            break;
        }
    }

    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    assert_eq!(runs(&agent), 1);
}

#[tokio::test]
async fn a_command_goes_no_further_ahead_of_a_lost_caller_than_the_log_may_hold() {
    let agent = Agent::start();
    let body = counting("yes | head -c 50000000; echo end");
    let mut events = follow(&agent, "k", &body, None).await;
    events.next().await.unwrap();
    drop(events);
    // It waits: the writer is at its pipe.
    agent.sh("while ! grep -q pipe /proc/[0-9]*/wchan; do sleep 0.01; done").await;

    let (bytes, last) = rest(follow(&agent, "k", &body, Some(0)).await).await;

    assert_eq!(bytes.len(), 50_000_004);
    assert!(matches!(last, Some(ExecEvent::Exit { exit_code: 0, .. })));
    let peak = agent.memory_kib("VmHWM");
    assert!(peak < 64 * 1024, "{peak} KiB");
}

#[tokio::test]
async fn a_new_reader_takes_over_from_the_old_one() {
    let agent = Agent::start();
    let body = counting("while [ ! -e go ]; do sleep 0.01; done; seq 1000");
    let old = follow(&agent, "k", &body, None).await;

    let new = follow(&agent, "k", &body, None).await;
    let old = old.text().await;
    agent.sh("touch go").await;
    let (bytes, last) = rest(new).await;

    assert!(old.contains("event: error") && old.contains("RESOURCE_BUSY"), "{old}");
    assert!(!old.contains("event: exit"), "{old}");
    assert_eq!(bytes.len(), 3893);
    assert!(matches!(last, Some(ExecEvent::Exit { exit_code: 0, .. })));
}

#[tokio::test]
async fn a_stream_that_is_wanted_whole_after_all_is_collected() {
    let agent = Agent::start();
    let body = counting("seq 100000");
    let mut events = follow(&agent, "k", &body, None).await;
    events.next().await.unwrap();
    events.next().await.unwrap();

    let whole = exec(&agent, "k", &body).await;

    assert_eq!(BASE64_STANDARD.decode(whole.stdout).unwrap().len(), 588_895);
    assert_eq!((whole.dropped_bytes, runs(&agent)), (0, 1));
}

#[tokio::test]
async fn a_buffered_run_can_be_streamed_and_what_it_dropped_is_told() {
    let agent = Agent::start();
    let length = EXEC_OUTPUT_BYTES + 1000;
    let body = json!({"command": format!("yes | head -c {length}")});
    let whole = exec(&agent, "k", &body).await;
    assert_eq!(whole.dropped_bytes, 1000);

    let events = follow(&agent, "k", &body, None).await.all().await;

    let mut kept = 0;
    for event in &events {
        if let ExecEvent::Stdout { data, .. } = event {
            kept += data.len();
        }
    }
    assert_eq!(kept, EXEC_OUTPUT_BYTES);
    let [.., ExecEvent::Dropped { bytes: 1000 }, ExecEvent::Exit { .. }] = &*events else {
        panic!("{:?}", events.last())
    };
}

#[tokio::test]
async fn a_timeout_counts_also_while_nobody_is_there() {
    let agent = Agent::start();
    let mut stdout = String::new();
    for timeout_ms in cut_off_after_ms() {
        let (key, mut body) = (timeout_ms.to_string(), counting("echo partial; sleep 1000"));
        body["timeoutMs"] = json!(timeout_ms);
        let mut events = follow(&agent, &key, &body, None).await;
        events.next().await.unwrap();
        drop(events);

        let result = exec(&agent, &key, &body).await;

        assert_eq!(result.ending, Ending::Timeout);
        stdout = result.stdout;
        if !stdout.is_empty() {
            break;
        }
    }
    assert_eq!(BASE64_STANDARD.decode(stdout).unwrap(), b"partial\n");
}

#[tokio::test]
async fn a_command_that_is_to_be_kept_runs_on_without_its_caller() {
    let agent = Agent::start();
    let command = "echo $$; while [ ! -e go ]; do sleep 0.01; done; yes | head -c 3000000";
    let body = json!({"command": command, "onDisconnect": "keep"});
    for (number, key) in [None, Some("k")].into_iter().enumerate() {
        drop(fs::remove_file(agent.work().join("go")));
        let mut events = match key {
            None => agent.follow(body.clone()).await,
            Some(key) => follow(&agent, key, &body, None).await,
        };
        let Some(ExecEvent::Start { process_id, .. }) = events.next().await else { panic!() };
        let Some(ExecEvent::Stdout { data: pid, .. }) = events.next().await else { panic!() };
        drop(events);
        agent.sh("touch go").await;

        let ended = agent.wait(process_id.as_str(), json!({"type": "exit"})).await.process;

        assert!(!is_alive(&pid));
        assert_eq!(ended.ending, Some(Ending::Exited { code: 0 }));
        assert_eq!(ended.log.next_cursor, 3_000_000 + pid.len() as u64);
        let all: ProcessList = agent.json(request(Method::GET, "/processes", "")).await;
        assert_eq!(all.processes.len(), number + 1, "it is remembered");
    }
}

#[tokio::test]
async fn streams_that_cannot_go_on_are_refused() {
    let agent = Agent::start();
    let body = counting("echo x");
    let events = |request| with(request, "accept", "text/event-stream");
    let after = |request, cursor: &str| with(events(request), "last-event-id", cursor);

    let (_, error) = agent.refused(after(keyed("k", &body), "0")).await;
    assert_eq!(error.code, ErrorCode::ProcessNotFound, "nothing of it is known");
    let (_, error) = agent.refused(after(post("/exec", &body), "0")).await;
    assert_eq!(error.code, ErrorCode::ValidationFailed, "without a key there is no way back");
    assert!(!agent.work().join("runs").exists(), "nothing has run");

    exec(&agent, "k", &body).await;
    for cursor in ["3", "-1", "x", ""] {
        let (_, error) = agent.refused(after(keyed("k", &body), cursor)).await;
        assert_eq!(error.code, ErrorCode::ValidationFailed, "{cursor:?}");
    }
    for key in ["", "a b", &"k".repeat(256)] {
        let (_, error) = agent.refused(keyed(key, &body)).await;
        assert_eq!(error.code, ErrorCode::ValidationFailed, "{key:?}");
    }
    assert_eq!(runs(&agent), 1);
}

#[tokio::test]
async fn answers_are_forgotten_by_number() {
    let agent = Agent::start();
    let body = json!({"command": ["true"]});
    let first = exec(&agent, "0", &body).await;
    for number in 1..KEPT_ANSWERS {
        exec(&agent, &number.to_string(), &body).await;
    }
    assert_eq!(exec(&agent, "0", &body).await.process_id, first.process_id);
    exec(&agent, "one-more", &body).await;

    assert_ne!(exec(&agent, "0", &body).await.process_id, first.process_id);
    let peak = agent.memory_kib("RssAnon");
    assert!(peak < 8 * 1024, "{peak} KiB");
}
