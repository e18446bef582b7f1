//! Binary protocols: SPDY frames.

use bytes::{Bytes, BytesMut};
use spdy::Headers;
use spdy::frame::{Decoder, Encoder, Frame};

use crate::engine::{Outcome, Target};

fn seeds() -> Vec<Vec<u8>> {
    let headers = || Headers::default().with("streamtype", "error").with("port", "80").with("requestid", "0");
    let frames = [
        Frame::SynStream { stream: 1, associated: 0, priority: 0, fin: false, unidirectional: false, headers: headers() },
        Frame::SynReply { stream: 1, fin: false, headers: headers() },
        Frame::Data { stream: 1, fin: true, data: Bytes::from_static(b"hello") },
        Frame::Headers { stream: 1, fin: false, headers: headers() },
        Frame::Settings(vec![(1, 2, 3)]),
        Frame::RstStream { stream: 1, status: 5 },
        Frame::WindowUpdate { stream: 1, delta: 9 },
        Frame::Ping(7),
        Frame::GoAway { last: 1, status: 0 },
    ];
    let mut all = BytesMut::new();
    let mut encoder = Encoder::default();
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for frame in &frames {
        let mut one = BytesMut::new();
        if Encoder::default().encode(frame, &mut one).is_ok() && encoder.encode(frame, &mut all).is_ok() {
            seeds.push(one.to_vec());
        }
    }
    seeds.push(all.to_vec());
    seeds
}

fn frames(input: &[u8], outcome: &mut Outcome) {
    // Whole, and in pieces as a network has it.
    for size in [input.len().max(1), 7] {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        'pieces: for piece in input.chunks(size) {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => outcome.note(std::mem::discriminant(&frame)),
                    Ok(None) => break,
                    Err(error) => {
                        outcome.error(&error);
                        break 'pieces;
                    }
                }
            }
        }
    }
}

pub const SPDY: Target = Target {
    name: "spdy",
    about: "SPDY frames and their compressed headers",
    seeds,
    words: &["\u{0}\u{3}\u{0}\u{1}", "\0\0\0\u{8}", "\0\0\0\0", "\u{7f}", "\u{1}\0", "\0\0\u{4}\0", "\0\0\0\u{1}"],
    run: frames,
};
