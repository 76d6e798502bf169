//! Somebody who asks while things are killed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{
    Answer, Server,
    reqwest::{Client, Method, RequestBuilder},
};

/// How long any request may take, whatever is killed meanwhile: a stop's notice of 5 s behind a start,
/// several times over, on a machine that is busy. What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a caller waits when nobody answers, or it is refused.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
pub(super) struct Caller {
    client: Client,
    url: String,
    key: String,
}

impl Caller {
    pub(super) fn of(server: &Server) -> Self {
        Self { client: Client::new(), url: server.url(), key: server.key() }
    }

    /// A request to the API.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/v1/sandboxes{path}", self.url);
        self.client.request(method, url).bearer_auth(&self.key)
    }

    /// A request to a preview.
    pub(super) fn visit(&self, host: &str, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url)).header("host", host)
    }

    /// The answer, if it is whole and what was asked for is done.
    pub(super) async fn answer(&self, request: RequestBuilder) -> Option<Answer> {
        let answer = self.whole(request).await.filter(|answer| answer.status < 300);
        if answer.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
        answer
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Option<Answer> {
        self.answer(self.request(Method::POST, path).json(body)).await
    }

    pub(super) async fn get(&self, path: &str) -> Option<Answer> {
        self.answer(self.request(Method::GET, path)).await
    }

    /// Any answer, if it is whole.
    async fn whole(&self, request: RequestBuilder) -> Option<Answer> {
        let told = format!("{request:?}");
        let answered = async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            let text = response.text().await.ok()?;
            let json = serde_json::from_str(&text).unwrap_or_default();
            Some(Answer { status, json, text })
        };
        let answer = tokio::time::timeout(PATIENCE, answered).await;
        assert!(answer.is_ok(), "{told} hangs");
        answer.unwrap_or_default()
    }

    /// The output of a command, once the sandbox answers again.
    pub(super) async fn shell(&self, id: &str, command: &str) -> String {
        let begun = Instant::now();
        let asked = json!({"command": command});
        loop {
            let request = self.request(Method::POST, &format!("/{id}/exec")).json(&asked);
            let ran = self.whole(request).await;
            match &ran {
                Some(ran) if ran.status == 200 && ran.json["exitCode"] == 0 => {
                    return ran.json["stdout"].as_str().unwrap_or_default().to_owned();
                }
                _ => assert!(begun.elapsed() < PATIENCE, "{command} in {id}: {ran:?}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Destroys a sandbox, which may not be there.
    pub(super) async fn destroy(&self, id: &str) {
        let begun = Instant::now();
        loop {
            let gone = self.whole(self.request(Method::DELETE, &format!("/{id}"))).await;
            if gone.as_ref().is_some_and(|gone| matches!(gone.status, 204 | 404)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{id} cannot be destroyed: {gone:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
