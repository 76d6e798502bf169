//! Sandboxes: create, look at, list, change, freeze, thaw, stop, start, destroy.

use api::{
    id::SandboxId,
    sandbox::{CreateSandbox, ListSandboxes, Sandbox, SandboxList, UpdateSandbox},
};
use reqwest::Method;

use crate::{Client, ClientError, call::ANSWER_LIMIT, encode::Query};

impl Client {
    /// Creates a sandbox, or returns the existing one when its settings agree.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_EXISTS`, `IMAGE_NOT_FOUND`, `CAPACITY_EXCEEDED`, ...
    pub async fn create_sandbox(&self, request: &CreateSandbox) -> Result<Sandbox, ClientError> {
        let call = self.request(Method::POST, "/v1/sandboxes").json(request);
        self.send_json("create a sandbox", ANSWER_LIMIT, call).await
    }

    /// One sandbox with what it uses now.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`.
    pub async fn sandbox(&self, id: &SandboxId) -> Result<Sandbox, ClientError> {
        let call = self.request(Method::GET, &format!("/v1/sandboxes/{id}"));
        self.send_json("look at a sandbox", ANSWER_LIMIT, call).await
    }

    /// One page of sandboxes.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `VALIDATION_FAILED` for a bad label or cursor.
    pub async fn list_sandboxes(&self, query: &ListSandboxes) -> Result<SandboxList, ClientError> {
        let limit = query.limit.map(|limit| limit.to_string());
        let text = Query::default()
            .optional("label", query.label.as_deref())
            .optional("cursor", query.cursor.as_deref())
            .optional("limit", limit.as_deref());
        let call = self.request(Method::GET, &format!("/v1/sandboxes{}", text.as_str()));
        self.send_json("list the sandboxes", ANSWER_LIMIT, call).await
    }

    /// All sandboxes, page after page; with a label (`name` or `name=value`) only those that have
    /// it. Sandboxes created or destroyed meanwhile may or may not be among them.
    ///
    /// # Errors
    /// As [`Client::list_sandboxes`].
    pub async fn all_sandboxes(&self, label: Option<&str>) -> Result<Vec<Sandbox>, ClientError> {
        let mut query = ListSandboxes { label: label.map(str::to_owned), ..Default::default() };
        let mut all = Vec::new();
        loop {
            let page = self.list_sandboxes(&query).await?;
            all.extend(page.sandboxes);
            match page.next_cursor {
                // A cursor that does not move would go round for ever.
                Some(cursor) if query.cursor.as_ref() != Some(&cursor) => {
                    query.cursor = Some(cursor);
                }
                _ => return Ok(all),
            }
        }
    }

    /// Changes a sandbox that exists; what runs in it goes on.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`, `VALIDATION_FAILED`, ...
    pub async fn update_sandbox(
        &self,
        id: &SandboxId,
        request: &UpdateSandbox,
    ) -> Result<Sandbox, ClientError> {
        let call = self.request(Method::PATCH, &format!("/v1/sandboxes/{id}")).json(request);
        self.send_json("change a sandbox", ANSWER_LIMIT, call).await
    }

    /// Stops every process of a sandbox where it is, once no request to it is under way. The next
    /// request lets it go on.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`, or `RESOURCE_BUSY` when it is used all the time.
    pub async fn freeze_sandbox(&self, id: &SandboxId) -> Result<Sandbox, ClientError> {
        self.steer("freeze a sandbox", id, "freeze").await
    }

    /// Lets a frozen sandbox go on.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`.
    pub async fn thaw_sandbox(&self, id: &SandboxId) -> Result<Sandbox, ClientError> {
        self.steer("thaw a sandbox", id, "thaw").await
    }

    /// Ends a sandbox's processes; its files and settings stay.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`.
    pub async fn stop_sandbox(&self, id: &SandboxId) -> Result<Sandbox, ClientError> {
        self.steer("stop a sandbox", id, "stop").await
    }

    /// Has an existing sandbox run.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`, `SANDBOX_FAILED`, ...
    pub async fn start_sandbox(&self, id: &SandboxId) -> Result<Sandbox, ClientError> {
        self.steer("start a sandbox", id, "start").await
    }

    async fn steer(
        &self,
        attempt: &'static str,
        id: &SandboxId,
        verb: &str,
    ) -> Result<Sandbox, ClientError> {
        let call = self.request(Method::POST, &format!("/v1/sandboxes/{id}/{verb}"));
        self.send_json(attempt, ANSWER_LIMIT, call).await
    }

    /// Ends a sandbox with its processes and files.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`.
    pub async fn destroy_sandbox(&self, id: &SandboxId) -> Result<(), ClientError> {
        let call = self.request(Method::DELETE, &format!("/v1/sandboxes/{id}"));
        self.send("destroy a sandbox", ANSWER_LIMIT, call).await.map(drop)
    }
}
