//! Ports: expose, list, hide, wait for, and connections to them.

use std::fmt;

use api::{
    id::SandboxId,
    limit::PORT_MESSAGE_BYTES,
    port::{
        ExposePort, ExposedPort, PortList, PortReady, PortTokenValidity, RotatePort,
        ValidatePortToken, WaitPort,
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    Client, ClientError,
    call::{ANSWER_LIMIT, SILENCE_LIMIT, within},
    process::WAIT_LIMIT,
    socket::{Socket, broken},
};

const CONNECT: &str = "connect to a port";

/// Bytes of one message to a port.
const PIECE_BYTES: usize = 64 * 1024;

impl Client {
    /// Exposes a port. The sandbox is created when it does not exist.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PORT_ALREADY_EXPOSED`, `INVALID_PORT`, ...
    pub async fn expose_port(
        &self,
        id: &SandboxId,
        request: &ExposePort,
    ) -> Result<ExposedPort, ClientError> {
        let call = self.request(Method::POST, &ports(id)).json(request);
        self.send_json("expose a port", ANSWER_LIMIT, call).await
    }

    /// The exposed ports of a sandbox, and what listens in it.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SANDBOX_NOT_FOUND`.
    pub async fn ports(&self, id: &SandboxId) -> Result<PortList, ClientError> {
        let call = self.request(Method::GET, &ports(id));
        self.send_json("list the ports", ANSWER_LIMIT, call).await
    }

    /// One exposed port.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PORT_NOT_EXPOSED`.
    pub async fn port(&self, id: &SandboxId, port: u16) -> Result<ExposedPort, ClientError> {
        let call = self.request(Method::GET, &path(id, port, ""));
        self.send_json("look at a port", ANSWER_LIMIT, call).await
    }

    /// Hides an exposed port.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PORT_NOT_EXPOSED`.
    pub async fn unexpose_port(&self, id: &SandboxId, port: u16) -> Result<(), ClientError> {
        let call = self.request(Method::DELETE, &path(id, port, ""));
        self.send("hide a port", ANSWER_LIMIT, call).await.map(drop)
    }

    /// Gives an exposed port another token, and so another URL.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PORT_NOT_EXPOSED`.
    pub async fn rotate_port(
        &self,
        id: &SandboxId,
        port: u16,
        request: &RotatePort,
    ) -> Result<ExposedPort, ClientError> {
        let call = self.request(Method::POST, &path(id, port, "/rotate")).json(request);
        self.send_json("rotate a port's token", ANSWER_LIMIT, call).await
    }

    /// Whether `token` is that of the exposed port.
    ///
    /// # Errors
    /// As any call.
    pub async fn validate_port_token(
        &self,
        id: &SandboxId,
        port: u16,
        token: &str,
    ) -> Result<bool, ClientError> {
        let request = ValidatePortToken { token: token.to_owned() };
        let call = self.request(Method::POST, &path(id, port, "/validate-token")).json(&request);
        let answer: PortTokenValidity =
            self.send_json("check a port's token", ANSWER_LIMIT, call).await?;
        Ok(answer.valid)
    }

    /// Waits until something listens on a port, or answers there as it should.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PROCESS_READY_TIMEOUT`.
    pub async fn wait_port(
        &self,
        id: &SandboxId,
        port: u16,
        request: &WaitPort,
    ) -> Result<PortReady, ClientError> {
        let call = self.request(Method::POST, &path(id, port, "/wait")).json(request);
        self.send_json("wait for a port", WAIT_LIMIT, call).await
    }

    /// Connects to a TCP port of the sandbox's loopback; it need not be exposed.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `SERVICE_NOT_RESPONDING` when nothing listens there.
    pub async fn connect_port(
        &self,
        id: &SandboxId,
        port: u16,
    ) -> Result<PortConnection, ClientError> {
        let path = path(id, port, "/connect");
        // In a sandbox that is made for it nothing listens.
        let (_, socket) = self.socket(CONNECT, &path, PORT_MESSAGE_BYTES, "refused").await?;
        Ok(PortConnection { socket })
    }
}

fn ports(id: &SandboxId) -> String {
    format!("/v1/sandboxes/{id}/ports")
}

fn path(id: &SandboxId, port: u16, rest: &str) -> String {
    format!("/v1/sandboxes/{id}/ports/{port}{rest}")
}

/// A connection to a port inside a sandbox. Dropping it closes it.
pub struct PortConnection {
    socket: Socket,
}

impl fmt::Debug for PortConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortConnection").finish_non_exhaustive()
    }
}

impl PortConnection {
    /// Carries bytes both ways between this connection and `stream`, to the end of what listens on
    /// the port. The end of what `stream` says is passed on and the answer waited for.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the connection breaks; [`ClientError::Timeout`] when the server
    /// gives no sign of life for a minute. An error of `stream` ends it as its end does.
    pub async fn carry<S>(self, stream: S) -> Result<(), ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut from_here, mut to_here) = tokio::io::split(stream);
        let (mut sink, mut messages) = self.socket.split();
        let up = async {
            loop {
                let mut piece = BytesMut::with_capacity(PIECE_BYTES);
                let length = from_here.read_buf(&mut piece).await.unwrap_or(0);
                // An empty message says that nothing more comes.
                let message = Message::Binary(piece.freeze());
                sink.send(message).await.map_err(|source| broken(CONNECT, source))?;
                if length == 0 {
                    return std::future::pending::<Result<(), ClientError>>().await;
                }
            }
        };
        let down = async {
            loop {
                let bytes: Bytes = match within(CONNECT, SILENCE_LIMIT, messages.next()).await? {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Close(_))) | None => break,
                    Some(Ok(_)) => continue,
                    Some(Err(source)) => return Err(broken(CONNECT, source)),
                };
                if to_here.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            to_here.shutdown().await.unwrap_or_default();
            Ok(())
        };
        tokio::select! {
            carried = up => carried,
            carried = down => carried,
        }
    }
}
