//! What the server itself may do.

use std::fs;

use crate::server;

/// R1: threads that read what callers, agents and name servers write have nothing of root's but its
/// name. Who has more is named here, and reads nothing of theirs.
#[tokio::test]
async fn threads_that_read_what_strangers_write_have_no_privileges() {
    const PRIVILEGED: [&str; 6] =
        ["sandbar", "launcher", "remover", "records", "builders", "opening"];
    let server = server();
    assert_eq!(server.shell("s", "echo ready").await, "ready\n");
    assert_eq!(server.get("/v1/sandboxes/s").await.status, 200);

    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("the server runs");
    let mut confined = 0;
    for thread in threads.flatten() {
        // One that has ended meanwhile did nothing that counts.
        let Ok(name) = fs::read_to_string(thread.path().join("comm")) else { continue };
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        if PRIVILEGED.contains(&name.trim()) {
            continue;
        }
        assert_eq!(name, "daemon\n");
        for line in [
            "CapEff:\t0000000000000000\n",
            "CapPrm:\t0000000000000000\n",
            "NoNewPrivs:\t1\n",
            "Seccomp:\t2\n",
        ] {
            assert!(status.contains(line), "{line:?} is not in\n{status}");
        }
        confined += 1;
    }
    assert!(confined >= 2, "{confined} threads read requests");
}
