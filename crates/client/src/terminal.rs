//! Terminals: start, list, end, and the connection of a viewer.

use std::fmt;

use api::{
    id::{SandboxId, TerminalId},
    limit::{TERMINAL_MESSAGE_BYTES, TERMINAL_OUTPUT_BYTES},
    terminal::{
        AttachTerminal, CURSOR_HEADER, CreateTerminal, Terminal, TerminalControl, TerminalEvent,
        TerminalList,
    },
};
use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use reqwest::Method;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    Client, ClientError,
    call::{ANSWER_LIMIT, SILENCE_LIMIT, protocol, within},
    encode::Query,
    socket::{Socket, broken},
};

/// Bytes of a message from a terminal that are kept at most: a whole replay is one message.
const MESSAGE_BYTES: usize = 2 * TERMINAL_OUTPUT_BYTES;

const ATTACH: &str = "attach to a terminal";

const TYPE: &str = "type into a terminal";

impl Client {
    /// Starts a terminal. The sandbox is created when it does not exist.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `TERMINAL_EXISTS`, `COMMAND_NOT_FOUND`, ...
    pub async fn create_terminal(
        &self,
        id: &SandboxId,
        request: &CreateTerminal,
    ) -> Result<Terminal, ClientError> {
        let call = self.request(Method::POST, &path(id, None)).json(request);
        self.send_json("start a terminal", ANSWER_LIMIT, call).await
    }

    /// The terminals that run or ended a short while ago, oldest first.
    ///
    /// # Errors
    /// As any call.
    pub async fn list_terminals(&self, id: &SandboxId) -> Result<Vec<Terminal>, ClientError> {
        let call = self.request(Method::GET, &path(id, None));
        let list: TerminalList = self.send_json("list the terminals", ANSWER_LIMIT, call).await?;
        Ok(list.terminals)
    }

    /// One terminal.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `TERMINAL_NOT_FOUND`.
    pub async fn terminal(
        &self,
        id: &SandboxId,
        terminal: &TerminalId,
    ) -> Result<Terminal, ClientError> {
        let call = self.request(Method::GET, &path(id, Some(terminal)));
        self.send_json("look at a terminal", ANSWER_LIMIT, call).await
    }

    /// Ends a terminal with all its processes, and forgets it.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `TERMINAL_NOT_FOUND`.
    pub async fn delete_terminal(
        &self,
        id: &SandboxId,
        terminal: &TerminalId,
    ) -> Result<(), ClientError> {
        let call = self.request(Method::DELETE, &path(id, Some(terminal)));
        self.send("end a terminal", ANSWER_LIMIT, call).await.map(drop)
    }

    /// Becomes a viewer of a terminal, which is made when it does not exist, unless `query` says
    /// otherwise.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `TERMINAL_NOT_FOUND`, `TOO_MANY_REQUESTS`, ...
    pub async fn attach_terminal(
        &self,
        id: &SandboxId,
        terminal: &TerminalId,
        query: &AttachTerminal,
    ) -> Result<TerminalConnection, ClientError> {
        let number = |number: Option<u16>| number.map(|number| number.to_string());
        let text = Query::default()
            .optional("cols", number(query.cols).as_deref())
            .optional("rows", number(query.rows).as_deref())
            .optional("create", query.create.map(|create| create.to_string()).as_deref())
            .optional("session", query.session.as_ref().map(api::id::SessionId::as_str))
            .optional("shell", query.shell.as_deref())
            .optional("cursor", query.cursor.map(|cursor| cursor.to_string()).as_deref());
        let path = format!("{}{}", path(id, Some(terminal)), text.as_str());
        // Only where the terminal may be made, its sandbox may be.
        let first_use = if query.create == Some(false) { "refused" } else { "creates" };
        let (headers, socket) = self.socket(ATTACH, &path, MESSAGE_BYTES, first_use).await?;
        let cursor = headers.get(CURSOR_HEADER).and_then(|value| value.to_str().ok());
        let cursor = cursor.and_then(|cursor| cursor.parse().ok());
        let cursor = cursor.ok_or_else(|| protocol(ATTACH, "it has no cursor"))?;
        let (sink, stream) = socket.split();
        Ok(TerminalConnection {
            input: TerminalInput { sink },
            output: TerminalOutput { stream, cursor },
        })
    }
}

fn path(id: &SandboxId, terminal: Option<&TerminalId>) -> String {
    match terminal {
        None => format!("/v1/sandboxes/{id}/terminals"),
        Some(terminal) => format!("/v1/sandboxes/{id}/terminals/{terminal}"),
    }
}

/// A viewer's connection. Both halves are to be used at the same time: a viewer that only types is
/// dropped when the output it does not take piles up. Dropping both leaves the terminal as it is.
#[derive(Debug)]
pub struct TerminalConnection {
    /// What is typed.
    pub input: TerminalInput,
    /// What is shown.
    pub output: TerminalOutput,
}

/// The half of a viewer that types.
pub struct TerminalInput {
    sink: SplitSink<Socket, Message>,
}

/// The half of a viewer that sees.
pub struct TerminalOutput {
    stream: SplitStream<Socket>,
    cursor: u64,
}

/// What comes from a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalMessage {
    /// Output, byte for byte.
    Output(Bytes),
    /// Everything else; nothing follows after [`TerminalEvent::Exit`].
    Event(TerminalEvent),
}

impl fmt::Debug for TerminalInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalInput").finish_non_exhaustive()
    }
}

impl fmt::Debug for TerminalOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalOutput").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl TerminalInput {
    /// Types. Waits while the program takes nothing.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for piece in bytes.chunks(TERMINAL_MESSAGE_BYTES) {
            self.send(Message::Binary(Bytes::copy_from_slice(piece))).await?;
        }
        Ok(())
    }

    /// Tells the terminal its new size. A size it cannot have comes back as
    /// [`TerminalEvent::Error`].
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub async fn resize(&mut self, cols: u16, rows: u16) -> Result<(), ClientError> {
        let control = TerminalControl::Resize { cols: cols.into(), rows: rows.into() };
        let text = serde_json::to_string(&control)
            .map_err(|fault| protocol(TYPE, format!("a size is no JSON: {fault}")))?;
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        self.sink.send(message).await.map_err(|source| broken(TYPE, source))
    }
}

impl TerminalOutput {
    /// The next message; none when the connection was closed in an orderly way.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when it was not; [`ClientError::Timeout`] when the server said nothing
    /// for a minute, although it sends a sign of life every 15 s.
    ///
    /// # Cancel safety
    /// Safe: a message is not lost.
    pub async fn next(&mut self) -> Result<Option<TerminalMessage>, ClientError> {
        let attempt = "read from a terminal";
        loop {
            let message = match within(attempt, SILENCE_LIMIT, self.stream.next()).await? {
                Some(Ok(message)) => message,
                Some(Err(source)) => return Err(broken(attempt, source)),
                None => return Ok(None),
            };
            match message {
                Message::Binary(bytes) => {
                    self.cursor += bytes.len() as u64;
                    return Ok(Some(TerminalMessage::Output(bytes)));
                }
                Message::Text(text) => {
                    let event = serde_json::from_str(&text).map_err(|fault| {
                        protocol(attempt, format!("a message does not read: {fault}"))
                    })?;
                    return Ok(Some(TerminalMessage::Event(event)));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Where the output goes on: the `cursor` for attaching again without a gap or a repetition.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
}
