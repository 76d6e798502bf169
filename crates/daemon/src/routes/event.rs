//! Events: list, follow.

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorBody},
    event::{Event, EventList, ListEvents},
    limit::HEARTBEAT_SECS,
};
use axum::{
    Extension,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event as ServerSent, KeepAlive, Sse},
    },
};
use engine::{EventFollower, Key};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, header};

use crate::{app::App, extract::Query, reply::Failure};

/// Where a stream goes on that broke: the id of its last event.
const LAST_EVENT_ID: &str = "last-event-id";

/// List or follow events.
///
/// What happened in the lives of the sandboxes: an event for each change, with its reason, in the order
/// in which they happened. As a list, in pages: pass `cursor` of one page as `after` of the next,
/// until `more` is false, and again later. With `Accept: text/event-stream`, as server-sent events,
/// as they happen: each has its cursor as its id, so that a client that comes back with
/// `Last-Event-ID` (as browsers do by themselves) misses none and gets none twice.
///
/// An event is on disk before it is told, in the transaction of the change it tells of. The newest
/// 100,000 are kept, up to 64 MiB of them and no longer than 31 days. A key with a prefix sees only
/// those of its own sandboxes.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "listEvents", tag = "event",
    params(
        ListEvents,
        ("Last-Event-ID" = Option<u64>, Header, description = "As `after`, of a stream"),
    ),
    responses(
        (status = 200, description = "A page; or a stream, whose data is one `Event` each", content(
            (EventList = "application/json"),
            (Event = "text/event-stream"),
        )),
        (status = 400, description = "`VALIDATION_FAILED`", body = ErrorBody),
        (status = 410, description = "`EVENTS_MISSED`: what follows the cursor is not kept any more", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    headers: HeaderMap,
    Query(mut query): Query<ListEvents>,
) -> Result<Response, Failure> {
    let (engine, prefix) = (app.engine().await?, key.scope().prefix());
    if !is_stream(&headers) {
        return Ok(axum::Json(engine.events(&query, prefix).await?).into_response());
    }
    if let Some(last) = headers.get(LAST_EVENT_ID) {
        query.after = Some(cursor(last)?);
    }
    let follower = engine.follow_events(&query, prefix).await?;
    let heartbeat = KeepAlive::new().interval(Duration::from_secs(HEARTBEAT_SECS));
    Ok(Sse::new(render(follower)).keep_alive(heartbeat).into_response())
}

fn is_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.into_iter().any(|value| value.to_ascii_lowercase().contains("text/event-stream"))
}

fn cursor(last: &http::HeaderValue) -> Result<u64, ApiError> {
    let cursor = last.to_str().ok().and_then(|text| text.parse().ok());
    cursor.ok_or_else(|| {
        let message = "Last-Event-ID is the id of an event of this stream, a number";
        ApiError::new(api::error::ErrorCode::ValidationFailed, message)
            .with("field", "Last-Event-ID")
    })
}

/// The stream begins with an id alone: also who comes back before the first event misses none.
fn render(follower: EventFollower) -> impl Stream<Item = Result<ServerSent, Infallible>> {
    let begin = ServerSent::default().id(follower.cursor().to_string());
    let events = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await? {
            Ok(event) => Some((server_sent(&event), Some(follower))),
            Err(error) => Some((failed(error), None)),
        }
    });
    stream::iter([begin]).chain(events).map(Ok)
}

/// JSON has no raw line breaks, so no text in it can end an event early (R36).
fn server_sent(event: &Event) -> ServerSent {
    let data = serde_json::to_string(event).expect("an event is texts and numbers");
    ServerSent::default().id(event.cursor.to_string()).data(data)
}

fn failed(error: ApiError) -> ServerSent {
    let data = serde_json::to_string(&ErrorBody { error }).expect("an error is texts and values");
    ServerSent::default().event("error").data(data)
}
