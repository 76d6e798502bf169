//! Files: paths, links, races, special files and names that somebody hostile would choose.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

use std::{fs, path::PathBuf, time::Duration};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::{
    PATIENCE, Server,
    reqwest::{Body, Client, Method},
};

use crate::server;

const FILES: &str = "/v1/sandboxes/s/files";

/// The URL of a path from the root. In one segment, so that nobody on the way resolves its dots.
fn url(path: &str) -> String {
    format!("{FILES}/%2F{}", encoded(path.as_bytes()))
}

/// Percent-encodes every byte.
fn encoded(name: &[u8]) -> String {
    name.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Reads in one way after another what a path from the root names, and gives everything that came.
async fn everything(server: &Server, path: &str) -> String {
    let text = format!("/{path}");
    let plain = server.get(&url(path)).await.text;
    let json = server.get(&format!("{}?encoding=utf8", url(path))).await.text;
    let batch = server.post(&format!("{FILES}:read"), &json!({"paths": [text, path]})).await.text;
    let copy = json!({"from": text, "to": "/workspace/copy"});
    let copied = server.post(&format!("{FILES}:copy"), &copy).await.text;
    let content = server.get(&format!("{FILES}/workspace/copy")).await.text;
    [plain, json, batch, copied, content].concat()
}

/// A file of the host that only its path could lead to.
fn secret(server: &Server) -> (PathBuf, &'static str) {
    const SECRET: &str = "f1a9-canary-of-the-host";
    let path = server.state_dir().join("canary");
    fs::write(&path, SECRET).unwrap();
    (path, SECRET)
}

/// F01, F04
#[tokio::test]
async fn f01_f04_no_path_and_no_link_leads_to_a_file_of_the_host() {
    let server = server();
    let (path, secret) = secret(&server);
    let canary = path.display();
    server
        .shell("s", &format!("ln -s / r; ln -s /proc/self/root p; ln -s ../../../../../../../.. u; ln -s {canary} c"))
        .await;
    let up = "..%2F".repeat(40);
    for start in [
        "",
        "workspace/../../../..",
        "workspace/r",
        "workspace/p",
        "workspace/u",
        "proc/1/root",
        "proc/self/cwd/../..",
        "./..",
        &up,
    ] {
        let found = everything(&server, &format!("{start}{canary}")).await;
        assert!(!found.contains(secret), "{start}: {found}");
    }
    assert!(!everything(&server, "workspace/c").await.contains(secret));
    // What these do name is the sandbox's own.
    server.shell("s", "echo own > /etc/marked").await;
    for path in [
        "workspace/../../../../etc/marked",
        "/etc//marked",
        "./../etc/marked",
        "workspace/r/etc/marked",
        "workspace/u/etc/marked",
    ] {
        assert_eq!(server.get(&url(path)).await.text, "own\n", "{path}");
    }
    for start in ["workspace/r", "workspace/u"] {
        server.put(&url(&format!("{start}{canary}")), "overwritten").await;
        assert_eq!(fs::read_to_string(&path).unwrap(), secret);
    }
}

/// F02, F03
#[tokio::test]
async fn f02_f03_nul_and_overlong_paths_are_refused_by_every_operation() {
    let server = server();
    let long = "x".repeat(4096);
    let huge = "y/".repeat(500_000);
    for bad in ["a\0b", "\0", &long, &huge, ""] {
        for (verb, body) in [
            ("mkdir", json!({"path": bad})),
            ("move", json!({"from": bad, "to": "x"})),
            ("move", json!({"from": "x", "to": bad})),
            ("copy", json!({"from": bad, "to": "x"})),
            ("copy", json!({"from": "/etc/passwd", "to": bad})),
            ("symlink", json!({"path": bad, "target": "x"})),
            ("chmod", json!({"path": bad, "mode": "644"})),
        ] {
            let answer = server.post(&format!("{FILES}:{verb}"), &body).await;
            assert_eq!(
                (answer.status, answer.code()),
                (400, "INVALID_PATH"),
                "{verb}: {}",
                answer.text
            );
        }
        for (verb, body) in [
            ("read", json!({"paths": [bad]})),
            ("write", json!({"files": [{"path": bad, "content": ""}]})),
        ] {
            let answer = server.post(&format!("{FILES}:{verb}"), &body).await;
            assert_eq!(answer.json["files"][0]["error"]["code"], "INVALID_PATH", "{verb}");
        }
    }
    let component = "n".repeat(256);
    for (method, path) in [
        (Method::GET, format!("{FILES}/workspace/{component}")),
        (Method::PUT, format!("{FILES}/workspace/{component}")),
        (Method::PUT, format!("{FILES}/workspace/{component}/below")),
        (Method::DELETE, format!("{FILES}/workspace/{component}")),
        (Method::GET, format!("{FILES}:stat?path={component}")),
        (Method::GET, format!("{FILES}:list?path={component}")),
    ] {
        let answer =
            testkit::answer(server.request(method.clone(), &path).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (400, "NAME_TOO_LONG"), "{method} {path}");
    }
    let longest = "n".repeat(255);
    assert_eq!(server.put(&format!("{FILES}/workspace/{longest}"), "x").await.status, 200);
    assert_eq!(server.shell("s", "ls -A | wc -c").await, "256\n");
}

/// F05
#[tokio::test]
async fn f05_nothing_of_the_agent_can_be_read_or_written_through_it() {
    let server = server();
    server.shell("s", "true").await;
    let key = server.key();
    for path in [
        "proc/self/environ",
        "proc/self/maps",
        "proc/self/mem",
        "proc/self/auxv",
        "proc/self/cmdline",
        "proc/1/environ",
        "proc/1/maps",
        "proc/1/mem",
        "proc/1/stack",
        "proc/1/pagemap",
        "proc/1/syscall",
        "proc/1/task/1/maps",
        "proc/thread-self/maps",
        "proc/self/task/1/environ",
        "proc/self/exe",
        "proc/1/exe",
        "proc/self/fd/0",
        "proc/self/fd/3",
        "proc/self/fd/4",
        "proc/1/fd/3",
        "proc/self/fdinfo/3",
        "proc/self/map_files",
        "dev/stdin",
        "dev/fd/3",
        "proc/self/cwd/x",
        "proc/self/root/etc/passwd",
        "workspace/../proc/1/environ",
        "proc/./1//environ",
        "proc/self/../1/environ",
    ] {
        let answer = server.get(&url(path)).await;
        assert!((400..500).contains(&answer.status), "{path}: {} {}", answer.status, answer.text);
        assert!(!everything(&server, path).await.contains(&key), "{path}");
        let written = server.put(&url(path), "x").await;
        assert!(
            (400..500).contains(&written.status),
            "{path}: {} {}",
            written.status,
            written.text
        );
        let text = format!("/{path}");
        for (verb, body) in [
            ("chmod", json!({"path": text, "mode": "777"})),
            ("copy", json!({"from": text, "to": "/workspace/c"})),
            ("mkdir", json!({"path": format!("{text}/d"), "recursive": true})),
        ] {
            let answer = server.post(&format!("{FILES}:{verb}"), &body).await;
            assert!((400..500).contains(&answer.status), "{verb} {path}: {}", answer.text);
        }
    }
    // Links to the same places, made by the sandbox.
    server.shell("s", "ln -s /proc/1/environ e; ln -s /proc/self/exe x; ln -s /proc/1 one; ln -s /proc/self/fd fds").await;
    for path in ["workspace/e", "workspace/x", "workspace/one/maps", "workspace/fds/3"] {
        let answer = server.get(&format!("{FILES}/{path}")).await;
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.text);
    }
    assert_eq!(server.shell("s", "echo alive").await, "alive\n");
}

/// F06
#[tokio::test]
async fn f06_a_thousand_reads_and_writes_of_a_pipe_hold_nobody_up() {
    let server = server();
    server.shell("s", "mkfifo f; ln -s f l").await;
    let http = Client::new();
    let calls = stream::iter(0..1000).map(|number| {
        let (method, body) = if number % 2 == 0 { (Method::GET, "") } else { (Method::PUT, "x") };
        let name = ["f", "l"][number / 2 % 2];
        let request = http.request(method, format!("{}{FILES}/workspace/{name}", server.url()));
        request.bearer_auth(server.key()).body(body).send()
    });
    let refused = calls
        .buffer_unordered(100)
        .map(|answer| testkit::answer(answer.unwrap()))
        .buffer_unordered(100)
        .filter(|answer| std::future::ready(answer.code() == "NOT_REGULAR_FILE"))
        .count();
    // Nobody ever opens its other end, so a wait would be for ever.
    assert_eq!(tokio::time::timeout(PATIENCE, refused).await.expect("nobody waits"), 1000);
    for (verb, body) in [
        ("copy", json!({"from": "f", "to": "x"})),
        ("read", json!({"paths": ["f"]})),
        ("write", json!({"files": [{"path": "f", "content": "x", "append": true}]})),
        ("chmod", json!({"path": "f", "mode": "600"})),
    ] {
        let url = format!("{FILES}:{verb}");
        tokio::time::timeout(PATIENCE, server.post(&url, &body)).await.expect("nobody waits");
    }
    assert_eq!(server.put(&format!("{FILES}/workspace/after"), "x").await.status, 200);
}

/// F07, F08
#[tokio::test]
async fn f07_f08_what_is_no_regular_file_has_a_typed_error() {
    let server = server();
    server
        .shell("s", "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('socket')\"; ln -s gone dangling; ln -s b a; ln -s a b; mkdir dir")
        .await;
    for (path, code) in [
        ("dev/zero", "NOT_REGULAR_FILE"),
        ("dev/random", "NOT_REGULAR_FILE"),
        ("dev/full", "NOT_REGULAR_FILE"),
        ("dev/ptmx", "NOT_REGULAR_FILE"),
        ("workspace/socket", "NOT_REGULAR_FILE"),
        ("workspace/dir", "IS_DIRECTORY"),
        ("workspace/dangling", "FILE_NOT_FOUND"),
        ("workspace/a", "TOO_MANY_LINKS"),
        ("workspace/a/x", "TOO_MANY_LINKS"),
        ("proc/self/fd/0", "TOO_MANY_LINKS"),
    ] {
        let answer = server.get(&format!("{FILES}/{path}")).await;
        assert_eq!(answer.code(), code, "{path}: {}", answer.text);
        assert!(answer.status < 500, "{path}");
    }
    // Whatever these say, they say it at once and without end only to nobody.
    for path in
        ["dev/tty", "proc/kmsg", "proc/sys/kernel/ns_last_pid", "proc/kcore", "proc/kallsyms"]
    {
        let url = format!("{FILES}/{path}");
        let read = tokio::time::timeout(PATIENCE, server.get(&url));
        let answer = read.await.unwrap_or_else(|_| panic!("{path} was waited for"));
        assert!(answer.status < 500 && answer.text.len() < 65 << 20, "{path}: {}", answer.status);
    }
}

/// F09
#[tokio::test]
async fn f09_a_terabyte_of_nothing_is_streamed_in_bounded_memory_and_can_be_left() {
    let server = server();
    server.shell("s", "truncate -s 1T huge").await;
    let path = format!("{FILES}/workspace/huge");
    let json = server.get(&format!("{path}?encoding=base64")).await;
    assert_eq!((json.status, json.code()), (413, "FILE_TOO_LARGE"));

    let response = server.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.headers()["content-length"], (1_u64 << 40).to_string());
    let mut body = response.bytes_stream();
    let mut read = 0;
    while read < 256 << 20 {
        read += body.next().await.unwrap().unwrap().len();
    }
    drop(body);

    let last = server.request(Method::GET, &path).header("range", "bytes=-1");
    assert_eq!(last.send().await.unwrap().bytes().await.unwrap(), [0_u8][..]);
    let copied =
        server.post(&format!("{FILES}:copy"), &json!({"from": "huge", "to": "copy"})).await;
    assert_eq!(copied.json["size"], 1_u64 << 40, "{}", copied.text);
    assert_eq!(server.shell("s", "stat -c %b copy").await, "0\n");
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kib < 200 * 1024, "the daemon grew to {peak_kib} KiB");
}

/// F10
#[tokio::test]
async fn f10_a_file_that_changes_while_it_is_read_spoils_nothing_after_it() {
    const SIZE: usize = 64 << 20;
    let server = server();
    let http = Client::builder().pool_max_idle_per_host(1).build().unwrap();
    let url = |name: &str| format!("{}{FILES}/workspace/{name}", server.url());
    let get = |name: &str| http.get(url(name)).bearer_auth(server.key()).send();
    server.put(&format!("{FILES}/workspace/next"), "intact").await;
    for change in [
        "truncate -s 0 f",
        "truncate -s 100M f",
        "rm f; echo other > f",
        "mv f g; echo other > f",
        "echo x | dd of=f conv=notrunc",
    ] {
        server.shell("s", &format!("rm -f f g; head -c {SIZE} /dev/zero > f")).await;
        let mut body = get("f").await.unwrap().bytes_stream();
        body.next().await.unwrap().unwrap();
        server.shell("s", change).await;
        let mut read = 0;
        let mut is_broken = false;
        while let Some(part) = body.next().await {
            match part {
                Ok(part) => read += part.len(),
                Err(_) => is_broken = true,
            }
        }
        // Whole as promised, or visibly not.
        assert!(is_broken || read <= SIZE, "{change}: {read}");
        assert_eq!(is_broken, change.starts_with("truncate -s 0"), "{change}");
        for _ in 0..3 {
            assert_eq!(get("next").await.unwrap().text().await.unwrap(), "intact", "{change}");
        }
    }
}

/// F11
#[tokio::test]
async fn f11_a_smaller_content_leaves_no_tail_of_the_larger() {
    let server = server();
    let path = format!("{FILES}/workspace/f");
    server.put(&path, vec![b'x'; 10 << 20]).await;
    server.put(&path, "0123456789").await;
    assert_eq!(server.get(&path).await.text, "0123456789");
    server.put(&path, vec![b'x'; 1 << 20]).await;
    let parts = ["01", "234", "", "56789"].map(Ok::<_, std::io::Error>);
    server.put(&path, Body::wrap_stream(stream::iter(parts))).await;
    assert_eq!(server.get(&path).await.text, "0123456789");
    assert_eq!(server.shell("s", "stat -c %s f").await, "10\n");
}

/// F12
#[tokio::test]
async fn f12_links_swapped_under_load_lead_writes_nowhere_else() {
    let server = server();
    let (canary, secret) = secret(&server);
    let host_etc = || {
        let names = fs::read_dir("/etc").unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let before = host_etc();
    let elsewhere = canary.parent().unwrap().display();
    server.shell("s", &format!(
        "mkdir d /tmp/x; (while [ ! -e stop ]; do ln -sfn /etc x; ln -sfn {elsewhere} x; ln -sfn /proc/1/root x; ln -sfn /proc/self/cwd x; ln -sfn /workspace/d x; done) >/dev/null 2>&1 &"
    )).await;
    let http = Client::new();
    let calls = stream::iter(0..10_000).map(|number| {
        let url = |name: &str| format!("{}{FILES}/workspace/x/{name}", server.url());
        let request = match number % 5 {
            0 => http.get(url("p")),
            1 => http.put(url("canary")).body("overwritten"),
            2 => http.delete(url("canary")),
            3 => http
                .post(format!("{}{FILES}:move", server.url()))
                .json(&json!({"from": "x/p", "to": "x/q"})),
            _ => http.put(url("p")).body("written"),
        };
        request.bearer_auth(server.key()).send()
    });
    let answers: Vec<_> = calls
        .buffer_unordered(16)
        .map(|answer| testkit::answer(answer.unwrap()))
        .buffer_unordered(16)
        .collect()
        .await;

    let broken: Vec<_> = answers.iter().filter(|answer| answer.status >= 500).collect();
    assert!(broken.is_empty(), "{broken:?}");
    assert!(
        answers.iter().filter(|answer| answer.status == 200).count() > 1000,
        "most lead somewhere"
    );
    assert_eq!(fs::read_to_string(&canary).unwrap(), secret);
    assert_eq!(host_etc(), before);
    assert_eq!(server.shell("s", "touch stop; echo alive").await, "alive\n");
}

/// F14
#[tokio::test]
async fn f14_base64_that_is_none_writes_nothing() {
    let server = server();
    for content in ["A", "AP8", "AP8*", "AP8=A", "====", " AP8=", "AP8=\n", "AP9=", "\u{ff}"] {
        let body = json!({"files": [{"path": "f", "content": content, "encoding": "base64"}]});
        let answer = server.post(&format!("{FILES}:write"), &body).await;
        assert_eq!(answer.json["files"][0]["error"]["code"], "VALIDATION_FAILED", "{content:?}");
    }
    let unknown = json!({"files": [{"path": "f", "content": "", "encoding": "hex"}]});
    assert_eq!(server.post(&format!("{FILES}:write"), &unknown).await.code(), "VALIDATION_FAILED");
    // A gigabyte of it, never to be read to its end.
    let chunk = vec![b'A'; 1 << 20];
    let head = Ok::<_, std::io::Error>(
        br#"{"files":[{"path":"f","encoding":"base64","content":""#.to_vec(),
    );
    let body = stream::iter([head].into_iter().chain((0..1024).map(move |_| Ok(chunk.clone()))));
    let request = server.request(Method::POST, &format!("{FILES}:write"));
    let request = request.header("content-type", "application/json").body(Body::wrap_stream(body));
    if let Ok(answer) = request.send().await {
        assert_eq!(testkit::answer(answer).await.code(), "PAYLOAD_TOO_LARGE");
    }
    assert_eq!(server.shell("s", "ls -A").await, "");
}

/// F15
#[tokio::test]
async fn f15_names_of_any_bytes_are_kept_to_the_byte() {
    let server = server();
    let mut names: Vec<Vec<u8>> =
        (1..=255_u8).filter(|byte| *byte != b'/' && *byte != b'.').map(|byte| vec![byte]).collect();
    names.extend([
        b"\xff\xfe".to_vec(),
        b"-rf".to_vec(),
        b"$(id)".to_vec(),
        b"`id`".to_vec(),
        b"a;b|c&d".to_vec(),
        "\u{202e}txt".into(),
        "\u{e9}".into(),
        "e\u{301}".into(),
        "😀".repeat(63).into(),
        b"CON".to_vec(),
        b"dot.".to_vec(),
        b"space ".to_vec(),
        b"...".to_vec(),
        b"%2e%2e".to_vec(),
        b"\\..\\x".to_vec(),
        (b'!'..=b'.').collect(),
    ]);
    for name in &names {
        let path = format!("{FILES}/workspace/{}", encoded(name));
        let written = server.put(&path, name.clone()).await;
        assert_eq!(written.status, 200, "{name:?}: {}", written.text);
    }
    // The shell agrees on every byte.
    let listed =
        server.shell("s", "find . -type f -printf '%f\\0' | sort -z | xxd -p | tr -d '\\n'").await;
    let mut sorted = names.clone();
    sorted.sort();
    let expected: String = sorted
        .iter()
        .flat_map(|name| [&name[..], b"\0"].concat())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(listed, expected);

    let page = server.get(&format!("{FILES}:list?path=.&hidden=true&limit=1000")).await;
    let entries = page.json["entries"].as_array().unwrap();
    assert_eq!(entries.len(), names.len());
    for entry in entries {
        let path = match entry["encodedPath"].as_str() {
            Some(path) => path.to_owned(),
            None => encoded(&entry["path"].as_str().unwrap().as_bytes()[1..]),
        };
        let read = server.request(Method::GET, &format!("{FILES}/{path}")).send().await.unwrap();
        let content = read.bytes().await.unwrap();
        assert!(names.contains(&content.to_vec()), "{path}");
        // What JSON can say can be renamed; the rest says clearly that it is not there.
        let from = entry["path"].as_str().unwrap();
        let moved =
            server.post(&format!("{FILES}:move"), &json!({"from": from, "to": "moved"})).await;
        if entry["encodedPath"].is_null() {
            assert_eq!(moved.status, 200, "{from:?}: {}", moved.text);
            assert_eq!(server.delete(&format!("{FILES}/workspace/moved")).await.status, 204);
        } else {
            assert_eq!(moved.code(), "FILE_NOT_FOUND", "{from:?}");
            assert_eq!(server.delete(&format!("{FILES}/{path}")).await.status, 204);
        }
    }
    assert_eq!(server.shell("s", "ls -A | wc -c").await, "0\n");
}

/// F16
#[tokio::test]
async fn f16_a_loop_of_links_does_not_make_a_list_endless() {
    let server = server();
    server
        .shell("s", "mkdir a; ln -s . loop; ln -s .. a/up; ln -s / root; ln -s loop/loop/a deep")
        .await;
    let listed = server.get(&format!("{FILES}:list?path=.&recursive=true")).await;
    let names: Vec<&str> = listed.json["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|e| e["name"].as_str())
        .collect();
    assert_eq!(names, ["a", "up", "deep", "loop", "root"]);
    assert!(listed.json["nextCursor"].is_null());
    // Asked for by name, a link to a directory is that directory.
    let through = server.get(&format!("{FILES}:list?path=loop/loop/a&hidden=true")).await;
    assert_eq!(through.json["entries"][0]["name"], "up", "{}", through.text);
    // A cursor that was tampered with leads nowhere else.
    for name in ["../../../etc", "..", "loop", "root", "a/../root"] {
        let mut bytes = 1_u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'/');
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(b"passwd/");
        let cursor = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, bytes);
        let answer =
            server.get(&format!("{FILES}:list?path=.&recursive=true&cursor={cursor}")).await;
        let outside =
            |entry: &Value| !entry["path"].as_str().unwrap_or_default().starts_with("/workspace/");
        let entries = answer.json["entries"].as_array().cloned().unwrap_or_default();
        assert!(!entries.iter().any(outside), "{name}: {}", answer.text);
    }
}

/// F18
#[tokio::test]
async fn f18_what_holds_the_sandbox_up_is_not_deleted() {
    let server = server();
    server.shell("s", "mkdir -p d/e").await;
    for path in [
        "",
        ".",
        "..",
        "workspace/d/..",
        "proc",
        "proc/1",
        "dev",
        "dev/pts",
        "sys",
        "workspace/../..",
        "d/../../../..",
    ] {
        for query in ["", "?recursive=true"] {
            let answer = server.delete(&format!("{}{query}", url(path))).await;
            assert!(
                (400..500).contains(&answer.status),
                "{path}{query}: {} {}",
                answer.status,
                answer.text
            );
        }
    }
    server
        .shell("s", "test -d d/e; test -d /proc/1; test -c /dev/null; ls /usr/bin > /dev/null")
        .await;
    // What is the sandbox's own may go, and the next command starts all the same or says why.
    server.delete(&format!("{FILES}/workspace?recursive=true")).await;
    let body = json!({"command": "echo alive", "cwd": "/"});
    let alive = server.post("/v1/sandboxes/s/exec", &body).await;
    assert_eq!(alive.json["stdout"], "alive\n", "{}", alive.text);
}

/// F17, F20
#[tokio::test]
async fn f17_f20_directories_are_made_and_moved_within_the_sandbox_only() {
    let server = server();
    let (canary, _) = secret(&server);
    let outside = canary.parent().unwrap().join("made-by-a-guest");
    server
        .shell(
            "s",
            &format!(
                "ln -s {} out; ln -s /proc/1/root host; ln -s / top; mkdir -p a/b; touch a/b/f",
                canary.parent().unwrap().display()
            ),
        )
        .await;
    let name = outside.file_name().unwrap().to_string_lossy();
    for path in [
        format!("out/{name}/x"),
        format!("host{}/x", outside.display()),
        format!("../../../../../..{}/x", outside.display()),
    ] {
        server.post(&format!("{FILES}:mkdir"), &json!({"path": path, "recursive": true})).await;
        server.put(&url(&format!("workspace/{path}/f")), "x").await;
        assert!(!outside.exists(), "{path}");
    }
    for (from, to) in [
        ("a", "a/b/c"),
        ("a", "a"),
        ("a/b", "a/b/b"),
        ("a/b/f", "a"),
        ("a", "a/b"),
        ("/", "a/x"),
        ("a", "/"),
        ("top", "top/x"),
    ] {
        server.post(&format!("{FILES}:move"), &json!({"from": from, "to": to})).await;
        server
            .post(&format!("{FILES}:copy"), &json!({"from": from, "to": to, "recursive": true}))
            .await;
    }
    assert_eq!(
        server.shell("s", "find a | sort | xargs; ls -A | grep sandbar || true").await,
        "a a/b a/b/f\n"
    );
}

/// F21
#[tokio::test]
async fn f21_no_request_lends_an_identity() {
    let server = server();
    server.shell("s", "touch f; chmod 6755 f; cp f g; chmod 6755 g").await;
    for mode in ["4755", "2755", "1777", "7777", "u+s", "0o755"] {
        let path = format!("{FILES}/workspace/f?mode={}", mode.replace('+', "%2B"));
        assert_eq!(server.put(&path, "x").await.code(), "VALIDATION_FAILED", "{mode}");
        let body = json!({"path": "f", "mode": mode});
        assert_eq!(server.post(&format!("{FILES}:chmod"), &body).await.code(), "VALIDATION_FAILED");
    }
    server.put(&format!("{FILES}/workspace/f"), "new program").await;
    server.post(&format!("{FILES}:copy"), &json!({"from": "g", "to": "h"})).await;
    server.post(&format!("{FILES}:chmod"), &json!({"path": "g", "mode": "755"})).await;
    assert_eq!(server.shell("s", "stat -c '%a %u:%g' f g h").await, "755 0:0\n".repeat(3));
}

/// F22
#[tokio::test]
async fn f22_an_upload_larger_than_the_disk_fails_early_and_leaves_nothing() {
    let server = server();
    let free: u64 = server
        .shell("s", "df --output=avail -B1 /dev/shm | tail -n 1")
        .await
        .trim()
        .parse()
        .unwrap();
    let chunk = vec![7_u8; 1 << 20];
    let body = stream::iter((0..10 << 10).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    assert!(free < 8 << 30);

    let request =
        server.request(Method::PUT, &format!("{FILES}/dev/shm/f")).body(Body::wrap_stream(body));
    let answer = testkit::answer(request.send().await.unwrap()).await;

    assert_eq!((answer.status, answer.code()), (507, "NO_SPACE"), "{}", answer.text);
    let again = "ls -A /dev/shm; df --output=avail -B1 /dev/shm | tail -n 1";
    assert_eq!(server.shell("s", again).await.trim(), free.to_string());
}

/// F23
#[tokio::test]
async fn f23_two_writers_of_one_file_never_mix() {
    let server = server();
    let client = server.client();
    let id: testkit::api::id::SandboxId = "s".parse().unwrap();
    let options = testkit::api::file::WriteFile::default();
    let mut last = 0;
    for round in 0..1000 {
        let (a, b) = (vec![b'a'; 1 + round * 37 % 5000], vec![b'b'; 1 + round * 101 % 5000]);
        let writes =
            [a, b].map(|content| client.write_file(&id, "/workspace/f", &options, content));
        let written = futures_util::future::join_all(writes).await;
        let content = client.read_file(&id, "/workspace/f").await.unwrap();
        let (first, length) = (content[0], content.len());
        assert!(content.iter().all(|byte| *byte == first), "round {round}");
        assert_eq!(
            length,
            if first == b'a' { 1 + round * 37 % 5000 } else { 1 + round * 101 % 5000 }
        );
        let now = written.iter().map(|entry| entry.as_ref().unwrap().modified_ms).max().unwrap();
        assert!(now >= last, "time went back in round {round}");
        last = now;
    }
    assert_eq!(server.shell("s", "ls -A").await, "f\n");
}

/// F19, F24
#[tokio::test]
async fn f19_f24_no_tree_is_too_deep_too_wide_or_too_closed_to_be_destroyed() {
    let server = server();
    let before = server.look();
    let make = "import os\nfor i in range(20000): os.mkdir('d'); os.chdir('d')\nopen('end', 'w')";
    server.shell("s", &format!("python3 -c \"{make}\"; mkdir wide closed; (cd wide; seq 20000 | xargs touch); touch closed/f; chown -R 65534:65534 closed; chmod 000 closed closed/f; ! chattr +i wide 2>/dev/null")).await;
    for query in ["path=d&recursive=true", "path=closed&recursive=true", "path=wide&limit=10000"] {
        let answer = server.get(&format!("{FILES}:list?{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
    }
    let too_deep = format!("workspace/{}end", "d/".repeat(20_000));
    assert_eq!(
        server.get(&format!("{FILES}:stat?path=/{too_deep}")).await.status,
        431,
        "the head has a limit of its own"
    );
    let deepest = "d/".repeat(2040);
    assert_eq!(server.get(&format!("{FILES}:stat?path={deepest}")).await.json["type"], "directory");
    let below = "d/".repeat(2048);
    assert_eq!(server.get(&format!("{FILES}:stat?path={below}")).await.code(), "INVALID_PATH");

    assert_eq!(
        server.delete(&format!("{FILES}/workspace/closed?recursive=true")).await.status,
        204
    );
    assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);
    // Its files go behind the reply, and there is no event for that; a busy machine takes its time.
    for _ in 0..6000 {
        if server.look() == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.expect_again(&before);
}
