//! Files: exact, streamed, safe.

mod content;
mod names;
mod tree;

use futures_util::{StreamExt, stream};
use serde_json::json;
use testkit::{
    PATIENCE,
    reqwest::{Body, Method},
};
use tokio::time::timeout;

use crate::server;

const FILES: &str = "/v1/sandboxes/s/files";

#[tokio::test]
async fn bytes_come_back_as_they_were_written() {
    let server = server();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();

    let written = server.put(&format!("{FILES}/workspace/a/b/c.bin"), bytes.clone()).await;
    assert!((200..300).contains(&written.status), "{}", written.text);
    assert_eq!(written.json["size"], 100_000);

    let response =
        server.request(Method::GET, &format!("{FILES}/workspace/a/b/c.bin")).send().await.unwrap();
    assert_eq!(response.bytes().await.unwrap(), bytes);
    assert_eq!(server.shell("s", "stat -c '%a %U' /workspace/a/b/c.bin").await, "644 root\n");
}

#[tokio::test]
async fn names_with_anything_in_them_work() {
    let server = server();
    for (encoded, name) in [("a%20b", "a b"), ("%C3%A4", "ä"), ("%25", "%"), ("q%3Fx%23y", "q?x#y")]
    {
        let path = format!("{FILES}/workspace/{encoded}");
        assert!(server.put(&path, name).await.status < 300, "{name}");
        assert_eq!(server.get(&path).await.text, name);
        assert_eq!(server.shell("s", &format!("cat '/workspace/{name}'")).await, name);
    }
}

#[tokio::test]
async fn a_gigabyte_goes_both_ways_in_constant_memory() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: usize = 1 << 10;
    let server = server();
    server.shell("s", "true").await;
    let chunk = vec![7_u8; CHUNK];
    let upload = stream::iter((0..CHUNKS).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));

    let written = server.put(&format!("{FILES}/workspace/big"), Body::wrap_stream(upload)).await;
    assert_eq!(written.json["size"], CHUNK * CHUNKS, "{}", written.text);

    let request = server.request(Method::GET, &format!("{FILES}/workspace/big"));
    let mut body = request.send().await.unwrap().bytes_stream();
    let mut read = 0;
    while let Some(part) = body.next().await {
        let part = part.unwrap();
        assert!(part.iter().all(|byte| *byte == 7));
        read += part.len();
    }
    assert_eq!(read, CHUNK * CHUNKS);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let peak_kib: u64 = peak.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap();
    assert!(peak_kib < 200 * 1024, "the daemon grew to {peak_kib} KiB");
}

#[tokio::test]
async fn a_part_of_a_file_can_be_read() {
    let server = server();
    server.put(&format!("{FILES}/workspace/f"), "0123456789").await;
    let part = |range: &'static str| {
        let request = server.request(Method::GET, &format!("{FILES}/workspace/f"));
        async move { testkit::answer(request.header("range", range).send().await.unwrap()).await }
    };

    assert_eq!((part("bytes=2-4").await.status, part("bytes=2-4").await.text), (206, "234".into()));
    assert_eq!(part("bytes=-3").await.text, "789");
    assert_eq!(part("bytes=8-").await.text, "89");
    assert_eq!(part("bytes=10-").await.code(), "RANGE_NOT_SATISFIABLE");
}

#[tokio::test]
async fn a_rewrite_is_atomic_and_keeps_the_mode() {
    let server = server();
    server.shell("s", "echo old > f; chmod 750 f; exec 9< f; ln f hard").await;

    server.put(&format!("{FILES}/workspace/f"), "new").await;

    assert_eq!(server.shell("s", "cat f hard; stat -c %a f").await, "newold\n750\n");
    assert_eq!(
        server.shell("s", "ls -A | sort | xargs").await,
        "f hard\n",
        "no temporary file is left"
    );
}

#[tokio::test]
async fn a_rewrite_keeps_the_mode_that_was_set_while_it_came() {
    let server = server();
    // Of a file that was there, and of one that was not.
    for before in ["echo old > f; chmod 644 f; chown 5 f", "rm f"] {
        server.shell("s", before).await;
        let (more, rest) = tokio::sync::mpsc::channel(1);
        let body = Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(rest));
        let request = server.request(Method::PUT, &format!("{FILES}/workspace/f")).body(body);
        let upload = tokio::spawn(request.send());
        let piece = || Ok::<_, std::io::Error>(vec![b'x'; 300_000]);
        more.send(piece()).await.unwrap();
        let begun =
            "until ls -A | grep -qv '^f$'; do sleep 0.01; done; touch f; chmod 600 f; chown 7 f";
        server.shell("s", begun).await;
        more.send(piece()).await.unwrap();
        drop(more);

        assert!(upload.await.unwrap().unwrap().status().is_success());

        assert_eq!(server.shell("s", "stat -c '%a %u %s' f").await, "600 7 600000\n", "{before}");
    }
}

#[tokio::test]
async fn a_file_moved_onto_another_of_its_names_has_that_one() {
    let server = server();
    server.shell("s", "mkdir d; ln -s d e; echo x > d/a; ln d/a d/b").await;
    for (from, to, left) in [("d/a", "d/b", "b"), ("d/b", "e/b", "b"), ("d/b", "d/b", "b")] {
        let body = json!({"from": format!("/workspace/{from}"), "to": format!("/workspace/{to}")});
        let moved = server.post("/v1/sandboxes/s/files:move", &body).await;
        assert_eq!(moved.status, 200, "{}", moved.text);
        assert_eq!(server.shell("s", "ls d; cat d/b").await, format!("{left}\nx\n"), "{from} {to}");
    }
}

#[tokio::test]
async fn a_text_that_shrinks_while_it_is_read_breaks_off() {
    let server = server();
    let make = "yes € | tr -d '\\n' | head -c 24000000 > t";
    server.shell("s", make).await;
    let request = server.request(Method::GET, &format!("{FILES}/workspace/t?encoding=utf8"));
    let mut answer = request.send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    // One byte of a character is left behind a whole number of pieces.
    server.shell("s", "truncate -s $((80 * 261120 + 1)) t").await;
    let rest = async { while let Ok(Some(_)) = answer.chunk().await {} };
    timeout(PATIENCE, rest).await.expect("it ends");
    server.shell("s", "true").await;
}

#[tokio::test]
async fn paths_of_a_session_whose_directory_was_removed_lead_nowhere_else() {
    let server = server();
    let in_session = |command: &str| json!({"command": command, "session": "a"});
    let exec = "/v1/sandboxes/s/exec";
    server.shell("s", "echo precious > /workspace/keep").await;
    server.post(exec, &in_session("mkdir -p /tmp/gone/sub; cd /tmp/gone/sub")).await;
    server.shell("s", "rm -r /tmp/gone").await;

    let deleted = server.delete(&format!("{FILES}/keep?session=a")).await;
    assert_eq!(deleted.code(), "FILE_NOT_FOUND", "{}", deleted.text);
    let mut elsewhere = in_session("pwd");
    elsewhere["cwd"] = "/usr".into();
    let refused = server.post(exec, &elsewhere).await;
    assert_eq!(refused.json["exitCode"], 1, "{}", refused.text);
    assert!(refused.json["stderr"].as_str().unwrap().contains("was removed"), "{}", refused.text);
    let after = server.post(exec, &in_session("pwd; cd /; pwd")).await;
    assert_eq!(after.json["stdout"], "/tmp/gone/sub\n/\n", "{}", after.text);
    assert_eq!(server.post(exec, &elsewhere).await.json["stdout"], "/usr\n");
}

#[tokio::test]
async fn an_upload_that_breaks_off_changes_nothing() {
    let server = server();
    server.put(&format!("{FILES}/workspace/f"), "whole").await;
    let broken = stream::iter([Ok(vec![0_u8; 100_000]), Err(std::io::Error::other("gone"))]);

    let request = server.request(Method::PUT, &format!("{FILES}/workspace/f"));
    assert!(request.body(Body::wrap_stream(broken)).send().await.is_err());

    assert_eq!(server.get(&format!("{FILES}/workspace/f")).await.text, "whole");
    let clean = "for i in $(seq 6000); do [ \"$(ls -A | xargs)\" = f ] && exit 0; sleep 0.01; done; ls -A; exit 1";
    server.shell("s", clean).await;
}

#[tokio::test]
async fn directories_are_made_listed_and_deleted() {
    let server = server();
    let mkdir = |path: &str, recursive: bool| {
        let body = json!({"path": path, "recursive": recursive});
        let server = &server;
        async move { server.post(&format!("{FILES}:mkdir"), &body).await }
    };
    assert!(mkdir("d/e", true).await.status < 300);
    assert_eq!(mkdir("d", false).await.code(), "FILE_EXISTS");
    assert_eq!(mkdir("x/y", false).await.code(), "FILE_NOT_FOUND");
    assert_eq!(mkdir("/proc/self/cwd/d", true).await.code(), "TOO_MANY_LINKS");
    server.shell("s", "cd d; echo 1 > b; echo 12 > .hidden; ln -s b a; mkfifo p").await;

    let listed = server.get(&format!("{FILES}:list?path=d&hidden=true")).await;
    let entries = listed.json["entries"].as_array().cloned().unwrap_or_default();
    let seen: Vec<_> = entries.iter().map(|e| (e["name"].as_str(), e["type"].as_str())).collect();
    let expected =
        [(".hidden", "file"), ("a", "symlink"), ("b", "file"), ("e", "directory"), ("p", "other")];
    assert_eq!(seen, expected.map(|(name, kind)| (Some(name), Some(kind))), "{}", listed.text);
    assert_eq!(entries[1]["linkTarget"], "b");

    assert_eq!(server.delete(&format!("{FILES}/workspace/d")).await.code(), "IS_DIRECTORY");
    assert_eq!(server.delete(&format!("{FILES}/workspace/d?recursive=true")).await.status, 204);
    assert_eq!(server.shell("s", "ls | wc -l").await, "0\n");
}

#[tokio::test]
async fn a_large_directory_comes_in_pages() {
    let server = server();
    server.shell("s", "mkdir d; cd d; seq -w 0 2499 | xargs touch").await;

    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{FILES}:list?path=d&limit=1000{cursor}")).await;
        let entries = page.json["entries"].as_array().cloned().unwrap_or_default();
        assert!(entries.len() <= 1000);
        names.extend(entries.iter().filter_map(|e| e["name"].as_str().map(str::to_owned)));
        let Some(next) = page.json["nextCursor"].as_str() else { break };
        let request = testkit::reqwest::Url::parse_with_params("http://x/", [("cursor", next)]);
        cursor = format!("&{}", request.unwrap().query().unwrap_or_default());
    }

    names.sort();
    assert_eq!(names, (0..2500).map(|i| format!("{i:04}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_fault_has_its_code_and_names_its_path() {
    let server = server();
    server.shell("s", "mkfifo pipe; mkdir dir; echo x > file").await;
    let long = "n".repeat(300);
    for (path, code) in [
        ("workspace/none", "FILE_NOT_FOUND"),
        ("workspace/dir", "IS_DIRECTORY"),
        ("workspace/file/below", "NOT_DIRECTORY"),
        ("workspace/pipe", "NOT_REGULAR_FILE"),
        ("dev/null", "NOT_REGULAR_FILE"),
        (&format!("workspace/{long}"), "NAME_TOO_LONG"),
        ("workspace/a%00b", "INVALID_PATH"),
        (&"d/".repeat(2100), "INVALID_PATH"),
    ] {
        let answer = server.get(&format!("{FILES}/{path}")).await;
        assert_eq!(answer.code(), code, "{path}: {}", answer.text);
        if code != "INVALID_PATH" {
            assert!(answer.text.contains(path.rsplit('/').next().unwrap_or_default()));
        }
    }
    let denied = server.put(&format!("{FILES}/proc/sys/kernel/core_pattern"), "x").await;
    assert!(matches!(denied.code(), "READ_ONLY" | "PERMISSION_DENIED"), "{}", denied.text);
}

#[tokio::test]
async fn links_and_dots_lead_only_to_what_the_sandbox_sees() {
    let server = server();
    let marker = server.state_dir().join("marker");
    std::fs::write(&marker, "of the host").unwrap();
    server.shell("s", &format!("ln -s {} link; ln -s / root", marker.display())).await;

    for path in
        ["workspace/link", "workspace/root/../../../../../etc/shadow", "proc/1/root/etc/shadow"]
    {
        let answer = server.get(&format!("{FILES}/{path}")).await;
        assert!(!answer.text.contains("of the host"), "{path}");
        let host = std::fs::read_to_string("/etc/shadow").unwrap();
        assert_ne!(answer.text, host, "{path}");
    }
}
