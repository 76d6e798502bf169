//! What handlers take from a request: checked types, or a [`Failure`] that says what is wrong.

use std::{sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorCode},
    id::{KeyName, SandboxId, WebhookName},
    limit::{JSON_BODY_BYTES, JSON_BYTES_PER_KEY},
    sandbox::FIRST_USE_HEADER,
};
use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, FromRequestParts, Query as AxumQuery, Request},
};
use engine::{FirstUse, Full, Key, Place};
use http::{HeaderMap, HeaderValue, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Frame;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    app::{App, JSON_BYTES_AT_ONCE},
    reply::Failure,
};

/// Time for a whole JSON body to arrive: 8 MiB at 2 Mbit/s. A slower sender only holds a place.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// What the paths of one sandbox begin with.
pub(crate) const SANDBOXES: &str = "/v1/sandboxes/";

/// What the path of one key begins with.
const KEYS: &str = "/v1/keys/";

/// What the paths of one webhook begin with.
const WEBHOOKS: &str = "/v1/webhooks/";

/// The sandbox a path names.
///
/// An id is written as it is, never percent-encoded: all its characters may stand in a path, and one
/// spelling per sandbox leaves nothing to disagree about between daemon, logs and proxies.
#[derive(Debug)]
pub(crate) struct SandboxPath(pub(crate) SandboxId);

impl<S: Sync> FromRequestParts<S> for SandboxPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(parse_id(parts.uri.path())?))
    }
}

/// What a request has become of its first use, in its header [`FIRST_USE_HEADER`].
#[derive(Debug)]
pub(crate) struct AskedFirstUse(pub(crate) FirstUse);

impl<S: Sync> FromRequestParts<S> for AskedFirstUse {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match parts.headers.get(FIRST_USE_HEADER).map(HeaderValue::as_bytes) {
            None | Some(b"creates") => Ok(Self(FirstUse::Creates)),
            Some(b"refused") => Ok(Self(FirstUse::Refused)),
            Some(_) => {
                let text = format!("the header {FIRST_USE_HEADER} is `creates` or `refused`");
                let error = ApiError::new(ErrorCode::ValidationFailed, text);
                Err(Failure(error.with("field", FIRST_USE_HEADER)))
            }
        }
    }
}

/// The id in the path of a sandbox's route. The one place where a path becomes an id, so that
/// whoever decides on one and whoever acts on it mean the same.
pub(crate) fn parse_id(path: &str) -> Result<SandboxId, ApiError> {
    let (id, _) = split(path).unwrap_or_default();
    id.parse().map_err(|error: api::id::InvalidSandboxId| {
        ApiError::new(ErrorCode::InvalidSandboxId, error.to_string()).with("field", "id")
    })
}

/// The key a path names, as it is written there: all characters of a name may stand in a path.
#[derive(Debug)]
pub(crate) struct KeyPath(pub(crate) KeyName);

impl<S: Sync> FromRequestParts<S> for KeyPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let name = parts.uri.path().strip_prefix(KEYS).unwrap_or_default();
        name.parse().map(Self).map_err(|error: api::id::InvalidKeyName| {
            let error = ApiError::new(ErrorCode::ValidationFailed, error.to_string());
            Failure(error.with("field", "name"))
        })
    }
}

/// The webhook a path names, as it is written there: all characters of a name may stand in a path.
#[derive(Debug)]
pub(crate) struct WebhookPath(pub(crate) WebhookName);

impl<S: Sync> FromRequestParts<S> for WebhookPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let rest = parts.uri.path().strip_prefix(WEBHOOKS).unwrap_or_default();
        let name = rest.split('/').next().unwrap_or_default();
        name.parse().map(Self).map_err(|error: api::id::InvalidName| {
            let error = ApiError::new(ErrorCode::ValidationFailed, error.to_string());
            Failure(error.with("field", "name"))
        })
    }
}

/// Splits the path of a sandbox's route into the id's segment and the rest, both as they were sent.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(SANDBOXES)?;
    Some(rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash)))
}

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        require_json(request.headers())?;
        let key = request.extensions().get::<Arc<Key>>().cloned();
        let key = key.expect("only routes without a body are public");
        let room = |bytes| key.room(&app.bodies, bytes).map_err(|full| no_room(full, &key));
        // Held until it is parsed: what comes of it has limits of its own.
        let (bytes, _held) = collect(request.into_body(), room).await?;
        api::require_object(&bytes)?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let api = ApiError::new(ErrorCode::ValidationFailed, format!("the body: {error}"))
                .with("line", error.line())
                .with("column", error.column());
            Failure(api)
        })
    }
}

/// Refuses a body that is not declared to be JSON: HTML forms cannot declare that (R33).
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Failure> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::UnsupportedMediaType,
        "the body must be JSON: send the header Content-Type: application/json",
    ))
}

/// The error for a JSON body over its limit.
pub(crate) fn too_large() -> Failure {
    let message = format!(
        "a JSON body has at most {JSON_BODY_BYTES} bytes; larger content goes through the file routes"
    );
    Failure(ApiError::new(ErrorCode::PayloadTooLarge, message).with("limitBytes", JSON_BODY_BYTES))
}

/// Refuses a JSON body whose announced length is over the limit, before any of it is read.
pub(crate) fn require_length(body: &Body) -> Result<(), Failure> {
    let least = body.size_hint().lower();
    if usize::try_from(least).is_ok_and(|bytes| bytes <= JSON_BODY_BYTES) {
        Ok(())
    } else {
        Err(too_large())
    }
}

/// Reads a body, and takes room for each part as it comes: what is only announced takes none.
async fn collect(
    body: Body,
    room: impl Fn(usize) -> Result<Place, Failure>,
) -> Result<(Vec<u8>, Vec<Place>), Failure> {
    require_length(&body)?;
    let whole = async {
        let mut body = Limited::new(body, JSON_BODY_BYTES);
        let (mut bytes, mut held) = (Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => {
                    held.push(room(data.len())?);
                    bytes.extend_from_slice(&data);
                }
                // Trailers are no content.
                Ok(Err(_)) => {}
                Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
                Err(_) => {
                    return Err(Failure::new(ErrorCode::ValidationFailed, "the body broke off"));
                }
            }
        }
        Ok((bytes, held))
    };
    timeout(BODY_DEADLINE, whole).await.unwrap_or_else(|_elapsed| {
        let secs = BODY_DEADLINE.as_secs();
        Err(Failure::new(ErrorCode::Timeout, format!("the body did not arrive within {secs} s")))
    })
}

/// The bodies of others take the memory there is for them.
fn no_room(full: Full, key: &Key) -> Failure {
    let (limit, whose) = match full {
        Full::Key => (JSON_BYTES_PER_KEY, format!("for the key {}", key.name())),
        Full::Node => (JSON_BYTES_AT_ONCE, "for all keys together".to_owned()),
    };
    let message =
        format!("the server reads as many bytes of JSON at once as it may {whose}; try again");
    Failure(ApiError::new(ErrorCode::TooManyRequests, message).with("limitBytes", limit))
}

/// The query of a request.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        AxumQuery::try_from_uri(&parts.uri).map(|AxumQuery(query)| Self(query)).map_err(|error| {
            Failure::new(ErrorCode::ValidationFailed, format!("the query: {}", error.body_text()))
        })
    }
}
