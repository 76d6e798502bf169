//! Taking more than a sandbox's share.

use serde_json::json;

use crate::attack::{self, APART, EXHAUSTION, facts_of_the_host};

/// Of section Q; the ids are in `attacks/exhaustion.py`.
#[tokio::test]
async fn probes_take_no_more_than_their_share() {
    let server = attack::server();
    let facts = json!({"host": facts_of_the_host()});

    let held = attack::in_a_sandbox(&server, EXHAUSTION, &facts).await;

    let broke = attack::in_the_control_jail(EXHAUSTION, &APART, &facts);
    attack::judge("exhaustion", &held, &broke);
    assert_eq!(server.shell("s", "echo alive").await, "alive\n");
    assert_eq!(server.shell("neighbour", "echo well").await, "well\n");
}

/// Q15, from the host's side: what a sandbox has of what is counted per user is not the host's.
#[tokio::test]
async fn a_sandbox_without_watchers_left_takes_none_from_the_host() {
    let server = crate::server();
    let take = "import ctypes\nl = ctypes.CDLL(None)\nn = 0\nwhile l.inotify_init() >= 0: n += 1\n\
                print('ready', n, flush=True)\nimport signal\nsignal.pause()";
    let command = json!({"command": ["python3", "-c", take], "id": "taker"});
    let started = server.post("/v1/sandboxes/s/processes", &command).await;
    assert_eq!(started.status, 201, "{}", started.text);
    let ready = json!({"until": {"type": "log", "text": "ready"}, "timeoutMs": 60_000});
    let ready = server.post("/v1/sandboxes/s/processes/taker/wait", &ready).await;
    assert_eq!(ready.status, 200, "{}", ready.text);

    sys::inotify::create().expect("the host has watchers left");
    let neighbour = "python3 -c 'import ctypes; print(ctypes.CDLL(None).inotify_init() >= 0)'";
    assert_eq!(server.shell("neighbour", neighbour).await, "True\n");
}
