//! `sandbar repl`: a language line by line, in a context that keeps what was said.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use api::{
    id::{ContextId, ImageRef, SandboxId},
    interpreter::{CreateContext, Language, RunCode},
    limit::EXEC_TIMEOUT_MS,
    sandbox::CreateSandbox,
};
use clap::Args;
use client::{Client, ClientError};
use tokio::sync::mpsc;

use super::{
    code::follow,
    run::{create, generate_id},
};
use crate::{
    failure::Stop,
    output::{Output, note},
    signals::{Signal, Signals},
};

/// Lines read ahead of the one that runs: a pasted page.
const LINES_AHEAD: usize = 1024;

/// Arguments of `sandbar repl`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to speak: python, javascript, typescript or bash.
    language: Language,
    /// The sandbox; a fresh one that is destroyed at the end, unless given.
    id: Option<SandboxId>,
    /// Image of a fresh sandbox; the server's default unless given.
    #[arg(long, conflicts_with = "id")]
    image: Option<ImageRef>,
}

/// Reads, runs and shows until the end of its input.
pub(crate) async fn run(
    arguments: Arguments,
    out: Output,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let (mut id, is_fresh) = match arguments.id {
        Some(id) => (id, false),
        None => (generate_id("")?, true),
    };
    if is_fresh {
        let image = arguments.image;
        create(&client, &mut id, CreateSandbox { image, ..CreateSandbox::default() }).await?;
    }
    let talked = talk(&client, &id, arguments.language, out, &mut signals).await;
    if is_fresh {
        // A second signal drops this and ends the program.
        signals.unless(client.destroy_sandbox(&id)).await??;
    }
    talked
}

async fn talk(
    client: &Client,
    id: &SandboxId,
    language: Language,
    out: Output,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let timeout_ms = Some(EXEC_TIMEOUT_MS);
    let request = CreateContext { language, timeout_ms, ..CreateContext::default() };
    let mut creating = std::pin::pin!(client.create_context(id, &request));
    let (context, told) = tokio::select! {
        created = &mut creating => (created?.id, None),
        // It comes all the same, and is to go again; a second signal does not wait for it.
        told = signals.next() => (signals.unless(creating).await??.id, Some(told)),
    };
    let talked = match told {
        Some(signal) => Err(Stop::Signaled(signal).into()),
        None => converse(client, (id, &context, language), out, signals).await,
    };
    match signals.unless(client.delete_context(id, &context)).await? {
        Ok(()) | Err(ClientError::Api { .. }) => {}
        Err(error) => note(out, format_args!("could not delete the context: {error}")),
    }
    talked
}

/// Runs what is said until its end, and returns how the last of it ended.
async fn converse(
    client: &Client,
    (id, context, language): (&SandboxId, &ContextId, Language),
    out: Output,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let is_terminal = io::stdin().is_terminal();
    let mut lines = read_lines();
    let mut code = String::new();
    let mut last = ExitCode::SUCCESS;
    loop {
        if is_terminal {
            let prompt = if code.is_empty() { ">>> " } else { "... " };
            write!(io::stderr(), "{prompt}").context("could not write a prompt")?;
        }
        let line = tokio::select! {
            line = lines.recv() => line,
            signal = signals.next() => match signal {
                // What was typed is taken back.
                Signal::Interrupt if is_terminal => {
                    code.clear();
                    drop(writeln!(io::stderr()));
                    continue;
                }
                // What was said so far may not be what was meant: it is not run.
                other => return Err(Stop::Signaled(other).into()),
            },
        };
        let is_end = line.is_none();
        let line = line.transpose().context("could not read stdin")?.unwrap_or_default();
        if !code.is_empty() || !line.trim().is_empty() {
            code += &line;
            code.push('\n');
        }
        // Without a terminal the whole input is one piece of code.
        let waits = !is_terminal || goes_on(language, &code, &line);
        if !code.trim().is_empty() && (is_end || !waits) {
            let request = RunCode { color: is_terminal, ..RunCode::new(std::mem::take(&mut code)) };
            last = step(client, (id, context), &request, out, signals).await?;
        }
        if is_end {
            return Ok(last);
        }
    }
}

/// Runs one piece of code; Ctrl-C interrupts it and nothing else.
async fn step(
    client: &Client,
    (id, context): (&SandboxId, &ContextId),
    request: &RunCode,
    out: Output,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let mut running = std::pin::pin!(follow(client, id, Some(context), request, out));
    loop {
        tokio::select! {
            done = &mut running => return done,
            signal = signals.next() => match signal {
                Signal::Interrupt => drop(client.interrupt_context(id, context).await?),
                other => return Err(Stop::Signaled(other).into()),
            },
        }
    }
}

/// The lines of stdin. The thread that reads them ends with the program.
fn read_lines() -> mpsc::Receiver<io::Result<String>> {
    let (give, lines) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if give.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// True while a piece of code is not whole: a bracket or a text is open, or a block goes on until an
/// empty line.
fn goes_on(language: Language, code: &str, line: &str) -> bool {
    let open = open_brackets(language, code);
    if open > 0 || line.ends_with('\\') {
        return true;
    }
    let mut lines = code.lines().map(str::trim_end);
    language == Language::Python && !line.trim().is_empty() && lines.any(|line| line.ends_with(':'))
}

/// How many brackets are open, outside of texts and comments. An open text counts as one.
fn open_brackets(language: Language, code: &str) -> usize {
    let comment = match language {
        Language::Python | Language::Bash => '#',
        Language::JavaScript | Language::TypeScript => '\0',
    };
    let spans_lines = BTreeMap::from([('`', language != Language::Bash)]);
    let (mut open, mut quote, mut is_escaped) = (0_usize, None, false);
    let mut characters = code.chars();
    while let Some(character) = characters.next() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some(_) if character == '\\' => is_escaped = true,
            Some(end) if character == end => quote = None,
            Some(end) if character == '\n' && !spans_lines.get(&end).copied().unwrap_or(false) => {
                quote = None;
            }
            Some(_) => {}
            None => match character {
                '"' | '\'' | '`' => quote = Some(character),
                '(' | '[' | '{' => open += 1,
                ')' | ']' | '}' => open = open.saturating_sub(1),
                _ if character == comment => {
                    // To the end of its line.
                    characters.by_ref().find(|character| *character == '\n');
                }
                _ => {}
            },
        }
    }
    open + usize::from(quote == Some('`') && language != Language::Bash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_code_is_whole_when_nothing_is_open() {
        for (language, lines, expected) in [
            (Language::Python, &["1 + 1"][..], false),
            (Language::Python, &["f(1,"], true),
            (Language::Python, &["f(1,", "2)"], false),
            (Language::Python, &["def f():"], true),
            (Language::Python, &["def f():", "  return 1"], true),
            (Language::Python, &["def f():", "  return 1", ""], false),
            (Language::Python, &["x = '('  # ["], false),
            (Language::JavaScript, &["function f() {"], true),
            (Language::JavaScript, &["function f() {", "}"], false),
            (Language::JavaScript, &["`a"], true),
            (Language::Bash, &["echo a \\"], true),
            (Language::Bash, &["f() {", "echo", "}"], false),
        ] {
            let code = format!("{}\n", lines.join("\n"));
            let last = lines.last().copied().unwrap_or_default();
            assert_eq!(goes_on(language, &code, last), expected, "{lines:?}");
        }
    }
}
