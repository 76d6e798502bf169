//! Checkpoints: make, list, remove, restore, fork from.

use std::io;

use api::{
    archive::ArchiveFormat,
    checkpoint::{
        Checkpoint, CheckpointCreated, CheckpointImported, CheckpointList, CreateCheckpoint,
        ForkSandbox, Forks, ImportCheckpoint, RestoreCheckpoint,
    },
    id::{CheckpointId, SandboxId},
    sandbox::Sandbox,
};
use bytes::Bytes;
use futures_util::Stream;
use http::header::CONTENT_TYPE;
use reqwest::Method;

use crate::{
    ByteStream, Client, ClientError, MAX_ANSWER_BYTES,
    call::{ANSWER_LIMIT, protocol},
    encode::Query,
};

const EXPORT: &str = "export a checkpoint";
const IMPORT: &str = "import a checkpoint";

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

    /// The files of a checkpoint as they are packed, for [`Client::import_checkpoint`].
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`, ...; one that breaks off
    /// is an error of the stream.
    pub async fn export_checkpoint(
        &self,
        id: &SandboxId,
        checkpoint: &CheckpointId,
        format: ArchiveFormat,
    ) -> Result<ByteStream, ClientError> {
        let text = Query::default().text("format", format.as_str());
        let path = path(id, &format!("checkpoints/{checkpoint}/export{}", text.as_str()));
        let call = self.request(Method::GET, &path);
        let response = self.send(EXPORT, ANSWER_LIMIT, call).await?;
        Ok(self.download(EXPORT, response))
    }

    /// Makes a checkpoint of a sandbox of the export of another's, from a stream, in constant memory.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `IMAGE_MISMATCH`, `INVALID_ARCHIVE`, `CHECKPOINT_EXISTS`, ...;
    /// [`ClientError::Content`] when `content` fails; [`ClientError::Timeout`] when neither side moves
    /// a byte for a minute. It leaves nothing then.
    pub async fn import_checkpoint<S>(
        &self,
        id: &SandboxId,
        query: &ImportCheckpoint,
        content: S,
    ) -> Result<CheckpointImported, ClientError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let text = Query::default()
            .optional("checkpoint", query.checkpoint.as_ref().map(CheckpointId::as_str))
            .text("format", query.format.as_str());
        let path = path(id, &format!("checkpoints:import{}", text.as_str()));
        let call = self.request(Method::POST, &path);
        let call = call.header(CONTENT_TYPE, query.format.content_type());
        let response = self.upload(IMPORT, call, content).await?;
        let body = self.collect(IMPORT, response, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|fault| protocol(IMPORT, format!("its body does not read: {fault}")))
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
