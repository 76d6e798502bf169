//! A connection to a port as binary messages of a WebSocket, for who can make no other tunnel.

use std::time::Duration;

use api::limit::{HEARTBEAT_SECS, PORT_MESSAGE_BYTES};
use axum::{
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    response::Response,
};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt, stream::SplitStream};
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

/// Pause between pings, by which both sides tell a quiet connection from a dead one.
const PING_EVERY: Duration = Duration::from_secs(HEARTBEAT_SECS);

/// Silence of the caller, pongs included, after which it counts as gone.
const SILENCE: Duration = Duration::from_secs(4 * HEARTBEAT_SECS);

/// Time for a caller to take the last message.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Bytes read from the port at a time, and so in one message.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes of a connection's read buffer.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The answer that turns the request's connection into one to `service`.
pub(super) fn attend(
    upgrade: WebSocketUpgrade,
    service: TcpStream,
    place: OwnedSemaphorePermit,
) -> Response {
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(PORT_MESSAGE_BYTES)
        .max_frame_size(PORT_MESSAGE_BYTES)
        .on_upgrade(|socket| async move {
            carry(socket, service).await;
            drop(place);
        })
}

async fn carry(socket: WebSocket, service: TcpStream) {
    let (from_service, to_service) = service.into_split();
    let (mut sink, stream) = socket.split();
    let code = tokio::select! {
        code = up(stream, to_service) => code,
        code = down(&mut sink, from_service) => code,
    };
    let close = async {
        match code {
            Some(code) => {
                let frame = CloseFrame { code, reason: "".into() };
                sink.send(Message::Close(Some(frame))).await
            }
            // The answer to a close of the caller's own.
            None => sink.flush().await,
        }
    };
    // A caller that does not listen any more has had its chance.
    drop(timeout(CLOSE_WAIT, close).await);
}

/// From the caller to the service. None: the caller is gone.
async fn up(mut stream: SplitStream<WebSocket>, mut service: OwnedWriteHalf) -> Option<u16> {
    loop {
        let message = timeout(SILENCE, stream.next()).await.ok()??;
        match message.ok()? {
            // Nothing more comes from the caller, who waits for the answer.
            Message::Binary(bytes) if bytes.is_empty() => {
                if service.shutdown().await.is_err() {
                    return Some(close_code::NORMAL);
                }
            }
            Message::Binary(bytes) => {
                if service.write_all(&bytes).await.is_err() {
                    return Some(close_code::NORMAL);
                }
            }
            Message::Text(_) => return Some(close_code::UNSUPPORTED),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return None,
        }
    }
}

/// From the service to the caller. None: the caller is gone.
async fn down(sink: &mut (impl SinkExt<Message> + Unpin), service: OwnedReadHalf) -> Option<u16> {
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            readable = service.readable() => {
                // Taken only now, so that a quiet connection holds no buffer.
                let mut piece = BytesMut::with_capacity(PIECE_BYTES);
                match (readable, service.try_read_buf(&mut piece)) {
                    (Ok(()), Ok(1..)) => Message::Binary(piece.freeze()),
                    (Ok(()), Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                    _ => return Some(close_code::NORMAL),
                }
            }
            _ = ping.tick() => Message::Ping(axum::body::Bytes::new()),
        };
        sink.send(message).await.ok()?;
    }
}
