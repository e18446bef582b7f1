//! The channels of a remote command, over a WebSocket; or over SPDY, with servers that refuse that.
//!
//! Mirrors k8s.io/client-go/tools/remotecommand: `wsStreamExecutor`, `spdyStreamExecutor`, and the fallback from one to the other.

use std::collections::HashMap;

use bytes::Bytes;
use client::HttpClient;
use client::websocket::{Incoming as SocketIncoming, Outgoing as SocketOutgoing};
use spdy::{Connection, Headers, OpenError, Reader, Writer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::{Error, Result};

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const ERROR: u8 = 3;
pub const RESIZE: u8 = 4;

const CLOSE: u8 = 255;
const CLOSABLE: &str = "v5.channel.k8s.io";
const SOCKET_PROTOCOLS: &[&str] = &[CLOSABLE, "v4.channel.k8s.io"];
const SPDY_PROTOCOLS: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// Received pieces that wait to be shown.
const BACKLOG: usize = 16;
/// What the error stream may say.
const ERROR_BYTES_MAX: usize = 1 << 20;

pub enum Outgoing {
    Socket { socket: SocketOutgoing, closable: bool },
    Spdy { writers: HashMap<u8, Writer>, connection: Connection },
}

pub enum Incoming {
    Socket(SocketIncoming),
    Spdy { messages: mpsc::Receiver<(u8, Bytes)>, _readers: JoinSet<()> },
}

/// Starts what `path` says. Its query says which channels there are.
pub async fn connect(http: &HttpClient, path: &str) -> Result<(Outgoing, Incoming)> {
    match http.websocket(path, SOCKET_PROTOCOLS).await {
        Ok(socket) => {
            let closable = socket.protocol == CLOSABLE;
            let (outgoing, incoming) = socket.split();
            Ok((Outgoing::Socket { socket: outgoing, closable }, Incoming::Socket(incoming)))
        }
        Err(error) if error.is_refusal() => spdy(http, path).await,
        Err(error) => Err(error.into()),
    }
}

/// In the order in which upstream opens them.
fn wanted(path: &str) -> Vec<(u8, &'static str)> {
    let flag = |name: &str| path.contains(&format!("?{name}=true")) || path.contains(&format!("&{name}=true"));
    let all = [(ERROR, "error", true), (STDIN, "stdin", flag("stdin")), (STDOUT, "stdout", flag("stdout")), (STDERR, "stderr", flag("stderr")), (RESIZE, "resize", flag("tty"))];
    all.into_iter().filter(|(_, _, wanted)| *wanted).map(|(channel, name, _)| (channel, name)).collect()
}

async fn spdy(http: &HttpClient, path: &str) -> Result<(Outgoing, Incoming)> {
    let (stream, _) = http.spdy(path, SPDY_PROTOCOLS).await?;
    let connection = Connection::client(stream);
    let (mut writers, mut readers) = (HashMap::new(), HashMap::new());
    for (channel, name) in wanted(path) {
        let opened = connection.open(Headers::default().with("streamType", name)).await;
        let (reader, writer) = opened.map_err(|error: OpenError| Error::Message(error.to_string()))?.split();
        readers.insert(channel, reader);
        writers.insert(channel, writer);
    }
    let (sender, messages) = mpsc::channel(BACKLOG);
    let mut output = JoinSet::new();
    for channel in [STDOUT, STDERR] {
        if let Some(reader) = readers.remove(&channel) {
            output.spawn(shown(channel, reader, sender.clone()));
        }
    }
    let mut all = JoinSet::new();
    if let Some(mut reader) = readers.remove(&ERROR) {
        all.spawn(async move {
            let mut told = Vec::new();
            while let Some(data) = reader.next().await {
                if told.len() < ERROR_BYTES_MAX {
                    told.extend_from_slice(&data);
                }
            }
            // The outcome comes after the last output.
            while output.join_next().await.is_some() {}
            let _ = sender.send((ERROR, told.into())).await;
        });
    }
    Ok((Outgoing::Spdy { writers, connection }, Incoming::Spdy { messages, _readers: all }))
}

async fn shown(channel: u8, mut reader: Reader, sender: mpsc::Sender<(u8, Bytes)>) {
    while let Some(data) = reader.next().await {
        if sender.send((channel, data)).await.is_err() {
            return;
        }
    }
}

impl Outgoing {
    pub async fn send(&mut self, channel: u8, data: &[u8]) -> Result<()> {
        match self {
            Outgoing::Socket { socket, .. } => Ok(socket.send(channel, data).await?),
            Outgoing::Spdy { writers, .. } => match writers.get(&channel) {
                Some(writer) => writer.send(Bytes::copy_from_slice(data)).await.map_err(|closed| Error::Message(closed.to_string())),
                None => Ok(()),
            },
        }
    }

    /// Nothing more comes on `channel`; v4 over a WebSocket has no way to say it.
    pub async fn finish(&mut self, channel: u8) -> Result<()> {
        match self {
            Outgoing::Socket { socket, closable: true } => Ok(socket.send(CLOSE, &[channel]).await?),
            Outgoing::Socket { .. } => Ok(()),
            Outgoing::Spdy { writers, .. } => {
                if let Some(writer) = writers.get(&channel) {
                    writer.finish().await;
                }
                Ok(())
            }
        }
    }

    /// A sign of life, for what is between us and the server.
    pub async fn ping(&mut self) -> Result<()> {
        match self {
            Outgoing::Socket { socket, .. } => Ok(socket.ping().await?),
            Outgoing::Spdy { connection, .. } => connection.ping().await.map_err(|closed| Error::Message(closed.to_string())),
        }
    }
}

impl Incoming {
    /// Channel and data; None when the server is done.
    pub async fn next(&mut self) -> Option<Result<(u8, Bytes)>> {
        match self {
            Incoming::Socket(socket) => socket.next().await.map(|message| message.map_err(Error::from)),
            Incoming::Spdy { messages, .. } => messages.recv().await.map(Ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_says_which_streams() {
        let names = |path: &str| wanted(path).into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" ");
        assert_eq!(names("/exec?container=c&stdout=true&stderr=true&command=stdin%3Dtrue"), "error stdout stderr");
        assert_eq!(names("/exec?stdin=true&stdout=true&tty=true"), "error stdin stdout resize");
    }
}
