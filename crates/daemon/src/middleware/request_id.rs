//! A name for every request: in its answer, its errors, the log, and the agent's errors.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use axum::{extract::Request, response::Response};
use http::{HeaderName, HeaderValue};
use link::REQUEST_ID;

/// Characters of a caller's own id; longer ones are replaced.
const CHARS: usize = 64;

/// A request's name, in its extensions.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Gives the request its id: the caller's own where it is a plain word, so that a trace can span
/// systems, or a new one.
pub(super) async fn give<F: Future<Output = Response>>(
    mut request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let name = HeaderName::from_static(REQUEST_ID);
    let own = request.headers().get(&name).and_then(|value| value.to_str().ok());
    let id = own.filter(|id| is_plain(id)).map_or_else(new, str::to_owned);
    let header = HeaderValue::from_str(&id).expect("an id is plain ASCII");
    request.headers_mut().insert(name.clone(), header.clone());
    request.extensions_mut().insert(RequestId(id));
    let mut response = answer(request).await;
    response.headers_mut().insert(name, header);
    response
}

fn is_plain(id: &str) -> bool {
    let in_set = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=CHARS).contains(&id.len()) && id.bytes().all(in_set)
}

/// Unique within the node's log: random per process, then counted.
fn new() -> String {
    static PROCESS: LazyLock<u32> = LazyLock::new(|| {
        // Only uniqueness is asked for; a process id is nearly as good where there is no randomness.
        getrandom::u32().unwrap_or_else(|_| std::process::id())
    });
    static COUNT: AtomicU64 = AtomicU64::new(1);
    format!("{:08x}-{:x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}
