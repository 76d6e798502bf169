//! Sessions and variables.

use api::{
    env::{ChangeEnv, Env},
    id::{SandboxId, SessionId},
    session::{CreateSession, Session, SessionList},
};
use reqwest::Method;

use crate::{
    Client, ClientError,
    call::{ANSWER_LIMIT, TURN_LIMIT},
};

impl Client {
    /// Makes a session. The sandbox is created when it does not exist.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SESSION_ALREADY_EXISTS`, `FILE_NOT_FOUND` (its directory),
    /// `SHELL_NOT_AVAILABLE`, ...
    pub async fn create_session(
        &self,
        id: &SandboxId,
        request: &CreateSession,
    ) -> Result<Session, ClientError> {
        let call = self.request(Method::POST, &sessions(id)).json(request);
        self.send_json("make a session", ANSWER_LIMIT, call).await
    }

    /// One session.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SESSION_NOT_FOUND`.
    pub async fn session(
        &self,
        id: &SandboxId,
        session: &SessionId,
    ) -> Result<Session, ClientError> {
        let call = self.request(Method::GET, &path(id, session));
        self.send_json("look at a session", ANSWER_LIMIT, call).await
    }

    /// The sessions of a sandbox, sorted by id.
    ///
    /// # Errors
    /// [`ClientError`] as for every call.
    pub async fn sessions(&self, id: &SandboxId) -> Result<Vec<Session>, ClientError> {
        let call = self.request(Method::GET, &sessions(id));
        let list: SessionList = self.send_json("list the sessions", ANSWER_LIMIT, call).await?;
        Ok(list.sessions)
    }

    /// Ends a session with everything that runs in it.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SESSION_NOT_FOUND`, or `VALIDATION_FAILED` for the default one.
    pub async fn delete_session(
        &self,
        id: &SandboxId,
        session: &SessionId,
    ) -> Result<(), ClientError> {
        let call = self.request(Method::DELETE, &path(id, session));
        self.send("delete a session", ANSWER_LIMIT, call).await.map(drop)
    }

    /// The variables of the sandbox or, when its turn comes, those of a session's shell.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SESSION_NOT_FOUND`, `SESSION_TERMINATED`, ...
    pub async fn env(
        &self,
        id: &SandboxId,
        session: Option<&SessionId>,
    ) -> Result<Env, ClientError> {
        let call = self.request(Method::GET, &env_path(id, session));
        self.send_json("read the variables", TURN_LIMIT, call).await
    }

    /// Sets and unsets variables of the sandbox or, when its turn comes, of a session.
    ///
    /// # Errors
    /// As [`Client::env`], and `VALIDATION_FAILED` for names that no variable has.
    pub async fn change_env(
        &self,
        id: &SandboxId,
        session: Option<&SessionId>,
        changes: &ChangeEnv,
    ) -> Result<(), ClientError> {
        let call = self.request(Method::PATCH, &env_path(id, session)).json(changes);
        self.send("change the variables", TURN_LIMIT, call).await.map(drop)
    }
}

fn sessions(id: &SandboxId) -> String {
    format!("/v1/sandboxes/{id}/sessions")
}

/// The characters of a session's id stand for themselves in a path.
fn path(id: &SandboxId, session: &SessionId) -> String {
    format!("{}/{session}", sessions(id))
}

fn env_path(id: &SandboxId, session: Option<&SessionId>) -> String {
    match session {
        Some(session) => format!("{}/env", path(id, session)),
        None => format!("/v1/sandboxes/{id}/env"),
    }
}
