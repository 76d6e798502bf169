//! Events sent to a URL: a real receiver, which checks what it gets.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::{PATIENCE, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::server;

/// Takes what is sent, one connection at a time.
struct Receiver {
    listener: TcpListener,
}

/// What was sent, whose answer is still to come.
struct Sent {
    stream: TcpStream,
    head: String,
    body: Vec<u8>,
}

impl Receiver {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a port is free") }
    }

    fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.listener.local_addr().expect("it is bound"))
    }

    async fn next(&self) -> Sent {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        let (mut stream, _) = accepted.expect("something is sent").expect("it is accepted");
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0),
                "the head is whole"
            );
        };
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
        let mut body = bytes.split_off(end);
        let length: usize = field(&head, "content-length").parse().expect("a length");
        while body.len() < length {
            assert!(
                stream.read_buf(&mut body).await.is_ok_and(|read| read > 0),
                "the body is whole"
            );
        }
        Sent { stream, head, body }
    }

    /// Takes the next delivery, and says its event's kind and sandbox.
    async fn take(&self) -> (String, String) {
        let sent = self.next().await;
        let delivery = sent.json();
        sent.answer("204 No Content").await;
        let text = |field: &str| delivery["event"][field].as_str().unwrap_or_default().to_owned();
        (text("kind"), text("sandboxId"))
    }
}

impl Sent {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body is JSON")
    }

    async fn answer(mut self, status: &str) {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        self.stream.write_all(answer.as_bytes()).await.expect("it is listened to");
    }

    /// As a receiver checks it.
    fn is_signed_with(&self, secret: &str) -> bool {
        let key = secret.strip_prefix("whsec_").and_then(|key| BASE64_STANDARD.decode(key).ok());
        let key = key.expect("a secret");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length is right");
        let [id, at] = ["webhook-id", "webhook-timestamp"].map(|name| field(&self.head, name));
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(&self.body);
        let expected = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        field(&self.head, "webhook-signature") == format!("v1,{expected}")
    }
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let found = head.lines().filter_map(|line| line.split_once(':')).find(|(it, _)| *it == name);
    found.map(|(_, value)| value.trim()).unwrap_or_default()
}

async fn create(server: &Server, name: &str, url: &str, more: Value) -> String {
    let mut body = json!({"name": name, "url": url});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let made = server.post("/v1/webhooks", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json["secret"].as_str().expect("a secret").to_owned()
}

fn pair(kind: &str, id: &str) -> (String, String) {
    (kind.to_owned(), id.to_owned())
}

#[tokio::test]
async fn events_arrive_in_order_and_signed() {
    let (server, receiver) = (server(), Receiver::start().await);
    server.shell("before", "true").await;
    let secret = create(&server, "all", &receiver.url(), json!({})).await;
    server.shell("a", "true").await;

    let sent = receiver.next().await;
    assert!(sent.head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{}", sent.head);
    assert_eq!(field(&sent.head, "content-type"), "application/json");
    assert_eq!(field(&sent.head, "webhook-id"), "event-3");
    assert!(sent.is_signed_with(&secret));
    assert!(!sent.is_signed_with("whsec_AAAA"));
    let delivery = sent.json();
    assert_eq!((&delivery["webhook"], &delivery["missed"]), (&json!("all"), &json!(false)));
    let event = &server.get("/v1/events?after=2&limit=1").await.json["events"][0];
    assert_eq!(delivery["event"], *event);
    sent.answer("200 OK").await;
    assert_eq!(receiver.take().await, pair("started", "a"));

    server.delete("/v1/sandboxes/a").await;
    assert_eq!(receiver.take().await, pair("destroyed", "a"));
}

#[tokio::test]
async fn what_is_not_taken_is_sent_again_and_nothing_overtakes_it() {
    let (server, receiver) = (server(), Receiver::start().await);
    create(&server, "w", &receiver.url(), json!({})).await;
    server.shell("a", "true").await;
    let first = receiver.next().await;
    let id = field(&first.head, "webhook-id").to_owned();
    first.answer("500 Oh").await;
    // A redirect is not followed: whoever may answer decides nothing about who is called.
    let second = receiver.next().await;
    assert_eq!(field(&second.head, "webhook-id"), id);
    let shown = server.get("/v1/webhooks/w").await.json;
    assert_eq!(shown["failure"]["attempts"], 1, "{shown}");
    assert!(shown["failure"]["message"].as_str().unwrap().contains("500"), "{shown}");
    let elsewhere = format!("307 X\r\nlocation: {}", receiver.url());
    second.answer(&elsewhere).await;
    // One that goes away without an answer.
    drop(receiver.next().await);
    assert_eq!(receiver.take().await, pair("created", "a"));
    assert_eq!(receiver.take().await, pair("started", "a"));
    let shown = server.get("/v1/webhooks/w").await.json;
    assert_eq!(shown["failure"], Value::Null, "{shown}");
}

#[tokio::test]
async fn what_was_not_taken_is_sent_after_a_restart() {
    let (mut server, receiver) = (server(), Receiver::start().await);
    let secret = create(&server, "w", &receiver.url(), json!({})).await;
    server.shell("a", "true").await;
    assert_eq!(receiver.take().await, pair("created", "a"));
    // Sent, and not answered: it may have arrived.
    let unanswered = receiver.next().await;
    server.kill();
    drop(unanswered);
    server.restart();
    let again = receiver.next().await;
    assert!(again.is_signed_with(&secret), "its secret is kept");
    let mut kinds = vec![again.json()["event"]["kind"].as_str().unwrap().to_owned()];
    again.answer("200 OK").await;
    while kinds.last().is_none_or(|kind| kind != "started") {
        kinds.push(receiver.take().await.0);
    }
    // At least once: the answer to the first may not have been recorded.
    assert!(kinds == ["started"] || kinds == ["created", "started"], "{kinds:?}");
    server.stop();
    server.restart();
    server.delete("/v1/sandboxes/a").await;
    assert_eq!(receiver.take().await, pair("destroyed", "a"));
}

#[tokio::test]
async fn only_what_was_asked_for_is_sent_and_nothing_after_the_removal() {
    let (server, receiver) = (server(), Receiver::start().await);
    let filter = json!({"kinds": ["created", "destroyed"], "prefix": "ci-", "label": "team=x"});
    create(&server, "w", &receiver.url(), filter).await;
    for (id, team) in [("ci-a", "y"), ("a", "x"), ("ci-b", "x")] {
        let made = json!({"id": id, "labels": {"team": team}});
        assert_eq!(server.post("/v1/sandboxes", &made).await.status, 201);
    }
    server.delete("/v1/sandboxes/ci-b").await;
    assert_eq!(receiver.take().await, pair("created", "ci-b"));
    assert_eq!(receiver.take().await, pair("destroyed", "ci-b"));

    assert_eq!(server.delete("/v1/webhooks/w").await.status, 204);
    assert_eq!(server.get("/v1/webhooks/w").await.code(), "WEBHOOK_NOT_FOUND");
    create(&server, "other", &receiver.url(), json!({"kinds": ["started"]})).await;
    let made = json!({"id": "ci-c", "labels": {"team": "x"}});
    server.post("/v1/sandboxes", &made).await;
    let next = receiver.next().await;
    assert_eq!(next.json()["webhook"], "other", "the removed one sends nothing");
    next.answer("200 OK").await;
}

#[tokio::test]
async fn a_receiver_is_tested_and_the_command_line_shows_it() {
    let (server, receiver) = (server(), Receiver::start().await);
    let url = receiver.url();
    let made = server.command(["webhook", "create", "w", &url, "--kind", "destroyed"]).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{made:?}");
    let secret = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let tested = async { server.post("/v1/webhooks/w/test", &json!({})).await };
    let taken = async {
        let sent = receiver.next().await;
        assert!(sent.is_signed_with(&secret));
        assert_eq!(sent.json(), json!({"webhook": "w", "missed": false}));
        sent.answer("202 Accepted").await;
    };
    let (tested, ()) = tokio::join!(tested, taken);
    assert_eq!(tested.json, json!({"taken": true}), "{}", tested.text);

    // A port that is taken and not listened on: one given back could be another test's by now.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url_closed = format!("http://{}/", closed.local_addr().unwrap());
    create(&server, "closed", &url_closed, json!({"kinds": ["destroyed"]})).await;
    let failed = server.command(["webhook", "test", "closed"]).output().unwrap();
    assert!(!failed.status.success());
    assert!(String::from_utf8_lossy(&failed.stderr).contains("refused"), "{failed:?}");
    let listed = server.command(["webhook", "ls"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&url) && listed.contains("ok"), "{listed}");
    assert!(server.command(["webhook", "rm", "w"]).output().unwrap().status.success());
}

/// Makes an authority, and a certificate of it for `localhost`.
fn certify(dir: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    for what in [
        "-subj /CN=authority -keyout ca-key.pem -out ca.pem",
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost -CA ca.pem -CAkey ca-key.pem \
         -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem",
    ] {
        let arguments = format!("req -x509 {key} {what}");
        let made = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(dir)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

/// A receiver that speaks TLS, and says its port.
const RECEIVER: &str = "import http.server, ssl
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        self.send_response(204)
        self.end_headers()
server = http.server.HTTPServer(('127.0.0.1', 0), Receiver)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()";

#[tokio::test]
async fn a_receiver_with_tls_is_one_whose_authority_the_machine_trusts() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let mut receiver = Command::new("python3")
        .args(["-c", RECEIVER])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3 runs");
    let mut port = String::new();
    let said = BufReader::new(receiver.stdout.take().unwrap()).read_line(&mut port);
    assert!(said.is_ok_and(|bytes| bytes > 0));
    let mut server = server();
    create(&server, "w", &format!("https://localhost:{}/", port.trim()), json!({})).await;
    let refused = server.post("/v1/webhooks/w/test", &json!({})).await;
    assert_eq!(refused.json["taken"], false, "{}", refused.text);
    assert!(refused.text.contains("cannot be encrypted"), "{}", refused.text);

    server.stop();
    server.trust(&dir.path().join("ca.pem"));
    server.restart();
    let taken = server.post("/v1/webhooks/w/test", &json!({})).await;
    assert_eq!(taken.json, json!({"taken": true}), "{}", taken.text);
    // Another name than the certificate's.
    create(&server, "other", &format!("https://127.0.0.1:{}/", port.trim()), json!({})).await;
    let refused = server.post("/v1/webhooks/other/test", &json!({})).await;
    assert_eq!(refused.json["taken"], false, "{}", refused.text);
    receiver.kill().unwrap();
    receiver.wait().unwrap();
}

#[tokio::test]
async fn webhooks_are_for_admins_and_bad_ones_are_refused() {
    let server = server();
    let key = server.new_key("ci", Some("ci-")).await;
    let request = server.request_with(&key, testkit::reqwest::Method::GET, "/v1/webhooks");
    assert_eq!(testkit::answer(request.send().await.unwrap()).await.code(), "FORBIDDEN");
    for body in [
        json!({"name": "w"}),
        json!({"name": "w", "url": "ftp://h/"}),
        json!({"name": "w", "url": "http://u:p@h/"}),
        json!({"name": "w", "url": format!("http://h/{}", "x".repeat(2048))}),
        json!({"name": "7", "url": "http://h/"}),
        json!({"name": "w", "url": "http://h/", "kinds": ["born"]}),
        json!({"name": "w", "url": "http://h/", "label": ""}),
        json!({"name": "w", "url": "http://h/", "secret": "x"}),
    ] {
        assert_eq!(server.post("/v1/webhooks", &body).await.code(), "VALIDATION_FAILED", "{body}");
    }
    let body = json!({"name": "w", "url": "http://127.0.0.1:1/"});
    assert_eq!(server.post("/v1/webhooks", &body).await.status, 201);
    assert_eq!(server.post("/v1/webhooks", &body).await.code(), "WEBHOOK_EXISTS");
    let list = server.get("/v1/webhooks").await;
    assert!(!list.text.contains("whsec"), "{}", list.text);
    assert_eq!(server.post("/v1/webhooks/x/test", &json!({})).await.code(), "WEBHOOK_NOT_FOUND");
    for number in 1..64 {
        let body = json!({"name": format!("w{number}"), "url": "http://127.0.0.1:1/"});
        assert_eq!(server.post("/v1/webhooks", &body).await.status, 201, "{number}");
    }
    let one_more = server.post("/v1/webhooks", &json!({"name": "x", "url": "http://h/"})).await;
    assert_eq!(one_more.code(), "CAPACITY_EXCEEDED", "{}", one_more.text);
}
