//! Requests into checked types: JSON bodies and queries, with errors that name the field.

use api::{
    error::{ApiError, ErrorCode},
    limit::JSON_BODY_BYTES,
};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::refusal::Refusal;

/// A JSON body of at most [`JSON_BODY_BYTES`].
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        if !is_json(request.headers()) {
            let text = "the body must be JSON: send `Content-Type: application/json`";
            return Err(ApiError::new(ErrorCode::UnsupportedMediaType, text).into());
        }
        let body = collect(request.into_body()).await?;
        api::require_object(&body)?;
        // Keeping track of where it is costs more than the reading itself.
        let value = serde_json::from_slice(&body).or_else(|_fault| located(&body))?;
        Ok(Self(value))
    }
}

/// Reads again what could not be read, for the field that is wrong.
fn located<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|fault| {
        let field = fault.path().to_string();
        invalid(&fault.into_inner().to_string(), (field != ".").then_some(&*field))
    })?;
    json.end().map_err(|fault| invalid(&fault.to_string(), None))?;
    Ok(value)
}

/// A query string.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(fault) => Err(invalid(&format!("in the query: {}", fault.body_text()), None)),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

async fn collect(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, JSON_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!(
                "a JSON body has at most {JSON_BODY_BYTES} bytes; send content \
                through the file routes"
            );
            let error = ApiError::new(ErrorCode::PayloadTooLarge, text);
            Err(error.with("limit", JSON_BODY_BYTES).into())
        }
        Err(_) => Err(invalid("the body ended before its end", None)),
    }
}

fn invalid(fault: &str, field: Option<&str>) -> Refusal {
    let error = ApiError::new(ErrorCode::ValidationFailed, format!("invalid request: {fault}"));
    match field {
        Some(field) => error.with("field", field),
        None => error,
    }
    .into()
}
