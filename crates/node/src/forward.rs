//! Port-forward: two channels a port, data and error, each opened with the port's number, as upstream's WebSocket port-forward in the kubelet.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use sandbox::cri::Runtime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;

use crate::channels::{Channels, Frame};

/// More channels do not fit into one byte.
pub const PORTS_MAX: usize = 127;
const CHUNK: usize = 32 * 1024;
/// Data waiting for the pod's side of one port.
const BACKLOG: usize = 16;

/// Until the client is gone or every port's connection ended.
pub async fn run(channels: Channels, runtime: Arc<dyn Runtime>, sandbox_id: String, pod: String, ports: Vec<u16>) {
    let Channels { mut incoming, outgoing, .. } = channels;
    let mut inputs: HashMap<u8, mpsc::Sender<Bytes>> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    for (index, port) in ports.iter().enumerate().take(PORTS_MAX) {
        let data = (index * 2) as u8;
        for channel in [data, data + 1] {
            if outgoing.send(Frame::Data(channel, Bytes::copy_from_slice(&port.to_le_bytes()))).await.is_err() {
                return;
            }
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        inputs.insert(data, sender);
        tasks.spawn(one(runtime.clone(), sandbox_id.clone(), pod.clone(), *port, data, receiver, outgoing.clone()));
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

async fn one(runtime: Arc<dyn Runtime>, sandbox_id: String, pod: String, port: u16, channel: u8, mut input: mpsc::Receiver<Bytes>, outgoing: mpsc::Sender<Frame>) {
    // At once: in some protocols the pod speaks first.
    let connected = match runtime.port_forward(&sandbox_id, port).await {
        Ok(stream) => stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(why) => {
            let text = format!("an error occurred forwarding {port} -> {port}: error forwarding port {port} to pod {pod}, uid : {why}");
            let _ = outgoing.send(Frame::Data(channel + 1, Bytes::from(text))).await;
            return;
        }
    };
    let (read, mut write) = stream.into_split();
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
