//! `sandbar inspect`: everything about one sandbox.

use std::{fmt::Write as _, process::ExitCode, time::SystemTime};

use api::{
    id::SandboxId,
    network::NetworkPolicy,
    sandbox::{NetworkUsage, Sandbox},
};
use clap::Args;
use client::Client;

use crate::{
    commands::ps::state,
    output::{Output, escape_control, print_json, print_text},
    units::{format_age, format_bytes},
};

/// Arguments of `sandbar inspect`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox.
    id: SandboxId,
}

/// Prints the sandbox.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let sandbox = Client::from_environment()?.sandbox(&arguments.id).await?;
    if out.json {
        print_json(&sandbox)?;
    } else {
        print_text(page(&sandbox, SystemTime::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(sandbox: &Sandbox, now: SystemTime) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(page, "{name:<9} {}", escape_control(value).replace('\n', "\\n"))
            .expect("writing to a String cannot fail");
    };
    line("id", sandbox.id.as_str());
    line("image", &sandbox.image.to_string());
    line("age", &format_age(sandbox.created_at_ms, now));
    match &sandbox.network {
        NetworkPolicy::Internet => line("network", "internet (public addresses only)"),
        NetworkPolicy::None => line("network", "none"),
        NetworkPolicy::Listed(list) if list.allow.is_empty() => line("network", "an empty list"),
        NetworkPolicy::Listed(list) => {
            list.allow.iter().for_each(|rule| line("network", &rule.to_string()));
        }
    }
    let limits = &sandbox.resources;
    let (memory, pids) = (format_bytes(limits.memory_bytes), limits.pids);
    let cpus = format!("{}.{:03}", limits.cpu_millis / 1000, limits.cpu_millis % 1000);
    let cpus = cpus.trim_end_matches('0').trim_end_matches('.');
    match &sandbox.usage {
        Some(usage) => {
            line("memory", &format!("{} of {memory}", format_bytes(usage.memory_bytes)));
            line("pids", &format!("{} of {pids}", usage.pids));
            line("cpu", &format!("{} ms used, {cpus} CPUs at most", usage.cpu_ms));
            line("oom kills", &usage.oom_kills.to_string());
            line("disk", &disk(limits.disk_bytes, usage.disk_bytes));
            let NetworkUsage { refused_packets, refused_names } = usage.network;
            line("refused", &format!("{refused_packets} packets, {refused_names} names"));
        }
        None => {
            line("memory", &format!("{memory} at most"));
            line("pids", &format!("{pids} at most"));
            line("cpu", &format!("{cpus} CPUs at most"));
            line("disk", &disk(limits.disk_bytes, None));
        }
    }
    for (name, value) in &sandbox.labels {
        line("label", &format!("{name}={value}"));
    }
    for (name, value) in &sandbox.env {
        line("env", &format!("{name}={value}"));
    }
    if let Some(failure) = &sandbox.failure {
        line("failure", failure);
    }
    // Outside `line`, which would escape its colour.
    page.insert_str(0, &format!("{:<9} {}\n", "state", state(sandbox.state)));
    page
}

/// What its own files may take, and what they take.
fn disk(limit: Option<u64>, used: Option<u64>) -> String {
    match (limit.map(format_bytes), used.map(format_bytes)) {
        (Some(limit), Some(used)) => format!("{used} of {limit}"),
        (Some(limit), None) => format!("{limit} at most"),
        (None, _) => "not limited on this node; `sandbar doctor` says why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_limits_and_what_is_used() {
        let sandbox: Sandbox = serde_json::from_value(serde_json::json!({
            "id": "a", "state": "running", "image": "default", "network": {"allow": ["a.example:443", "203.0.113.0/24"]},
            "env": {"A": "b\n\u{1b}c"}, "labels": {}, "createdAtMs": 0,
            "resources": {"memoryBytes": 1 << 30, "pids": 100, "cpuMillis": 1500, "diskBytes": 1 << 30},
            "usage": {"memoryBytes": 2 << 20, "pids": 3, "cpuMs": 7, "oomKills": 0, "diskBytes": 1 << 20,
                      "network": {"refusedPackets": 4, "refusedNames": 5}}
        }))
        .unwrap();
        let page = page(&sandbox, SystemTime::UNIX_EPOCH);
        for line in [
            "memory    2.0 MiB of 1.0 GiB",
            "pids      3 of 100",
            "cpu       7 ms used, 1.5 CPUs at most",
            "network   a.example:443",
            "network   203.0.113.0/24",
            "refused   4 packets, 5 names",
            "disk      1.0 MiB of 1.0 GiB",
            "env       A=b\\n\\u{1b}c",
        ] {
            assert!(page.lines().any(|found| found == line), "{line:?} in\n{page}");
        }
    }
}
