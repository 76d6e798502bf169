//! What is asked of one sandbox while things are killed, and what was acknowledged of it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use testkit::{
    Server,
    reqwest::{Method, header::ACCEPT},
};

use super::caller::Caller;

/// Bytes of a file: some pieces.
const FILE_BYTES: usize = 100_000;

/// Between two checkpoints, which are not to be all that happens.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_millis(50);

/// Between two times that a sandbox is put to rest.
const BETWEEN_RESTS: Duration = Duration::from_millis(200);

/// Lines that a command writes to a stream.
const STREAMED: u64 = 20;

/// Things that were done one by one, each at most once.
#[derive(Debug, Default)]
struct Numbered {
    begun: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
}

impl Numbered {
    fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Relaxed) + 1
    }

    fn acknowledge(&self, number: u64) {
        self.acknowledged.lock().unwrap().insert(number);
    }

    fn len(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Fails unless every one that was acknowledged has been, and none twice.
    fn check(&self, what: &str, lines: &str, server: &Server) {
        let mut seen = BTreeSet::new();
        for line in lines.lines() {
            let is_first = seen.insert(line.parse::<u64>().unwrap());
            assert!(is_first, "{what} {line} ran twice\n{}", server.log());
        }
        let acknowledged = self.acknowledged.lock().unwrap();
        let lost: Vec<_> = acknowledged.difference(&seen).collect();
        assert!(lost.is_empty(), "{what} {lost:?} are lost\n{}", server.log());
    }
}

#[derive(Debug)]
pub(super) struct Load {
    caller: Caller,
    id: String,
    /// The host name of its preview.
    host: String,
    is_over: AtomicBool,
    /// Writes of the one file: the last that was begun, and the last that was acknowledged.
    written: (AtomicU64, AtomicU64),
    /// Commands, by how they are run: by themselves, in a session, with what they write streamed.
    runs: Numbered,
    turns: Numbered,
    streams: Numbered,
    /// Those acknowledged whose removal was not begun are there.
    checkpoints: Numbered,
    made: AtomicU64,
    visits: AtomicU64,
}

impl Load {
    /// Makes the sandbox, with a preview of its files.
    pub(super) async fn begin(server: &Server, id: &str) -> Arc<Self> {
        let caller = Caller::of(server);
        let serve =
            json!({"name": "web", "command": "exec python3 -m http.server 8080", "port": 8080});
        let made = json!({"id": id, "services": [serve]});
        assert!(caller.post("", &made).await.is_some(), "{}", server.log());
        let exposed = caller.post(&format!("/{id}/ports"), &json!({"port": 8080})).await.unwrap();
        let url = exposed.json["url"].as_str().unwrap();
        let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Arc::new(Self {
            caller,
            id: id.to_owned(),
            host,
            is_over: AtomicBool::new(false),
            written: (AtomicU64::new(0), AtomicU64::new(0)),
            runs: Numbered::default(),
            turns: Numbered::default(),
            streams: Numbered::default(),
            checkpoints: Numbered::default(),
            made: AtomicU64::new(0),
            visits: AtomicU64::new(0),
        })
    }

    /// Asks until it is stopped.
    pub(super) async fn run(self: Arc<Self>) {
        self.is_over.store(false, Relaxed);
        let files = async { tokio::join!(self.write(), self.visit(), self.checkpoint()) };
        let commands = async { tokio::join!(self.exec(), self.take_turns(), self.stream()) };
        tokio::join!(files, commands, self.rest());
    }

    pub(super) fn stop(&self) {
        self.is_over.store(true, Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Relaxed)
    }

    fn path(&self, rest: &str) -> String {
        format!("/{}{rest}", self.id)
    }

    pub(super) fn acknowledged(&self) -> String {
        format!(
            "{} writes, {} visits, {} checkpoints, {} commands, {} in a session, {} streamed",
            self.written.1.load(Relaxed),
            self.visits.load(Relaxed),
            self.made.load(Relaxed),
            self.runs.len(),
            self.turns.len(),
            self.streams.len(),
        )
    }

    /// Writes one file again and again: its number, and filling that makes it long.
    async fn write(&self) {
        while self.goes_on() {
            let number = self.written.0.fetch_add(1, Relaxed) + 1;
            let content = format!("{number:020}").repeat(FILE_BYTES / 20);
            let path = self.path("/files/workspace/file");
            let request = self.caller.request(Method::PUT, &path).body(content);
            if self.caller.answer(request).await.is_some() {
                self.written.1.store(number, Relaxed);
            }
        }
    }

    /// Reads the file through the preview: what comes whole was written whole.
    async fn visit(&self) {
        while self.goes_on() {
            let least = self.written.1.load(Relaxed);
            let Some(seen) = self.caller.answer(self.caller.visit(&self.host, "/file")).await
            else {
                continue;
            };
            let number: u64 = seen.text.get(..20).and_then(|it| it.parse().ok()).unwrap();
            assert_eq!(seen.text, format!("{number:020}").repeat(FILE_BYTES / 20));
            assert!(number >= least, "{number} was seen after {least} was acknowledged");
            self.visits.fetch_add(1, Relaxed);
        }
    }

    /// Commands that leave their number, each once.
    async fn exec(&self) {
        while self.goes_on() {
            let number = self.runs.begin();
            // In the background too, so that there is somebody to kill between two.
            let command = format!("echo {number} >> runs; sleep 2 >&- 2>&- & sleep 0.01");
            let asked = json!({"command": command});
            let ran = self.caller.post(&self.path("/exec"), &asked).await;
            if ran.is_some_and(|ran| ran.json["exitCode"] == 0) {
                self.runs.acknowledge(number);
            }
        }
    }

    /// Commands of one session.
    async fn take_turns(&self) {
        while self.goes_on() {
            let number = self.turns.begin();
            let asked = json!({"command": format!("echo {number} >> turns"), "session": "k"});
            let ran = self.caller.post(&self.path("/exec"), &asked).await;
            if ran.is_some_and(|ran| ran.json["exitCode"] == 0) {
                self.turns.acknowledge(number);
            }
        }
    }

    /// Commands whose output is streamed: with its last event, every line has come.
    async fn stream(&self) {
        while self.goes_on() {
            let number = self.streams.begin();
            // One process: when it is killed, it does not end well.
            let write = "while [ $i -lt $n ]; do echo -n x; i=$((i+1)); done";
            let command = format!("echo {number} >> streams; i=0; n={STREAMED}; {write}");
            let request = self.caller.request(Method::POST, &self.path("/exec"));
            let request = request.header(ACCEPT, "text/event-stream");
            let request = request.json(&json!({"command": command}));
            let Some(ran) = self.caller.answer(request).await else { continue };
            let data = ran.text.lines().filter_map(|line| line.strip_prefix("data: "));
            let events: Vec<Value> = data.filter_map(|it| serde_json::from_str(it).ok()).collect();
            if events.last().is_some_and(|last| last["exitCode"] == 0) {
                let written: String = events.iter().filter_map(|it| it["data"].as_str()).collect();
                assert_eq!(written.len() as u64, STREAMED, "{}", ran.text);
                self.streams.acknowledge(number);
            }
        }
    }

    /// Checkpoints, of which the last few stay.
    async fn checkpoint(&self) {
        while self.goes_on() {
            let number = self.checkpoints.begin();
            let asked = json!({"id": format!("c{number}")});
            if self.caller.post(&self.path("/checkpoints"), &asked).await.is_some() {
                self.checkpoints.acknowledge(number);
                self.made.fetch_add(1, Relaxed);
            }
            if let Some(old) = number.checked_sub(3) {
                self.checkpoints.acknowledged.lock().unwrap().remove(&old);
                let path = self.path(&format!("/checkpoints/c{old}"));
                self.caller.answer(self.caller.request(Method::DELETE, &path)).await;
            }
            tokio::time::sleep(BETWEEN_CHECKPOINTS).await;
        }
    }

    /// Puts the sandbox to rest now and then.
    async fn rest(&self) {
        for number in 0_u64.. {
            if !self.goes_on() {
                return;
            }
            let verb = if number.is_multiple_of(5) { "/stop" } else { "/freeze" };
            self.caller.post(&self.path(verb), &json!({})).await;
            tokio::time::sleep(BETWEEN_RESTS).await;
        }
    }

    /// Everything that was acknowledged is there, and no command ran twice.
    pub(super) async fn check(&self, server: &Server) {
        let shell = async |command: &str| self.caller.shell(&self.id, command).await;
        let file = shell("touch file runs turns streams; fold -w 20 file | sort -u").await;
        let found: Vec<u64> = file.lines().map(|number| number.parse().unwrap()).collect();
        let (begun, least) = (self.written.0.load(Relaxed), self.written.1.load(Relaxed));
        let is_whole = match *found {
            [number] => (least..=begun).contains(&number),
            [] => least == 0,
            _ => false,
        };
        assert!(is_whole, "{found:?} after {least}\n{}", server.log());
        self.runs.check("command", &shell("cat runs").await, server);
        self.turns.check("command of a session", &shell("cat turns").await, server);
        self.streams.check("streamed command", &shell("cat streams").await, server);

        let list = self.caller.get(&self.path("/checkpoints")).await.unwrap();
        for number in &*self.checkpoints.acknowledged.lock().unwrap() {
            let is_there = list.text.contains(&format!("\"c{number}\""));
            assert!(is_there, "c{number} is lost: {}\n{}", list.text, server.log());
        }
    }

    pub(super) async fn destroy(&self) {
        self.caller.destroy(&self.id).await;
    }
}
