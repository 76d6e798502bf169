//! Many creations and destructions leave nothing behind.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::server;

/// Rounds of create, use and destroy.
const ROUNDS: usize = 1000;

/// Rounds at the same time.
const IN_FLIGHT: usize = 8;

#[tokio::test]
async fn a_second_after_a_destroy_nothing_is_left() {
    let server = server();
    server.shell("warm", "true").await;
    let before = server.look();
    server.shell("s", "echo x > file; sleep 1000 &").await;

    assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);

    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.look(), before);
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
