//! Too much of everything: bounded, and marked where something is missing.

use futures_util::future::join_all;
use serde_json::json;
use testkit::api::limit::{CONTEXTS, EXEC_OUTPUT_BYTES, REPRESENTATION_BYTES, RUN_RESULTS_BYTES};

use super::{CONTEXTS as PATH, ask, run, server, shows, value};

#[tokio::test]
async fn huge_outputs_and_results_are_cut_and_marked() {
    let server = server();
    let printed = run(&server, "for _ in range(200): print('x' * 99_999)").await;
    let kept: usize = printed.logs.stdout.iter().map(String::len).sum();
    assert_eq!((printed.success, kept), (true, EXEC_OUTPUT_BYTES));
    assert_eq!(printed.dropped_bytes, 20_000_000 - EXEC_OUTPUT_BYTES as u64);

    let long = &shows(&server, "'x' * 30_000_000").await[0];
    let text = long.text.as_deref().unwrap();
    assert!(text.len() < REPRESENTATION_BYTES + 200, "{}", text.len());
    assert!(text.ends_with("of which 8388608 are shown]"), "{}", &text[text.len() - 60..]);
    assert_eq!(long.truncated, ["text/plain"]);
    let page = &shows(&server, "from IPython.display import HTML; HTML('x' * 9_000_000)").await[0];
    assert_eq!((&page.html, &page.truncated), (&None, &vec!["text/html".to_owned()]));

    let many = run(
        &server,
        "from IPython.display import display\nfor _ in range(10_000): display('x' * 10_000)\n1",
    )
    .await;
    assert!(many.success);
    assert!(many.results.len() < 10_000 && many.results.len() > 2_000, "{}", many.results.len());
    let kept: usize = many.results.iter().filter_map(|r| r.text.as_ref()).map(String::len).sum();
    assert!(kept < RUN_RESULTS_BYTES && many.dropped_bytes > 60_000_000, "{kept}");
    assert_eq!(value(&server, "2").await, "2");
}

#[tokio::test]
async fn odd_bytes_and_odd_values_reach_the_caller() {
    let server = server();
    let result =
        run(&server, "import os; n = os.write(1, b'a\\xff\\0b'); print('\\ud800 \\U0001f600')")
            .await;
    assert_eq!(result.logs.stdout.concat(), "a\u{fffd}\0b\\ud800 \u{1f600}\n");
    let code = "class Odd:\n    def __repr__(self): return '\\ud800'\n    def _repr_json_(self): return {'nan': float('nan'), 'big': 10 ** 30}\nOdd()";
    let odd = &shows(&server, code).await[0];
    assert_eq!(odd.text.as_deref(), Some("?"));
    assert_eq!(odd.json.as_ref().unwrap()["nan"], json!(null));
    let raises =
        run(&server, "class Bad(Exception):\n    def __str__(self): raise Bad()\nraise Bad()")
            .await;
    assert_eq!(raises.error.unwrap().name, "Bad");
    let broken = run(&server, "class Broken:\n    def __repr__(self): 1 / 0\nBroken()").await;
    assert_eq!(broken.error.unwrap().name, "ZeroDivisionError");
    assert_eq!(value(&server, "3").await, "3");
}

#[tokio::test]
async fn code_that_closes_and_breaks_its_own_interpreter_harms_itself_alone() {
    let server = server();
    for code in [
        "import os; os.closerange(3, 256)",
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "import os; [os.close(fd) for fd in (0, 1, 2)]",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "import sys; sys.modules.clear()",
        "import builtins; del builtins.print, builtins.len",
        "get_ipython().display_pub = None",
        "import os, glob\nfor fd in range(3, 64):\n    try: os.write(fd, b'\\xff\\xff\\xff\\xff garbage')\n    except OSError: pass",
    ] {
        run(&server, code).await;
        // Whatever it did, after at most one run that is told of it the context works.
        let (_first, _second) = (run(&server, "1").await, run(&server, "1").await);
        server.post(&format!("{PATH}/default-python/restart"), &json!({})).await;
        assert_eq!(value(&server, "print('ok'); 6 * 7").await, "42", "{code}");
    }
}

#[tokio::test]
async fn contexts_are_limited_and_many_start_at_once() {
    let server = server();
    let made = join_all((0..8).map(|n| {
        let request = json!({"id": format!("c{n}")});
        let server = &server;
        async move { server.post(PATH, &request).await.status }
    }));
    assert!(made.await.iter().all(|status| *status == 201));
    // The rest are made without waiting for their interpreters: the default ones count too.
    for n in 8..CONTEXTS {
        let made =
            server.post(PATH, &json!({"id": format!("c{n}"), "env": {"PATH": "/nowhere"}})).await;
        assert_eq!(made.code(), "INTERPRETER_NOT_AVAILABLE", "and it is not kept: {}", made.text);
    }
    assert_eq!(server.get(PATH).await.json["contexts"].as_array().map(Vec::len), Some(8));
    for n in 0..8 {
        let path = format!("{PATH}/c{n}/run");
        assert_eq!(
            ask(&server, &path, &format!("{n}"), json!({})).await.json["results"][0]["text"],
            n.to_string()
        );
    }
}
