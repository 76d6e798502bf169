//! What differs between two states of a sandbox's files.

use api::{
    diff::{DiffFiles, FileDiff},
    id::{CheckpointId, SandboxId},
};
use reqwest::Method;

use crate::{Client, ClientError, call::ANSWER_LIMIT, encode::Query};

impl Client {
    /// One page of what differs.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`,
    /// `CHECKPOINTS_NOT_AVAILABLE`, ...
    pub async fn diff_files(
        &self,
        id: &SandboxId,
        query: &DiffFiles,
    ) -> Result<FileDiff, ClientError> {
        let limit = query.limit.map(|limit| limit.to_string());
        let text = Query::default()
            .optional("against", query.against.as_ref().map(CheckpointId::as_str))
            .optional("of", query.of.as_ref().map(CheckpointId::as_str))
            .optional("cursor", query.cursor.as_deref())
            .optional("limit", limit.as_deref());
        let path = format!("/v1/sandboxes/{id}/diff{}", text.as_str());
        self.send_json("compare files", ANSWER_LIMIT, self.request(Method::GET, &path)).await
    }
}
