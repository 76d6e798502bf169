//! The command line: what people type.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write as _},
    os::fd::AsFd,
    path::Path,
    process::{Child, Output, Stdio},
};

use serde_json::{Value, json};
use testkit::Server;

use crate::{disk::Disk, server};

fn sandbar(server: &Server, args: &[&str]) -> Output {
    server.command(args).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn run_is_one_command_in_a_sandbox_that_is_gone_afterwards() {
    let server = server();

    let output = sandbar(&server, &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);

    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(stdout(&output), "out\n");
    assert!(stderr(&output).starts_with("err\n"), "{}", stderr(&output));
    let listed = sandbar(&server, &["ps", "--json"]);
    assert!(!stdout(&listed).contains("\"id\""), "{}", stdout(&listed));
}

#[test]
fn exec_ps_inspect_and_rm_work_on_a_sandbox() {
    let server = server();

    assert_eq!(stdout(&sandbar(&server, &["exec", "s", "echo a; pwd"])), "a\n/workspace\n");
    assert_eq!(sandbar(&server, &["exec", "s", "exit 9"]).status.code(), Some(9));
    assert!(stdout(&sandbar(&server, &["ps"])).contains("running"));
    let inspected: Value =
        serde_json::from_slice(&sandbar(&server, &["inspect", "s", "--json"]).stdout).unwrap();
    assert_eq!(inspected["id"], "s");
    assert!(sandbar(&server, &["rm", "s"]).status.success());
    let missing = sandbar(&server, &["inspect", "s"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains('s'), "{}", stderr(&missing));
}

#[test]
fn a_network_policy_is_given_shown_and_changed() {
    let server = server();
    let try_it = "import errno, socket\n\
        try: socket.create_connection(('203.0.113.10', 80), 60)\n\
        except OSError as e: print(errno.errorcode[e.errno])";
    let run = sandbar(
        &server,
        &["run", "--network", "a.example:443,198.51.100.0/24", "--", "python3", "-c", try_it],
    );
    assert_eq!(stdout(&run), "ECONNREFUSED\n", "{}", stderr(&run));

    sandbar(&server, &["exec", "s", "true"]);
    assert_eq!(stdout(&sandbar(&server, &["network", "s"])), "internet\n");
    let changed =
        sandbar(&server, &["network", "s", "A.example:443", "*.b.example,198.51.100.0/24"]);
    let rules = "a.example:443\n*.b.example\n198.51.100.0/24\n";
    assert_eq!(stdout(&changed), rules, "{}", stderr(&changed));
    assert_eq!(stdout(&sandbar(&server, &["network", "s"])), rules);
    let shown = stdout(&sandbar(&server, &["inspect", "s"]));
    assert!(
        shown.contains("network   *.b.example\n") && shown.contains("refused   0 packets"),
        "{shown}"
    );
    let json: Value =
        serde_json::from_slice(&sandbar(&server, &["network", "s", "none", "--json"]).stdout)
            .unwrap();
    assert_eq!(json, "none");
    let both = sandbar(&server, &["network", "s", "none", "a.example"]);
    assert_eq!(both.status.code(), Some(2), "{}", stderr(&both));
    let missing = sandbar(&server, &["network", "other"]);
    assert_eq!(missing.status.code(), Some(1), "{}", stderr(&missing));
}

#[test]
fn cp_goes_both_ways_with_directories_and_modes() {
    let server = server();
    let from = server.state_dir().join("from");
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/data"), [0, 255, 10]).unwrap();
    fs::write(from.join("script"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(from.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let back = server.state_dir().join("back");
    fs::set_permissions(&from, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();

    let up = sandbar(&server, &["cp", &from.to_string_lossy(), "s:/workspace/tree"]);
    assert!(up.status.success(), "{}", stderr(&up));
    assert_eq!(stdout(&sandbar(&server, &["exec", "s", "tree/script"])), "ran\n");
    let down = sandbar(&server, &["cp", "s:/workspace/tree", &back.to_string_lossy()]);
    assert!(down.status.success(), "{}", stderr(&down));

    assert_eq!(fs::read(back.join("sub/data")).unwrap(), [0, 255, 10]);
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
    };
    assert_eq!(mode(&back.join("script")), 0o755);
    let inside = || stdout(&sandbar(&server, &["exec", "s", "stat -c %a tree"]));
    assert_eq!((mode(&back), &*inside()), (0o700, "700\n"));

    // Directories that are there keep theirs.
    let widen = std::os::unix::fs::PermissionsExt::from_mode(0o751);
    fs::set_permissions(&back, widen).unwrap();
    let again = format!("{}/.", from.display());
    assert!(sandbar(&server, &["exec", "s", "chmod 750 tree"]).status.success());
    assert!(sandbar(&server, &["cp", &again, "s:/workspace/tree"]).status.success());
    assert_eq!(inside(), "750\n");
    assert!(
        sandbar(&server, &["cp", "s:/workspace/tree/.", &back.to_string_lossy()]).status.success()
    );
    assert_eq!(mode(&back), 0o751);
}

#[test]
fn cat_prints_bytes_in_a_pipe_and_harmless_text_on_a_terminal() {
    let server = server();
    let make = "printf 'a\\033[2Jb\\377\\n' > evil; printf '\\000\\001' > bytes";
    assert!(sandbar(&server, &["exec", "s", make]).status.success());

    let piped = sandbar(&server, &["cat", "s:/workspace/evil", "s:/workspace/bytes"]);
    assert_eq!(piped.stdout, b"a\x1b[2Jb\xff\n\0\x01");
    let missing = sandbar(&server, &["cat", "s:/workspace/none"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("s:/workspace/none"), "{}", stderr(&missing));

    // script(1) gives it a terminal.
    let sandbar = server.command(["cat", "s:/workspace/evil"]);
    let mut script = std::process::Command::new("script");
    let line = format!("{} cat s:/workspace/evil", sandbar.get_program().display());
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env_clear();
    script.envs(sandbar.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let shown = script.output().expect("script(1) starts");
    assert_eq!(stdout(&shown), "a\\u{1b}[2Jb\u{fffd}\r\n");
}

#[test]
fn ls_lists_with_details_hidden_names_and_trees() {
    let server = server();
    let make = "mkdir -p d/e; echo 12345 > d/e/f; ln -s e d/link; touch d/.hidden \"$(printf 'd/a\\nb\\033')\"; \
        chmod 640 d/e/f; touch -d @1000000000 d/e/f";
    assert!(sandbar(&server, &["exec", "s", make]).status.success());
    let ls = |args: &[&str]| {
        let output = sandbar(&server, &[&["ls"], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };

    assert_eq!(ls(&["s"]), "d\n");
    assert_eq!(ls(&["s:/workspace/d"]), "a\\nb\\u{1b}\ne\nlink\n");
    assert_eq!(ls(&["-a", "s:/workspace/d"]), ".hidden\na\\nb\\u{1b}\ne\nlink\n");
    assert_eq!(ls(&["-R", "s"]), "d\nd/a\\nb\\u{1b}\nd/e\nd/e/f\nd/link\n");
    assert_eq!(
        ls(&["-l", "s:/workspace/d/e"]),
        "-rw-r-----     0     0            6 2001-09-09T01:46:40Z f\n"
    );
    assert!(ls(&["-l", "s:/workspace/d"]).ends_with(" link -> e\n"));
    assert_eq!(ls(&["s:/workspace/d/e/f"]), "f\n");
    let json: Vec<Value> = ls(&["--json", "-R", "s:/workspace/d"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(json[2]["path"], "/workspace/d/e/f");
    let missing = sandbar(&server, &["ls", "s:/none"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("s:/none"), "{}", stderr(&missing));
}

#[test]
fn cp_takes_many_small_files_both_ways() {
    const DIRECTORIES: usize = 100;
    const FILES: usize = 200;
    // In memory: some disks are slow at names that come and go.
    let disk = Disk::small(1024);
    let server = Server::start_in(env!("CARGO_BIN_EXE_sandbar"), &disk.path(), &[]);
    let from = server.state_dir().join("from");
    for directory in 0..DIRECTORIES {
        let path = from.join(directory.to_string());
        fs::create_dir_all(&path).unwrap();
        for file in 0..FILES {
            fs::write(path.join(file.to_string()), format!("{directory} {file}")).unwrap();
        }
    }
    let back = server.state_dir().join("back");

    let up = sandbar(&server, &["cp", "-r", &from.to_string_lossy(), "s:/workspace/tree"]);
    assert!(up.status.success(), "{}", stderr(&up));
    let down = sandbar(&server, &["--json", "cp", "s:/workspace/tree", &back.to_string_lossy()]);
    assert!(down.status.success(), "{}", stderr(&down));

    let copied: Value = serde_json::from_slice(&down.stdout).unwrap();
    assert_eq!(copied["files"], DIRECTORIES * FILES);
    for directory in 0..DIRECTORIES {
        for file in 0..FILES {
            let path = back.join(format!("{directory}/{file}"));
            assert_eq!(fs::read_to_string(path).unwrap(), format!("{directory} {file}"));
        }
    }
    drop(server);
}

#[test]
fn ctrl_c_ends_the_command_inside() {
    let server = server();
    let mut process = server
        .command(["exec", "s", "echo $$; sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(process.stdout.take().expect("stdout is piped"));
    let mut pid = String::new();
    lines.read_line(&mut pid).unwrap();

    let pidfd = sys::pidfd::open(i32::try_from(process.id()).unwrap()).unwrap();
    sys::signal::send(pidfd.as_fd(), sys::signal::SIGINT).unwrap();

    assert_eq!(process.wait().unwrap().code(), Some(130));
    let pid = pid.trim();
    let gone =
        format!("for i in $(seq 6000); do [ -e /proc/{pid} ] || exit 0; sleep 0.01; done; exit 1");
    assert!(sandbar(&server, &["exec", "s", &gone]).status.success());
}

/// Ends a process as its supervisor would, and returns its exit code.
fn terminate(mut process: Child) -> Option<i32> {
    let pid = i32::try_from(process.id()).expect("it is a process id");
    let pidfd = sys::pidfd::open(pid).expect("it was not waited for");
    sys::signal::send(pidfd.as_fd(), sys::signal::SIGTERM).expect("it is this user's");
    process.wait().expect("it is a child").code()
}

#[tokio::test]
async fn a_repl_that_is_told_to_end_runs_nothing_that_was_half_said() {
    let server = server();
    server.shell("s", "true").await;
    let contexts = async || {
        let listed = server.get("/v1/sandboxes/s/contexts").await.json;
        listed["contexts"].as_array().map_or(0, Vec::len)
    };
    let mut process = server
        .command(["repl", "bash", "s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = process.stdin.take().expect("stdin is piped");
    input.write_all(b"touch /tmp/ran\n").unwrap();
    while contexts().await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }

    assert_eq!(terminate(process), Some(143));

    server.shell("s", "test ! -e /tmp/ran").await;
    assert_eq!(contexts().await, 0);
}

#[tokio::test]
async fn what_follows_a_sandbox_does_not_make_it_again() {
    let server = server();
    let process = json!({"command": "echo ready; exec sleep 1000", "id": "p"});
    assert_eq!(server.post("/v1/sandboxes/s/processes", &process).await.status, 201);
    let piped = |arguments: &[&str]| {
        let mut process = server
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        (lines.next().unwrap().unwrap(), process)
    };
    let (ready, logs) = piped(&["logs", "-f", "s", "p"]);
    assert_eq!(ready, "ready");
    let (line, forward) = piped(&["port-forward", "s", "0:7000"]);
    assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);

    let ended = logs.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(stderr(&ended).contains("no sandbox"), "{}", stderr(&ended));
    let mut stream = std::net::TcpStream::connect(line.split(' ').next().unwrap()).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);

    assert_eq!(terminate(forward), Some(143));
    assert_eq!(server.get("/v1/sandboxes/s").await.status, 404);
}

#[tokio::test]
async fn a_terminal_that_nobody_can_come_back_to_is_ended() {
    let server = server();
    server.shell("s", "true").await;
    let mut process = server
        .command(["shell", "s", "yes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap().trim(), "y");
    drop(lines);

    assert_eq!(process.wait().unwrap().code(), Some(141));

    let listed = server.get("/v1/sandboxes/s/terminals").await;
    let terminals = listed.json["terminals"].as_array().unwrap();
    assert!(terminals.iter().all(|terminal| terminal["running"] == false), "{}", listed.text);
}

#[test]
fn what_fails_says_so_in_json_too() {
    let server = server();
    assert!(sandbar(&server, &["exec", "s", "true"]).status.success());
    let one = sandbar(&server, &["stop", "--json", "none"]);
    assert_eq!(one.status.code(), Some(1));
    assert!(stderr(&one).contains("SANDBOX_NOT_FOUND"), "{}", stderr(&one));
    let two = sandbar(&server, &["stop", "--json", "s", "none"]);
    assert_eq!(two.status.code(), Some(1));
    let said: Value = serde_json::from_str(&stdout(&two)).unwrap();
    assert_eq!(
        (&said["sandboxes"][0]["id"], &said["failed"][0]["id"]),
        (&json!("s"), &json!("none"))
    );
}

#[test]
fn down_does_not_take_another_server_for_the_one_that_is_meant() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let down = server
        .command(["down", "--destroy", "--state-dir"])
        .arg(dir.path())
        .env("SANDBAR_URL", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(down.status.code(), Some(2), "{}", stderr(&down));
    assert!(stderr(&down).contains("SANDBAR_URL"), "{}", stderr(&down));
}

#[test]
fn stdin_is_passed_on_request() {
    let server = server();
    let mut process = server
        .command(["exec", "-i", "s", "tr a-z A-Z"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    std::io::Write::write_all(&mut process.stdin.take().unwrap(), b"typed").unwrap();

    let mut output = String::new();
    process.stdout.take().unwrap().read_to_string(&mut output).unwrap();

    assert!(process.wait().unwrap().success());
    assert_eq!(output, "TYPED");
}

#[test]
fn endings_are_explained_and_failures_have_their_own_code() {
    let server = server();

    let late = sandbar(&server, &["exec", "--timeout", "300ms", "s", "sleep 1000"]);
    assert_eq!(late.status.code(), Some(124));
    assert!(stderr(&late).contains("time"), "{}", stderr(&late));
    let missing = sandbar(&server, &["run", "--image", "no-such-image", "--", "true"]);
    assert_eq!(missing.status.code(), Some(125));
    assert!(stderr(&missing).contains("no-such-image"), "{}", stderr(&missing));
    assert_eq!(sandbar(&server, &["exec"]).status.code(), Some(2));
}

#[test]
fn a_server_that_does_not_run_is_told_with_what_to_do() {
    let mut server = server();
    server.stop();

    let output = sandbar(&server, &["ps"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("sandbar serve"), "{}", stderr(&output));
    server.restart();
}

#[test]
fn doctor_finds_this_machine_fit_and_completions_are_scripts() {
    let server = server();

    let doctor = sandbar(&server, &["doctor"]);
    assert!(doctor.status.success(), "{}", stdout(&doctor));
    let features: Value =
        serde_json::from_slice(&sandbar(&server, &["doctor", "--json"]).stdout).unwrap();
    assert!(features.to_string().contains("required"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&sandbar(&server, &["completions", shell])).contains("sandbar"));
    }
}

#[test]
fn a_session_keeps_its_state_between_commands() {
    let server = server();
    let exec = |text: &str| sandbar(&server, &["exec", "--session", "dev", "s", text]);

    assert!(exec("cd /usr; X=1 ;").status.success());
    assert_eq!(stdout(&exec("pwd; echo $X")), "/usr\n1\n");
    let argv = sandbar(&server, &["exec", "-s", "dev", "s", "--", "cd", "lib"]);
    assert!(argv.status.success(), "{}", stderr(&argv));
    let listed = stdout(&sandbar(&server, &["session", "ls", "s"]));
    let line = listed.lines().find(|line| line.starts_with("dev ")).unwrap_or_default();
    assert!(line.ends_with(" /usr/lib"), "{listed}");

    let ended = exec("echo last; exit 3");
    assert_eq!((ended.status.code(), stdout(&ended).as_str()), (Some(3), "last\n"));
    assert!(stderr(&ended).contains("exit code: 3"), "{}", stderr(&ended));
    assert_eq!(stdout(&exec("pwd; echo [$X]")), "/workspace\n[]\n");

    // Time enough to get there on a machine that is away for a while.
    let lost = sandbar(&server, &["exec", "-s", "dev", "--timeout", "3s", "s", "exec sleep 99"]);
    assert_eq!(lost.status.code(), Some(124));
    assert!(stderr(&lost).contains("what it kept is lost"), "{}", stderr(&lost));

    let made = ["session", "create", "s", "build", "-w", "/tmp", "-e", "A=b c", "--timeout", "1h"];
    assert_eq!(stdout(&sandbar(&server, &made)), "build\n");
    let look = ["exec", "-s", "build", "s", "pwd; echo $A"];
    assert_eq!(stdout(&sandbar(&server, &look)), "/tmp\nb c\n");
    assert_eq!(stdout(&sandbar(&server, &["session", "rm", "s", "build"])), "build\n");
    let listed = sandbar(&server, &["session", "ls", "s", "--json"]);
    assert!(!stdout(&listed).contains("build"), "{}", stdout(&listed));
    let refused = sandbar(&server, &["session", "rm", "s", "default"]);
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn variables_are_shown_set_and_unset() {
    let server = server();

    let set = sandbar(&server, &["env", "s", "A=one", "B=two\nlines"]);
    assert!(set.status.success(), "{}", stderr(&set));
    assert_eq!(stdout(&sandbar(&server, &["exec", "s", "echo $A ;"])), "one\n");
    let shown = stdout(&sandbar(&server, &["env", "s"]));
    assert!(shown.contains("A=one\n") && shown.contains("B=two\\nlines\n"), "{shown}");
    // One that comes from here is in no list of processes.
    let from_here =
        server.command(["env", "s", "-s", "default", "SECRET"]).env("SECRET", "x").output();
    assert!(from_here.is_ok_and(|output| output.status.success()));
    let own = stdout(&sandbar(&server, &["env", "-s", "default", "s"]));
    assert!(own.contains("SECRET=x\n") && own.contains("A=one\n"), "{own}");
    assert!(!stdout(&sandbar(&server, &["env", "s"])).contains("SECRET"));
    assert!(sandbar(&server, &["env", "s", "A-"]).status.success());
    assert_eq!(stdout(&sandbar(&server, &["exec", "-s", "default", "s", "echo [$A] ;"])), "[]\n");
    let refused = sandbar(&server, &["env", "s", "A B=c"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("letters, digits and '_'"), "{}", stderr(&refused));
}

#[tokio::test]
async fn doctor_attacks_a_sandbox_and_says_what_held() {
    let server = server();

    let output = server.command(["doctor", "--attack"]).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("E05  mount (8)"), "{said}");
    assert!(said.contains(" 0 did not"), "{said}");

    let output = server.command(["doctor", "--attack", "--json"]).output().expect("it starts");
    let said: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((&said["ok"], &said["broken"]), (&json!(true), &json!(0)));
    assert!(said["held"].as_u64() > Some(300), "{}", said["held"]);
    let left = server.get("/v1/sandboxes").await;
    assert_eq!(left.json["sandboxes"], json!([]), "its sandboxes are gone");
}

#[test]
fn set_changes_what_becomes_of_a_sandbox_and_leaves_the_rest() {
    let server = server();
    assert!(sandbar(&server, &["exec", "s", "true"]).status.success());
    let inspect = || -> Value {
        serde_json::from_slice(&sandbar(&server, &["inspect", "s", "--json"]).stdout).unwrap()
    };
    let before = inspect();
    let set = sandbar(
        &server,
        &[
            "set",
            "s",
            "--sleep-after",
            "3m",
            "--on-idle",
            "stop",
            "--label",
            "team=a",
            "--label",
            "tier=",
            "--ttl",
            "2h",
        ],
    );
    assert_eq!((set.status.code(), stdout(&set)), (Some(0), "s\n".to_owned()), "{}", stderr(&set));
    let after = inspect();
    let idle = &after["idle"];
    assert_eq!((&idle["sleepAfterMs"], &idle["onIdle"]), (&json!(180_000), &json!("stop")));
    assert_eq!(idle["stopAfterMs"], before["idle"]["stopAfterMs"]);
    assert_eq!(after["labels"], json!({"team": "a", "tier": ""}));
    assert_eq!(after["ttlMs"], 7_200_000);

    let set = sandbar(&server, &["set", "s", "--keep-alive", "--ttl", "0s"]);
    assert!(set.status.success(), "{}", stderr(&set));
    let last = inspect();
    assert_eq!((&last["idle"]["keepAlive"], &last["ttlMs"]), (&json!(true), &json!(0)));
    assert_eq!(last["labels"], after["labels"]);
    for (arguments, code) in [
        (&["set", "s", "--sleep-after", "1ms"][..], 1),
        (&["set", "gone", "--keep-alive"], 1),
        (&["set", "s", "--label", "team"], 2),
        (&["set", "s", "--on-idle", "nothing"], 2),
    ] {
        let refused = sandbar(&server, arguments);
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {}", stderr(&refused));
    }
    assert_eq!(inspect()["idle"], last["idle"]);
}

#[test]
fn prune_destroys_what_rests_and_nothing_else() {
    let server = server();
    for id in ["a", "b", "c", "d"] {
        assert!(sandbar(&server, &["exec", id, "true"]).status.success());
    }
    assert!(sandbar(&server, &["set", "b", "--label", "keep=1"]).status.success());
    assert!(sandbar(&server, &["stop", "a", "b"]).status.success());
    assert!(sandbar(&server, &["freeze", "c"]).status.success());
    let lines = |output: &Output| stdout(output).lines().map(str::to_owned).collect::<Vec<_>>();
    let left = || lines(&sandbar(&server, &["ps", "-q"]));

    assert_eq!(lines(&sandbar(&server, &["prune", "-n"])), ["a", "b"]);
    assert_eq!(lines(&sandbar(&server, &["prune", "-n", "--frozen"])), ["a", "b", "c"]);
    assert_eq!(lines(&sandbar(&server, &["prune", "-n", "--label", "keep"])), ["b"]);
    assert!(sandbar(&server, &["prune", "--unused", "1h"]).status.success());
    assert_eq!(left(), ["a", "b", "c", "d"]);

    assert_eq!(lines(&sandbar(&server, &["prune"])), ["a", "b"]);
    assert_eq!(left(), ["c", "d"]);
    assert_eq!(lines(&sandbar(&server, &["prune", "--frozen"])), ["c"]);
    assert_eq!(left(), ["d"]);
}
