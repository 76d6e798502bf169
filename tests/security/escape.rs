//! Escapes and privileges.

use std::process::Command;

use serde_json::json;

use crate::{
    attack::{self, APART, ESCAPE, facts_of_the_host},
    server,
};

/// Of section E; the ids are in `attacks/escape.py`.
#[tokio::test]
async fn probes_do_not_escape() {
    let server = attack::server();
    let facts = json!({"host": facts_of_the_host()});

    let held = attack::in_a_sandbox(&server, ESCAPE, &facts).await;

    attack::judge("escape", &held, &attack::in_the_control_jail(ESCAPE, &APART, &facts));
    assert_eq!(server.shell("s", "echo alive").await, "alive\n");
}

/// E31, E32, E33
#[tokio::test]
async fn cannot_touch_the_agent() {
    let server = server();
    for attempt in [
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "head -c1 /proc/1/mem",
        "readlink /proc/1/fd/3",
        "cat /proc/1/fd/3",
        "readlink /proc/1/cwd",
        "ls /proc/1/root/",
        "cat /proc/1/exe > /dev/null",
        "echo x > /proc/1/exe",
        "prlimit --pid 1 --nofile=8",
        "prlimit --pid 1 --cpu=1:1",
        "python3 -c 'import ctypes; exit(0 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else 1)'",
    ] {
        let verdict = format!("({attempt}) >/dev/null 2>&1 && echo BROKEN || echo HELD");
        assert_eq!(server.shell("s", &verdict).await, "HELD\n", "{attempt}");
    }
    server
        .post("/v1/sandboxes/s/exec", &json!({"command": "kill -9 1; kill -STOP 1; kill -9 -1"}))
        .await;
    assert_eq!(server.shell("s", "echo alive").await, "alive\n");
}

/// E14: a node that came to be in a sandbox is refused by the kernel all the same. The nodes are made
/// by the host's root, because nothing inside can; one of an allowed device shows that they would work.
#[tokio::test]
async fn a_device_node_that_came_to_be_in_a_sandbox_opens_nothing() {
    let server = server();
    assert_eq!(server.shell("s", "echo ready").await, "ready\n");
    let dev = format!("/proc/{}/root/dev", server.agent_pid());
    // Null again; the kernel's log; the control of loop devices; the first loop device.
    for (name, kind, major, minor) in
        [("own", 'c', 1, 3), ("log", 'c', 1, 11), ("control", 'c', 10, 237), ("disk", 'b', 7, 0)]
    {
        let made = Command::new("mknod")
            .args(["--mode=666", &format!("{dev}/{name}"), &kind.to_string()])
            .args([major.to_string(), minor.to_string()])
            .status();
        assert!(made.expect("mknod runs").success(), "{name}");
    }

    let open = "for node in own log control disk; do \
                (exec < /dev/$node) 2> /tmp/why && echo $node opens || \
                { grep -o 'Operation not permitted' /tmp/why || cat /tmp/why; }; done";
    let refused = "Operation not permitted\n";
    assert_eq!(server.shell("s", open).await, format!("own opens\n{}", refused.repeat(3)));
    // The same nodes open outside of it: what refuses is about the processes of the sandbox.
    let outside = std::fs::File::open(format!("{dev}/control"));
    outside.expect("the host's root opens what the sandbox may not");
}

/// E06, without the filter: whoever gets rid of it, the agent for instance, makes no namespace either.
#[tokio::test]
async fn without_the_filter_there_are_no_namespaces_inside_either() {
    let server = server();
    assert_eq!(server.shell("s", "echo ready").await, "ready\n");
    let agent = server.agent_pid().to_string();

    for kind in ["--user", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--time"] {
        // From the host, as the sandbox's root, with every capability there.
        let made = Command::new("nsenter")
            .args(["--user", "--target", &agent, "--", "unshare", kind, "true"])
            .output()
            .expect("nsenter runs");
        let why = String::from_utf8_lossy(&made.stderr);
        assert!(!made.status.success() && why.contains("No space left"), "{kind}: {why}");
    }
}

/// E35
#[tokio::test]
async fn a_working_directory_is_never_of_the_host() {
    let server = server();
    let host = std::fs::read_to_string("/etc/machine-id").unwrap_or_else(|_| "none".to_owned());

    let cwds = (3..16)
        .map(|n| format!("/proc/self/fd/{n}"))
        .chain(["/proc/1/cwd".to_owned(), "/proc/1/root".to_owned()]);
    for cwd in cwds {
        let body = json!({"command": "cat ../../../etc/machine-id etc/machine-id 2>/dev/null; ls -d /proc/self/cwd/../../..", "cwd": cwd});
        let answer = server.post("/v1/sandboxes/s/exec", &body).await;
        assert!(!answer.text.contains(host.trim()), "{cwd}: {}", answer.text);
    }
}

/// E40
#[tokio::test]
async fn a_thousand_commands_at_once_inherit_nothing() {
    let server = server();
    // 3 is the directory that `ls` itself reads.
    let look =
        "for i in $(seq 40); do [ \"$(ls /proc/self/fd | xargs)\" = '0 1 2 3' ] || exit 1; done";

    futures_util::future::join_all((0..25).map(|_| server.shell("s", look))).await;
}

/// E51
#[tokio::test]
async fn every_way_to_start_a_program_is_under_the_filter() {
    let server = server();
    let look = "grep -E '^(NoNewPrivs|Seccomp|Seccomp_filters|CapBnd):' /proc/self/status | xargs";
    // The jail's, the one of calls that the agent answers, and that of commands.
    let confined = "CapBnd: 00000000800405fb NoNewPrivs: 1 Seccomp: 2 Seccomp_filters: 3\n";

    assert_eq!(server.shell("s", look).await, confined);
    let session = json!({"command": look, "session": "a"});
    let session = server.post("/v1/sandboxes/s/exec", &session).await;
    assert_eq!(session.json["stdout"], confined);
    let process = format!("{look} > /tmp/process; echo done");
    server.start_process("s", &process, "done").await;
    assert_eq!(server.shell("s", "cat /tmp/process").await, confined);
    let background = format!(
        "(setsid nohup sh -c \"{look} > /tmp/daemon; mv /tmp/daemon /tmp/d\" &) ; \
        for i in $(seq 6000); do [ -e /tmp/d ] && exec cat /tmp/d; sleep 0.01; done; exit 1"
    );
    assert_eq!(server.shell("s", &background).await, confined);
}

/// E57: what a sandbox says about users, libraries and names is for its own programs.
#[tokio::test]
async fn files_of_a_sandbox_are_not_read_by_the_server() {
    let server = server();
    let poison = "for f in passwd group nsswitch.conf ld.so.preload ld.so.cache localtime; do \
                  rm -f /etc/$f; printf '/tmp/evil.so\\n' > /etc/$f; done";
    server.shell("s", poison).await;

    // The programs of the sandbox complain about their libraries; the server starts them all the same.
    let run = json!({"command": ["/bin/sh", "-c", "echo well"]});
    let answer = server.post("/v1/sandboxes/s/exec", &run).await;
    assert_eq!(answer.json["stdout"], "well\n", "{}", answer.text);
    let content = server.get("/v1/sandboxes/s/files/etc/passwd").await;
    assert_eq!(content.text, "/tmp/evil.so\n");

    let state = server.state_dir().join("sandboxes");
    let state = state.to_string_lossy();
    let pid = server.pid();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("the server runs");
    assert!(!maps.contains(&*state) && !maps.contains("evil"), "{maps}");
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the server runs").flatten();
    for descriptor in open.filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
        assert!(!descriptor.to_string_lossy().contains(&*state), "{}", descriptor.display());
    }
}
