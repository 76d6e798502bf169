//! A preview as its visitors see it: its application, requests to it, and what the application saw.

use std::net::SocketAddr;

use api::port::ExposedPort;
use reqwest::{Client, Method, RequestBuilder, Response, redirect::Policy};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{PATIENCE, Server};

/// An application with everything that a proxy can get wrong.
const APP: &str = include_str!("preview/app.py");

/// The port it listens on.
const PORT: u16 = 8080;

/// An exposed port of a sandbox.
#[derive(Debug)]
pub struct Preview<'a> {
    server: &'a Server,
    /// Its host name, with the port.
    pub host: String,
    http: Client,
}

impl<'a> Preview<'a> {
    /// Exposes port 8080 of sandbox `s`; nothing need listen there.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn of(server: &'a Server) -> Self {
        Self::of_sandbox(server, "s").await
    }

    /// As [`Preview::of`], of another sandbox.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn of_sandbox(server: &'a Server, id: &str) -> Self {
        Self::of_port(server, id, PORT).await
    }

    /// As [`Preview::of`], of another sandbox and another port.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn of_port(server: &'a Server, id: &str, port: u16) -> Self {
        let path = format!("/v1/sandboxes/{id}/ports");
        let exposed = server.post(&path, &json!({"port": port})).await;
        assert_eq!(exposed.status, 201, "{}", exposed.text);
        let exposed: ExposedPort =
            serde_json::from_str(&exposed.text).expect("it is an exposed port");
        let (_, host) = exposed.url.split_once("://").expect("a URL has a scheme");
        let host = host.trim_end_matches('/').to_owned();
        let http = Client::builder().redirect(Policy::none()).build().expect("a client is made");
        Self { server, host, http }
    }

    /// Exposes the application, which runs.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn with_app(server: &'a Server) -> Self {
        Self::of_app(server, "s").await
    }

    /// As [`Preview::with_app`], in another sandbox.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn of_app(server: &'a Server, id: &str) -> Self {
        let file = format!("/v1/sandboxes/{id}/files/workspace/app.py");
        let written = server.put(&file, APP).await;
        assert!(written.status < 300, "{}", written.text);
        Self::start_app(server, id).await;
        Self::of_sandbox(server, id).await
    }

    /// Starts the application that [`Preview::of_app`] has written.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_app(server: &Server, id: &str) {
        server.start_process(id, &format!("python3 /workspace/app.py {PORT}"), "ready").await;
    }

    /// Its URL, with a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.host)
    }

    /// A request to it, to be completed and sent. Redirects are not followed.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.server.url());
        self.http.request(method, url).header("host", &self.host)
    }

    /// GET.
    ///
    /// # Panics
    /// When no response comes.
    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.expect("a response comes")
    }

    /// A connection on which nothing was said yet.
    ///
    /// # Panics
    /// When the server takes none.
    pub async fn connect(&self) -> TcpStream {
        let address = self.server.url();
        let connected = TcpStream::connect(address.trim_start_matches("http://")).await;
        connected.expect("the server takes connections")
    }

    /// Sends `request` as it is, with `HOST` replaced, and reads until the server closes.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        // The server may refuse and close before it has read everything.
        drop(stream.write_all(request.replace("HOST", &self.host).as_bytes()).await);
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        drop(read.expect("the server closes"));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What the application saw of a request to its `/headers`.
    ///
    /// # Panics
    /// When it was not the application that answered.
    pub async fn seen(&self, request: RequestBuilder) -> Seen {
        let answer = request.send().await.expect("a response comes");
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.expect("the response is whole");
        serde_json::from_str(&text).expect("the application says what it saw")
    }
}

/// A request as the application saw it: method, target, headers.
#[derive(Debug, serde::Deserialize)]
pub struct Seen(pub String, pub String, Vec<(String, String)>);

impl Seen {
    /// All values of a header.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let is_it = |(found, _): &&(String, String)| found.eq_ignore_ascii_case(name);
        self.2.iter().filter(is_it).map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of a header.
    ///
    /// # Panics
    /// When there is none, or more.
    #[must_use]
    pub fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {:?}", self.2);
        all[0]
    }
}

impl Server {
    /// Where its previews are listened for.
    ///
    /// # Panics
    /// When its log does not say.
    #[must_use]
    pub fn preview_address(&self) -> SocketAddr {
        let log = self.log_until("previews");
        let line = log.lines().find(|line| line.contains("previews")).unwrap_or_default();
        let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address of previews in {line:?}"))
    }

    /// Starts a process in sandbox `id` and waits until it has written a line with `text`.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub async fn start_process(&self, id: &str, command: &str, text: &str) {
        let path = format!("/v1/sandboxes/{id}/processes");
        let started = self.post(&path, &json!({"command": command, "id": "app"})).await;
        assert_eq!(started.status, 201, "{}", started.text);
        let wait = json!({"until": {"type": "log", "text": text}, "timeoutMs": 60_000});
        let ready = self.post(&format!("{path}/app/wait"), &wait).await;
        if ready.status != 200 {
            let logs = self.get(&format!("{path}/app/logs")).await;
            panic!("{}\n{}", ready.text, logs.text);
        }
    }
}
