//! Runs a program of the machine and follows its output line by line, until it ends or the caller
//! cancels.

use std::{
    io::{self, BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

/// Bytes of an output line that are passed on; the rest of the line is dropped.
const LINE_BYTES: u64 = 4096;

/// Lines that may wait for the follower. When it is behind, the program's writes block, as they
/// would on a terminal.
const WAITING_LINES: usize = 64;

/// How long a cancel may go unnoticed while the program is silent.
const CANCEL_LATENCY: Duration = Duration::from_millis(100);

/// Where the machine's own programs are looked for, whatever the daemon's environment says.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Tells a build to stop. Clones share one state; once set it stays set.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops the build at its next opportunity, at most a tenth of a second away.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the build is to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A command for a program of the machine, with an environment that holds a PATH and nothing else.
pub(crate) fn system_command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", SYSTEM_PATH);
    command
}

/// Runs `command` with its stdout and stderr as one stream of lines; `None` when cancelled.
///
/// Returns once nobody holds the output open any more. A cancel kills the process itself with
/// KILL; that its descendants die with it is the command's to arrange (`unshare --kill-child`).
pub(crate) fn follow(
    mut command: Command,
    cancel: &Cancel,
    line: &mut dyn FnMut(&str),
) -> io::Result<Option<ExitStatus>> {
    let (output, input) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
    let mut child = command.spawn()?;
    // The command holds the pipe's writing end; until it is gone the output would never end.
    drop(command);
    let (sender, lines) = mpsc::sync_channel(WAITING_LINES);
    let reader = thread::Builder::new()
        .name("image-output".to_owned())
        .spawn(move || read_lines(BufReader::new(output), &sender));
    let reader = match reader {
        Ok(reader) => reader,
        Err(error) => {
            end(&mut child)?;
            return Err(error);
        }
    };
    let ended = pass_on(&lines, cancel, line);
    if !ended {
        end(&mut child)?;
        // Lets a reader that waits to send see that nobody listens.
        drop(lines);
    }
    if reader.join().is_err() {
        return Err(io::Error::other("the thread that reads the output panicked"));
    }
    let status = child.wait()?;
    Ok(ended.then_some(status))
}

fn end(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

/// Passes lines on until they end (`true`) or the caller cancels (`false`).
fn pass_on(lines: &Receiver<String>, cancel: &Cancel, line: &mut dyn FnMut(&str)) -> bool {
    loop {
        if cancel.is_cancelled() {
            return false;
        }
        match lines.recv_timeout(CANCEL_LATENCY) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
}

/// Reads to the end even when nobody listens any more: the end is the proof that every process
/// that could write is gone.
fn read_lines(mut output: impl BufRead, lines: &SyncSender<String>) {
    let mut is_heard = true;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut limited = output.by_ref().take(LINE_BYTES);
        match limited.read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if bytes.last() != Some(&b'\n') && output.skip_until(b'\n').is_err() {
            return;
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        is_heard = is_heard && lines.send(text.to_owned()).is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = system_command("sh");
        command.args(["-c", script]);
        command
    }

    fn run(script: &str) -> (Option<ExitStatus>, Vec<String>) {
        let mut lines = Vec::new();
        let status =
            follow(shell(script), &Cancel::default(), &mut |line| lines.push(line.to_owned()));
        (status.unwrap(), lines)
    }

    #[test]
    fn both_streams_arrive_as_lines_and_the_status_is_the_program_s() {
        let (status, lines) = run("echo one; printf 'two\\r\\n' >&2; printf 'no end'; exit 3");

        assert_eq!(lines, ["one", "two", "no end"]);
        assert_eq!(status.unwrap().code(), Some(3));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let (_, lines) = run("head -c 10000 /dev/zero | tr '\\0' x; echo; echo next");

        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len() as u64, LINE_BYTES);
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_cancel_ends_a_program_that_says_nothing() {
        let cancel = Cancel::default();
        let canceller = cancel.clone();

        let status =
            follow(shell("echo up; exec sleep 1000"), &cancel, &mut |_| canceller.cancel());

        assert!(status.unwrap().is_none());
    }

    #[test]
    fn the_environment_of_a_system_command_holds_a_path_alone() {
        let mut lines = Vec::new();

        let mut command = system_command("env");
        command.arg("--unset=PWD");
        follow(command, &Cancel::default(), &mut |line| lines.push(line.to_owned())).unwrap();

        assert_eq!(lines, [format!("PATH={SYSTEM_PATH}")]);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let command = system_command("no-such-program-anywhere");

        let error = follow(command, &Cancel::default(), &mut |_| {}).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
