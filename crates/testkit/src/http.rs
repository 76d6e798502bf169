//! Raw calls of the HTTP API, for what a typed client would not let a test say.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::Server;

/// A finished response.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body as JSON; null if it is not JSON.
    pub json: Value,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The stable code of an error body; empty for anything else.
    #[must_use]
    pub fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or_default()
    }
}

impl Server {
    /// A request with the local key, to be completed and sent.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_with(&self.key(), method, path)
    }

    /// A request with another key.
    pub fn request_with(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.url());
        reqwest::Client::new().request(method, url).bearer_auth(key)
    }

    /// Makes a key for sandboxes whose id begins with `prefix`, or an admin key, and returns its
    /// secret.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn new_key(&self, name: &str, prefix: Option<&str>) -> String {
        let scope = match prefix {
            Some(prefix) => serde_json::json!({"type": "sandboxes", "prefix": prefix}),
            None => serde_json::json!({"type": "admin"}),
        };
        let body = serde_json::json!({"name": name, "scope": scope});
        let answer = self.post("/v1/keys", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json["secret"].as_str().expect("a new key has a secret").to_owned()
    }

    /// GET.
    ///
    /// # Panics
    /// When no response comes.
    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path).send().await.expect("a response comes")).await
    }

    /// DELETE.
    ///
    /// # Panics
    /// When no response comes.
    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path).send().await.expect("a response comes")).await
    }

    /// PATCH with JSON.
    ///
    /// # Panics
    /// When no response comes.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::PATCH, path).json(body);
        answer(request.send().await.expect("a response comes")).await
    }

    /// POST of JSON.
    ///
    /// # Panics
    /// When no response comes.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).json(body);
        answer(request.send().await.expect("a response comes")).await
    }

    /// PUT of bytes.
    ///
    /// # Panics
    /// When no response comes.
    pub async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::PUT, path).body(body);
        answer(request.send().await.expect("a response comes")).await
    }

    /// Runs a shell text in sandbox `id` and returns its stdout.
    ///
    /// # Panics
    /// When the call fails or the command does.
    pub async fn shell(&self, id: &str, command: &str) -> String {
        let body = serde_json::json!({ "command": command });
        let answer = self.post(&format!("/v1/sandboxes/{id}/exec"), &body).await;
        assert_eq!(answer.status, 200, "{command:?}: {}", answer.text);
        assert_eq!(answer.json["exitCode"], 0, "{command:?}: {}", answer.text);
        answer.json["stdout"].as_str().expect("stdout is text").to_owned()
    }
}

/// A stream of events (`text/event-stream`) being read.
#[derive(Debug)]
pub struct Events {
    response: Response,
    buffer: Vec<u8>,
    /// The `id:` of the last event that had one.
    pub cursor: Option<u64>,
    id: Option<u64>,
}

/// The connection of a stream broke.
#[derive(Debug)]
pub struct Broken;

impl Events {
    /// The data of the next event; none at the end.
    ///
    /// # Panics
    /// When the stream breaks off.
    pub async fn next(&mut self) -> Option<Value> {
        self.try_next().await.expect("the stream is whole")
    }

    /// As [`Events::next`], for streams that may break off. An event that broke in the middle was
    /// none.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn try_next(&mut self) -> Result<Option<Value>, Broken> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = std::str::from_utf8(&line).expect("the stream is text").trim_end();
                if let Some(id) = line.strip_prefix("id: ") {
                    self.id = id.parse().ok();
                }
                if let Some(data) = line.strip_prefix("data: ") {
                    self.cursor = self.id.take().or(self.cursor);
                    return Ok(Some(serde_json::from_str(data).expect("data is JSON")));
                }
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Ok(None),
                Err(_) => return Err(Broken),
            }
        }
    }
}

/// Sends a request for events.
///
/// # Errors
/// [`Broken`] when no response comes.
///
/// # Panics
/// When the response is a refusal.
pub async fn events(request: RequestBuilder) -> Result<Events, Broken> {
    let response = request.header("accept", "text/event-stream").send().await;
    let response = response.map_err(|_no_answer| Broken)?;
    if response.status() != 200 {
        panic!("{}: {}", response.status(), response.text().await.unwrap_or_default());
    }
    Ok(Events { response, buffer: Vec::new(), cursor: None, id: None })
}

/// Reads a response to its end.
///
/// # Panics
/// When it breaks off.
pub async fn answer(response: Response) -> Answer {
    let status = response.status().as_u16();
    let text = response.text().await.expect("the response is whole");
    Answer { status, json: serde_json::from_str(&text).unwrap_or_default(), text }
}
