//! The API's description: one document, written out as JSON and as a page.

pub(crate) mod document;
mod page;

use axum::body::Bytes;
use utoipa::openapi::OpenApi;

/// The description, made once at start.
#[derive(Debug)]
pub(crate) struct Docs {
    /// The OpenAPI document.
    pub(crate) json: Bytes,
    /// The same for people, in HTML.
    pub(crate) page: Bytes,
    /// The page's Content-Security-Policy: nothing but its own style and script.
    pub(crate) policy: String,
}

impl Docs {
    /// `url` is the server's own.
    pub(crate) fn new(document: &OpenApi, url: &str) -> Self {
        let value = serde_json::to_value(document).expect("an OpenAPI document is JSON");
        Self {
            json: value.to_string().into(),
            page: page::render(&value, url).into(),
            policy: page::policy(),
        }
    }
}
