//! Terminals of the agent alone: how they end, and that they leave nothing.

use std::{fs, time::Instant};

use api::terminal::{Terminal, TerminalList};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Agent, DEADLINE, eventually, post, request};

async fn start(agent: &Agent, body: Value) -> Terminal {
    let (status, _, body) = agent.send(post("/terminals", &body)).await;
    assert_eq!(status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

async fn delete(agent: &Agent, id: &str) -> StatusCode {
    agent.send(request(Method::DELETE, &format!("/terminals/{id}"), "")).await.0
}

async fn list(agent: &Agent) -> Vec<Terminal> {
    let (_, _, body) = agent.get("/terminals").await;
    serde_json::from_slice::<TerminalList>(&body).unwrap().terminals
}

/// The agent's open descriptors.
fn descriptors(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

#[tokio::test]
async fn without_cgroups_the_session_and_its_children_are_found_and_killed() {
    let agent = Agent::start();
    let tree = "trap '' HUP; (setsid sleep 987 & sleep 988 & sleep 989) & sleep 990";
    let terminal = start(&agent, json!({"id": "t", "command": tree})).await;
    assert!(
        agent.sh("until [ $(pgrep -cf '^sleep 9[89]') -ge 4 ]; do sleep 0.01; done").await.success
    );

    assert_eq!(delete(&agent, "t").await, StatusCode::NO_CONTENT);

    assert!(!fs::exists(format!("/proc/{}", terminal.pid)).unwrap());
    assert!(agent.sh("! pgrep -f '^sleep 9[89]'").await.success);
}

#[tokio::test]
async fn terminals_leave_no_descriptor_and_no_cgroup() {
    let agent = Agent::start_with_cgroup();
    agent.sh("true").await;
    let before = descriptors(&agent);

    for _ in 0..20 {
        start(&agent, json!({"id": "killed", "command": ["sleep", "1000"]})).await;
        assert_eq!(delete(&agent, "killed").await, StatusCode::NO_CONTENT);
        start(&agent, json!({"id": "ended", "command": ["true"]})).await;
        let begun = Instant::now();
        while list(&agent).await.iter().any(|terminal| terminal.running) {
            assert!(begun.elapsed() < DEADLINE);
        }
        assert_eq!(delete(&agent, "ended").await, StatusCode::NO_CONTENT);
        let refused = post("/terminals", &json!({"command": ["no-such-program"]}));
        assert_eq!(agent.refused(refused).await.0, StatusCode::NOT_FOUND);
    }

    assert_eq!(list(&agent).await, []);
    eventually("the cgroups are gone", || agent.exec_cgroups() == 0).await;
    let begun = Instant::now();
    // A connection of the last request may still be on its way out.
    while descriptors(&agent) > before {
        assert!(begun.elapsed() < DEADLINE, "{before} were open, now {}", descriptors(&agent));
        agent.get("/health").await;
    }
}

#[tokio::test]
async fn what_a_program_leaves_in_the_background_outlives_its_terminal_s_end() {
    let agent = Agent::start_with_cgroup();
    // It has left the session before the shell ends, which the kernel tells all who are in it.
    let leave = "setsid sh -c 'touch up; until [ -e go ]; do sleep 0.01; done; touch done' >/dev/null \
                 2>&1 </dev/null & until [ -e up ]; do sleep 0.01; done; echo left";
    start(&agent, json!({"id": "t", "command": leave})).await;
    let begun = Instant::now();
    while list(&agent).await.iter().any(|terminal| terminal.running) {
        assert!(begun.elapsed() < DEADLINE);
    }

    fs::write(agent.work().join("go"), "").unwrap();
    assert!(agent.sh("until [ -e done ]; do sleep 0.01; done").await.success);
    let terminals = list(&agent).await;
    assert_eq!((terminals[0].exit_code, terminals[0].next_cursor), (Some(0), 6));
}
