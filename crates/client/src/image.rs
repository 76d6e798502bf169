//! Images: list, build.

use api::image::{BuildEvent, BuildImage, ImageList};
use http::header::ACCEPT;
use reqwest::Method;

use crate::{Client, ClientError, EventStream, call::ANSWER_LIMIT};

/// The events of a build; the last is `done` or `failed`. Dropping it cancels the build; steps
/// that are done stay in the store.
pub type BuildStream = EventStream<BuildEvent>;

impl Client {
    /// The images in the server's store.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_images(&self) -> Result<ImageList, ClientError> {
        let call = self.request(Method::GET, "/v1/images");
        self.send_json("list the images", ANSWER_LIMIT, call).await
    }

    /// Builds an image and returns the build's events as they happen.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `VALIDATION_FAILED` for a recipe that does not parse. A step that
    /// fails is the event [`BuildEvent::Failed`].
    pub async fn build_image(&self, request: &BuildImage) -> Result<BuildStream, ClientError> {
        let attempt = "build an image";
        let call =
            self.request(Method::POST, "/v1/images:build").header(ACCEPT, "text/event-stream");
        let response = self.send(attempt, ANSWER_LIMIT, call.json(request)).await?;
        Ok(EventStream::new(self.clone(), attempt, response, |event| {
            matches!(event, BuildEvent::Done { .. } | BuildEvent::Failed { .. })
        }))
    }
}
