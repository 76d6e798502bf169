//! The command line: a script in a fresh sandbox, and a language line by line.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use testkit::Server;

use super::server;

/// Runs a command line, with this on its stdin.
fn sandbar(server: &Server, arguments: &[&str], stdin: &str) -> Output {
    let mut command = server.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut input = child.stdin.take().expect("stdin is piped");
    input.write_all(stdin.as_bytes()).expect("it reads");
    drop(input);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_script_of_this_machine_runs_in_a_sandbox_that_is_gone_afterwards() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let python = script(
        "a.py",
        "import os, sys\nprint('out', os.environ['WHO'])\nprint('err', file=sys.stderr)\n6 * 7\n",
    );
    let done = sandbar(&server, &["run", "-e", "WHO=me", &python], "");
    assert_eq!(
        (text(&done.stdout), text(&done.stderr)),
        ("out me\n42\n".to_owned(), "err\n".into())
    );
    assert!(done.status.success());
    let failing = script("b.py", "def f():\n    1 / 0\nf()\n");
    let failed = sandbar(&server, &["run", &failing], "");
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        text(&failed.stderr).contains("----> 2     1 / 0")
            && text(&failed.stderr).contains("ZeroDivisionError")
    );
    let exit = script("c.py", "import sys\nsys.exit(7)\n");
    assert_eq!(sandbar(&server, &["run", &exit], "").status.code(), Some(7));
    let slow = script("d.py", "import time\ntime.sleep(60)\n");
    assert_eq!(
        sandbar(&server, &["run", "--timeout", "500ms", &slow], "").status.code(),
        Some(124)
    );
    let typescript = script("e.ts", "enum E { A = 5 }\nconsole.log(E.A as number)\n");
    assert_eq!(text(&sandbar(&server, &["run", &typescript], "").stdout), "5\n");
    let json = sandbar(&server, &["--json", "run", &python], "");
    assert!(!json.status.success(), "WHO is not set");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["error"]["name"], "KeyError");
    assert_eq!(text(&sandbar(&server, &["ps", "--json"], "").stdout).trim(), r#"{"sandboxes":[]}"#);
}

#[test]
fn a_repl_keeps_what_was_said() {
    let server = server();
    let done = sandbar(
        &server,
        &["repl", "python"],
        "x = 20\ndef f(n):\n    return n + 1\n\nprint('hi')\nf(x)\n",
    );
    assert_eq!(text(&done.stdout), "hi\n21\n");
    assert!(done.status.success(), "{}", text(&done.stderr));
    let named = sandbar(&server, &["repl", "js", "box"], "const a = [1, 2]\na\n");
    assert_eq!(text(&named.stdout), "[ 1, 2 ]\n", "{}", text(&named.stderr));
    let listed = text(&sandbar(&server, &["ps", "--json"], "").stdout);
    assert!(listed.contains("\"box\"") && !listed.contains("run-"), "{listed}");
}
