//! Images: the host's own, and building.

use serde_json::json;
use testkit::answer;
use testkit::reqwest::Method;

use crate::server;

#[tokio::test]
async fn the_host_image_shares_usr_and_nothing_else() {
    let server = server();
    let secret = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    let secret = secret.path().to_str().unwrap();

    let listed = server.get("/v1/images").await;
    assert_eq!(listed.json["images"][0]["name"], "host", "{}", listed.text);
    assert_eq!(server.shell("s", "python3 -c 'print(6 * 7)'").await, "42\n");
    assert_eq!(server.shell("s", &format!("ls {secret} 2>/dev/null | wc -l")).await, "0\n");
    assert_eq!(
        server.shell("s", "ls -A /root /home /srv /opt | grep -c '^[^/]' || true").await,
        "0\n"
    );
    assert_eq!(server.shell("s", "touch /usr/x 2>&1 | grep -c 'Read-only'").await, "1\n");
    assert_eq!(
        server.shell("s", "grep -c : /etc/shadow 2>/dev/null || true").await.lines().count().min(1),
        1
    );
}

#[tokio::test]
async fn a_recipe_with_faults_is_refused_with_all_of_them() {
    let server = server();
    let body = json!({"name": "x", "recipe": "FROM nowhere\nFLY to the moon\nCOPY a b\n"});

    let refused = server.post("/v1/images:build", &body).await;

    assert_eq!(refused.code(), "VALIDATION_FAILED", "{}", refused.text);
    for fault in ["2", "FLY", "3", "COPY"] {
        assert!(refused.text.contains(fault), "{fault}: {}", refused.text);
    }
}

#[tokio::test]
async fn a_build_from_an_image_that_is_not_there_fails_clearly() {
    let server = server();
    let body = json!({"name": "x", "recipe": "FROM no-such-image\nRUN true\n"});
    let request = server.request(Method::POST, "/v1/images:build").json(&body);

    let events = answer(request.send().await.unwrap()).await;

    assert!(events.text.contains("no-such-image"), "{}", events.text);
    assert!(
        events.text.contains("failed") || events.code() == "IMAGE_NOT_FOUND",
        "{}",
        events.text
    );
}
