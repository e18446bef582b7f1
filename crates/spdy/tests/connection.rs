//! Both sides of a connection against each other, over a pipe in memory.

use bytes::{Bytes, BytesMut};
use spdy::frame::{Decoder, Encoder, Frame, reset};
use spdy::limits::{CHUNK_BYTES_MAX, STREAM_BACKLOG};
use spdy::{Closed, Connection, Headers, Incoming, OpenError, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn pair() -> (Connection, Connection, Incoming) {
    let (near, far) = tokio::io::duplex(4096);
    let (server, incoming) = Connection::server(far);
    (Connection::client(near), server, incoming)
}

fn named(name: &str) -> Headers {
    Headers::default().with("streamType", name)
}

/// Sends back what comes, then ends.
async fn echo(stream: Stream) {
    stream.accept().await.unwrap();
    let (mut reader, writer) = stream.split();
    while let Some(data) = reader.next().await {
        if writer.send(data).await.is_err() {
            return;
        }
    }
    writer.finish().await;
}

async fn all(reader: &mut spdy::Reader) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = reader.next().await {
        all.extend_from_slice(&data);
    }
    all
}

#[tokio::test]
async fn many_streams_at_once_and_half_close() {
    let (client, _server, mut incoming) = pair();
    tokio::spawn(async move {
        while let Some(stream) = incoming.next().await {
            assert_eq!(stream.headers.get("streamtype"), Some("data"));
            tokio::spawn(echo(stream));
        }
    });
    let one = |n: u8| {
        let client = &client;
        async move {
            let (mut reader, writer) = client.open(named("data")).await.unwrap().split();
            let sent: Vec<u8> = (0..300_000u32).map(|i| (i as u8).wrapping_mul(n)).collect();
            let (got, ()) = tokio::join!(all(&mut reader), async {
                for piece in sent.chunks(70_001) {
                    writer.send(Bytes::copy_from_slice(piece)).await.unwrap();
                }
                writer.finish().await;
            });
            assert!(got == sent, "stream {n}");
        }
    };
    tokio::join!(one(1), one(3), one(5), one(7), one(11));
}

#[tokio::test]
async fn a_dropped_stream_is_reset_and_a_dropped_connection_ends_all() {
    let (client, server, mut incoming) = pair();
    let (opened, taken) = tokio::join!(client.open(named("a")), async {
        let stream = incoming.next().await.unwrap();
        stream.accept().await.unwrap();
        stream
    });
    let (mut reader, writer) = opened.unwrap().split();
    let (mut far_reader, far_writer) = taken.split();
    far_writer.send(Bytes::from_static(b"last words")).await.unwrap();
    drop((far_reader, far_writer));
    assert_eq!(all(&mut reader).await, b"last words");
    assert!(writer.is_reset());
    assert_eq!(writer.send(Bytes::from_static(b"x")).await, Err(Closed));
    // Refused: nobody has accepted it.
    let (refused, ()) = tokio::join!(client.open(named("b")), async { drop(incoming.next().await.unwrap()) });
    assert!(matches!(refused, Err(OpenError::Refused)));
    let (opened, taken) = tokio::join!(client.open(named("c")), async {
        let stream = incoming.next().await.unwrap();
        stream.accept().await.unwrap();
        stream
    });
    let (near_reader, near_writer) = opened.unwrap().split();
    (far_reader, _) = taken.split();
    near_writer.send(Bytes::from_static(b"bye")).await.unwrap();
    drop((near_reader, near_writer));
    tokio::join!(client.close(), server.ended(), async { assert_eq!(all(&mut far_reader).await, b"bye") });
    assert!(incoming.next().await.is_none());
    drop(server);
}

/// A reader that does not read stops the connection; when it is dropped, all goes on.
#[tokio::test]
async fn a_slow_reader_holds_back_and_a_dropped_one_does_not() {
    let (client, _server, mut incoming) = pair();
    let (first, far_first) = tokio::join!(client.open(named("a")), async {
        let stream = incoming.next().await.unwrap();
        stream.accept().await.unwrap();
        stream
    });
    let (_reader, writer) = first.unwrap().split();
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        while writer.send(Bytes::from(vec![0; CHUNK_BYTES_MAX])).await.is_ok() {
            sent += 1;
        }
        sent
    });
    let (mut reader, far_writer) = far_first.split();
    for _ in 0..STREAM_BACKLOG * 4 {
        assert_eq!(reader.next().await.map(|data| data.is_empty()), Some(false));
    }
    assert!(!flood.is_finished());
    drop((reader, far_writer));
    assert!(flood.await.unwrap() > 0);
    // And others are served again.
    let (second, _far) = tokio::join!(client.open(named("b")), async {
        let stream = incoming.next().await.unwrap();
        stream.accept().await.unwrap();
        stream
    });
    assert!(second.is_ok());
}

/// What spdystream's frames get for an answer.
#[tokio::test]
async fn on_the_wire() {
    let (mut wire, far) = tokio::io::duplex(4096);
    let (server, mut incoming) = Connection::server(far);
    let mut encoder = Encoder::default();
    let mut out = BytesMut::new();
    let syn = |stream| Frame::SynStream { stream, associated: 0, priority: 0, fin: false, unidirectional: false, headers: named("error") };
    for frame in [Frame::Ping(1), syn(1), syn(2), syn(1), Frame::Data { stream: 99, fin: true, data: Bytes::from_static(b"to nobody") }, Frame::WindowUpdate { stream: 1, delta: 9 }, Frame::Ping(3)] {
        encoder.encode(&frame, &mut out).unwrap();
    }
    wire.write_all(&out).await.unwrap();
    let stream = incoming.next().await.unwrap();
    stream.accept().await.unwrap();
    let (_, writer) = stream.split();
    writer.send(Bytes::from_static(b"ok")).await.unwrap();
    writer.finish().await;
    drop(writer);
    drop(server);
    let frames = frames(&mut wire).await;
    let refused = |stream| Frame::RstStream { stream, status: reset::PROTOCOL_ERROR };
    for want in [
        Frame::Ping(1),
        Frame::Ping(3),
        refused(2),
        refused(1),
        Frame::SynReply { stream: 1, fin: false, headers: Headers::default() },
        Frame::Data { stream: 1, fin: false, data: Bytes::from_static(b"ok") },
        Frame::Data { stream: 1, fin: true, data: Bytes::new() },
    ] {
        assert!(frames.contains(&want), "{want:?} in {frames:?}");
    }
    assert_eq!(frames.last(), Some(&Frame::GoAway { last: 1, status: 0 }));
}

/// Rubbish ends the connection with GOAWAY and nothing else.
#[tokio::test]
async fn rubbish() {
    let (mut wire, far) = tokio::io::duplex(4096);
    let (_server, mut incoming) = Connection::server(far);
    wire.write_all(b"GET / HTTP/1.1\r\n\r\n\x80\x03\x00\x01\xff\xff\xff\xff").await.unwrap();
    wire.shutdown().await.unwrap();
    let frames = frames(&mut wire).await;
    assert!(matches!(frames[..], [] | [Frame::GoAway { .. }]), "{frames:?}");
    assert!(incoming.next().await.is_none());
}

async fn frames(wire: &mut DuplexStream) -> Vec<Frame> {
    let (mut decoder, mut input, mut all) = (Decoder::default(), BytesMut::new(), Vec::new());
    loop {
        while let Some(frame) = decoder.decode(&mut input).unwrap() {
            all.push(frame);
        }
        if wire.read_buf(&mut input).await.unwrap() == 0 {
            return all;
        }
    }
}
