//! Runs as events: while they happen, and again after a broken connection.

use futures_util::StreamExt;
use serde_json::json;
use testkit::{
    api::{
        id::SandboxId,
        interpreter::{CodeErrorKind, Language, RunCode, RunEvent},
    },
    events,
    reqwest::Method,
};

use super::{CONTEXTS, DEADLINE, RUN, run, run_in, server};

#[tokio::test]
async fn events_come_while_the_code_runs() {
    let server = server();
    let sandbox: SandboxId = "s".parse().unwrap();
    // The code goes on only when its first line has come here.
    let code = "import os, time\nprint('first')\n\
        while not os.path.exists('/workspace/seen'): time.sleep(0.005)\n\
        from IPython.display import HTML, display\ndisplay(HTML('<b>1</b>'))\nprint('second')\n1 / 0";
    let request = RunCode { language: Some(Language::Python), ..RunCode::new(code) };
    let mut stream = server.client().run_code_stream(&sandbox, None, &request).await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = stream.next().await {
        let event = event.unwrap();
        if matches!(&event, RunEvent::Stdout { data, .. } if data.contains("first")) {
            server.shell("s", "touch /workspace/seen").await;
        }
        seen.push(event);
    }
    // On a busy machine a line may come in two pieces.
    let end_of_line =
        |event: &RunEvent| matches!(event, RunEvent::Stdout { data, .. } if data == "\n");
    seen.retain(|event| !end_of_line(event));
    let names: Vec<_> = seen.iter().map(RunEvent::name).collect();
    assert_eq!(names, ["start", "stdout", "result", "stdout", "error", "end"]);
    let RunEvent::Result(output) = &seen[2] else { panic!("{seen:?}") };
    assert_eq!(output.html.as_deref(), Some("<b>1</b>"));
    let RunEvent::Error(error) = &seen[4] else { panic!("{seen:?}") };
    assert_eq!((error.name.as_str(), error.kind), ("ZeroDivisionError", CodeErrorKind::Exception));
    assert!(matches!(
        seen[5],
        RunEvent::End { success: false, execution_count: 1, context_reset: false, .. }
    ));
}

#[tokio::test]
async fn a_stream_that_is_dropped_interrupts_and_one_with_a_key_goes_on() {
    let server = server();
    run(&server, "import time, os").await;
    let code = "for n in range(5):\n    print(n)\n    while not os.path.exists(f'/workspace/{n}'): time.sleep(0.005)\nn";
    let ask = |after: Option<u64>| {
        let request = server.request(Method::POST, RUN).json(&json!({ "code": code }));
        let request = request.header("idempotency-key", "k");
        match after {
            Some(cursor) => request.header("last-event-id", cursor),
            None => request,
        }
    };
    let mut first = events(ask(None)).await.unwrap();
    // On a busy machine a line may come in two pieces.
    let mut line = String::new();
    while line != "0\n" {
        let event = first.next().await.expect("it prints a line");
        if event["type"] == "stdout" {
            line += event["data"].as_str().unwrap_or_default();
        }
    }
    let cursor = first.cursor;
    drop(first);
    server.shell("s", "touch 0 1 2 3 4").await;
    let mut second = events(ask(cursor)).await.unwrap();
    let (mut text, mut last) = (String::new(), json!(null));
    while let Some(event) = second.next().await {
        assert_ne!(event["type"], "start");
        text += event["data"].as_str().unwrap_or_default();
        last = event;
    }
    assert_eq!(text, "1\n2\n3\n4\n", "what had come does not come again");
    assert_eq!((&last["type"], &last["success"]), (&json!("end"), &json!(true)));
    // The same answer again, whole, and to nobody with another request.
    let whole = server.request(Method::POST, RUN).json(&json!({ "code": code }));
    let whole = testkit::answer(whole.header("idempotency-key", "k").send().await.unwrap()).await;
    assert_eq!(whole.json["logs"]["stdout"], json!(["0\n", "1\n", "2\n", "3\n", "4\n"]));
    let other = server.request(Method::POST, RUN).json(&json!({"code": "1"}));
    let other = testkit::answer(other.header("idempotency-key", "k").send().await.unwrap()).await;
    assert_eq!(other.code(), "IDEMPOTENCY_CONFLICT");
    assert_eq!(run(&server, "n").await.execution_count, 3, "it ran once");
}

#[tokio::test]
async fn code_waits_for_a_reader_that_is_slow() {
    let server = server();
    let sandbox: SandboxId = "s".parse().unwrap();
    let request = RunCode::new(
        "for _ in range(200): print('x' * 100_000)\nopen('/workspace/done', 'w').close()",
    );
    let mut stream = server.client().run_code_stream(&sandbox, None, &request).await.unwrap();
    let mut bytes = 0;
    while let Some(event) = stream.next().await {
        if let RunEvent::Stdout { data, .. } = event.unwrap() {
            bytes += data.len();
        }
    }
    assert_eq!(bytes, 200 * 100_001, "nothing is dropped on the way to a reader");
}

#[tokio::test]
async fn code_whose_reader_does_not_read_is_interrupted_and_its_context_goes_on() {
    let server = server();
    for (language, keep, code, kept, writer) in [
        ("python", "kept = 1", "print('x' * 100_000_000)", "print(kept)", "python3"),
        ("bash", "kept=1", "yes", "echo $kept", "yes"),
    ] {
        let at = json!({ "language": language });
        run_in(&server, RUN, keep, at.clone()).await;
        let ask = server.request(Method::POST, RUN).header("accept", "text/event-stream");
        let unread = ask.json(&json!({"language": language, "code": code})).send().await.unwrap();
        // There is no event for a program that does not get on any more.
        let stuck = format!(
            "until pid=$(pgrep -n {writer}) && before=$(cut -d' ' -f14,15 /proc/$pid/stat) && sleep 0.2 \
             && [ \"$(cut -d' ' -f14,15 /proc/$pid/stat)\" = \"$before\" ]; do sleep 0.01; done"
        );
        server.shell("s", &stuck).await;
        let context = format!("{CONTEXTS}/default-{language}");
        let interrupted = server.post(&format!("{context}/interrupt"), &json!({})).await;
        assert_eq!(interrupted.json, json!({"interrupted": true}));
        let result = run_in(&server, RUN, kept, at).await;
        assert_eq!(result.logs.stdout, ["1\n"], "{language}");
        let deleted = tokio::time::timeout(DEADLINE, server.delete(&context)).await;
        assert_eq!(deleted.expect("it does not wait for the reader").status, 204);
        drop(unread);
    }
}

#[tokio::test]
async fn who_has_the_key_of_a_run_gets_its_answer_when_its_context_is_gone() {
    let server = server();
    assert_eq!(server.post(CONTEXTS, &json!({"id": "a"})).await.status, 201);
    let path = format!("{CONTEXTS}/a/run");
    let ask = |code: &str, key: &str| {
        let request = server.request(Method::POST, &path).json(&json!({ "code": code }));
        let request = request.header("idempotency-key", key);
        async { testkit::answer(request.send().await.unwrap()).await }
    };
    let first = ask("print('once')", "k").await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(server.delete(&format!("{CONTEXTS}/a")).await.status, 204);
    assert_eq!(ask("print('once')", "k").await.json, first.json);
    assert_eq!(ask("print('other')", "k").await.code(), "IDEMPOTENCY_CONFLICT");
    assert_eq!(ask("print('once')", "l").await.code(), "CONTEXT_NOT_FOUND");
}
