//! Code in a session that turns on its own session: only that one suffers, and nothing hangs.

use std::time::Duration;

use serde_json::json;

use super::{SESSIONS, session};
use crate::server;

/// Scripts, each with what they do to their session.
const HOSTILE: [&str; 27] = [
    "rm -rf /run/sandbar",
    "rm -rf /run/sandbar; ln -s /tmp /run/sandbar",
    "rm -rf /run/sandbar; mkfifo /run/sandbar",
    "cd /run/sandbar/*/; rm command; mkfifo command",
    "cd /run/sandbar/*/; rm command; ln -s /dev/zero command",
    "cd /run/sandbar/*/; rm command; mkdir command",
    "cd /run/sandbar/*/; rm -f step; mkfifo step; false",
    "cd /run/sandbar/*/; rm -f loop; mkdir loop",
    "cd /run/sandbar/*/; mkdir int out0 out1 err0 err1; sleep 1000 &",
    "for fd in /proc/$$/fd/*; do n=${fd##*/}; ((n > 2)) && eval \"exec $n>&-\"; done",
    "exec 40>&-",
    "exec 41>&-",
    "exec 42<&-",
    "exec 40</dev/zero",
    "exec 42</dev/zero",
    "echo nonsense >&40",
    "printf '0 h\\0' >&40; printf '0 h\\0' >&40",
    "(yes >&40 &)",
    "exec 0<&- 1>&- 2>&-",
    "readonly __sandbar",
    "declare -r PIPESTATUS; unset PIPESTATUS",
    "enable -n printf mapfile trap",
    "set -r",
    "ulimit -n 8",
    "ulimit -f 0; ulimit -v 20000",
    "trap '' $(seq 1 64); trap 'echo trapped' CHLD",
    "builtin() { :; }; exit() { :; }; command() { :; }; readonly -f builtin exit command",
];

#[tokio::test]
async fn only_the_session_itself_suffers_and_nothing_hangs() {
    let server = server();
    let neighbour = session(&server, "neighbour");
    neighbour.out("X=alive").await;
    for (number, script) in HOSTILE.iter().enumerate() {
        let id = format!("h{number}");
        let s = session(&server, &id);
        s.out("echo started").await;
        // Whatever comes, comes in time; the limit is for what cannot be told from a long command.
        for command in [script, "echo next", "sleep 1000", "echo next", "false", "echo last"] {
            let answer = s.ask(command, json!({"timeoutMs": 1500})).await;
            let is_told = [200, 410, 500, 507].contains(&answer.status);
            assert!(is_told, "{script}: {command}: {}", answer.text);
        }
        assert_eq!(server.delete(&format!("{SESSIONS}/{id}")).await.status, 204, "{script}");
        assert_eq!(s.out("echo $?; echo anew").await, "0\nanew\n", "{script}");
        assert_eq!(server.delete(&format!("{SESSIONS}/{id}")).await.status, 204, "{script}");
        let others = neighbour.ask("echo $X", json!({})).await;
        assert_eq!(others.json["stdout"], "alive\n", "{script}: {}", others.text);
    }
    // The agent itself is none the worse.
    assert_eq!(server.shell("s", "echo fine").await, "fine\n");
}

#[tokio::test]
async fn most_of_what_a_script_may_do_by_accident_does_no_harm() {
    let server = server();
    let s = session(&server, "a");
    s.out("X=alive").await;
    for script in [
        "rm -rf /run/sandbar",
        "rm -rf /run/*",
        "cd /run/sandbar/*/ && rm -f *; cd /",
        "exec 0<&-",
        "trap - $(seq 1 64)",
        "ulimit -n 64",
    ] {
        s.run(script).await;
        assert_eq!(s.out("echo $X").await, "alive\n", "{script}");
        let (code, stdout, _) =
            s.run_with("echo $X; (exit 3)", json!({"cwd": "/usr", "stdin": "x"})).await;
        assert_eq!((code, stdout.as_str()), (3, "alive\n"), "{script}");
    }
    let cut_off = s.ask("rm -rf /run/sandbar; sleep 1000", json!({"timeoutMs": 200})).await;
    assert_eq!(cut_off.json["ending"]["type"], "timeout", "{}", cut_off.text);
}

#[tokio::test]
async fn an_interrupt_ends_what_runs_and_leaves_the_session_usable() {
    let server = server();
    let s = session(&server, "a");
    s.out("X=alive").await;
    let ended = s.run("echo begun; kill -INT $$; echo NO").await;
    assert_eq!(ended, (130, "begun\n".to_owned(), "\n".to_owned()));
    assert_eq!(s.out("echo $? $X").await, "130 alive\n");
    // Nor does it matter what the loop was about to take for its next line.
    let (code, _, _) = s.run("__sandbar=$'a b\\n'; kill -INT $$; echo NO").await;
    assert_eq!((code, s.out("echo $X").await), (130, "alive\n".to_owned()));
    // One that comes between two commands is no matter: each command runs, once, and alone.
    for round in 0..5 {
        let later = "while [ ! -e /tmp/over ]; do sleep 0.01; done; kill -INT $$; touch /tmp/sent";
        s.out(&format!("({later}) & disown")).await;
        // Whose turn comes when the shell has left the job behind.
        s.out(":").await;
        let sent = "touch /tmp/over; while [ ! -e /tmp/sent ]; do sleep 0.01; done; rm /tmp/over /tmp/sent";
        server.shell("s", sent).await;
        let command = format!("echo {round} >>/tmp/rounds; echo $X $PWD $N");
        let more = json!({"env": {"N": "n"}, "cwd": "/usr"});
        let more = if round % 2 == 0 { more } else { json!({}) };
        let expected = if round % 2 == 0 { "alive /usr n\n" } else { "alive /workspace\n" };
        assert_eq!(s.run_with(&command, more).await, (0, expected.to_owned(), String::new()));
    }
    assert_eq!(s.out("cat /tmp/rounds").await, "0\n1\n2\n3\n4\n");
}

#[tokio::test]
async fn a_full_run_directory_is_told() {
    let server = server();
    let s = session(&server, "a");
    s.out("X=alive").await;
    s.run("head -c 100M /dev/zero >/run/full").await;
    let refused = s.ask("echo NO", json!({"stdin": "x".repeat(1 << 20)})).await;
    assert_eq!((refused.status, refused.code()), (507, "NO_SPACE"), "{}", refused.text);
    let made = server.post(SESSIONS, &json!({"id": "b"})).await;
    assert!([201, 507].contains(&made.status), "{}", made.text);
    server.shell("s", "rm /run/full").await;
    assert_eq!(s.out("echo $X").await, "alive\n");
}

#[tokio::test]
async fn a_session_under_a_storm_of_callers_that_go_away_stays_whole() {
    let server = server();
    let s = session(&server, "a");
    s.out("X=alive").await;
    for round in 0..30 {
        let body = s.body("echo $X; sleep 0.05; true | cat", json!({}));
        let request =
            server.request(testkit::reqwest::Method::POST, super::EXEC).json(&body).send();
        // Somewhere between before its start and after its end.
        drop(tokio::time::timeout(Duration::from_millis(round * 3), request).await);
    }
    assert_eq!(s.out("echo $X; jobs").await, "alive\n");
}
