//! `sandbar git`: a repository into a sandbox, with progress.
//!
//! On a terminal one moving line; otherwise a line when a phase is over. A password or token comes
//! from stdin or the environment, because arguments can be read by everybody on this machine.

use std::{
    io::{self, IsTerminal as _, Read as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use api::{
    git::{GitAuth, GitCheckout, GitCheckoutResult, GitEvent},
    id::SandboxId,
    limit::GIT_TEXT_BYTES,
};
use clap::Args;
use client::Client;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    failure::Stop,
    output::{Output, escape_control, note, print_json, print_line},
    units::parse_duration,
};

/// The variable that may hold a password or token.
const TOKEN_VARIABLE: &str = "SANDBAR_GIT_TOKEN";

/// Arguments of `sandbar git`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox; it is created when it does not exist.
    id: SandboxId,
    /// The repository: https://, http://, git://, ssh://, user@host:path, or a path in the sandbox.
    url: String,
    /// Where to, in the sandbox; a relative path begins at /workspace. The repository's name unless
    /// given.
    directory: Option<String>,
    /// Check out this branch or tag.
    #[arg(short, long, conflicts_with = "commit")]
    branch: Option<String>,
    /// Check out this commit.
    #[arg(short, long)]
    commit: Option<String>,
    /// Fetch so many commits of history only.
    #[arg(short, long, value_name = "COMMITS")]
    depth: Option<u32>,
    /// Give up after this time (30s, 5m); ten minutes unless given.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// The user for a password or token.
    #[arg(short, long)]
    username: Option<String>,
    /// Read a password or token from stdin; without this `SANDBAR_GIT_TOKEN` is used, if it is set.
    #[arg(long)]
    token_stdin: bool,
}

/// Checks out and reports.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let auth = auth(arguments.username, arguments.token_stdin)?;
    let timeout_ms = arguments.timeout.map(|limit| u64::try_from(limit.as_millis()));
    let request = GitCheckout {
        branch: arguments.branch,
        commit: arguments.commit,
        depth: arguments.depth,
        target_dir: arguments.directory,
        timeout_ms: timeout_ms.transpose().context("the timeout is too long")?,
        auth,
        ..GitCheckout::new(arguments.url)
    };
    let client = Client::from_environment()?;
    let mut events = client.git_checkout_stream(&arguments.id, &request).await?;
    let mut display = Display::new(out);
    while let Some(event) = events.next().await {
        let event = event?;
        if out.json {
            print_json(&event)?;
        }
        match event {
            GitEvent::Progress { phase, percent, line } => {
                display.progress(phase.as_deref(), percent, &line);
            }
            GitEvent::Done(result) => {
                display.end();
                if !out.json {
                    print_line(escape_control(&summary(&result)))?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            GitEvent::Failed { error } => {
                display.end();
                if out.json {
                    // The last event has said it.
                    return Err(Stop::Reported.into());
                }
                bail!(error);
            }
        }
    }
    bail!("the events ended before the checkout did")
}

fn auth(username: Option<String>, from_stdin: bool) -> anyhow::Result<Option<GitAuth>> {
    let password = if from_stdin {
        Some(read_token()?)
    } else {
        std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty())
    };
    match (username, password) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(Stop::Usage(format!(
            "--username needs a password or token: set {TOKEN_VARIABLE} or use --token-stdin"
        ))
        .into()),
        (username, password) => Ok(Some(GitAuth { username, password, header: None })),
    }
}

fn read_token() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        let text = "--token-stdin reads a pipe or a file, not the terminal, which would show it";
        return Err(Stop::Usage(text.to_owned()).into());
    }
    let limit = u64::try_from(GIT_TEXT_BYTES + 2).unwrap_or(u64::MAX);
    let mut text = String::new();
    io::stdin().lock().take(limit).read_to_string(&mut text).context("could not read stdin")?;
    let token = text.trim_end_matches(['\r', '\n']);
    if token.is_empty() {
        return Err(Stop::Usage("stdin holds no token".to_owned()).into());
    }
    Ok(token.to_owned())
}

fn summary(result: &GitCheckoutResult) -> String {
    let GitCheckoutResult { branch, commit, target_dir, .. } = result;
    match (branch, commit) {
        (Some(branch), Some(commit)) => format!("{target_dir}: {branch} at {commit}"),
        (None, Some(commit)) => format!("{target_dir}: {commit}"),
        (_, None) => format!("{target_dir}: an empty repository"),
    }
}

/// How the work is shown.
struct Display {
    out: Output,
    bar: Option<ProgressBar>,
    /// The line of the phase under way.
    last: Option<(String, String)>,
}

impl Display {
    fn new(out: Output) -> Self {
        let bar = out.shows_progress().then(|| {
            let bar = ProgressBar::new(100);
            let style = ProgressStyle::with_template("{prefix:28} {bar:30} {percent:>3}%  {msg}");
            bar.set_style(style.unwrap_or_else(|_fault| ProgressStyle::default_bar()));
            bar
        });
        Self { out, bar, last: None }
    }

    fn progress(&mut self, phase: Option<&str>, percent: Option<u8>, line: &str) {
        let line = escape_control(line);
        let Some(phase) = phase else {
            self.say(&line);
            return;
        };
        if self.last.as_ref().is_some_and(|(last, _)| last != phase) {
            self.end_phase();
        }
        if let Some(bar) = &self.bar {
            bar.set_prefix(phase.to_owned());
            bar.set_position(percent.unwrap_or_default().into());
        }
        self.last = Some((phase.to_owned(), line));
    }

    fn end_phase(&mut self) {
        if let Some((_, line)) = self.last.take() {
            self.say(&line);
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => note(self.out, line),
        }
    }

    fn end(&mut self) {
        self.end_phase();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_one_line() {
        let result = |branch: Option<&str>, commit: Option<&str>| GitCheckoutResult {
            url: String::new(),
            branch: branch.map(str::to_owned),
            commit: commit.map(str::to_owned),
            target_dir: "/w/x".to_owned(),
        };
        assert_eq!(summary(&result(Some("main"), Some("abc"))), "/w/x: main at abc");
        assert_eq!(summary(&result(None, Some("abc"))), "/w/x: abc");
        assert_eq!(summary(&result(None, None)), "/w/x: an empty repository");
    }

    #[test]
    fn a_user_alone_is_no_credential() {
        assert!(auth(None, false).unwrap().is_none());
        let error = auth(Some("me".to_owned()), false).unwrap_err();
        assert!(error.to_string().contains(TOKEN_VARIABLE), "{error}");
    }
}
