//! Bodies of any size, in constant memory, each way watched for silence.

use std::{
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use futures_util::{
    Stream,
    stream::{self, BoxStream, StreamExt},
};
use reqwest::{RequestBuilder, Response};

use crate::{
    Client, ClientError,
    call::{ANSWER_LIMIT, SILENCE_LIMIT, within},
};

/// Bytes as they arrive. Dropping it closes the connection.
pub type ByteStream = BoxStream<'static, Result<Bytes, ClientError>>;

impl Client {
    /// The body of an answer, piece by piece.
    pub(crate) fn download(&self, attempt: &'static str, response: Response) -> ByteStream {
        let reading = (self.clone(), response);
        let pieces = stream::try_unfold(reading, move |(client, mut response)| async move {
            let chunk = within(attempt, SILENCE_LIMIT, response.chunk()).await?;
            let chunk = chunk.map_err(|source| client.broken(attempt, source))?;
            Ok(chunk.map(|chunk| (chunk, (client, response))))
        });
        pieces.boxed()
    }

    /// Sends `content` as the body of `call` and returns the answer when it is a success.
    pub(crate) async fn upload<S>(
        &self,
        attempt: &str,
        call: RequestBuilder,
        content: S,
    ) -> Result<Response, ClientError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let upload = Arc::new(Upload::default());
        let (passing, ending) = (Arc::clone(&upload), Arc::clone(&upload));
        let end = stream::poll_fn(move |_context| {
            ending.is_whole.store(true, Ordering::Relaxed);
            Poll::Ready(None)
        });
        let content = content.map(move |chunk| passing.pass(chunk)).chain(end);
        let mut sending = pin!(call.body(reqwest::Body::wrap_stream(content)).send());
        let mut seen = 0;
        loop {
            // Who has all of it may take as long as for any answer: to add it to a file, say.
            let is_whole = upload.is_whole.load(Ordering::Relaxed);
            let limit = if is_whole { ANSWER_LIMIT } else { SILENCE_LIMIT };
            if let Ok(answer) = tokio::time::timeout(limit, &mut sending).await {
                let response = answer.map_err(|source| match upload.take_fault() {
                    Some(source) => ClientError::Content { attempt: attempt.to_owned(), source },
                    None => self.broken(attempt, source),
                })?;
                return self.check(attempt, response).await;
            }
            let now = upload.chunks.load(Ordering::Relaxed);
            if now == seen && is_whole == upload.is_whole.load(Ordering::Relaxed) {
                return Err(ClientError::Timeout { attempt: attempt.to_owned(), limit });
            }
            seen = now;
        }
    }
}

/// What the sender of a streamed body sees of it: that it moves, and why it failed.
#[derive(Default)]
struct Upload {
    chunks: AtomicU64,
    /// All of it was taken.
    is_whole: AtomicBool,
    /// Written by the body, read once the request has failed.
    fault: Mutex<Option<io::Error>>,
}

impl Upload {
    fn pass(&self, chunk: io::Result<Bytes>) -> io::Result<Bytes> {
        self.chunks.fetch_add(1, Ordering::Relaxed);
        chunk.map_err(|fault| {
            let kind = fault.kind();
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            kind.into()
        })
    }

    fn take_fault(&self) -> Option<io::Error> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
