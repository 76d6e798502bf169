//! How code ends that does not end by itself, and what becomes of its context.

use futures_util::StreamExt;
use serde_json::json;
use testkit::api::{
    exec::Ending,
    interpreter::{CodeErrorKind, Language, RunCode, RunEvent},
};

use super::{BEGUN_MS, RUN, SANDBOX, run, run_in, server, value};

#[tokio::test]
async fn a_timeout_interrupts_and_keeps_the_context() {
    let server = server();
    run(&server, "kept = 1; import time, asyncio, os, subprocess").await;
    for code in [
        "time.sleep(60)",
        "while True: pass",
        "await asyncio.sleep(60)",
        "asyncio.run(asyncio.sleep(60))",
        "!sleep 60",
        "os.system('sleep 60')",
        "subprocess.run(['sleep', '60'])",
        "print('before')\ntime.sleep(60)",
        // What it awaits does not come back to the loop.
        "async def slow(): time.sleep(60)\nawait asyncio.wait_for(slow(), 100)",
        "async def busy():\n  while True: pass\nawait asyncio.gather(busy())",
    ] {
        let result = run_in(&server, RUN, code, json!({"timeoutMs": BEGUN_MS})).await;
        let error = result.error.unwrap();
        assert_eq!(
            (error.kind, error.name.as_str()),
            (CodeErrorKind::Timeout, "TimeoutError"),
            "{code}"
        );
        assert!(!result.context_reset, "{code}");
        assert!(result.duration_ms >= BEGUN_MS, "{code}");
        if code.starts_with("print") {
            assert_eq!(result.logs.stdout, ["before\n"]);
            assert_eq!(error.line_number, Some(2));
            assert!(error.traceback.join("\n").contains("----> 2 time.sleep(60)"), "{error:?}");
        }
        assert_eq!(value(&server, "kept").await, "1", "{code}");
    }
    assert_eq!(server.shell("s", "pgrep -c sleep || true").await, "0\n");
}

/// An interrupt may meet code that ends by itself. Here an interpreter gets it and the next code at once.
#[tokio::test]
async fn an_interrupt_that_is_too_late_does_not_end_the_next_code() {
    let server = server();
    let javascript = ("process.pid", "await new Promise(done => setTimeout(done, 10))");
    for (language, (own_id, code)) in [
        (Language::Python, ("import os; os.getpid()", "import asyncio; await asyncio.sleep(0.01)")),
        (Language::Bash, ("echo $$", "sleep 0.01")),
        (Language::JavaScript, javascript),
        (Language::TypeScript, javascript),
    ] {
        let shown = run_in(&server, RUN, own_id, json!({ "language": language })).await;
        let pid = match shown.results.first() {
            Some(value) => value.text.clone().unwrap(),
            None => shown.logs.stdout.concat(),
        };
        let pid = pid.trim();
        server.shell("s", &format!("kill -STOP {pid}; kill -INT {pid}")).await;
        let request = RunCode { language: Some(language), ..RunCode::new(code) };
        let sandbox = "s".parse().unwrap();
        let mut events = server.client().run_code_stream(&sandbox, None, &request).await.unwrap();
        let begun = events.next().await.unwrap().unwrap();
        assert!(matches!(begun, RunEvent::Start { .. }), "{begun:?}");
        server.shell("s", &format!("kill -CONT {pid}")).await;
        let rest: Vec<_> = events.map(Result::unwrap).collect().await;
        let is_well = matches!(rest.last(), Some(RunEvent::End { success: true, .. }));
        assert!(is_well, "{language}: {rest:?}");
    }
}

#[tokio::test]
async fn code_that_does_not_obey_is_killed_and_its_context_starts_afresh() {
    let server = server();
    run(&server, "lost = 1").await;
    let code = "import time\nwhile True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass";
    // Not before it runs, when it would obey.
    let result = run_in(&server, RUN, code, json!({"timeoutMs": BEGUN_MS})).await;
    let error = result.error.unwrap();
    assert_eq!((error.kind, error.ending), (CodeErrorKind::Timeout, Some(Ending::Timeout)));
    assert!(error.value.contains("did not obey"), "{error:?}");
    assert!(result.context_reset);
    assert_eq!(run(&server, "lost").await.error.unwrap().name, "NameError");
}

#[tokio::test]
async fn every_end_of_an_interpreter_is_typed_and_the_next_run_has_another() {
    let server = server();
    let one_gib = json!({"id": "s", "resources": {"memoryBytes": 512 * 1024 * 1024}});
    let made = server.post("/v1/sandboxes", &one_gib).await;
    assert_eq!(made.status, 201, "{}", made.text);
    for (code, kind, ending) in [
        ("import os; os._exit(4)", CodeErrorKind::Exited, Ending::Exited { code: 4 }),
        (
            "import ctypes; ctypes.string_at(0)",
            CodeErrorKind::Crashed,
            Ending::Signaled { signal: 11 },
        ),
        (
            "import os; os.kill(os.getpid(), 9)",
            CodeErrorKind::Crashed,
            Ending::Signaled { signal: 9 },
        ),
        (
            "hoard = [bytearray(1 << 20) for _ in range(4096)]",
            CodeErrorKind::OutOfMemory,
            Ending::OutOfMemory,
        ),
    ] {
        run(&server, "lost = 1").await;
        let result = run(&server, &format!("print('before')\n{code}")).await;
        let error = result.error.unwrap();
        assert_eq!((error.kind, error.ending), (kind, Some(ending)), "{code}");
        assert_eq!(result.logs.stdout, ["before\n"], "{code}");
        assert!(result.context_reset, "{code}");
        if kind == CodeErrorKind::Crashed && code.contains("ctypes") {
            assert!(result.logs.stderr.concat().contains("string_at"), "says where");
        }
        let after = run(&server, "lost").await;
        assert_eq!(after.error.unwrap().name, "NameError", "{code}");
        assert_eq!(after.execution_count, 1, "{code}");
    }
}

#[tokio::test]
async fn sys_exit_is_an_error_and_keeps_the_context() {
    let server = server();
    run(&server, "kept = 1").await;
    for code in ["import sys; sys.exit(3)", "exit()", "quit()", "raise SystemExit(3)"] {
        let result = run(&server, code).await;
        assert_eq!(result.error.unwrap().name, "SystemExit", "{code}");
        assert!(!result.context_reset, "{code}");
        assert_eq!(value(&server, "kept").await, "1", "{code}");
    }
}

#[tokio::test]
async fn what_code_left_behind_cannot_end_its_interpreter_by_an_exception() {
    let server = server();
    run(&server, "kept = 1; import asyncio, sys, signal, time").await;
    let left = "async def main(): sys.exit(1)\nawait asyncio.wait_for(main(), 5)";
    let result = run(&server, left).await;
    assert_eq!(result.error.unwrap().name, "SystemExit");
    assert_eq!(value(&server, "kept").await, "1");
    // An alarm that its own cell did not wait for.
    run(&server, "def late(*_):\n  open('/tmp/late', 'w').close(); raise TimeoutError\nsignal.signal(signal.SIGALRM, late); signal.setitimer(signal.ITIMER_REAL, 0.1)").await;
    server.shell("s", "until [ -e /tmp/late ]; do sleep 0.01; done").await;
    assert_eq!(value(&server, "kept").await, "1");
}

#[tokio::test]
async fn who_comes_after_a_silent_end_is_told_before_code_runs() {
    let server = server();
    let pid = value(&server, "import os; lost = 1; os.getpid()").await;
    server
        .shell("s", &format!("kill -SEGV {pid}; while kill -0 {pid} 2>/dev/null; do :; done"))
        .await;
    let result = run(&server, "open('/workspace/ran', 'w').close()").await;
    let error = result.error.unwrap();
    assert_eq!(
        (error.kind, error.ending),
        (CodeErrorKind::Crashed, Some(Ending::Signaled { signal: 11 }))
    );
    assert!(result.context_reset);
    assert_eq!(server.shell("s", "ls /workspace").await, "");
    assert_eq!(value(&server, "1 + 1").await, "2");
}

#[tokio::test]
async fn a_caller_that_goes_away_interrupts_its_code() {
    let server = server();
    run(&server, "kept = 1; import time").await;
    // It tells that it began where the interrupt is caught: one that comes between would end it unseen.
    let body = json!({"code": "try:\n    open('/workspace/began', 'w').close()\n    time.sleep(600)\n\
        except KeyboardInterrupt:\n    open('/workspace/interrupted', 'w').close()\n    raise"});
    let request = server.request(testkit::reqwest::Method::POST, RUN).json(&body);
    let caller = tokio::spawn(request.send());
    server.shell("s", "until [ -e /workspace/began ]; do sleep 0.01; done").await;
    caller.abort();
    server.shell("s", "until [ -e /workspace/interrupted ]; do sleep 0.01; done").await;
    assert_eq!(value(&server, "kept").await, "1");
    let list = server.get(&format!("{SANDBOX}/processes")).await;
    assert_eq!(list.json["processes"], json!([]));
}
