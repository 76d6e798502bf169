//! How a request is refused: the one place where errors become responses.

use api::error::{ApiError, ErrorBody, ErrorCode};
use axum::{
    Json, Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use link::REQUEST_ID;
use tower::Service;

/// Seconds a caller should wait when too much runs at once: commands usually end sooner.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("1");

/// A refused request. [`render`] turns it into the body that callers see.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = ().into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// Gives every refusal its status, its body and the request's id, and every response that id.
pub(crate) async fn render(mut router: Router, request: Request) -> Response {
    let id = request.headers().get(REQUEST_ID).cloned();
    // A router is always ready.
    let mut response = match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if let Some(mut error) = response.extensions_mut().remove::<ApiError>() {
        error.request_id = id.as_ref().and_then(|id| id.to_str().ok()).map(str::to_owned);
        let allow = response.headers_mut().remove(header::ALLOW);
        response = respond(error);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn respond(error: ApiError) -> Response {
    let code = error.code;
    let size = error.details.get("size").and_then(serde_json::Value::as_u64);
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(ErrorBody { error })).into_response();
    let headers = response.headers_mut();
    if code == ErrorCode::TooManyRequests {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECS);
    }
    // RFC 9110 section 15.5.17: a 416 says how long the content is.
    if code == ErrorCode::RangeNotSatisfiable
        && let Some(Ok(range)) = size.map(|size| HeaderValue::try_from(format!("bytes */{size}")))
    {
        headers.insert(header::CONTENT_RANGE, range);
    }
    response
}
