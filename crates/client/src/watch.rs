//! Watching files: changes as they happen, and whether there were any.

use api::{
    id::SandboxId,
    watch::{Changes, CheckChanges, WatchEvent, WatchFiles},
};
use reqwest::Method;

use crate::{Client, ClientError, EventStream, call::ANSWER_LIMIT, encode::Query};

/// The events of a watch; the last, if the watch ends by itself, is [`WatchEvent::Stopped`].
/// Dropping it ends the watch.
pub type WatchStream = EventStream<WatchEvent>;

impl Client {
    /// Watches files. Returns when everything is watched; the first event says so.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_NOT_FOUND`, `TREE_TOO_LARGE`, `TOO_MANY_REQUESTS`, ...; with
    /// the same codes from the stream when the watch cannot go on.
    pub async fn watch_files(
        &self,
        id: &SandboxId,
        request: &WatchFiles,
    ) -> Result<WatchStream, ClientError> {
        let attempt = "watch files";
        let session = request.session.as_ref().map(ToString::to_string);
        let mut query = Query::default()
            .text("path", &request.path)
            .optional("session", session.as_deref())
            .text("recursive", if request.recursive { "true" } else { "false" });
        for pattern in &request.include {
            query = query.text("include", pattern);
        }
        // An empty pattern says that there is a list, and that it has nothing in it.
        let nothing = [String::new()];
        let exclude = request.exclude.as_deref();
        for pattern in exclude.map_or(&[][..], |list| if list.is_empty() { &nothing } else { list })
        {
            query = query.text("exclude", pattern);
        }
        let path = format!("/v1/sandboxes/{id}/files:watch{}", query.as_str());
        let call = self.request(Method::GET, &path);
        let response = self.send(attempt, ANSWER_LIMIT, call).await?;
        Ok(EventStream::new(self.clone(), attempt, response, WatchEvent::is_final))
    }

    /// Asks whether files have changed since the version of an earlier answer.
    ///
    /// # Errors
    /// As [`Client::watch_files`].
    pub async fn check_changes(
        &self,
        id: &SandboxId,
        request: &CheckChanges,
    ) -> Result<Changes, ClientError> {
        let path = format!("/v1/sandboxes/{id}/files:changes");
        let call = self.request(Method::POST, &path).json(request);
        self.send_json("look for changes", ANSWER_LIMIT, call).await
    }
}
