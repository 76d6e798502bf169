//! Checkpoints: make, list, remove, restore, fork from.

use api::{
    checkpoint::{
        Checkpoint, CheckpointCreated, CheckpointList, CreateCheckpoint, ForkSandbox, Forks,
        RestoreCheckpoint,
    },
    id::{CheckpointId, SandboxId},
    sandbox::Sandbox,
};
use reqwest::Method;

use crate::{Client, ClientError, call::ANSWER_LIMIT};

impl Client {
    /// Keeps the files of a sandbox as they are now. Its processes stand still for a moment.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`, `CHECKPOINT_EXISTS`,
    /// `CHECKPOINTS_NOT_AVAILABLE`, ...
    pub async fn create_checkpoint(
        &self,
        id: &SandboxId,
        request: &CreateCheckpoint,
    ) -> Result<CheckpointCreated, ClientError> {
        let call = self.request(Method::POST, &path(id, "checkpoints")).json(request);
        self.send_json("make a checkpoint", ANSWER_LIMIT, call).await
    }

    /// The checkpoints of a sandbox, oldest first.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`.
    pub async fn checkpoints(&self, id: &SandboxId) -> Result<Vec<Checkpoint>, ClientError> {
        let call = self.request(Method::GET, &path(id, "checkpoints"));
        let list: CheckpointList = self.send_json("list checkpoints", ANSWER_LIMIT, call).await?;
        Ok(list.checkpoints)
    }

    /// Removes a checkpoint.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`.
    pub async fn remove_checkpoint(
        &self,
        id: &SandboxId,
        checkpoint: &CheckpointId,
    ) -> Result<(), ClientError> {
        let path = path(id, &format!("checkpoints/{checkpoint}"));
        let call = self.request(Method::DELETE, &path);
        self.send("remove a checkpoint", ANSWER_LIMIT, call).await.map(drop)
    }

    /// Ends the processes of a sandbox and gives it the files of a checkpoint. It is stopped then.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`, ...
    pub async fn restore_checkpoint(
        &self,
        id: &SandboxId,
        request: &RestoreCheckpoint,
    ) -> Result<Sandbox, ClientError> {
        let call = self.request(Method::POST, &path(id, "restore")).json(request);
        self.send_json("restore a checkpoint", ANSWER_LIMIT, call).await
    }

    /// Makes sandboxes with the files of another. They run then.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`, `SANDBOX_EXISTS`, ...
    pub async fn fork_sandbox(
        &self,
        id: &SandboxId,
        request: &ForkSandbox,
    ) -> Result<Vec<Sandbox>, ClientError> {
        let call = self.request(Method::POST, &path(id, "fork")).json(request);
        let forks: Forks = self.send_json("fork a sandbox", ANSWER_LIMIT, call).await?;
        Ok(forks.sandboxes)
    }
}

fn path(id: &SandboxId, rest: &str) -> String {
    format!("/v1/sandboxes/{id}/{rest}")
}
