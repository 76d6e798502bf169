//! What differs between two states of files.

use serde_json::{Value, json};
use testkit::Server;

use crate::server;

/// Every difference, each as `KIND TYPE PATH CHANGES`.
async fn diff(server: &Server, query: &str) -> Vec<String> {
    differences(server, query).await.iter().map(line).collect()
}

/// Every difference, page by page.
async fn differences(server: &Server, query: &str) -> Vec<Value> {
    let (mut told, mut cursor) = (Vec::new(), String::new());
    loop {
        let found = server.get(&format!("/v1/sandboxes/s/diff?{query}{cursor}")).await;
        assert_eq!(found.status, 200, "{}", found.text);
        told.extend(found.json["differences"].as_array().into_iter().flatten().cloned());
        let Some(next) = found.json["nextCursor"].as_str() else { return told };
        cursor = format!("&cursor={next}");
    }
}

fn line(found: &Value) -> String {
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    let changes = found["changes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let changes: Vec<&str> = changes.collect();
    let line = format!("{} {} {} {}", text("kind"), text("type"), text("path"), changes.join(","));
    line.trim_end().to_owned()
}

async fn checkpoint(server: &Server, id: &str) {
    let made = server.post("/v1/sandboxes/s/checkpoints", &json!({"id": id})).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

#[tokio::test]
async fn whatever_was_done_to_the_image_is_told() {
    let server = server();
    assert_eq!(server.shell("s", "pwd").await, "/workspace\n");
    assert_eq!(diff(&server, "").await, [""; 0]);
    server
        .shell(
            "s",
            // Also what is copied up and stays the same: a directory that is written into, a file
            // that is opened for writing, a name that comes back as it was.
            "echo a > /new; mkdir -p /d/e; echo x > /d/e/f; ln -s nowhere /link; mkfifo /pipe
             chmod 600 /etc/resolv.conf; : >> /etc/hosts; touch /etc/passing; rm /etc/passing
             chmod 711 /root; chmod 700 /root; chown 7:8 /workspace",
        )
        .await;
    let expected = [
        "added directory /d",
        "added directory /d/e",
        "added file /d/e/f",
        "modified file /etc/resolv.conf mode",
        "added symlink /link",
        "added file /new",
        "added other /pipe",
        "modified directory /workspace owner",
    ];
    assert_eq!(diff(&server, "").await, expected);
    // A sandbox that does not run is not started.
    server.post("/v1/sandboxes/s/stop", &json!({})).await;
    assert_eq!(diff(&server, "").await, expected);
    assert_eq!(server.get("/v1/sandboxes/s").await.json["state"], "stopped");

    // A directory in the place of another of the same name hides all that was in it.
    server.shell("s", "cp -a /etc /kept; rm -r /etc; mkdir /etc; cp -a /kept/hosts /etc").await;
    let told = diff(&server, "limit=50").await;
    assert!(told.contains(&"deleted file /etc/resolv.conf".to_owned()), "{told:?}");
    assert!(!told.iter().any(|line| line.ends_with("/etc/hosts")), "{told:?}");
    assert_eq!(told, diff(&server, "").await, "pages make the same");
}

#[tokio::test]
async fn whatever_was_done_since_a_checkpoint_is_told() {
    let server = server();
    server
        .shell(
            "s",
            "mkdir -p dir/sub gone/sub; echo 1 > same; echo 1 > longer; echo 1 > other; ln -s a link
             echo 1 > moved; echo 1 > file; echo 1 > dir/sub/f; echo 1 > gone/sub/f; echo 1 > touched
             rm /etc/hosts; mkdir turns; echo 1 > turns/in; : > attributes",
        )
        .await;
    checkpoint(&server, "c").await;
    assert_eq!(diff(&server, "against=c").await, [""; 0]);
    server
        .shell(
            "s",
            "echo 12 > longer; m=$(stat -c %Y other); echo 2 > other; touch -d @$m other; ln -sfn b link
             mv moved renamed; rm file; mkdir file; echo 1 > file/in; rm -r gone; touch -d @7 touched
             rm -r turns; echo 1 > turns; echo x > /etc/hosts; rm -r dir/sub; mkdir dir/sub
             setfattr -n user.a -v b attributes || python3 -c 'import os; os.setxattr(\"attributes\", \"user.a\", b\"b\")'",
        )
        .await;
    let at = "/workspace";
    let expected = [
        "added file /etc/hosts".to_owned(),
        format!("modified file {at}/attributes attributes"),
        format!("deleted file {at}/dir/sub/f"),
        format!("deleted file {at}/file"),
        format!("added directory {at}/file"),
        format!("added file {at}/file/in"),
        format!("deleted directory {at}/gone"),
        format!("modified symlink {at}/link content,time"),
        format!("modified file {at}/longer content,time"),
        format!("deleted file {at}/moved"),
        format!("modified file {at}/other content,time"),
        format!("added file {at}/renamed"),
        format!("modified file {at}/touched time"),
        format!("deleted directory {at}/turns"),
        format!("added file {at}/turns"),
    ];
    assert_eq!(diff(&server, "against=c").await, expected);
    // Two checkpoints fit together; neither is in use afterwards.
    checkpoint(&server, "d").await;
    server.shell("s", "rm -r file").await;
    assert_eq!(diff(&server, "against=c&of=d").await, expected);
    for id in ["c", "d"] {
        assert_eq!(server.delete(&format!("/v1/sandboxes/s/checkpoints/{id}")).await.status, 204);
    }
}

#[tokio::test]
async fn hostile_trees_are_compared_as_far_as_paths_reach() {
    let server = server();
    let make = "import os
os.mkdir(b'top'); os.chdir(b'top')
open(b'\\xff\\n', 'w').close(); os.mkfifo(b'pipe'); os.symlink(b'/', b'root'); os.symlink(b'self', b'self')
for _ in range(20000):
    os.mkdir(b'd'); os.chdir(b'd')
open(b'end', 'w').close()";
    server
        .post(
            "/v1/sandboxes/s/files:write",
            &json!({"files": [{"path": "/workspace/make", "content": make}]}),
        )
        .await;
    server.shell("s", "python3 make; rm make").await;
    let told = differences(&server, "").await;
    let last: Vec<&Value> = told.iter().filter(|one| one["unread"] == true).collect();
    assert_eq!(last.len(), 1, "{last:?}");
    assert!(last[0]["path"].as_str().unwrap().ends_with("/d/d/d"));
    let named =
        |name: &str| told.iter().find(|one| one["path"] == format!("/workspace/top/{name}"));
    assert_eq!(named("\u{fffd}\n").unwrap()["encodedPath"], "workspace/top/%FF%0A");
    assert_eq!(named("pipe").unwrap()["type"], "other");
    for link in ["root", "self"] {
        assert_eq!(named(link).unwrap()["type"], "symlink");
    }
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused() {
    let server = server();
    assert_eq!(server.get("/v1/sandboxes/s/diff").await.code(), "SANDBOX_NOT_FOUND");
    server.shell("s", "true").await;
    for (query, code) in [
        ("against=none", "CHECKPOINT_NOT_FOUND"),
        ("of=none", "CHECKPOINT_NOT_FOUND"),
        ("against=a/b", "VALIDATION_FAILED"),
        ("limit=0", "VALIDATION_FAILED"),
        ("limit=10001", "VALIDATION_FAILED"),
        ("cursor=Li4", "VALIDATION_FAILED"),
        ("other=1", "VALIDATION_FAILED"),
    ] {
        let refused = server.get(&format!("/v1/sandboxes/s/diff?{query}")).await;
        assert_eq!(refused.code(), code, "{query}: {}", refused.text);
    }
}
