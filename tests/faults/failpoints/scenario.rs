//! The operations, and the points that each comes to.

use std::{collections::BTreeSet, fs};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use testkit::{Server, reqwest::Method};

/// What came of an operation: its status, if an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer(Option<u16>);

impl Answer {
    pub(super) fn is_done(self) -> bool {
        self.0.is_some_and(|status| status < 300)
    }
}

/// What an operation does outside memory. Points stand around each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// A change of the records.
    Record(&'static str),
    /// Something that a launcher does.
    Request(&'static str),
    /// The launcher's part of building a jail.
    Build,
    /// The socket of an agent is made.
    Socket,
}

use Effect::{Build, Record, Request, Socket};

impl Effect {
    /// Its points, in the order in which they are come to.
    pub(super) fn points(self) -> Vec<String> {
        let list = |points: &[&str]| points.iter().map(|point| (*point).to_owned()).collect();
        match self {
            Record(name) => vec![format!("record.{name}"), format!("record.{name}.done")],
            Request(name) => vec![
                format!("ask.{name}"),
                format!("launcher.{name}"),
                format!("launcher.{name}.done"),
                format!("heard.{name}"),
            ],
            Build => list(&[
                "launch.cgroups",
                "launch.hear-U",
                "launch.tell-M",
                "launch.hear-P",
                "launch.tell-G",
                "launch.tell-L",
                "launch.hear-exec",
            ]),
            Socket => list(&["socket.listen", "socket.listen.done"]),
        }
    }
}

type Step = for<'a> fn(&'a Server) -> BoxFuture<'a, ()>;
type Operation = for<'a> fn(&'a Server) -> BoxFuture<'a, Answer>;
type Check = for<'a> fn(&'a Server, Answer, &'a str) -> BoxFuture<'a, ()>;

/// One operation on a sandbox `s`.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) prepare: Step,
    pub(super) carry_out: Operation,
    /// What holds after a restart.
    pub(super) check: Check,
    /// What it does, in order.
    pub(super) effects: &'static [Effect],
}

impl Scenario {
    /// Its points, each once: what comes to a point twice is stopped the first time.
    pub(super) fn points(&self) -> BTreeSet<String> {
        self.effects.iter().flat_map(|effect| effect.points()).collect()
    }
}

pub(super) const SCENARIOS: [Scenario; 13] = [
    Scenario {
        name: "create",
        prepare: |_| Box::pin(async {}),
        carry_out: |server| Box::pin(create(server)),
        check: |server, answer, case| Box::pin(check_created(server, answer, case)),
        effects: &[Record("create"), Socket, Request("launch"), Build, Record("phase-running")],
    },
    Scenario {
        name: "start",
        prepare: |server| {
            Box::pin(async move {
                make(server).await;
                done(post(server, "stop", json!({})).await);
            })
        },
        carry_out: |server| Box::pin(post(server, "start", json!({}))),
        check: |server, _, case| Box::pin(check_kept(server, case)),
        effects: &[
            Record("phase-starting"),
            Socket,
            Request("clear"),
            Request("launch"),
            Build,
            Record("phase-running"),
        ],
    },
    Scenario {
        name: "stop",
        prepare: |server| Box::pin(make(server)),
        carry_out: |server| Box::pin(post(server, "stop", json!({}))),
        check: |server, answer, case| {
            Box::pin(async move {
                let state = server.get("/v1/sandboxes/s").await.json["state"].clone();
                assert!(!answer.is_done() || state == "stopped", "{case}: {state}");
                check_kept(server, case).await;
            })
        },
        effects: &[Request("notify"), Request("thaw"), Request("clear"), Record("phase-stopped")],
    },
    Scenario {
        name: "destroy",
        prepare: |server| Box::pin(make(server)),
        carry_out: |server| Box::pin(ask(server, Method::DELETE, "", Value::Null)),
        check: |server, answer, case| Box::pin(check_destroyed(server, answer, case)),
        effects: &[Record("bury"), Request("kill"), Request("remove"), Record("buried")],
    },
    Scenario {
        name: "destroy with a checkpoint",
        prepare: |server| Box::pin(make_with_checkpoint(server)),
        carry_out: |server| Box::pin(ask(server, Method::DELETE, "", Value::Null)),
        check: |server, answer, case| Box::pin(check_destroyed(server, answer, case)),
        effects: &[
            Record("bury"),
            Request("kill"),
            Request("remove"),
            Request("remove-files"),
            Record("buried"),
        ],
    },
    Scenario {
        name: "freeze",
        prepare: |server| Box::pin(make(server)),
        carry_out: |server| Box::pin(post(server, "freeze", json!({}))),
        check: |server, answer, case| {
            Box::pin(async move {
                let state = server.get("/v1/sandboxes/s").await.json["state"].clone();
                assert!(!answer.is_done() || state == "frozen", "{case}: {state}");
                check_runs_on(server, case).await;
            })
        },
        effects: &[Request("freeze")],
    },
    Scenario {
        name: "thaw",
        prepare: |server| {
            Box::pin(async move {
                make(server).await;
                done(post(server, "freeze", json!({})).await);
            })
        },
        carry_out: |server| Box::pin(post(server, "exec", json!({"command": "true"}))),
        check: |server, _, case| Box::pin(check_runs_on(server, case)),
        effects: &[Request("thaw")],
    },
    Scenario {
        name: "change",
        prepare: |server| Box::pin(make(server)),
        carry_out: |server| {
            let network = json!({"network": {"allow": []}, "labels": {"changed": "yes"}});
            Box::pin(ask(server, Method::PATCH, "", network))
        },
        check: |server, answer, case| {
            Box::pin(async move {
                let label = server.get("/v1/sandboxes/s").await.json["labels"]["changed"].clone();
                assert!(!answer.is_done() || label == "yes", "{case}: {label}");
                check_runs_on(server, case).await;
            })
        },
        effects: &[Record("settings"), Request("admit")],
    },
    Scenario {
        name: "checkpoint",
        prepare: |server| Box::pin(make(server)),
        carry_out: |server| Box::pin(post(server, "checkpoints", json!({"id": "c"}))),
        check: |server, answer, case| Box::pin(check_checkpoint(server, answer, ("c", case))),
        effects: &[
            Record("bury"),
            Request("freeze"),
            Request("copy-volume"),
            Request("thaw"),
            Record("checkpoint"),
        ],
    },
    Scenario {
        name: "import",
        prepare: |server| Box::pin(make_with_export(server)),
        carry_out: |server| Box::pin(import(server)),
        check: |server, answer, case| Box::pin(check_checkpoint(server, answer, ("d", case))),
        effects: &[
            Record("bury"),
            Socket,
            Request("launch"),
            Build,
            Request("clear"),
            Request("copy-volume"),
            Record("checkpoint"),
            Request("remove-files"),
            Record("buried"),
        ],
    },
    Scenario {
        name: "remove a checkpoint",
        prepare: |server| Box::pin(make_with_checkpoint(server)),
        carry_out: |server| Box::pin(ask(server, Method::DELETE, "checkpoints/c", Value::Null)),
        check: |server, answer, case| {
            Box::pin(async move {
                let there = server.get("/v1/sandboxes/s/checkpoints/c").await.status == 200;
                assert!(!there || !answer.is_done(), "{case}");
                check_runs_on(server, case).await;
            })
        },
        effects: &[Record("bury"), Request("remove-files"), Record("buried")],
    },
    Scenario {
        name: "restore",
        prepare: |server| {
            Box::pin(async move {
                make_with_checkpoint(server).await;
                server.shell("s", "echo new > since").await;
            })
        },
        carry_out: |server| Box::pin(post(server, "restore", json!({"checkpoint": "c"}))),
        check: |server, answer, case| {
            Box::pin(async move {
                let since = server.shell("s", "cat since 2> /dev/null || echo gone").await;
                assert!(!answer.is_done() || since == "gone\n", "{case}: {since}");
                check_kept(server, case).await;
            })
        },
        effects: &[
            Request("notify"),
            Request("thaw"),
            Request("clear"),
            Record("phase-stopped"),
            Record("bury"),
            Request("copy-volume"),
            Record("files"),
            Request("remove-files"),
            Record("buried"),
        ],
    },
    Scenario {
        name: "fork",
        prepare: |server| Box::pin(make(server)),
        carry_out: |server| Box::pin(post(server, "fork", json!({"ids": ["f"]}))),
        check: |server, answer, case| {
            Box::pin(async move {
                let there = server.get("/v1/sandboxes/f").await.status == 200;
                assert!(there || !answer.is_done(), "{case}");
                if there {
                    assert_eq!(server.shell("f", "cat kept").await, "kept\n", "{case}");
                }
                check_runs_on(server, case).await;
            })
        },
        effects: &[
            Record("bury"),
            Request("freeze"),
            Request("copy-volume"),
            Request("thaw"),
            Record("create"),
            Socket,
            Request("launch"),
            Build,
            Record("files"),
            Record("phase-running"),
            Request("remove-files"),
            Record("buried"),
        ],
    },
];

/// Effects beside the operations: of what looks at sandboxes, of a start and an end of the server, of
/// what is about no sandbox, and of what others test.
pub(super) const ELSEWHERE: [Effect; 23] = [
    // Only what was made ahead gets another name: `pool.rs`.
    Request("name"),
    Request("jails"),
    Request("volumes"),
    Request("set-up-network"),
    Request("set-up-volumes"),
    Request("tear-down"),
    // Of what is left behind.
    Request("remove-links"),
    Record("remains"),
    Request("refused"),
    Request("volume-bytes"),
    Request("learn"),
    Request("reclaim"),
    Record("create-key"),
    Record("remove-key"),
    Record("key-used"),
    Record("port"),
    Record("create-webhook"),
    Record("remove-webhook"),
    Record("webhook-cursor"),
    // An event alone: frozen, thawed, out of memory.
    Record("nothing"),
    // Recorded with the row itself.
    Record("phase-creating"),
    // Of an adopted sandbox the policy is put in force again.
    Request("admit"),
    Record("phase-failed"),
];

async fn ask(server: &Server, method: Method, path: &str, body: Value) -> Answer {
    let slash = if path.is_empty() { "" } else { "/" };
    let request = server.request(method, &format!("/v1/sandboxes/s{slash}{path}"));
    let request = if body.is_null() { request } else { request.json(&body) };
    let Ok(response) = request.send().await else { return Answer(None) };
    let status = response.status().as_u16();
    // Cut off in the middle, it is no answer.
    Answer(response.bytes().await.is_ok().then_some(status))
}

async fn post(server: &Server, path: &str, body: Value) -> Answer {
    ask(server, Method::POST, path, body).await
}

fn done(answer: Answer) {
    assert!(answer.is_done(), "{answer:?}");
}

async fn create(server: &Server) -> Answer {
    let request = server.request(Method::POST, "/v1/sandboxes").json(&json!({"id": "s"}));
    let Ok(response) = request.send().await else { return Answer(None) };
    let status = response.status().as_u16();
    Answer(response.bytes().await.is_ok().then_some(status))
}

/// A sandbox with a file and a process.
async fn make(server: &Server) {
    server.shell("s", "echo kept > kept; sync; sleep 1000 & echo $! > pid").await;
}

async fn make_with_checkpoint(server: &Server) {
    make(server).await;
    done(post(server, "checkpoints", json!({"id": "c"})).await);
}

/// The export of a checkpoint is beside the state of the server.
async fn make_with_export(server: &Server) {
    make_with_checkpoint(server).await;
    let export = server.request(Method::GET, "/v1/sandboxes/s/checkpoints/c/export");
    let export = export.send().await.expect("the server answers").bytes().await;
    let export = export.expect("the export comes whole");
    fs::write(server.state_dir().join("export"), export).expect("the export can be kept");
}

async fn import(server: &Server) -> Answer {
    let path = "/v1/sandboxes/s/checkpoints:import?checkpoint=d";
    let export = fs::read(server.state_dir().join("export")).expect("the export is kept");
    let Ok(response) = server.request(Method::POST, path).body(export).send().await else {
        return Answer(None);
    };
    let status = response.status().as_u16();
    Answer(response.bytes().await.is_ok().then_some(status))
}

/// Not there, or whole.
async fn check_checkpoint(server: &Server, answer: Answer, (id, case): (&str, &str)) {
    let found = server.get(&format!("/v1/sandboxes/s/checkpoints/{id}")).await;
    assert!(found.status == 200 || !answer.is_done(), "{case}: {}", found.text);
    if found.status == 200 {
        done(post(server, "fork", json!({"checkpoint": id, "ids": ["of-it"]})).await);
        assert_eq!(server.shell("of-it", "cat kept").await, "kept\n", "{case}");
    }
    check_runs_on(server, case).await;
}

/// Whatever became of it: the id can be used, and is the sandbox that was told of.
async fn check_created(server: &Server, answer: Answer, case: &str) {
    if answer.is_done() {
        let found = server.get("/v1/sandboxes/s").await;
        assert_eq!(found.json["state"], "running", "{case}: {}", found.text);
    }
    assert_eq!(server.shell("s", "echo works").await, "works\n", "{case}");
}

async fn check_kept(server: &Server, case: &str) {
    assert_eq!(server.shell("s", "cat kept").await, "kept\n", "{case}");
}

/// Its process is there still.
async fn check_runs_on(server: &Server, case: &str) {
    let seen = server.shell("s", "cat kept; kill -0 $(cat pid) && echo runs").await;
    assert_eq!(seen, "kept\nruns\n", "{case}");
}

/// Gone, or whole: then it can be destroyed.
async fn check_destroyed(server: &Server, answer: Answer, case: &str) {
    let found = server.get("/v1/sandboxes/s").await;
    assert!(found.status == 404 || !answer.is_done(), "{case}: {}", found.text);
    if found.status == 200 {
        check_kept(server, case).await;
    } else {
        // The id can be used again, and finds nothing of the past.
        assert_eq!(server.shell("s", "ls").await, "", "{case}");
    }
}
