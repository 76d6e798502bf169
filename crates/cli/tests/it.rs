//! The binary as its user meets it: arguments in; stdout, stderr and exit code out.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

#[path = "it/fake.rs"]
mod fake;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Output, Stdio},
};

use fake::{Entry, Lie, Seen, Server};
use serde_json::{Value, json};
use testkit::tape;
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
};

fn sandbar(server: &Server) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbar"));
    command
        .env("SANDBAR_URL", &server.url)
        .env("SANDBAR_KEY", "k")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn output(server: &Server, arguments: &[&str]) -> Output {
    sandbar(server).args(arguments).output().await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    let status = Command::new("sh").args(["-c", "kill -$0 $1", name, &pid]).status().await;
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn run_creates_executes_and_destroys() {
    let mut server = Server::start().await;
    let output = output(
        &server,
        &[
            "run",
            "--image",
            "mine",
            "--network",
            "none",
            "--memory",
            "64MiB",
            "--cpus",
            "0.5",
            "-e",
            "A=b",
            "-w",
            "/tmp",
            "--timeout",
            "5s",
            "--",
            "prog",
            "-x",
        ],
    )
    .await;
    assert_eq!(output.stdout, b"\xffout\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.status.code(), Some(3));
    let Seen::Created(create) = server.next().await else { panic!("not created first") };
    let id = create["id"].as_str().unwrap().to_owned();
    assert_eq!(
        create,
        json!({"id": id, "image": "mine", "network": "none",
            "resources": {"memoryBytes": 64 << 20, "cpuMillis": 500}})
    );
    assert_eq!(
        server.next().await,
        Seen::Executed(json!({"command": ["prog", "-x"], "cwd": "/tmp", "env": {"A": "b"},
            "timeoutMs": 5000, "encoding": "base64"}))
    );
    assert_eq!(server.next().await, Seen::Destroyed(id));
}

#[tokio::test]
async fn one_argument_with_spaces_goes_to_the_shell_and_stdin_goes_along() {
    let mut server = Server::start().await;
    let mut child = sandbar(&server)
        .args(["exec", "-i", "box", "cat | wc"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"\0\xff").await.unwrap();
    drop(stdin);
    assert_eq!(child.wait().await.unwrap().code(), Some(3));
    assert_eq!(
        server.next().await,
        Seen::Executed(json!({"command": "cat | wc", "stdin": "AP8=", "encoding": "base64"}))
    );
}

#[tokio::test]
async fn an_unusual_end_is_explained() {
    let server = Server::start().await;
    let output = output(&server, &["exec", "--timeout", "2s", "box", "slow"]).await;
    assert_eq!(output.status.code(), Some(124));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("its time of 2s was over") && stderr.lines().count() == 1, "{stderr}");
}

#[tokio::test]
async fn a_command_that_does_not_run_has_a_code_of_its_own() {
    let server = Server::start().await;
    for (program, code, reason) in [
        ("missing-program", 127, "no program is called that"),
        ("cut", 125, "before its final event"),
    ] {
        let output = output(&server, &["exec", "box", program]).await;
        assert_eq!(output.status.code(), Some(code), "{program}");
        assert!(text(&output.stderr).contains(reason), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_signal_ends_the_command_and_the_sandbox() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut server = Server::start().await;
        let mut child = sandbar(&server).args(["run", "silent"]).spawn().unwrap();
        // The command runs when its output is here.
        let mut out = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut out).await.unwrap();
        signal(&child, name).await;
        assert_eq!(child.wait().await.unwrap().code(), Some(code), "{name}");
        // In whichever order the server hears of it.
        let (mut is_cancelled, mut is_destroyed) = (false, false);
        while !(is_cancelled && is_destroyed) {
            let seen = server.next().await;
            is_cancelled |= seen == Seen::Cancelled;
            is_destroyed |= matches!(seen, Seen::Destroyed(_));
        }
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_the_destruction() {
    let mut server = Server::stuck().await;
    let mut child = sandbar(&server).args(["run", "silent"]).spawn().unwrap();
    let mut out = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut out).await.unwrap();
    signal(&child, "INT").await;
    while !matches!(server.next().await, Seen::Destroyed(_)) {}
    signal(&child, "INT").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
}

#[tokio::test]
async fn a_reader_who_leaves_ends_the_command_quietly() {
    let mut server = Server::start().await;
    let mut child = sandbar(&server).args(["run", "endless"]).spawn().unwrap();
    let mut out = [0; 5];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut out).await.unwrap();
    drop(stdout);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(text(&output.stderr), "");
    while server.next().await != Seen::Cancelled {}
}

#[tokio::test]
async fn json_is_one_object_on_stdout_and_the_apis_error_on_stderr() {
    let server = Server::start().await;
    let done = output(&server, &["--json", "exec", "box", "prog"]).await;
    assert_eq!(done.status.code(), Some(3));
    let result: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(result["stdout"], "out\n");
    assert_eq!(text(&done.stderr), "");

    let failed = output(&server, &["inspect", "missing", "--json"]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(text(&failed.stdout), "");
    let error: Value = serde_json::from_slice(&failed.stderr).unwrap();
    assert_eq!(error["error"]["code"], "SANDBOX_NOT_FOUND");
    assert_eq!(error["error"]["requestId"], "r1");
}

#[tokio::test]
async fn ps_shows_what_each_uses_without_colours_in_a_pipe() {
    let server = Server::start().await;
    let table = output(&server, &["ps"]).await;
    let lines: Vec<&str> = text(&table.stdout).lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("ID   IMAGE    MEMORY   PIDS  AGE"), "{}", lines[0]);
    assert!(lines[1].starts_with("one  default  1.5 KiB  3") && lines[1].ends_with("running"));
    let ids = output(&server, &["ps", "-q"]).await;
    assert_eq!(text(&ids.stdout), "one\ntwo\n");
}

#[tokio::test]
async fn rm_destroys_what_it_can() {
    let mut server = Server::start().await;
    let some = output(&server, &["rm", "one", "missing", "two"]).await;
    assert_eq!(some.status.code(), Some(1));
    assert_eq!(text(&some.stdout), "one\ntwo\n");
    assert!(text(&some.stderr).contains("could not destroy missing"));
    let mut gone = [server.next().await, server.next().await];
    gone.sort_by_key(|seen| format!("{seen:?}"));
    assert_eq!(gone, ["one", "two"].map(|id| Seen::Destroyed(id.to_owned())));
    let all = output(&server, &["rm", "--all", "--json"]).await;
    let result: Value = serde_json::from_slice(&all.stdout).unwrap();
    assert_eq!(result, json!({"destroyed": ["one", "two"], "failed": []}));
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_directory_goes_in_and_comes_back_the_same() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (source, back) = (dir.path().join("source"), dir.path().join("back"));
    fs::create_dir_all(source.join("deep/empty")).unwrap();
    fs::write(source.join("deep/a b%ä"), b"\0\xff").unwrap();
    fs::write(source.join(".hidden"), "x").unwrap();
    fs::write(source.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(source.join("run.sh"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("../nowhere", source.join("deep/link")).unwrap();

    let up = output(&server, &["--json", "cp", source.to_str().unwrap(), "box:/w"]).await;
    assert_eq!(text(&up.stderr), "");
    let copied: Value = serde_json::from_slice(&up.stdout).unwrap();
    assert_eq!(
        copied,
        json!({"files": 3, "directories": 3, "links": 1, "bytes": 13,
            "leftOut": [], "leftOutCount": 0, "partial": false})
    );
    let files = server.files.lock().unwrap().clone();
    assert_eq!(files["/w/run.sh"], Entry::File(0o755, b"#!/bin/sh\n".to_vec()));
    assert_eq!(files["/w/deep/link"], Entry::Link("../nowhere".to_owned()));

    let down = output(&server, &["cp", "box:/w/.", back.to_str().unwrap()]).await;
    assert_eq!(text(&down.stderr), "");
    assert_eq!(fs::read(back.join("deep/a b%ä")).unwrap(), b"\0\xff");
    assert_eq!(fs::read(back.join(".hidden")).unwrap(), b"x");
    assert_eq!(mode(&back.join("run.sh")), 0o755);
    assert!(back.join("deep/empty").is_dir());
    assert_eq!(fs::read_link(back.join("deep/link")).unwrap(), Path::new("../nowhere"));
}

#[tokio::test]
async fn a_file_goes_into_a_directory_or_to_a_name() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    server.files.lock().unwrap().insert("/w".to_owned(), Entry::Directory);
    for (destination, path) in [
        ("box:/w", "/w/file"),
        ("box:/w/", "/w/file"),
        ("box:/new/", "/new/file"),
        ("box:/n", "/n"),
    ] {
        let copied = output(&server, &["cp", file.to_str().unwrap(), destination]).await;
        assert!(copied.status.success(), "{}", text(&copied.stderr));
        let entry = server.files.lock().unwrap().remove(path);
        assert_eq!(entry, Some(Entry::File(0o600, b"x".to_vec())), "{destination}");
    }
    let entry = Entry::File(0o751, b"y".to_vec());
    server.files.lock().unwrap().insert("/w/prog".to_owned(), entry);
    let copied = output(&server, &["cp", "box:/w/prog", dir.path().to_str().unwrap()]).await;
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    assert_eq!(mode(&dir.path().join("prog")), 0o751);

    let missing = output(&server, &["cp", "box:/none", dir.path().to_str().unwrap()]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("no such file"), "{}", text(&missing.stderr));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something was left behind");
}

/// A sandbox of which the agent was taken over: its archives are made to do harm.
async fn copied_from_a_liar(archive: &[Vec<u8>], breaks_off: bool) -> (Output, tempfile::TempDir) {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("outside"), "untouched").unwrap();
    fs::create_dir(dir.path().join("copy")).unwrap();
    symlink("../outside", dir.path().join("copy/there")).unwrap();
    server.files.lock().unwrap().insert("/w".to_owned(), Entry::Directory);
    *server.lie.lock().unwrap() = Some(Lie { archive: archive.concat(), breaks_off });
    let target = dir.path().join("copy");
    let copied = output(&server, &["cp", "-r", "box:/w/.", target.to_str().unwrap()]).await;
    assert_eq!(fs::read_to_string(dir.path().join("outside")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something lies outside the copy");
    (copied, dir)
}

#[tokio::test]
async fn a_sandbox_cannot_write_outside_the_copy() {
    let end = tape::END.to_vec();
    for lie in [
        [tape::file("../outside", "x"), vec![]],
        [tape::file("a/../../outside", "x"), vec![]],
        [tape::entry(b'2', b"link", b"..", b""), tape::file("link/outside", "x")],
        [tape::entry(b'2', b"link", b"/", b""), tape::file("link/tmp/x", "x")],
        [tape::entry(b'1', b"stolen", b"../outside", b""), tape::file("stolen", "x")],
        [tape::records(b'x', &[("path", "../outside")]), tape::file("a", "x")],
    ] {
        let (copied, dir) = copied_from_a_liar(&[lie.concat(), end.clone()], false).await;
        assert_eq!(copied.status.code(), Some(1), "{}", text(&copied.stdout));
        assert!(text(&copied.stderr).contains("copied before, and stay"));
        assert!(!dir.path().join("copy/stolen").exists());
    }
    // A link that is there is replaced, not written through, also by a further name of it; an absolute
    // name stays inside.
    let again = tape::entry(b'1', b"again", b"there", b"");
    let files = [
        again,
        tape::file("again", "x"),
        tape::file("there", "x"),
        tape::file("/absolute", "y"),
        end,
    ];
    let (copied, dir) = copied_from_a_liar(&files, false).await;
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    assert!(fs::symlink_metadata(dir.path().join("copy/again")).unwrap().is_file());
    assert!(fs::symlink_metadata(dir.path().join("copy/there")).unwrap().is_file());
    assert_eq!(fs::read_to_string(dir.path().join("copy/absolute")).unwrap(), "y");
    assert_eq!(mode(&dir.path().join("copy/absolute")), 0o777, "no set-user-id");
}

/// A first copy leaves a link, a second one is to go where it leads.
#[tokio::test]
async fn a_link_of_an_earlier_copy_is_not_the_next_one_s_destination() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (copy, outside) = (dir.path().join("copy"), dir.path().join("outside"));
    fs::create_dir(&copy).unwrap();
    fs::create_dir(&outside).unwrap();
    symlink("../outside", copy.join("w")).unwrap();
    server.files.lock().unwrap().extend([
        ("/w".to_owned(), Entry::Directory),
        ("/w/file".to_owned(), Entry::File(0o644, b"x".to_vec())),
    ]);

    let refused = output(&server, &["cp", "-r", "box:/w", copy.to_str().unwrap()]).await;

    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is in the way"), "{}", text(&refused.stderr));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // A link that the user names is followed.
    let link = copy.join("w");
    let copied = output(&server, &["cp", "-r", "box:/w/.", link.to_str().unwrap()]).await;
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn a_copy_that_breaks_off_is_an_error_that_says_what_is_there() {
    let whole = tape::file("whole", "x");
    let half = tape::file("half", &"y".repeat(4000));
    for (archive, breaks_off) in [
        (vec![whole.clone(), half[..2000].to_vec()], true),
        (vec![whole.clone(), half[..2000].to_vec()], false),
        (vec![whole.clone()], false),
        (vec![whole.clone(), tape::END.to_vec()], true),
    ] {
        let (copied, dir) = copied_from_a_liar(&archive, breaks_off).await;
        assert_eq!(copied.status.code(), Some(1));
        let stderr = text(&copied.stderr);
        assert!(
            stderr.contains("1 files and 0 directories were copied before, and stay"),
            "{stderr}"
        );
        assert_eq!(fs::read_to_string(dir.path().join("copy/whole")).unwrap(), "x");
        assert_eq!(
            fs::read_dir(dir.path().join("copy")).unwrap().count(),
            2,
            "half a file is left"
        );
    }
}

#[tokio::test]
async fn what_was_left_out_is_named_without_control_characters() {
    let comment = r#"{"leftOutCount": 3, "partial": true, "leftOut":
        [{"path": "\u001b]0;x\u0007\nb", "reason": "special"}, {"path": "c", "reason": "unreadable"}]}"#;
    let archive = [
        tape::records(b'x', &[("comment", comment)]),
        tape::entry(b'5', b"./", b"", b""),
        tape::END.to_vec(),
    ];
    let (copied, _dir) = copied_from_a_liar(&archive, false).await;
    assert_eq!(copied.status.code(), Some(1), "the copy is not whole");
    assert_eq!(
        text(&copied.stderr),
        "sandbar: \\u{1b}]0;x\\u{7}\\nb: it is a socket, a pipe or a device\n\
         sandbar: c: it may not be read\nsandbar: and 1 more like these\n\
         sandbar: the copy is not whole\n"
    );
    // Nonsense about itself is no reason to fail.
    let archive = [
        tape::records(b'x', &[("comment", "nonsense")]),
        tape::entry(b'5', b"./", b"", b""),
        tape::END.to_vec(),
    ];
    let (copied, _dir) = copied_from_a_liar(&archive, false).await;
    assert!(copied.status.success(), "{}", text(&copied.stderr));
}

#[tokio::test]
async fn a_build_prints_plain_lines_in_a_pipe() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("Dockerfile");
    let directory = dir.path().to_str().unwrap();
    fs::write(&recipe, "FROM x\n").unwrap();
    let built = output(&server, &["image", "build", "-t", "mine", directory]).await;
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert_eq!(
        text(&built.stdout),
        "[1/1] RUN x\nworking\\u{1b}[2J\nmine: 2 layers, 2.0 KiB, sha256:00\n"
    );
    fs::write(&recipe, "FROM x\nRUN false\n").unwrap();
    let failed = output(&server, &["image", "build", "-t", "mine", directory]).await;
    assert_eq!(failed.status.code(), Some(1));
    let stderr = text(&failed.stderr);
    assert!(stderr.contains("could not build mine: RUN false ended with 1"), "{stderr}");
}

#[tokio::test]
async fn down_waits_until_the_server_is_gone() {
    let mut server = Server::start().await;
    let down = output(&server, &["down", "--destroy"]).await;
    assert!(down.status.success(), "{}", text(&down.stderr));
    assert_eq!(server.next().await, Seen::ShutDown(json!({"sandboxes": "destroy"})));
    let address = server.url.strip_prefix("http://").unwrap();
    tokio::net::TcpStream::connect(address).await.unwrap_err();
    let again = output(&server, &["down"]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("no server answers"), "{}", text(&again.stderr));
}

#[tokio::test]
async fn version_names_both_sides() {
    let server = Server::start().await;
    let version = output(&server, &["version"]).await;
    let lines: Vec<&str> = text(&version.stdout).lines().collect();
    assert_eq!(lines[1], "server  9.9.9 (ok)");
}

#[tokio::test]
async fn bench_measures_and_destroys_what_it_made() {
    let mut server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let samples = dir.path().join("samples");
    let arguments = ["bench", "--runs", "2", "--json", "--samples", samples.to_str().unwrap()];
    let bench = output(&server, &arguments).await;
    assert!(bench.status.success(), "{}", text(&bench.stderr));
    let report: Value = serde_json::from_slice(&bench.stdout).unwrap();
    let names: Vec<&str> = report["measures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "create to first exec result",
            "destroy",
            "create, exec true, destroy",
            "create to first exec result, unhurried",
            "destroy, unhurried",
            "create to first exec result, unhurried, none made ahead",
            "create to first exec result, 8 at once",
            "create to first exec result, 50 at once",
            "exec true",
            "exec echo hi in a session",
            "process start",
            "first byte of a stream",
            "key to a program and back",
            "thaw to first result",
            "start of a stopped sandbox",
            "write 1 KiB",
            "replace 1 KiB",
            "read 1 KiB",
            "write 1 MiB",
            "replace 1 MiB",
            "read 1 MiB",
            "create, 200 begun at once",
        ]
    );
    assert_eq!(report["measures"][0]["count"], 2);
    let flows: Vec<_> = report["flows"].as_array().unwrap().iter().map(|f| &f["streams"]).collect();
    assert_eq!(flows, [1, 1, 100]);
    assert!(report["rate"]["count"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["idle"]["sandboxes"], 2);
    assert_eq!(report["burst"]["count"], 2);
    assert_eq!(report["sessionRate"]["count"], 100);
    assert_eq!(fs::read_to_string(&samples).unwrap().lines().count(), 2 * names.len());

    let (mut created, mut destroyed) = (Vec::new(), Vec::new());
    while let Ok(seen) = server.seen.try_recv() {
        match seen {
            Seen::Created(create) => created.push(create["id"].as_str().unwrap().to_owned()),
            Seen::Destroyed(id) => destroyed.push(id),
            _ => {}
        }
    }
    // What its label still finds at the end is destroyed too.
    created.push("labelled".to_owned());
    created.sort();
    destroyed.sort();
    assert_eq!(created, destroyed);
}

#[tokio::test]
async fn a_bench_that_meets_failures_says_so() {
    let server = Server::start().await;
    let missing = server.url.clone() + "/elsewhere";
    let failed =
        sandbar(&server).env("SANDBAR_URL", missing).args(["bench", "--quick"]).output().await;
    assert_eq!(failed.unwrap().status.code(), Some(1));
}
