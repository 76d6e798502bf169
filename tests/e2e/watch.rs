//! Watching files: told as it happens, wherever it moves, and never silently lost.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    os::fd::AsFd,
    process::Stdio,
    time::Duration,
};

use futures_util::StreamExt;
use serde_json::json;
use testkit::{
    Server,
    api::{
        id::SandboxId,
        watch::{FileChange, FileChangeType as Type, WatchEnd, WatchEvent, WatchFiles},
    },
    client::{ClientError, WatchStream},
    reqwest::Method,
};

use crate::server;

/// How long an event may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn id() -> SandboxId {
    "s".parse().expect("it is an id")
}

/// Begins a watch; it is armed when this returns.
async fn watch(server: &Server, request: WatchFiles) -> WatchStream {
    let mut events = server.client().watch_files(&id(), &request).await.expect("it can be watched");
    assert!(matches!(next(&mut events).await, WatchEvent::Watching { .. }));
    events
}

async fn refused(server: &Server, request: WatchFiles) -> String {
    match server.client().watch_files(&id(), &request).await {
        Err(ClientError::Api { error, .. }) => serde_json::to_value(error.code)
            .expect("a code is text")
            .as_str()
            .expect("text")
            .to_owned(),
        other => unreachable!("{other:?}"),
    }
}

async fn next(events: &mut WatchStream) -> WatchEvent {
    let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("an event comes");
    event.expect("the stream goes on").expect("it is an event")
}

/// The changes up to the creation of `path`, as text, without that. Making a file and filling it may
/// be told as one change or as two, by the clock; here it is always one.
async fn until(events: &mut WatchStream, path: &str) -> Vec<String> {
    let mut seen: Vec<FileChange> = Vec::new();
    loop {
        let WatchEvent::Event(change) = next(events).await else {
            unreachable!("no change: {seen:?}")
        };
        if change.path == path {
            return seen.iter().map(shown).collect();
        }
        let is_known = matches!(change.event_type, Type::Modify | Type::Attrib)
            && seen.iter().any(|known| known.path == change.path);
        if !is_known {
            seen.push(change);
        }
    }
}

/// The paths of the next creations, until there are `count` different ones.
async fn created(events: &mut WatchStream, count: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    while seen.len() < count {
        match next(events).await {
            WatchEvent::Event(change) if change.event_type == Type::Create => {
                let slash = if change.is_directory { "/" } else { "" };
                seen.insert(change.path.replace("/workspace/", "") + slash);
            }
            WatchEvent::Event(_) => {}
            other => unreachable!("{other:?}"),
        }
    }
    seen
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn shown(change: &FileChange) -> String {
    let FileChange { event_type, path, from, to, .. } = change;
    let slash = if change.is_directory { "/" } else { "" };
    let from = from.as_ref().map_or_else(String::new, |from| format!(" from {from}"));
    let to = to.as_ref().map_or_else(String::new, |to| format!(" to {to}"));
    format!("{event_type:?} {path}{slash}{from}{to}").replace("/workspace/", "")
}

#[tokio::test]
async fn changes_are_told_as_they_happen() {
    let server = server();
    server.shell("s", "echo old > known").await;
    let mut events = watch(&server, WatchFiles::new("/workspace")).await;

    server.shell("s", "echo new > made; mkdir d; : > end1").await;
    assert_eq!(until(&mut events, "/workspace/end1").await, ["Create made", "Create d/"]);
    server.shell("s", "echo more >> known; : > end2").await;
    assert_eq!(until(&mut events, "/workspace/end2").await, ["Modify known"]);
    server.shell("s", "chmod 600 known; : > end3").await;
    assert_eq!(until(&mut events, "/workspace/end3").await, ["Attrib known"]);
    server.shell("s", "rm known; rmdir d; : > end4").await;
    assert_eq!(until(&mut events, "/workspace/end4").await, ["Delete known", "Delete d/"]);
    server.put("/v1/sandboxes/s/files/workspace/put", "x").await;
    loop {
        if let WatchEvent::Event(change) = next(&mut events).await
            && change.path == "/workspace/put"
            && change.event_type == Type::MoveTo
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_new_directory_is_watched_with_everything_in_it() {
    let server = server();
    let mut events = watch(&server, WatchFiles::new("/workspace")).await;

    // Written in the same moment: nobody can have watched the directories by then.
    server.shell("s", "mkdir -p a/b/c && : > a/b/c/first").await;
    assert_eq!(created(&mut events, 4).await, set(&["a/", "a/b/", "a/b/c/", "a/b/c/first"]));
    server.shell("s", "echo 2 >> a/b/c/first; : > a/b/c/second; : > end").await;

    let told = until(&mut events, "/workspace/end").await;
    // The first may be told twice, by having been found and by the kernel.
    let news: Vec<_> = told.iter().filter(|line| !line.starts_with("Create a/b/c/first")).collect();
    assert_eq!(news, ["Modify a/b/c/first", "Create a/b/c/second"]);
}

#[tokio::test]
async fn paths_are_right_after_directories_have_moved() {
    let server = server();
    server.shell("s", "mkdir -p in/deep /tmp/out/deep; : > /tmp/out/deep/file").await;
    let mut events = watch(&server, WatchFiles::new("/workspace")).await;

    server.shell("s", "mv in renamed; : > end1").await;
    assert_eq!(
        until(&mut events, "/workspace/end1").await,
        ["MoveFrom in/ to renamed", "MoveTo renamed/ from in"]
    );
    server.shell("s", "echo x > renamed/deep/file; : > end2").await;
    assert_eq!(until(&mut events, "/workspace/end2").await, ["Create renamed/deep/file"]);
    server.shell("s", "mv /tmp/out arrived").await;
    assert_eq!(
        until(&mut events, "/workspace/arrived/deep/file").await,
        ["MoveTo arrived/", "Create arrived/deep/"]
    );
    server.shell("s", "mv renamed /tmp/gone; echo y > /tmp/gone/deep/file; : > end3").await;
    assert_eq!(until(&mut events, "/workspace/end3").await, ["MoveFrom renamed/"]);
    server.shell("s", "rm -r arrived; : > end4").await;
    assert_eq!(
        until(&mut events, "/workspace/end4").await,
        ["Delete arrived/deep/file", "Delete arrived/deep/", "Delete arrived/"]
    );
}

#[tokio::test]
async fn patterns_decide_what_is_told() {
    let server = server();
    let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let everything = || WatchFiles::new("/workspace");
    let include = strings(&["*.ts", "/end*"]);
    let exclude = Some(strings(&["src/lib", "*.js"]));
    let plain = watch(&server, everything()).await;
    let some = watch(&server, WatchFiles { include, ..everything() }).await;
    let most = watch(&server, WatchFiles { exclude, ..everything() }).await;
    let all = watch(&server, WatchFiles { exclude: Some(Vec::new()), ..everything() }).await;
    let flat = watch(&server, WatchFiles { recursive: false, ..everything() }).await;

    let work = "mkdir -p src/lib .git node_modules/x; : > .git/HEAD; : > node_modules/x/d.ts; \
                : > src/a.ts; : > src/lib/b.ts; : > src/c.js";
    server.shell("s", work).await;

    let watches = [
        (plain, &["src/", "src/lib/", "src/a.ts", "src/lib/b.ts", "src/c.js"][..]),
        (some, &["src/a.ts", "src/lib/b.ts"]),
        (
            most,
            &[
                "src/",
                "src/a.ts",
                ".git/",
                ".git/HEAD",
                "node_modules/",
                "node_modules/x/",
                "node_modules/x/d.ts",
            ],
        ),
        (
            all,
            &[
                "src/",
                "src/lib/",
                "src/a.ts",
                "src/lib/b.ts",
                "src/c.js",
                ".git/",
                ".git/HEAD",
                "node_modules/",
                "node_modules/x/",
                "node_modules/x/d.ts",
            ],
        ),
        (flat, &["src/"]),
    ];
    for (number, (mut events, expected)) in watches.into_iter().enumerate() {
        assert_eq!(created(&mut events, expected.len()).await, set(expected));
        // Nothing else comes behind.
        server.shell("s", &format!(": > end{number}")).await;
        let rest = until(&mut events, &format!("/workspace/end{number}")).await;
        let rest: Vec<_> = rest.iter().filter(|line| !line.contains("end")).collect();
        assert!(
            rest.iter().all(|line| expected.iter().any(|path| line.ends_with(path))),
            "{rest:?}"
        );
    }
}

#[tokio::test]
async fn patterns_that_are_none_are_refused() {
    let server = server();
    server.shell("s", "true").await;
    for bad in ["[ab", "*.{js,ts}", "!x", "a\\", "../x", "/", &"x".repeat(1025)] {
        let include = vec![bad.to_owned()];
        let request = WatchFiles { include, ..WatchFiles::new("/workspace") };
        assert_eq!(refused(&server, request).await, "VALIDATION_FAILED", "{bad}");
    }
    let both = WatchFiles {
        include: vec!["a".to_owned()],
        exclude: Some(vec!["b".to_owned()]),
        ..WatchFiles::new("/workspace")
    };
    assert_eq!(refused(&server, both).await, "VALIDATION_FAILED");
}

#[tokio::test]
async fn a_watch_ends_when_its_path_leads_elsewhere() {
    let server = server();
    for (end, reason) in [
        ("rm -r top/root", WatchEnd::Deleted),
        ("mv top/root top/other", WatchEnd::Moved),
        ("mv top other", WatchEnd::Moved),
    ] {
        server.shell("s", "rm -rf top other; mkdir -p top/root").await;
        let mut events = watch(&server, WatchFiles::new("top/root")).await;
        server.shell("s", &format!(": > top/root/last; {end}; mkdir -p top/root")).await;

        let mut last = next(&mut events).await;
        while let WatchEvent::Event(_) = last {
            last = next(&mut events).await;
        }
        assert_eq!(last, WatchEvent::Stopped { reason }, "{end}");
        assert!(events.next().await.is_none());
    }
}

#[tokio::test]
async fn links_are_followed_to_the_watched_directory_and_not_in_it() {
    let server = server();
    server
        .shell(
            "s",
            "mkdir -p /tmp/real /tmp/other; ln -s /tmp/real link; ln -s /tmp/other /tmp/real/inner",
        )
        .await;
    let mut events = watch(&server, WatchFiles::new("link")).await;

    server.shell("s", ": > /tmp/other/unseen; : > link/inner/unseen; : > link/seen; mkdir link/d; ln -s /etc link/e; : > link/end").await;

    assert_eq!(
        until(&mut events, "/workspace/link/end").await,
        ["Create link/seen", "Create link/d/", "Create link/e"]
    );
}

#[tokio::test]
async fn a_file_is_watched_through_its_replacements() {
    let server = server();
    server.shell("s", "echo 1 > file; touch other").await;
    let mut events = watch(&server, WatchFiles::new("file")).await;
    let mut kind = async |command: &str| {
        server.shell("s", &format!("echo x > other; {command}")).await;
        match next(&mut events).await {
            WatchEvent::Event(change) if change.path == "/workspace/file" => change.event_type,
            other => unreachable!("{other:?}"),
        }
    };

    assert_eq!(kind("echo 2 >> file").await, Type::Modify);
    assert_eq!(kind("echo 3 > new; mv new file").await, Type::MoveTo);
    assert_eq!(kind("rm file").await, Type::Delete);
    assert_eq!(kind(": > file").await, Type::Create);
}

#[tokio::test]
async fn everything_but_proc_and_sys_can_be_watched() {
    let server = server();
    server.shell("s", "true").await;
    for (path, code) in [
        ("/proc", "PERMISSION_DENIED"),
        ("/proc/1", "PERMISSION_DENIED"),
        ("/sys", "PERMISSION_DENIED"),
        ("/workspace/none", "FILE_NOT_FOUND"),
        ("", "INVALID_PATH"),
    ] {
        assert_eq!(refused(&server, WatchFiles::new(path)).await, code, "{path}");
    }
    let mut events = watch(&server, WatchFiles::new("/")).await;
    server.shell("s", ": > /etc/x; : > /root/y; : > /tmp/z").await;
    let seen = until(&mut events, "/tmp/z").await;
    assert_eq!(seen, ["Create /etc/x", "Create /root/y"]);
}

#[tokio::test]
async fn names_of_any_bytes_are_told() {
    let server = server();
    let mut events = watch(&server, WatchFiles::new("/workspace")).await;

    let body = json!({"command": ["python3", "-c", "open(b'/workspace/a\\xff\\n', 'w')"]});
    server.post("/v1/sandboxes/s/exec", &body).await;

    let WatchEvent::Event(change) = next(&mut events).await else { panic!("no change") };
    assert_eq!(change.path, "/workspace/a\u{fffd}\n");
    assert_eq!(change.encoded_path.as_deref(), Some("workspace/a%FF%0A"));
}

#[tokio::test]
async fn ten_thousand_files_are_told_one_by_one() {
    let server = server();
    let mut events = watch(&server, WatchFiles::new("/workspace")).await;

    let make =
        "mkdir -p d/{0..99}; for i in {0..99}; do for j in {0..99}; do : > d/$i/$j; done; done";
    let (seen, _) = tokio::join!(created(&mut events, 10_101), server.shell("s", make));

    let directories = (0..100).map(|directory| format!("d/{directory}/"));
    let mut expected: BTreeSet<String> = directories.clone().chain(["d/".to_owned()]).collect();
    expected.extend(directories.flat_map(|dir| (0..100).map(move |file| format!("{dir}{file}"))));
    assert!(seen == expected, "{:?}", seen.symmetric_difference(&expected).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_watch_too_many_is_told_to_wait() {
    let server = server();
    let mut watches = Vec::new();
    for _ in 0..testkit::api::limit::WATCHES_PER_SANDBOX {
        watches.push(watch(&server, WatchFiles::new("/workspace")).await);
    }

    assert_eq!(refused(&server, WatchFiles::new("/workspace")).await, "TOO_MANY_REQUESTS");
    watches.pop();
    let given_back = async {
        // The agent hears of it a moment later.
        while server.client().watch_files(&id(), &WatchFiles::new("/workspace")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, given_back).await.expect("the place is given back");
}

#[tokio::test]
async fn a_version_tells_whether_anything_has_changed() {
    let server = server();
    server.shell("s", "mkdir d; touch d/f").await;
    let ask = async |since: &str, more: serde_json::Value| {
        let mut body = json!({"path": "/workspace"});
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().cloned().unwrap_or_default());
        if !since.is_empty() {
            fields.insert("since".to_owned(), json!(since));
        }
        let answer = server.post("/v1/sandboxes/s/files:changes", &body).await;
        let part = |name: &str| answer.json[name].as_str().unwrap_or_default().to_owned();
        (part("status"), part("version"), format!("{}{}", part("reason"), answer.code()))
    };
    let plain = json!({});

    let (status, first, _) = ask("", plain.clone()).await;
    assert_eq!(status, "unchanged");
    assert_eq!(ask(&first, plain.clone()).await.0, "unchanged");
    server.shell("s", "mkdir -p .git && touch .git/index").await;
    assert_eq!(ask(&first, plain.clone()).await.0, "unchanged", "left out by default");
    server.shell("s", "echo x > d/f").await;
    let (status, second, _) = ask(&first, plain.clone()).await;
    assert_eq!(status, "changed");
    assert_eq!(ask(&first, plain.clone()).await.0, "changed", "it stays changed");
    assert_eq!(ask(&second, plain.clone()).await.0, "unchanged");
    // In a directory that nobody has looked at since it was made.
    server.shell("s", "mkdir -p new/deep; : > new/deep/file").await;
    let (status, third, _) = ask(&second, json!({})).await;
    assert_eq!(status, "changed");
    server.shell("s", "echo x >> new/deep/file").await;
    assert_eq!(ask(&third, plain.clone()).await.0, "changed");

    let (status, _, reason) = ask(&third, json!({"path": "/workspace/d"})).await;
    assert_eq!((status.as_str(), reason.as_str()), ("resync", "expired"));
    for bad in ["x", "", "0-0-0x", "ffff"] {
        let answer = server
            .post("/v1/sandboxes/s/files:changes", &json!({"path": "/workspace", "since": bad}))
            .await;
        assert_eq!(answer.code(), "VALIDATION_FAILED", "{bad}");
    }
    let (_, gone, _) = ask("", json!({"path": "/workspace/d"})).await;
    server.shell("s", "rm -r d").await;
    assert_eq!(ask(&gone, json!({"path": "/workspace/d"})).await.2, "FILE_NOT_FOUND");
    server.shell("s", "mkdir d").await;
    let (status, _, reason) = ask(&gone, json!({"path": "/workspace/d"})).await;
    assert_eq!((status.as_str(), reason.as_str()), ("resync", "expired"));
}

#[tokio::test]
async fn a_version_that_gave_way_or_is_of_another_life_means_resync() {
    let mut server = server();
    server.shell("s", "mkdir $(seq 100)").await;
    let body = |path: &str, since: Option<&str>| json!({"path": path, "since": since});
    let url = "/v1/sandboxes/s/files:changes";
    let first = server.post(url, &body("1", None)).await.json["version"].clone();
    for number in 2..=1 + testkit::api::limit::CHANGES_KEPT {
        server.post(url, &body(&number.to_string(), None)).await;
    }

    let answer = server.post(url, &body("1", first.as_str())).await;
    assert_eq!(answer.json["status"], "resync");
    assert_eq!(answer.json["reason"], "expired");

    let version = answer.json["version"].clone();
    let down = server.command(["down"]).output().unwrap();
    assert!(down.status.success());
    server.wait_for_end();
    server.restart();
    let answer = server.post(url, &body("1", version.as_str())).await;
    assert_eq!(answer.json["status"], "resync", "{}", answer.text);
    assert_eq!(answer.json["reason"], "restarted");
}

#[tokio::test]
async fn trees_that_are_only_kept_give_way_to_one_that_is_asked_for() {
    let server = server();
    // Each has more than half of the directories that a sandbox may watch.
    let count = testkit::api::limit::WATCHED_DIRECTORIES / 2 + 100;
    let make = format!(
        "import os\nfor place in ('a', 'b', 'c'):\n os.mkdir('/dev/shm/'+place); os.chdir('/dev/shm/'+place)\n for i in range({count}): os.mkdir(str(i))"
    );
    server.shell("s", &format!("python3 -c \"{make}\"")).await;
    let ask = async |path: &str, since: Option<&str>| {
        let body = json!({"path": path, "since": since});
        let answer = server.post("/v1/sandboxes/s/files:changes", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let part = |name: &str| answer.json[name].as_str().unwrap_or_default().to_owned();
        (part("version"), part("reason"))
    };

    let (first, _) = ask("/dev/shm/a", None).await;
    let (second, _) = ask("/dev/shm/b", None).await;
    assert_eq!(ask("/dev/shm/b", Some(&second)).await, (second, String::new()));
    assert_eq!(ask("/dev/shm/a", Some(&first)).await.1, "expired");

    let events = watch(&server, WatchFiles::new("/dev/shm/c")).await;
    // A stream gives way to nobody.
    let body = json!({"path": "/dev/shm/a"});
    let refused = server.post("/v1/sandboxes/s/files:changes", &body).await;
    assert_eq!(refused.code(), "TREE_TOO_LARGE", "{}", refused.text);
    drop(events);
}

#[tokio::test]
async fn events_have_their_names_and_data() {
    let server = server();
    server.shell("s", "true").await;
    let request = server.request(Method::GET, "/v1/sandboxes/s/files:watch?path=.");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.bytes_stream();
    server.shell("s", ": > f").await;

    let mut text = String::new();
    while text.matches("\n\n").count() < 2 {
        text.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
    }

    assert!(
        text.starts_with(
            "event: watching\ndata: {\"type\":\"watching\",\"path\":\"/workspace\",\"directories\":1}\n\n\
             event: event\ndata: {\"type\":\"event\",\"eventType\":\"create\",\"path\":\"/workspace/f\",\
             \"isDirectory\":false,\"timestampMs\":"
        ),
        "{text}"
    );
    drop(body);
    for (query, field) in
        [("", "path"), ("path=.&recursive=1", "recursive"), ("path=.&deep=1", "deep")]
    {
        let answer = server.get(&format!("/v1/sandboxes/s/files:watch?{query}")).await;
        assert_eq!(answer.code(), "VALIDATION_FAILED", "{query}");
        assert_eq!(answer.json["error"]["details"]["field"], field);
    }
}

#[test]
fn the_command_line_shows_changes_until_ctrl_c() {
    let server = server();
    let exec = |command: &str| {
        let output = server.command(["exec", "s", command]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    exec(": > known; mkdir d");
    let mut process = server
        .command(["watch", "s:/workspace", "--exclude", "*.log"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut notes = BufReader::new(process.stderr.take().expect("stderr is piped")).lines();
    let note = notes.next().unwrap().unwrap();
    assert_eq!(note, "sandbar: watching /workspace (2 directories)");

    exec(": > x.log; mv known moved; rmdir d; : > \"$(printf 'a\\033b')\"");

    let lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
    let seen: Vec<String> = lines.take(3).map(Result::unwrap).collect();
    assert_eq!(
        seen,
        [
            "moved       /workspace/known -> /workspace/moved",
            "deleted     /workspace/d/",
            "created     /workspace/a\\u{1b}b",
        ]
    );
    let pidfd = sys::pidfd::open(i32::try_from(process.id()).unwrap()).unwrap();
    sys::signal::send(pidfd.as_fd(), sys::signal::SIGINT).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(130));

    let local = server.command(["watch", "./here"]).output().unwrap();
    assert_eq!(local.status.code(), Some(2), "{}", String::from_utf8_lossy(&local.stderr));
}

#[tokio::test]
async fn a_server_that_stops_waits_for_no_watch() {
    let mut server = server();
    server.shell("s", "true").await;
    let mut events = watch(&server, WatchFiles::new("/workspace")).await;

    let log = server.stop();

    assert!(log.contains("stopping") && !log.contains("were cut off"), "{log}");
    // The stream broke off; it does not look as if the watch had come to an end.
    let end = tokio::time::timeout(PATIENCE, events.next()).await.expect("it ends");
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}
