//! Who calls, and whether the key they call with may do this: decided here, before anything else
//! of a request is looked at.

use std::sync::Arc;

use api::{
    error::{ApiError, ErrorCode},
    key::KeyScope,
};
use axum::extract::Request;
use engine::{Key, Presented};
use http::{HeaderMap, header};

use super::observe::CallerName;
use crate::{
    app::App,
    extract::{SANDBOXES, parse_id},
    reply::Failure,
    routes::is_public,
};

/// Passes requests to public routes, and requests with a key whose scope allows them; these carry
/// the key in their extensions. An unknown path needs a key as well: without one there is nothing to
/// find out.
pub(super) async fn authenticate(app: &App, request: &mut Request) -> Result<(), Failure> {
    if is_public(request.uri().path()) {
        return Ok(());
    }
    let key = find(app, request.headers()).await?;
    if let Some(name) = request.extensions().get::<CallerName>() {
        name.set(key.name());
    }
    authorize(key.scope(), request.uri().path())?;
    request.extensions_mut().insert(key);
    Ok(())
}

/// The key of a request. While the keys on record are not read, only the key `local` is known;
/// whoever shows another one waits until it can be told whether it is one.
async fn find(app: &App, headers: &HeaderMap) -> Result<Arc<Key>, Failure> {
    let Some(presented) = bearer(headers) else { return Err(unauthorized()) };
    let mut found = app.keys.find(presented);
    if matches!(found, Presented::NotYet) {
        app.engine().await?;
        found = app.keys.find(presented);
    }
    match found {
        Presented::Key(key) => Ok(key),
        Presented::Unknown | Presented::NotYet => Err(unauthorized()),
    }
}

/// One answer for no key, a wrong key, and a key that was removed or has expired.
pub(super) fn unauthorized() -> Failure {
    let message = "send the header Authorization: Bearer KEY with a key that is in force; on the \
                   server's machine one is in the file `key` of its state directory";
    Failure::new(ErrorCode::Unauthorized, message)
}

/// Whether this scope allows a request to this path, as it was sent. What is not named here is for
/// admin keys.
///
/// Nothing here depends on what exists: a sandbox outside the scope is not found, be there one or
/// not. The id is read by the same function as in the handlers, so what is allowed here is what is
/// meant there. Ids in bodies, and lists, are the engine's to check.
fn authorize(scope: &KeyScope, path: &str) -> Result<(), ApiError> {
    let KeyScope::Sandboxes { prefix, .. } = scope else { return Ok(()) };
    if matches!(path, "/v1/sandboxes" | "/v1/images" | "/v1/events") {
        return Ok(());
    }
    if !path.starts_with(SANDBOXES) {
        let message = format!(
            "this needs an admin key; yours is for sandboxes whose id begins with {prefix}"
        );
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let id = parse_id(path)?;
    if scope.covers(&id) {
        return Ok(());
    }
    let message = format!(
        "there is no sandbox with the id {id} among those your key is for, whose ids begin with \
         {prefix}"
    );
    Err(ApiError::new(ErrorCode::SandboxNotFound, message).with("id", id.as_str()))
}

/// The one bearer token of a request. Never a cookie or a query parameter: browsers send the first
/// by themselves, and the second ends in logs.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_one_bearer_token_counts() {
        for (values, token) in [
            (&["Bearer abc"][..], Some(&b"abc"[..])),
            (&["bearer abc"], Some(b"abc")),
            (&["Bearer"], None),
            (&["Basic abc"], None),
            (&["abc"], None),
            (&[], None),
            (&["Bearer abc", "Bearer def"], None),
            (&["Bearer abc", "Bearer abc"], None),
            (&["Bearer abc", "Basic def"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(bearer(&headers), token, "{values:?}");
        }
    }

    #[test]
    fn a_prefix_opens_its_sandboxes_and_nothing_else() {
        let scope = KeyScope::Sandboxes { prefix: "ci-".parse().unwrap(), max_sandboxes: None };
        for (path, expected) in [
            ("/v1/sandboxes", None),
            ("/v1/images", None),
            ("/v1/events", None),
            ("/v1/sandboxes/ci-1", None),
            ("/v1/sandboxes/ci-1/exec", None),
            ("/v1/sandboxes/ci-1/files/../../other/files/x", None),
            ("/v1/sandboxes/ci-1/files/%2e%2e%2fother", None),
            ("/v1/sandboxes/ci", Some(ErrorCode::SandboxNotFound)),
            ("/v1/sandboxes/CI-1", Some(ErrorCode::SandboxNotFound)),
            ("/v1/sandboxes/other/exec", Some(ErrorCode::SandboxNotFound)),
            ("/v1/sandboxes/other/ci-1", Some(ErrorCode::SandboxNotFound)),
            ("/v1/sandboxes/xci-1", Some(ErrorCode::SandboxNotFound)),
            ("/v1/sandboxes/", Some(ErrorCode::InvalidSandboxId)),
            ("/v1/sandboxes//ci-1", Some(ErrorCode::InvalidSandboxId)),
            ("/v1/sandboxes/ci-", Some(ErrorCode::InvalidSandboxId)),
            ("/v1/sandboxes/../keys", Some(ErrorCode::InvalidSandboxId)),
            ("/v1/sandboxes/ci-%2e%2e", Some(ErrorCode::InvalidSandboxId)),
            ("/v1/sandboxes/ci-1%2f..%2fother", Some(ErrorCode::InvalidSandboxId)),
            ("/v1/sandboxes/%63i-1", Some(ErrorCode::InvalidSandboxId)),
            ("/v1/sandboxes/ci-1;other", Some(ErrorCode::InvalidSandboxId)),
            ("/v1/sandboxes:anything", Some(ErrorCode::Forbidden)),
            ("/v1/images:build", Some(ErrorCode::Forbidden)),
            ("/v1/images/", Some(ErrorCode::Forbidden)),
            ("/v1/keys", Some(ErrorCode::Forbidden)),
            ("/v1/keys/ci", Some(ErrorCode::Forbidden)),
            ("/v1/keys:rotate", Some(ErrorCode::Forbidden)),
            ("/v1/webhooks", Some(ErrorCode::Forbidden)),
            ("/v1/webhooks/a/test", Some(ErrorCode::Forbidden)),
            ("/v1/node:shutdown", Some(ErrorCode::Forbidden)),
            ("/metrics", Some(ErrorCode::Forbidden)),
            ("/v1/Sandboxes/ci-1", Some(ErrorCode::Forbidden)),
            ("//v1/sandboxes/ci-1", Some(ErrorCode::Forbidden)),
            ("/v1/./sandboxes/ci-1", Some(ErrorCode::Forbidden)),
            ("/nothing", Some(ErrorCode::Forbidden)),
            ("", Some(ErrorCode::Forbidden)),
            ("*", Some(ErrorCode::Forbidden)),
        ] {
            let code = authorize(&scope, path).err().map(|error| error.code);
            assert_eq!(code, expected, "{path}");
            assert!(authorize(&KeyScope::Admin {}, path).is_ok());
        }
    }
}
