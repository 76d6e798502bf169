//! Commands in cgroups of their own, in a real v2 tree.

use api::exec::Ending;
use serde_json::json;

use crate::harness::{Agent, cut_off_after_ms, eventually, is_alive};

#[tokio::test]
async fn a_command_is_born_in_a_cgroup_that_goes_with_it() {
    let agent = Agent::start_with_cgroup();

    let result = agent.sh("grep ^0:: /proc/self/cgroup").await;

    assert!(result.stdout.trim().ends_with("/exec-0"), "{}", result.stdout);
    eventually("the cgroup is gone", || agent.exec_cgroups() == 0).await;
}

#[tokio::test]
async fn a_daemon_that_hid_well_dies_with_its_command() {
    let agent = Agent::start_with_cgroup();
    let script = "setsid sh -c 'setsid sleep 1000 >/dev/null 2>&1 & echo $!'; sleep 1000";

    let mut daemon = String::new();
    for timeout_ms in cut_off_after_ms() {
        let result = agent.exec(json!({"command": script, "timeoutMs": timeout_ms})).await;
        assert_eq!(result.ending, Ending::Timeout);
        daemon = result.stdout;
        if !daemon.is_empty() {
            break;
        }
    }

    eventually("the daemon is gone", || !is_alive(&daemon)).await;
    eventually("the cgroup is gone", || agent.exec_cgroups() == 0).await;
}

#[tokio::test]
async fn a_caller_that_goes_takes_hidden_daemons_along() {
    let agent = Agent::start_with_cgroup();
    let script = "setsid sh -c 'setsid sleep 1000 & echo $!'; sleep 1000";
    let mut events = agent.follow(json!({"command": script})).await;
    events.next().await.unwrap();
    let Some(api::exec::ExecEvent::Stdout { data: daemon, .. }) = events.next().await else {
        panic!("no output")
    };

    drop(events);

    eventually("the daemon is gone", || !is_alive(&daemon)).await;
}

#[tokio::test]
async fn a_server_in_the_background_keeps_its_cgroup_until_it_ends() {
    let agent = Agent::start_with_cgroup();

    let server = agent.sh("setsid sleep 1000 >/dev/null 2>&1 & echo $!").await.stdout;
    assert!(is_alive(&server));
    assert_eq!(agent.exec_cgroups(), 1);

    agent.sh(&format!("kill {server}")).await;
    eventually("the cgroup is gone", || agent.exec_cgroups() == 0).await;
}

#[tokio::test]
async fn a_program_that_is_missing_leaves_no_cgroup() {
    let agent = Agent::start_with_cgroup();
    let request = crate::harness::post("/exec", &json!({"command": ["nowhere"]}));

    agent.refused(request).await;

    eventually("the cgroup is gone", || agent.exec_cgroups() == 0).await;
}

#[tokio::test]
async fn a_fork_bomb_is_killed_whole() {
    let agent = Agent::start_with_cgroup();
    let script = "ulimit -u 300; for i in $(seq 200); do setsid sleep 1000 & done; sleep 1000";

    let result = agent.exec(json!({"command": script, "timeoutMs": 1000})).await;

    assert_eq!(result.ending, Ending::Timeout);
    eventually("the cgroup is gone", || agent.exec_cgroups() == 0).await;
}
