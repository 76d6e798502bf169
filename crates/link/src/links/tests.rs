//! Answers that no agent's author thought of.

use std::io::Write;

use super::*;

/// An answer is an error, or a head within its limits and a body that comes to an end. Nothing waits
/// for more than was sent, and nothing is read from what follows an answer.
#[test]
fn hostile_answers_are_refused_or_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let examples: [&[u8]; 7] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\nhello",
        b"HTTP/1.0 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nto the end",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nffffffffffffffff\r\n",
    ];
    hostile::bytes(&examples, |bytes| {
        runtime.block_on(async {
            let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            // Fits the socket's buffer, so nobody has to read meanwhile.
            theirs.write_all(bytes).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let stream = Stream::new(UnixStream::from_std(ours).unwrap()).unwrap();
            let mut sender = handshake(stream.socket(), AGENT_LIMITS).await.unwrap();
            let Ok(response) = sender.send_request(Request::new(empty())).await else { return };
            assert!(response.headers().len() <= AGENT_LIMITS.headers);
            let head: usize = response
                .headers()
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum();
            assert!(head <= AGENT_LIMITS.head_bytes);
            if let Ok(body) = response.into_body().collect().await {
                assert!(body.to_bytes().len() <= bytes.len());
            }
        });
    });
}
