//! From an error to a response, once for the whole API.
//!
//! A [`Failure`] travels as an extension of an empty response until `middleware` has the request's
//! id at hand; there [`render`] writes its body.

use api::error::{ApiError, ErrorBody, ErrorCode};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};

/// Seconds a caller should wait after "not now". Short: what was busy is usually free at once.
const RETRY_AFTER_SECS: &str = "1";

/// An error on its way to the caller.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) ApiError);

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ApiError::new(code, message))
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Some((name, value)) = response_header(self.0.code) {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The header that belongs to a code.
fn response_header(code: ErrorCode) -> Option<(header::HeaderName, &'static str)> {
    match code.status() {
        401 => Some((header::WWW_AUTHENTICATE, "Bearer realm=\"sandbar\"")),
        429 | 503 => Some((header::RETRY_AFTER, RETRY_AFTER_SECS)),
        _ => None,
    }
}

/// Writes the body of a failed response, with the request's id. Returns the error for the log.
pub(crate) fn render(response: &mut Response, request_id: &str) -> Option<ApiError> {
    let Failure(mut error) = response.extensions_mut().remove::<Failure>()?;
    error.request_id = Some(request_id.to_owned());
    let body = serde_json::to_vec(&ErrorBody { error: error.clone() })
        .expect("an error body is texts and JSON values");
    *response.body_mut() = Body::from(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(error)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_failure_reads_as_documented() {
        let error = ApiError::new(ErrorCode::TooManyRequests, "try later").with("limit", 7);

        let mut response = Failure(error).into_response();
        let logged = render(&mut response, "r-1").unwrap();

        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({"error": {
                "code": "TOO_MANY_REQUESTS", "message": "try later", "details": {"limit": 7},
                "requestId": "r-1"
            }})
        );
        assert_eq!(logged.code, ErrorCode::TooManyRequests);
    }

    #[test]
    fn an_answer_that_is_no_failure_is_left_alone() {
        assert_eq!(render(&mut Response::new(Body::from("fine")), "r-1"), None);
    }
}
