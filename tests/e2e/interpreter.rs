//! The code interpreter: contexts that keep what code defines, on the default image.

mod bash;
mod command_line;
mod context;
mod ending;
mod jupyter;
mod limit;
mod node;
mod plot;
mod python;
mod rich;
mod stream;
mod warm;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    Answer, Server,
    api::interpreter::{RunOutput, RunResult},
};

/// How long a test waits for what ought to take a second or two.
const DEADLINE: Duration = Duration::from_secs(120);

/// The time limit of code that must have come to where it waits when it is cut off: time enough on a
/// machine that is away for a while.
const BEGUN_MS: u64 = 3000;

const SANDBOX: &str = "/v1/sandboxes/s";
const RUN: &str = "/v1/sandboxes/s/run";
const CONTEXTS: &str = "/v1/sandboxes/s/contexts";

/// A server whose sandboxes have Python, IPython, pandas and matplotlib.
fn server() -> Server {
    Server::start_with_default_image(env!("CARGO_BIN_EXE_sandbar"))
}

/// Gives the sandbox the certificates of this machine, whose way to the network may have its own.
async fn trust_what_this_machine_trusts(server: &Server) {
    let path = "etc/ssl/certs/ca-certificates.crt";
    let certificates = std::fs::read(format!("/{path}")).expect("ca-certificates is installed");
    let put = server.put(&format!("{SANDBOX}/files/{path}"), certificates).await;
    assert!(put.status < 300, "{}", put.text);
}

/// Asks for a run, in the default context of `more`'s language or in the context of `path`.
async fn ask(server: &Server, path: &str, code: &str, more: Value) -> Answer {
    let mut body = json!({ "code": code });
    if let Value::Object(more) = more {
        body.as_object_mut().into_iter().for_each(|body| body.extend(more.clone()));
    }
    let answer = tokio::time::timeout(DEADLINE, server.post(path, &body)).await;
    assert!(answer.is_ok(), "hangs: {code}");
    answer.expect("it came in time")
}

/// Runs code in a context.
async fn run_in(server: &Server, path: &str, code: &str, more: Value) -> RunResult {
    let answer = ask(server, path, code, more).await;
    assert_eq!(answer.status, 200, "{code}: {}", answer.text);
    serde_json::from_value(answer.json).expect("an answer reads as documented")
}

/// Runs code in the default context of Python.
async fn run(server: &Server, code: &str) -> RunResult {
    run_in(server, RUN, code, json!({})).await
}

/// Runs code that must end well, and returns what it showed.
async fn shows(server: &Server, code: &str) -> Vec<RunOutput> {
    let result = run(server, code).await;
    assert!(result.success, "{code}: {:?} {:?}", result.error, result.logs.stderr);
    result.results
}

/// The text of the value of code that must end well.
async fn value(server: &Server, code: &str) -> String {
    let results = shows(server, code).await;
    let main = results.iter().find(|result| result.is_main);
    main.and_then(|main| main.text.clone()).expect("code for its value has one")
}
