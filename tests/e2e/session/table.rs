//! Which sessions there are, how many, and who waits for whom.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{answer, reqwest::Method};

use super::{EXEC, SANDBOX, SESSIONS, session};
use crate::server;

#[tokio::test]
async fn sessions_are_made_found_listed_and_deleted() {
    let server = server();
    let made =
        server.post(SESSIONS, &json!({"id": "build", "cwd": "/usr", "name": "Build it"})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!((&made.json["id"], &made.json["cwd"]), (&json!("build"), &json!("/usr")));
    assert!(made.json["pid"].as_i64().is_some_and(|pid| pid > 1), "{}", made.text);
    assert_eq!((&made.json["busy"], &made.json["waiting"]), (&json!(false), &json!(0)));

    let again = server.post(SESSIONS, &json!({"id": "build"})).await;
    assert_eq!((again.status, again.code()), (409, "SESSION_ALREADY_EXISTS"), "{}", again.text);
    // A name is an id if it can be; otherwise it is a name.
    assert_eq!(server.post(SESSIONS, &json!({"name": "temp"})).await.json["id"], "temp");
    let taken = server.post(SESSIONS, &json!({"name": "temp"})).await.json["id"].clone();
    assert!(taken.as_str().is_some_and(|id| id.starts_with("session_")), "{taken}");
    let unnamed = server.post(SESSIONS, &json!({})).await.json["id"].clone();
    assert!(unnamed.as_str().is_some_and(|id| id.starts_with("session_")), "{unnamed}");
    let by_name = server.get(&format!("{SESSIONS}/Build%20it")).await;
    assert_eq!(by_name.json["id"], "build", "{}", by_name.text);

    session(&server, "build").out("cd lib").await;
    assert_eq!(session(&server, "build").look().await["cwd"], "/usr/lib");
    let list = server.get(SESSIONS).await;
    let ids: Vec<&str> = list.json["sessions"]
        .as_array()
        .map(|all| all.iter().filter_map(|session| session["id"].as_str()).collect())
        .unwrap_or_default();
    assert_eq!(ids.len(), 5, "{}", list.text);
    assert!(
        ["build", "default", "temp"].iter().all(|id| ids.contains(id)) && ids.is_sorted(),
        "{ids:?}"
    );

    assert_eq!(server.delete(&format!("{SESSIONS}/temp")).await.status, 204);
    // The other one of that name.
    assert_eq!(server.get(&format!("{SESSIONS}/temp")).await.json["id"], taken);
    assert_eq!(server.delete(&format!("{SESSIONS}/temp")).await.status, 204);
    for unknown in ["temp", "none", "bad%20id"] {
        let missing = server.delete(&format!("{SESSIONS}/{unknown}")).await;
        assert_eq!((missing.status, missing.code()), (404, "SESSION_NOT_FOUND"), "{unknown}");
        assert_eq!(server.get(&format!("{SESSIONS}/{unknown}")).await.status, 404);
    }
}

#[tokio::test]
async fn the_default_session_is_there_and_stays() {
    let server = server();
    server.post("/v1/sandboxes", &json!({"id": "s"})).await;
    let before = session(&server, "default").look().await;
    assert_eq!((&before["pid"], &before["cwd"]), (&Value::Null, &json!("/workspace")));
    session(&server, "default").out("cd /usr").await;
    let after = session(&server, "default").look().await;
    assert!(after["pid"].is_i64() && after["cwd"] == "/usr", "{after}");
    assert_eq!(
        after["lastUsedMs"].as_i64().max(before["lastUsedMs"].as_i64()),
        after["lastUsedMs"].as_i64()
    );
    let refused = server.delete(&format!("{SESSIONS}/default")).await;
    assert_eq!((refused.status, refused.code()), (400, "VALIDATION_FAILED"), "{}", refused.text);
    assert_eq!(session(&server, "default").out("pwd").await, "/usr\n");
}

#[tokio::test]
async fn bad_requests_make_no_session() {
    let server = server();
    server.post("/v1/sandboxes", &json!({"id": "s"})).await;
    for (body, code) in [
        (json!({"id": "bad id"}), "VALIDATION_FAILED"),
        (json!({"id": "123"}), "VALIDATION_FAILED"),
        (json!({"id": "x".repeat(129)}), "VALIDATION_FAILED"),
        (json!({"name": "x".repeat(129)}), "VALIDATION_FAILED"),
        (json!({"cwd": "/no/such"}), "FILE_NOT_FOUND"),
        (json!({"cwd": "/etc/hostname"}), "NOT_DIRECTORY"),
        (json!({"env": {"A-B": "x"}}), "VALIDATION_FAILED"),
        (json!({"commandTimeoutMs": 0}), "VALIDATION_FAILED"),
        (json!({"isolated": true}), "VALIDATION_FAILED"),
    ] {
        let refused = server.post(SESSIONS, &body).await;
        assert_eq!(refused.code(), code, "{body}: {}", refused.text);
    }
    let body = json!({"command": "true", "session": "bad id"});
    assert_eq!(server.post(EXEC, &body).await.code(), "VALIDATION_FAILED");
    let list = server.get(SESSIONS).await;
    assert_eq!(list.json["sessions"].as_array().map(Vec::len), Some(1), "{}", list.text);
}

#[tokio::test]
async fn commands_of_one_session_run_in_the_order_they_came() {
    let server = server();
    let s = session(&server, "a");
    let first = s.run("while [ ! -e /tmp/go ]; do sleep 0.01; done; echo first >>/tmp/order");
    let others = async {
        let mut waiting = Vec::new();
        for number in 0..5 {
            s.until("all before it wait", |session| {
                session["busy"] == true && session["waiting"] == number
            })
            .await;
            let body = s.body(&format!("echo {number} >>/tmp/order"), json!({}));
            let request = server.request(Method::POST, EXEC).json(&body).send();
            waiting.push(tokio::spawn(request));
        }
        s.until("all wait", |session| session["waiting"] == 5).await;
        // One whose caller goes away leaves the queue.
        waiting.remove(2).abort();
        s.until("one has gone", |session| session["waiting"] == 4).await;
        server.put("/v1/sandboxes/s/files/tmp/go", "").await;
        for answered in waiting {
            let response = answered.await.expect("it ran").expect("a response comes");
            assert_eq!(response.status(), 200);
        }
    };
    tokio::join!(first, others);
    assert_eq!(s.out("cat /tmp/order").await, "first\n0\n1\n3\n4\n");
}

#[tokio::test]
async fn sessions_run_at_the_same_time() {
    let server = server();
    // Each can only go on when the other runs.
    let meet = |own: &str, other: &str| {
        format!("touch /tmp/{own}; while [ ! -e /tmp/{other} ]; do sleep 0.01; done; echo met")
    };
    let (a, b) = (session(&server, "a"), session(&server, "b"));
    let (to_b, to_a) = (meet("a", "b"), meet("b", "a"));
    let (in_a, in_b) = tokio::join!(a.out(&to_b), b.out(&to_a));
    assert_eq!((in_a.as_str(), in_b.as_str()), ("met\n", "met\n"));
}

#[tokio::test]
async fn one_command_too_many_is_told_to_come_later() {
    let server = server();
    let s = session(&server, "a");
    let fill = async {
        let mut waiting = Vec::new();
        for _ in 0..65 {
            let body = s.body("while [ ! -e /tmp/go ]; do sleep 0.01; done", json!({}));
            waiting.push(tokio::spawn(server.request(Method::POST, EXEC).json(&body).send()));
        }
        s.until("the queue is full", |session| session["waiting"] == 64).await;
        let refused = s.ask("echo NO", json!({})).await;
        assert_eq!(
            (refused.status, refused.code()),
            (429, "TOO_MANY_REQUESTS"),
            "{}",
            refused.text
        );
        assert_eq!(refused.json["error"]["details"]["limit"], 64);
        assert_eq!(session(&server, "b").out("echo b").await, "b\n");
        server.put("/v1/sandboxes/s/files/tmp/go", "").await;
        for answered in waiting {
            let response = answer(answered.await.expect("it ran").expect("a response comes")).await;
            assert_eq!(response.status, 200, "{}", response.text);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), fill).await.expect("the queue empties");
    s.expect(&[("echo next", "next\n")]).await;
}

#[tokio::test]
async fn as_many_sessions_as_allowed_and_no_more() {
    let server = server();
    for number in 1..64 {
        let id = format!("n{number}");
        assert_eq!(
            session(&server, &id).out(&format!("N={number}; echo $N")).await,
            format!("{number}\n")
        );
    }
    for refused in [
        server.post(SESSIONS, &json!({"id": "more"})).await,
        session(&server, "more").ask("echo NO", json!({})).await,
    ] {
        assert_eq!(
            (refused.status, refused.code()),
            (429, "TOO_MANY_REQUESTS"),
            "{}",
            refused.text
        );
        assert_eq!(refused.json["error"]["details"]["limit"], 64);
    }
    assert_eq!(session(&server, "n63").out("echo $N").await, "63\n");
    assert_eq!(session(&server, "default").out("echo default").await, "default\n");
    assert_eq!(server.delete(&format!("{SESSIONS}/n1")).await.status, 204);
    assert_eq!(session(&server, "more").out("echo more").await, "more\n");
    let usage = server.get(SANDBOX).await.json["usage"]["memoryBytes"].as_u64().unwrap_or_default();
    assert!(usage < 64 * (3 << 20), "64 idle shells take {usage} bytes");
}
