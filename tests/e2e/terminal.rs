//! Terminals: typed into, seen by several, left and come back to.

use std::time::{Duration, Instant};

use api::{
    id::SandboxId,
    terminal::{AttachTerminal, TerminalEvent},
};
use client::ClientError;
use serde_json::{Value, json};
use testkit::{PATIENCE, Viewer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::server;

const TERMINALS: &str = "/v1/sandboxes/s/terminals";

fn sandbox() -> SandboxId {
    "s".parse().expect("it is an id")
}

#[tokio::test]
async fn what_is_typed_is_run_and_shown() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "t").await;

    viewer.type_in("echo $((40 + 2)) $0 $TERM $(tty)\n").await;

    let shown = viewer.until("/dev/pts/0\r\n").await;
    assert!(shown.contains("42 "), "{shown}");
    assert!(shown.contains("bash xterm-256color /dev/pts/0"), "{shown}");
    let terminal = server.terminal("t").await;
    assert_eq!((terminal.cols, terminal.rows, terminal.viewers), (80, 24, 1));
    assert!(terminal.running && terminal.pid > 1 && terminal.ending.is_none(), "{terminal:?}");
    let list = server.get(TERMINALS).await;
    assert_eq!(list.json["terminals"][0]["id"], "t", "{}", list.text);
}

#[tokio::test]
async fn a_viewer_s_size_is_the_terminal_s() {
    let server = server();
    // Looks all the time: a shell may miss a signal that comes while it handles one.
    let watch = "trap 'echo told' WINCH; while :; do now=$(stty size); \
                 [ \"$now\" = \"$before\" ] || echo \"$now\"; before=$now; done";
    let body = json!({"id": "t", "command": watch, "cols": 100, "rows": 30});
    assert_eq!(server.post(TERMINALS, &body).await.status, 201);
    let mut viewer = Viewer::attach(&server, "t").await;
    viewer.until("30 100\r\n").await;

    viewer.connection.input.resize(132, 50).await.unwrap();
    let shown = viewer.until("50 132\r\n").await;
    if !shown.contains("told") {
        viewer.until("told").await;
    }

    for (cols, rows) in [(0, 24), (80, 0), (1001, 24), (80, 1001)] {
        viewer.connection.input.resize(cols, rows).await.unwrap();
        let TerminalEvent::Error { message } = viewer.event().await else { panic!("no error") };
        assert!(message.starts_with("Invalid dimensions"), "{message}");
    }
    let terminal = server.terminal("t").await;
    assert_eq!((terminal.cols, terminal.rows), (132, 50));
    viewer.connection.input.resize(1000, 1).await.unwrap();
    viewer.until("1 1000\r\n").await;

    let query = AttachTerminal { cols: Some(90), rows: Some(40), ..Default::default() };
    let _other = Viewer::attach_with(&server, "t", query).await;
    viewer.until("40 90\r\n").await;
}

#[tokio::test]
async fn several_viewers_share_one_terminal() {
    let server = server();
    let mut first = Viewer::attach(&server, "t").await;
    let mut second = Viewer::attach(&server, "t").await;

    first.type_in("x=from-first; echo s''et\n").await;
    first.until("set\r\n").await;
    second.type_in("echo $x-and-second\n").await;

    first.until("from-first-and-second\r\n").await;
    second.until("from-first-and-second\r\n").await;
    assert_eq!(server.terminal("t").await.viewers, 2);
    drop(first);
    server.terminal_until("t", |terminal| terminal.viewers == 1).await;
    second.type_in("echo $x-still\n").await;
    second.until("from-first-still\r\n").await;
}

#[tokio::test]
async fn who_comes_back_is_shown_what_was_missed() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "t").await;
    let go = "while [ ! -e go ]; do sleep 0.01; done; echo la''ter; touch done\n";
    viewer.type_in(format!("echo be''fore; {go}")).await;
    viewer.until("before\r\n").await;
    let cursor = viewer.connection.output.cursor() - viewer.seen.len() as u64;
    drop(viewer);
    server.put("/v1/sandboxes/s/files/workspace/go", "").await;
    server.shell("s", "until [ -e done ]; do sleep 0.01; done").await;
    // The kernel may hand it on a moment later.
    let later = cursor + "later\r\n".len() as u64;
    server.terminal_until("t", |terminal| terminal.next_cursor >= later).await;

    let whole = Viewer::attach(&server, "t").await;
    assert!(whole.text().contains("before\r\n"), "{}", whole.text());
    assert!(whole.text().contains("later\r\n"), "{}", whole.text());

    let query = AttachTerminal { cursor: Some(cursor), ..Default::default() };
    let rest = Viewer::attach_with(&server, "t", query).await;
    assert!(rest.text().starts_with("later\r\n"), "{}", rest.text());
    assert_eq!(rest.connection.output.cursor(), cursor + rest.seen.len() as u64);
}

#[tokio::test]
async fn only_the_newest_output_is_kept() {
    let server = server();
    let mut viewer = Viewer::of(&server, "stty -opost; seq 100000; echo end; read x").await;
    viewer.until("end\n").await;
    drop(viewer);

    let back = Viewer::attach(&server, "t").await;

    assert_eq!(back.seen.len(), 256 * 1024);
    assert!(back.text().ends_with("99999\n100000\nend\n"), "{}", back.text().len());
    let terminal = server.terminal("t").await;
    assert_eq!(terminal.next_cursor - terminal.first_cursor, 256 * 1024);
    assert_eq!(terminal.next_cursor, 588_895 + 4);
}

#[tokio::test]
async fn cwd_env_command_and_size_are_the_terminal_s_own() {
    let server = server();
    server
        .post("/v1/sandboxes", &json!({"id": "s", "env": {"A": "sandbox", "B": "sandbox"}}))
        .await;

    let body = json!({
        "id": "t", "cwd": "/tmp", "env": {"B": "terminal", "A": null}, "cols": 33, "rows": 7,
        "command": ["sh", "-c", "pwd; echo ${A-unset} $B $TERM; stty size; cat"],
    });
    let created = server.post(TERMINALS, &body).await;
    let mut viewer = Viewer::attach(&server, "t").await;

    viewer.until("/tmp\r\nunset terminal xterm-256color\r\n7 33\r\n").await;
    assert_eq!(
        created.json["command"],
        body["command"]
            .as_array()
            .map(|argv| { argv.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ") })
            .unwrap_or_default()
    );
    let unnamed =
        server.post(TERMINALS, &json!({"command": "echo $TERM", "env": {"TERM": "dumb"}})).await;
    let id = unnamed.json["id"].as_str().expect("it was given an id").to_owned();
    server.terminal_until(&id, |terminal| !terminal.running).await;
    assert_eq!(Viewer::attach(&server, &id).await.text(), "dumb\r\n");
}

#[tokio::test]
async fn an_ended_terminal_says_how_and_makes_way() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "t").await;
    viewer.type_in("echo last words; exit 7\n").await;
    viewer.until("last words\r\n").await;
    assert_eq!(viewer.event().await, TerminalEvent::Exit { code: 7, signal: None });
    assert!(viewer.message().await.is_none(), "the connection closes after the exit");

    let terminal = server.terminal("t").await;
    assert!(!terminal.running && terminal.ended_at_ms.is_some(), "{terminal:?}");
    assert_eq!((terminal.exit_code, terminal.viewers), (Some(7), 0));
    let mut again = Viewer::attach(&server, "t").await;
    assert!(again.text().contains("last words\r\n"), "{}", again.text());
    assert_eq!(again.event().await, TerminalEvent::Exit { code: 7, signal: None });
    assert!(again.message().await.is_none());

    let mut killed = Viewer::of(&server, "kill -9 $$").await;
    let signal = Some("SIGKILL".to_owned());
    assert_eq!(killed.event().await, TerminalEvent::Exit { code: 137, signal });
}

#[tokio::test]
async fn the_bytes_of_full_screen_programs_are_intact() {
    let server = server();
    let bytes: Vec<u8> = (0..=255)
        .cycle()
        .zip(0_u32..)
        .take(3 << 20)
        .map(|(byte, i): (u8, u32)| byte ^ u8::try_from(i >> 8 & 0xff).unwrap_or_default())
        .collect();
    server.put("/v1/sandboxes/s/files/workspace/screen", bytes.clone()).await;
    let mut viewer = Viewer::of(
        &server,
        "stty raw -echo; printf go; dd bs=1 count=1 2>/dev/null; cat screen; printf end",
    )
    .await;
    viewer.until("go").await;

    viewer.type_in("x").await;

    viewer.until("x").await;
    while viewer.seen.len() < bytes.len() + 3 {
        viewer.message().await;
    }
    assert!(viewer.seen == [&bytes[..], b"end"].concat(), "the screen is another one");
}

#[tokio::test]
async fn ctrl_c_ends_the_foreground_program_and_not_the_shell() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "t").await;
    viewer.type_in("echo go''ing; sleep 1000\n").await;
    viewer.until("going\r\n").await;
    // The key is the program's only once it is in the foreground.
    server.shell("s", "until grep -qs '^sleep' /proc/[0-9]*/comm; do sleep 0.01; done").await;

    viewer.type_in("\x03").await;

    viewer.type_in("echo ended with $?\n").await;
    viewer.until("ended with 130\r\n").await;
}

#[tokio::test]
async fn the_shell_controls_jobs() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "t").await;
    viewer.type_in("echo in''teractive $-; sleep 1000\n").await;
    let shown = viewer.until("interactive ").await;
    assert!(!shown.contains("job control"), "{shown}");
    server.shell("s", "until grep -qs '^sleep' /proc/[0-9]*/comm; do sleep 0.01; done").await;

    viewer.type_in("\x1a").await;

    viewer.until("Stopped").await;
    viewer.type_in("bg; jobs\n").await;
    viewer.until("Running").await;
    viewer.type_in("kill %1; wait %1; echo waited $?\n").await;
    viewer.until("waited 143\r\n").await;
}

#[tokio::test]
async fn a_large_paste_arrives_whole() {
    let server = server();
    let mut viewer =
        Viewer::of(&server, "stty -echo; echo ready; cat | md5sum; cat >/dev/null; echo over")
            .await;
    viewer.until("ready\r\n").await;
    let line = [&[b'x'; 63][..], b"\n"].concat();
    let paste = line.repeat((1 << 20) / line.len());
    assert_eq!(paste.len(), 1 << 20, "as much as one message may hold");

    viewer.type_in(&paste).await;
    viewer.type_in("\x04").await;
    let sum = viewer.until("  -\r\n").await;
    viewer.type_in(&paste).await;
    viewer.type_in("\x04").await;
    viewer.until("over\r\n").await;

    server.put("/v1/sandboxes/s/files/workspace/paste", paste).await;
    assert_eq!(sum.trim(), server.shell("s", "md5sum < paste").await.trim());
}

#[tokio::test]
async fn a_viewer_that_never_reads_holds_nobody_up_for_ever() {
    let server = server();
    let mut reader = Viewer::of(&server, "stty raw -echo; printf ready; dd bs=1 count=1 2>/dev/null; head -c 64M /dev/zero | tr '\\0' x; printf end; read x").await;
    reader.until("ready").await;
    let mute = Viewer::attach(&server, "t").await;
    assert_eq!(server.terminal("t").await.viewers, 2);

    reader.type_in("g").await;

    let mut bytes = 0;
    while !reader.seen.ends_with(b"end") {
        reader.message().await;
        bytes += reader.seen.len().saturating_sub(3);
        reader.seen.drain(..reader.seen.len().saturating_sub(3));
    }
    assert_eq!(bytes, (64 << 20) + 1);
    assert_eq!(server.terminal("t").await.viewers, 1, "the mute one was dropped");
    drop(mute);

    // With nobody to look, nothing waits either.
    drop(reader);
    let last = "head -c 64M /dev/zero | tr '\\0' x; printf end";
    let body = json!({"id": "alone", "command": last});
    server.post(TERMINALS, &body).await;
    server.terminal_until("alone", |terminal| !terminal.running).await;
    assert_eq!(server.terminal("alone").await.next_cursor, (64 << 20) + 3);
}

/// Waits for the minute, because that is what it is about.
#[tokio::test]
async fn a_viewer_that_answers_no_ping_is_gone_after_a_minute() {
    let server = server();
    let mut alive = Viewer::attach(&server, "t").await;
    let address = server.url();
    let mut mute = TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
    let request = format!(
        "GET {TERMINALS}/t HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        address.trim_start_matches("http://"),
        server.key()
    );
    // Before there is anything whose minute could begin.
    let begun = Instant::now();
    mute.write_all(request.as_bytes()).await.unwrap();

    let mut heard = Vec::new();
    let end = tokio::select! {
        end = timeout(2 * PATIENCE, mute.read_to_end(&mut heard)) => end,
        // Reading answers pings.
        () = async { while let Ok(Some(_)) = alive.connection.output.next().await {} } => {
            panic!("the viewer that answers was dropped")
        }
    };

    end.expect("it is dropped").unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
    let pings = heard.windows(2).filter(|window| window == b"\x89\x00").count();
    assert!((3..=5).contains(&pings), "{pings} pings in {:?}", begun.elapsed());
    alive.type_in("echo sti''ll\n").await;
    alive.until("still\r\n").await;
}

#[tokio::test]
async fn a_dropped_viewer_is_told_and_may_come_back() {
    let server = server();
    let mut viewer = Viewer::of(
        &server,
        "stty raw -echo; head -c 64M /dev/zero | tr '\\0' x; printf end; read x",
    )
    .await;
    server.terminal_until("t", |terminal| terminal.viewers == 0).await;

    let event = viewer.event().await;

    let TerminalEvent::Error { message } = event else { panic!("{event:?} is no error") };
    assert!(message.contains("attach again"), "{message}");
    assert!(viewer.message().await.is_none());
    server.terminal_until("t", |terminal| terminal.next_cursor == (64 << 20) + 3).await;
    assert!(Viewer::attach(&server, "t").await.text().ends_with("xend"));
}

#[tokio::test]
async fn deleting_a_terminal_ends_all_its_processes() {
    let server = server();
    // It waits where a trap is acted on at once, for it has not long.
    let tree = "trap 'echo hung up > hup; exit' HUP; (trap '' HUP; setsid sleep 1000 & sleep 1001 &); \
                sleep 1002 & echo ready; wait";
    let mut viewer = Viewer::of(&server, tree).await;
    viewer.until("ready\r\n").await;

    assert_eq!(server.delete(&format!("{TERMINALS}/t")).await.status, 204);

    let event = viewer.event().await;
    assert!(matches!(event, TerminalEvent::Exit { .. }), "{event:?}");
    assert_eq!(server.get(&format!("{TERMINALS}/t")).await.code(), "TERMINAL_NOT_FOUND");
    assert_eq!(server.delete(&format!("{TERMINALS}/t")).await.code(), "TERMINAL_NOT_FOUND");
    let left = "cat hup; cat /proc/[0-9]*/comm | grep -c '^sleep$' || true";
    assert_eq!(server.shell("s", left).await, "hung up\n0\n");
    let stubborn =
        Viewer::of(&server, "trap '' HUP TERM; echo ready; while :; do sleep 0.01; done").await;
    assert_eq!(server.delete(&format!("{TERMINALS}/t")).await.status, 204);
    drop(stubborn);
}

#[tokio::test]
async fn racing_first_viewers_share_one_terminal() {
    let server = server();
    server.post("/v1/sandboxes/s/sessions", &json!({"id": "a"})).await;

    // Where a session's directory and variables are taken, they are asked for first.
    for (id, session) in [("t", None), ("u", Some("a".parse().unwrap()))] {
        let query = AttachTerminal { session, ..AttachTerminal::default() };
        let viewers = (0..8).map(|_| Viewer::attach_with(&server, id, query.clone()));
        let mut viewers = futures_util::future::join_all(viewers).await;
        viewers[0].type_in("echo sh''ared\n").await;
        for viewer in &mut viewers {
            viewer.until("shared\r\n").await;
        }
    }
    assert_eq!(server.client().list_terminals(&sandbox()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn terminals_and_viewers_are_bounded() {
    let server = server();
    for number in 0..64 {
        let body = json!({"id": format!("t{number}"), "command": ["sleep", "1000"]});
        assert_eq!(server.post(TERMINALS, &body).await.status, 201);
    }
    let full = server.post(TERMINALS, &json!({})).await;
    assert_eq!((full.status, full.code()), (429, "TOO_MANY_REQUESTS"), "{}", full.text);
    let mut viewers = Vec::new();
    for number in 0..64 {
        viewers.push(Viewer::attach(&server, &format!("t{number}")).await);
    }
    let (client, query) = (server.client(), AttachTerminal::default());
    let full = client
        .attach_terminal(&sandbox(), &"t0".parse().expect("it is an id"), &query)
        .await
        .unwrap_err();
    assert!(matches!(full, ClientError::Api { status: 429, .. }), "{full}");

    // An ended one makes way, and so does a viewer that leaves.
    server.shell("s", &format!("kill {}", server.terminal("t7").await.pid)).await;
    server.terminal_until("t7", |terminal| !terminal.running).await;
    assert_eq!(server.post(TERMINALS, &json!({"id": "new"})).await.status, 201);
    assert_eq!(server.get(&format!("{TERMINALS}/t7")).await.status, 404);
    viewers.pop();
    server.terminal_until("t63", |terminal| terminal.viewers == 0).await;
    Viewer::attach(&server, "new").await;
}

#[tokio::test]
async fn what_cannot_be_a_terminal_is_told_apart() {
    let server = server();
    assert_eq!(server.post(TERMINALS, &json!({"id": "t"})).await.status, 201);
    for (body, status, code) in [
        (json!({"id": "t"}), 409, "TERMINAL_EXISTS"),
        (json!({"id": "a b"}), 400, "VALIDATION_FAILED"),
        (json!({"cols": 0}), 400, "VALIDATION_FAILED"),
        (json!({"cols": 1001}), 400, "VALIDATION_FAILED"),
        (json!({"rows": -1}), 400, "VALIDATION_FAILED"),
        (json!({"rows": 70_000}), 400, "VALIDATION_FAILED"),
        (json!({"size": 1}), 400, "VALIDATION_FAILED"),
        (json!({"env": {"": "x"}}), 400, "VALIDATION_FAILED"),
        (json!({"command": ""}), 400, "INVALID_COMMAND"),
        (json!({"command": ["no-such-program"]}), 404, "COMMAND_NOT_FOUND"),
        (json!({"command": ["/etc/hosts"]}), 403, "PERMISSION_DENIED"),
        (json!({"cwd": "/nowhere"}), 404, "FILE_NOT_FOUND"),
        (json!({"cwd": "/etc/hosts"}), 400, "NOT_DIRECTORY"),
    ] {
        let answer = server.post(TERMINALS, &body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{body}: {}", answer.text);
        assert!(answer.json["error"]["requestId"].is_string(), "{}", answer.text);
    }
    let attach = |id: &str, query: AttachTerminal| {
        let (client, id) = (server.client(), id.parse().expect("it is an id"));
        async move {
            match client.attach_terminal(&sandbox(), &id, &query).await.unwrap_err() {
                ClientError::Api { error, .. } => error,
                other => panic!("{other}"),
            }
        }
    };
    let no_shell = AttachTerminal { shell: Some("no-such-shell".to_owned()), ..Default::default() };
    assert_eq!(attach("new", no_shell).await.code, api::error::ErrorCode::CommandNotFound);
    let no_create = AttachTerminal { create: Some(false), ..Default::default() };
    assert_eq!(attach("new", no_create).await.code, api::error::ErrorCode::TerminalNotFound);
    let no_size = AttachTerminal { cols: Some(0), ..Default::default() };
    assert_eq!(attach("t", no_size).await.code, api::error::ErrorCode::ValidationFailed);
    for path in ["t?cols=x", "t?color=1", "a%20b"] {
        let answer = server.get(&format!("{TERMINALS}/{path}")).await;
        assert_eq!(answer.code(), "VALIDATION_FAILED", "{path}: {}", answer.text);
    }
    assert_eq!(server.client().list_terminals(&sandbox()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_attached_terminal_does_not_keep_the_server_from_stopping() {
    let mut server = server();
    let mut viewer = Viewer::attach(&server, "t").await;
    viewer.type_in("x=kept; echo se''t\n").await;
    viewer.until("set\r\n").await;

    let log = server.stop();

    // Requests under way have ten seconds; this is none that could end by itself.
    assert!(log.contains("stopping") && !log.contains("were cut off"), "{log}");
    let cut = async { while let Ok(Some(_)) = viewer.connection.output.next().await {} };
    timeout(PATIENCE, cut).await.expect("the connection was closed");
    server.restart();
    let mut viewer = Viewer::attach(&server, "t").await;
    viewer.type_in("echo $x-on\n").await;
    viewer.until("kept-on\r\n").await;
}
