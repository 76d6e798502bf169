//! What is asked of one sandbox while things are killed, and what was acknowledged of it.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::{
    Answer, Server,
    reqwest::{Client, Method},
};

/// How long a sandbox may take to answer again after a kill.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the load waits when nobody answers.
const PAUSE: Duration = Duration::from_millis(5);

/// Bytes of a file: some pieces.
const FILE_BYTES: usize = 100_000;

pub(super) struct Load {
    client: Client,
    base: String,
    key: String,
    is_over: AtomicBool,
    /// Writes of the one file: the last that was begun, and the last that was acknowledged.
    written: (AtomicU64, AtomicU64),
    /// Commands: the last that was begun, and those that were acknowledged.
    run: (AtomicU64, Mutex<BTreeSet<u64>>),
    /// Checkpoints: the last that was begun, those acknowledged, and those whose removal was begun.
    checkpoints: (AtomicU64, Mutex<BTreeSet<u64>>),
    made: AtomicU64,
}

impl Load {
    pub(super) fn new(server: &Server, id: &str) -> Self {
        Self {
            client: Client::new(),
            base: format!("{}/v1/sandboxes/{id}", server.url()),
            key: server.key(),
            is_over: AtomicBool::new(false),
            written: (AtomicU64::new(0), AtomicU64::new(0)),
            run: (AtomicU64::new(0), Mutex::default()),
            checkpoints: (AtomicU64::new(0), Mutex::default()),
            made: AtomicU64::new(0),
        }
    }

    /// Asks until it is stopped.
    pub(super) async fn run(self: std::sync::Arc<Self>) {
        self.is_over.store(false, Relaxed);
        tokio::join!(self.write(), self.exec(), self.checkpoint(), self.rest());
    }

    pub(super) fn stop(&self) {
        self.is_over.store(true, Relaxed);
    }

    pub(super) fn acknowledged(&self) -> (u64, usize, u64) {
        (self.written.1.load(Relaxed), self.run.1.lock().unwrap().len(), self.made.load(Relaxed))
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Option<Answer> {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = request.bearer_auth(&self.key);
        let request = if body.is_null() { request } else { request.json(body) };
        self.answer(request).await
    }

    /// None: no whole answer came.
    async fn answer(&self, request: testkit::reqwest::RequestBuilder) -> Option<Answer> {
        let answered = async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            let text = response.text().await.ok()?;
            let json = serde_json::from_str(&text).unwrap_or_default();
            Some(Answer { status, json, text })
        };
        let answer = answered.await;
        if answer.as_ref().is_none_or(|answer| answer.status >= 300) {
            tokio::time::sleep(PAUSE).await;
        }
        answer.filter(|answer| answer.status < 300)
    }

    /// Writes one file again and again: its number, and filling that makes it long.
    async fn write(&self) {
        while !self.is_over.load(Relaxed) {
            let number = self.written.0.fetch_add(1, Relaxed) + 1;
            let url = format!("{}/files/workspace/file", self.base);
            let content = format!("{number:020}").repeat(FILE_BYTES / 20);
            let request = self.client.put(url).bearer_auth(&self.key).body(content);
            if self.answer(request).await.is_some() {
                self.written.1.store(number, Relaxed);
            }
        }
    }

    /// Commands that leave their number, each once.
    async fn exec(&self) {
        while !self.is_over.load(Relaxed) {
            let number = self.run.0.fetch_add(1, Relaxed) + 1;
            // In the background too, so that there is somebody to kill between two.
            let command = format!("echo {number} >> runs; sleep 2 & sleep 0.01");
            let ran = self.send(Method::POST, "/exec", &json!({"command": command})).await;
            if ran.is_some_and(|ran| ran.json["exitCode"] == 0) {
                self.run.1.lock().unwrap().insert(number);
            }
        }
    }

    /// Checkpoints, of which the last few stay.
    async fn checkpoint(&self) {
        while !self.is_over.load(Relaxed) {
            let number = self.checkpoints.0.fetch_add(1, Relaxed) + 1;
            let asked = json!({"id": format!("c{number}")});
            if self.send(Method::POST, "/checkpoints", &asked).await.is_some() {
                self.checkpoints.1.lock().unwrap().insert(number);
                self.made.fetch_add(1, Relaxed);
            }
            if let Some(old) = number.checked_sub(3) {
                self.checkpoints.1.lock().unwrap().remove(&old);
                self.send(Method::DELETE, &format!("/checkpoints/c{old}"), &Value::Null).await;
            }
            tokio::time::sleep(PAUSE * 10).await;
        }
    }

    /// Puts the sandbox to rest now and then.
    async fn rest(&self) {
        for number in 0_u64.. {
            if self.is_over.load(Relaxed) {
                return;
            }
            let verb = if number.is_multiple_of(5) { "/stop" } else { "/freeze" };
            self.send(Method::POST, verb, &json!({})).await;
            tokio::time::sleep(PAUSE * 40).await;
        }
    }

    /// The output of a command, once the sandbox answers again.
    async fn shell(&self, command: &str) -> String {
        let begun = Instant::now();
        loop {
            let asked = json!({"command": command});
            let ran = self.send(Method::POST, "/exec", &asked).await;
            if let Some(ran) = ran.filter(|ran| ran.json["exitCode"] == 0) {
                return ran.json["stdout"].as_str().unwrap_or_default().to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "{command} is not answered");
        }
    }

    /// Everything that was acknowledged is there, and no command ran twice.
    pub(super) async fn check(&self, server: &Server) {
        let file = self.shell("touch file runs; fold -w 20 file | sort -u").await;
        let found: Vec<u64> = file.lines().map(|number| number.parse().unwrap()).collect();
        let (begun, least) = (self.written.0.load(Relaxed), self.written.1.load(Relaxed));
        let is_whole = match *found {
            [number] => (least..=begun).contains(&number),
            [] => least == 0,
            _ => false,
        };
        assert!(is_whole, "{found:?} after {least}\n{}", server.log());

        let runs = self.shell("cat runs").await;
        let mut seen = BTreeSet::new();
        for line in runs.lines() {
            assert!(
                seen.insert(line.parse::<u64>().unwrap()),
                "{line} ran twice\n{}",
                server.log()
            );
        }
        let acknowledged = self.run.1.lock().unwrap().clone();
        let lost: Vec<_> = acknowledged.difference(&seen).collect();
        assert!(lost.is_empty(), "commands {lost:?} are lost\n{}", server.log());

        let list = self.send(Method::GET, "/checkpoints", &Value::Null).await.unwrap();
        for number in &*self.checkpoints.1.lock().unwrap() {
            assert!(list.text.contains(&format!("\"c{number}\"")), "c{number}: {}", list.text);
        }
    }

    pub(super) async fn destroy(&self, server: &Server) {
        let gone = self.send(Method::DELETE, "", &Value::Null).await;
        assert!(gone.is_some(), "{}", server.log());
    }
}
