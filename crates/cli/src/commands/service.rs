//! `sandbar service`: programs that a sandbox runs whenever it runs.

use std::process::ExitCode;

use anyhow::bail;
use api::{
    exec::Command as Program,
    id::{ProcessId, SandboxId},
    sandbox::UpdateSandbox,
    service::{Restart, Service, ServiceState, ServiceStatus},
};
use clap::{Args, Subcommand, ValueEnum};
use client::Client;
use serde_json::json;

use crate::{
    commands::require_sandbox,
    output::{Output, escape_control, note, print_json, print_line, print_text},
    table::Table,
};

/// Arguments of `sandbar service`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the services of a sandbox, and where each is.
    Ls {
        /// The sandbox.
        id: SandboxId,
    },
    /// Add a service, or replace the one of this name: in force from the sandbox's next start on.
    Add(AddArguments),
    /// Remove a service: it is not there any more from the sandbox's next start on.
    Rm {
        /// The sandbox.
        id: SandboxId,
        /// The service.
        name: ProcessId,
    },
}

#[derive(Debug, Args)]
struct AddArguments {
    /// The sandbox.
    id: SandboxId,
    /// Its name: the id of its process.
    name: ProcessId,
    /// It is ready when something listens on this port.
    #[arg(long)]
    port: Option<u16>,
    /// When it is started again.
    #[arg(long, value_name = "WHEN", default_value = "always")]
    restart: When,
    /// The program and its arguments; one text is a line of a shell.
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// When a service is started again.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    Always,
    OnFailure,
    Never,
}

/// Lists, adds or removes.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    match arguments.command {
        Command::Ls { id } => {
            require_sandbox(&client, &id).await?;
            let services = client.services(&id).await?;
            if out.json {
                print_json(&json!({"services": services}))?;
            } else {
                print_text(table(&services))?;
            }
        }
        Command::Add(arguments) => {
            let AddArguments { id, name, port, restart, mut command } = arguments;
            let command = match command.len() {
                1 => Program::Shell(command.remove(0)),
                _ => Program::Program(command),
            };
            let restart = match restart {
                When::Always => Restart::Always,
                When::OnFailure => Restart::OnFailure,
                When::Never => Restart::Never,
            };
            let service = Service { name: name.clone(), command, port, restart };
            let mut services = client.sandbox(&id).await?.services;
            services.retain(|other| other.name != name);
            services.push(service);
            change(&client, (&id, &name), services, out).await?;
        }
        Command::Rm { id, name } => {
            let mut services = client.sandbox(&id).await?.services;
            let count = services.len();
            services.retain(|other| other.name != name);
            if services.len() == count {
                bail!("the sandbox {id} has no service {name}");
            }
            change(&client, (&id, &name), services, out).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn change(
    client: &Client,
    (id, name): (&SandboxId, &ProcessId),
    services: Vec<Service>,
    out: Output,
) -> anyhow::Result<()> {
    let request = UpdateSandbox { services: Some(services), ..UpdateSandbox::default() };
    let sandbox = client.update_sandbox(id, &request).await?;
    if out.json {
        return print_json(&sandbox);
    }
    note(out, format_args!("in force from the next start of {id} on: `sandbar stop {id}`"));
    print_line(name)
}

fn table(services: &[ServiceStatus]) -> Table<5> {
    let mut table = Table::new(["NAME", "STATE", "PID", "RESTARTS", "LAST"]);
    for status in services {
        let state = match status.state {
            ServiceState::Starting => "starting",
            ServiceState::Ready => "ready",
            ServiceState::Waiting => "waiting",
            ServiceState::Ended => "ended",
        };
        let last = match (&status.message, status.ending) {
            (Some(message), _) => message.clone(),
            (None, Some(ending)) => format!("exit code {}", ending.exit_code()),
            (None, None) => String::new(),
        };
        table.row([
            status.service.name.to_string(),
            state.to_owned(),
            status.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            status.restarts.to_string(),
            escape_control(&last),
        ]);
    }
    table
}
