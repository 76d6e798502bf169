//! Code that runs in a context, shown as it runs: what `run FILE` and `repl` share.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use api::{
    id::{ContextId, SandboxId},
    interpreter::{CodeError, CodeErrorKind, Language, RunCode, RunEvent, RunOutput},
};
use client::Client;
use futures_util::StreamExt as _;

use super::exec::{ExecArguments, environment, explain_refused, write};
use crate::{
    failure::Stop,
    output::{Output, escape_control, note, print_json, written},
};

/// What a shell gives for a command whose time was over, and for one that a signal ended.
const TIMEOUT_CODE: u8 = 124;
const KILLED_CODE: u8 = 137;

/// The script that a command line means: one word that names a file here, of a language that runs in
/// a context.
pub(crate) fn script(words: &[String]) -> Option<(Language, PathBuf)> {
    let [word] = words else { return None };
    let path = Path::new(word);
    let language = match path.extension()?.to_str()? {
        "py" => Language::Python,
        "js" | "mjs" | "cjs" => Language::JavaScript,
        "ts" | "mts" => Language::TypeScript,
        "sh" | "bash" => Language::Bash,
        _ => return None,
    };
    path.is_file().then(|| (language, path.to_owned()))
}

/// The request to run a script.
pub(crate) fn request(
    (language, path): &(Language, PathBuf),
    arguments: &ExecArguments,
) -> anyhow::Result<RunCode> {
    for (is_given, option) in
        [(arguments.interactive, "--interactive"), (arguments.workdir.is_some(), "--workdir")]
    {
        if is_given {
            let text = format!(
                "{option} is not for a script, which runs in the code interpreter; copy it into \
                 the sandbox and run it as a command"
            );
            return Err(Stop::Usage(text).into());
        }
    }
    let code = std::fs::read_to_string(path)
        .with_context(|| format!("could not read {}", path.display()))?;
    let timeout_ms = arguments.timeout.map(|limit| u64::try_from(limit.as_millis()));
    // A script may take its time, as a command may.
    let timeout_ms = timeout_ms.transpose().context("the timeout is too long")?;
    Ok(RunCode {
        language: Some(*language),
        env: environment(&arguments.env)?,
        timeout_ms: Some(timeout_ms.unwrap_or(api::limit::EXEC_TIMEOUT_MS)),
        ..RunCode::new(code)
    })
}

/// Runs code and shows what it shows, as it does.
///
/// Dropping the future interrupts the code.
pub(crate) async fn follow(
    client: &Client,
    id: &SandboxId,
    context: Option<&ContextId>,
    request: &RunCode,
    out: Output,
) -> anyhow::Result<ExitCode> {
    if out.json {
        let result = client.run_code(id, context, request).await?;
        print_json(&result)?;
        if let Some(refused) = &result.refused {
            note(out, explain_refused(refused));
        }
        return Ok(exit_code(result.error.as_ref()));
    }
    let mut events = client.run_code_stream(id, context, request).await?;
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut failed = None;
    while let Some(event) = events.next().await {
        match event? {
            RunEvent::Stdout { data, .. } => {
                written(write(&mut stdout, data.as_bytes()).await)?;
            }
            RunEvent::Stderr { data, .. } => {
                // Without a stderr the result still counts.
                drop(write(&mut stderr, data.as_bytes()).await);
            }
            RunEvent::Result(output) => {
                written(write(&mut stdout, shown(&output).as_bytes()).await)?;
            }
            RunEvent::Error(error) => {
                drop(write(&mut stderr, told(&error).as_bytes()).await);
                failed = Some(error);
            }
            RunEvent::End { context_reset, refused, .. } => {
                if context_reset {
                    note(out, "the interpreter ended with this; what it kept is lost");
                }
                if let Some(refused) = refused {
                    note(out, explain_refused(&refused));
                }
            }
            RunEvent::Start { .. } | RunEvent::Clear { .. } | RunEvent::Dropped { .. } => {}
        }
    }
    Ok(exit_code(failed.as_ref()))
}

/// An output as text; what has none is named.
fn shown(output: &RunOutput) -> String {
    let text = output.text.as_ref().or(output.markdown.as_ref()).or(output.latex.as_ref());
    let mut lines = text.map_or_else(String::new, |text| format!("{}\n", escape_control(text)));
    for (name, picture) in
        [("image/png", &output.png), ("image/jpeg", &output.jpeg), ("image/svg+xml", &output.svg)]
    {
        if let Some(picture) = picture {
            let bytes = if name == "image/svg+xml" { picture.len() } else { picture.len() / 4 * 3 };
            lines += &format!("[{name}, {bytes} bytes; --json has it]\n");
        }
    }
    if lines.is_empty() && output.html.is_some() {
        lines += "[text/html; --json has it]\n";
    }
    lines
}

/// An error as its language shows it.
fn told(error: &CodeError) -> String {
    let mut text = error.traceback.join("\n");
    let last = format!("{}: {}", error.name, error.value);
    if !text.contains(&error.name) || error.kind != CodeErrorKind::Exception {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &last;
    }
    // Colours of a traceback were asked for.
    format!("{}\n", text.trim_end_matches('\n'))
}

fn exit_code(error: Option<&CodeError>) -> ExitCode {
    let Some(error) = error else { return ExitCode::SUCCESS };
    let of_ending = error.ending.map(super::exec::exit_code);
    ExitCode::from(match error.kind {
        CodeErrorKind::Timeout => TIMEOUT_CODE,
        CodeErrorKind::OutOfMemory => KILLED_CODE,
        // Python's way to end a script with a code of its own.
        CodeErrorKind::Exception if error.name == "SystemExit" => system_exit(&error.value),
        _ => of_ending.filter(|code| *code != 0).unwrap_or(1),
    })
}

/// `sys.exit()` and `sys.exit(0)` are success, a number is the code, a text is a failure.
fn system_exit(value: &str) -> u8 {
    match value {
        "" | "None" => 0,
        value => value.parse::<i64>().ok().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_script() {
        let error = |kind, name: &str, value: &str| CodeError {
            kind,
            name: name.to_owned(),
            value: value.to_owned(),
            ..CodeError::default()
        };
        let code = |error: &CodeError| format!("{:?}", exit_code(Some(error)));
        for (kind, name, value, expected) in [
            (CodeErrorKind::Exception, "ValueError", "x", 1),
            (CodeErrorKind::Exception, "SystemExit", "3", 3),
            (CodeErrorKind::Exception, "SystemExit", "0", 0),
            (CodeErrorKind::Exception, "SystemExit", "None", 0),
            (CodeErrorKind::Exception, "SystemExit", "text", 1),
            (CodeErrorKind::Timeout, "TimeoutError", "", 124),
            (CodeErrorKind::OutOfMemory, "OutOfMemory", "", 137),
        ] {
            let expected = format!("{:?}", ExitCode::from(expected));
            assert_eq!(code(&error(kind, name, value)), expected, "{name} {value}");
        }
    }

    #[test]
    fn only_a_file_of_a_known_language_is_a_script() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.py");
        let word = path.to_str().unwrap().to_owned();
        assert_eq!(script(std::slice::from_ref(&word)), None, "it is not there");
        std::fs::write(&path, "1").unwrap();
        assert_eq!(script(std::slice::from_ref(&word)), Some((Language::Python, path)));
        assert_eq!(script(&[word.clone(), "x".to_owned()]), None);
        assert_eq!(script(&["ls".to_owned()]), None);
    }
}
