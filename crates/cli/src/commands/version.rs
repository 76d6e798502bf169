//! `sandbar version`: this program and the server it would talk to.

use std::process::ExitCode;

use client::{Client, ClientError};
use serde_json::json;

use crate::output::{Output, escape_control, print_json, print_line};

/// Prints both versions. A server that is not there is no failure.
pub(crate) async fn run(out: Output) -> anyhow::Result<ExitCode> {
    let own = env!("CARGO_PKG_VERSION");
    let health = match Client::from_environment() {
        Ok(client) => client.health().await,
        Err(error) => Err(error),
    };
    if out.json {
        let server = health.as_ref().ok();
        print_json(&json!({"version": own, "server": server}))?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(format_args!("sandbar {own}"))?;
    match health {
        Ok(health) => print_line(format_args!(
            "server  {} ({})",
            escape_control(&health.version),
            escape_control(&health.status)
        ))?,
        Err(ClientError::Environment(_) | ClientError::Unreachable { .. }) => {
            print_line("server  not running")?;
        }
        Err(error) => print_line(format_args!("server  {error}"))?,
    }
    Ok(ExitCode::SUCCESS)
}
