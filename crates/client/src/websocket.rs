//! WebSockets to the API server: exec, attach, port-forward; and a WebSocket as a pipe of bytes ([`Tunnel`]), for either side.
//!
//! Protocols and channel numbers: k8s.io/apimachinery `remotecommand` (`v5.channel.k8s.io`: a channel byte before every message, 255 closes one).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use api::Status;
use bytes::{Buf, Bytes};
use futures_util::{Sink, SinkExt, Stream as _, StreamExt};
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, HeaderValue, Method};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::http::{HttpClient, HttpError, Stream};
use crate::upgrade::header;

pub type Socket = WebSocketStream<Box<dyn Stream>>;

#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server answered something else than an upgrade.
    #[error("{0}")]
    Refused(Box<Status>),
    /// The same, in plain text.
    #[error("unable to upgrade connection: {0}")]
    Upgrade(String),
    #[error("{0}")]
    Protocol(String),
}

impl WebSocketError {
    /// Another protocol may be tried: upstream's IsUpgradeFailure.
    pub fn is_refusal(&self) -> bool {
        matches!(self, WebSocketError::Refused(_) | WebSocketError::Upgrade(_))
    }
}

pub struct WebSocket {
    /// What the server chose.
    pub protocol: String,
    socket: Socket,
}

impl HttpClient {
    pub async fn websocket(&self, path_and_query: &str, protocols: &[&str]) -> Result<WebSocket, WebSocketError> {
        let key = generate_key();
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        for (name, value) in [(SEC_WEBSOCKET_KEY, key.clone()), (SEC_WEBSOCKET_PROTOCOL, protocols.join(", "))] {
            headers.insert(name, value.parse().map_err(|_| WebSocketError::Protocol(format!("not a protocol: {value:?}")))?);
        }
        let (stream, answer) = self.upgrade(Method::GET, path_and_query, "websocket", headers).await?;
        if header(&answer, SEC_WEBSOCKET_ACCEPT.as_str()) != derive_accept_key(key.as_bytes()) {
            return Err(WebSocketError::Protocol("the server's Sec-WebSocket-Accept does not answer the key".to_owned()));
        }
        let protocol = header(&answer, SEC_WEBSOCKET_PROTOCOL.as_str()).to_owned();
        if !protocols.contains(&protocol.as_str()) {
            // Older servers ignore protocols that they do not know.
            return Err(WebSocketError::Upgrade(format!("the server speaks none of {}", protocols.join(", "))));
        }
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        Ok(WebSocket { protocol, socket })
    }
}

/// Sends to a WebSocket's channels.
pub struct Outgoing(futures_util::stream::SplitSink<Socket, Message>);

/// Receives from them.
pub struct Incoming(futures_util::stream::SplitStream<Socket>);

impl WebSocket {
    pub fn split(self) -> (Outgoing, Incoming) {
        let (sink, stream) = self.socket.split();
        (Outgoing(sink), Incoming(stream))
    }
}

impl WebSocket {
    /// Its binary messages as one pipe of bytes.
    pub fn tunnel(self) -> Tunnel<Box<dyn Stream>> {
        Tunnel::new(self.socket)
    }
}

/// A larger write becomes more than one message.
const TUNNEL_MESSAGE_MAX: usize = 64 * 1024;

/// A WebSocket's binary messages as one pipe of bytes, where messages begin and end having no meaning. Its close is the end of the bytes.
///
/// Mirrors k8s.io/client-go/tools/portforward `TunnelingConnection`.
pub struct Tunnel<S> {
    socket: WebSocketStream<S>,
    rest: Bytes,
    ended: bool,
}

impl<S> Tunnel<S> {
    pub fn new(socket: WebSocketStream<S>) -> Self {
        Self { socket, rest: Bytes::new(), ended: false }
    }
}

fn broken(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        WsError::ConnectionClosed | WsError::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::other(error),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() && !self.ended {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(data))) => self.rest = data,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "invalid message type received"))),
                Some(Ok(Message::Close(_))) | None | Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => self.ended = true,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(broken)?;
        let length = data.len().min(TUNNEL_MESSAGE_MAX);
        Pin::new(&mut self.socket).start_send(Message::Binary(Bytes::copy_from_slice(&data[..length]))).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

impl Outgoing {
    pub async fn send(&mut self, channel: u8, data: &[u8]) -> Result<(), WebSocketError> {
        let mut message = Vec::with_capacity(data.len() + 1);
        message.push(channel);
        message.extend_from_slice(data);
        self.0.send(Message::Binary(message.into())).await.map_err(|error| WebSocketError::Protocol(error.to_string()))
    }

    pub async fn ping(&mut self) -> Result<(), WebSocketError> {
        self.0.send(Message::Ping(Bytes::new())).await.map_err(|error| WebSocketError::Protocol(error.to_string()))
    }

    pub async fn close(&mut self) {
        let _ = self.0.send(Message::Close(None)).await;
    }
}

impl Incoming {
    /// Channel and data; None when the server is done.
    pub async fn next(&mut self) -> Option<Result<(u8, Bytes), WebSocketError>> {
        loop {
            let data = match self.0.next().await? {
                Ok(Message::Binary(data)) => data,
                Ok(Message::Text(text)) => Bytes::from(text),
                Ok(Message::Close(_)) => return None,
                Ok(_) => continue,
                Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => return None,
                Err(error) => return Some(Err(WebSocketError::Protocol(error.to_string()))),
            };
            if let Some(channel) = data.first() {
                return Some(Ok((*channel, data.slice(1..))));
            }
        }
    }
}
