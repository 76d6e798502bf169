//! `sandbar session`: the sessions of a sandbox, shells that keep their state between commands.

use std::{process::ExitCode, time::Duration, time::SystemTime};

use anyhow::Context as _;
use api::{
    id::{SandboxId, SessionId},
    session::{CreateSession, Session},
};
use clap::{Args, Subcommand};
use client::Client;
use serde_json::json;

use super::exec::{environment, parse_variable};
use crate::{
    output::{Output, escape_control, print_json, print_line, print_text},
    table::Table,
    units::{format_age, parse_duration},
};

/// Arguments of `sandbar session`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the sessions of a sandbox.
    Ls {
        /// The sandbox.
        id: SandboxId,
    },
    /// Make a session with settings of its own; `exec --session` makes one without.
    Create(Create),
    /// End sessions with everything that runs in them.
    Rm {
        /// The sandbox.
        id: SandboxId,
        /// The sessions.
        #[arg(required = true)]
        sessions: Vec<SessionId>,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// The sandbox; it is created when it does not exist.
    id: SandboxId,
    /// The session; one is made up unless given.
    session: Option<SessionId>,
    /// Set a variable for its commands; NAME alone takes its value from here.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse_variable)]
    env: Vec<(String, Option<String>)>,
    /// Directory to start in; a relative path begins at /workspace.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Kill commands after this time (30s, 5m) that have no limit of their own.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// Lists, makes or ends sessions.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    match arguments.command {
        Command::Ls { id } => {
            let sessions = client.sessions(&id).await?;
            if out.json {
                print_json(&json!({"sessions": sessions}))?;
            } else {
                print_text(table(&sessions, SystemTime::now()))?;
            }
        }
        Command::Create(create) => {
            let made = client.create_session(&create.id, &create.request()?).await?;
            if out.json {
                print_json(&made)?;
            } else {
                print_line(&made.id)?;
            }
        }
        Command::Rm { id, sessions } => {
            for session in &sessions {
                let deleted = client.delete_session(&id, session).await;
                deleted.with_context(|| format!("could not end session {session}"))?;
                if !out.json {
                    print_line(session)?;
                }
            }
            if out.json {
                print_json(&json!({"deleted": sessions}))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Create {
    fn request(&self) -> anyhow::Result<CreateSession> {
        let timeout_ms = self.timeout.map(|limit| u64::try_from(limit.as_millis()));
        Ok(CreateSession {
            id: self.session.clone(),
            name: None,
            env: environment(&self.env)?,
            cwd: self.workdir.clone(),
            command_timeout_ms: timeout_ms.transpose().context("the timeout is too long")?,
        })
    }
}

fn table(sessions: &[Session], now: SystemTime) -> Table<6> {
    let mut table = Table::new(["ID", "PID", "BUSY", "AGE", "USED", "DIRECTORY"]);
    for session in sessions {
        table.row([
            session.id.to_string(),
            session.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            match (session.busy, session.waiting) {
                (false, _) => "no".to_owned(),
                (true, 0) => "yes".to_owned(),
                (true, waiting) => format!("yes, {waiting} wait"),
            },
            format_age(session.created_at_ms, now),
            format_age(session.last_used_ms, now),
            // Last, because it is as long as it likes.
            escape_control(&session.cwd).replace('\n', "\\n"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_line_whatever_its_directory_is_called() {
        let session = Session {
            id: "build".parse().unwrap(),
            name: None,
            cwd: "/a\n\u{1b}b".to_owned(),
            pid: None,
            busy: true,
            waiting: 2,
            created_at_ms: 0,
            last_used_ms: 60_000,
            command_timeout_ms: None,
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(120);
        assert_eq!(
            table(&[session], now).to_string(),
            "ID     PID  BUSY         AGE  USED  DIRECTORY\n\
             build  -    yes, 2 wait  2m   1m    /a\\n\\u{1b}b\n"
        );
    }
}
