//! Endings by the sandbox's limits, with real v1 or v2 controllers.

use std::{
    fs::{self, File, OpenOptions},
    path::PathBuf,
};

use api::exec::Ending;

use crate::harness::{Agent, Cgroup, Limits, mount_of, v2_root};

/// Where a controller's v1 hierarchy is; none on a host that has it in the v2 tree.
fn v1_root(controller: &str) -> Option<PathBuf> {
    mount_of(|kind, options| {
        kind == "cgroup" && options.split(',').any(|option| option == controller)
    })
}

/// An agent whose commands have a limit of one controller; keep the cgroup as long as the agent.
fn limited(controller: &str, v1: (&str, &str), v2: &str, value: &str) -> (Agent, Option<Cgroup>) {
    let Some(root) = v1_root(controller) else {
        let root = v2_root();
        let enable = format!("+{controller}");
        fs::write(root.join("cgroup.subtree_control"), &enable)
            .unwrap_or_else(|error| panic!("neither v1 nor v2 has {controller}: {error}"));
        let cgroup = Cgroup::new(&root);
        fs::write(cgroup.0.join("cgroup.subtree_control"), enable).unwrap();
        fs::write(cgroup.0.join(v2), value).unwrap();
        let events = File::open(cgroup.0.join(format!("{controller}.events"))).unwrap();
        return (Agent::with(Some(cgroup), &watching(controller, Vec::new(), events)), None);
    };
    let cgroup = Cgroup::new(&root);
    fs::write(cgroup.0.join(v1.0), value).unwrap();
    let tasks = OpenOptions::new().write(true).open(cgroup.0.join("tasks")).unwrap();
    let events = File::open(cgroup.0.join(v1.1)).unwrap();
    (Agent::with(None, &watching(controller, vec![tasks], events)), Some(cgroup))
}

fn watching(controller: &str, tasks: Vec<File>, events: File) -> Limits {
    match controller {
        "pids" => Limits { tasks, pids_events: Some(events), ..Limits::default() },
        _ => Limits { tasks, memory_events: Some(events), ..Limits::default() },
    }
}

#[tokio::test]
async fn a_command_out_of_memory_says_so() {
    let (agent, cgroup) = limited(
        "memory",
        ("memory.limit_in_bytes", "memory.oom_control"),
        "memory.max",
        "33554432",
    );
    let hog = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}";

    let killed = agent.sh(&format!("exec bash -c '{}'", hog.replace('\'', "'\\''"))).await;
    let child_killed =
        agent.sh("bash -c 'x=$(head -c 100000000 /dev/zero | tr \"\\\\0\" x)'; exit $?").await;
    let fine = agent.sh("exit 7").await;

    assert_eq!(killed.ending, Ending::OutOfMemory, "{killed:?}");
    assert_eq!(child_killed.ending, Ending::OutOfMemory, "{child_killed:?}");
    assert_eq!(fine.ending, Ending::Exited { code: 7 });
    drop(agent);
    drop(cgroup);
}

#[tokio::test]
async fn a_command_out_of_process_ids_says_so() {
    let (agent, cgroup) = limited("pids", ("pids.max", "pids.events"), "pids.max", "10");
    let script = "import os,signal\n\
        try:\n  while os.fork(): pass\n  signal.pause()\n\
        except OSError: os._exit(9)";

    let result = agent
        .exec(serde_json::json!({"command": ["python3", "-c", script], "timeoutMs": 20000}))
        .await;

    assert_eq!(result.ending, Ending::PidsLimit, "{result:?}");
    drop(agent);
    if let Some(cgroup) = &cgroup {
        for pid in fs::read_to_string(cgroup.0.join("tasks")).unwrap().lines() {
            let pidfd = sys::pidfd::open(pid.parse().unwrap()).unwrap();
            sys::signal::send(std::os::fd::AsFd::as_fd(&pidfd), sys::signal::SIGKILL).unwrap();
        }
    }
    drop(cgroup);
}
