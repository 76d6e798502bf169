//! `sandbar port-forward`: TCP ports of a sandbox on this machine.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use api::id::SandboxId;
use clap::Args;
use client::Client;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};

use super::require_sandbox;
use crate::output::{Output, note, print_json, print_line};

/// Connections at once through all forwarded ports: a pool of a large application.
const CONNECTIONS: usize = 1024;

/// Pause after a failed accept: nearly always no descriptor is free, and one will be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Arguments of `sandbar port-forward`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The sandbox.
    id: SandboxId,
    /// Which ports: HERE:INSIDE, or one number for both; ADDRESS:HERE:INSIDE to let others in. HERE 0
    /// takes a free port.
    #[arg(required = true, value_name = "[ADDRESS:]HERE:INSIDE")]
    ports: Vec<Forward>,
}

const HELP: &str = "\
Prints ADDRESS:HERE -> INSIDE for each port once it listens, then forwards until it is interrupted.
Nothing need be exposed: connections are made with the key, on the sandbox's loopback.";

/// One forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forward {
    here: SocketAddr,
    inside: u16,
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse::<u16>().ok();
        let parse = || {
            let (rest, inside) = text.rsplit_once(':').unwrap_or((text, text));
            let inside = port(inside).filter(|port| *port > 0)?;
            let here = match rest.rsplit_once(':') {
                None => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(rest)?),
                Some((address, here)) => {
                    let bare = address.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
                    let address: IpAddr = bare.unwrap_or(address).parse().ok()?;
                    SocketAddr::new(address, port(here)?)
                }
            };
            Some(Self { here, inside })
        };
        parse().ok_or_else(|| format!("{text:?} is none of 5432, 15432:5432, 0.0.0.0:15432:5432"))
    }
}

/// Forwards until a signal.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    require_sandbox(&client, &arguments.id).await?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut forwards = JoinSet::new();
    let mut bound = Vec::new();
    for forward in arguments.ports {
        let listener = TcpListener::bind(forward.here)
            .await
            .with_context(|| format!("could not listen on {}", forward.here))?;
        bound.push((listener.local_addr().context("could not listen")?, forward.inside));
        let way =
            Way { client: client.clone(), id: arguments.id.clone(), port: forward.inside, out };
        forwards.spawn(forward_all(listener, way, Arc::clone(&places)));
    }
    if out.json {
        let ports = bound.iter().map(|(here, inside)| json!({"address": here, "port": inside}));
        print_json(&json!({"forwarded": ports.collect::<Vec<_>>()}))?;
    } else {
        for (here, inside) in bound {
            print_line(format!("{here} -> {inside}"))?;
        }
    }
    // None of them ends by itself.
    while forwards.join_next().await.is_some() {}
    Ok(ExitCode::SUCCESS)
}

/// Where the connections of one forwarded port lead.
#[derive(Debug, Clone)]
struct Way {
    client: Client,
    id: SandboxId,
    port: u16,
    out: Output,
}

/// Takes connections for ever. Dropping the future ends them all.
async fn forward_all(listener: TcpListener, way: Way, places: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let way = way.clone();
                connections.spawn(async move {
                    forward(stream, &way).await;
                    drop(place);
                });
            }
            Err(error) => {
                note(way.out, format!("a connection could not be accepted: {error}"));
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn forward(stream: TcpStream, way: &Way) {
    // What comes in pieces was sent in pieces on purpose.
    stream.set_nodelay(true).unwrap_or_default();
    let carried = async { way.client.connect_port(&way.id, way.port).await?.carry(stream).await };
    if let Err(error) = carried.await {
        note(way.out, format!("port {}: {error}", way.port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_with_other_tools() {
        for (text, here, inside) in [
            ("5432", "127.0.0.1:5432", 5432),
            ("15432:5432", "127.0.0.1:15432", 5432),
            ("0:80", "127.0.0.1:0", 80),
            ("0.0.0.0:1:2", "0.0.0.0:1", 2),
            ("[::1]:1:2", "[::1]:1", 2),
        ] {
            let expected = Forward { here: here.parse().unwrap(), inside };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["", "0", "1:0", "a:1", "1:a", "localhost:1:2", "1:2:3", "65536", ":1", "1:"] {
            assert!(bad.parse::<Forward>().is_err(), "{bad}");
        }
    }
}
