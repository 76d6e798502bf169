//! The same cells here and in Jupyter's own kernel, beside each other in one sandbox: what comes is
//! compared by MIME type and content.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::api::interpreter::{RunOutput, RunResult};

use super::{SANDBOX, run, server, trust_what_this_machine_trusts};

const CELLS: &str = include_str!("cells.py");
const DRIVER: &str = include_str!("jupyter.py");

/// What Jupyter's kernel answered to a cell.
#[derive(Debug, Deserialize)]
struct Theirs {
    stdout: String,
    stderr: String,
    results: Vec<Shown>,
    error: Option<Failed>,
    count: u64,
}

#[derive(Debug, Deserialize)]
struct Shown {
    main: bool,
    data: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Failed {
    ename: String,
    evalue: String,
    traceback: Vec<String>,
}

/// What may differ between two runs of one cell, made equal.
struct Plain(Vec<(Regex, &'static str)>);

impl Plain {
    fn new() -> Self {
        let rules = [
            ("\x1b\\[[0-9;]*m", ""),
            (r"0x[0-9a-f]{8,}", "0x"),
            (r"/tmp/ipykernel_\d+/\d+\.py", "CELL"),
            (r"<ipython-input-\d+-[0-9a-f]+>", "CELL"),
            (r"\(\d+\.py, line", "(CELL, line"),
            // How deep a recursion gets depends on what is below it.
            (r"\(\d+ times\)", "(many times)"),
        ];
        Self(rules.map(|(rule, to)| (Regex::new(rule).expect("a rule"), to)).into())
    }

    fn of(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (rule, to)| rule.replace_all(&text, *to).into())
    }

    fn of_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.of(text).trim_end().to_owned()),
            other => other.clone(),
        }
    }
}

/// An output by MIME type, without what is an addition for programs.
fn data(output: &RunOutput, theirs: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let mut data: BTreeMap<String, Value> = output.extra.clone().into_iter().collect();
    for (mime, text) in [
        ("text/plain", &output.text),
        ("text/html", &output.html),
        ("text/markdown", &output.markdown),
        ("image/svg+xml", &output.svg),
        ("image/png", &output.png),
        ("image/jpeg", &output.jpeg),
        ("application/pdf", &output.pdf),
        ("text/latex", &output.latex),
        ("application/javascript", &output.javascript),
    ] {
        if let Some(text) = text {
            data.insert(mime.to_owned(), json!(text));
        }
    }
    if let Some(json) = output.json.as_ref().filter(|_| theirs.contains_key("application/json")) {
        data.insert("application/json".to_owned(), json.clone());
    }
    data
}

/// Of a traceback: the innermost line that it points at, and its last line. How many lines of code
/// around those are shown depends on how the kernel's files are kept.
fn gist(traceback: &str) -> String {
    let pointed =
        traceback.lines().rfind(|line| line.trim_start().starts_with("--") && line.contains("> "));
    let pointed = pointed.and_then(|line| line.split_once("> ")).map_or("", |(_, line)| line);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    format!(
        "{} / {}",
        words(pointed),
        words(traceback.trim_end().lines().last().unwrap_or_default())
    )
}

/// What of a cell differs.
fn differences(plain: &Plain, ours: &RunResult, theirs: &Theirs) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            found.push(format!("{what}:\n  ours:   {ours:?}\n  theirs: {theirs:?}"));
        }
    };
    compare("stdout", plain.of(&ours.logs.stdout.concat()), plain.of(&theirs.stdout));
    compare("stderr", plain.of(&ours.logs.stderr.concat()), plain.of(&theirs.stderr));
    compare("results", ours.results.len().to_string(), theirs.results.len().to_string());
    compare("count", ours.execution_count.to_string(), theirs.count.to_string());
    for (ours, theirs) in ours.results.iter().zip(&theirs.results) {
        let all = |data: &BTreeMap<String, Value>| {
            let plain = data.iter().map(|(mime, value)| (mime.clone(), plain.of_value(value)));
            format!("{:?}", plain.collect::<BTreeMap<_, _>>())
        };
        compare("is_main", ours.is_main.to_string(), theirs.main.to_string());
        compare("data", all(&data(ours, &theirs.data)), all(&theirs.data));
    }
    match (&ours.error, &theirs.error) {
        (None, None) => {}
        (Some(ours), Some(theirs)) => {
            compare("error", ours.name.clone(), theirs.ename.clone());
            compare("value", plain.of(&ours.value), plain.of(&theirs.evalue));
            compare(
                "traceback",
                gist(&plain.of(&ours.traceback.join("\n"))),
                gist(&plain.of(&theirs.traceback.join("\n"))),
            );
        }
        // Jupyter says on stderr alone that there is no such magic; here it is an error as well.
        (Some(ours), None) if ours.name == "UsageError" => {}
        (ours, theirs) => compare("error", format!("{ours:?}"), format!("{theirs:?}")),
    }
    found
}

#[tokio::test]
async fn cells_answer_as_in_jupyter() {
    let server = server();
    trust_what_this_machine_trusts(&server).await;
    let installed = run(&server, "%pip install --quiet --root-user-action=ignore ipykernel").await;
    assert!(installed.success, "{installed:?}");
    let restarted = format!("{SANDBOX}/contexts/default-python/restart");
    assert_eq!(server.post(&restarted, &json!({})).await.status, 200);

    let cells: Vec<&str> =
        CELLS.split("\n# %%\n").map(|cell| cell.trim_end_matches('\n')).collect();
    assert!(cells.len() >= 60, "{} cells", cells.len());
    let file = |name: &str| format!("{SANDBOX}/files/tmp/{name}");
    server.put(&file("cells.json"), serde_json::to_vec(&cells).expect("texts are JSON")).await;
    server.put(&file("jupyter.py"), DRIVER).await;
    server.shell("s", "python3 /tmp/jupyter.py /tmp/cells.json /tmp/answers.json").await;
    server.shell("s", "rm -r /tmp/module_of_cells.py /tmp/__pycache__").await;
    let answers = server.get(&file("answers.json")).await;
    let theirs: Vec<Theirs> = serde_json::from_str(&answers.text).expect("the driver's answers");
    assert_eq!(theirs.len(), cells.len());

    let plain = Plain::new();
    let mut found = Vec::new();
    for (number, (cell, theirs)) in cells.iter().zip(&theirs).enumerate() {
        let ours = run(&server, cell).await;
        let differences = differences(&plain, &ours, theirs);
        if !differences.is_empty() {
            found.push(format!("cell {number}:\n{cell}\n{}", differences.join("\n")));
        }
    }
    assert!(
        found.is_empty(),
        "{} of {} cells differ:\n\n{}",
        found.len(),
        cells.len(),
        found.join("\n\n")
    );
}
