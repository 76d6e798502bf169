//! Exec without cgroups: what runs, what comes back, what is refused.

use std::{collections::BTreeSet, fs, time::Instant};

use api::{
    error::ErrorCode,
    exec::{Ending, ExecEvent},
    limit::{EXEC_OUTPUT_BYTES, EXECS_PER_SANDBOX, JSON_BODY_BYTES},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    Agent, DEADLINE, cut_off_after_ms, eventually, is_alive, post, request, within,
};

fn join(events: &[ExecEvent]) -> (String, String) {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    for event in events {
        match event {
            ExecEvent::Stdout { data, .. } => stdout.push_str(data),
            ExecEvent::Stderr { data, .. } => stderr.push_str(data),
            ExecEvent::Dropped { bytes } => panic!("{bytes} bytes were dropped"),
            ExecEvent::Start { .. } | ExecEvent::Exit { .. } => {}
        }
    }
    (stdout, stderr)
}

#[tokio::test]
async fn a_command_answers_with_its_output_and_code() {
    let agent = Agent::start();

    let result = agent.sh("echo out; echo err >&2; exit 3").await;

    assert_eq!((&*result.stdout, &*result.stderr), ("out\n", "err\n"));
    assert_eq!((result.success, result.exit_code), (false, 3));
    assert_eq!(result.ending, Ending::Exited { code: 3 });
    assert_eq!(result.dropped_bytes, 0);
    assert!(result.usage.peak_memory_bytes > 0);
}

#[tokio::test]
async fn a_followed_command_is_the_same_stream() {
    let agent = Agent::start();

    let events =
        agent.follow(json!({"command": "echo out; echo err >&2; exit 3"})).await.all().await;

    assert!(matches!(events[0], ExecEvent::Start { pid, .. } if pid > 1));
    assert_eq!(join(&events), ("out\n".to_owned(), "err\n".to_owned()));
    assert!(matches!(events.last().unwrap(), ExecEvent::Exit { exit_code: 3, .. }));
}

#[tokio::test]
async fn directory_and_environment_are_the_requests_over_the_sandboxs() {
    let agent = Agent::start();
    eventually("the working directory", || agent.work().exists()).await;
    fs::create_dir_all(agent.work().join("sub")).unwrap();
    let show = "pwd; echo $FROM $HOME $LANG ${NEW-unset}; cat; umask";

    let plain = agent.sh(show).await;
    let changed = agent
        .exec(json!({"command": show, "cwd": "sub", "stdin": "in\n",
            "env": {"FROM": null, "HOME": "/tmp", "NEW": "x y"}}))
        .await;
    let program = agent.exec(json!({"command": ["printf", "%s|", "a b", "", "$HOME"]})).await;

    let work = agent.work().display().to_string();
    assert_eq!(plain.stdout, format!("{work}\nconfig /root C.UTF-8 unset\n0022\n"));
    assert_eq!(changed.stdout, format!("{work}/sub\n/tmp C.UTF-8 x y\nin\n0022\n"));
    assert_eq!(program.stdout, "a b||$HOME|");
}

#[tokio::test]
async fn bytes_pass_both_ways_in_base64() {
    let agent = Agent::start();
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();

    let result = agent
        .exec(json!({"command": ["cat"], "encoding": "base64", "stdin": BASE64_STANDARD.encode(&bytes)}))
        .await;
    let lossy = agent.sh(r"printf 'a\377\342\202'").await;

    assert_eq!(BASE64_STANDARD.decode(result.stdout).unwrap(), bytes);
    assert_eq!(lossy.stdout, "a\u{fffd}\u{fffd}");
}

#[tokio::test]
async fn a_character_split_between_two_writes_is_one_character() {
    let agent = Agent::start();
    // The second half is written when the first has been read: the writer sees its pipe empty.
    let script = "import os,fcntl,termios,struct,time\n\
        left=lambda: struct.unpack('i',fcntl.ioctl(1,termios.FIONREAD,b'    '))[0]\n\
        for b in b'\\xe2\\x82\\xac':\n  os.write(1,bytes([b]))\n  while left(): time.sleep(0.001)\n\
        os.write(1,b'\\xe2\\x82')";

    let events = agent.follow(json!({"command": ["python3", "-c", script]})).await.all().await;

    assert_eq!(join(&events).0, "€\u{fffd}", "{events:?}");
    assert!(matches!(events.last(), Some(ExecEvent::Exit { exit_code: 0, .. })));
}

#[tokio::test]
async fn a_command_may_close_its_stdin() {
    let agent = Agent::start();

    let result =
        agent.exec(json!({"command": "exec 0<&-; echo on", "stdin": "x".repeat(1_000_000)})).await;
    let silent = agent.sh("cat; exec >&- 2>&-; exit 4").await;

    assert_eq!((&*result.stdout, result.exit_code), ("on\n", 0));
    assert_eq!(silent.exit_code, 4);
}

#[tokio::test]
async fn a_background_process_neither_delays_the_reply_nor_dies_of_it() {
    let agent = Agent::start();
    let script = "(while [ ! -e go ]; do sleep 0.01; done; echo late; echo late; touch alive; \
        exec sleep 1000) & echo $!";

    // Until after the reply, it waits.
    let result = agent.sh(script).await;
    fs::write(agent.work().join("go"), "").unwrap();

    assert_eq!(result.ending, Ending::Exited { code: 0 });
    eventually("it has written", || agent.work().join("alive").exists()).await;
    assert!(is_alive(&result.stdout));
    agent.sh(&format!("kill {}", result.stdout)).await;
}

#[tokio::test]
async fn a_timeout_kills_the_tree_and_keeps_the_output() {
    let agent = Agent::start();

    let mut child = String::new();
    for timeout_ms in cut_off_after_ms() {
        let command = "sleep 1000 & echo $!; sleep 1000";
        let result = agent.exec(json!({"command": command, "timeoutMs": timeout_ms})).await;

        assert_eq!(result.ending, Ending::Timeout);
        assert_eq!((result.exit_code, result.success), (124, false));
        assert!(result.duration_ms >= timeout_ms, "{}", result.duration_ms);
        child = result.stdout;
        if !child.is_empty() {
            break;
        }
    }
    eventually("the child is gone", || !is_alive(&child)).await;
}

#[tokio::test]
async fn signals_are_endings() {
    let agent = Agent::start();

    assert_eq!(agent.sh("kill -SEGV $$").await.ending, Ending::Signaled { signal: 11 });
    let killed = agent.sh("kill -KILL $$").await;
    assert_eq!((killed.ending, killed.exit_code), (Ending::Signaled { signal: 9 }, 137));
    // Rust ignores SIGPIPE; commands must not inherit that.
    assert_eq!(agent.sh("kill -PIPE $$").await.ending, Ending::Signaled { signal: 13 });
}

#[tokio::test]
async fn a_caller_that_goes_takes_its_command_along() {
    let agent = Agent::start();

    let mut events = agent.follow(json!({"command": "sleep 1000 & echo $!; wait"})).await;
    let Some(ExecEvent::Start { pid, .. }) = events.next().await else { panic!("no start") };
    let Some(ExecEvent::Stdout { data: child, .. }) = events.next().await else {
        panic!("no child")
    };
    drop(events);
    eventually("the followed tree is gone", || !is_alive(&child) && !is_alive(&pid.to_string()))
        .await;

    let mut sender = agent.connect().await;
    let request =
        post("/exec", &json!({"command": "echo $$ > pid.new; mv pid.new pid; sleep 1000"}));
    let answer = tokio::spawn(async move { sender.send_request(request).await });
    let pid_file = agent.work().join("pid");
    eventually("the command runs", || pid_file.exists()).await;
    let pid = fs::read_to_string(pid_file).unwrap();
    answer.abort();
    eventually("the buffered command is gone", || !is_alive(&pid)).await;
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer_and_not_the_memory() {
    const BYTES: usize = 200_000_000;
    let agent = Agent::start();
    let command = format!("yes 0123456789abcdef | head -c {BYTES}; touch done");
    let mut events = agent.follow(json!({"command": command, "encoding": "base64"})).await;
    events.raw().await.unwrap();

    // Nobody reads: the pipes fill and the writer waits.
    let writer_waits = || {
        let children =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.pid())).unwrap();
        children.split_whitespace().next().is_some_and(|shell| {
            let all = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
            all.split_whitespace().all(|pid| {
                fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap().contains("pipe")
            }) && !all.is_empty()
        })
    };
    eventually("the writer waits", writer_waits).await;
    assert!(!agent.work().join("done").exists());
    let mut received = 0;
    while let Some(piece) = events.raw().await {
        received += piece.len();
    }

    assert!(received > BYTES / 3 * 4, "{received}");
    assert!(agent.work().join("done").exists());
    let peak = agent.memory_kib("VmHWM");
    assert!(peak < 32 * 1024, "{peak} KiB");
}

#[tokio::test]
async fn a_buffered_result_keeps_its_limit_and_counts_the_rest() {
    let agent = Agent::start();
    agent.sh("true").await;
    let before = agent.memory_kib("RssAnon");

    let result = agent.sh("yes | head -c 20000000; echo end >&2").await;

    assert_eq!(result.stdout.len(), EXEC_OUTPUT_BYTES);
    assert_eq!(result.dropped_bytes, 20_000_000 - EXEC_OUTPUT_BYTES as u64);
    assert_eq!((&*result.stderr, result.exit_code), ("end\n", 0));
    // What may stay is the stack that was needed and the half megabyte that the allocator keeps.
    eventually("the memory is given back", || agent.memory_kib("RssAnon") < before + 768).await;
}

#[tokio::test]
async fn commands_run_side_by_side() {
    let agent = Agent::start();
    let runs = (0..64).map(|number| {
        let agent = &agent;
        async move { agent.sh(&format!("sleep 0.2; echo {number}")).await.stdout }
    });

    let outputs: BTreeSet<String> =
        within(futures_util::future::join_all(runs)).await.into_iter().collect();

    assert_eq!(outputs, (0..64).map(|number| format!("{number}\n")).collect());
}

#[tokio::test]
async fn one_command_too_many_is_told_to_wait() {
    let agent = Agent::start();
    let mut running = Vec::new();
    for _ in 0..EXECS_PER_SANDBOX {
        let mut events = agent.follow(json!({"command": ["sleep", "1000"]})).await;
        events.next().await.unwrap();
        running.push(events);
    }

    let (status, headers, _) = agent.send(post("/exec", &json!({"command": "true"}))).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(headers["retry-after"], "1");

    drop(running);
    let start = Instant::now();
    while agent.send(post("/exec", &json!({"command": "true"}))).await.0 != StatusCode::OK {
        assert!(start.elapsed() < DEADLINE);
    }
}

#[tokio::test]
async fn orphans_are_reaped() {
    let agent = Agent::start();

    agent.sh("for i in $(seq 50); do (true & ) ; done; (sleep 0.1 &)").await;

    eventually("no child is left", || {
        let path = format!("/proc/{0}/task/{0}/children", agent.pid());
        fs::read_to_string(path).unwrap().trim().is_empty()
    })
    .await;
}

#[tokio::test]
async fn bad_requests_are_refused_with_the_field() {
    let agent = Agent::start();
    let check = async |body: Value, code: ErrorCode, field: Option<&str>| {
        let (status, error) = agent.refused(post("/exec", &body)).await;
        assert_eq!((status.as_u16(), error.code), (code.status(), code), "{body}");
        assert_eq!(error.details.get("field").and_then(Value::as_str), field, "{body} {error:?}");
    };
    check(json!({}), ErrorCode::ValidationFailed, None).await;
    check(json!({"command": 1}), ErrorCode::ValidationFailed, Some("command")).await;
    check(json!({"command": "x", "cmd": 1}), ErrorCode::ValidationFailed, Some("cmd")).await;
    check(json!({"command": "x", "env": {"A": 1}}), ErrorCode::ValidationFailed, Some("env.A"))
        .await;
    check(json!({"command": "x", "timeoutMs": 0}), ErrorCode::ValidationFailed, Some("timeoutMs"))
        .await;
    check(json!({"command": "x", "timeoutMs": -1}), ErrorCode::ValidationFailed, Some("timeoutMs"))
        .await;
    check(json!({"command": "x", "env": {"A=": ""}}), ErrorCode::ValidationFailed, Some("env.A="))
        .await;
    check(
        json!({"command": "x", "stdin": "?", "encoding": "base64"}),
        ErrorCode::ValidationFailed,
        Some("stdin"),
    )
    .await;
    check(json!({"command": ""}), ErrorCode::InvalidCommand, None).await;
    check(json!({"command": []}), ErrorCode::InvalidCommand, None).await;
    check(json!({"command": "a\u{0}"}), ErrorCode::InvalidCommand, None).await;
    check(json!({"command": "x", "cwd": "\u{0}"}), ErrorCode::InvalidPath, None).await;
    check(json!({"command": "x", "cwd": "nowhere"}), ErrorCode::FileNotFound, None).await;
    check(json!({"command": "x", "cwd": "/etc/passwd"}), ErrorCode::NotDirectory, None).await;
    check(json!({"command": "x", "cwd": "/proc/self/fd"}), ErrorCode::PermissionDenied, None).await;
    check(json!({"command": ["nowhere"]}), ErrorCode::CommandNotFound, None).await;
    check(json!({"command": ["/etc/passwd"]}), ErrorCode::PermissionDenied, None).await;
    let many: serde_json::Map<_, _> =
        (0..100).map(|n| (format!("V{n}"), Value::from("x".repeat(60_000)))).collect();
    check(json!({"command": "x", "env": many}), ErrorCode::PayloadTooLarge, None).await;
}

#[tokio::test]
async fn bodies_and_routes_that_do_not_fit_are_refused_well() {
    let agent = Agent::start();
    let mut broken = post("/exec", &json!(null));
    *broken.body_mut() = r#"{"command": "#.into();
    let mut huge = post("/exec", &json!(null));
    *huge.body_mut() = vec![b' '; JSON_BODY_BYTES + 1].into();
    let mut known = post("/exec", &json!({"command": ["nowhere"]}));
    known.headers_mut().insert("x-request-id", "r-7".parse().unwrap());

    for (request, code) in [
        (broken, ErrorCode::ValidationFailed),
        (huge, ErrorCode::PayloadTooLarge),
        (request(Method::POST, "/exec", "{}"), ErrorCode::UnsupportedMediaType),
        (request(Method::GET, "/nowhere", ""), ErrorCode::RouteNotFound),
        (request(Method::GET, "/files/", ""), ErrorCode::RouteNotFound),
        (request(Method::GET, "/exec", ""), ErrorCode::MethodNotAllowed),
    ] {
        let shown = format!("{} {}", request.method(), request.uri());
        let (status, error) = agent.refused(request).await;
        assert_eq!((status.as_u16(), error.code), (code.status(), code), "{shown}");
    }
    let (_, error) = agent.refused(known).await;
    assert_eq!(error.request_id.as_deref(), Some("r-7"));
    let (status, headers, _) = agent.get("/health").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/json");
    let (_, headers, _) = agent.get("/exec").await;
    assert_eq!(headers["allow"], "POST");
}

#[tokio::test]
async fn the_agent_is_closed_to_its_commands() {
    let agent = Agent::start();

    let result = agent.sh("cat /proc/$PPID/environ /proc/$PPID/status | grep -a NoNewPrivs; ls /proc/self/fd | wc -l").await;
    assert!(result.stdout.contains("NoNewPrivs:\t1"), "{}", result.stdout);
    // 0, 1, 2 and the directory that ls reads.
    assert!(result.stdout.ends_with("\n4\n"), "{}", result.stdout);
}

/// Prints the round trip of the smallest command on one connection; run it by name.
#[tokio::test]
#[ignore = "a measurement: run it alone, with --no-capture"]
async fn round_trip_of_true() {
    let agent = Agent::start_with_cgroup();
    let mut sender = agent.connect().await;
    let mut times = Vec::new();
    for _ in 0..2000 {
        let start = Instant::now();
        sender.ready().await.unwrap();
        let answer = sender.send_request(post("/exec", &json!({"command": ["/bin/true"]}))).await;
        http_body_util::BodyExt::collect(answer.unwrap().into_body()).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("p50 {:?} p99 {:?}", times[1000], times[1980]);
    println!(
        "agent: {} KiB resident, {} KiB of it its own",
        agent.memory_kib("VmRSS"),
        agent.memory_kib("RssAnon")
    );
}
