//! Port-forward: a pod's ports over pairs of streams, data and error.
//!
//! Mirrors k8s.io/cri-streaming/pkg/streaming/portforward: SPDY streams in pairs that a `requestID` joins; or, with WebSockets, two channels a port, each opened
//! with the port's number.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use sandbox::cri::Runtime;
use spdy::{Connection, Reader, Stream, Writer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::channels::{BACKLOG, Channels, Frame};
use crate::spdy_channels::CREATION_TIMEOUT;

/// What SPDY carries.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// More channels do not fit into one byte.
pub const PORTS_MAX: usize = 127;
const CHUNK: usize = 32 * 1024;

/// The pod whose ports are meant.
#[derive(Clone)]
pub struct Target {
    pub runtime: Arc<dyn Runtime>,
    pub sandbox_id: String,
    pub pod: String,
    pub uid: String,
}

impl Target {
    /// At once: in some protocols the pod speaks first. The error is for the client.
    async fn connect(&self, port: u16) -> Result<(OwnedReadHalf, OwnedWriteHalf), String> {
        let connected = match self.runtime.port_forward(&self.sandbox_id, port).await {
            Ok(stream) => stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match connected {
            Ok(stream) => {
                // Small messages of a conversation should not wait for one another.
                let _ = stream.set_nodelay(true);
                Ok(stream.into_split())
            }
            Err(why) => Err(format!("error forwarding port {port} to pod {}, uid {}: {why}", self.pod, self.uid)),
        }
    }
}

/// What a stream's headers say it is.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    port: u16,
    is_data: bool,
    request_id: String,
}

fn part(stream: &Stream) -> Result<Part, String> {
    describe(stream.id, |name| stream.headers.get(name).map(str::to_owned))
}

fn describe(id: u32, header: impl Fn(&str) -> Option<String>) -> Result<Part, String> {
    let given = |name: &str| header(name).filter(|value| !value.is_empty());
    let port = given("port").ok_or("\"port\" header is required")?;
    let port: u16 = port.parse().map_err(|_| format!("unable to parse {port:?} as a port"))?;
    if port == 0 {
        return Err("port \"0\" must be > 0".to_owned());
    }
    let kind = given("streamType").ok_or("\"streamType\" header is required")?;
    let is_data = match kind.as_str() {
        "data" => true,
        "error" => false,
        _ => return Err(format!("invalid stream type {kind:?}")),
    };
    // Clients older than the header open the error stream first, then the data stream.
    let request_id = given("requestID").unwrap_or_else(|| if is_data { id.wrapping_sub(2) } else { id }.to_string());
    Ok(Part { port, is_data, request_id })
}

#[derive(Default)]
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
}

/// Serves one connection until the client is gone.
pub async fn streams<S: AsyncRead + AsyncWrite + Send + 'static>(io: S, target: Target) {
    let (connection, mut incoming) = Connection::server(io);
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    // Dropped with this function: forwarding ends with the connection.
    let mut forwarding = JoinSet::new();
    let mut patience = JoinSet::new();
    loop {
        tokio::select! {
            stream = incoming.next() => {
                let Some(stream) = stream else { break };
                let Part { port, is_data, request_id } = match part(&stream) {
                    Ok(part) => part,
                    Err(why) => {
                        // Dropped: the client sees it refused.
                        tracing::debug!(why, "stream rejected");
                        continue;
                    }
                };
                if stream.accept().await.is_err() {
                    break;
                }
                let pair = pairs.entry(request_id.clone()).or_insert_with(|| {
                    let id = request_id.clone();
                    patience.spawn(async move {
                        tokio::time::sleep(CREATION_TIMEOUT).await;
                        id
                    });
                    Pair::default()
                });
                let (place, name) = if is_data { (&mut pair.data, "data") } else { (&mut pair.error, "error") };
                if place.is_some() {
                    tell(pairs.remove(&request_id), format!("error processing stream for request {request_id}: {name} stream already assigned")).await;
                    continue;
                }
                *place = Some(stream);
                if let Pair { data: Some(_), error: Some(_) } = pair
                    && let Some(Pair { data: Some(data), error: Some(error) }) = pairs.remove(&request_id)
                {
                    forwarding.spawn(forward(target.clone(), port, data, error));
                }
            }
            Some(Ok(id)) = patience.join_next() => {
                if pairs.contains_key(&id) {
                    tell(pairs.remove(&id), format!("(request={id}) timed out waiting for streams")).await;
                }
            }
            Some(_) = forwarding.join_next() => {}
        }
    }
    drop(connection);
}

async fn tell(pair: Option<Pair>, text: String) {
    if let Some(Pair { error: Some(error), .. }) = pair {
        let (_, writer) = error.split();
        let _ = writer.send(text.into()).await;
        writer.finish().await;
    }
}

async fn forward(target: Target, port: u16, data: Stream, error: Stream) {
    let ((input, output), (_, errors)) = (data.split(), error.split());
    match target.connect(port).await {
        Ok((read, write)) => {
            join(read, write, input, &output).await;
            errors.finish().await;
        }
        Err(text) => {
            let _ = errors.send(text.into()).await;
            errors.finish().await;
            output.reset();
        }
    }
}

/// The pod's end of its direction ends the connection, as everywhere in Kubernetes: old clients wait for that. The client's end is a half-close.
async fn join(mut read: OwnedReadHalf, mut write: OwnedWriteHalf, mut input: Reader, output: &Writer) {
    let forth = async {
        while let Some(data) = input.next().await {
            if write.write_all(&data).await.is_err() {
                break;
            }
        }
        let _ = write.shutdown().await;
    };
    let back = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if output.send(Bytes::copy_from_slice(&buffer[..length])).await.is_err() {
                return;
            }
        }
        output.finish().await;
    };
    tokio::pin!(back);
    tokio::select! {
        () = &mut back => {}
        () = forth => if !output.is_reset() { back.await },
    }
}

/// With WebSockets: until the client is gone or every port's connection ended.
pub async fn channels(channels: Channels, target: Target, ports: Vec<u16>) {
    let Channels { mut incoming, outgoing, .. } = channels;
    let mut inputs: HashMap<u8, mpsc::Sender<Bytes>> = HashMap::new();
    let mut tasks = JoinSet::new();
    for (index, port) in ports.iter().enumerate().take(PORTS_MAX) {
        let data = (index * 2) as u8;
        for channel in [data, data + 1] {
            if outgoing.send(Frame::Data(channel, Bytes::copy_from_slice(&port.to_le_bytes()))).await.is_err() {
                return;
            }
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        inputs.insert(data, sender);
        tasks.spawn(one(target.clone(), *port, data, receiver, outgoing.clone()));
    }
    loop {
        tokio::select! {
            frame = incoming.recv() => match frame {
                Some(Frame::Data(channel, data)) => {
                    if let Some(input) = inputs.get(&channel)
                        && input.send(data).await.is_err()
                    {
                        inputs.remove(&channel);
                    }
                }
                Some(Frame::Close(channel)) => drop(inputs.remove(&channel)),
                None => return,
            },
            ended = tasks.join_next() => if ended.is_none() { return },
        }
    }
}

async fn one(target: Target, port: u16, channel: u8, mut input: mpsc::Receiver<Bytes>, outgoing: mpsc::Sender<Frame>) {
    let (read, mut write) = match target.connect(port).await {
        Ok(halves) => halves,
        Err(text) => {
            let _ = outgoing.send(Frame::Data(channel + 1, text.into())).await;
            return;
        }
    };
    let forth = async {
        while let Some(data) = input.recv().await {
            if write.write_all(&data).await.is_err() {
                return;
            }
        }
        // The client is done sending; the pod may still answer.
        let _ = write.shutdown().await;
        std::future::pending().await
    };
    tokio::select! {
        // Framed like this a client cannot be told that one direction ended: the pod's end of its direction ends the port.
        () = answers(read, channel, outgoing) => {}
        () = forth => {}
    }
}

async fn answers(mut read: OwnedReadHalf, channel: u8, outgoing: mpsc::Sender<Frame>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length @ 1..) = read.read(&mut buffer).await {
        if outgoing.send(Frame::Data(channel, Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
            return;
        }
    }
    let _ = outgoing.send(Frame::Close(channel)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stream_is() {
        let of = |id: u32, headers: &[(&str, &str)]| describe(id, |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()));
        assert_eq!(of(1, &[("port", "80"), ("streamType", "error"), ("requestID", "7")]), Ok(Part { port: 80, is_data: false, request_id: "7".into() }));
        // Without a request ID: the error stream's ID for both.
        assert_eq!(of(5, &[("port", "80"), ("streamType", "error")]).map(|part| part.request_id), Ok("5".to_owned()));
        assert_eq!(of(7, &[("port", "80"), ("streamType", "data")]).map(|part| part.request_id), Ok("5".to_owned()));
        for (headers, why) in [
            (&[("streamType", "data")][..], "\"port\" header is required"),
            (&[("port", "0"), ("streamType", "data")], "port \"0\" must be > 0"),
            (&[("port", "-1"), ("streamType", "data")], "unable to parse \"-1\" as a port"),
            (&[("port", "80")], "\"streamType\" header is required"),
            (&[("port", "80"), ("streamType", "foo")], "invalid stream type \"foo\""),
        ] {
            assert_eq!(of(1, headers), Err(why.to_owned()));
        }
    }
}
