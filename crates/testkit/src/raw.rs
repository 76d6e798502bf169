//! A connection on which a test writes what no HTTP client would.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{Answer, Server};

/// Bounds each wait, so that a lost answer fails a test instead of hanging it. Above every deadline
/// of the server's.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to a server.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    unread: Vec<u8>,
    /// `Host` as a client would send it.
    pub host: String,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn open(server: &Server) -> Self {
        let host = server.url().trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket has the option");
        Self { stream, unread: Vec::new(), host }
    }

    /// Writes bytes as they are. False: the server has closed the connection.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Writes a whole request without body: a line (`GET /path HTTP/1.1`), `Host`, the key, and
    /// further header lines.
    pub async fn send(&mut self, line: &str, key: &str, further: &[&str]) -> bool {
        let mut head = format!("{line}\r\nhost: {}\r\nauthorization: Bearer {key}\r\n", self.host);
        for line in further {
            head.push_str(line);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.write(head).await
    }

    /// The next answer, which must have a length; none when the connection ends before it. Its text
    /// holds the head as well, for tests about headers.
    ///
    /// # Panics
    /// When nothing comes, or no HTTP.
    pub async fn answer(&mut self) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                assert!(self.unread.is_empty(), "half an answer: {:?}", self.unread);
                return None;
            }
        };
        let head = String::from_utf8(self.unread[..head_end].to_vec()).expect("a head is text");
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (found, value) = line.split_once(':')?;
                found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let length: usize = field("content-length").map_or(0, |text| text.parse().expect("digits"));
        while self.unread.len() < head_end + length {
            assert!(self.more().await, "the body of {head} broke off");
        }
        let body = self.unread[head_end..head_end + length].to_vec();
        self.unread.drain(..head_end + length);
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Some(Answer { status, json, text: head + &String::from_utf8_lossy(&body) })
    }

    /// Everything that still comes before the server closes.
    ///
    /// # Panics
    /// When it does not close.
    pub async fn rest(mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    /// One answer as it was written, and whatever came with it.
    ///
    /// # Panics
    /// As [`Raw::answer`].
    pub async fn rest_of_one(mut self) -> String {
        let first = self.answer().await.map_or_else(String::new, |answer| answer.text);
        first + &String::from_utf8_lossy(&self.unread)
    }

    /// Reads what there is; false at the end.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
        // A reset is an end as well.
        read.expect("the server answers or closes").unwrap_or(0) > 0
    }
}
