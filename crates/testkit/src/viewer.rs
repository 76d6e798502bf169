//! A viewer of a terminal, as tests use one: it types, waits for what is shown, and never for ever.

use std::time::Duration;

use api::{
    id::{SandboxId, TerminalId},
    terminal::{AttachTerminal, Terminal, TerminalEvent},
};
use client::{TerminalConnection, TerminalMessage};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::Server;

/// Bounds every wait for output, so that a lost byte fails a test instead of hanging it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between looks at a terminal, which tells nobody of its changes.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A viewer, and what it has seen and not yet been asked for.
#[derive(Debug)]
pub struct Viewer {
    /// Its connection.
    pub connection: TerminalConnection,
    /// What it has seen.
    pub seen: Vec<u8>,
}

impl Viewer {
    /// A viewer of terminal `id` in sandbox `s`; both are made when they do not exist. It has seen the
    /// replay.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn attach(server: &Server, id: &str) -> Self {
        Self::attach_with(server, id, AttachTerminal::default()).await
    }

    /// As [`Viewer::attach`], with a query.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn attach_with(server: &Server, id: &str, query: AttachTerminal) -> Self {
        let client = server.client();
        let connection = client.attach_terminal(&sandbox(), &terminal_id(id), &query).await;
        let connection = connection.unwrap_or_else(|error| panic!("it is refused: {error}"));
        let mut viewer = Self { connection, seen: Vec::new() };
        assert_eq!(viewer.event().await, TerminalEvent::Ready);
        viewer
    }

    /// A viewer of the new terminal `t` in sandbox `s`, which runs the shell text `command`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn of(server: &Server, command: &str) -> Self {
        let body = json!({"id": "t", "command": command});
        let created = server.post("/v1/sandboxes/s/terminals", &body).await;
        assert_eq!(created.status, 201, "{}", created.text);
        Self::attach(server, "t").await
    }

    /// Types.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn type_in(&mut self, text: impl AsRef<[u8]>) {
        self.connection.input.write(text.as_ref()).await.expect("the connection lives");
    }

    /// The next message; output is kept as well. None when the terminal has closed the connection.
    ///
    /// # Panics
    /// When the connection breaks, or nothing comes.
    pub async fn message(&mut self) -> Option<TerminalMessage> {
        let Ok(next) = timeout(PATIENCE, self.connection.output.next()).await else {
            panic!("nothing more came after {:?}", self.text());
        };
        let message = next.unwrap_or_else(|error| panic!("{error} after {:?}", self.text()));
        if let Some(TerminalMessage::Output(bytes)) = &message {
            self.seen.extend_from_slice(bytes);
        }
        message
    }

    /// The next message that is no output.
    ///
    /// # Panics
    /// As [`Viewer::message`], and when the terminal closes the connection.
    pub async fn event(&mut self) -> TerminalEvent {
        loop {
            match self.message().await {
                Some(TerminalMessage::Output(_)) => {}
                Some(TerminalMessage::Event(event)) => return event,
                None => panic!("it was closed after {:?}", self.text()),
            }
        }
    }

    /// Reads until `text` has been shown; takes and returns what was up to its end.
    ///
    /// # Panics
    /// As [`Viewer::message`], and when something else than output comes.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            let at = self.seen.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = at {
                let rest = self.seen.split_off(at + text.len());
                let seen = std::mem::replace(&mut self.seen, rest);
                return String::from_utf8_lossy(&seen).into_owned();
            }
            match self.message().await {
                Some(TerminalMessage::Output(_)) => {}
                other => panic!("{other:?} and not {text:?} after {:?}", self.text()),
            }
        }
    }

    /// What it has seen, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }
}

impl Server {
    /// Terminal `id` of sandbox `s`.
    ///
    /// # Panics
    /// When there is none.
    pub async fn terminal(&self, id: &str) -> Terminal {
        let terminal = self.client().terminal(&sandbox(), &terminal_id(id)).await;
        terminal.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until terminal `id` of sandbox `s` is as it ought to be.
    ///
    /// # Panics
    /// When it does not get there.
    pub async fn terminal_until(&self, id: &str, fits: impl Fn(&Terminal) -> bool) {
        let look = async {
            while !fits(&self.terminal(id).await) {
                sleep(LOOK_EVERY).await;
            }
        };
        if timeout(PATIENCE, look).await.is_err() {
            panic!("the terminal does not get there: {:?}", self.terminal(id).await);
        }
    }
}

fn sandbox() -> SandboxId {
    "s".parse().expect("it is an id")
}

fn terminal_id(id: &str) -> TerminalId {
    id.parse().unwrap_or_else(|error| panic!("{id:?}: {error}"))
}
