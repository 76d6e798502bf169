//! How commands end: by a timeout, by their caller's going, with the shell, or under a deletion.

use std::time::Duration;

use futures_util::{StreamExt, future::join_all};
use serde_json::{Value, json};
use testkit::{answer, reqwest::Method};

use super::{BEGUN_MS, EXEC, SANDBOX, SESSIONS, SLEEPERS, session};
use crate::server;

/// Scripts that do not end by themselves. `begun` has been written when they are cut off.
const ENDLESS: [&str; 32] = [
    "sleep 1000",
    "while :; do :; done",
    "f() { while :; do sleep 1000; done; }; g() { f; }; g",
    "for ((;;)); do /bin/true; done",
    "(sleep 1000; echo NO)",
    "sleep 1000 | cat | cat",
    "x=$(sleep 1000)",
    "cat < <(sleep 1000)",
    "sleep 1000 & wait",
    "eval 'while :; do :; done'",
    "source /dev/stdin <<< 'sleep 1000; echo NO'",
    "if sleep 1000; then echo NO; else echo NO; fi",
    "sleep 1000 || echo NO",
    "! sleep 1000",
    "until false; do sleep 0.01; done",
    "select x in a; do sleep 1000; done <<< 1",
    "read x < <(sleep 1000)",
    "mapfile -t x < <(sleep 1000)",
    "coproc sleep 1000; wait",
    "mkfifo /tmp/p$RANDOM$RANDOM; cat /tmp/p*",
    "mkfifo -m 600 /tmp/q; read x </tmp/q",
    "echo x >/tmp/q",
    "bash -c 'trap : TERM INT HUP QUIT; while :; do sleep 1000; done'",
    "setsid sleep 1000 & (setsid sleep 1000 &); sleep 1000",
    "kill -STOP $$",
    "trap 'sleep 1000' USR1; kill -USR1 $$",
    "trap '' INT TERM; sleep 1000",
    "trap 'echo NO' INT; while :; do :; done",
    "trap 'echo NO >&2' ERR; sleep 1000",
    "set -e; sleep 1000",
    "set -m; sleep 1000",
    "exec 7< <(sleep 1000); read -u 7 x",
];

#[tokio::test]
async fn a_timeout_ends_the_command_and_keeps_the_shell() {
    /// Scripts that one session is cut off in, one after the other; the sessions side by side.
    const EACH: usize = 8;
    let server = server();
    let ids: Vec<String> = (0..ENDLESS.len().div_ceil(EACH)).map(|n| format!("n{n}")).collect();
    let cut_off = ids.iter().zip(ENDLESS.chunks(EACH)).map(|(id, scripts)| {
        let s = session(&server, id);
        async move {
            s.out("X=alive; cd /usr; mine() { echo function; }").await;
            for script in scripts {
                let command = format!("echo begun; {script}; echo NO; echo NO >&2");
                let answer = s.ask(&command, json!({"timeoutMs": BEGUN_MS})).await;
                assert_eq!(answer.json["ending"]["type"], "timeout", "{script}: {}", answer.text);
                assert_eq!(answer.json["exitCode"], 124, "{script}: {}", answer.text);
                assert_eq!(answer.json["stdout"], "begun\n", "{script}: {}", answer.text);
                assert!(!answer.text.contains("NO"), "{script}: {}", answer.text);
                assert_eq!(answer.json["sessionReset"], Value::Null, "{script}: {}", answer.text);
                let after = s.out("echo $? $X; pwd; mine; set +e; trap - ERR").await;
                assert_eq!(after, "124 alive\n/usr\nfunction\n", "{script}");
            }
        }
    });
    join_all(cut_off).await;
    session(&server, "n0").expect(&[(SLEEPERS, "0\n")]).await;
}

#[tokio::test]
async fn a_timeout_in_a_trap_that_bash_runs_ends_its_command() {
    let server = server();
    let scripts = [
        "trap 'sleep 1000' ERR; false",
        "cleanup() { sleep 1000; }; trap cleanup ERR; false",
        "f() { trap 'sleep 1000' RETURN; :; }; f",
    ];
    let cut_off = scripts.iter().zip(["a", "b", "c"]).map(|(script, id)| {
        let s = session(&server, id);
        async move {
            s.out("X=alive").await;
            let command = format!("echo begun; {script}; touch /tmp/{id}; echo NO");
            let answer = s.ask(&command, json!({"timeoutMs": BEGUN_MS})).await;
            assert_eq!(answer.json["stdout"], "begun\n", "{script}: {}", answer.text);
            assert_eq!(answer.json["exitCode"], 124, "{script}: {}", answer.text);
            assert_eq!(answer.json["sessionReset"], Value::Null, "{script}: {}", answer.text);
            s.expect(&[(&format!("echo $X; ls /tmp | grep {id} || :"), "alive\n")]).await;
        }
    });
    join_all(cut_off).await;
}

#[tokio::test]
async fn a_shell_that_cannot_be_kept_is_said_to_be_lost() {
    let server = server();
    let s = session(&server, "a");
    s.out("X=1; cd /usr").await;
    for script in
        ["trap '' RTMAX; sleep 1000", "trap '' $(seq 1 64); sleep 1000", "exec sleep 1000"]
    {
        let command = format!("X=1; cd /usr; echo begun; {script}; echo NO");
        let answer = s.ask(&command, json!({"timeoutMs": BEGUN_MS})).await;
        assert_eq!(answer.json["ending"]["type"], "timeout", "{script}: {}", answer.text);
        assert_eq!(answer.json["stdout"], "begun\n", "{script}: {}", answer.text);
        assert_eq!(answer.json["sessionReset"], true, "{script}: {}", answer.text);
        assert_eq!(s.out("echo [$X]; pwd").await, "[]\n/workspace\n", "{script}");
    }
    // The trap is set anew for each command, so only one that takes it away suffers.
    s.expect(&[("trap '' RTMAX; X=1", "")]).await;
    let answer = s.ask("sleep 1000", json!({"timeoutMs": 100})).await;
    assert_eq!(answer.json["sessionReset"], Value::Null, "{}", answer.text);
    s.expect(&[("echo $X", "1\n")]).await;
}

#[tokio::test]
async fn a_request_s_timeout_goes_before_the_session_s() {
    let server = server();
    let body = json!({"id": "a", "commandTimeoutMs": BEGUN_MS});
    assert_eq!(server.post(SESSIONS, &body).await.json["commandTimeoutMs"], BEGUN_MS);
    let s = session(&server, "a");

    let answer = s.ask("sleep 1000", json!({})).await;
    assert_eq!(answer.json["ending"]["type"], "timeout", "{}", answer.text);
    // Time that it waits for its turn is not its own.
    let first = "while [ ! -e /tmp/go ]; do sleep 0.01; done; echo 1";
    let second = async {
        s.until("the first one runs", |session| session["busy"] == true).await;
        let go = async {
            s.until("the second one waits", |session| session["waiting"] == 1).await;
            // Longer than it may run, which is as long as the first one runs at least.
            tokio::time::sleep(Duration::from_millis(BEGUN_MS + BEGUN_MS / 4)).await;
            server.put("/v1/sandboxes/s/files/tmp/go", "").await
        };
        tokio::join!(s.run("echo 2"), go).0
    };
    let (first, second) = tokio::join!(s.run_with(first, json!({"timeoutMs": 60_000})), second);
    assert_eq!((first.1.as_str(), second.1.as_str()), ("1\n", "2\n"));
}

#[tokio::test]
async fn a_fork_bomb_dies_and_the_shell_lives() {
    let server = server();
    let s = session(&server, "a");
    s.out("X=alive").await;
    let bomb = "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 1000";
    let answer = s.ask(bomb, json!({"timeoutMs": 1000})).await;
    assert_eq!(answer.json["ending"]["type"], "timeout", "{}", answer.text);
    assert_eq!(s.out("echo $X").await, "alive\n");
    let count = s.out("ls -d /proc/[0-9]* | wc -l").await;
    assert!(
        count.trim().parse::<u32>().is_ok_and(|count| count < 10),
        "{count} processes are left"
    );
}

#[tokio::test]
async fn a_command_out_of_memory_says_so_and_the_shell_lives() {
    let server = server();
    let memory = json!({"memoryBytes": 64 << 20});
    let made = server.post("/v1/sandboxes", &json!({"id": "s", "resources": memory})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let s = session(&server, "a");
    s.out("X=alive").await;
    let answer = s.ask("head -c 300M /dev/zero | tail", json!({})).await;
    assert_eq!(answer.json["ending"]["type"], "outOfMemory", "{}", answer.text);
    assert_eq!(s.out("echo $X").await, "alive\n");
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_its_command_and_keeps_the_shell() {
    let server = server();
    let s = session(&server, "a");
    s.out("X=alive").await;
    let request = server.request(Method::POST, EXEC).header("accept", "text/event-stream");
    let body = s.body("echo begun; sleep 1000; touch /tmp/NO", json!({}));
    let response = request.json(&body).send().await.expect("a response comes");
    let mut events = response.bytes_stream();
    while let Some(Ok(event)) = events.next().await {
        if event.windows(5).any(|window| window == b"begun") {
            break;
        }
    }

    drop(events);

    s.expect(&[("echo $X; ls /tmp", "alive\n"), (SLEEPERS, "0\n")]).await;
}

#[tokio::test]
async fn a_command_that_ends_the_shell_is_told_and_the_next_one_gets_a_fresh_one() {
    let server = server();
    let made = json!({"id": "a", "cwd": "/usr", "env": {"MINE": "mine"}});
    assert_eq!(server.post(SESSIONS, &made).await.status, 201);
    let s = session(&server, "a");
    for (script, code) in [
        ("exit 7", 7),
        ("exit", 0),
        ("kill -9 $$", 137),
        ("kill -HUP $$", 129),
        ("set -e; false; echo NO", 1),
        ("exec true", 0),
        ("f() { exit 3; }; f; echo NO", 3),
        ("exec no-such-program; echo NO", 127),
        ("trap 'echo bye; exit 5' EXIT; exit 2", 5),
    ] {
        s.out("MINE=changed; OTHER=1; cd /").await;
        let answer = s.ask(&format!("echo out; echo err >&2; {script}"), json!({})).await;
        assert_eq!((answer.status, answer.code()), (410, "SESSION_TERMINATED"), "{}", answer.text);
        let error = &answer.json["error"];
        let text = format!("Session 'a' shell exited (exit code: {code})");
        assert_eq!(error["message"], text, "{script}: {}", answer.text);
        let details = &error["details"];
        assert_eq!(details["exitCode"], code, "{script}: {}", answer.text);
        assert_eq!(details["sessionId"], "a");
        let stdout = details["stdout"].as_str().unwrap_or_default();
        assert!(stdout.starts_with("out\n") && !stdout.contains("NO"), "{script}: {}", answer.text);
        assert_eq!(stdout.contains("bye"), script.contains("bye"), "{script}: {}", answer.text);
        let stderr = details["stderr"].as_str().unwrap_or_default();
        assert!(stderr.starts_with("err\n"), "{script}: {}", answer.text);
        assert_eq!(s.out("pwd; echo $MINE $OTHER $?").await, "/usr\nmine 0\n", "{script}");
    }
}

#[tokio::test]
async fn a_job_goes_on_writing_when_its_command_has_ended_the_shell() {
    let server = server();
    let s = session(&server, "a");
    let job = "n=0; while :; do echo line; echo $((n += 1)) >/tmp/new; mv /tmp/new /tmp/count; sleep 0.01; done";
    let answer = s.ask(&format!("{{ {job}; }} & exit 3"), json!({})).await;
    assert_eq!(answer.status, 410, "{}", answer.text);
    // More than a reader that was there a moment longer would have taken.
    let goes_on = "for i in $(seq 6000); do [ \"$(cat /tmp/count)\" -gt 100 ] 2>/dev/null && exit; sleep 0.01; done; exit 1";
    server.shell("s", goes_on).await;
}

#[tokio::test]
async fn a_stream_says_after_its_output_that_the_shell_ended() {
    let server = server();
    let s = session(&server, "a");
    let request = server.request(Method::POST, EXEC).header("accept", "text/event-stream");
    let body = s.body("echo out; exit 3", json!({}));
    let events = answer(request.json(&body).send().await.expect("a response comes")).await;

    assert_eq!(events.status, 200);
    let last = events.text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    let data = last.strip_prefix("event: error\ndata: ").unwrap_or_default();
    let error: Value = serde_json::from_str(data).unwrap_or_default();
    assert_eq!(error["error"]["code"], "SESSION_TERMINATED", "{}", events.text);
    assert_eq!(error["error"]["details"]["exitCode"], 3, "{}", events.text);
    assert!(events.text.contains(r#""data":"out\n""#), "{}", events.text);
    assert!(!events.text.contains("event: exit"), "{}", events.text);
    // A client sees the error after the events.
    let client = server.client();
    let request = serde_json::from_value(body).expect("it is a request");
    let id = "s".parse().expect("it is an id");
    let stream = client.exec_stream(&id, &request).await.expect("the command starts");
    let events: Vec<_> = stream.collect().await;
    let last = events.last().and_then(|event| event.as_ref().err()).map(ToString::to_string);
    assert!(last.is_some_and(|error| error.contains("exit code: 3")), "{events:?}");
}

#[tokio::test]
async fn a_shell_that_ended_in_between_is_told_before_anything_runs_in_another() {
    let server = server();
    let s = session(&server, "a");
    // Only when this command is over, which it would be a part of otherwise.
    let later =
        "(while [ ! -e /tmp/over ]; do sleep 0.01; done; rm /tmp/over; kill -9 $$) & disown";
    s.out(&format!("cd /usr; X=1; {later}")).await;
    server.put("/v1/sandboxes/s/files/tmp/over", "").await;
    s.until("the shell is gone", |session| session["pid"] == Value::Null).await;

    let told = s.ask("touch /tmp/NO", json!({})).await;
    assert_eq!((told.status, told.code()), (410, "SESSION_TERMINATED"), "{}", told.text);
    assert_eq!(told.json["error"]["details"]["exitCode"], 137, "{}", told.text);
    s.expect(&[("pwd; echo [$X]; ls /tmp", "/workspace\n[]\n")]).await;
}

#[tokio::test]
async fn a_deletion_ends_everything_of_a_session() {
    let server = server();
    let s = session(&server, "a");
    s.out("sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &)").await;
    // The others come when the first one runs: of requests at once, any may come first.
    let begun = async {
        while server.get("/v1/sandboxes/s/files:stat?path=/tmp/begun").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let others = async {
        begun.await;
        tokio::join!(s.ask("echo NO", json!({})), s.ask("echo NO", json!({})), async {
            s.until("two wait", |session| session["waiting"] == 2).await;
            server.delete(&format!("{SESSIONS}/a")).await
        })
    };
    let all = async {
        let first = s.ask("echo > /tmp/begun; (setsid sleep 1000 &); sleep 1000", json!({}));
        let (running, (waiting, also_waiting, deleted)) = tokio::join!(first, others);
        (running, waiting, also_waiting, deleted)
    };
    let (running, waiting, also_waiting, deleted) =
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("a deletion does not hang");

    assert_eq!(deleted.status, 204, "{}", deleted.text);
    for answer in [running, waiting, also_waiting] {
        assert_eq!((answer.status, answer.code()), (410, "SESSION_DESTROYED"), "{}", answer.text);
    }
    // Looked at before anything else is forked: a child on its way to grep is a bash too.
    let left = "names=$(cat /proc/[0-9]*/comm); grep -cE '^(sleep|bash)$' <<< \"$names\" || true; \
                ls /run/sandbar";
    assert_eq!(server.shell("s", left).await, "1\n", "the shell that looks");
    assert_eq!(server.get(&format!("{SESSIONS}/a")).await.code(), "SESSION_NOT_FOUND");
    // The id is free.
    s.expect(&[("echo fresh", "fresh\n")]).await;
    assert_eq!(server.get(SANDBOX).await.json["state"], "running");
}
