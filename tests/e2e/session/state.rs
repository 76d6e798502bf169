//! What a command changes is there for the next one, and nothing of ours shows.

use serde_json::{Value, json};
use testkit::answer;

use super::{BEGUN_MS, EXEC, SESSIONS, SLEEPERS, session};
use crate::server;

#[tokio::test]
async fn what_a_command_changes_stays() {
    let server = server();
    let s = session(&server, "a");
    let commands = [
        ("cd /usr/lib", ""),
        ("pwd", "/usr/lib\n"),
        ("export E=1; V=2; A=(x 'y z'); declare -i I=3+4; readonly R=5", ""),
        ("echo $E $V \"${A[1]}\" $I $R; env | grep -c '^V=' || true", "1 2 y z 7 5\n0\n"),
        ("f() { cd /tmp; echo \"in f $1\"; }; alias ll='echo alias'", ""),
        ("f x; ll y; pwd", "in f x\nalias y\n/tmp\n"),
        ("shopt -s extglob nullglob; set -o pipefail; set -f; umask 027", ""),
        ("shopt extglob | cut -f2; false | true; echo $?; echo *; umask", "on\n1\n*\n0027\n"),
        ("set +f; set -- one 'two three'", ""),
        ("echo $# \"$2\"; exec 3</etc/hostname; hash -p /bin/true mytrue", "2 two three\n"),
        ("read -u 3 name && echo read; mytrue; exec 3<&-", "read\n"),
        ("echo $$ >/tmp/pid; echo $SHLVL $- | grep -c i", "1\n"),
        ("[ $$ = $(cat /tmp/pid) ] && echo same", "same\n"),
    ];
    s.expect(&commands).await;
    // One that is made by naming it starts where the sandbox does, and has nothing of the other.
    assert_eq!(session(&server, "b").out("pwd; echo \"[$E$V]\"").await, "/workspace\n[]\n");
}

#[tokio::test]
async fn streamed_and_buffered_commands_share_their_session() {
    let server = server();
    let s = session(&server, "default");
    s.out("X=1; cd /tmp").await;

    let request = server.request(testkit::reqwest::Method::POST, EXEC);
    let request = request.header("accept", "text/event-stream");
    let streamed = request.json(&s.body("echo $X; pwd >&2; X=2; cd /usr", json!({}))).send();
    let events = answer(streamed.await.expect("a response comes")).await.text;

    let names: Vec<&str> = events.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!((names[0], names[names.len() - 1]), ("start", "exit"), "{events}");
    assert!(
        events.contains(r#""data":"1\n""#) && events.contains(r#""data":"/tmp\n""#),
        "{events}"
    );
    assert_eq!(s.out("echo $X; pwd").await, "2\n/usr\n");
}

#[tokio::test]
async fn scripts_run_as_they_are_written() {
    let server = server();
    let s = session(&server, "a");
    let script = "for i in 1 2; do\n  echo \"line $i\"\ndone\ncat <<'END'\n$HOME 'as it is'\nEND\n\
                  cat <<-END\n\tindented $((1 + 1))\n\tEND\ncase x in\n  x) echo case ;;\nesac\n\
                  # a comment\nif true\nthen\n  echo $LINENO\nfi";
    let expected = "line 1\nline 2\n$HOME 'as it is'\nindented 2\ncase\n16\n";
    s.expect(&[
        (script, expected),
        ("printf %s 'no newline at the end'", "no newline at the end"),
        ("echo one # comment", "one\n"),
        ("echo a\\\nb", "ab\n"),
        (
            "cat <<< here; (cd /; pwd); { pwd; }; { time true; } 2>/dev/null",
            "here\n/\n/workspace\n",
        ),
        ("echo $(echo nested $(echo deep))", "nested deep\n"),
        ("cat <(echo process) | tr a-z A-Z", "PROCESS\n"),
        ("coproc cat; echo x >&${COPROC[1]}; read l <&${COPROC[0]}; echo $l", "x\n"),
        ("echo y >&${COPROC[1]}; read l <&${COPROC[0]}; echo $l; kill $COPROC_PID; wait", "y\n"),
        ("return 0", ""),
        ("[ -t 0 ] || [ -t 1 ] || echo no terminal", "no terminal\n"),
        ("eval 'echo eval'; source /dev/stdin <<< 'echo source'", "eval\nsource\n"),
    ])
    .await;
    // A program with its arguments is the same in a session as without.
    let argv = json!({"command": ["printf", "%s|", "a b", "$HOME", "'", ""], "session": "a"});
    assert_eq!(server.post(EXEC, &argv).await.json["stdout"], "a b|$HOME|'||");
    let builtin = json!({"command": ["cd", "/usr"], "session": "a"});
    assert_eq!(server.post(EXEC, &builtin).await.json["exitCode"], 0);
    s.expect(&[("pwd", "/usr\n")]).await;
}

#[tokio::test]
async fn loops_are_the_commands_own() {
    let server = server();
    let s = session(&server, "a");
    // What a prompt would print is no command's output.
    let noisy =
        "PS0=zero; PS1=one; PROMPT_COMMAND='echo two; echo three >&2'; TMOUT=1; X=alive; set -m";
    s.out(noisy).await;
    s.out("printf 'echo a; break; echo b; continue 2; echo $#\\n' >words; set -- 1 2").await;
    let refused = |words: &[&str]| {
        let lines = words.iter().map(|word| {
            format!(": {word}: only meaningful in a `for', `while', or `until' loop\n")
        });
        lines.collect::<Vec<_>>()
    };
    for (command, expected, words) in [
        ("break; echo $X", "alive\n", &["break"][..]),
        ("continue; echo $X", "alive\n", &["continue"]),
        ("break 3; continue 3; declare Y=kept", "", &["break", "continue"]),
        ("for i in 1 2 3; do [ $i = 2 ] && continue; echo $i; done; echo $Y", "1\n3\nkept\n", &[]),
        ("while :; do for i in 1 2; do break 2; done; echo NO; done", "", &[]),
        ("[[ $- == *m* ]] && eval 'echo jobs'", "jobs\n", &[]),
        (". ./words; echo c", "a\nb\n2\nc\n", &["break", "continue"]),
        ("source ./words", "a\nb\n2\n", &["break", "continue"]),
        ("eval \"$(cat words)\"", "a\nb\n2\n", &["break", "continue"]),
        ("for i in 1 2; do . ./words; done; echo c", "a\nc\n", &[]),
    ] {
        for more in [json!({}), json!({"env": {"A": "1"}, "cwd": ".", "stdin": "x"})] {
            let (code, stdout, stderr) = s.run_with(command, more).await;
            assert_eq!((code, stdout.as_str()), (0, expected), "{command}: {stderr}");
            let lines: Vec<&str> = stderr.split_inclusive('\n').collect();
            let refused = refused(words);
            assert_eq!(lines.len(), refused.len(), "{command}: {stderr}");
            for (line, end) in lines.iter().zip(refused) {
                assert!(line.ends_with(&end), "{command}: {stderr}");
            }
        }
    }
    // A word that nobody could see coming ends its command, and nothing else. But it brings the shell
    // to its top level for a while.
    s.out("unset TMOUT PS0 PROMPT_COMMAND").await;
    for word in ["bre''ak", "con''tinue"] {
        let (code, stdout, _) = s.run(&format!("echo a; {word}; echo b")).await;
        assert_eq!((code, stdout.as_str()), (0, "a\n"), "{word}");
        let (code, stdout, _) = s.run("echo $X $Y; declare Y=kept").await;
        assert_eq!((code, stdout.as_str()), (0, "alive kept\n"), "{word}");
        s.expect(&[("echo $Y", "kept\n")]).await;
    }
}

#[tokio::test]
async fn an_error_ends_the_command_and_not_the_session() {
    let server = server();
    let s = session(&server, "a");
    s.out("X=alive; touch /tmp/plain").await;
    for (command, code, message) in [
        ("echo 'unbalanced", 2, "unexpected EOF while looking for matching `''"),
        ("if true; then echo x", 2, "syntax error: unexpected end of file"),
        ("fi", 2, "syntax error near unexpected token `fi'"),
        ("echo $((1/0)); echo NO", 1, "bash: 1/0: division by 0"),
        ("echo ${nothing?is missing}; echo NO", 1, "bash: nothing: is missing"),
        ("(set -u; echo $nothing); set -u; echo $nothing; echo NO", 1, "nothing: unbound variable"),
        ("set +u; shopt -s failglob; echo /nope*; echo NO", 1, "bash: no match: /nope*"),
        ("shopt -u failglob; no-such-program", 127, "bash: no-such-program: command not found"),
        ("/tmp/plain", 126, "bash: /tmp/plain: Permission denied"),
        ("/no/such", 127, "bash: /no/such: No such file or directory"),
        ("echo x >/no/such", 1, "bash: /no/such: No such file or directory"),
        ("cd /no/such", 1, "bash: cd: /no/such: No such file or directory"),
        ("readonly C=1; C=2; echo NO", 1, "bash: C: readonly variable"),
    ] {
        let (actual, stdout, stderr) = s.run(command).await;
        assert_eq!(actual, code, "{command}: {stdout}{stderr}");
        assert!(!stdout.contains("NO") && stderr.contains(message), "{command}: {stderr}");
        assert_eq!(s.out("echo $X").await, "alive\n", "{command}");
    }
    let refused = s.ask("echo \0", json!({})).await;
    assert_eq!((refused.status, refused.code()), (400, "INVALID_COMMAND"));
    assert_eq!(s.ask(" \n", json!({})).await.code(), "INVALID_COMMAND");
}

#[tokio::test]
async fn the_status_of_a_command_is_seen_by_the_next_one() {
    let server = server();
    let s = session(&server, "a");
    s.out("trap 'echo ERR' ERR").await;
    for (command, expected) in [
        ("echo $?", (0, "0\n")),
        ("(exit 7)", (7, "ERR\n")),
        ("echo $?", (0, "7\n")),
        ("echo $?", (0, "0\n")),
        ("false | true; echo ${PIPESTATUS[@]}; false", (1, "1 0\nERR\n")),
        ("echo $?; return 4", (4, "1\n")),
        ("echo $?", (0, "4\n")),
        ("no-such-program 2>/dev/null", (127, "ERR\n")),
        ("echo $?; set -e", (0, "127\n")),
        ("false && true", (1, "")),
        ("echo $?; [ x = y ] || echo went on; set +e", (0, "1\nwent on\n")),
    ] {
        let (code, stdout, stderr) = s.run(command).await;
        assert_eq!(
            (code, stdout.as_str(), stderr.as_str()),
            (expected.0, expected.1, ""),
            "{command}"
        );
    }
}

#[tokio::test]
async fn traps_and_options_act_on_commands_and_show_nothing_of_ours() {
    let server = server();
    let s = session(&server, "a");
    s.expect(&[
        ("trap 'echo debug' DEBUG; echo a; echo b", "debug\na\ndebug\nb\n"),
        ("echo c", "debug\nc\n"),
        ("trap - DEBUG", "debug\n"),
        ("f() { :; }; trap 'echo return' RETURN; f", "return\n"),
        ("echo quiet; trap - RETURN", "quiet\n"),
        ("trap 'echo usr1' USR1; kill -USR1 $$; echo after", "usr1\nafter\n"),
        ("kill -USR1 $$", "usr1\n"),
        ("PS1='(venv) $PS1'; PROMPT_COMMAND='echo prompt'", ""),
        ("echo still quiet; unset PROMPT_COMMAND", "still quiet\n"),
    ])
    .await;
    for (command, stdout, stderr) in [
        ("set -x; echo one", "one\n", "+++ echo one\n"),
        ("echo two", "two\n", "+++ echo two\n"),
        ("false", "", "+++ false\n"),
        ("set +x", "", "+++ set +x\n"),
        ("set -v", "", ""),
        ("echo three", "three\n", "echo three\n"),
        ("set +v", "", "set +v\n"),
        ("echo four", "four\n", ""),
    ] {
        let (_, out, err) = s.run(command).await;
        assert_eq!((out.as_str(), err.as_str()), (stdout, stderr), "{command}");
    }
    let around = json!({"env": {"A": "b", "HOME": null}, "cwd": "/usr", "stdin": "in"});
    for (command, stdout, stderr) in [
        ("set -v; pwd; cat", "/usr\nin", ""),
        ("echo $A", "b\n", "echo $A\n"),
        ("set +v", "", "set +v\n"),
    ] {
        let (_, out, err) = s.run_with(command, around.clone()).await;
        assert_eq!((out.as_str(), err.as_str()), (stdout, stderr), "{command}");
    }
}

#[tokio::test]
async fn a_command_waits_for_a_trap_that_runs_before_it() {
    let server = server();
    let s = session(&server, "a");
    s.out("trap 'touch /tmp/begun; sleep 2; echo trap' USR1; pid=$$; { sleep 0.1; kill -USR1 $pid; } & disown").await;
    server.shell("s", "until [ -e /tmp/begun ]; do sleep 0.01; done").await;

    s.expect(&[("echo command", "trap\ncommand\n"), ("echo next", "next\n")]).await;
}

#[tokio::test]
async fn nothing_that_a_command_sets_breaks_the_next_one() {
    let server = server();
    let s = session(&server, "a");
    s.expect(&[
        ("IFS=abcdefghijklmnopqrstuvwxyz0; TMOUT=1; sleep 1.2", ""),
        ("echo ok; unset IFS; readonly TMOUT", "ok\n"),
        ("sleep 1.2; echo ok", "ok\n"),
        ("cd() { echo my cd; }; read() { echo my read; }; printf() { echo my printf; }", ""),
        ("mapfile() { :; }; trap() { :; }; set() { :; }; kill() { :; }; eval() { :; }", ""),
        ("alias .='echo dot' builtin='echo b' printf='echo p' exec='echo e' command='echo c'", ""),
        ("cd /; pwd; unalias -a", "my cd\n/workspace\n"),
        ("unset -f cd read printf mapfile trap set kill eval; cd /; pwd", "/\n"),
        ("shopt -s nullglob dotglob globstar nocasematch extdebug; set -C; set -f", ""),
        ("echo ok; shopt -u extdebug nocasematch; set +f", "ok\n"),
        ("set -o posix; echo posix", "posix\n"),
        ("echo ok; set +o posix +C", "ok\n"),
        ("set -u; echo ok", "ok\n"),
        ("echo ok; set +u; set -a", "ok\n"),
        ("env | grep -c __sandbar || true", "0\n"),
        ("env | grep -c __sandbar || true; set +a", "0\n"),
        ("ulimit -n 64; echo ok", "ok\n"),
        ("echo ok; exec 10>/tmp/ten; echo x >&10", "ok\n"),
        ("echo y >&10; cat /tmp/ten; exec 10>&-", "x\ny\n"),
        ("exec </etc/hostname; exec 0<&-", ""),
        ("cat; echo $?", "0\n"),
        ("umask 777; unset PATH HOME PWD OLDPWD", ""),
        ("echo ok; export PATH=/usr/bin:/bin; umask 022", "ok\n"),
        ("set -T; set -E; trap 'true' DEBUG; trap 'true' ERR", ""),
        ("echo ok; trap - DEBUG ERR; set +T; set +E", "ok\n"),
        ("command() { echo my command; }", ""),
    ])
    .await;
    let answer =
        s.ask("cat; echo $A; unset -f command", json!({"stdin": "in ", "env": {"A": "b"}})).await;
    assert_eq!(answer.json["stdout"], "in b\n", "{}", answer.text);
}

#[tokio::test]
async fn variables_that_are_set_back_or_unset_break_nothing() {
    let server = server();
    let s = session(&server, "a");
    s.expect(&[("declare -p >/tmp/declared; set >/tmp/set; export A=1", ""), ("B=2; true", "")])
        .await;
    for command in [
        ". /tmp/declared 2>/dev/null; B=3; (exit 4)",
        ". /tmp/set 2>/dev/null; B=3; (exit 4)",
        "unset $(compgen -v) 2>/dev/null; PATH=/usr/bin:/bin; B=3; (exit 4)",
        "set -u; unset -v __sandbar PIPESTATUS; set +u; B=3; (exit 4)",
    ] {
        for more in [json!({}), json!({"env": {"E": "e"}, "cwd": "/usr", "stdin": "x"})] {
            let (code, stdout, _) = s.run_with(command, more).await;
            assert_eq!((code, stdout.as_str()), (4, ""), "{command}");
            assert_eq!(s.out("echo $? $B; B=2").await, "4 3\n", "{command}");
        }
    }
    // Late answers of what was told before are no answers to what is told next.
    let changes = json!({"env": {"__sandbar": "12 34", "A": "5"}});
    let changed = server.patch(&format!("{SESSIONS}/a/env"), &changes).await;
    assert_eq!(changed.status, 204, "{}", changed.text);
    s.expect(&[("echo $A", "5\n"), ("echo $A", "5\n")]).await;
}

#[tokio::test]
async fn a_prompt_command_from_the_beginning_breaks_nothing() {
    let server = server();
    let env = json!({"PROMPT_COMMAND": "echo noise", "PS1": "mine"});
    assert_eq!(server.post(SESSIONS, &json!({"id": "a", "env": env})).await.status, 201);
    let s = session(&server, "a");
    s.expect(&[("echo a", "a\n"), ("printenv PROMPT_COMMAND PS1", "echo noise\nmine\n")]).await;
    assert_eq!(s.run("false | true; (exit 3)").await, (3, String::new(), String::new()));
    assert_eq!(s.out("echo $?; true | false | true; echo ${PIPESTATUS[*]}").await, "3\n0 1 0\n");
    // What throws the shell to its top level has it prompt.
    assert_eq!(s.run("kill -INT $$").await.0, 130);
    assert_eq!(s.run("echo b; false").await, (1, "b\n".to_owned(), String::new()));
}

#[tokio::test]
async fn outputs_that_a_command_redirects_stay_redirected() {
    let server = server();
    let s = session(&server, "a");
    s.expect(&[
        ("exec 2>&1; echo err >&2", "err\n"),
        ("echo err >&2", "err\n"),
        // Something that is left running makes the shell get new outputs.
        ("sleep 1000 & echo err >&2; exec 3>&1", "err\n"),
        ("echo err >&2; echo three >&3", "err\nthree\n"),
        ("exec 4>/tmp/four; echo a >&4; sleep 1000 &", ""),
        ("echo b >&4; cat /tmp/four; echo three >&3", "a\nb\nthree\n"),
        ("exec >/tmp/log; echo to the log", ""),
        ("echo too; sleep 1000 &", ""),
        ("exec >&3; cat /tmp/log", "to the log\ntoo\n"),
    ])
    .await;
    // Also when a command was cut off.
    let answer = s.ask("echo begun; sleep 1000", json!({"timeoutMs": BEGUN_MS})).await;
    assert_eq!(answer.json["stdout"], "begun\n", "{}", answer.text);
    assert_eq!(answer.json["sessionReset"], Value::Null, "{}", answer.text);
    s.expect(&[(
        "echo err >&2; echo three >&3; echo c >&4; tail -n 1 /tmp/four",
        "err\nthree\nc\n",
    )])
    .await;
}

#[tokio::test]
async fn jobs_live_on_and_stay_out_of_the_way() {
    let server = server();
    let s = session(&server, "a");
    let started = std::time::Instant::now();
    s.expect(&[
        // Until that command is over, what a job writes is its output too.
        (
            "(while [ ! -e /tmp/over ]; do sleep 0.01; done; \
             while :; do echo noise; echo noise >&2; touch /tmp/noise; sleep 0.01; done) & echo started",
            "started\n",
        ),
        ("touch /tmp/over; while [ ! -e /tmp/noise ]; do sleep 0.01; done; echo quiet", "quiet\n"),
        ("jobs %1 | grep -c Running; kill %1; wait %1; echo $?", "1\n143\n"),
        ("sleep 0.3 & job=$!", ""),
        ("wait $job; echo $?; jobs", "0\n"),
        ("sleep 1000 & sleep 1000 & setsid sleep 1000 & disown -a; echo left", "left\n"),
        // They are what they are a moment after they were started.
        (&format!("until [ $({SLEEPERS}) = 3 ]; do :; done; echo three"), "three\n"),
    ])
    .await;
    // A later command that is cut off takes none of them along.
    let answer = s.ask("sleep 1000", json!({"timeoutMs": 100})).await;
    assert_eq!(answer.json["ending"]["type"], "timeout", "{}", answer.text);
    s.expect(&[(SLEEPERS, "3\n")]).await;
    assert!(started.elapsed().as_secs() < 100, "a job delayed an answer");
}
