//! A real browser: Chromium without a window, told what to do over its debugging protocol.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::PATIENCE;

/// A browser with a profile of its own, which ends with it.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    #[expect(dead_code, reason = "held for its Drop")]
    profile: TempDir,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
}

/// A page of a browser, by the session in which it is spoken to.
#[derive(Debug, Clone)]
pub struct Page(String);

impl Browser {
    /// Starts the `chromium` of this machine.
    ///
    /// # Panics
    /// When there is none, or it does not start.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a profile can be made");
        let mut process = Command::new("chromium")
            .args([
                "--headless=new",
                // Tests run as root, which Chromium's own sandbox does not like.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--no-proxy-server",
                "--remote-debugging-port=0",
                "about:blank",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromium is installed: run `make setup`");
        let stderr = process.stderr.take().expect("stderr is piped");
        let mut lines = BufReader::new(stderr).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        // What it complains about later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let url = url.expect("chromium listens for its orders");
        let (socket, _) = connect_async(url).await.expect("chromium takes orders");
        Self { process, profile, socket, calls: 0 }
    }

    /// Opens `url` in a new page and waits until it has loaded.
    ///
    /// # Panics
    /// When it does not load within [`PATIENCE`].
    pub async fn open(&mut self, url: &str) -> Page {
        let target = self.call(None, "Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.call(None, "Target.attachToTarget", attach).await;
        let page = Page(session["sessionId"].as_str().expect("it has a session").to_owned());
        self.navigate(&page, url).await;
        page
    }

    /// Goes to `url` and waits until it has loaded.
    ///
    /// # Panics
    /// When it does not load within [`PATIENCE`].
    pub async fn navigate(&mut self, page: &Page, url: &str) {
        self.call(Some(page), "Page.enable", json!({})).await;
        self.call(Some(page), "Page.setLifecycleEventsEnabled", json!({"enabled": true})).await;
        let gone = self.call(Some(page), "Page.navigate", json!({"url": url})).await;
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        timeout(PATIENCE, async {
            loop {
                let event = self.hear().await;
                let of = &event["params"];
                // Of this document: the one before it may load at the same time.
                if event["method"] == "Page.lifecycleEvent"
                    && event["sessionId"] == page.0
                    && of["name"] == "load"
                    && of["loaderId"] == gone["loaderId"]
                {
                    return;
                }
            }
        })
        .await
        .unwrap_or_else(|_late| panic!("{url} does not load"));
    }

    /// The value of a JavaScript expression in the page, awaited if it is a promise.
    ///
    /// # Panics
    /// When it throws, or does not settle within [`PATIENCE`].
    pub async fn evaluate(&mut self, page: &Page, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call(Some(page), "Runtime.evaluate", parameters).await;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page, which may be loaded anew meanwhile.
    ///
    /// # Panics
    /// When it is not within [`PATIENCE`].
    pub async fn until(&mut self, page: &Page, condition: &str) {
        let begun = std::time::Instant::now();
        // A page that replaces itself takes its promises along; so it is asked from outside.
        loop {
            let parameters = json!({"expression": condition, "returnByValue": true});
            // Asked while the page replaces itself, it has an error for an answer.
            let answer = self.ask(Some(page), "Runtime.evaluate", parameters).await;
            if answer["result"]["result"]["value"] == true {
                return;
            }
            if begun.elapsed() > PATIENCE {
                let shown = self.evaluate(page, "document.documentElement.outerHTML").await;
                panic!("not so: {condition}\n{shown}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// The result of a call that must succeed.
    async fn call(&mut self, page: Option<&Page>, method: &str, parameters: Value) -> Value {
        let mut answer = self.ask(page, method, parameters).await;
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    /// The answer to a call.
    async fn ask(&mut self, page: Option<&Page>, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut call = json!({"id": id, "method": method, "params": parameters});
        if let Some(page) = page {
            call["sessionId"] = json!(page.0);
        }
        self.socket.send(Message::text(call.to_string())).await.expect("chromium listens");
        timeout(PATIENCE, async {
            loop {
                let answer = self.hear().await;
                if answer["id"] == id {
                    return answer;
                }
            }
        })
        .await
        .unwrap_or_else(|_late| panic!("{method} is not answered"))
    }

    async fn hear(&mut self) -> Value {
        loop {
            let message = self.socket.next().await.expect("chromium runs");
            if let Message::Text(text) = message.expect("chromium speaks WebSocket") {
                return serde_json::from_str(&text).expect("chromium speaks JSON");
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end with it.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
