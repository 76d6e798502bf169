//! `sandbar set`: what becomes of a sandbox that nobody uses, and its labels.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Context as _;
use api::{
    id::SandboxId,
    idle::{IdleSettings, OnIdle},
    sandbox::UpdateSandbox,
};
use clap::{Args, ValueEnum};
use client::Client;

use crate::{
    output::{Output, print_json, print_line},
    units::parse_duration,
};

/// What happens first to a sandbox that nobody uses.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum First {
    Freeze,
    Stop,
    Destroy,
}

/// Arguments of `sandbar set`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox.
    id: SandboxId,
    /// Put it to rest when nobody has used it for this time (3m, 1h).
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    sleep_after: Option<Duration>,
    /// What happens to it then.
    #[arg(long, value_name = "WHAT")]
    on_idle: Option<First>,
    /// Stop it when it has been frozen for this time; 0: never.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    stop_after: Option<Duration>,
    /// Destroy it when it has been stopped for this time; 0: never.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    destroy_after: Option<Duration>,
    /// Never put it to rest for being idle (true or false).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    keep_alive: Option<bool>,
    /// Processes that run by themselves count as use (true or false).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    count_processes: Option<bool>,
    /// A request or WebSocket through a preview counts as use while it is open (true or false).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    count_visits: Option<bool>,
    /// Destroy it this time after its creation, whatever happens; 0: never.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Its labels, in place of those it has.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
}

/// Changes the sandbox and prints its id.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let request = UpdateSandbox {
        network: None,
        on_start: None,
        services: None,
        idle: Some(IdleSettings {
            keep_alive: arguments.keep_alive,
            on_idle: arguments.on_idle.map(|first| match first {
                First::Freeze => OnIdle::Freeze,
                First::Stop => OnIdle::Stop,
                First::Destroy => OnIdle::Destroy,
            }),
            sleep_after_ms: milliseconds(arguments.sleep_after)?,
            stop_after_ms: milliseconds(arguments.stop_after)?,
            destroy_after_ms: milliseconds(arguments.destroy_after)?,
            count_processes: arguments.count_processes,
            count_visits: arguments.count_visits,
        })
        .filter(|idle| !idle.is_empty()),
        labels: Some(BTreeMap::from_iter(arguments.label)).filter(|labels| !labels.is_empty()),
        ttl_ms: milliseconds(arguments.ttl)?,
    };
    let sandbox = Client::from_environment()?.update_sandbox(&arguments.id, &request).await?;
    if out.json {
        print_json(&sandbox)?;
    } else {
        print_line(&sandbox.id)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn milliseconds(time: Option<Duration>) -> anyhow::Result<Option<u64>> {
    let time = time.map(|time| u64::try_from(time.as_millis()));
    time.transpose().context("the time is too long")
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write a label as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
