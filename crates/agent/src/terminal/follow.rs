//! Follows one terminal: takes its output, sees its program's end, ends it on request.

use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

use api::{
    exec::Ending,
    limit::{ENDED_TERMINAL_SECS, TERMINAL_OUTPUT_BYTES},
};
use bytes::Bytes;
use sys::{
    signal::{self, SIGCONT, SIGHUP, SIGKILL},
    wait::{Ended, Status},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};

use super::{
    pty::Pty,
    state::{End, Terminal},
};
use crate::{
    init::Agent,
    process::{Child, Tree, log::now_ms, read_report},
};

/// How long a program may take to end after it was told that its terminal is going: shells pass it
/// on, editors save.
const HANG_UP_GRACE: Duration = Duration::from_secs(1);

/// How long a killed program may take to end before it counts as lost: only one stuck in the kernel
/// takes any.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// Bytes taken that were in a terminal when its program ended; the kernel has room for fewer.
const LEFT_BYTES: u64 = TERMINAL_OUTPUT_BYTES as u64 / 4;

/// How long an ended terminal is remembered.
const REMEMBERED: Duration = Duration::from_secs(ENDED_TERMINAL_SECS);

/// Follows a terminal from its child's birth until it is forgotten.
pub(super) async fn follow(agent: Arc<Agent>, terminal: Arc<Terminal>, child: Child) {
    let Child { tree, report, mut exit } = child;
    let Some(pty) = terminal.pty() else { return };
    if let Some(failure) = read_report(&mut Some(report)).await {
        drop(exit.await);
        tree.cgroup.iter().for_each(|cgroup| drop(agent.forest.fell(cgroup)));
        agent.terminals.remove(&terminal);
        terminal.fail(failure);
        return;
    }
    terminal.run();
    let (is_killed, ended) = pump(&terminal, &pty, &tree, &mut exit).await;
    // What others that still have the terminal write from now on is refused by the kernel, which hung
    // it up with its session's leader.
    terminal.show(&pty.rest(LEFT_BYTES).unwrap_or_default());
    if is_killed {
        tree.kill_rest();
    }
    tree.cgroup.iter().for_each(|cgroup| drop(agent.forest.fell(cgroup)));
    drop(pty);
    terminal.end(end(is_killed, ended.map(|ended| ended.status)));
    if agent.terminals.holds(&terminal) {
        tokio::select! {
            () = sleep(REMEMBERED) => drop(agent.terminals.remove(&terminal)),
            () = terminal.asked_to_go() => {}
        }
    }
}

/// What was done to end the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    None,
    HungUp,
    Killed,
}

/// Takes output until the program has ended. Returns whether it was made to, and how it did.
async fn pump(
    terminal: &Terminal,
    pty: &Pty,
    tree: &Tree,
    exit: &mut oneshot::Receiver<Ended>,
) -> (bool, Option<Ended>) {
    let mut effort = Effort::None;
    let mut deadline = Instant::now();
    let mut is_readable = true;
    loop {
        let wait = terminal.wait();
        tokio::select! {
            // The reaper keeps the other half until the child has ended.
            ended = &mut *exit => return (effort != Effort::None, ended.ok()),
            () = terminal.asked_to_go(), if effort == Effort::None => {
                hang_up(tree);
                effort = Effort::HungUp;
                deadline = Instant::now() + HANG_UP_GRACE;
            }
            () = sleep_until(deadline), if effort != Effort::None => {
                if effort == Effort::Killed {
                    return (true, None);
                }
                tree.kill();
                effort = Effort::Killed;
                deadline = Instant::now() + KILL_WAIT;
            }
            read = pty.read(), if is_readable && wait.is_none() => {
                is_readable = take(terminal, read);
            }
            () = terminal.wait_for_viewers(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

/// Keeps what was read; false when nothing more can be.
fn take(terminal: &Terminal, read: io::Result<Bytes>) -> bool {
    match read {
        Ok(bytes) if !bytes.is_empty() => {
            terminal.show(&bytes);
            true
        }
        Ok(_) | Err(_) => false,
    }
}

/// As the kernel does when a line is gone; continued, because a stopped program hears nothing.
fn hang_up(tree: &Tree) {
    for signal in [SIGHUP, SIGCONT] {
        // An error means that it has ended.
        signal::send(tree.pidfd.as_fd(), signal).unwrap_or(());
    }
}

fn end(is_killed: bool, status: Option<Status>) -> End {
    let ending = match (is_killed, status) {
        (true, Some(Status::Signaled(signal))) => Ending::Killed { signal },
        // It was hung up first, and ended by itself.
        (true, Some(Status::Exited(_))) => Ending::Killed { signal: SIGHUP },
        (true, None) => Ending::Killed { signal: SIGKILL },
        (false, Some(Status::Exited(code))) => Ending::Exited { code },
        (false, Some(Status::Signaled(signal))) => Ending::Signaled { signal },
        (false, None) => Ending::Lost,
    };
    let signal = match status {
        Some(Status::Signaled(signal)) => Some(signal),
        _ => None,
    };
    End { ending, signal, at_ms: now_ms() }
}
