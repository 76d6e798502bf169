//! Terminals whose server goes, and agents that stop answering.

use std::{fs, path::PathBuf, time::Instant};

use api::terminal::{AttachTerminal, TerminalEvent};
use client::TerminalMessage;
use serde_json::json;
use testkit::{PATIENCE, Server, Viewer, reqwest::Method};
use tokio::time::timeout;

use crate::server;

#[tokio::test]
async fn a_terminal_outlives_a_killed_server_without_a_byte_lost_or_repeated() {
    const ROUNDS: usize = 5;
    const LINES: usize = 4000;
    let mut server = server();
    // A burst of lines for each key; what a burst has fits into what is kept.
    let bursts = format!(
        "stty -echo -opost; echo go; i=0; while read x; do n=0; while [ $n -lt {LINES} ]; do \
         echo $i; i=$((i+1)); n=$((n+1)); done; done; exit 3"
    );
    let mut viewer = Viewer::of(&server, &bursts).await;
    viewer.until("go\n").await;

    let mut seen = Vec::new();
    for round in 1..=ROUNDS {
        viewer.type_in("\n").await;
        // A different place in the burst each round.
        while viewer.seen.len() < 100 * round {
            viewer.message().await;
        }
        server.kill();
        while let Ok(Ok(Some(message))) = timeout(PATIENCE, viewer.connection.output.next()).await {
            if let TerminalMessage::Output(bytes) = message {
                viewer.seen.extend_from_slice(&bytes);
            }
        }
        let cursor = Some(viewer.connection.output.cursor());
        seen.append(&mut viewer.seen);
        server.restart();
        let query = AttachTerminal { cursor, create: Some(false), ..Default::default() };
        viewer = Viewer::attach_with(&server, "t", query).await;
        let last = format!("\n{}\n", round * LINES - 1);
        loop {
            seen.append(&mut viewer.seen);
            if seen.ends_with(last.as_bytes()) {
                break;
            }
            viewer.message().await;
        }
    }

    let lines: String = (0..ROUNDS * LINES).map(|line| format!("{line}\n")).collect();
    assert!(seen == lines.as_bytes(), "{}", String::from_utf8_lossy(&seen));
    viewer.type_in("\x04").await;
    assert_eq!(viewer.event().await, TerminalEvent::Exit { code: 3, signal: None });
}

#[tokio::test]
async fn a_terminal_ends_with_its_sandbox_and_its_viewer_is_told_at_once() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "t").await;

    assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);

    let end = async { while let Ok(Some(_)) = viewer.connection.output.next().await {} };
    timeout(PATIENCE, end).await.expect("the connection ends");
}

/// Stops the only sandbox's agent, and lets it go on when dropped.
struct Frozen(PathBuf);

impl Frozen {
    /// By the v2 tree's freezer, which every supported machine has.
    fn agent_of(server: &Server) -> Self {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", server.agent_pid()));
        let groups = groups.expect("the agent runs");
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let hybrid = PathBuf::from("/sys/fs/cgroup/unified");
        let tree = if hybrid.exists() { hybrid } else { "/sys/fs/cgroup".into() };
        let group = tree.join(group.expect("there is a v2 tree"));
        fs::write(group.join("cgroup.freeze"), "1").expect("the agent can be frozen");
        let is_frozen = || {
            let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
            events.lines().any(|line| line == "frozen 1")
        };
        let begun = Instant::now();
        while !is_frozen() {
            assert!(begun.elapsed() < PATIENCE, "the agent does not freeze");
            std::thread::yield_now();
        }
        Self(group)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        fs::write(self.0.join("cgroup.freeze"), "0").expect("the agent can be thawed");
    }
}

#[tokio::test]
async fn a_command_of_a_frozen_agent_does_not_hang_its_caller() {
    let server = server();
    server.shell("s", "true").await;
    let request = server.request(Method::POST, "/v1/sandboxes/s/exec");
    let call = request.json(&json!({"command": "touch began; sleep 1000"})).send();
    let call = tokio::spawn(call);
    server.shell("s", "until [ -e began ]; do sleep 0.01; done").await;

    let frozen = Frozen::agent_of(&server);
    let answer = timeout(PATIENCE, call).await.expect("an answer comes").unwrap().unwrap();
    let answer = testkit::answer(answer).await;
    drop(frozen);

    assert_eq!((answer.status, answer.code()), (502, "AGENT_UNREACHABLE"), "{}", answer.text);
    assert!(answer.text.contains("stopped or stuck"), "{}", answer.text);
    // The agent goes on, sees that the caller has gone, and ends the command.
    let gone = "while grep -qs '^sleep' /proc/[0-9]*/comm; do :; done; echo gone";
    assert_eq!(server.shell("s", gone).await, "gone\n");
}
