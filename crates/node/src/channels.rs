//! Numbered byte channels between a client and a session, whatever frames them on the wire.
//!
//! Here: WebSocket with Kubernetes' sub-protocols (`v5.channel.k8s.io`, `v4.…`, `channel.k8s.io` and their base64 kin): the first byte of a message is the
//! channel. Another framer (SPDY) gives the same [`Channels`].

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::http::{Answer, empty};

/// Messages under way in one direction.
const BACKLOG: usize = 16;
/// A message larger than this ends the session.
const MESSAGE_MAX: usize = 4 << 20;
/// How long a client may take to answer our close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// v5: `[255, channel]` says that nothing more comes on that channel.
const CLOSE: u8 = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Data(u8, Bytes),
    /// The sender is done with this channel.
    Close(u8),
}

pub struct Channels {
    /// Ends when the client is gone.
    pub incoming: mpsc::Receiver<Frame>,
    /// Dropped: the connection is closed in good order.
    pub outgoing: mpsc::Sender<Frame>,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    name: &'static str,
    base64: bool,
    /// Errors are `metav1.Status`, not text.
    pub status: bool,
    close: bool,
}

const fn protocol(name: &'static str, base64: bool, status: bool, close: bool) -> Protocol {
    Protocol { name, base64, status, close }
}

/// Best first.
pub const REMOTE_COMMAND: [Protocol; 5] = [
    protocol("v5.channel.k8s.io", false, true, true),
    protocol("v4.channel.k8s.io", false, true, false),
    protocol("v4.base64.channel.k8s.io", true, true, false),
    protocol("channel.k8s.io", false, false, false),
    protocol("base64.channel.k8s.io", true, false, false),
];
pub const PORT_FORWARD: [Protocol; 2] = [protocol("v4.channel.k8s.io", false, true, false), protocol("v4.base64.channel.k8s.io", true, true, false)];

fn offered(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|p| p.trim().to_owned()).collect()
}

pub fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.eq_ignore_ascii_case("websocket"))
}

/// Switches the connection over. `serve` gets the channels as soon as the client has them.
pub fn upgrade<F>(request: &mut Request<Incoming>, known: &[Protocol], serve: impl FnOnce(Channels) -> F + Send + 'static) -> Result<Answer, (StatusCode, String)>
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned().ok_or((StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request".to_owned()))?;
    let offered = offered(request.headers());
    let chosen = if offered.is_empty() {
        protocol("", false, false, false)
    } else {
        *known
            .iter()
            .find(|p| offered.iter().any(|o| o == p.name))
            .ok_or_else(|| (StatusCode::FORBIDDEN, format!("unable to upgrade: unable to negotiate protocol: client supports {offered:?}")))?
    };
    let upgraded = hyper::upgrade::on(&mut *request);
    tokio::spawn(async move {
        let stream = match upgraded.await {
            Ok(stream) => TokioIo::new(stream),
            Err(error) => {
                tracing::debug!(%error, "upgrade failed");
                return;
            }
        };
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        let (to_session, incoming) = mpsc::channel(BACKLOG);
        let (outgoing, from_session) = mpsc::channel(BACKLOG);
        let session = tokio::spawn(serve(Channels { incoming, outgoing, protocol: chosen }));
        pump(socket, chosen, to_session, from_session).await;
        // A session whose client is gone has seen the end of `incoming`.
        drop(session);
    });
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if !chosen.name.is_empty() {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen.name));
    }
    Ok(answer)
}

fn decode(protocol: Protocol, message: &Message) -> Option<Frame> {
    let bytes: Bytes = match message {
        Message::Binary(bytes) => bytes.clone(),
        Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
        _ => return None,
    };
    let first = *bytes.first()?;
    if protocol.base64 {
        let data = STANDARD.decode(&bytes[1..]).ok()?;
        return Some(Frame::Data(first.checked_sub(b'0')?, data.into()));
    }
    if protocol.close && first == CLOSE {
        return Some(Frame::Close(*bytes.get(1)?));
    }
    Some(Frame::Data(first, bytes.slice(1..)))
}

fn encode(protocol: Protocol, frame: Frame) -> Option<Message> {
    match frame {
        Frame::Data(channel, data) if protocol.base64 => {
            let text = format!("{}{}", char::from(b'0' + channel), STANDARD.encode(&data));
            Some(Message::Text(Utf8Bytes::from(text)))
        }
        Frame::Data(channel, data) => {
            let mut message = Vec::with_capacity(data.len() + 1);
            message.push(channel);
            message.extend_from_slice(&data);
            Some(Message::Binary(message.into()))
        }
        Frame::Close(channel) if protocol.close => Some(Message::Binary(vec![CLOSE, channel].into())),
        Frame::Close(_) => None,
    }
}

async fn pump<S>(socket: WebSocketStream<S>, protocol: Protocol, to_session: mpsc::Sender<Frame>, mut from_session: mpsc::Receiver<Frame>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    // Waits while the session has no room, so that a fast client is slowed down.
    let read = async move {
        while let Some(Ok(message)) = stream.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            if let Some(frame) = decode(protocol, &message) {
                // A session that no longer listens is no reason to end: it may still have something to say.
                let _ = to_session.send(frame).await;
            }
        }
    };
    let write = async move {
        while let Some(frame) = from_session.recv().await {
            if let Some(message) = encode(protocol, frame)
                && sink.send(message).await.is_err()
            {
                return;
            }
        }
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        let _ = sink.send(Message::Close(Some(frame))).await;
    };
    tokio::pin!(read, write);
    tokio::select! {
        // The client is gone; what the session still has to say has nobody to hear it.
        () = &mut read => {}
        // The client's answer to our close, or its end.
        () = &mut write => drop(tokio::time::timeout(CLOSE_PATIENCE, read).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let v5 = REMOTE_COMMAND[0];
        let text = REMOTE_COMMAND[4];
        let data = Frame::Data(1, Bytes::from_static(b"hi"));
        assert_eq!(encode(v5, data.clone()), Some(Message::Binary(Bytes::from_static(b"\x01hi"))));
        assert_eq!(encode(text, data.clone()), Some(Message::Text("1aGk=".into())));
        assert_eq!(decode(text, &Message::Text("1aGk=".into())), Some(data.clone()));
        assert_eq!(decode(v5, &Message::Binary(Bytes::from_static(b"\x01hi"))), Some(data));
        assert_eq!(decode(v5, &Message::Binary(Bytes::from_static(&[255, 0]))), Some(Frame::Close(0)));
        assert_eq!(decode(v5, &Message::Binary(Bytes::new())), None);
        assert_eq!(encode(text, Frame::Close(0)), None);
    }
}
