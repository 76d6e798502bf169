//! Contexts that go on from the image's warm start, and those that cannot.

use serde_json::json;
use testkit::Server;

use super::{CONTEXTS, RUN, SANDBOX, run_in, server, value};

/// Whether the interpreter that runs this went on from a warm start.
const IS_WARM: &str = "open('/proc/self/cmdline').read().split('\\0')[1] == '__resume'";

const FILE: &str = "/var/cache/sandbar/python";

/// A new context with these variables: is it warm?
async fn is_warm(server: &Server, env: serde_json::Value) -> bool {
    let made = server.post(CONTEXTS, &json!({ "env": env })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let path = format!("{CONTEXTS}/{}", made.json["id"].as_str().expect("a context has an id"));
    let code = format!("import os; print({IS_WARM}); sum([1, 2]), os.environ.get('LANG')");
    let result = run_in(server, &format!("{path}/run"), &code, json!({})).await;
    assert!(result.success, "{:?}", result.error);
    assert_eq!(server.delete(&path).await.status, 204);
    result.logs.stdout.concat().trim() == "True"
}

#[tokio::test]
async fn contexts_of_the_default_image_start_with_what_most_code_imports() {
    let server = server();
    assert_eq!(value(&server, IS_WARM).await, "True");
    let loaded =
        "import sys; [name in sys.modules for name in ('numpy', 'pandas', 'matplotlib.pyplot')]";
    assert_eq!(value(&server, loaded).await, "[True, True, True]");
    assert_eq!(
        value(&server, "[name for name in dir() if not name.startswith('_')]").await,
        "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit', 'sys']"
    );
}

#[tokio::test]
async fn a_process_that_goes_on_is_as_good_as_one_that_started() {
    let server = server();
    for (code, expected) in [
        // The heap: small pieces, large ones, and what is given back.
        (
            "x = [bytes(600) for _ in range(200_000)]; del x; y = [bytearray(10_000) for _ in range(10_000)]; len(y)",
            "10000",
        ),
        (
            "import ctypes; m = ctypes.CDLL(None).malloc; m.restype = ctypes.c_void_p; len({m(n) for n in range(1, 200_000, 7)}) > 28_000",
            "True",
        ),
        // The stack.
        (
            "import sys; sys.setrecursionlimit(100_000)\nn = []\nfor _ in range(9_000): n = [n]\nlen(repr(n))",
            "18002",
        ),
        // Threads, with locks and with numbers of their own.
        (
            "import threading; r = []; t = [threading.Thread(target=lambda: r.append(threading.get_native_id())) for _ in range(8)]\n[x.start() for x in t]; [x.join() for x in t]; len(r)",
            "8",
        ),
        (
            "import threading, os; threading.main_thread().native_id == threading.get_native_id() == os.getpid()",
            "True",
        ),
        (
            "import threading, signal; signal.pthread_kill(threading.main_thread().ident, 0) is None",
            "True",
        ),
        ("import numpy as np; a = np.ones((500, 500)); float((a @ a)[0, 0])", "500.0"),
        // Children.
        (
            "import os; pid = os.fork()\nif pid == 0: os._exit(7)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])",
            "7",
        ),
        (
            "import multiprocessing as mp; mp.get_context('fork').Pool(2).map(abs, [-1, -2])",
            "[1, 2]",
        ),
        (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True).stdout",
            "b'42\\n'",
        ),
        // Clocks, which are the kernel's.
        (
            "import time, subprocess; abs(time.time() - float(subprocess.getoutput('date +%s.%N'))) < 5",
            "True",
        ),
        (
            "import time; a = time.monotonic(); b = time.perf_counter(); time.sleep(0.01); time.monotonic() > a and time.perf_counter() > b",
            "True",
        ),
        // Exceptions of C++ find their way through all that is loaded.
        (
            "import matplotlib.ft2font as f\ntry: f.FT2Font('/absent')\nexcept OSError as e: print(type(e).__name__)\n1",
            "1",
        ),
        (
            "import sys, site; sys.path[0] == '' and sys.argv == [''] and sys.executable == '/usr/bin/python3'",
            "True",
        ),
    ] {
        assert_eq!(value(&server, code).await, expected, "{code}");
    }
    assert_eq!(value(&server, IS_WARM).await, "True", "it is the same interpreter all along");
    let died = run_in(&server, RUN, "import ctypes; ctypes.string_at(0)", json!({})).await;
    assert!(died.logs.stderr.concat().contains("Segmentation fault"), "{:?}", died.logs);
}

#[tokio::test]
async fn what_does_not_fit_starts_from_the_beginning() {
    let server = server();
    assert!(is_warm(&server, json!({})).await);
    assert!(is_warm(&server, json!({"MINE": "1"})).await);
    for env in [
        json!({"LANG": "C"}),
        json!({"PYTHONPATH": "/tmp"}),
        json!({"PATH": "/usr/bin:/bin"}),
        json!({"HOME": "/tmp"}),
    ] {
        assert!(!is_warm(&server, env.clone()).await, "{env}");
    }
    for (change, undo) in [
        ("mkdir /usr/local/lib/python3.11/dist-packages/more", "rmdir"),
        ("mkdir -p ~/.local/lib/python3.11/site-packages", "the user's own packages"),
    ] {
        let fresh = format!("/v1/sandboxes/{}", undo.replace(['\'', ' '], "-"));
        let answer = server.post(&format!("{fresh}/exec"), &json!({"command": change})).await;
        assert_eq!(answer.json["exitCode"], 0, "{}", answer.text);
        let result = run_in(&server, &format!("{fresh}/run"), IS_WARM, json!({})).await;
        assert_eq!(result.results[0].text.as_deref(), Some("False"), "{change}");
    }
    // What is in the file is the sandbox's business, and whatever it is, code runs.
    for (change, warm) in [
        (format!("mv {FILE} /tmp/kept"), false),
        (format!("cp /tmp/kept {FILE}"), true),
        (format!("head -c 100 /tmp/kept > {FILE}"), false),
        (format!("head -c 65536 /tmp/kept > {FILE}"), false),
        (
            format!(
                "cp /tmp/kept {FILE}; printf x | dd of={FILE} bs=1 seek=20 conv=notrunc 2>/dev/null"
            ),
            false,
        ),
        (
            format!(
                "cp /tmp/kept {FILE}; head -c 60000 /dev/urandom | dd of={FILE} bs=1 seek=56 conv=notrunc 2>/dev/null"
            ),
            false,
        ),
        (
            format!(
                "cp /tmp/kept {FILE}; head -c 9000000 /dev/zero | dd of={FILE} bs=64k seek=1 conv=notrunc 2>/dev/null"
            ),
            false,
        ),
        (format!("rm {FILE}; mkfifo {FILE}"), false),
        (format!("rm {FILE}; mkdir {FILE}"), false),
        (format!("rmdir {FILE}; cp /tmp/kept {FILE}"), true),
    ] {
        server.shell("s", &change).await;
        assert_eq!(is_warm(&server, json!({})).await, warm, "{change}");
    }
}

#[tokio::test]
async fn a_sandbox_keeps_a_start_of_its_own() {
    let server = server();
    let packages = "/usr/local/lib/python3.11/dist-packages";
    server.shell("s", &format!("echo 'import os; made = os.getpid()' > {packages}/mine.py")).await;
    let warm = format!("{SANDBOX}/contexts:warm");
    let kept = server.post(&warm, &json!({"imports": ["mine"]})).await;
    assert_eq!(kept.status, 200, "{}", kept.text);
    assert!(kept.json["bytes"].as_u64() > Some(10_000_000), "{}", kept.text);
    assert!(is_warm(&server, json!({})).await);
    let code = "import sys, os; 'mine' in sys.modules and sys.modules['mine'].made != os.getpid()";
    assert_eq!(value(&server, code).await, "True");

    let threads = "import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True).start()";
    server.shell("s", &format!("echo '{threads}' > {packages}/busy.py; echo 'f = open(\"/etc/passwd\")' > {packages}/holds.py")).await;
    for (imports, said) in [
        (json!(["absent"]), "No module named 'absent'"),
        (json!(["busy"]), "started a thread"),
        (json!(["holds"]), "/etc/passwd"),
    ] {
        let refused = server.post(&warm, &json!({ "imports": imports })).await;
        assert_eq!(refused.code(), "INTERPRETER_NOT_AVAILABLE", "{}", refused.text);
        assert!(refused.text.contains(said), "{}", refused.text);
    }
    let many = vec!["json"; 65];
    assert_eq!(server.post(&warm, &json!({"imports": many})).await.code(), "VALIDATION_FAILED");
    assert_eq!(server.shell("s", "ls /var/cache/sandbar").await, "python\n");
    let host = Server::start(env!("CARGO_BIN_EXE_sandbar"));
    let refused = host.post(&warm, &json!({})).await;
    assert_eq!(refused.code(), "INTERPRETER_NOT_AVAILABLE", "{}", refused.text);
}
