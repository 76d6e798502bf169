//! `sandbar wait`: until a process has ended, has written a line, or listens.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use api::{
    id::SandboxId,
    process::{WaitProcess, WaitUntil},
};
use clap::Args;
use client::Client;

use crate::{
    commands::{
        exec::{exit_code, explain},
        require_sandbox,
    },
    output::{Output, escape_control, note, print_json, print_line},
    units::parse_duration,
};

/// Arguments of `sandbar wait`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox.
    sandbox: SandboxId,
    /// The process: its id, or its process id inside the sandbox.
    process: String,
    /// Until it has written a line with this text; prints the line.
    #[arg(long, value_name = "TEXT", group = "until")]
    log: Option<String>,
    /// Until it has written a line that matches this regular expression; prints the line.
    #[arg(long, value_name = "REGEX", group = "until")]
    pattern: Option<String>,
    /// Until something listens on this port inside the sandbox.
    #[arg(long, value_name = "PORT", group = "until")]
    port: Option<u16>,
    /// Until an HTTP server inside the sandbox answers with success: PORT or PORT/PATH.
    #[arg(long, value_name = "PORT[/PATH]", value_parser = parse_page, group = "until")]
    http: Option<(u16, String)>,
    /// Give up after this time (10s, 5m).
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

fn parse_page(text: &str) -> Result<(u16, String), String> {
    let (port, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let fault = |_not_a_number| format!("{text:?} is no PORT or PORT/PATH, as 8080/health");
    Ok((port.parse().map_err(fault)?, if path.is_empty() { "/" } else { path }.to_owned()))
}

impl Arguments {
    fn until(&self) -> WaitUntil {
        if self.log.is_some() || self.pattern.is_some() {
            let (text, pattern) = (self.log.clone(), self.pattern.clone());
            return WaitUntil::Log { text, pattern, stream: None };
        }
        match (self.port, &self.http) {
            (Some(port), _) => WaitUntil::Port { port },
            (None, Some((port, path))) => {
                let (port, path) = (*port, path.clone());
                WaitUntil::Http { port, path, status_min: 200, status_max: 399 }
            }
            (None, None) => WaitUntil::Exit {},
        }
    }
}

/// Waits. For the process's end, this ends as the process did.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let until = arguments.until();
    let is_for_end = until == WaitUntil::Exit {};
    let timeout_ms = arguments.timeout.map(|limit| u64::try_from(limit.as_millis()));
    let timeout_ms = timeout_ms.transpose().context("the timeout is too long")?;
    let client = Client::from_environment()?;
    require_sandbox(&client, &arguments.sandbox).await?;
    let request = WaitProcess { until, timeout_ms };
    let ready = client.wait_process(&arguments.sandbox, &arguments.process, &request).await?;
    if out.json {
        print_json(&ready)?;
    } else if let Some(line) = &ready.line {
        print_line(escape_control(&line.text))?;
    }
    let Some(ending) = ready.process.ending.filter(|_| is_for_end) else {
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(explanation) = explain(ending, None) {
        note(out, explanation);
    }
    Ok(ExitCode::from(exit_code(ending)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_port_and_perhaps_a_path() {
        assert_eq!(parse_page("80"), Ok((80, "/".to_owned())));
        assert_eq!(parse_page("8080/a/b?c=d"), Ok((8080, "/a/b?c=d".to_owned())));
        for bad in ["", "/", "x/y", "65536", "80x"] {
            assert!(parse_page(bad).is_err(), "{bad:?}");
        }
    }
}
