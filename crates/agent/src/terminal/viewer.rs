//! One viewer: a WebSocket that shows a terminal and types into it.
//!
//! ```text
//! replay, if any ─► {"type":"ready"} ─► output … ─► {"type":"exit"} or {"type":"error"} ─► close
//! ```

use std::{sync::Arc, time::Duration};

use api::{
    limit::{HEARTBEAT_SECS, TERMINAL_MESSAGE_BYTES, TERMINAL_SIDE},
    terminal::{TerminalControl, TerminalEvent},
};
use axum::{
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    response::Response,
};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::state::{Size, Terminal};

/// Pause between pings, by which both sides tell a quiet terminal from a dead connection.
const PING_EVERY: Duration = Duration::from_secs(HEARTBEAT_SECS);

/// Silence of a viewer, pongs included, after which it counts as gone.
const SILENCE: Duration = Duration::from_secs(4 * HEARTBEAT_SECS);

/// Time for a viewer to take the last messages and to close its side.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Bytes of a connection's read buffer: keystrokes are small, a paste takes more reads.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Complaints about a viewer's messages that wait to be sent; more are not made meanwhile.
const COMPLAINTS: usize = 1;

/// A viewer's place at a terminal, given back when dropped.
#[derive(Debug)]
pub(super) struct View {
    terminal: Arc<Terminal>,
    number: u64,
    /// Output from before it came.
    replay: Bytes,
    changed: watch::Receiver<()>,
}

impl View {
    /// Takes a place; returns also the cursor at which the replay begins.
    pub(super) fn open(terminal: Arc<Terminal>, from: Option<u64>) -> (Self, u64) {
        let changed = terminal.changes();
        let (number, cursor, replay) = terminal.join(from);
        (Self { terminal, number, replay, changed }, cursor)
    }

    /// The answer that turns the request's connection into this view.
    pub(super) fn show(self, upgrade: WebSocketUpgrade) -> Response {
        upgrade
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(TERMINAL_MESSAGE_BYTES)
            .max_frame_size(TERMINAL_MESSAGE_BYTES)
            .on_upgrade(|socket| attend(socket, self))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.terminal.leave(self.number);
    }
}

/// Why a view ends.
enum Finish {
    /// The program has ended and everything was sent.
    Exit(TerminalEvent),
    /// The viewer was too slow.
    Lagged,
    /// The viewer spoke no WebSocket, or too much at once.
    Broken(String),
    /// The viewer is not there any more.
    Gone,
}

async fn attend(socket: WebSocket, mut view: View) {
    let (mut sink, mut stream) = socket.split();
    let replay = std::mem::take(&mut view.replay);
    let (complain, complaints) = mpsc::channel(COMPLAINTS);
    let finish = tokio::select! {
        finish = send(&mut sink, &view, replay, complaints) => finish,
        finish = receive(&mut stream, &view.terminal, complain) => finish,
        () = given_up(&view) => Finish::Lagged,
    };
    drop(view);
    // A viewer that does not listen any more has had its chance.
    timeout(CLOSE_WAIT, close(sink, stream, finish)).await.unwrap_or_default();
}

/// Sends the replay, then whatever comes, until the terminal or the viewer ends.
async fn send(
    sink: &mut SplitSink<WebSocket, Message>,
    view: &View,
    replay: Bytes,
    mut complaints: mpsc::Receiver<TerminalEvent>,
) -> Finish {
    let ready = text(&TerminalEvent::Ready);
    let first = (!replay.is_empty()).then_some(Message::Binary(replay));
    for message in first.into_iter().chain([ready]) {
        if sink.send(message).await.is_err() {
            return Finish::Gone;
        }
    }
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changed = view.changed.clone();
    loop {
        // A message that has begun is sent to its end, so nothing is chosen while one is under way.
        let (message, output) = tokio::select! {
            biased;
            _ = ping.tick() => (Message::Ping(Bytes::new()), 0),
            Some(complaint) = complaints.recv() => (text(&complaint), 0),
            next = next(view, &mut changed) => match next {
                Ok(piece) => (Message::Binary(piece.clone()), piece.len()),
                Err(finish) => return finish,
            },
        };
        if sink.send(message).await.is_err() {
            return Finish::Gone;
        }
        view.terminal.sent(view.number, output);
    }
}

/// The next output; or why there is none.
///
/// Cancel safety: nothing is taken.
async fn next(view: &View, changed: &mut watch::Receiver<()>) -> Result<Bytes, Finish> {
    loop {
        changed.borrow_and_update();
        // In this order: what was shown before the end is seen after it.
        let exit = view.terminal.exit();
        match (view.terminal.next_output(view.number), exit) {
            (None, _) => return Err(Finish::Lagged),
            (Some(piece), _) if !piece.is_empty() => return Ok(piece),
            (Some(_), Some(exit)) => return Err(Finish::Exit(exit)),
            (Some(_), None) => {}
        }
        if changed.changed().await.is_err() {
            return Err(Finish::Gone);
        }
    }
}

/// Ends when the terminal waits for this viewer no longer.
async fn given_up(view: &View) {
    let mut changed = view.changed.clone();
    while view.terminal.next_output(view.number).is_some() {
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Types what the viewer sends, until it leaves. While the program takes nothing, nothing is read.
async fn receive(
    stream: &mut SplitStream<WebSocket>,
    terminal: &Terminal,
    complain: mpsc::Sender<TerminalEvent>,
) -> Finish {
    loop {
        match timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => terminal.type_in(bytes).await,
            Ok(Some(Ok(Message::Text(text)))) => {
                if let Err(message) = obey(terminal, &text) {
                    // One complaint that waits says enough.
                    complain.try_send(TerminalEvent::Error { message }).unwrap_or_default();
                }
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Err(fault))) => return Finish::Broken(fault.to_string()),
            Ok(Some(Ok(Message::Close(_))) | None) | Err(_) => return Finish::Gone,
        }
    }
}

/// Does what a control message says.
fn obey(terminal: &Terminal, text: &str) -> Result<(), String> {
    let control: TerminalControl = serde_json::from_str(text).map_err(|fault| {
        format!(
            "Invalid control message: {fault}; send {{\"type\":\"resize\",\"cols\":80,\"rows\":24}}, \
             or keystrokes as a binary message"
        )
    })?;
    let TerminalControl::Resize { cols, rows } = control;
    let side = |side: i64| {
        let side = u16::try_from(side).ok().filter(|side| (1..=TERMINAL_SIDE).contains(side));
        side.ok_or_else(|| {
            format!("Invalid dimensions {cols}x{rows}: each is from 1 to {TERMINAL_SIDE}")
        })
    };
    terminal.resize(Size { cols: side(cols)?, rows: side(rows)? });
    Ok(())
}

fn text(event: &TerminalEvent) -> Message {
    Message::Text(serde_json::to_string(event).expect("plain fields are JSON").into())
}

/// Says why the view ends, and waits for the other side to close.
async fn close(
    mut sink: SplitSink<WebSocket, Message>,
    mut stream: SplitStream<WebSocket>,
    finish: Finish,
) {
    let error = |message: String| TerminalEvent::Error { message };
    let (last, code) = match finish {
        Finish::Exit(exit) => (Some(exit), close_code::NORMAL),
        Finish::Lagged => (
            Some(error("this viewer is too slow and was dropped; attach again".to_owned())),
            close_code::AGAIN,
        ),
        Finish::Broken(fault) => {
            let text = format!(
                "the connection broke the WebSocket protocol, or a message is over \
                 {TERMINAL_MESSAGE_BYTES} bytes: {fault}"
            );
            (Some(error(text)), close_code::POLICY)
        }
        Finish::Gone => (None, close_code::NORMAL),
    };
    let frame = CloseFrame { code, reason: "".into() };
    for message in last.as_ref().map(text).into_iter().chain([Message::Close(Some(frame))]) {
        if sink.send(message).await.is_err() {
            break;
        }
    }
    // A close of the viewer's own is answered by reading on.
    while let Some(Ok(_)) = stream.next().await {}
}
