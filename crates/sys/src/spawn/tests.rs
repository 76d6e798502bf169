//! Programs started on the real kernel.

use std::{
    fs::File,
    io::{PipeReader, Read},
};

use super::*;
use crate::{credentials, wait};

fn words(words: &[&str]) -> Vec<CString> {
    words.iter().map(|word| CString::new(*word).unwrap()).collect()
}

/// Runs a program to its end; its report, stdout and status.
fn run(programs: &[&str], argv: &[&str]) -> (Option<Failure>, String, wait::Status) {
    credentials::set_no_new_privileges().unwrap();
    let null = File::open("/dev/null").unwrap();
    let root = File::open("/").unwrap();
    let (mut stdout, writer) = std::io::pipe().unwrap();
    let spawned = spawn(&Spawn {
        programs: &words(programs),
        argv: &words(argv),
        envp: &words(&["A=b"]),
        cwd: root.as_fd(),
        stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
        private: None,
        has_terminal: false,
        cgroup: None,
        tasks: &[],
    })
    .unwrap();
    drop(writer);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    let mut report = Vec::new();
    PipeReader::from(spawned.report).read_to_end(&mut report).unwrap();
    let failure = <[u8; REPORT_BYTES]>::try_from(report).ok().and_then(Failure::from_bytes);
    let ended = wait::child(spawned.pid).unwrap();
    (failure, text, ended.status)
}

#[test]
fn a_program_gets_what_was_planned_and_nothing_else() {
    let script = "echo $A; pwd; ls /proc/self/fd; grep -E 'SigIgn|SigBlk' /proc/self/status";
    let (failure, text, status) = run(&["/nowhere/sh", "/bin/sh"], &["sh", "-c", script]);

    assert_eq!(failure, None);
    assert_eq!(
        text, "b\n/\n0\n1\n2\n3\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n",
        "descriptor 3 is ls's own"
    );
    assert_eq!(status, wait::Status::Exited(0));
}

#[test]
fn clone3_is_hidden_and_programs_start_threads_all_the_same() {
    let script = "import ctypes,threading\n\
        l=ctypes.CDLL(None,use_errno=True)\n\
        print(l.syscall(435,0,0),ctypes.get_errno())\n\
        t=threading.Thread(target=print,args=('thread',));t.start();t.join()";
    let (failure, text, _) = run(&["/usr/bin/python3"], &["python3", "-c", script]);

    assert_eq!((failure, &*text), (None, "-1 38\nthread\n"));
}

#[test]
fn a_program_that_cannot_run_is_reported_with_the_step() {
    for (programs, errno) in [
        (&["/nowhere"][..], libc::ENOENT),
        (&["/etc/passwd", "/nowhere"], libc::EACCES),
        (&["/etc"], libc::EACCES),
    ] {
        let (failure, _, status) = run(programs, &["x"]);
        assert_eq!(failure, Some(Failure { step: Step::Exec, errno }), "{programs:?}");
        assert_eq!(status, wait::Status::Exited(FAILED_CODE));
    }
}

#[test]
fn a_private_descriptor_is_the_program_s_third() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    let root = File::open("/").unwrap();
    let spawned = spawn(&Spawn {
        programs: &words(&["/bin/sh"]),
        argv: &words(&["sh", "-c", "ls /proc/self/fd >&3"]),
        envp: &[],
        cwd: root.as_fd(),
        stdio: [null.as_fd(); 3],
        private: Some(writer.as_fd()),
        has_terminal: false,
        cgroup: None,
        tasks: &[],
    })
    .unwrap();
    drop(writer);
    wait::child(spawned.pid).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    // The fourth is what `ls` reads.
    assert_eq!(text, "0\n1\n2\n3\n4\n");
}

#[test]
fn a_cgroup_that_is_none_is_refused() {
    let null = File::open("/dev/null").unwrap();
    let root = File::open("/").unwrap();
    let error = spawn(&Spawn {
        programs: &words(&["/bin/true"]),
        argv: &words(&["true"]),
        envp: &[],
        cwd: root.as_fd(),
        stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
        private: None,
        has_terminal: false,
        cgroup: Some(root.as_fd()),
        tasks: &[],
    })
    .unwrap_err();

    assert_eq!(error, SysError { call: "clone3", errno: libc::EBADF });
}

#[test]
fn a_terminal_controls_the_program_s_session() {
    let how = file::How::new(file::O_RDWR | file::O_NOCTTY);
    let master = file::open(file::cwd(), c"/dev/ptmx", how).unwrap();
    pty::unlock(master.as_fd()).unwrap();
    pty::resize(master.as_fd(), 123, 45).unwrap();
    let terminal = pty::open_terminal(master.as_fd()).unwrap();
    let root = File::open("/").unwrap();
    let start = |script: &str| {
        spawn(&Spawn {
            programs: &words(&["/bin/sh"]),
            argv: &words(&["sh", "-c", script]),
            envp: &[],
            cwd: root.as_fd(),
            stdio: [terminal.as_fd(); 3],
            private: None,
            has_terminal: true,
            cgroup: None,
            tasks: &[],
        })
        .unwrap()
    };

    let mut master = File::from(master);
    let spawned = start("stty size </dev/tty; exec /bin/cat");
    // The line and its end may come one after the other.
    let mut text = [0; 8];
    master.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"45 123\r\n");
    // What the terminal's Ctrl-C reaches is its session's foreground.
    std::io::Write::write_all(&mut master, b"\x03").unwrap();
    assert_eq!(wait::child(spawned.pid).unwrap().status, wait::Status::Signaled(libc::SIGINT));

    // Without a terminal there is nothing to control.
    let null = File::open("/dev/null").unwrap();
    let spawned = spawn(&Spawn {
        programs: &words(&["/bin/true"]),
        argv: &words(&["true"]),
        envp: &[],
        cwd: root.as_fd(),
        stdio: [null.as_fd(); 3],
        private: None,
        has_terminal: true,
        cgroup: None,
        tasks: &[],
    })
    .unwrap();
    let mut report = [0; REPORT_BYTES];
    PipeReader::from(spawned.report).read_exact(&mut report).unwrap();
    let failure = Failure { step: Step::Terminal, errno: libc::ENOTTY };
    assert_eq!(Failure::from_bytes(report), Some(failure));
    wait::child(spawned.pid).unwrap();
}
