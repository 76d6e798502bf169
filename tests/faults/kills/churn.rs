//! Sandboxes that come and go while things are killed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use serde_json::json;
use testkit::{Server, reqwest::Method};

use super::caller::Caller;

/// What is there when a fork begins.
const SOURCE: &str = "s0";

#[derive(Debug)]
pub(super) struct Churn {
    caller: Caller,
    is_over: AtomicBool,
    begun: AtomicU64,
    made: AtomicU64,
    forked: AtomicU64,
}

impl Churn {
    pub(super) fn new(server: &Server) -> Arc<Self> {
        Arc::new(Self {
            caller: Caller::of(server),
            is_over: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            made: AtomicU64::new(0),
            forked: AtomicU64::new(0),
        })
    }

    /// Makes, uses and destroys until it is stopped.
    pub(super) async fn run(self: Arc<Self>) {
        self.is_over.store(false, Relaxed);
        tokio::join!(self.create(), self.fork());
    }

    pub(super) fn stop(&self) {
        self.is_over.store(true, Relaxed);
    }

    pub(super) fn acknowledged(&self) -> String {
        format!("{} made, {} forked", self.made.load(Relaxed), self.forked.load(Relaxed))
    }

    async fn create(&self) {
        while !self.is_over.load(Relaxed) {
            let id = format!("x{}", self.begun.fetch_add(1, Relaxed));
            if self.caller.post("", &json!({"id": id})).await.is_some() {
                self.made.fetch_add(1, Relaxed);
                // Whoever was told that there is one finds it, whatever it is by now.
                self.caller.shell(&id, "echo it is there").await;
            }
            self.destroy(&id).await;
        }
    }

    /// Forks, each of which goes back to a checkpoint of its own.
    async fn fork(&self) {
        while !self.is_over.load(Relaxed) {
            let id = format!("f{}", self.begun.fetch_add(1, Relaxed));
            let path = format!("/{SOURCE}/fork");
            if self.caller.post(&path, &json!({"ids": [id]})).await.is_some() {
                self.forked.fetch_add(1, Relaxed);
                self.go_back(&id).await;
            }
            self.destroy(&id).await;
        }
    }

    async fn go_back(&self, id: &str) {
        self.caller.shell(id, "echo before > own").await;
        let made = self.caller.post(&format!("/{id}/checkpoints"), &json!({"id": "c"})).await;
        if made.is_none() {
            return;
        }
        self.caller.shell(id, "echo after > own").await;
        let asked = json!({"checkpoint": "c"});
        if self.caller.post(&format!("/{id}/restore"), &asked).await.is_some() {
            assert_eq!(self.caller.shell(id, "cat own").await, "before\n", "{id}");
        }
    }

    /// What is gone stays gone.
    async fn destroy(&self, id: &str) {
        self.caller.destroy(id).await;
        let found = self.caller.answer(self.caller.request(Method::GET, &format!("/{id}"))).await;
        assert!(found.is_none(), "{id} is there again: {found:?}");
    }
}
