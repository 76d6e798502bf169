//! `sandbar inspect`: everything about one sandbox.

use std::{
    fmt::Write as _,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::{
    exec::Command,
    id::SandboxId,
    idle::{Activity, NextRung, Rung, RungReason},
    network::NetworkPolicy,
    sandbox::{CPU_WEIGHT, NetworkUsage, Sandbox},
    service::{Restart, Service},
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
    line("idle", &rests(sandbox, now));
    let limits = &sandbox.resources;
    let (memory, pids) = (format_bytes(limits.memory_bytes), limits.pids);
    let cpus = format!("{}.{:03}", limits.cpu_millis / 1000, limits.cpu_millis % 1000);
    let cpus = cpus.trim_end_matches('0').trim_end_matches('.');
    let weight = match limits.cpu_weight {
        CPU_WEIGHT => String::new(),
        weight => format!(", weight {weight}"),
    };
    match &sandbox.usage {
        Some(usage) => {
            line("memory", &format!("{} of {memory}", format_bytes(usage.memory_bytes)));
            line("pids", &format!("{} of {pids}", usage.pids));
            line("cpu", &format!("{} ms used, {cpus} CPUs at most{weight}", usage.cpu_ms));
            line("oom kills", &usage.oom_kills.to_string());
            line("disk", &disk(limits.disk_bytes, usage.disk_bytes));
            let NetworkUsage { refused_packets, refused_names, newest_refused_names } =
                &usage.network;
            line("refused", &format!("{refused_packets} packets, {refused_names} names"));
            for name in newest_refused_names {
                line("", name);
            }
        }
        None => {
            line("memory", &format!("{memory} at most"));
            line("pids", &format!("{pids} at most"));
            line("cpu", &format!("{cpus} CPUs at most{weight}"));
            line("disk", &disk(limits.disk_bytes, None));
        }
    }
    for (name, value) in &sandbox.labels {
        line("label", &format!("{name}={value}"));
    }
    for (name, value) in &sandbox.env {
        line("env", &format!("{name}={value}"));
    }
    for service in &sandbox.services {
        line("service", &defined(service));
    }
    if let Some(failure) = &sandbox.failure {
        line("failure", failure);
    }
    // Outside `line`, which would escape its colour.
    page.insert_str(0, &format!("{:<9} {}\n", "state", state(sandbox.state)));
    page
}

/// A service as it is defined; `sandbar service ls` says where it is.
fn defined(service: &Service) -> String {
    let command = match &service.command {
        Command::Shell(command) => command.clone(),
        Command::Program(program) => program.join(" "),
    };
    let port = service.port.map_or_else(String::new, |port| format!(", ready on port {port}"));
    let restart = match service.restart {
        Restart::Always => "always",
        Restart::OnFailure => "on failure",
        Restart::Never => "never",
    };
    format!("{}: {command} (restarted {restart}{port})", service.name)
}

/// What its own files may take, and what they take.
fn disk(limit: Option<u64>, used: Option<u64>) -> String {
    match (limit.map(format_bytes), used.map(format_bytes)) {
        (Some(limit), Some(used)) => format!("{used} of {limit}"),
        (Some(limit), None) => format!("{limit} at most"),
        (None, _) => "not limited on this node; `sandbar doctor` says why".to_owned(),
    }
}

/// Whether it is in use, and what will become of it by itself.
fn rests(sandbox: &Sandbox, now: SystemTime) -> String {
    let Activity { requests, last_used_at_ms, next } = sandbox.activity;
    let used = match requests {
        0 => format!("for {}", format_age(last_used_at_ms, now)),
        1 => "no, 1 request is under way".to_owned(),
        some => format!("no, {some} requests are under way"),
    };
    let Some(NextRung { rung, at_ms, reason }) = next else {
        return match sandbox.idle.keep_alive {
            true => format!("{used}; kept alive"),
            false => used,
        };
    };
    let what = match rung {
        Rung::Freeze => "frozen",
        Rung::Reclaim => "pushed out of memory",
        Rung::Stop => "stopped",
        Rung::Destroy => "destroyed",
    };
    let why = match reason {
        RungReason::Idle => "unless somebody uses it",
        RungReason::Ttl => "its time to live is over then",
    };
    let now_ms = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let left = at_ms.saturating_sub(i64::try_from(now_ms).unwrap_or(i64::MAX)).max(0);
    let left = Duration::from_secs(u64::try_from(left / 1000).unwrap_or(0));
    format!("{used}; {what} in {}, {why}", humantime::format_duration(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_limits_and_what_is_used() {
        let sandbox: Sandbox = serde_json::from_value(serde_json::json!({
            "id": "a", "state": "running", "image": "default", "network": {"allow": ["a.example:443", "203.0.113.0/24"]},
            "env": {"A": "b\n\u{1b}c"}, "labels": {}, "createdAtMs": 0,
            "resources": {"memoryBytes": 1 << 30, "pids": 100, "cpuMillis": 1500,
                "cpuWeight": 400, "diskBytes": 1 << 30},
            "activity": {"requests": 0, "lastUsedAtMs": 0,
                "next": {"rung": "freeze", "reason": "idle", "atMs": 598_000}},
            "usage": {"memoryBytes": 2 << 20, "pids": 3, "cpuMs": 7, "oomKills": 0, "diskBytes": 1 << 20,
                      "network": {"refusedPackets": 4, "refusedNames": 5,
                                  "newestRefusedNames": ["pypi.org"]}},
            "services": [{"name": "web", "command": "serve -v", "port": 80, "restart": "onFailure"},
                {"name": "sync", "command": ["sync", "\u{1b}"]}]
        }))
        .unwrap();
        let page = page(&sandbox, SystemTime::UNIX_EPOCH);
        for line in [
            "memory    2.0 MiB of 1.0 GiB",
            "pids      3 of 100",
            "cpu       7 ms used, 1.5 CPUs at most, weight 400",
            "network   a.example:443",
            "network   203.0.113.0/24",
            "refused   4 packets, 5 names",
            "          pypi.org",
            "disk      1.0 MiB of 1.0 GiB",
            "idle      for 0s; frozen in 9m 58s, unless somebody uses it",
            "env       A=b\\n\\u{1b}c",
            "service   web: serve -v (restarted on failure, ready on port 80)",
            "service   sync: sync \\u{1b} (restarted always)",
        ] {
            assert!(page.lines().any(|found| found == line), "{line:?} in\n{page}");
        }
    }
}
