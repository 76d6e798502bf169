//! `sandbar run`: create, execute, print, destroy. One word that names a script here is its content,
//! for the code interpreter.
//!
//! Invariant: the sandbox is destroyed however the command ends, unless a second signal says not
//! to wait. Its id is chosen here, so that it is known also when the creation is interrupted. A key
//! that is for other ids says so before anything is made; then one of those is chosen.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use api::{
    error::ErrorCode,
    id::{ImageRef, SandboxId},
    network::NetworkPolicy,
    sandbox::{CreateSandbox, Resources},
};
use clap::Args;
use client::{Client, ClientError};
use tokio::time::{Instant, sleep};

use crate::{
    commands::{
        code,
        exec::{ExecArguments, follow},
        network::parse_policy,
    },
    failure::may_pass,
    output::{Output, note},
    random::random_name,
    signals::Signals,
    units::{parse_bytes, parse_cpus},
};

/// How long a server that went away may take to come back.
const COME_BACK: Duration = Duration::from_secs(30);

/// Between two looks whether it is back.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Arguments of `sandbar run`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Image of its files; the server's default unless given.
    #[arg(long)]
    image: Option<ImageRef>,
    /// What the sandbox may reach: internet, none, or hosts and addresses joined by commas
    /// (pypi.org:443,*.example.com,203.0.113.0/24:53/udp). Internet unless given.
    #[arg(long, value_name = "POLICY", value_parser = parse_policy)]
    network: Option<NetworkPolicy>,
    /// Memory it may use (512MiB, 2GiB).
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Processes and threads it may have at once.
    #[arg(long, value_name = "N")]
    pids: Option<u32>,
    /// CPUs it may use (2, 0.5).
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    cpus: Option<u32>,
    /// Its share of the processors beside other sandboxes, where they all want more than there are;
    /// 100 is usual, 200 twice as much.
    #[arg(long, value_name = "N")]
    cpu_weight: Option<u32>,
    /// Disk space its own files may take (512MiB, 8GiB).
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    disk: Option<u64>,
    #[command(flatten)]
    pub(crate) exec: ExecArguments,
}

/// Runs the command in a sandbox of its own.
pub(crate) async fn run(
    arguments: Arguments,
    out: Output,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let mut id = generate_id("")?;
    let mut is_made = false;
    let result = signals
        .unless(async {
            let script = code::script(&arguments.exec.command);
            let script =
                script.map(|script| code::request(&script, &arguments.exec)).transpose()?;
            let request = arguments.exec.request().await?;
            create(&client, &mut id, arguments.settings()).await?;
            is_made = true;
            match script {
                Some(script) => code::follow(&client, &id, None, &script, out).await,
                None => follow(&client, &id, &request, out).await,
            }
        })
        .await;
    // A second signal drops this and ends the program.
    signals.unless(destroy(&id, is_made, out)).await?;
    result?
}

/// Destroys the sandbox, for which a server that is being replaced is waited for if the sandbox was
/// made; a failure is said but does not replace the command's result.
pub(super) async fn destroy(id: &SandboxId, is_made: bool, out: Output) {
    let deadline = Instant::now() + COME_BACK;
    let error = loop {
        // A server that was started again may listen elsewhere.
        let destroyed = match Client::from_environment() {
            Ok(client) => client.destroy_sandbox(id).await,
            Err(error) => Err(error),
        };
        match destroyed {
            Ok(()) => return,
            Err(ClientError::Api { error, .. }) if error.code == ErrorCode::SandboxNotFound => {
                return;
            }
            Err(error) if is_made && may_pass(&error) && Instant::now() < deadline => {
                sleep(ASK_EVERY).await;
            }
            // It was never made, and nobody is there to ask; the first error has said so.
            Err(ClientError::Unreachable { .. }) if !is_made => return,
            Err(error) => break error,
        }
    };
    note(out, format_args!("could not destroy the sandbox; do it with `sandbar rm {id}`: {error}"));
}

impl Arguments {
    /// All but the id.
    fn settings(&self) -> CreateSandbox {
        CreateSandbox {
            image: self.image.clone(),
            resources: Resources {
                memory_bytes: self.memory,
                pids: self.pids,
                cpu_millis: self.cpus,
                cpu_weight: self.cpu_weight,
                disk_bytes: self.disk,
            },
            network: self.network.clone().unwrap_or_default(),
            ..CreateSandbox::default()
        }
    }
}

/// Never the id of another run: two must not meet in one sandbox.
pub(super) fn generate_id(prefix: &str) -> anyhow::Result<SandboxId> {
    Ok(format!("{prefix}run-{}", random_name()?).parse()?)
}

/// Creates a sandbox under `id`, or, if the client's key is for others, under one of those.
pub(super) async fn create(
    client: &Client,
    id: &mut SandboxId,
    settings: CreateSandbox,
) -> anyhow::Result<()> {
    let named = |id: &SandboxId| CreateSandbox { id: Some(id.clone()), ..settings.clone() };
    let mut created = client.create_sandbox(&named(id)).await;
    if let Some(prefix) = created.as_ref().err().and_then(prefix_of_key) {
        *id = generate_id(prefix)?;
        created = client.create_sandbox(&named(id)).await;
    }
    created.context("could not create the sandbox").map(drop)
}

/// What ids begin with that the client's key is for, if that is why a creation was refused.
fn prefix_of_key(error: &ClientError) -> Option<&str> {
    match error {
        ClientError::Api { error, .. } if error.code == ErrorCode::Forbidden => {
            error.details.get("prefix")?.as_str()
        }
        _ => None,
    }
}
