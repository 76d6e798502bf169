//! How a call becomes a WebSocket.

use api::sandbox::FIRST_USE_HEADER;
use http::{
    HeaderMap, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use reqwest::{Method, Upgraded};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{
    Client, ClientError,
    call::{ANSWER_LIMIT, protocol, within},
};

pub(crate) type Socket = WebSocketStream<Upgraded>;

impl Client {
    /// Asks for a WebSocket at `path`, whose messages have at most `message_bytes`; `first_use` says what
    /// becomes of a sandbox that is not there, see [`FIRST_USE_HEADER`]. Returns also what the answer's
    /// head says.
    pub(crate) async fn socket(
        &self,
        attempt: &str,
        path: &str,
        message_bytes: usize,
        first_use: &str,
    ) -> Result<(HeaderMap, Socket), ClientError> {
        let key = generate_key();
        let call = self
            .request(Method::GET, path)
            .header(FIRST_USE_HEADER, first_use)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let answer = within(attempt, ANSWER_LIMIT, call.send()).await?;
        let answer = answer.map_err(|source| self.broken(attempt, source))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = self.check(attempt, answer).await?.status();
            return Err(protocol(attempt, format!("status {status} to a request for a WebSocket")));
        }
        let headers = answer.headers().clone();
        let accepted = headers.get(SEC_WEBSOCKET_ACCEPT).and_then(|value| value.to_str().ok());
        if accepted != Some(&*derive_accept_key(key.as_bytes())) {
            return Err(protocol(attempt, "it agrees to another WebSocket than was asked for"));
        }
        let stream = answer.upgrade().await.map_err(|source| self.broken(attempt, source))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(message_bytes))
            .max_frame_size(Some(message_bytes))
            .write_buffer_size(0);
        Ok((headers, Socket::from_raw_socket(stream, Role::Client, Some(config)).await))
    }
}

pub(crate) fn broken(attempt: &str, source: tungstenite::Error) -> ClientError {
    ClientError::Broken { attempt: attempt.to_owned(), source: Box::new(source) }
}
