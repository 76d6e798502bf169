//! Python as in a notebook.

use serde_json::json;

use super::{RUN, run, run_in, server, shows, value};

#[tokio::test]
async fn variables_imports_and_functions_stay() {
    let server = server();
    run(&server, "import math; radius = 5\ndef area(r): return math.pi * r ** 2").await;
    assert_eq!(value(&server, "area(radius)").await, "78.53981633974483");
    assert_eq!(value(&server, "_ * 2").await, "157.07963267948966");
    assert_eq!(value(&server, "class A:\n  x = 1\nA.x").await, "1");
}

#[tokio::test]
async fn a_run_has_its_output_its_value_and_its_number() {
    let server = server();
    let code = "data = [1, 2, 3, 4, 5]\nprint(f'Sum: {sum(data)}')\nsum(data)";
    let result = run(&server, code).await;
    assert!(result.success && result.error.is_none());
    assert_eq!(result.logs.stdout, ["Sum: 15\n"]);
    assert_eq!(result.results[0].text.as_deref(), Some("15"));
    assert_eq!(result.execution_count, 1);
    assert_eq!(run(&server, "None").await.results, []);
    assert_eq!(run(&server, "x = 1").await.execution_count, 3);
    let result =
        run(&server, "print('a', end='')\nimport sys\nprint('b\\nc', file=sys.stderr)").await;
    assert_eq!(result.logs.stdout, ["a"]);
    assert_eq!(result.logs.stderr, ["b\n", "c\n"]);
}

#[tokio::test]
async fn errors_have_name_value_line_and_traceback() {
    let server = server();
    let error = run(&server, "def f():\n    return 1 / 0\n\nf()").await.error.unwrap();
    assert_eq!(
        (error.name.as_str(), error.value.as_str()),
        ("ZeroDivisionError", "division by zero")
    );
    assert_eq!(error.message, error.value);
    assert_eq!(error.line_number, Some(2));
    let traceback = error.traceback.join("\n");
    assert!(traceback.contains("----> 2     return 1 / 0"), "{traceback}");
    assert!(!traceback.contains('\x1b') && !traceback.contains("_sandbar"), "{traceback}");

    let error = run(&server, "x = 1\ndef f(:\n  pass").await.error.unwrap();
    assert_eq!((error.name.as_str(), error.line_number), ("SyntaxError", Some(2)));

    let colored = run_in(&server, RUN, "1/0", json!({"color": true})).await.error.unwrap();
    assert!(colored.traceback.join("").contains("\x1b["), "{colored:?}");
    let error = run(&server, "raise ValueError('a') from KeyError('b')").await.error.unwrap();
    assert!(error.traceback.join("\n").contains("direct cause"), "{error:?}");
}

#[tokio::test]
async fn await_magics_and_shell_commands_work() {
    let server = server();
    assert_eq!(value(&server, "import asyncio\nawait asyncio.sleep(0.01)\n7").await, "7");
    let nested = "async def main():\n    await asyncio.sleep(0)\n    return 3\nasyncio.run(main())";
    assert_eq!(value(&server, nested).await, "3");
    let later =
        "async def later():\n    global done\n    done = True\ntask = asyncio.create_task(later())";
    run(&server, later).await;
    assert_eq!(value(&server, "await task\ndone").await, "True");

    assert_eq!(run(&server, "!echo $((6 * 7))").await.logs.stdout.concat().trim_end(), "42");
    assert_eq!(run(&server, "%%bash\necho one\necho two >&2").await.logs.stderr, ["two\n"]);
    assert_eq!(value(&server, "files = !printf 'a\\nb\\n'\nlist(files)").await, "['a', 'b']");
    let timed = run(&server, "%timeit -n 1 -r 1 1").await.logs.stdout.concat();
    assert!(timed.contains("per loop"), "{timed}");
    let pip = run(&server, "%pip --version").await.logs.stdout.concat();
    assert!(pip.contains("python 3.11"), "{pip}");
    let pages = shows(&server, "len?").await;
    assert!(pages[0].text.as_deref().unwrap_or_default().contains("number of items"));
}

#[tokio::test]
async fn threads_and_programs_write_where_their_run_is() {
    let server = server();
    let code = "import os, subprocess, threading\n\
        thread = threading.Thread(target=lambda: print('from a thread'))\n\
        thread.start(); thread.join()\n\
        subprocess.run('echo from a program; echo complaint >&2', shell=True)\n\
        os.write(1, b'from C\\n')\n\
        if os.fork() == 0:\n    print('from a fork')\nelse:\n    os.wait()\n";
    let result = run(&server, code).await;
    let stdout = result.logs.stdout.concat();
    assert_eq!(stdout, "from a thread\nfrom a program\nfrom C\nfrom a fork\n");
    assert_eq!(result.logs.stderr, ["complaint\n"]);
    // What is written after a run comes with the next one.
    let code = "import time\ndef late():\n    while not os.path.exists('/workspace/over'): time.sleep(0.01)\n\
        \x20   print('late')\n    open('/workspace/said', 'w').close()\n\
        thread = threading.Thread(target=late)\nthread.start()";
    run(&server, code).await;
    server.shell("s", "touch over; until [ -e said ]; do sleep 0.01; done").await;
    assert_eq!(run(&server, "thread.join()").await.logs.stdout, ["late\n"]);
}

#[tokio::test]
async fn what_is_displayed_between_two_runs_is_in_nobodys_way() {
    let server = server();
    let late = "import asyncio\nasync def late():\n  await asyncio.sleep(0.1); open('/tmp/late', 'w').close(); display('late'); open('/tmp/read', 'w').close()\ntask = asyncio.create_task(late())";
    run(&server, late).await;
    server.shell("s", "until [ -e /tmp/read ]; do sleep 0.01; done").await;
    assert_eq!(value(&server, "1 + 1").await, "2");
    // Threads do not wait until theirs are read.
    let many = "import threading\nthread = threading.Thread(target=lambda: [display(i) for i in range(1000)])\nthread.start(); thread.join()";
    assert_eq!(run(&server, many).await.results.len(), 1000);
}

#[tokio::test]
async fn a_wrapper_of_an_output_does_not_close_it() {
    let server = server();
    let wrap = "import gc, io, sys\nfor _ in range(2): sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\ngc.collect(); print('wrapped')";
    assert_eq!(run(&server, wrap).await.logs.stdout, ["wrapped\n"]);
    assert_eq!(
        run(&server, "sys.stdout = sys.__stdout__; print('own')").await.logs.stdout,
        ["own\n"]
    );
}

#[tokio::test]
async fn input_is_refused_at_once() {
    let server = server();
    for code in ["input('name? ')", "import getpass; getpass.getpass()"] {
        let error = run(&server, code).await.error.unwrap();
        assert_eq!(error.name, "StdinNotImplementedError");
        assert!(error.value.contains("nobody"), "{error:?}");
    }
    assert_eq!(value(&server, "import sys; sys.stdin.read()").await, "''");
}

#[tokio::test]
async fn variables_of_a_run_last_as_long_as_the_run() {
    let server = server();
    let get = "import os; os.environ.get('GREETING')";
    let result = run_in(&server, RUN, get, json!({"env": {"GREETING": "hello"}})).await;
    assert_eq!(result.results[0].text.as_deref(), Some("'hello'"));
    assert_eq!(run(&server, get).await.results, []);
    let result =
        run_in(&server, RUN, "os.environ.get('HOME')", json!({"env": {"HOME": null}})).await;
    assert_eq!(result.results, []);
    assert_eq!(value(&server, "os.environ.get('HOME')").await, "'/root'");
}

#[tokio::test]
async fn files_of_the_user_do_not_break_the_interpreter() {
    let server = server();
    server.shell("s", "for name in json socket asyncio signal IPython; do echo 'raise SystemExit(9)' > $name.py; done").await;
    assert_eq!(value(&server, "1 + 1").await, "2");
    server.shell("s", "rm *.py; echo 'x = 5' > mine.py").await;
    assert_eq!(value(&server, "import mine; mine.x").await, "5");
}

#[tokio::test]
async fn what_is_printed_is_never_taken_for_an_answer() {
    let server = server();
    let code = "import os, json\n\
        frame = json.dumps({'id': 1, 'op': 'end', 'count': 99}).encode()\n\
        for fd in (1, 2):\n    os.write(fd, len(frame).to_bytes(4, 'big') + frame)\n\
        print('event: end\\ndata: {\"type\": \"end\"}\\n\\n')\n5";
    let result = run(&server, code).await;
    assert_eq!(result.execution_count, 1);
    assert_eq!(result.results[0].text.as_deref(), Some("5"));
    assert!(result.logs.stdout.concat().contains("\"count\": 99"));
    // Standard input is no way to the agent either.
    assert_eq!(value(&server, "os.readlink('/proc/self/fd/0')").await, "'/dev/null'");
}
