//! Keys: create, list, remove; replace the one of this machine's clients.

use std::sync::Arc;

use api::{
    error::{ErrorBody, ErrorCode},
    key::{CreateKey, KeyList, NewKey},
};
use axum::{Extension, extract::State};
use engine::Key;
use http::StatusCode;

use crate::{
    app::App,
    extract::{Json, KeyPath},
    middleware::Parting,
    reply::Failure,
};

/// Create a key.
///
/// The answer holds its secret, which is told this once: the server keeps only a digest. In force at
/// once, and after every restart. For admin keys.
#[utoipa::path(
    post, path = "/v1/keys", operation_id = "createKey", tag = "key",
    request_body = CreateKey,
    responses(
        (status = 201, description = "The key and its secret", body = NewKey),
        (status = 400, description = "`VALIDATION_FAILED`", body = ErrorBody),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
        (status = 409, description = "`KEY_EXISTS`; `RESOURCE_BUSY`: it is being created or removed", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXCEEDED`: a node has at most 1000 keys", body = ErrorBody),
        (status = 507, description = "`NO_SPACE`", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Key>>,
    Json(request): Json<CreateKey>,
) -> Result<(StatusCode, axum::Json<NewKey>), Failure> {
    let key = app.engine().await?.keys().create(request).await?;
    tracing::info!(key = %key.key.name, by = %caller.name(), "a key was created");
    Ok((StatusCode::CREATED, axum::Json(key)))
}

/// List keys.
///
/// All of them, sorted by name, without their secrets. Expired ones stay until they are removed. For
/// admin keys.
#[utoipa::path(
    get, path = "/v1/keys", operation_id = "listKeys", tag = "key",
    responses(
        (status = 200, description = "The keys", body = KeyList),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
    )
)]
pub(super) async fn list(State(app): State<App>) -> Result<axum::Json<KeyList>, Failure> {
    Ok(axum::Json(app.engine().await?.keys().list()))
}

/// Remove a key.
///
/// From the answer on it opens nothing any more, on no connection, and what is under way with it is
/// broken off: streams, uploads, commands that are waited for. Its sandboxes stay. For admin keys.
#[utoipa::path(
    delete, path = "/v1/keys/{name}", operation_id = "removeKey", tag = "key",
    params(("name" = String, Path, description = "The key", example = "ci")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "`VALIDATION_FAILED`", body = ErrorBody),
        (status = 403, description = "`FORBIDDEN`: the key `local` can only be replaced", body = ErrorBody),
        (status = 404, description = "`KEY_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`RESOURCE_BUSY`: it is being created or removed", body = ErrorBody),
    )
)]
pub(super) async fn remove(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Key>>,
    Extension(parting): Extension<Parting>,
    KeyPath(name): KeyPath,
) -> Result<StatusCode, Failure> {
    parting.begin();
    app.engine().await?.keys().remove(&name).await?;
    tracing::info!(key = %name, by = %caller.name(), "a key was removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Replace the local key.
///
/// Puts a new secret into the file `key` of the state directory, where this machine's clients find
/// it, and tells it this once. The old one ends as if it were removed. For admin keys.
#[utoipa::path(
    post, path = "/v1/keys:rotate", operation_id = "rotateKey", tag = "key",
    responses(
        (status = 200, description = "The key `local` and its new secret", body = NewKey),
        (status = 403, description = "`FORBIDDEN`; also when the configuration decides the key", body = ErrorBody),
    )
)]
pub(super) async fn rotate(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Key>>,
    Extension(parting): Extension<Parting>,
) -> Result<axum::Json<NewKey>, Failure> {
    parting.begin();
    // File and memory change together, also when the caller goes away meanwhile.
    let file = Arc::clone(&app.key_file);
    let keys = app.keys.clone();
    let replaced = tokio::task::spawn_blocking(move || file.replace(&keys)).await;
    let panicked = |_| Failure::new(ErrorCode::InternalError, "replacing the local key failed");
    let key = replaced.map_err(panicked)??;
    tracing::info!(key = %key.key.name, by = %caller.name(), "a key was replaced");
    Ok(axum::Json(key))
}
