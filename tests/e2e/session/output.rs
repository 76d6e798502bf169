//! Outputs are apart, exact to the byte, and cannot be taken for anything else.

use futures_util::StreamExt;
use serde_json::json;
use testkit::{
    api::exec::Encoding,
    client::{decode_output, encode_stdin},
    reqwest::Method,
};

use super::{EXEC, session};
use crate::server;

#[tokio::test]
async fn outputs_are_exact_and_apart() {
    let server = server();
    let s = session(&server, "a");
    for (script, stdout, stderr) in [
        ("printf '\\x00\\xff\\x0a\\x00'; printf '\\xfe' >&2", &b"\0\xff\n\0"[..], &b"\xfe"[..]),
        (":", b"", b""),
        ("printf '\\n'", b"\n", b""),
        ("for i in 1 2 3; do printf o$i; printf e$i >&2; done", b"o1o2o3", b"e1e2e3"),
        ("head -c 70000 /dev/zero | tr '\\0' a; printf b >&2", &[b'a'; 70000], b"b"),
    ] {
        let answer = s.ask(script, json!({"encoding": "base64"})).await;
        let bytes = |name: &str| {
            let text = answer.json[name].as_str().unwrap_or("-");
            decode_output(text, Encoding::Base64).ok()
        };
        assert_eq!(bytes("stdout").as_deref(), Some(stdout), "{script}");
        assert_eq!(bytes("stderr").as_deref(), Some(stderr), "{script}");
        assert_eq!(answer.json["droppedBytes"], 0);
    }
}

#[tokio::test]
async fn a_command_may_print_anything() {
    let server = server();
    let s = session(&server, "a");
    for text in [
        "0 hiBHs",
        "111 hiBHs",
        "0 hiBHs\\0",
        "=A=b\\0000 h\\0",
        "event: exit\\ndata: {}\\n\\n",
        "HTTP/1.1 200 OK\\r\\n\\r\\n",
        "command\\nstep\\n",
        "\\033c\\033]0;title\\007",
    ] {
        let script = format!("printf '{text}'; printf '{text}' >&2; false");
        let answer = s.ask(&script, json!({})).await;
        assert_eq!(answer.json["exitCode"], 1, "{text}: {}", answer.text);
        assert_eq!(answer.json["stdout"], answer.json["stderr"], "{text}");
        assert_eq!(s.out("echo next").await, "next\n", "{text}");
    }
}

#[tokio::test]
async fn what_goes_through_a_program_is_in_the_answer() {
    let server = server();
    let s = session(&server, "a");
    for round in 0..20 {
        s.expect(&[
            ("echo hi > >(cat)", "hi\n"),
            ("seq 3 > >(tee log)", "1\n2\n3\n"),
            ("echo a > >(sleep 0.01; cat)", "a\n"),
            // It does not wait for what does not end.
            ("echo b > >(cat; exec sleep 1000)", "b\n"),
        ])
        .await;
        let (code, stdout, stderr) =
            s.run("sh -c 'echo out; echo err >&2; exit 3' > >(tee log) 2> >(sed s/e/E/ >&2)").await;
        assert_eq!((code, &*stdout, &*stderr), (3, "out\n", "Err\n"), "{round}");
    }
}

#[tokio::test]
async fn ten_megabytes_come_whole() {
    let server = server();
    let s = session(&server, "a");
    let script = "yes 0123456789abcde | head -c 10M; yes E | head -c 1M >&2";
    let answer = s.ask(script, json!({})).await;
    let text = |name: &str| answer.json[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("stdout"), "0123456789abcde\n".repeat(10 * 65536));
    assert_eq!(text("stderr"), "E\n".repeat(1 << 19));
    assert_eq!(s.out("echo next").await, "next\n");
}

#[tokio::test]
async fn events_arrive_while_the_command_runs_and_a_slow_reader_loses_nothing() {
    let server = server();
    let s = session(&server, "a");
    let script = "echo first; while [ ! -e /tmp/go ]; do sleep 0.01; done; yes | head -c 3M";
    let request = server.request(Method::POST, EXEC).header("accept", "text/event-stream");
    let response = request.json(&s.body(script, json!({}))).send().await.expect("it starts");
    let mut body = response.bytes_stream();
    let mut text = String::new();
    while !text.contains("first") {
        let chunk = body.next().await.expect("events come").expect("the stream is whole");
        text += std::str::from_utf8(&chunk).expect("events are text");
    }
    server.put("/v1/sandboxes/s/files/tmp/go", "").await;
    // Other sessions do not wait for the reader of this one.
    assert_eq!(session(&server, "b").out("echo b").await, "b\n");
    while let Some(chunk) = body.next().await {
        text += std::str::from_utf8(&chunk.expect("the stream is whole")).expect("events are text");
    }
    let stdout: usize = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok())
        .filter(|event| event["type"] == "stdout")
        .map(|event| event["data"].as_str().map_or(0, str::len))
        .sum();
    assert_eq!(stdout, "first\n".len() + 3 * (1 << 20));
    assert!(text.trim_end().rsplit("\n\n").next().is_some_and(|last| last.contains("exit")));
}

#[tokio::test]
async fn stdin_is_empty_unless_it_is_given() {
    let server = server();
    let s = session(&server, "a");
    s.expect(&[("cat; read x; echo \"[$x]\" $?", "[] 1\n")]).await;
    let script = "read first; echo \"$first\"; cat; cat; echo $?";
    let given = json!({"stdin": "one\ntwo\nthree"});
    assert_eq!(s.run_with(script, given).await.1, "one\ntwo\nthree0\n");
    let large = "x".repeat(1 << 20);
    assert_eq!(s.run_with("wc -c", json!({"stdin": large})).await.1, format!("{}\n", 1 << 20));
    let binary = json!({"stdin": encode_stdin(b"\0\xff\n"), "encoding": "base64"});
    assert_eq!(s.ask("cat", binary).await.json["stdout"], encode_stdin(b"\0\xff\n"));
    // What is left unread is nobody's.
    assert_eq!(s.run_with(":", json!({"stdin": "left"})).await.0, 0);
    s.expect(&[("cat; ls /run/sandbar/*/input 2>/dev/null | wc -l", "0\n")]).await;
}
