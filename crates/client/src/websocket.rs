//! WebSockets to the API server: exec, attach, port-forward.
//!
//! Protocols and channel numbers: k8s.io/apimachinery `remotecommand` (`v5.channel.k8s.io`: a channel byte before every message, 255 closes one).

use api::Status;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::http::{HttpClient, HttpError, Stream};
use crate::remote::status_of;

pub type Socket = WebSocketStream<Box<dyn Stream>>;

#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server answered something else than an upgrade.
    #[error("{0}")]
    Refused(Box<Status>),
    #[error("{0}")]
    Protocol(String),
}

pub struct WebSocket {
    /// What the server chose.
    pub protocol: String,
    socket: Socket,
}

impl HttpClient {
    pub async fn websocket(&self, path_and_query: &str, protocols: &[&str]) -> Result<WebSocket, WebSocketError> {
        let stream = self.raw().await?;
        let mut request = format!("ws://{}{}", self.authority(), self.path(path_and_query)).into_client_request().map_err(|error| WebSocketError::Protocol(error.to_string()))?;
        for (name, value) in self.common_headers() {
            request.headers_mut().append(name.clone(), value.clone());
        }
        if let Ok(value) = protocols.join(", ").parse() {
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, response)) => {
                let protocol = response.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
                Ok(WebSocket { protocol, socket })
            }
            Err(WsError::Http(response)) => Err(WebSocketError::Refused(Box::new(status_of(response.status().as_u16(), response.body().as_deref().unwrap_or(&[]))))),
            Err(error) => Err(WebSocketError::Protocol(error.to_string())),
        }
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
