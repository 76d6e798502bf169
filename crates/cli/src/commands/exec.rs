//! `sandbar exec`: a command in a sandbox, live. Also what `run` shares with it.

use std::{collections::BTreeMap, io, process::ExitCode, time::Duration};

use anyhow::Context as _;
use api::{
    exec::{Command, Encoding, Ending, ExecEvent, ExecRequest, ExecResult, Refused},
    id::{SandboxId, SessionId},
};
use clap::Args;
use client::{Client, decode_output, encode_stdin};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    failure::Stop,
    output::{Output, escape_control, note, print_json, written},
    signals::Signals,
    units::parse_duration,
};

/// Bytes of stdin that go with a command. They travel in the request, whose limit is 8 MiB, in
/// base64 beside the command and its environment.
const STDIN_BYTES: usize = 5 * 1024 * 1024;

/// Arguments of `sandbar exec`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox; it is created when it does not exist.
    pub(crate) id: SandboxId,
    /// Run in this session, which keeps directory, variables, functions and options for its next
    /// command; it is made when it does not exist.
    #[arg(short, long, value_name = "SESSION")]
    pub(crate) session: Option<SessionId>,
    #[command(flatten)]
    pub(crate) exec: ExecArguments,
}

/// What `exec` and `run` say about the command.
#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    /// Give the command this program's stdin (up to 5 MiB, read to its end first).
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Set a variable for the command; NAME alone takes its value from here.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse_variable)]
    pub(crate) env: Vec<(String, Option<String>)>,
    /// Directory to run in; a relative path begins at the session's, or at /workspace.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Kill the command after this time (30s, 5m).
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Program and arguments; one argument with spaces is a text for the shell. With `run`, one that
    /// names a script here (.py, .js, .ts, .sh) is run by the code interpreter.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

pub(crate) fn parse_variable(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(format!("{text:?} has no name; write NAME=VALUE"));
    }
    Ok((name.to_owned(), value))
}

/// Runs the command in the sandbox and ends as it ended.
pub(crate) async fn run(
    arguments: Arguments,
    out: Output,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let work = async {
        let request = ExecRequest { session: arguments.session, ..arguments.exec.request().await? };
        follow(&client, &arguments.id, &request, out).await
    };
    signals.unless(work).await?
}

impl ExecArguments {
    /// The request, with stdin read to its end if it is wanted.
    pub(crate) async fn request(&self) -> anyhow::Result<ExecRequest> {
        let stdin = if self.interactive { Some(encode_stdin(&read_stdin().await?)) } else { None };
        let timeout_ms = self.timeout.map(|limit| u64::try_from(limit.as_millis()));
        Ok(ExecRequest {
            cwd: self.workdir.clone(),
            env: environment(&self.env)?,
            timeout_ms: timeout_ms.transpose().context("the timeout is too long")?,
            stdin,
            encoding: Encoding::Base64,
            ..ExecRequest::new(command(&self.command))
        })
    }
}

/// A single argument with white space in it can only be meant for a shell.
pub(crate) fn command(arguments: &[String]) -> Command {
    match arguments {
        [text] if text.contains(char::is_whitespace) => Command::Shell(text.clone()),
        _ => Command::Program(arguments.to_vec()),
    }
}

pub(crate) fn environment(
    given: &[(String, Option<String>)],
) -> anyhow::Result<BTreeMap<String, Option<String>>> {
    let mut variables = BTreeMap::new();
    for (name, value) in given {
        let value = match value {
            Some(value) => value.clone(),
            None => std::env::var(name)
                .map_err(|fault| Stop::Usage(format!("cannot pass {name} on: {fault}")))?,
        };
        variables.insert(name.clone(), Some(value));
    }
    Ok(variables)
}

async fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(STDIN_BYTES + 1).unwrap_or(u64::MAX);
    tokio::io::stdin().take(limit).read_to_end(&mut bytes).await.context("could not read stdin")?;
    if bytes.len() > STDIN_BYTES {
        return Err(Stop::Usage(format!(
            "stdin is over {STDIN_BYTES} bytes; copy it into the sandbox with `sandbar cp` and \
             let the command read the file"
        ))
        .into());
    }
    Ok(bytes)
}

/// Runs the command, shows what it writes as it writes it, explains an unusual end.
///
/// Dropping the future closes the connection, which ends the command in the sandbox.
pub(crate) async fn follow(
    client: &Client,
    id: &SandboxId,
    request: &ExecRequest,
    out: Output,
) -> anyhow::Result<ExitCode> {
    let Outcome { ending, is_reset, refused } = if out.json {
        // A JSON text cannot hold all bytes; people who need them read a file, or leave --json.
        let stdin = request.stdin.as_deref();
        let request = match stdin {
            None => ExecRequest { encoding: Encoding::Utf8, ..request.clone() },
            Some(_) => request.clone(),
        };
        buffered(client, id, &request).await?
    } else {
        live(client, id, request).await?
    };
    if let Some(explanation) = explain(ending, request.timeout_ms) {
        note(out, explanation);
    }
    if is_reset {
        note(out, "the session's shell had to be killed too; what it kept is lost");
    }
    if let Some(refused) = refused {
        note(out, explain_refused(&refused));
    }
    Ok(ExitCode::from(exit_code(ending)))
}

/// How a command ended, and what is to be said about it.
struct Outcome {
    ending: Ending,
    /// Its session's shell had to be killed too.
    is_reset: bool,
    refused: Option<Refused>,
}

async fn buffered(
    client: &Client,
    id: &SandboxId,
    request: &ExecRequest,
) -> anyhow::Result<Outcome> {
    let mut result = client.exec(id, request).await?;
    if request.encoding == Encoding::Base64 {
        for text in [&mut result.stdout, &mut result.stderr] {
            *text = String::from_utf8_lossy(&decode_output(text, Encoding::Base64)?).into_owned();
        }
    }
    print_json(&result)?;
    let ExecResult { ending, session_reset: is_reset, refused, .. } = result;
    Ok(Outcome { ending, is_reset, refused })
}

async fn live(client: &Client, id: &SandboxId, request: &ExecRequest) -> anyhow::Result<Outcome> {
    let mut events = client.exec_stream(id, request).await?;
    // Asynchronous, so that a reader who is slow does not keep signals from being seen.
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    while let Some(event) = events.next().await {
        match event? {
            // A streamed exec waits for its reader: nothing of it is dropped.
            ExecEvent::Start { .. } | ExecEvent::Dropped { .. } => {}
            ExecEvent::Stdout { data, .. } => {
                let bytes = decode_output(&data, request.encoding)?;
                written(write(&mut stdout, &bytes).await)?;
            }
            ExecEvent::Stderr { data, .. } => {
                let bytes = decode_output(&data, request.encoding)?;
                // Without a stderr the command's result still counts.
                drop(write(&mut stderr, &bytes).await);
            }
            ExecEvent::Exit { ending, session_reset: is_reset, refused, .. } => {
                return Ok(Outcome { ending, is_reset, refused });
            }
        }
    }
    // The stream fails before it ends without its final event.
    Ok(Outcome { ending: Ending::Lost, is_reset: false, refused: None })
}

pub(crate) async fn write(target: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    target.write_all(bytes).await?;
    target.flush().await
}

/// What the network policy refused, in one line.
pub(super) fn explain_refused(refused: &Refused) -> String {
    let Refused { connections, destinations, names } = refused;
    let mut what = Vec::new();
    if *connections > 0 {
        let kind = if *connections == 1 { "connection" } else { "connections" };
        let to = if destinations.is_empty() { "" } else { ", to " };
        let meanwhile = "of the sandbox meanwhile";
        what.push(format!("{connections} {kind} {meanwhile}{to}{}", destinations.join(", ")));
    }
    if !names.is_empty() {
        what.push(format!("to look up {}", names.join(", ")));
    }
    escape_control(&format!("the network policy refused {}", what.join(", and ")))
}

/// The code for the shell. What does not fit into a byte was no success.
pub(crate) fn exit_code(ending: Ending) -> u8 {
    u8::try_from(ending.exit_code()).unwrap_or(1)
}

/// One line about an end that is not a plain return: what happened and what to do.
pub(crate) fn explain(ending: Ending, timeout_ms: Option<u64>) -> Option<String> {
    Some(match ending {
        Ending::Exited { .. } => return None,
        Ending::Signaled { signal } => {
            format!("the command was ended by signal {signal}{}", signal_name(signal))
        }
        Ending::Timeout => match timeout_ms {
            Some(limit) => {
                let limit = humantime::format_duration(Duration::from_millis(limit));
                format!("the command was killed because its time of {limit} was over")
            }
            None => "the command was killed because its time was over".to_owned(),
        },
        Ending::OutOfMemory => "the command was killed because the sandbox's memory was used up; \
            create the sandbox with more memory (run --memory)"
            .to_owned(),
        Ending::PidsLimit => "the command failed because the sandbox had no process ids left; \
            create the sandbox with more (run --pids)"
            .to_owned(),
        Ending::DiskFull => "the command failed because the sandbox's disk was full".to_owned(),
        Ending::Killed { .. } => "the command was killed on request".to_owned(),
        Ending::Lost => {
            "the sandbox ended under the command; what it did until then is unknown".to_owned()
        }
    })
}

/// Names of the signals that end programs by accident, signal(7).
pub(crate) fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn one_argument_with_spaces_is_a_shell_text() {
        assert_eq!(command(&words(&["ls -l | wc"])), Command::Shell("ls -l | wc".to_owned()));
        for program in [&["ls"][..], &["echo", "a b"]] {
            assert_eq!(command(&words(program)), Command::Program(words(program)));
        }
    }

    #[test]
    fn variables_have_a_name_and_perhaps_a_value() {
        let some = |value: &str| Some(value.to_owned());
        assert_eq!(parse_variable("A=b=c"), Ok(("A".to_owned(), some("b=c"))));
        assert_eq!(parse_variable("A="), Ok(("A".to_owned(), some(""))));
        assert_eq!(parse_variable("A"), Ok(("A".to_owned(), None)));
        assert!(parse_variable("=b").is_err());
        let missing = [("SANDBAR_TEST_NEVER_SET".to_owned(), None)];
        let error = environment(&missing).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Stop::Usage(_))));
    }

    #[test]
    fn the_exit_code_is_the_commands() {
        for (ending, code) in [
            (Ending::Exited { code: 0 }, 0),
            (Ending::Exited { code: 255 }, 255),
            (Ending::Exited { code: -1 }, 1),
            (Ending::Signaled { signal: 11 }, 139),
            (Ending::Timeout, 124),
            (Ending::OutOfMemory, 137),
            (Ending::PidsLimit, 1),
        ] {
            assert_eq!(exit_code(ending), code, "{ending:?}");
        }
    }

    #[test]
    fn only_a_plain_return_needs_no_words() {
        assert_eq!(explain(Ending::Exited { code: 3 }, None), None);
        for (ending, word) in [
            (Ending::Signaled { signal: 11 }, "SIGSEGV"),
            (Ending::Timeout, "5s"),
            (Ending::OutOfMemory, "--memory"),
            (Ending::PidsLimit, "--pids"),
            (Ending::DiskFull, "disk"),
            (Ending::Killed { signal: 9 }, "request"),
            (Ending::Lost, "unknown"),
        ] {
            let text = explain(ending, Some(5000)).unwrap();
            assert!(text.contains(word) && !text.contains('\n'), "{text}");
        }
    }
}
