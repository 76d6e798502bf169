//! `sandbar shell` at a terminal of its own, as a person has it.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io::{PipeReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use sys::{
    file::{self, How},
    pty, signal,
    spawn::{REPORT_BYTES, Spawn, Spawned},
    wait::{self, Status},
};
use testkit::{PATIENCE, Server};

use crate::server;

/// A terminal with a command of the product on it.
struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    /// The command's end, kept to look at its modes.
    theirs: OwnedFd,
    before: String,
    running: Spawned,
}

fn c_string(text: &OsStr) -> CString {
    CString::new(text.as_bytes()).expect("no NUL is in it")
}

/// All that stty(1) can say of a terminal's modes.
fn modes(terminal: &OwnedFd) -> String {
    let stdin = terminal.try_clone().expect("it can be cloned");
    let stty = Command::new("stty").arg("-g").stdin(stdin).output().expect("stty runs");
    String::from_utf8(stty.stdout).expect("it is text")
}

impl Terminal {
    /// Starts `sandbar` with these arguments on a new terminal of 90 columns and 31 rows.
    fn run(server: &Server, arguments: &[&str]) -> Self {
        let how = How::new(file::O_RDWR | file::O_NOCTTY);
        let master = file::open(file::cwd(), c"/dev/ptmx", how).expect("there are terminals");
        pty::unlock(master.as_fd()).expect("it is new");
        pty::resize(master.as_fd(), 90, 31).expect("it is a terminal");
        let theirs = pty::open_terminal(master.as_fd()).expect("it is unlocked");
        let before = modes(&theirs);

        let command = server.command(arguments);
        let program = c_string(command.get_program());
        let argv: Vec<_> =
            [program.clone()].into_iter().chain(command.get_args().map(c_string)).collect();
        let envp: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| {
                let mut variable = name.to_owned();
                variable.push("=");
                variable.push(value?);
                Some(c_string(&variable))
            })
            .collect();
        let here = File::open("/").expect("there is a root");
        let running = sys::spawn::spawn(&Spawn {
            programs: &[program],
            argv: &argv,
            envp: &envp,
            cwd: here.as_fd(),
            stdio: [theirs.as_fd(); 3],
            private: None,
            has_terminal: true,
            cgroup: None,
            tasks: &[],
        })
        .expect("it starts");

        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().expect("it can be cloned");
        let (send, screen) = mpsc::channel();
        // Ends with the terminal, or with the test.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                if send.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { keyboard, screen, seen: Vec::new(), theirs, before, running }
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    /// Reads until `text` has been shown.
    fn until(&mut self, text: &str) -> String {
        loop {
            let at = self.seen.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = at {
                let rest = self.seen.split_off(at + text.len());
                let seen = std::mem::replace(&mut self.seen, rest);
                return String::from_utf8_lossy(&seen).into_owned();
            }
            let bytes = self.screen.recv_timeout(PATIENCE);
            let seen = String::from_utf8_lossy(&self.seen);
            assert!(bytes.is_ok(), "{text:?} does not come after {seen:?}");
            self.seen.extend(bytes.unwrap_or_default());
        }
    }

    fn signal(&self, number: i32) {
        signal::send(self.running.pidfd.as_fd(), number).expect("it runs");
    }

    /// Waits for the command's end; the terminal must be as it was.
    fn end(mut self) -> (Status, String) {
        let limit = i32::try_from(PATIENCE.as_millis()).expect("a minute has few milliseconds");
        let has_ended = sys::poll::wait_readable(self.running.pidfd.as_fd(), limit);
        assert!(has_ended.expect("it can be waited for"), "it does not end");
        let ended = wait::child(self.running.pid).expect("it is a child of this process");
        assert_eq!(modes(&self.theirs), self.before, "the modes of the terminal stay changed");
        drop(self.theirs);
        // The reader hears of the end once nobody has the terminal open.
        self.seen.extend(self.screen.iter().flatten());
        let mut report = [0; REPORT_BYTES];
        assert!(PipeReader::from(self.running.report).read_exact(&mut report).is_err());
        (ended.status, String::from_utf8_lossy(&self.seen).into_owned())
    }
}

#[tokio::test]
async fn a_shell_is_a_terminal_in_the_sandbox_and_ends_with_its_code() {
    let server = server();
    let mut shell = Terminal::run(&server, &["shell", "s"]);

    shell.type_in("stty size; echo $0 in $(hostname)\r");
    let shown = shell.until(" in s");
    assert!(shown.contains("31 90\r\n") && shown.contains("bash"), "{shown}");
    assert_ne!(modes(&shell.theirs), shell.before, "keys are passed on one by one");
    pty::resize(shell.keyboard.as_fd(), 120, 40).unwrap();
    shell.type_in("until [ \"$(stty size)\" = '40 120' ]; do :; done; echo resi''zed\r");
    shell.until("resized\r\n");
    // Ctrl-C is the program's, not ours.
    shell.type_in("echo go''ing; sleep 1000\r");
    shell.until("going\r\n");
    server.shell("s", "until grep -qs '^sleep' /proc/[0-9]*/comm; do sleep 0.01; done").await;
    shell.type_in("\x03");
    shell.type_in("exit $?\r");

    assert_eq!(shell.end().0, Status::Exited(130));
}

#[tokio::test]
async fn a_shell_is_left_with_two_keys_and_come_back_to() {
    let server = server();
    let mut shell = Terminal::run(&server, &["shell", "s", "--terminal", "main"]);
    shell.type_in("x=kept; echo se''t\r");
    shell.until("set\r\n");

    shell.type_in("\x10\x11");
    let (status, said) = shell.end();
    assert_eq!(status, Status::Exited(0));
    assert!(said.contains("sandbar shell s --terminal main"), "{said}");

    let mut shell = Terminal::run(&server, &["shell", "s", "--terminal", "main"]);
    shell.until("set\r\n");
    shell.type_in("echo $x-on; exit 6\r");
    shell.until("kept-on\r\n");
    assert_eq!(shell.end().0, Status::Exited(6));
    // What has ended makes way for a new one of the same name.
    let mut shell = Terminal::run(&server, &["shell", "s", "--terminal", "main"]);
    shell.type_in("echo ${x-gone}; exit\r");
    shell.until("gone\r\n");
    assert_eq!(shell.end().0, Status::Exited(0));
}

#[tokio::test]
async fn a_signal_gives_the_terminal_back_and_ends_what_nobody_can_come_back_to() {
    for (number, code) in [(signal::SIGTERM, 143), (signal::SIGHUP, 129), (signal::SIGINT, 130)] {
        let server = server();
        let mut named = Terminal::run(&server, &["shell", "s", "--terminal", "main"]);
        let mut shell = Terminal::run(&server, &["shell", "s"]);
        for shell in [&mut named, &mut shell] {
            shell.type_in("echo he''re\r");
            shell.until("here\r\n");
        }

        named.signal(number);
        shell.signal(number);

        assert_eq!(named.end().0, Status::Exited(code));
        assert_eq!(shell.end().0, Status::Exited(code));
        let left = server.get("/v1/sandboxes/s/terminals").await;
        let left = left.json["terminals"].as_array().cloned().unwrap_or_default();
        let left: Vec<_> = left.iter().filter_map(|terminal| terminal["id"].as_str()).collect();
        assert_eq!(left, ["main"]);
    }
}

#[tokio::test]
async fn a_stopped_shell_takes_the_terminal_again_when_it_goes_on() {
    let server = server();
    let mut shell = Terminal::run(&server, &["shell", "s"]);
    shell.type_in("echo he''re\r");
    shell.until("here\r\n");
    let raw = modes(&shell.theirs);

    shell.signal(signal::SIGSTOP);
    // As a shell does that gets its terminal back.
    let stdin = shell.theirs.try_clone().unwrap();
    assert!(Command::new("stty").arg(shell.before.trim()).stdin(stdin).status().unwrap().success());
    shell.signal(signal::SIGCONT);

    let begun = std::time::Instant::now();
    while modes(&shell.theirs) != raw {
        assert!(begun.elapsed() < PATIENCE, "the terminal is not taken again");
    }
    shell.type_in("exit 2\r");
    assert_eq!(shell.end().0, Status::Exited(2));
}

/// Has the terminal show a word, which is seen as soon as somebody shows it again.
async fn show(server: &Server, shell: &mut Terminal, word: &str) {
    server.shell("s", &format!("echo {word} > /dev/pts/0")).await;
    shell.until(&format!("{word}\r\n"));
}

#[tokio::test]
async fn a_shell_outlives_its_server() {
    let mut server = server();
    let mut shell = Terminal::run(&server, &["shell", "s"]);
    shell.type_in("x=kept; echo se''t\r");
    shell.until("set\r\n");

    for round in 0..2 {
        server.kill();
        server.restart();
        // Keys that are pressed while nobody is there may be lost, so only what is shown counts.
        show(&server, &mut shell, &format!("back-{round}")).await;
        shell.type_in(&format!("echo $x-{round}\r"));
        let shown = shell.until(&format!("kept-{round}\r\n"));
        assert!(!shown.contains("set\r\n"), "what was shown is not shown again: {shown}");
    }
    server.stop();
    server.restart();
    show(&server, &mut shell, "again").await;
    shell.type_in("exit 4\r");
    assert_eq!(shell.end().0, Status::Exited(4));
}

#[tokio::test]
async fn a_shell_whose_sandbox_is_destroyed_says_so_and_makes_no_other() {
    let server = server();
    let mut shell = Terminal::run(&server, &["shell", "s"]);
    shell.type_in("echo he''re\r");
    shell.until("here\r\n");

    assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);

    let (status, said) = shell.end();
    assert_eq!(status, Status::Exited(125), "{said}");
    assert!(said.contains("lost terminal"), "{said}");
    assert_eq!(server.get("/v1/sandboxes/s").await.status, 404);
}

#[tokio::test]
async fn a_text_that_is_piped_in_is_typed() {
    let server = server();
    for (text, arguments, shown, code) in [
        ("echo $((6 * 7)); tty; exit 3\n", &["shell", "s"][..], &["42\r\n", "/dev/pts/"][..], 3),
        ("echo $((6 * 7))\n", &["shell", "s"], &["42\r\n"], 0),
        // Ctrl-Q is the terminal's own; what counts is that nothing is left behind here.
        ("\x10\x11typed\n", &["shell", "s", "--", "cat", "-v"], &["^Ptyped"], 0),
        ("", &["shell", "s", "--", "sh", "-c", "exit 9"], &[], 9),
        ("", &["shell", "s", "no-such-program"], &["no such program"], 127),
        ("", &["shell", "s", "kill -9 $$"], &["SIGKILL"], 137),
        ("", &["--json", "shell", "s"], &["USAGE"], 2),
    ] {
        let mut command = server.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap_or_default();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(code), "{text:?}: {said}");
        for shown in shown {
            assert!(said.contains(shown), "{text:?}: {said}");
        }
    }
}
