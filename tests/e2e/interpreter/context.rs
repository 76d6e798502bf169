//! Contexts: made, listed, interrupted, restarted, deleted, apart from each other.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;
use testkit::api::interpreter::{CodeErrorKind, RunResult};

use super::{CONTEXTS, RUN, SANDBOX, ask, run_in, server};

fn path(id: &str) -> String {
    format!("{CONTEXTS}/{id}/run")
}

#[tokio::test]
async fn a_context_has_its_own_directory_variables_and_state() {
    let server = server();
    server.shell("s", "mkdir sub").await;
    let request = json!({"id": "a", "language": "python3", "cwd": "sub", "env": {"WHO": "a", "LANG": null}, "timeoutMs": 60_000});
    let made = server.post(CONTEXTS, &request).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.json["language"], "python");
    assert_eq!(
        (&made.json["cwd"], &made.json["timeoutMs"]),
        (&json!("/workspace/sub"), &json!(60_000))
    );
    let generated = server.post(CONTEXTS, &json!({})).await;
    let other = generated.json["id"].as_str().unwrap().to_owned();

    let code = "import os; x = os.getcwd(), os.environ.get('WHO'), os.environ.get('LANG'); x";
    let result = run_in(&server, &path("a"), code, json!({"language": "python"})).await;
    assert_eq!(result.results[0].text.as_deref(), Some("('/workspace/sub', 'a', None)"));
    let result = run_in(&server, &path(&other), "x", json!({})).await;
    assert_eq!(result.error.unwrap().name, "NameError");
    run_in(&server, RUN, "1", json!({})).await;

    let list = server.get(CONTEXTS).await.json;
    let ids: Vec<_> =
        list["contexts"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", other.as_str(), "default-python"]);
    let a = server.get(&format!("{CONTEXTS}/a")).await.json;
    assert_eq!((&a["busy"], &a["executionCount"]), (&json!(false), &json!(1)));
    assert!(a["lastUsedMs"].as_i64() >= a["createdAtMs"].as_i64());

    assert_eq!(server.delete(&format!("{CONTEXTS}/a")).await.status, 204);
    assert_eq!(server.get(&format!("{CONTEXTS}/a")).await.code(), "CONTEXT_NOT_FOUND");
    assert_eq!(ask(&server, &path("a"), "1", json!({})).await.code(), "CONTEXT_NOT_FOUND");
    assert_eq!(
        server.shell("s", &format!("kill -0 {} 2>&1 || echo gone", a["pid"])).await.lines().last(),
        Some("gone")
    );
}

#[tokio::test]
async fn runs_of_a_context_take_turns_and_contexts_run_side_by_side() {
    let server = server();
    for id in ["a", "b"] {
        assert_eq!(server.post(CONTEXTS, &json!({"id": id})).await.status, 201);
    }
    run_in(&server, &path("a"), "order = []", json!({})).await;
    let codes: Vec<_> = (0..8).map(|n| format!("order.append({n}); len(order)")).collect();
    let path_a = path("a");
    let results =
        join_all(codes.iter().map(|code| run_in(&server, &path_a, code, json!({})))).await;
    let texts: BTreeSet<_> = results.iter().filter_map(|r| r.results[0].text.clone()).collect();
    assert_eq!(texts.len(), 8, "each saw what the ones before it did");

    // Each waits for the other: that ends only if both run at once.
    let meet = |mine: &str, other: &str| {
        format!(
            "import os, time\nopen('/workspace/{mine}', 'w').close()\nwhile not os.path.exists('/workspace/{other}'): time.sleep(0.01)\n'met'"
        )
    };
    let (code_a, code_b) = (meet("at-a", "at-b"), meet("at-b", "at-a"));
    let path_b = path("b");
    let (a, b) = tokio::join!(
        run_in(&server, &path_a, &code_a, json!({})),
        run_in(&server, &path_b, &code_b, json!({}))
    );
    assert!(a.success && b.success, "{a:?} {b:?}");
}

/// Starts code that says when it runs and then waits, and returns its answer to come.
async fn begun(server: &testkit::Server, id: &str) -> tokio::task::JoinHandle<RunResult> {
    let body =
        json!({"code": "open('/workspace/began', 'w').close()\nimport time; time.sleep(600)"});
    let request = server.request(testkit::reqwest::Method::POST, &path(id)).json(&body);
    let answer = tokio::spawn(async move {
        let answer = request.send().await.expect("an answer comes");
        answer.json().await.expect("an answer reads as documented")
    });
    server
        .shell("s", "until [ -e /workspace/began ]; do sleep 0.01; done; rm /workspace/began")
        .await;
    answer
}

#[tokio::test]
async fn interrupt_restart_and_delete_end_what_runs_and_say_so() {
    let server = server();
    assert_eq!(server.post(CONTEXTS, &json!({"id": "a"})).await.status, 201);
    run_in(&server, &path("a"), "kept = 1", json!({})).await;
    let idle = server.post(&format!("{CONTEXTS}/a/interrupt"), &json!({})).await;
    assert_eq!(idle.json, json!({"interrupted": false}));

    let running = begun(&server, "a").await;
    assert_eq!(server.get(&format!("{CONTEXTS}/a")).await.json["busy"], true);
    let interrupted = server.post(&format!("{CONTEXTS}/a/interrupt"), &json!({})).await;
    assert_eq!(interrupted.json, json!({"interrupted": true}));
    let result = running.await.unwrap();
    assert_eq!(result.error.unwrap().kind, CodeErrorKind::Interrupted);
    assert!(!result.context_reset);
    let kept = run_in(&server, &path("a"), "kept", json!({})).await;
    assert_eq!(kept.results[0].text.as_deref(), Some("1"));

    let running = begun(&server, "a").await;
    let restarted = server.post(&format!("{CONTEXTS}/a/restart"), &json!({})).await;
    assert_eq!((restarted.status, &restarted.json["executionCount"]), (200, &json!(0)));
    let result = running.await.unwrap();
    assert_eq!(result.error.unwrap().kind, CodeErrorKind::Interrupted);
    assert!(result.context_reset);
    let lost = run_in(&server, &path("a"), "kept", json!({})).await;
    assert_eq!(lost.error.unwrap().name, "NameError");

    let running = begun(&server, "a").await;
    assert_eq!(server.delete(&format!("{CONTEXTS}/a")).await.status, 204);
    assert_eq!(running.await.unwrap().error.unwrap().kind, CodeErrorKind::Deleted);
    assert_eq!(server.shell("s", "pgrep -c python3 || true").await, "0\n");
}

#[tokio::test]
async fn an_idle_context_is_reclaimed_and_who_comes_back_is_told() {
    let server = server();
    let made = server.post(CONTEXTS, &json!({"id": "a", "idleTimeoutMs": 300})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let pid = made.json["pid"].as_i64().unwrap();
    server.shell("s", &format!("while kill -0 {pid} 2>/dev/null; do sleep 0.01; done")).await;
    let answer = ask(&server, &path("a"), "1", json!({})).await;
    assert_eq!((answer.status, answer.code()), (410, "CONTEXT_EXPIRED"));
    assert_eq!(server.get(CONTEXTS).await.json, json!({"contexts": []}));
    assert_eq!(server.post(CONTEXTS, &json!({"id": "a"})).await.status, 201);
    assert!(run_in(&server, &path("a"), "1", json!({})).await.success);
}

#[tokio::test]
async fn bad_requests_are_refused_before_anything_starts() {
    let server = server();
    for (request, code) in [
        (json!({"language": "ruby"}), "VALIDATION_FAILED"),
        (json!({"lang": "python"}), "VALIDATION_FAILED"),
        (json!({"id": "a b"}), "VALIDATION_FAILED"),
        (json!({"timeoutMs": 0}), "VALIDATION_FAILED"),
        (json!({"idleTimeoutMs": 86_400_001}), "VALIDATION_FAILED"),
        (json!({"env": {"A-B": "1"}}), "VALIDATION_FAILED"),
        (json!({"cwd": "/nowhere"}), "FILE_NOT_FOUND"),
        (json!({"cwd": "/etc/passwd"}), "NOT_DIRECTORY"),
    ] {
        assert_eq!(server.post(CONTEXTS, &request).await.code(), code, "{request}");
    }
    assert_eq!(server.post(CONTEXTS, &json!({"id": "a"})).await.status, 201);
    assert_eq!(server.post(CONTEXTS, &json!({"id": "a"})).await.code(), "CONTEXT_EXISTS");
    for (more, code) in [
        (json!({"language": "javascript"}), "VALIDATION_FAILED"),
        (json!({"timeoutMs": 0}), "VALIDATION_FAILED"),
        (json!({"env": {"": "1"}}), "VALIDATION_FAILED"),
        (json!({"codes": 1}), "VALIDATION_FAILED"),
    ] {
        assert_eq!(ask(&server, &path("a"), "1", more.clone()).await.code(), code, "{more}");
    }
    let long = format!("#{}", "x".repeat(testkit::api::limit::CODE_BYTES));
    assert_eq!(ask(&server, &path("a"), &long, json!({})).await.code(), "PAYLOAD_TOO_LARGE");
    assert!(run_in(&server, &path("a"), &long[1..].replace('x', " "), json!({})).await.success);
}

#[tokio::test]
async fn an_image_without_what_a_language_needs_says_so() {
    let server = server();
    let broken = [
        ("rm /usr/bin/python3", "python3", "there is no python3"),
        (
            "rm -r /usr/local/lib/python3.11/dist-packages/IPython",
            "IPython",
            "No module named 'IPython'",
        ),
    ];
    for (number, (breaking, missing, why)) in broken.into_iter().enumerate() {
        let sandbox = format!("/v1/sandboxes/broken{number}");
        server.shell(&format!("broken{number}"), breaking).await;
        let answer = ask(&server, &format!("{sandbox}/run"), "1", json!({})).await;
        assert_eq!(
            (answer.status, answer.code()),
            (501, "INTERPRETER_NOT_AVAILABLE"),
            "{}",
            answer.text
        );
        assert_eq!(answer.json["error"]["details"]["missing"], missing);
        assert!(
            answer.text.contains(why) && answer.text.contains("pip install ipython"),
            "{}",
            answer.text
        );
    }
}

/// A Python of which each start waits until there is a file `go`.
async fn waiting_at_its_start(server: &testkit::Server) {
    let code = "import os, time\nopen('/workspace/began', 'w').close()\nwhile not os.path.exists('/workspace/go'): time.sleep(0.01)\n";
    let put = server.put(&format!("{SANDBOX}/files/workspace/sitecustomize.py"), code).await;
    assert!(put.status < 300, "{}", put.text);
}

const BEGAN: &str = "until [ -e began ]; do sleep 0.01; done";

#[tokio::test]
async fn a_context_that_is_deleted_while_it_starts_leaves_no_interpreter() {
    let server = server();
    waiting_at_its_start(&server).await;
    let made = json!({"id": "a", "env": {"PYTHONPATH": "/workspace"}});
    let (made, ()) = tokio::join!(server.post(CONTEXTS, &made), async {
        server.shell("s", BEGAN).await;
        assert_eq!(server.delete(&format!("{CONTEXTS}/a")).await.status, 204);
    });
    assert_eq!(made.code(), "CONTEXT_DELETED", "{}", made.text);
    server.shell("s", "while pgrep python3 > /dev/null; do sleep 0.01; done").await;
}

#[tokio::test]
async fn a_restart_interrupts_code_whose_interpreter_was_starting() {
    let server = server();
    let made = json!({"id": "a", "env": {"PYTHONPATH": "/workspace"}});
    assert_eq!(server.post(CONTEXTS, &made).await.status, 201);
    waiting_at_its_start(&server).await;
    let exit = run_in(&server, &path("a"), "import os; os._exit(0)", json!({})).await;
    assert!(exit.context_reset);
    let (restart, own) = (format!("{CONTEXTS}/a/restart"), path("a"));
    let (run, restarted, ()) = tokio::join!(
        ask(&server, &own, "while True: pass", json!({"timeoutMs": 3_600_000})),
        async {
            server.shell("s", BEGAN).await;
            server.post(&restart, &json!({})).await
        },
        async {
            server.shell("s", BEGAN).await;
            // The restart waits for its turn: one that has come is counted.
            loop {
                let context = server.get(&format!("{CONTEXTS}/a")).await.json;
                if context["waiting"] == 2 {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            server.shell("s", "touch go").await;
        }
    );
    assert_eq!(run.json["error"]["kind"], "interrupted", "{}", run.text);
    assert_eq!(restarted.status, 200, "{}", restarted.text);
}
