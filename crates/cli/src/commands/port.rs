//! `sandbar port`: the ports of a sandbox, and the URLs under which others reach them.

use std::process::ExitCode;

use anyhow::Context as _;
use api::{
    id::SandboxId,
    port::{ExposePort, ExposedPort, PortList, PortStatus, PortToken, RotatePort},
};
use clap::{Args, Subcommand};
use client::Client;
use serde_json::json;

use crate::{
    output::{Output, escape_control, print_json, print_line, print_text},
    table::Table,
};

/// Arguments of `sandbar port`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the exposed ports of a sandbox, and what else listens in it.
    Ls {
        /// The sandbox.
        id: SandboxId,
    },
    /// Give a port a URL; print it. Whoever has it can use the port.
    Expose(Expose),
    /// Take URLs away: they are refused from now on.
    Hide {
        /// The sandbox.
        id: SandboxId,
        /// The ports.
        #[arg(required = true)]
        ports: Vec<u16>,
    },
    /// Give a port another URL; print it. The old one never works again.
    Rotate {
        /// The sandbox.
        id: SandboxId,
        /// The port.
        port: u16,
        /// The new URL's token: 1 to 16 of a-z, 0-9 and _; generated unless given.
        #[arg(long)]
        token: Option<PortToken>,
    },
}

#[derive(Debug, Args)]
struct Expose {
    /// The sandbox; it is created when it does not exist.
    id: SandboxId,
    /// The TCP port inside it, 1024 to 65535.
    port: u16,
    /// A name for people.
    #[arg(long)]
    name: Option<String>,
    /// The URL's token: 1 to 16 of a-z, 0-9 and _. A short one can be guessed; a good one is
    /// generated unless given.
    #[arg(long)]
    token: Option<PortToken>,
    /// No token: whoever can reach the server and guess the sandbox's id can use the port.
    #[arg(long, conflicts_with = "token")]
    public: bool,
}

/// Lists, exposes or hides ports.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    match arguments.command {
        Command::Ls { id } => {
            let list = client.ports(&id).await?;
            if out.json { print_json(&list)? } else { print_text(table(&list))? }
        }
        Command::Expose(Expose { id, port, name, token, public }) => {
            let request = ExposePort { port: port.into(), name, token, public };
            show(&client.expose_port(&id, &request).await?, out)?;
        }
        Command::Hide { id, ports } => {
            for port in &ports {
                let hidden = client.unexpose_port(&id, *port).await;
                hidden.with_context(|| format!("could not hide port {port}"))?;
                if !out.json {
                    print_line(port)?;
                }
            }
            if out.json {
                print_json(&json!({"hidden": ports}))?;
            }
        }
        Command::Rotate { id, port, token } => {
            show(&client.rotate_port(&id, port, &RotatePort { token }).await?, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(port: &ExposedPort, out: Output) -> anyhow::Result<()> {
    if out.json { print_json(port) } else { print_line(escape_control(&port.url)) }
}

/// Exposed ports first, then what else listens.
fn table(list: &PortList) -> Table<4> {
    let mut table = Table::new(["PORT", "NAME", "STATUS", "URL"]);
    for port in &list.ports {
        table.row([
            port.port.to_string(),
            port.name.as_deref().map_or_else(|| "-".to_owned(), escape_control),
            match port.status {
                PortStatus::Active => "active",
                PortStatus::Inactive => "inactive",
            }
            .to_owned(),
            escape_control(&port.url),
        ]);
    }
    let is_exposed = |number: u16| list.ports.iter().any(|port| port.port == number);
    for listener in list.listening.iter().filter(|listener| !is_exposed(listener.port)) {
        let address = format!("not exposed; listens on {}", escape_control(&listener.address));
        table.row([listener.port.to_string(), "-".to_owned(), "active".to_owned(), address]);
    }
    table
}

#[cfg(test)]
mod tests {
    use api::port::ListeningPort;

    use super::*;

    #[test]
    fn what_listens_is_shown_also_when_it_is_not_exposed() {
        let listening = [8080, 9000].map(|port| ListeningPort { port, address: "::".to_owned() });
        let exposed = ExposedPort {
            port: 8080,
            url: "http://8080-s-t.localhost/".to_owned(),
            name: None,
            public: false,
            exposed_at_ms: 0,
            status: PortStatus::Active,
        };
        let list = PortList { ports: vec![exposed], listening: listening.into() };
        assert_eq!(
            table(&list).to_string(),
            "PORT  NAME  STATUS  URL\n\
             8080  -     active  http://8080-s-t.localhost/\n\
             9000  -     active  not exposed; listens on ::\n"
        );
    }
}
