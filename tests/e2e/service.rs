//! Programs that a sandbox runs whenever it runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{PATIENCE, Server};

use crate::server;

const WEB: &str = "exec python3 -m http.server 8000";

async fn create(server: &Server, services: Value) {
    let made = server.post("/v1/sandboxes", &json!({"id": "s", "services": services})).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

/// A web server that counts its starts, and that it was told to end.
fn counting() -> Value {
    let script = "import http.server as h, signal, sys\n\
        def note(name): open('/workspace/' + name, 'a').write('once\\n')\n\
        signal.signal(signal.SIGTERM, lambda *_: (note('notices'), sys.exit()))\n\
        note('starts')\n\
        h.ThreadingHTTPServer(('', 8000), h.SimpleHTTPRequestHandler).serve_forever()";
    json!(["python3", "-c", script])
}

/// The only service, once it is so. The agent tells nobody when that comes.
async fn until(server: &Server, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = server.get(&format!("/v1/sandboxes/{id}/services")).await;
        let service = answer.json["services"][0].clone();
        if is_so(&service) {
            return service;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", answer.text);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_ready(service: &Value) -> bool {
    service["state"] == "ready"
}

async fn fetch(server: &Server, id: &str) {
    let command = "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:8000\").status)'";
    assert_eq!(server.shell(id, command).await, "200\n");
}

#[tokio::test]
async fn a_service_is_there_after_every_start() {
    let server = server();
    create(&server, json!([{"name": "web", "command": counting(), "port": 8000}])).await;
    let service = until(&server, "s", is_ready).await;
    assert_eq!(
        service["service"],
        json!({"name": "web", "command": counting(), "port": 8000, "restart": "always"})
    );
    fetch(&server, "s").await;
    let process = server.get("/v1/sandboxes/s/processes/web").await;
    assert_eq!(process.json["pid"], service["pid"], "{}", process.text);
    assert_eq!(server.get("/v1/sandboxes/s").await.json["services"][0]["name"], "web");

    assert_eq!(server.post("/v1/sandboxes/s/stop", &json!({})).await.status, 200);
    until(&server, "s", is_ready).await;
    fetch(&server, "s").await;
    // It ended with its notice, and was not started again before the sandbox was.
    assert_eq!(server.shell("s", "cat notices; wc -l < starts").await, "once\n2\n");

    let fork = server.post("/v1/sandboxes/s/fork", &json!({"ids": ["f"]})).await;
    assert_eq!(fork.status, 201, "{}", fork.text);
    until(&server, "f", is_ready).await;
    fetch(&server, "f").await;

    server.post("/v1/sandboxes/s/checkpoints", &json!({"id": "c"})).await;
    server.post("/v1/sandboxes/s/restore", &json!({"checkpoint": "c"})).await;
    until(&server, "s", is_ready).await;
}

#[tokio::test]
async fn a_service_that_ends_comes_again_as_its_policy_says() {
    let server = server();
    let command = "echo ran >> runs; [ -e go ]";
    create(&server, json!([{"name": "job", "command": command, "restart": "onFailure"}])).await;
    let waiting = until(&server, "s", |service| service["state"] == "waiting").await;
    assert_eq!(waiting["ending"], json!({"type": "exited", "code": 1}), "{waiting}");
    assert!(waiting["nextStartAtMs"].as_i64().is_some(), "{waiting}");
    // It ends well only now, so that nobody can have come too late to see it wait.
    server.shell("s", "touch go").await;
    let ended = until(&server, "s", |service| service["state"] == "ended").await;
    assert_eq!(ended["ending"], json!({"type": "exited", "code": 0}), "{ended}");
    let restarts = ended["restarts"].as_u64().unwrap();
    assert!(restarts >= 1, "{ended}");
    assert_eq!(server.shell("s", "wc -l < runs").await, format!("{}\n", restarts + 1));
}

#[tokio::test]
async fn a_service_that_is_killed_comes_again() {
    let server = server();
    create(&server, json!([{"name": "web", "command": WEB, "port": 8000}])).await;
    let first = until(&server, "s", is_ready).await;
    let killed = server.post("/v1/sandboxes/s/processes/web/kill", &json!({})).await;
    assert_eq!(killed.status, 200, "{}", killed.text);
    let again = until(&server, "s", |service| is_ready(service) && service["restarts"] == 1).await;
    assert_ne!(again["pid"], first["pid"], "{again}");
    fetch(&server, "s").await;
}

#[tokio::test]
async fn what_cannot_be_started_is_told_and_does_not_keep_its_sandbox_from_running() {
    let server = server();
    create(&server, json!([{"name": "none", "command": ["/no/such/program"]}])).await;
    let waiting = until(&server, "s", |service| service["state"] == "waiting").await;
    assert!(
        waiting["message"].as_str().is_some_and(|text| text.contains("/no/such/program")),
        "{waiting}"
    );
    assert_eq!(server.shell("s", "echo up").await, "up\n");

    // Others from the next start on.
    let changed = json!({"services": [{"name": "web", "command": WEB, "port": 8000}]});
    assert_eq!(server.patch("/v1/sandboxes/s", &changed).await.status, 200);
    assert_eq!(until(&server, "s", |_| true).await["service"]["name"], "none");
    server.post("/v1/sandboxes/s/stop", &json!({})).await;
    until(&server, "s", is_ready).await;
}

#[tokio::test]
async fn services_that_make_no_sense_are_refused() {
    let server = server();
    let one = |name: &str| json!({"name": name, "command": "true"});
    let many: Vec<Value> = (0..17).map(|number| one(&format!("s{number}"))).collect();
    for services in [
        json!([one("a"), one("a")]),
        json!([{"name": "a"}]),
        json!([{"name": "a", "command": ""}]),
        json!([{"name": "a", "command": []}]),
        json!([{"name": "a", "command": "x".repeat(20_000)}]),
        json!([{"name": "a", "command": "true", "port": 0}]),
        json!([{"name": "a", "command": "true", "port": 65536}]),
        json!([{"name": "a", "command": "true", "restart": "sometimes"}]),
        json!([{"name": "7", "command": "true"}]),
        json!(many),
    ] {
        let refused = server.post("/v1/sandboxes", &json!({"id": "s", "services": services})).await;
        assert_eq!(refused.code(), "VALIDATION_FAILED", "{services}: {}", refused.text);
    }
    create(&server, json!(many[..16])).await;
    let other = server.post("/v1/sandboxes", &json!({"id": "s"})).await;
    assert_eq!(other.code(), "SANDBOX_EXISTS", "{}", other.text);
}
