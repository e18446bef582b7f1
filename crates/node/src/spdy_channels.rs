//! Exec and attach over SPDY: one stream a channel, named by its `streamType` header.
//!
//! Mirrors k8s.io/cri-streaming/pkg/streaming/remotecommand: the session starts when all streams that belong to the request have come.

use std::collections::HashMap;
use std::time::Duration;

use sandbox::cri::StreamOptions;
use spdy::{Connection, Incoming, Reader, Writer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::channels::{BACKLOG, Channels, ERROR, Frame, RESIZE, STDERR, STDIN, STDOUT};

const V4: &str = "v4.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
/// Best first, as upstream's SupportedStreamingProtocols.
pub const PROTOCOLS: [&str; 4] = [V4, V3, "v2.channel.k8s.io", "channel.k8s.io"];

/// How long a client may take to open its streams: upstream's DefaultStreamCreationTimeout.
pub const CREATION_TIMEOUT: Duration = Duration::from_secs(30);

fn channel(stream_type: &str) -> Option<u8> {
    Some(match stream_type {
        "error" => ERROR,
        "stdin" => STDIN,
        "stdout" => STDOUT,
        "stderr" => STDERR,
        "resize" => RESIZE,
        _ => return None,
    })
}

fn expected(options: &StreamOptions, protocol: &str) -> usize {
    let resizes = options.tty && (protocol == V4 || protocol == V3);
    1 + [options.stdin, options.stdout, options.stderr, resizes].into_iter().filter(|wanted| *wanted).count()
}

type Streams = HashMap<u8, (Reader, Writer)>;

/// None when the connection ended before all were there.
async fn collect(incoming: &mut Incoming, expected: usize) -> Option<Streams> {
    let mut streams = Streams::new();
    while streams.len() < expected {
        let stream = incoming.next().await?;
        let kind = stream.headers.get("streamType").unwrap_or_default().to_owned();
        let Some(channel) = channel(&kind) else {
            tracing::debug!(kind, "unexpected stream type");
            continue;
        };
        stream.accept().await.ok()?;
        streams.insert(channel, stream.split());
    }
    Some(streams)
}

/// Joins the streams of one connection to a session, until either ends.
pub async fn serve<S, F>(io: S, protocol: &'static str, options: StreamOptions, session: impl FnOnce(Channels) -> F + Send + 'static)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (connection, mut incoming) = Connection::server(io);
    let streams = match tokio::time::timeout(CREATION_TIMEOUT, collect(&mut incoming, expected(&options, protocol))).await {
        Ok(Some(streams)) => streams,
        Ok(None) => return,
        Err(_) => {
            tracing::debug!("timed out waiting for client to create streams");
            return;
        }
    };
    let (to_session, from_client) = mpsc::channel(BACKLOG);
    let (to_client, mut from_session) = mpsc::channel(BACKLOG);
    let mut writers = HashMap::new();
    let mut readers = JoinSet::new();
    for (channel, (mut reader, writer)) in streams {
        writers.insert(channel, writer);
        let to_session = to_session.clone();
        readers.spawn(async move {
            while let Some(data) = reader.next().await {
                if to_session.send(Frame::Data(channel, data)).await.is_err() {
                    return;
                }
            }
            // The session may have ended.
            let _ = to_session.send(Frame::Close(channel)).await;
        });
    }
    drop(to_session);
    drop(tokio::spawn(session(Channels { incoming: from_client, outgoing: to_client, status: protocol == V4 })));
    let output = async {
        while let Some(frame) = from_session.recv().await {
            match frame {
                Frame::Data(channel, data) => {
                    if let Some(writer) = writers.get(&channel) {
                        // One stream given up by the client is no end of the others.
                        let _ = writer.send(data).await;
                    }
                }
                Frame::Close(channel) => {
                    if let Some(writer) = writers.get(&channel) {
                        writer.finish().await;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = output => {}
        // Dropping what the session writes to tells it.
        () = connection.ended() => return,
    }
    // Output before the outcome: old clients take the first end for the end.
    for channel in [STDOUT, STDERR, ERROR, STDIN, RESIZE] {
        if let Some(writer) = writers.get(&channel) {
            writer.finish().await;
        }
    }
    drop((writers, readers));
    connection.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_streams_are_awaited() {
        let all = StreamOptions { stdin: true, stdout: true, stderr: true, tty: false };
        let tty = StreamOptions { stderr: false, tty: true, ..all.clone() };
        let output = StreamOptions { stdout: true, ..StreamOptions::default() };
        for (options, protocol, want) in [(&all, V4, 4), (&tty, V4, 4), (&tty, V3, 4), (&tty, "v2.channel.k8s.io", 3), (&tty, "channel.k8s.io", 3), (&output, V4, 2)] {
            assert_eq!(expected(options, protocol), want, "{options:?} {protocol}");
        }
    }
}
