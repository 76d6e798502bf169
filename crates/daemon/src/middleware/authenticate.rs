//! Who calls: the holder of the key, or nobody.

use api::error::ErrorCode;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};

use crate::{app::App, reply::Failure, routes::is_public};

/// Passes requests with the key, and requests to public routes. An unknown path needs the key as
/// well: without it there is nothing to find out.
pub(super) async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    let is_known = bearer(request.headers()).is_some_and(|key| app.key.matches(key));
    if is_known || is_public(request.uri().path()) {
        return next.run(request).await;
    }
    let message = "send the header Authorization: Bearer KEY; on the server's machine KEY is in the \
                   file `key` of its state directory";
    Failure::new(ErrorCode::Unauthorized, message).into_response()
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
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(bearer(&headers), token, "{values:?}");
        }
    }
}
