//! The probes of `attacks/`, in a sandbox, where all must hold, and in the control jail, where
//! nearly all must break: a probe that cannot fail proves nothing.
//!
//! Whoever wants the figures: `cargo test -p cli --test security -- --nocapture probes_`.

#![expect(clippy::print_stdout, reason = "the figures are for whoever asks for them")]

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::Server;

mod table;
pub(crate) mod warm_start;

/// What a probe is, and how probes are run.
const FRAME: &str = include_str!("../../attacks/probe.py");
pub(crate) const ESCAPE: &str = include_str!("../../attacks/escape.py");
pub(crate) const LEAK: &str = include_str!("../../attacks/leak.py");
pub(crate) const EXHAUSTION: &str = include_str!("../../attacks/exhaustion.py");
pub(crate) const TREE: &str = include_str!("../../attacks/tree.py");

/// The weakened jail.
const CONTROL: &str = include_str!("attack/control.sh");

/// Of the probes that this machine has something for, at least so many in a hundred must break in
/// the control jail.
const MUST_BREAK_PERCENT: usize = 90;

/// A variable of the server's own environment that no sandbox may see.
pub(crate) const CANARY: &str = "sbk_canary_0123456789_0123456789_01234567";

#[derive(Debug, Deserialize)]
pub(crate) struct Finding {
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) outcome: String,
    detail: String,
}

pub(crate) fn program(group: &str) -> String {
    format!("{FRAME}\n{group}\n\nmain()\n")
}

pub(crate) fn findings(lines: &str) -> Vec<Finding> {
    let finding = |line| serde_json::from_str(line).expect("a probe says one line of JSON");
    lines.lines().map(finding).collect()
}

/// What the host's side of the comparison knows.
pub(crate) fn facts_of_the_host() -> Value {
    let mut child = Command::new("python3")
        .args(["-", "facts"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(program("").as_bytes()).expect("python3 reads");
    drop(stdin);
    let said = child.wait_with_output().expect("python3 ends").stdout;
    serde_json::from_slice(&said).expect("facts are JSON")
}

/// Puts `group` into sandbox `s`, beside the sandbox `neighbour`, and returns what it is told.
pub(crate) async fn prepare(server: &Server, group: &str, facts: &Value) -> Value {
    let limits = json!({"memoryBytes": 256 << 20, "pids": 128, "cpuMillis": 1000});
    let created = server.post("/v1/sandboxes", &json!({"id": "s", "resources": limits})).await;
    assert!(created.status < 300, "{}", created.text);
    for id in ["s", "neighbour"] {
        server.put(&format!("/v1/sandboxes/{id}/files/tmp/probe.py"), program(group)).await;
    }
    let neighbour = server.shell("neighbour", "python3 /tmp/probe.py facts").await;
    let mut facts = facts.clone();
    facts["neighbour"] = serde_json::from_str(&neighbour).expect("facts are JSON");
    facts["secrets"] = json!([server.state_dir(), format!("sandbar-{}", server.slot().name())]);
    facts
}

/// Runs `group` as a program in sandbox `s`.
pub(crate) async fn in_a_sandbox(server: &Server, group: &str, facts: &Value) -> Vec<Finding> {
    let facts = prepare(server, group, facts).await;
    let body = json!({"command": ["python3", "/tmp/probe.py"], "stdin": facts.to_string()});
    let answer = server.post("/v1/sandboxes/s/exec", &body).await;
    assert_eq!(answer.json["exitCode"], 0, "{}", answer.text);
    findings(answer.json["stdout"].as_str().unwrap_or_default())
}

/// Runs `group` as code in a context of sandbox `s`, whose interpreter goes on from a warm start.
pub(crate) async fn in_a_context(server: &Server, group: &str, facts: &Value) -> Vec<Finding> {
    let facts = prepare(server, group, facts).await;
    server.put("/v1/sandboxes/s/files/tmp/facts", facts.to_string()).await;
    let code = "import sys\nsys.stdin = open('/tmp/facts')\n\
        assert open('/proc/self/cmdline').read().split('\\0')[1] == '__resume'\n\
        exec(compile(open('/tmp/probe.py').read(), 'probe.py', 'exec'), {'__name__': 'probe'})";
    let answer = server.post("/v1/sandboxes/s/run", &json!({"code": code})).await;
    assert_eq!(answer.json["success"], true, "{}", answer.text);
    let said = answer.json["logs"]["stdout"].as_array().expect("a run has its output");
    findings(&said.iter().filter_map(Value::as_str).collect::<String>())
}

/// Runs `group` in the control jail with the namespaces that `unshare` names.
pub(crate) fn in_the_control_jail(group: &str, unshare: &[&str], facts: &Value) -> Vec<Finding> {
    in_the_control_jail_by(None, group, unshare, facts)
}

/// The same from the file of a warm start, if there is one, which the server's program goes on from.
pub(crate) fn in_the_control_jail_by(
    warm_start: Option<&Path>,
    group: &str,
    unshare: &[&str],
    facts: &Value,
) -> Vec<Finding> {
    let mut program_file = tempfile::NamedTempFile::new().expect("a file can be made");
    program_file.write_all(program(group).as_bytes()).expect("it can be written");
    let mut facts = facts.clone();
    facts["neighbour"] = facts["host"].clone();
    facts["control"] = json!(true);
    facts["secrets"] = json!(["control"]);
    let mut child = Command::new("setsid")
        .args(["--wait", "unshare", "--mount", "--fork", "--kill-child"])
        .args(unshare)
        .args(["sh", "-c", CONTROL, "control"])
        .arg(program_file.path())
        .args(
            warm_start
                .map(|file| [Path::new(env!("CARGO_BIN_EXE_sandbar")), file])
                .iter()
                .flatten(),
        )
        .env("CANARY", CANARY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(facts.to_string().as_bytes()).expect("the control jail reads");
    drop(stdin);
    let output = child.wait_with_output().expect("the control jail ends");
    assert!(output.status.success(), "the control jail failed");
    findings(&String::from_utf8_lossy(&output.stdout))
}

fn count(findings: &[Finding], outcome: &str) -> usize {
    findings.iter().filter(|finding| finding.outcome == outcome).count()
}

/// What of `findings` did not hold.
pub(crate) fn faults<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Vec<String> {
    let faults =
        findings.into_iter().filter(|finding| !matches!(&*finding.outcome, "held" | "absent"));
    faults
        .map(|Finding { id, what, outcome, detail }| format!("{id} {what}: {outcome}, {detail}"))
        .collect()
}

/// Fails unless `held` all held and enough of `broke` broke.
pub(crate) fn judge(name: &str, held: &[Finding], broke: &[Finding]) {
    let ids: BTreeSet<&str> = held.iter().map(|finding| finding.id.as_str()).collect();
    let tried = broke.len() - count(broke, "absent");
    println!(
        "{name}: {} ids, {} probes: {} held, {} absent; control jail: {} of {tried} broke",
        ids.len(),
        held.len(),
        count(held, "held"),
        count(held, "absent"),
        count(broke, "broken"),
    );
    let stood = broke.iter().filter(|finding| finding.outcome == "held");
    let stood: Vec<_> = stood.map(|finding| format!("{} {}", finding.id, finding.what)).collect();
    println!("  stood there too: {stood:?}");
    let bad = faults(held.iter().chain(broke.iter().filter(|finding| finding.outcome == "error")));
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(held.len(), broke.len(), "the control jail runs the same probes");
    assert!(count(broke, "broken") * 100 >= tried * MUST_BREAK_PERCENT, "{stood:#?}");
}

/// A server with the canary in its environment.
pub(crate) fn server() -> Server {
    Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("KEY", CANARY)])
}

/// Namespaces of the control jail that keep what happens in it from the host.
pub(crate) const APART: [&str; 4] = ["--pid", "--uts", "--ipc", "--net"];
