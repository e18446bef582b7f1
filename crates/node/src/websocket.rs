//! WebSockets: exec and attach (channels), logs (bytes), port-forward (channels, or SPDY inside).
//!
//! Mirrors k8s.io/streaming/pkg/httpstream/wsstream: in a channel protocol the first byte of a message is the channel; the `base64` kin use text messages.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::websocket::Tunnel;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::channels::{BACKLOG, Channels, Frame};
use crate::http::{Answer, empty};
use crate::upgrade::{Refused, is_upgrade, tokens};

/// A message larger than this ends the session.
const MESSAGE_MAX: usize = 4 << 20;
/// How long a client may take to answer our close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// v5: `[255, channel]` says that nothing more comes on that channel.
const CLOSE: u8 = 255;
/// SPDY inside: what stands before the name of the protocol that SPDY carries.
const TUNNEL: &str = "SPDY/3.1+";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    name: &'static str,
    base64: bool,
    /// Errors are `metav1.Status`, not text.
    status: bool,
    close: bool,
    channels: bool,
}

const fn protocol(name: &'static str, base64: bool, status: bool, close: bool) -> Protocol {
    Protocol { name, base64, status, close, channels: true }
}

/// One stream of bytes: no channels.
const fn bytes(name: &'static str, base64: bool) -> Protocol {
    Protocol { name, base64, status: false, close: false, channels: false }
}

/// The first is taken whenever a client knows it; else the client's order decides. No name: a client that asks for none.
pub const REMOTE_COMMAND: [Protocol; 6] = [
    protocol("v5.channel.k8s.io", false, true, true),
    protocol("v4.channel.k8s.io", false, true, false),
    protocol("v4.base64.channel.k8s.io", true, true, false),
    protocol("channel.k8s.io", false, false, false),
    protocol("base64.channel.k8s.io", true, false, false),
    protocol("", false, false, false),
];
pub const PORT_FORWARD: [Protocol; 3] = [protocol("v4.channel.k8s.io", false, true, false), protocol("v4.base64.channel.k8s.io", true, true, false), protocol("", false, false, false)];
const READER: [Protocol; 3] = [bytes("binary.k8s.io", false), bytes("base64.binary.k8s.io", true), bytes("", false)];

pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.eq_ignore_ascii_case("websocket"))
}

/// The protocol to be spoken through SPDY inside of the WebSocket, if the client asks for one that is `known`. None when it asks for no SPDY.
pub fn tunnelled(headers: &HeaderMap, known: &'static str) -> Option<Result<&'static str, Refused>> {
    let offered: Vec<String> = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL).filter_map(|p| p.strip_prefix(TUNNEL).filter(|p| p.ends_with(".k8s.io")).map(str::to_owned)).collect();
    if !is_websocket(headers) || offered.is_empty() {
        return None;
    }
    Some(crate::upgrade::negotiate(&offered, &[known]))
}

fn choose(headers: &HeaderMap, known: &[Protocol]) -> Result<Protocol, Refused> {
    let mut offered: Vec<String> = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect();
    if offered.is_empty() {
        offered.push(String::new());
    }
    let best = known.iter().find(|p| p.close && offered.iter().any(|o| o == p.name));
    best.or_else(|| offered.iter().find_map(|o| known.iter().find(|p| p.name == o))).copied().ok_or_else(|| {
        let supports: Vec<&str> = known.iter().map(|p| p.name).collect();
        Refused::new(StatusCode::FORBIDDEN, format!("requested protocol(s) are not supported: [{}]; supports [{}]", offered.join(" "), supports.join(" ")))
    })
}

/// Switches the connection over.
fn switch<F>(request: &mut Request<Incoming>, protocol: &str, serve: impl FnOnce(Socket) -> F + Send + 'static) -> Result<Answer, Refused>
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned().ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request"))?;
    let upgraded = hyper::upgrade::on(&mut *request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
                serve(WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, Some(config)).await).await;
            }
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Ok(protocol) = HeaderValue::from_str(protocol)
        && !protocol.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(answer)
}

/// `serve` gets the channels as soon as the client has them.
pub fn channels<F>(request: &mut Request<Incoming>, known: &[Protocol], serve: impl FnOnce(Channels) -> F + Send + 'static) -> Result<Answer, Refused>
where
    F: Future<Output = ()> + Send + 'static,
{
    let chosen = choose(request.headers(), known)?;
    switch(request, chosen.name, move |socket| async move {
        let (to_session, incoming) = mpsc::channel(BACKLOG);
        let (outgoing, from_session) = mpsc::channel(BACKLOG);
        // A session whose client is gone has seen the end of `incoming`.
        drop(tokio::spawn(serve(Channels { incoming, outgoing, status: chosen.status })));
        pump(socket, chosen, to_session, from_session).await;
    })
}

/// SPDY's bytes inside of binary messages.
pub fn tunnel<F>(request: &mut Request<Incoming>, protocol: &str, serve: impl FnOnce(Tunnel<TokioIo<Upgraded>>) -> F + Send + 'static) -> Result<Answer, Refused>
where
    F: Future<Output = ()> + Send + 'static,
{
    switch(request, &format!("{TUNNEL}{protocol}"), move |socket| serve(Tunnel::new(socket)))
}

/// One stream of bytes to the client, after an empty message that says that it is there.
pub fn reader(request: &mut Request<Incoming>, mut chunks: mpsc::Receiver<Bytes>) -> Result<Answer, Refused> {
    let chosen = choose(request.headers(), &READER)?;
    switch(request, chosen.name, move |socket| async move {
        let (to_nobody, ignored) = mpsc::channel(1);
        drop(ignored);
        let (outgoing, from_chunks) = mpsc::channel(1);
        let feed = async move {
            let mut next = Some(Bytes::new());
            while let Some(data) = next {
                if outgoing.send(Frame::Data(0, data)).await.is_err() {
                    return;
                }
                next = chunks.recv().await;
            }
        };
        tokio::join!(feed, pump(socket, chosen, to_nobody, from_chunks));
    })
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
        Frame::Data(_, data) if !protocol.channels && protocol.base64 => Some(Message::Text(STANDARD.encode(&data).into())),
        Frame::Data(_, data) if !protocol.channels => Some(Message::Binary(data)),
        Frame::Data(channel, data) if protocol.base64 => {
            let text = format!("{}{}", char::from(b'0'.saturating_add(channel)), STANDARD.encode(&data));
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
        let raw = READER[0];
        assert_eq!(encode(raw, Frame::Data(0, Bytes::from_static(b"hi"))), Some(Message::Binary(Bytes::from_static(b"hi"))));
        assert_eq!(encode(READER[1], Frame::Data(0, Bytes::from_static(b"hi"))), Some(Message::Text("aGk=".into())));
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

    #[test]
    fn protocols() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            if !value.is_empty() {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(value).unwrap());
            }
            headers
        };
        for (offered, want) in [
            ("v4.channel.k8s.io, v5.channel.k8s.io", Some("v5.channel.k8s.io")),
            ("base64.channel.k8s.io,v4.channel.k8s.io", Some("base64.channel.k8s.io")),
            ("", Some("")),
            ("v6.channel.k8s.io", None),
        ] {
            assert_eq!(choose(&asked(offered), &REMOTE_COMMAND).ok().map(|p| p.name), want, "{offered}");
        }
        let tunnel = |offered: &str| tunnelled(&asked(offered), "portforward.k8s.io").map(|chosen| chosen.ok());
        assert_eq!(tunnel("SPDY/3.1+portforward.k8s.io"), Some(Some("portforward.k8s.io")));
        assert_eq!(tunnel("SPDY/3.1+other.k8s.io"), Some(None));
        assert_eq!(tunnel("v4.channel.k8s.io"), None);
    }
}
