//! A request into a checked command: everything that can be refused before a process exists.

use std::{
    collections::BTreeMap, ffi::CString, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration,
};

use api::{
    error::{ApiError, ErrorCode},
    exec::{Command, Encoding},
    id::SessionId,
    limit::{COMMAND_BYTES, ENV_VAR_BYTES, ENV_VARS, EXEC_TIMEOUT_MS},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::Invocation;
use crate::{file, init::Agent};

/// Where programs are, as Debian's login has it for root.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What every command's environment begins with.
pub(crate) fn default_env() -> BTreeMap<String, String> {
    [("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// What a request says of a command, whichever route it came by.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) command: Command,
    pub(crate) cwd: Option<String>,
    pub(crate) env: BTreeMap<String, Option<String>>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) stdin: WishedStdin,
}

/// What a command is to read.
#[derive(Debug)]
pub(crate) enum WishedStdin {
    Null,
    Text(String, Encoding),
    File(OwnedFd),
    Open,
}

/// What a checked command reads.
#[derive(Debug)]
pub(crate) enum Stdin {
    /// Nothing: `/dev/null`.
    Null,
    /// These bytes, then the end.
    Content(Bytes),
    /// A file that is open for reading.
    File(OwnedFd),
    /// What is written to [`super::Process::stdin`].
    Open,
}

/// What a command starts in before its request changes it.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: String,
}

/// The surroundings that a session, when it is idle, or else the sandbox gives.
pub(crate) async fn surroundings(
    agent: &Arc<Agent>,
    session: Option<&SessionId>,
) -> Result<Surroundings, ApiError> {
    match session {
        Some(id) => crate::session::surroundings(agent, id).await,
        None => {
            Ok(Surroundings { env: BTreeMap::clone(&agent.env.now()), cwd: agent.workdir.clone() })
        }
    }
}

/// Checks a wish and looks up what it names.
pub(super) fn check(
    surroundings: &Surroundings,
    wish: Wish,
    place: OwnedSemaphorePermit,
) -> Result<Invocation, ApiError> {
    let argv = argv(wish.command)?;
    let env = environment(&surroundings.env, wish.env)?;
    let limit = wish.timeout_ms.map(limit).transpose()?;
    let stdin = match wish.stdin {
        WishedStdin::Null => Stdin::Null,
        WishedStdin::Text(text, encoding) => Stdin::Content(stdin(text, encoding)?),
        WishedStdin::File(file) => Stdin::File(file),
        WishedStdin::Open => Stdin::Open,
    };
    let cwd = file::open_directory(&surroundings.cwd, wish.cwd.as_deref().unwrap_or("."))?;
    let path = env.get("PATH").map(String::as_str);
    let programs = programs(argv.first().map_or("", String::as_str), path);
    Ok(Invocation {
        programs: programs.into_iter().map(c_string).collect::<Result<_, _>>()?,
        argv: argv.into_iter().map(c_string).collect::<Result<_, _>>()?,
        envp: env
            .into_iter()
            .map(|(name, value)| c_string(format!("{name}={value}")))
            .collect::<Result<_, _>>()?,
        cwd,
        stdin,
        limit,
        place,
    })
}

pub(crate) fn invalid_command(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidCommand, text)
}

pub(crate) fn invalid(field: &str, text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
}

pub(crate) fn c_string(text: String) -> Result<CString, ApiError> {
    CString::new(text).map_err(|_zero| invalid_command("a command holds no NUL byte"))
}

/// The arguments of a command, its program first, bounded and without NUL.
pub(crate) fn argv(command: Command) -> Result<Vec<String>, ApiError> {
    let argv = match command {
        Command::Shell(text) if text.trim().is_empty() => {
            return Err(invalid_command("the command is empty"));
        }
        // `--`, because a text may begin with a dash.
        Command::Shell(text) => vec![shell().to_owned(), "-c".to_owned(), "--".to_owned(), text],
        Command::Program(argv) => argv,
    };
    check_words(&argv)?;
    Ok(argv)
}

/// Refuses words that the kernel would not take as a command.
pub(crate) fn check_words(argv: &[String]) -> Result<(), ApiError> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(invalid_command("the command has no program"));
    }
    let bytes: usize = argv.iter().map(|argument| argument.len() + 1).sum();
    if bytes > COMMAND_BYTES {
        let text = format!(
            "the command has {bytes} bytes and may have {COMMAND_BYTES}; \
             put a longer text into a file or on stdin"
        );
        return Err(invalid_command(text).with("limit", COMMAND_BYTES));
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(invalid_command("a command holds no NUL byte"));
    }
    Ok(())
}

pub(crate) fn shell() -> &'static str {
    if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" }
}

/// `base` with the request's changes; null unsets.
pub(crate) fn environment(
    base: &BTreeMap<String, String>,
    changes: BTreeMap<String, Option<String>>,
) -> Result<BTreeMap<String, String>, ApiError> {
    if changes.len() > ENV_VARS {
        let text = format!("a request sets at most {ENV_VARS} variables");
        return Err(invalid("env", text).with("limit", ENV_VARS));
    }
    let mut env = base.clone();
    for (name, value) in changes {
        let field = format!("env.{name}");
        if name.is_empty() || name.contains(['=', '\0']) {
            let text = "the name of a variable is not empty and holds no '=' and no NUL";
            return Err(invalid(&field, text));
        }
        let bytes = name.len() + value.as_ref().map_or(0, String::len);
        if bytes > ENV_VAR_BYTES {
            let text = format!("a variable has at most {ENV_VAR_BYTES} bytes, name and value");
            return Err(invalid(&field, text).with("limit", ENV_VAR_BYTES));
        }
        match value {
            Some(value) if value.contains('\0') => {
                return Err(invalid(&field, "the value of a variable holds no NUL"));
            }
            Some(value) => drop(env.insert(name, value)),
            None => drop(env.remove(&name)),
        }
    }
    Ok(env)
}

pub(crate) fn limit(timeout_ms: u64) -> Result<Duration, ApiError> {
    if (1..=EXEC_TIMEOUT_MS).contains(&timeout_ms) {
        return Ok(Duration::from_millis(timeout_ms));
    }
    let text = format!("timeoutMs is from 1 to {EXEC_TIMEOUT_MS}");
    Err(invalid("timeoutMs", text).with("limit", EXEC_TIMEOUT_MS))
}

pub(crate) fn stdin(text: String, encoding: Encoding) -> Result<Bytes, ApiError> {
    match encoding {
        Encoding::Utf8 => Ok(text.into()),
        Encoding::Base64 => match BASE64_STANDARD.decode(text) {
            Ok(bytes) => Ok(bytes.into()),
            Err(fault) => Err(invalid("stdin", format!("stdin is not base64: {fault}"))),
        },
    }
}

/// Paths to try for a program, as execvp(3): a name with a slash is a path already; an empty
/// element of `PATH` is the working directory.
pub(crate) fn programs(program: &str, path: Option<&str>) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    path.unwrap_or(PATH)
        .split(':')
        .map(|dir| if dir.is_empty() { "." } else { dir.trim_end_matches('/') })
        .map(|dir| format!("{dir}/{program}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<impl Sized, ApiError>) -> Option<ErrorCode> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn commands_are_bounded_and_not_empty() {
        let shell = |text: &str| argv(Command::Shell(text.to_owned()));
        let program = |words: &[&str]| {
            argv(Command::Program(words.iter().map(|word| (*word).to_owned()).collect()))
        };
        for (result, expected) in [
            (shell("ls"), None),
            (shell(" \n"), Some(ErrorCode::InvalidCommand)),
            (shell("a\0b"), Some(ErrorCode::InvalidCommand)),
            (shell(&"x".repeat(COMMAND_BYTES)), Some(ErrorCode::InvalidCommand)),
            (shell(&"x".repeat(COMMAND_BYTES - 32)), None),
            (program(&["ls", ""]), None),
            (program(&[]), Some(ErrorCode::InvalidCommand)),
            (program(&["", "x"]), Some(ErrorCode::InvalidCommand)),
            (program(&["x", "\0"]), Some(ErrorCode::InvalidCommand)),
        ] {
            assert_eq!(code(result), expected);
        }
    }

    #[test]
    fn variables_are_set_unset_and_bounded() {
        let base = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".into())]);
        let change = |name: &str, value: Option<&str>| {
            let changes = BTreeMap::from([(name.to_owned(), value.map(str::to_owned))]);
            environment(&base, changes)
        };
        assert_eq!(change("A", Some("x")).unwrap()["A"], "x");
        assert!(!change("A", None).unwrap().contains_key("A"));
        assert_eq!(change("C", Some("")).unwrap().len(), 3);
        let long = "x".repeat(ENV_VAR_BYTES);
        for (name, value) in [("", ""), ("A=B", ""), ("A\0", ""), ("A", "\0"), ("A", &*long)] {
            let refused = code(change(name, Some(value)));
            assert_eq!(refused, Some(ErrorCode::ValidationFailed), "{name:?}");
        }
        let many = (0..=ENV_VARS).map(|number| (format!("V{number}"), None)).collect();
        assert_eq!(code(environment(&base, many)), Some(ErrorCode::ValidationFailed));
    }

    #[test]
    fn programs_are_looked_for_as_execvp_does() {
        assert_eq!(programs("ls", Some("/a:/b/::/")), ["/a/ls", "/b/ls", "./ls", "/ls"]);
        assert_eq!(programs("./ls", Some("/a")), ["./ls"]);
        assert_eq!(programs("ls", None).len(), 6);
    }

    #[test]
    fn timeouts_and_stdin_are_checked() {
        assert_eq!(limit(1).unwrap(), Duration::from_millis(1));
        assert!(limit(0).is_err());
        assert!(limit(EXEC_TIMEOUT_MS).is_ok());
        assert!(limit(EXEC_TIMEOUT_MS + 1).is_err());
        assert_eq!(stdin("/w==".to_owned(), Encoding::Base64).unwrap().as_ref(), b"\xff");
        assert!(stdin("x".to_owned(), Encoding::Base64).is_err());
        assert_eq!(stdin("x".to_owned(), Encoding::Utf8).unwrap().as_ref(), b"x");
    }
}
