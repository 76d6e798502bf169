//! Variables: those of a command, of a session, of the sandbox and of the image.

use serde_json::{Value, json};
use testkit::{Answer, Server, answer, reqwest::Method};

use super::{SANDBOX, SESSIONS, session};
use crate::server;

async fn patch(server: &Server, path: &str, env: Value) -> Answer {
    let request = server.request(Method::PATCH, path).json(&json!({ "env": env }));
    answer(request.send().await.expect("a response comes")).await
}

async fn change(server: &Server, path: &str, env: Value) {
    let changed = patch(server, path, env).await;
    assert_eq!(changed.status, 204, "{path}: {}", changed.text);
}

#[tokio::test]
async fn a_command_s_go_before_a_session_s_before_the_sandbox_s() {
    let server = server();
    let env = json!({"A": "sandbox", "B": "sandbox", "C": "sandbox", "D": "sandbox"});
    server.post("/v1/sandboxes", &json!({"id": "s", "env": env})).await;
    let made = json!({"id": "a", "env": {"A": "session", "B": "session", "D": null}});
    assert_eq!(server.post(SESSIONS, &made).await.status, 201);
    let show = "echo $A $B $C ${D-unset}; env | grep -c ^A=";
    let s = session(&server, "a");

    assert_eq!(
        s.run_with(show, json!({"env": {"A": "command"}})).await.1,
        "command session sandbox unset\n1\n"
    );
    assert_eq!(s.out(show).await, "session session sandbox unset\n1\n");
    // Later changes of the sandbox's are for what starts later, and for the default session at once.
    session(&server, "default").out("echo started").await;
    change(&server, &format!("{SANDBOX}/env"), json!({"A": "new", "C": "new", "D": null})).await;
    assert_eq!(s.out(show).await, "session session sandbox unset\n1\n");
    assert_eq!(session(&server, "b").out(show).await, "new sandbox new unset\n1\n");
    assert_eq!(session(&server, "default").out(show).await, "new sandbox new unset\n1\n");
    assert_eq!(server.shell("s", show).await, "new sandbox new unset\n1\n");
    // What a session was given for itself stays.
    change(&server, &format!("{SESSIONS}/default/env"), json!({"A": "own", "B": null})).await;
    change(&server, &format!("{SANDBOX}/env"), json!({"A": "newest", "B": "newest"})).await;
    assert_eq!(session(&server, "default").out(show).await, "own new unset\n1\n");
    let env = server.get(&format!("{SANDBOX}/env")).await.json["env"].clone();
    assert_eq!(
        (&env["A"], &env["B"], &env["D"]),
        (&json!("newest"), &json!("newest"), &Value::Null)
    );
    assert_eq!(env["HOME"], "/root", "what the image and the agent give is there too");
    // A fresh shell has what was set for its session, and not what commands set.
    let s = session(&server, "default");
    s.out("A=gone; export E=gone").await;
    assert_eq!(s.ask("exit", json!({})).await.status, 410);
    assert_eq!(s.out("echo $A $B $C $E").await, "own new\n");
}

#[tokio::test]
async fn variables_that_a_command_made_read_only_are_told() {
    let server = server();
    let s = session(&server, "a");
    s.out("readonly A=1 D=1").await;
    let path = format!("{SESSIONS}/a/env");

    let refused = patch(&server, &path, json!({"A": "2", "B": "3", "C": "4", "D": null})).await;

    assert_eq!((refused.status, refused.code()), (400, "VALIDATION_FAILED"), "{}", refused.text);
    assert_eq!(refused.json["error"]["details"]["variables"], "A, D");
    assert_eq!(s.out("echo $A $B $C $D").await, "1 3 4 1\n");
}

#[tokio::test]
async fn variables_too_long_to_be_told_cost_no_shell() {
    let server = server();
    let s = session(&server, "a");
    s.out("x=$(head -c 20000000 /dev/zero | tr '\\0' a); export x").await;
    let path = format!("{SESSIONS}/a/env");

    let refused = server.get(&path).await;

    assert_eq!((refused.status, refused.code()), (413, "PAYLOAD_TOO_LARGE"), "{}", refused.text);
    s.expect(&[("echo ${#x}; export -n x", "20000000\n")]).await;
    assert_eq!(server.get(&path).await.json["env"]["HOME"], "/root");
}

#[tokio::test]
async fn what_is_for_one_command_is_put_back_after_it() {
    let server = server();
    let s = session(&server, "a");
    s.out("cd /usr; cd lib; A=old; export B=old; declare -i I=5; R=(x y); readonly F=fix; unset N")
        .await;
    let env = json!({"A": "new", "B": null, "I": "abc", "R": "flat", "N": "n", "IFS": ":", "Q": "a'b\n$c"});
    let script =
        "pwd; echo \"$A ${B-unset} $I $R $N $Q\"; env | grep -cE '^(A|B|I|R|N)='; A=x; B=x; N=x";
    let expected = "/tmp\nnew unset abc flat n a'b\n$c\n4\n";
    assert_eq!(s.run_with(script, json!({"env": env, "cwd": "/tmp"})).await.1, expected);
    let after = "pwd; echo $OLDPWD $A $B $I ${R[1]} ${N-unset} ${Q-unset}; declare -p A B I; printf %q \"$IFS\"";
    let expected = "/usr/lib\n/usr old old 5 y unset unset\ndeclare -- A=\"old\"\n\
                    declare -x B=\"old\"\ndeclare -i I=\"5\"\n$' \\t\\n'";
    assert_eq!(s.out(after).await, expected);
    // Also when the command was cut off, when it went elsewhere, and in POSIX mode.
    s.ask(
        "cd /; sleep 1000",
        json!({"env": {"B": null, "A": "1"}, "cwd": "/tmp", "timeoutMs": 100}),
    )
    .await;
    assert_eq!(s.out(after).await, expected);
    s.out("set -o posix").await;
    s.run_with("cd /; A=2", json!({"env": {"B": null, "A": "1"}, "cwd": "/tmp"})).await;
    assert_eq!(s.out(after).await, expected);
    s.out("set +o posix").await;
    // What was exported beside them stays.
    s.run_with("export NEW=1", json!({"env": {"A": "1"}})).await;
    assert_eq!(s.out("echo $NEW").await, "1\n");
    // A readonly variable is the session's own doing; nothing breaks.
    let (code, stdout, stderr) = s.run_with("echo $F", json!({"env": {"F": "other"}})).await;
    assert_eq!((code, stdout.as_str()), (0, "fix\n"), "{stderr}");
    assert!(stderr.contains("F: readonly variable"), "{stderr}");
    assert_eq!(s.out("echo $F $A").await, "fix old\n");
}

#[tokio::test]
async fn a_command_s_directory_starts_at_its_session_s() {
    let server = server();
    let s = session(&server, "a");
    s.out("mkdir -p /tmp/d/'e f'/g; cd /tmp/d; CDPATH=/usr; ln -s / link; touch file").await;
    for (cwd, expected) in [
        ("e f", "/tmp/d/e f\n"),
        ("e f/g", "/tmp/d/e f/g\n"),
        ("lib", ""),
        (".", "/tmp/d\n"),
        ("..", "/tmp\n"),
        ("/usr", "/usr\n"),
        ("link", "/tmp/d/link\n"),
        ("-", ""),
    ] {
        let answer = s.ask("pwd", json!({"cwd": cwd})).await;
        if expected.is_empty() {
            assert_eq!(
                (answer.status, answer.code()),
                (404, "FILE_NOT_FOUND"),
                "{cwd}: {}",
                answer.text
            );
        } else {
            assert_eq!(answer.json["stdout"], expected, "{cwd}: {}", answer.text);
        }
        assert_eq!(s.out("pwd").await, "/tmp/d\n", "{cwd}");
    }
    assert_eq!(s.ask("pwd", json!({"cwd": "file"})).await.code(), "NOT_DIRECTORY");
    assert_eq!(s.ask("pwd", json!({"cwd": "a\0b"})).await.code(), "INVALID_PATH");
    // A directory that goes while the command runs, and one that the shell is in.
    s.run_with("rm -r /tmp/d/'e f'", json!({"cwd": "/tmp/d/e f"})).await;
    s.expect(&[("pwd; rm -r /tmp/d; echo gone", "/tmp/d\ngone\n"), ("cd /; pwd", "/\n")]).await;
}

#[tokio::test]
async fn every_byte_of_a_value_survives() {
    let server = server();
    let s = session(&server, "a");
    let value: String = (1..128).map(char::from).chain("äöü€😀'\"\\$(x)`y`".chars()).collect();
    let hex = "printf %s \"$V\" | od -An -tx1 -v | tr -d ' \\n'";
    let expected: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();

    assert_eq!(s.run_with(hex, json!({"env": {"V": value}})).await.1, expected);
    change(&server, &format!("{SESSIONS}/a/env"), json!({"V": value})).await;
    assert_eq!(s.out(hex).await, expected);
    assert_eq!(s.out(&format!("bash -c '{}'", hex.replace("' \\n'", "\" \\n\""))).await, expected);
    let shown = server.get(&format!("{SESSIONS}/a/env")).await;
    assert_eq!(shown.json["env"]["V"], value, "{}", shown.text);
    change(&server, &format!("{SANDBOX}/env"), json!({"V": value})).await;
    assert_eq!(session(&server, "b").out(hex).await, expected);
    assert_eq!(server.shell("s", hex).await, expected);
    // Large ones, and many.
    let large = "x".repeat(60 * 1024);
    change(&server, &format!("{SESSIONS}/a/env"), json!({"L": large, "V": null})).await;
    assert_eq!(s.out("echo ${#L} ${V-unset}").await, "61440 unset\n");
    let shown = server.get(&format!("{SESSIONS}/a/env")).await;
    assert_eq!(shown.json["env"]["L"], large);
}

#[tokio::test]
async fn a_session_s_variables_are_what_its_shell_exports() {
    let server = server();
    let s = session(&server, "a");
    s.out("export A=1; B=2; C=3; export C; unset HOME; export D; export -n PATH; PATH=/bin").await;
    let env = server.get(&format!("{SESSIONS}/a/env")).await.json["env"].clone();
    assert_eq!((&env["A"], &env["C"]), (&json!("1"), &json!("3")));
    for name in ["B", "D", "HOME", "PATH", "__sandbar", "__sandbar_name"] {
        assert_eq!(env[name], Value::Null, "{name} in {env}");
    }
    // Changes come in turn with its commands.
    let command = s.run("while [ ! -e /tmp/go ]; do sleep 0.01; done; echo $A");
    let change = async {
        s.until("a command runs", |session| session["busy"] == true).await;
        let path = format!("{SESSIONS}/a/env");
        let change = patch(&server, &path, json!({"A": "2"}));
        let go = async {
            s.until("the change waits", |session| session["waiting"] == 1).await;
            server.put("/v1/sandboxes/s/files/tmp/go", "").await
        };
        tokio::join!(change, go).0
    };
    let (first, changed) = tokio::join!(command, change);
    assert_eq!((first.1.as_str(), changed.status), ("1\n", 204));
    s.expect(&[("echo $A", "2\n")]).await;
}

#[tokio::test]
async fn bad_variables_are_refused_and_change_nothing() {
    let server = server();
    let s = session(&server, "a");
    s.out("echo made").await;
    for path in [format!("{SANDBOX}/env"), format!("{SESSIONS}/a/env")] {
        for name in ["", "1A", "A-B", "A.B", "A B", "A;touch /tmp/x", "ä"] {
            let refused = patch(&server, &path, json!({name: "x", "GOOD": "x"})).await;
            assert_eq!((refused.status, refused.code()), (400, "VALIDATION_FAILED"), "{name:?}");
        }
        let refused = patch(&server, &path, json!({"A": "a\0b"})).await;
        assert_eq!(refused.code(), "VALIDATION_FAILED");
        let many: Value = (0..40)
            .map(|n| (format!("V{n}"), json!("x".repeat(60_000))))
            .collect::<serde_json::Map<_, _>>()
            .into();
        assert_eq!(patch(&server, &path, many).await.code(), "PAYLOAD_TOO_LARGE", "{path}");
        let unknown = server.request(Method::PATCH, &path).json(&json!({"env": {}, "x": 1}));
        assert_eq!(answer(unknown.send().await.expect("a response comes")).await.status, 400);
    }
    let refused = s.ask("echo NO", json!({"env": {"A-B": "x"}})).await;
    assert_eq!((refused.status, refused.code()), (400, "VALIDATION_FAILED"), "{}", refused.text);
    assert_eq!(
        patch(&server, &format!("{SESSIONS}/none/env"), json!({})).await.code(),
        "SESSION_NOT_FOUND"
    );
    s.expect(&[("echo ${GOOD-unset} $V1; ls /tmp", "unset\n")]).await;
}
