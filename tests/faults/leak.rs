//! Many creations and destructions leave nothing behind.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::server;

/// Rounds of create, use and destroy.
const ROUNDS: usize = 1000;

/// Rounds at the same time.
const IN_FLIGHT: usize = 8;

/// Destroys of which one has to leave nothing after a second: what else the machine does at the time, and
/// the kernel for other tests, only makes it take longer.
const TRIES: usize = 10;

#[tokio::test]
async fn a_second_after_a_destroy_nothing_is_left() {
    let server = server();
    server.shell("warm", "true").await;
    let before = server.look();
    let mut quickest = Duration::MAX;
    for _ in 0..TRIES {
        server.shell("s", "echo x > file; sleep 1000 &").await;

        assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);

        let begun = Instant::now();
        server.expect_again(&before);
        quickest = quickest.min(begun.elapsed());
        if quickest <= Duration::from_secs(1) {
            return;
        }
    }
    panic!("something is left after a second each time, and nothing after {quickest:?} at best");
}

#[tokio::test]
async fn a_thousand_sandboxes_leave_nothing_behind() {
    let server = server();
    server.shell("stays", "true").await;
    let before = server.look();

    let rounds = (0..ROUNDS).map(|round| {
        let server = &server;
        async move {
            let id = format!("round-{round}");
            let body = json!({"command": "echo x > /workspace/file; sleep 1000 & echo made"});
            let made = server.post(&format!("/v1/sandboxes/{id}/exec"), &body).await;
            assert_eq!(made.json["stdout"], "made\n", "{}", made.text);
            assert_eq!(server.delete(&format!("/v1/sandboxes/{id}")).await.status, 204);
        }
    });
    stream::iter(rounds).buffer_unordered(IN_FLIGHT).collect::<()>().await;

    server.expect_again(&before);
    assert_eq!(server.shell("stays", "echo here").await, "here\n");
}
