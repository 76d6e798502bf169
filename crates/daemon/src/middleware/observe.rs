//! One log line and one count per request, at its very end: after the last byte of its answer, or
//! when the caller has gone. Never bodies, keys or query values (R35).

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Instant,
};

use api::{
    error::{ApiError, ErrorCode},
    id::{KeyName, SandboxId},
};
use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request},
    response::Response,
};
use http::{Method, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::RequestId;
use crate::{app::App, extract::split, preview::Addressed, reply};

/// The name of the one route of previews, in the log and the metrics.
const PREVIEW: &str = "preview";

/// Watches a request to its end, and writes the body of a failed one.
pub(super) async fn observe<F: Future<Output = Response>>(
    app: App,
    mut request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let mut record = Record::begin(app, &request);
    request.extensions_mut().insert(record.caller.clone());
    let mut response = answer(request).await;
    let error = reply::render(&mut response, &record.request_id);
    record.answered(response.status(), error);
    // An empty body is never asked for.
    record.is_whole = response.body().is_end_stream();
    response.map(|body| Body::new(Observed { body, record }))
}

/// In the extensions of a request: whose key it came with, once that is known.
#[derive(Debug, Clone, Default)]
pub(super) struct CallerName(Arc<OnceLock<KeyName>>);

impl CallerName {
    pub(super) fn set(&self, name: &KeyName) {
        self.0.set(name.clone()).unwrap_or_default();
    }
}

/// What the log will say about a request. It says it when dropped, because that is the one thing
/// that happens to every request.
struct Record {
    app: App,
    request_id: String,
    method: Method,
    route: String,
    is_visit: bool,
    sandbox: Option<SandboxId>,
    caller: CallerName,
    begun: Instant,
    status: Option<StatusCode>,
    code: Option<ErrorCode>,
    bytes: u64,
    is_whole: bool,
}

impl Record {
    fn begin(app: App, request: &Request) -> Self {
        app.metrics.begin();
        let extensions = request.extensions();
        let addressed = extensions.get::<Addressed>();
        let path = extensions.get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
        // The path of a visit is the visited program's, whatever it looks like.
        let route = if addressed.is_some() { PREVIEW } else { path }.to_owned();
        let sandbox = match addressed {
            None => split(request.uri().path()).and_then(|(id, _)| id.parse().ok()),
            Some(Addressed::To(label)) => Some(label.id().clone()),
            Some(Addressed::ToNobody | Addressed::Ambiguously) => None,
        };
        Self {
            request_id: extensions.get::<RequestId>().map_or_else(String::new, |id| id.0.clone()),
            method: request.method().clone(),
            is_visit: addressed.is_some(),
            route,
            sandbox,
            caller: CallerName::default(),
            begun: Instant::now(),
            status: None,
            code: None,
            bytes: 0,
            is_whole: false,
            app,
        }
    }

    /// Faults of ours get a line of their own, so that they are seen where requests are not logged.
    fn answered(&mut self, status: StatusCode, error: Option<ApiError>) {
        self.app.metrics.answered(self.method_name(), &self.route, self.begun.elapsed());
        self.status = Some(status);
        let Some(ApiError { code, message, details, .. }) = error else { return };
        self.code = Some(code);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            let details = serde_json::Value::Object(details);
            tracing::error!(request_id = self.request_id, ?code, message, %details, "a request failed");
        }
    }

    /// Methods nobody serves share one name: the number of series is bounded.
    fn method_name(&self) -> &str {
        match self.method.as_str() {
            name @ ("GET" | "HEAD" | "PUT" | "POST" | "PATCH" | "DELETE") => name,
            _ => "other",
        }
    }
}

/// The line of a request, at a level.
macro_rules! line {
    ($level:ident, $record:expr) => {
        tracing::$level!(
            request_id = $record.request_id,
            method = $record.method.as_str(),
            route = $record.route,
            key = $record.caller.0.get().map(KeyName::as_str),
            sandbox_id = $record.sandbox.as_ref().map(SandboxId::as_str),
            status = $record.status.map(|status| status.as_u16()),
            code = $record.code.map(tracing::field::debug),
            duration_us = $record.begun.elapsed().as_micros(),
            bytes = $record.bytes,
            outcome = outcome($record.status, $record.is_whole),
            "request"
        )
    };
}

impl Drop for Record {
    fn drop(&mut self) {
        self.app.metrics.end(self.method_name(), &self.route, self.status);
        // A page is dozens of visits, and who pays for them is not who reads the log.
        if self.is_visit {
            line!(debug, self);
        } else {
            line!(info, self);
        }
    }
}

fn outcome(status: Option<StatusCode>, is_whole: bool) -> &'static str {
    match (status, is_whole) {
        (None, _) => "caller gone before the answer",
        (Some(_), false) => "broken off",
        (Some(_), true) => "answered",
    }
}

/// An answer's body with its record.
struct Observed {
    body: Body,
    record: Record,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.record.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                // With a known length the server asks no further.
                self.record.is_whole = self.body.is_end_stream();
            }
            Some(Err(_)) => self.record.is_whole = false,
            None => self.record.is_whole = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
