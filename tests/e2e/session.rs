//! Sessions: shells that keep their state, that cannot be made to hang, and whose ends are told.

mod ending;
mod hostile;
mod output;
mod state;
mod table;
mod variables;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Answer, Server};

/// How long a test waits for what ought to be there at once.
const DEADLINE: Duration = Duration::from_secs(30);

const SANDBOX: &str = "/v1/sandboxes/s";
const EXEC: &str = "/v1/sandboxes/s/exec";
const SESSIONS: &str = "/v1/sandboxes/s/sessions";

/// The time limit of a command that must have begun when it is cut off: time enough on a machine that is
/// away for a while.
const BEGUN_MS: u64 = 3000;

/// Prints how many processes called `sleep` there are. One may go while they are looked at.
const SLEEPERS: &str = "cat /proc/[0-9]*/comm 2>/dev/null | grep -c '^sleep$' || true";

/// A session of the sandbox `s`.
struct Session<'a> {
    server: &'a Server,
    id: &'a str,
}

/// A session that is made when it is first used.
fn session<'a>(server: &'a Server, id: &'a str) -> Session<'a> {
    Session { server, id }
}

impl Session<'_> {
    /// The body of an exec in this session.
    fn body(&self, command: &str, more: Value) -> Value {
        let mut body = json!({"command": command, "session": self.id});
        let Value::Object(more) = more else { return body };
        body.as_object_mut().into_iter().for_each(|body| body.extend(more.clone()));
        body
    }

    async fn ask(&self, command: &str, more: Value) -> Answer {
        let body = self.body(command, more);
        let answer = self.server.post(EXEC, &body);
        let answer = tokio::time::timeout(DEADLINE, answer).await;
        assert!(answer.is_ok(), "hangs: {command}");
        answer.expect("it came in time")
    }

    /// Runs a command to its end: exit code, stdout, stderr.
    async fn run(&self, command: &str) -> (i64, String, String) {
        self.run_with(command, json!({})).await
    }

    async fn run_with(&self, command: &str, more: Value) -> (i64, String, String) {
        let answer = self.ask(command, more).await;
        assert_eq!(answer.status, 200, "{command}: {}", answer.text);
        assert_eq!(answer.json["sessionReset"], Value::Null, "{command}: {}", answer.text);
        let text = |name: &str| answer.json[name].as_str().unwrap_or_default().to_owned();
        (answer.json["exitCode"].as_i64().unwrap_or(-1), text("stdout"), text("stderr"))
    }

    /// The stdout of a command that succeeds and writes nothing to stderr.
    async fn out(&self, command: &str) -> String {
        let (code, stdout, stderr) = self.run(command).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{command}: {stdout}");
        stdout
    }

    /// Runs commands one after the other and expects this stdout of each, and nothing else.
    async fn expect(&self, commands: &[(&str, &str)]) {
        for (command, expected) in commands {
            assert_eq!(self.out(command).await, *expected, "{command}");
        }
    }

    /// The session's description.
    async fn look(&self) -> Value {
        self.server.get(&format!("{SESSIONS}/{}", self.id)).await.json
    }

    /// Waits until `is_so` of the session's description.
    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let look = async {
            while !is_so(&self.look().await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(DEADLINE, look).await;
        assert!(came.is_ok(), "not so: {what}: {}", self.look().await);
    }
}
