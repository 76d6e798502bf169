//! Failures for people and for programs, and the exit codes that go with them.
//!
//! ```text
//! 0 done │ 1 failed │ 2 wrong usage │ 128 + n ended by signal n
//! run, exec, shell: the command's own │ 125 Sandbar failed │ 126 cannot be started │ 127 no such program
//! ```

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use api::error::{ApiError, ErrorCode};
use client::ClientError;
use owo_colors::{OwoColorize as _, Stream};
use serde_json::{Value, json};

use crate::{output::escape_control, signals::Signal};

/// Exit code of a command that failed.
pub(crate) const FAILED: u8 = 1;

/// Exit code of a command that was asked for in a wrong way; clap uses the same.
pub(crate) const USAGE: u8 = 2;

/// Exit code of `run`, `exec` and `shell` when the command did not get to run, as docker has it.
pub(crate) const NOT_RUN: u8 = 125;

/// Exit code of `run` and `exec` when the program is there and cannot be started, as shells have it.
const NOT_STARTED: u8 = 126;

/// Exit code of `run` and `exec` when there is no such program, as shells have it.
const NO_PROGRAM: u8 = 127;

/// Ends a command for a reason that is not an error of the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// A signal asked for the end.
    #[error("ended by {0}")]
    Signaled(Signal),
    /// Whoever read stdout is gone (`| head`). Nothing is said, as other programs say nothing.
    #[error("nobody reads stdout")]
    StdoutClosed,
    /// The arguments do not fit together in a way that clap cannot see.
    #[error("{0}")]
    Usage(String),
    /// The reason has been printed already, as part of the result.
    #[error("failed")]
    Reported,
}

/// Prints why a command failed and gives the process's exit code; `failed` is the code of errors
/// that have none of their own.
pub(crate) fn report(error: &anyhow::Error, json: bool, failed: u8) -> ExitCode {
    let code = match error.downcast_ref::<Stop>() {
        Some(Stop::Signaled(signal)) => return ExitCode::from(signal.exit_code()),
        // 128 + SIGPIPE: what the shell shows for a program that the signal ended.
        Some(Stop::StdoutClosed) => return ExitCode::from(141),
        Some(Stop::Reported) => return ExitCode::from(failed),
        Some(Stop::Usage(_)) => USAGE,
        None if failed == NOT_RUN => not_run(error),
        None => failed,
    };
    let text = if json { wire(error).to_string() } else { sentence(error) };
    // With stderr gone there is nobody left to tell.
    drop(writeln!(io::stderr().lock(), "{text}"));
    ExitCode::from(code)
}

fn not_run(error: &anyhow::Error) -> u8 {
    let Some(error) = api_error(error) else { return NOT_RUN };
    match error.code {
        ErrorCode::CommandNotFound => NO_PROGRAM,
        ErrorCode::CommandExecutionError => NOT_STARTED,
        // The command ended the shell of its session, as `exit 3` does.
        ErrorCode::SessionTerminated => {
            let code = error.details.get("exitCode").and_then(Value::as_u64);
            code.and_then(|code| u8::try_from(code).ok()).unwrap_or(NOT_RUN)
        }
        _ => NOT_RUN,
    }
}

/// What was attempted, what went wrong, what to do: the chain of causes, outermost first.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = escape_control(&chain(error));
    if let Some(request) = api_error(error).and_then(|error| error.request_id.as_deref()) {
        text.push_str(" (request ");
        text.push_str(&escape_control(request));
        text.push(')');
    }
    let name = "sandbar:".if_supports_color(Stream::Stderr, |name| name.red()).to_string();
    format!("{name} {text}")
}

fn chain(error: &anyhow::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        texts.push(cause.to_string());
        if cause.is::<ClientError>() {
            // Between our sentence and the kernel's answer the HTTP library has several of its own.
            texts.push(error.root_cause().to_string());
            break;
        }
    }
    // A text that holds its cause already would say it twice.
    texts.dedup_by(|cause, text| text.ends_with(cause.as_str()));
    texts.join(": ")
}

fn api_error(error: &anyhow::Error) -> Option<&ApiError> {
    error.chain().find_map(|cause| match cause.downcast_ref::<ClientError>() {
        Some(ClientError::Api { error, .. }) => Some(error),
        _ => None,
    })
}

/// The form of the API's errors. Failures that never reached the server have codes of their own:
/// `SERVER_NOT_FOUND`, `SERVER_UNREACHABLE`, `TIMEOUT`, `PROTOCOL_ERROR`, `USAGE`, `CLI_ERROR`.
fn wire(error: &anyhow::Error) -> Value {
    if let Some(error) = api_error(error) {
        return json!({"error": error});
    }
    let client = error.chain().find_map(|cause| cause.downcast_ref::<ClientError>());
    let code = match client {
        Some(ClientError::Environment(_) | ClientError::Address(_)) => "SERVER_NOT_FOUND",
        Some(
            ClientError::Unreachable { .. }
            | ClientError::Transport { .. }
            | ClientError::Broken { .. }
            | ClientError::CutOff { .. },
        ) => "SERVER_UNREACHABLE",
        Some(ClientError::Timeout { .. }) => "TIMEOUT",
        Some(ClientError::Protocol { .. }) => "PROTOCOL_ERROR",
        _ if error.is::<Stop>() => "USAGE",
        _ => "CLI_ERROR",
    };
    json!({"error": {"code": code, "message": chain(error)}})
}

/// True for what a server that is being replaced says, or the lack of one.
pub(crate) fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Environment(_)
        | ClientError::Unreachable { .. }
        | ClientError::Transport { .. }
        | ClientError::Broken { .. } => true,
        ClientError::Api { error: ApiError { code, .. }, .. } => {
            matches!(code, ErrorCode::Starting | ErrorCode::ShuttingDown)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> anyhow::Error {
        let error = ApiError::new(ErrorCode::SandboxNotFound, "no sandbox is called x");
        let error = ApiError { request_id: Some("r1".to_owned()), ..error };
        anyhow::Error::new(ClientError::Api { status: 404, error }).context("could not inspect x")
    }

    #[test]
    fn a_command_that_ends_its_session_gives_its_code() {
        let error = ApiError::new(ErrorCode::SessionTerminated, "it exited").with("exitCode", 3);
        let error = anyhow::Error::new(ClientError::Api { status: 410, error });
        assert_eq!(not_run(&error), 3);
        assert_eq!(not_run(&refusal()), NOT_RUN);
    }

    #[test]
    fn an_error_of_the_server_keeps_its_form() {
        assert_eq!(
            wire(&refusal()),
            json!({"error": {"code": "SANDBOX_NOT_FOUND", "message": "no sandbox is called x",
                "requestId": "r1"}})
        );
        assert!(
            sentence(&refusal())
                .ends_with("could not inspect x: no sandbox is called x (request r1)"),
        );
    }

    #[test]
    fn an_error_of_the_cli_has_the_same_form() {
        let error = anyhow::Error::new(Stop::Usage("give an id".to_owned()));
        assert_eq!(wire(&error), json!({"error": {"code": "USAGE", "message": "give an id"}}));
        let error = anyhow::anyhow!("inner").context("outer");
        assert_eq!(wire(&error)["error"]["message"], "outer: inner");
    }

    #[test]
    fn escape_sequences_of_others_do_not_reach_the_terminal() {
        let error = anyhow::anyhow!("\u{1b}[2Jgone");
        assert!(sentence(&error).ends_with("\\u{1b}[2Jgone"));
    }

    #[test]
    fn exit_codes_follow_the_reason() {
        let code = |error: Stop| format!("{:?}", report(&error.into(), false, NOT_RUN));
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(Stop::Signaled(Signal::Interrupt)), expected(130));
        assert_eq!(code(Stop::Signaled(Signal::Terminate)), expected(143));
        assert_eq!(code(Stop::StdoutClosed), expected(141));
        assert_eq!(code(Stop::Reported), expected(125));
        assert_eq!(code(Stop::Usage("test of a usage error".to_owned())), expected(2));
    }
}
