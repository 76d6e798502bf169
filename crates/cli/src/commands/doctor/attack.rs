//! `sandbar doctor --attack`: tries to break out of a real sandbox of the running server, and prints
//! what held.
//!
//! The probes are those of the repository's own tests, in `attacks/`. They are harmless where they
//! work: they open and do not write, or make calls that fail after the kernel has let them in.

use std::{
    collections::BTreeMap,
    fs,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use api::{
    error::ErrorCode,
    exec::{Command, ExecRequest, ExecResult},
    file::WriteFile,
    id::{ImageRef, SandboxId},
    network::NetworkPolicy,
    sandbox::{CreateSandbox, Resources},
};
use client::{Client, ClientError};
use owo_colors::{OwoColorize as _, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    commands::run::{create, destroy, generate_id},
    output::{Output, note, print_json, print_line},
    signals::Signals,
};

/// The program of the probes: what they are, the lists, and its start.
const PROGRAM: &str = concat!(
    include_str!("../../../../../attacks/probe.py"),
    include_str!("../../../../../attacks/escape.py"),
    include_str!("../../../../../attacks/leak.py"),
    "\n\nmain()\n"
);

/// What each attack is after, by its id.
const TABLE: &str = include_str!("../../../../../attacks/ids.toml");

/// Where the program is in the sandbox.
const PATH: &str = "/tmp/sandbar-attack.py";

/// What the attacked sandboxes may use: the probes need little.
const RESOURCES: Resources = Resources {
    memory_bytes: Some(256 << 20),
    pids: Some(128),
    cpu_millis: Some(1000),
    cpu_weight: None,
    disk_bytes: None,
};

/// Milliseconds for all probes; they take about two seconds.
const PATIENCE_MS: u64 = 120_000;

/// One line of the program.
#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    id: String,
    what: String,
    outcome: Outcome,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// The sandbox held.
    Held,
    /// The attack worked.
    Broken,
    /// This machine has nothing to attack.
    Absent,
    /// The probe itself is at fault.
    Error,
}

/// What an attack is after.
#[derive(Debug, Deserialize)]
struct Attack {
    attack: String,
}

/// Attacks a new sandbox beside another new one, and destroys both. Succeeds when everything held.
pub(crate) async fn run(
    image: Option<ImageRef>,
    out: Output,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let (mut attacked, mut neighbour) = (generate_id("")?, generate_id("")?);
    let result = signals
        .unless(async {
            for id in [&mut attacked, &mut neighbour] {
                let settings = CreateSandbox {
                    image: image.clone(),
                    resources: RESOURCES,
                    network: NetworkPolicy::None,
                    ..CreateSandbox::default()
                };
                create(&client, id, settings).await?;
                let options = WriteFile::default();
                client.write_file(id, PATH, &options, PROGRAM).await.context("could not attack")?;
            }
            attack(&client, &attacked, &neighbour).await
        })
        .await;
    for id in [&attacked, &neighbour] {
        signals.unless(destroy(id, false, out)).await?;
    }
    report(&result??, out)
}

async fn attack(
    client: &Client,
    attacked: &SandboxId,
    neighbour: &SandboxId,
) -> anyhow::Result<Vec<Finding>> {
    let told = python(client, neighbour, &["facts"], None).await?;
    let neighbour: Value = serde_json::from_str(&told).context("the neighbour said nonsense")?;
    let facts = json!({"host": facts(), "neighbour": neighbour});
    let found = python(client, attacked, &[], Some(facts.to_string())).await?;
    let findings = found.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
    findings.context("the probes said nonsense")
}

/// Runs the program and returns what it printed.
async fn python(
    client: &Client,
    id: &SandboxId,
    arguments: &[&str],
    stdin: Option<String>,
) -> anyhow::Result<String> {
    let argv = ["python3", PATH].iter().chain(arguments);
    let request = ExecRequest {
        stdin,
        timeout_ms: Some(PATIENCE_MS),
        ..ExecRequest::new(Command::Program(argv.map(|&argument| argument.to_owned()).collect()))
    };
    match client.exec(id, &request).await {
        Ok(ExecResult { success: true, stdout, .. }) => Ok(stdout),
        Ok(ended) => bail!("the probes ended early ({:?}): {}", ended.ending, ended.stderr),
        Err(ClientError::Api { error, .. }) if error.code == ErrorCode::CommandNotFound => {
            bail!(
                "the probes need python3, which the image does not have; name another with --image"
            )
        }
        Err(error) => Err(error).context("could not attack"),
    }
}

/// What the sandbox must not learn of this machine. Where the server is on another one, the probes
/// that compare with it hold for want of anything to find.
fn facts() -> Value {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let kinds = ["user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"];
    let link = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
    let namespaces: BTreeMap<_, _> = kinds.iter().map(|kind| (*kind, link(kind))).collect();
    let memory = text("/proc/meminfo");
    let memory = memory.lines().next().and_then(|line| line.split_once(':'));
    let uptime = text("/proc/uptime");
    let uptime: f64 =
        uptime.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let load = text("/proc/loadavg");
    let threads = load.split(['/', ' ']).nth(4).and_then(|number| number.parse::<u64>().ok());
    json!({
        "namespaces": namespaces,
        "boot_id": text("/proc/sys/kernel/random/boot_id"),
        "machine_id": text("/etc/machine-id"),
        "hostname": text("/proc/sys/kernel/hostname"),
        "memory": memory.map(|(_, amount)| amount.trim()),
        "uptime": uptime,
        "btime": now - uptime,
        "threads": threads,
    })
}

fn report(findings: &[Finding], out: Output) -> anyhow::Result<ExitCode> {
    let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
    let (held, absent) = (count(Outcome::Held), count(Outcome::Absent));
    let bad = findings.len() - held - absent;
    if out.json {
        print_json(&json!({"ok": bad == 0, "held": held, "broken": count(Outcome::Broken),
            "absent": absent, "probes": findings}))?;
    } else {
        for line in lines(findings)? {
            print_line(line)?;
        }
        print_line(format!(
            "{} attacks with {} probes: {held} held, {bad} did not, {absent} have nothing to attack here.",
            by_id(findings).len(),
            findings.len(),
        ))?;
    }
    if bad > 0 {
        note(out, format_args!("this sandbox does not hold; SECURITY.md says where to report it"));
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn by_id(findings: &[Finding]) -> BTreeMap<&str, Vec<&Finding>> {
    let mut groups: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        groups.entry(&finding.id).or_default().push(finding);
    }
    groups
}

/// A line for each attack, and one below it for each of its probes that did not hold.
fn lines(findings: &[Finding]) -> anyhow::Result<Vec<String>> {
    let table: BTreeMap<String, Attack> = toml::from_str(TABLE).context("the list of attacks")?;
    let mut lines = Vec::new();
    for (id, group) in by_id(findings) {
        let about = table.get(id).map_or("", |attack| attack.attack.as_str());
        let has = |outcome| group.iter().any(|finding| finding.outcome == outcome);
        let (word, is_good) = match (has(Outcome::Broken), has(Outcome::Error), has(Outcome::Held))
        {
            (true, _, _) => ("BROKEN", false),
            (_, true, _) => ("error", false),
            (_, _, true) => ("held", true),
            _ => ("absent", true),
        };
        let word = format!("{word:<7}");
        let word = if is_good {
            word.if_supports_color(Stream::Stdout, |word| word.green()).to_string()
        } else {
            word.if_supports_color(Stream::Stdout, |word| word.red()).to_string()
        };
        lines.push(format!("{word} {id}  {about} ({})", group.len()));
        let bad = group
            .iter()
            .filter(|finding| matches!(finding.outcome, Outcome::Broken | Outcome::Error));
        lines.extend(bad.map(|finding| format!("        {}: {}", finding.what, finding.detail)));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, what: &str, outcome: Outcome) -> Finding {
        Finding {
            id: id.to_owned(),
            what: what.to_owned(),
            outcome,
            detail: "it worked".to_owned(),
        }
    }

    #[test]
    fn what_did_not_hold_is_told_below_its_attack() {
        let findings = [
            finding("E05", "mount tmpfs", Outcome::Held),
            finding("E05", "mount proc", Outcome::Broken),
            finding("I16", "a keyring", Outcome::Held),
            finding("I17", "a socket", Outcome::Absent),
        ];

        let lines = lines(&findings).unwrap();

        assert_eq!(lines.len(), 4);
        assert!(lines[0].contains("BROKEN") && lines[0].ends_with("E05  mount (2)"), "{lines:?}");
        assert_eq!(lines[1].trim(), "mount proc: it worked");
        assert!(lines[2].contains("held") && lines[3].contains("absent"), "{lines:?}");
    }
}
