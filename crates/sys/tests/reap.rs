//! Waiting for any child takes the children of every test of a process, so this one has a process
//! of its own.

use std::process::{Command, Stdio};

use sys::wait::{self, Status};

#[test]
#[expect(clippy::zombie_processes, reason = "waiting for it is what is tested")]
fn only_children_that_have_ended_are_reaped() {
    assert_eq!(wait::any(), Ok(None));

    let mut child =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    assert_eq!(wait::any(), Ok(None));

    let pid = i32::try_from(child.id()).unwrap();
    let pidfd = sys::pidfd::open(pid).unwrap();
    drop(child.stdin.take());
    assert!(sys::poll::wait_readable(std::os::fd::AsFd::as_fd(&pidfd), -1).unwrap());
    let ended = wait::any().unwrap().unwrap();
    assert_eq!((ended.pid, ended.status), (pid, Status::Exited(0)));
    assert_eq!(wait::any(), Ok(None));
    assert_eq!(wait::child(pid).unwrap_err().errno, sys::errno::ECHILD);
}
