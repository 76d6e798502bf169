//! Waits for a process: its end, a line, a port.

use std::time::Duration;

use api::{
    error::{ApiError, ErrorCode},
    limit::WAITS_PER_SANDBOX,
    process::OutputStream,
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Agent, post, within};

fn body(until: &Value, timeout_ms: u64) -> Value {
    json!({"until": until, "timeoutMs": timeout_ms})
}

async fn refused(agent: &Agent, name: &str, until: Value, timeout_ms: u64) -> ApiError {
    let url = format!("/processes/{name}/wait");
    agent.refused(post(&url, &body(&until, timeout_ms))).await.1
}

#[tokio::test]
async fn an_end_is_waited_for() {
    let agent = Agent::start();
    agent.start_process(json!({"command": "sleep 0.1; exit 7", "id": "p"})).await;

    for _ in 0..2 {
        let ready = agent.wait("p", json!({"type": "exit"})).await;
        assert_eq!((ready.process.exit_code, ready.line, ready.status), (Some(7), None, None));
    }
    assert_eq!(
        refused(&agent, "never", json!({"type": "exit"}), 1).await.code,
        ErrorCode::ProcessNotFound
    );
}

#[tokio::test]
async fn a_line_of_the_past_or_of_the_future_is_found() {
    let agent = Agent::start();
    let script = "echo one; echo listening on 0.0.0.0:8080 >&2; \
        while [ ! -e go ]; do sleep 0.01; done; printf 'name: '; sleep 1000";
    agent.start_process(json!({"command": script, "id": "p"})).await;

    let pattern = json!({"type": "log", "pattern": r"on ([\d.]+):(\d+)$"});
    for _ in 0..2 {
        let line = agent.wait("p", pattern.clone()).await.line.unwrap();
        assert_eq!(
            (line.stream, line.text.as_str()),
            (OutputStream::Stderr, "listening on 0.0.0.0:8080")
        );
        let groups: Vec<_> = line.groups.iter().flatten().map(String::as_str).collect();
        assert_eq!(groups, ["on 0.0.0.0:8080", "0.0.0.0", "8080"]);
    }
    let only_stdout = json!({"type": "log", "text": "listening", "stream": "stdout"});
    let timed_out = refused(&agent, "p", only_stdout, 50).await;
    assert_eq!(timed_out.code, ErrorCode::ProcessReadyTimeout);
    assert_eq!(timed_out.details["timeout"], 50);
    assert_eq!(timed_out.details["processId"], "p");
    assert!(timed_out.details["condition"].as_str().unwrap().contains("listening"));
    assert!(timed_out.message.contains("within 50ms"), "{}", timed_out.message);

    // A prompt has no line end.
    let prompt = agent.wait("p", json!({"type": "log", "text": "name: "}));
    let (prompt, _) = within(futures_util::future::join(prompt, agent.sh("touch go"))).await;
    assert_eq!(prompt.line.unwrap().text, "name: ");
}

#[tokio::test]
async fn a_process_that_ends_first_is_told_with_its_code() {
    let agent = Agent::start();
    agent.start_process(json!({"command": "echo wrong; exit 5", "id": "p"})).await;

    for until in [
        json!({"type": "log", "text": "right"}),
        json!({"type": "log", "pattern": "^right$"}),
        json!({"type": "port", "port": 1}),
        json!({"type": "http", "port": 1}),
    ] {
        let error = refused(&agent, "p", until.clone(), 20_000).await;
        assert_eq!(error.code, ErrorCode::ProcessExitedBeforeReady, "{until}");
        assert_eq!(error.details["exitCode"], 5);
    }
    agent.start_process(json!({"command": "printf 'last words'", "id": "q"})).await;
    let line = agent.wait("q", json!({"type": "log", "pattern": "^last words$"})).await.line;
    assert_eq!(line.unwrap().text, "last words");
}

/// A server on a port of its own choice, which it prints; after `delay` it answers `/` with 404 and
/// `/health` with 503 twice, then with 204.
const SERVER: &str = "\
import http.server, socket, sys
class H(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        H.asked += self.path == '/health'
        self.send_response(404 if self.path == '/' else 503 if H.asked < 3 else 204)
        self.end_headers()
    def log_message(self, *args): pass
class S(http.server.HTTPServer):
    address_family = socket.AF_INET6 if sys.argv[1] == '::1' else socket.AF_INET
s = S((sys.argv[1], 0), H, bind_and_activate=False)
s.server_bind()
print(s.server_port, flush=True)
import time; time.sleep(0.1)
s.server_activate()
s.serve_forever()
";

#[tokio::test]
async fn a_port_and_a_page_are_waited_for_on_both_loopbacks() {
    let agent = Agent::start();
    for address in ["127.0.0.1", "::1"] {
        let command = json!(["python3", "-c", SERVER, address]);
        let server = agent.start_process(json!({"command": command})).await;
        let name = server.id.as_str();
        let line = agent.wait(name, json!({"type": "log", "pattern": "^[0-9]+$"})).await.line;
        let port: u16 = line.unwrap().text.parse().unwrap();

        agent.wait(name, json!({"type": "port", "port": port})).await;
        let wanted = json!({"type": "http", "port": port, "path": "/health"});
        assert_eq!(agent.wait(name, wanted).await.status, Some(204));
        let any = json!({"type": "http", "port": port, "statusMin": 400, "statusMax": 499});
        assert_eq!(agent.wait(name, any).await.status, Some(404));
        let never = json!({"type": "http", "port": port});
        let error = refused(&agent, name, never, 100).await;
        assert_eq!(error.code, ErrorCode::ProcessReadyTimeout);
        assert!(error.details["condition"].as_str().unwrap().contains("200 to 399"), "{error:?}");
    }
}

#[tokio::test]
async fn waits_that_cannot_end_are_refused() {
    let agent = Agent::start();
    agent.start_process(json!({"command": "sleep 1000", "id": "p"})).await;
    for until in [
        json!({"type": "log"}),
        json!({"type": "log", "text": "a", "pattern": "a"}),
        json!({"type": "log", "text": ""}),
        json!({"type": "log", "pattern": "("}),
        json!({"type": "log", "pattern": r"(a)\1"}),
        json!({"type": "port", "port": 0}),
        json!({"type": "port", "port": 65536}),
        json!({"type": "http", "port": 80, "path": "x"}),
        json!({"type": "http", "port": 80, "path": "/a b"}),
        json!({"type": "http", "port": 80, "statusMin": 300, "statusMax": 200}),
        json!({"type": "exit", "code": 1}),
        json!({"type": "moon"}),
    ] {
        let error = refused(&agent, "p", until.clone(), 1000).await;
        assert_eq!(error.code, ErrorCode::ValidationFailed, "{until}");
    }
    for timeout_ms in [0, 86_400_001] {
        let error = refused(&agent, "p", json!({"type": "exit"}), timeout_ms).await;
        assert_eq!(error.details["field"], "timeoutMs");
    }
}

#[tokio::test]
async fn a_line_in_a_flood_is_found_while_others_are_served() {
    let agent = Agent::start();
    let script = "yes | tr -d '\\n' | head -c 200000000; echo; echo found $((6*7))";
    agent.start_process(json!({"command": script, "id": "p"})).await;

    let waiting = agent.wait("p", json!({"type": "log", "pattern": r"^found (\d+)$"}));
    let (ready, echo) = within(futures_util::future::join(waiting, agent.sh("echo served"))).await;

    assert_eq!(ready.line.unwrap().groups[1].as_deref(), Some("42"));
    assert_eq!(echo.stdout, "served\n");
}

#[tokio::test]
async fn one_wait_too_many_is_told_to_come_later() {
    let agent = Agent::start();
    agent.start_process(json!({"command": "sleep 1000", "id": "p"})).await;
    let request = || post("/processes/p/wait", &json!({"until": {"type": "exit"}}));
    let mut waiting = Vec::new();
    for _ in 0..WAITS_PER_SANDBOX {
        let mut sender = agent.connect().await;
        let mut answer = Box::pin(async move { sender.send_request(request()).await });
        assert!(tokio::time::timeout(Duration::from_millis(2), answer.as_mut()).await.is_err());
        waiting.push(answer);
    }

    // The last of them may not have been read yet.
    let (status, headers, _) = loop {
        let wait = agent.send(post("/processes/p/wait", &body(&json!({"type": "exit"}), 1))).await;
        if wait.0 != StatusCode::REQUEST_TIMEOUT {
            break wait;
        }
    };
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(headers["retry-after"], "1");
    drop(waiting);
}
