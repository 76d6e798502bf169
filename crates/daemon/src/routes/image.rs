//! Images: list, build.

use std::{convert::Infallible, time::Duration};

use api::{
    error::ErrorBody,
    image::{BuildEvent, BuildImage, ImageList},
    limit::HEARTBEAT_SECS,
};
use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::ReceiverStream;

use crate::{app::App, extract::Json, reply::Failure};

/// List images.
///
/// The images in the node's store, and `host`, which is made of the machine's own files.
#[utoipa::path(
    get, path = "/v1/images", operation_id = "listImages", tag = "image",
    responses((status = 200, description = "Sorted by name", body = ImageList))
)]
pub(super) async fn list(State(app): State<App>) -> Result<axum::Json<ImageList>, Failure> {
    let images = app.engine().await?.images().await?;
    Ok(axum::Json(ImageList { images }))
}

/// Build an image.
///
/// Carries out a recipe (a Dockerfile with FROM, RUN, ENV, WORKDIR and LABEL) and streams its progress
/// as server-sent events; the last one is `done` or `failed`. Each step's result is kept, so a build
/// that failed or was cancelled (by closing the connection) goes on where it stopped. For admin keys.
#[utoipa::path(
    post, path = "/v1/images:build", operation_id = "buildImage", tag = "image",
    request_body = BuildImage,
    responses(
        (status = 200, description = "Events", body = BuildEvent, content_type = "text/event-stream"),
        (status = 400, description = "`VALIDATION_FAILED`: the recipe does not parse", body = ErrorBody),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
    )
)]
pub(super) async fn build(
    State(app): State<App>,
    Json(request): Json<BuildImage>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let events = app.engine().await?.build_image(request).await?;
    let stream = ReceiverStream::new(events).map(|event| Ok(server_sent(&event)));
    let heartbeat = KeepAlive::new().interval(Duration::from_secs(HEARTBEAT_SECS));
    Ok(Sse::new(stream).keep_alive(heartbeat))
}

/// JSON has no raw line breaks, so a program's output cannot end an event early (R36).
fn server_sent(event: &BuildEvent) -> Event {
    let data = serde_json::to_string(event).expect("a build event is texts and numbers");
    Event::default().event(event.name()).data(data)
}
