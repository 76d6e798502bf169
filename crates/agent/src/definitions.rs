//! What lasts over stops: how the sandbox's variables differ from those it was started with, and which
//! sessions there are and what each starts with.
//!
//! ```text
//! change ─▶ asked for ─▶ one writer: all of it, in one file ─▶ kept        start: file ─▶ definitions
//! ```
//!
//! Owns: the file. It is among the sandbox's own files and goes where they go: over a stop and a start
//! of the machine, into checkpoints and forks, and back with a restore. Does not: keep what a shell
//! has (its directory, functions, jobs), which ends with it.
//!
//! Invariant: the file is replaced whole, by one writer, and has what was defined when a change was
//! acknowledged or later.
//! Invariant: what is read is checked as a request is: the sandbox's tenant can write the file.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use api::{
    error::{ApiError, ErrorCode},
    session::CreateSession,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    env::{Environment, check_names},
    file,
    init::Agent,
    process::check::environment,
    session::Sessions,
};

/// Bytes of the file: some variables for each of the sessions that there can be. More is not kept.
const FILE_BYTES: usize = 4 * 1024 * 1024;

/// Permission bits of the file: variables are often secrets, and not every user of a sandbox is root.
const FILE_MODE: u32 = 0o600;

/// What is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// Over the variables that the sandbox was started with; null: not that one.
    #[serde(default)]
    env: BTreeMap<String, Option<String>>,
    #[serde(default)]
    sessions: Vec<KeptSession>,
}

/// A session's definition.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeptSession {
    pub(crate) session: CreateSession,
    pub(crate) created_at_ms: i64,
}

/// Whether what is defined is kept.
#[derive(Debug)]
pub(crate) struct Definitions {
    /// None: nothing is kept.
    file: Option<String>,
    /// Counts the changes.
    asked: watch::Sender<u64>,
    /// The last change that the file has, or could not be given.
    done: watch::Sender<(u64, Option<ApiError>)>,
}

impl Definitions {
    /// Those of the file, put in force. Without a file nothing is kept; one that does not read is as
    /// if it were not there.
    pub(crate) fn restore(file: Option<String>, env: &Environment, sessions: &Sessions) -> Self {
        let text = file.as_deref().and_then(|path| file::kept(path, FILE_BYTES).ok());
        let kept: Option<Kept> = text.and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(Kept { env: changes, sessions: kept }) = kept {
            // What a request could not define is left out.
            if check_names(&changes).is_ok() {
                drop(env.change(changes));
            }
            for KeptSession { session, created_at_ms } in kept {
                let is_sound = check_names(&session.env)
                    .and_then(|()| environment(&BTreeMap::new(), session.env.clone()));
                if is_sound.is_ok() {
                    drop(sessions.restore(session, created_at_ms));
                }
            }
        }
        Self { file, asked: watch::Sender::new(0), done: watch::Sender::new((0, None)) }
    }

    /// Asks for what is defined now to be kept. Returns the number of the change.
    pub(crate) fn note(&self) -> u64 {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        number
    }

    /// Returns when what is defined now is kept.
    ///
    /// # Errors
    /// `NO_SPACE` and other faults of the file, `PAYLOAD_TOO_LARGE`: it is in force, until the sandbox
    /// is stopped.
    pub(crate) async fn keep(&self) -> Result<(), ApiError> {
        if self.file.is_none() {
            return Ok(());
        }
        let number = self.note();
        let mut done = self.done.subscribe();
        let done = done.wait_for(|(done, _)| *done >= number).await;
        match done.as_deref() {
            Ok((_, Some(error))) => Err(error.clone()),
            // The sender is a field of `self`.
            Ok((_, None)) | Err(_) => Ok(()),
        }
    }
}

/// Writes what is defined, whenever that has changed.
pub(crate) async fn keep_all(agent: &Arc<Agent>) -> Infallible {
    let definitions = &agent.definitions;
    let mut asked = definitions.asked.subscribe();
    loop {
        // The sender is a field of the agent.
        drop(asked.changed().await);
        let number = *asked.borrow_and_update();
        let written = match &definitions.file {
            Some(file) => write(agent, file.clone()).await,
            None => Ok(()),
        };
        definitions.done.send_replace((number, written.err()));
    }
}

async fn write(agent: &Agent, path: String) -> Result<(), ApiError> {
    let kept = Kept { env: agent.env.changes(), sessions: agent.sessions.definitions() };
    let text = serde_json::to_vec(&kept).expect("definitions are texts and numbers");
    if text.len() > FILE_BYTES {
        let message = format!(
            "what is defined is in force but does not outlive a stop: with its variables and sessions \
             it has more than {FILE_BYTES} bytes"
        );
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with("limit", FILE_BYTES));
    }
    file::keep(&path, text, FILE_MODE).await
}
