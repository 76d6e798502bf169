//! `sandbar down`: end the server and its sandboxes.
//!
//! A running server is asked, and waited for. Without one, its sandboxes may still run (they
//! outlive it), so the state directory is gone through here.

use std::{
    fs::File,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use api::node::{Shutdown, ShutdownSandboxes};
use clap::Args;
use client::{Client, ClientError};
use serde_json::json;

use crate::{
    commands::{runtime, serve::ConfigurationArguments},
    failure::Stop,
    output::{Output, print_json, print_line},
};

/// Time for a server to end: it gives requests under way and the processes of a thousand
/// sandboxes their time.
const END_LIMIT: Duration = Duration::from_secs(120);

/// Between two looks at a server that is ending.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Time for one look: a server that is ending may accept a connection and never answer.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// Arguments of `sandbar down`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Destroy the sandboxes with their files too; without it only their processes end.
    #[arg(long)]
    destroy: bool,
    #[command(flatten)]
    configuration: ConfigurationArguments,
}

/// Ends the server and the sandboxes.
pub(crate) fn run(arguments: &Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let is_remote = std::env::var_os("SANDBAR_URL").is_some_and(|url| !url.is_empty());
    if is_remote && arguments.configuration.are_given() {
        let text = "SANDBAR_URL names a server, and --config, --state-dir and --set are about one on \
                    this machine; unset the variable, or leave out the flags";
        return Err(Stop::Usage(text.to_owned()).into());
    }
    let was_running = if is_remote {
        let client = Client::from_environment()?;
        if !ask(&client, arguments.destroy, None)? {
            bail!("no server answers at {}, which SANDBAR_URL names", client.url());
        }
        true
    } else {
        let config = arguments.configuration.load(&[])?;
        let dir = config.node.state_dir.clone();
        let was_running = match Client::from_state_dir(&dir) {
            Ok(client) => ask(&client, arguments.destroy, Some(&dir.join("lock")))?,
            Err(ClientError::Environment(client::EnvironmentError::NoServer { .. })) => false,
            Err(error) => return Err(error.into()),
        };
        if !was_running {
            daemon::down(config, arguments.destroy).context("could not end the sandboxes")?;
        }
        was_running
    };
    if out.json {
        print_json(&json!({"wasRunning": was_running, "destroyed": arguments.destroy}))?;
    } else {
        let server = if was_running { "The server has ended" } else { "No server was running" };
        let sandboxes = if arguments.destroy {
            "its sandboxes are destroyed"
        } else {
            "its sandboxes are stopped, their files kept"
        };
        print_line(format_args!("{server}; {sandboxes}."))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks a server to end and waits until it has. False: none was there.
fn ask(client: &Client, destroy: bool, lock: Option<&Path>) -> anyhow::Result<bool> {
    let sandboxes = if destroy { ShutdownSandboxes::Destroy } else { ShutdownSandboxes::Stop };
    // Dropped at the end, before anything forks.
    let runtime = runtime()?;
    runtime.block_on(async {
        match client.shut_down(&Shutdown { sandboxes }).await {
            Err(ClientError::Unreachable { .. }) => return Ok(false),
            result => result.context("could not ask the server to end")?,
        }
        wait_for_end(client, lock).await?;
        Ok(true)
    })
}

/// A server has ended when nobody listens any more and, on this machine, its lock is free.
async fn wait_for_end(client: &Client, lock: Option<&Path>) -> anyhow::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < END_LIMIT {
        let look = tokio::time::timeout(LOOK_LIMIT, client.health());
        let listens = !matches!(look.await, Ok(Err(ClientError::Unreachable { .. })));
        if !listens && lock.is_none_or(is_free) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    bail!(
        "the server was asked to end and has not within {}; its log says what it waits for",
        humantime::format_duration(END_LIMIT)
    )
}

/// Taken and given back at once: it only tells whether somebody else holds it.
fn is_free(lock: &Path) -> bool {
    match File::open(lock) {
        Ok(file) => file.try_lock_shared().is_ok(),
        Err(_gone) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_when_nobody_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(is_free(&path));
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        assert!(!is_free(&path));
        held.unlock().unwrap();
        assert!(is_free(&path));
    }
}
