//! Frames: bytes to frames and back, without any I/O.
//!
//! Section 2.2 of the specification. Data frames, which may be as large as 16 MiB, are given on in pieces as they come, so their size costs nothing.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::headers::{Headers, Packer, Unpacker};
use crate::limits::{CHUNK_BYTES_MAX, CONTROL_FRAME_BYTES_MAX};

const HEAD: usize = 8;
const VERSION: u16 = 3;
const CONTROL: u32 = 0x8000_0000;
const ID: u32 = 0x7fff_ffff;
const LENGTH: u32 = 0x00ff_ffff;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

/// Why a stream was reset: section 2.6.3.
pub mod reset {
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const REFUSED_STREAM: u32 = 3;
    pub const CANCEL: u32 = 5;
}

/// Why a connection ends: section 2.6.6.
pub mod going {
    pub const OK: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of SPDY version {0}")]
    Version(u16),
    #[error("a control frame of {0} bytes")]
    TooLarge(usize),
    #[error("a frame of kind {kind} with {length} bytes")]
    Length { kind: u16, length: usize },
    #[error("a frame for stream 0")]
    NoStream,
    #[error("header block: {0}")]
    Headers(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    SynStream { stream: u32, associated: u32, priority: u8, fin: bool, unidirectional: bool, headers: Headers },
    SynReply { stream: u32, fin: bool, headers: Headers },
    RstStream { stream: u32, status: u32 },
    /// Flags, ID and value of each.
    Settings(Vec<(u8, u32, u32)>),
    Ping(u32),
    GoAway { last: u32, status: u32 },
    Headers { stream: u32, fin: bool, headers: Headers },
    WindowUpdate { stream: u32, delta: u32 },
    Data { stream: u32, fin: bool, data: Bytes },
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_u32(u32::from(flags) << 24 | length as u32 & LENGTH);
}

/// One direction's frames to bytes.
pub struct Encoder(Packer);

impl Default for Encoder {
    fn default() -> Self {
        Self(Packer::new())
    }
}

impl Encoder {
    /// Appends `frame` to `out`.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        match frame {
            Frame::SynStream { stream, associated, priority, fin, unidirectional, headers } => {
                let block = self.block(headers, 10)?;
                control(out, 1, u8::from(*fin) * FIN | u8::from(*unidirectional) * UNIDIRECTIONAL, block.len() + 10);
                out.put_u32(*stream & ID);
                out.put_u32(*associated & ID);
                out.put_u8(*priority << 5);
                out.put_u8(0);
                out.put_slice(&block);
            }
            Frame::SynReply { stream, fin, headers } | Frame::Headers { stream, fin, headers } => {
                let block = self.block(headers, 4)?;
                control(out, if matches!(frame, Frame::SynReply { .. }) { 2 } else { 8 }, u8::from(*fin) * FIN, block.len() + 4);
                out.put_u32(*stream & ID);
                out.put_slice(&block);
            }
            Frame::RstStream { stream, status } => {
                control(out, 3, 0, 8);
                out.put_u32(*stream & ID);
                out.put_u32(*status);
            }
            Frame::Settings(settings) => {
                control(out, 4, 0, 4 + settings.len() * 8);
                out.put_u32(settings.len() as u32);
                for (flags, id, value) in settings {
                    out.put_u32(u32::from(*flags) << 24 | *id & LENGTH);
                    out.put_u32(*value);
                }
            }
            Frame::Ping(id) => {
                control(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last, status } => {
                control(out, 7, 0, 8);
                out.put_u32(*last & ID);
                out.put_u32(*status);
            }
            Frame::WindowUpdate { stream, delta } => {
                control(out, 9, 0, 8);
                out.put_u32(*stream & ID);
                out.put_u32(*delta & ID);
            }
            Frame::Data { stream, fin, data } => {
                if data.len() > LENGTH as usize {
                    return Err(FrameError::TooLarge(data.len()));
                }
                out.put_u32(*stream & ID);
                out.put_u32(u32::from(u8::from(*fin) * FIN) << 24 | data.len() as u32);
                out.put_slice(data);
            }
        }
        Ok(())
    }

    fn block(&mut self, headers: &Headers, before: usize) -> Result<Vec<u8>, FrameError> {
        let block = self.0.pack(headers)?;
        if block.len() + before > CONTROL_FRAME_BYTES_MAX { Err(FrameError::TooLarge(block.len())) } else { Ok(block) }
    }
}

/// A data frame of which not everything has come.
struct Rest {
    stream: u32,
    fin: bool,
    left: usize,
}

/// The other direction's bytes to frames. After an error nothing more can be read.
pub struct Decoder {
    headers: Unpacker,
    rest: Option<Rest>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { headers: Unpacker::new(), rest: None }
    }
}

impl Decoder {
    /// The next frame, or the next piece of a data frame; None while more bytes are needed.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(rest) = &mut self.rest {
                if rest.left > 0 && input.is_empty() {
                    return Ok(None);
                }
                let data = input.split_to(rest.left.min(input.len()).min(CHUNK_BYTES_MAX)).freeze();
                rest.left -= data.len();
                let (stream, last) = (rest.stream, rest.left == 0);
                let fin = rest.fin && last;
                if last {
                    self.rest = None;
                }
                return Ok(Some(Frame::Data { stream, fin, data }));
            }
            let Some(mut head) = input.get(..HEAD) else { return Ok(None) };
            let (first, second) = (head.get_u32(), head.get_u32());
            let (flags, length) = ((second >> 24) as u8, (second & LENGTH) as usize);
            if first & CONTROL == 0 {
                if first == 0 {
                    return Err(FrameError::NoStream);
                }
                input.advance(HEAD);
                self.rest = Some(Rest { stream: first, fin: flags & FIN != 0, left: length });
                continue;
            }
            let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
            if version != VERSION {
                return Err(FrameError::Version(version));
            }
            if length > CONTROL_FRAME_BYTES_MAX {
                return Err(FrameError::TooLarge(length));
            }
            if input.len() < HEAD + length {
                return Ok(None);
            }
            input.advance(HEAD);
            let body = input.split_to(length).freeze();
            // Kinds that we do not know are skipped, as the specification wants it.
            if let Some(frame) = self.control(kind, flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Option<Frame>, FrameError> {
        let length = body.len();
        let (least, most) = match kind {
            1 => (10, usize::MAX),
            2 | 8 => (4, usize::MAX),
            3 | 7 | 9 => (8, 8),
            4 => (4, usize::MAX),
            6 => (4, 4),
            _ => return Ok(None),
        };
        if length < least || length > most {
            return Err(FrameError::Length { kind, length });
        }
        let fin = flags & FIN != 0;
        let first = body.get_u32();
        let id = first & ID;
        if matches!(kind, 1 | 2 | 3 | 8) && id == 0 {
            return Err(FrameError::NoStream);
        }
        Ok(Some(match kind {
            1 => {
                let associated = body.get_u32() & ID;
                let priority = body.get_u8() >> 5;
                body.advance(1);
                Frame::SynStream { stream: id, associated, priority, fin, unidirectional: flags & UNIDIRECTIONAL != 0, headers: self.headers.unpack(&body)? }
            }
            2 => Frame::SynReply { stream: id, fin, headers: self.headers.unpack(&body)? },
            3 => Frame::RstStream { stream: id, status: body.get_u32() },
            4 => {
                if body.len() != first as usize * 8 {
                    return Err(FrameError::Length { kind, length });
                }
                let one = |pair: &[u8]| {
                    let mut pair = pair;
                    let (id, value) = (pair.get_u32(), pair.get_u32());
                    ((id >> 24) as u8, id & LENGTH, value)
                };
                Frame::Settings(body.chunks_exact(8).map(one).collect())
            }
            6 => Frame::Ping(first),
            7 => Frame::GoAway { last: id, status: body.get_u32() },
            8 => Frame::Headers { stream: id, fin, headers: self.headers.unpack(&body)? },
            _ => Frame::WindowUpdate { stream: id, delta: body.get_u32() & ID },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(frame: &Frame) -> Vec<u8> {
        let mut out = BytesMut::new();
        Encoder::default().encode(frame, &mut out).unwrap();
        out.to_vec()
    }

    fn frames(input: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let (mut decoder, mut input, mut all) = (Decoder::default(), BytesMut::from(input), Vec::new());
        while let Some(frame) = decoder.decode(&mut input)? {
            all.push(frame);
        }
        Ok(all)
    }

    #[test]
    fn on_the_wire() {
        for (frame, want) in [
            (Frame::RstStream { stream: 3, status: reset::CANCEL }, &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5][..]),
            (Frame::Ping(1), &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
            (Frame::GoAway { last: 5, status: going::OK }, &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 0]),
            (Frame::WindowUpdate { stream: 1, delta: 2 }, &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2]),
            (Frame::Settings(vec![(1, 4, 100)]), &[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 1, 0, 0, 4, 0, 0, 0, 100]),
            (Frame::Data { stream: 5, fin: true, data: Bytes::from_static(b"hi") }, &[0, 0, 0, 5, 1, 0, 0, 2, b'h', b'i']),
            (Frame::Data { stream: 5, fin: true, data: Bytes::new() }, &[0, 0, 0, 5, 1, 0, 0, 0]),
        ] {
            assert_eq!(bytes(&frame), want);
            assert_eq!(frames(want), Ok(vec![frame]));
        }
    }

    #[test]
    fn refused() {
        for (input, want) in [
            (&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..], FrameError::Version(2)),
            (&[0x80, 3, 0, 6, 0, 0, 0, 5, 0, 0, 0, 1, 0], FrameError::Length { kind: 6, length: 5 }),
            (&[0x80, 3, 0, 1, 0xff, 0xff, 0xff, 0xff], FrameError::TooLarge(0xff_ffff)),
            (&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0, 0, 0], FrameError::Length { kind: 4, length: 4 }),
            (&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5], FrameError::NoStream),
            (&[0, 0, 0, 0, 0, 0, 0, 1], FrameError::NoStream),
        ] {
            assert_eq!(frames(input), Err(want), "{input:?}");
        }
        // A kind of frame that nobody knows is skipped.
        assert_eq!(frames(&[0x80, 3, 0, 99, 0, 0, 0, 1, 0, 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]), Ok(vec![Frame::Ping(1)]));
    }

    #[test]
    fn a_large_data_frame_comes_in_pieces() {
        let large = bytes(&Frame::Data { stream: 1, fin: true, data: vec![7; CHUNK_BYTES_MAX + 10].into() });
        let got = frames(&large).unwrap();
        assert!(matches!(&got[..], [Frame::Data { fin: false, data: a, .. }, Frame::Data { fin: true, data: b, .. }] if a.len() == CHUNK_BYTES_MAX && b.len() == 10));
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let headers = prop::collection::vec(("[a-z]{1,9}", "[ -~]{0,30}"), 0..5).prop_map(|all| all.iter().fold(Headers::default(), |headers, (name, value)| headers.with(name, value)));
        let (id, flag) = (1..=ID, any::<bool>());
        prop_oneof![
            (id.clone(), 0..=ID, 0u8..8, flag, flag, headers.clone()).prop_map(|(stream, associated, priority, fin, unidirectional, headers)| Frame::SynStream { stream, associated, priority, fin, unidirectional, headers }),
            (id.clone(), flag, headers.clone()).prop_map(|(stream, fin, headers)| Frame::SynReply { stream, fin, headers }),
            (id.clone(), flag, headers).prop_map(|(stream, fin, headers)| Frame::Headers { stream, fin, headers }),
            (id.clone(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
            prop::collection::vec((any::<u8>(), 0..=LENGTH, any::<u32>()), 0..4).prop_map(Frame::Settings),
            any::<u32>().prop_map(Frame::Ping),
            (0..=ID, any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (id.clone(), 0..=ID).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
            (id, flag, prop::collection::vec(any::<u8>(), 0..50)).prop_map(|(stream, fin, data)| Frame::Data { stream, fin, data: data.into() }),
        ]
    }

    proptest! {
        /// However the bytes are cut: the same frames, data in as many pieces as it came.
        #[test]
        fn round_trip(all in prop::collection::vec(any_frame(), 1..12), cut in 1usize..60) {
            let (mut encoder, mut wire) = (Encoder::default(), BytesMut::new());
            for frame in &all {
                encoder.encode(frame, &mut wire).unwrap();
            }
            let (mut decoder, mut input, mut got) = (Decoder::default(), BytesMut::new(), Vec::<Frame>::new());
            for piece in wire.chunks(cut) {
                input.extend_from_slice(piece);
                while let Some(frame) = decoder.decode(&mut input).unwrap() {
                    match (got.last_mut(), frame) {
                        (Some(Frame::Data { stream, fin, data }), Frame::Data { stream: same, fin: last, data: more }) if *stream == same && !*fin => {
                            *data = [&data[..], &more[..]].concat().into();
                            *fin = last;
                        }
                        (_, frame) => got.push(frame),
                    }
                }
            }
            // Neighbours of one stream look like pieces of one frame: so they are put together here too.
            let mut want = Vec::<Frame>::new();
            for frame in all {
                match (want.last_mut(), frame) {
                    (Some(Frame::Data { stream, fin, data }), Frame::Data { stream: same, fin: last, data: more }) if *stream == same && !*fin => {
                        *data = [&data[..], &more[..]].concat().into();
                        *fin = last;
                    }
                    (_, frame) => want.push(frame),
                }
            }
            prop_assert_eq!(got, want);
        }

        #[test]
        fn nothing_panics(input in prop::collection::vec(any::<u8>(), 0..200), kind in 0u16..12, flags in any::<u8>()) {
            let _ = frames(&input);
            let mut framed = BytesMut::new();
            control(&mut framed, kind, flags, input.len());
            framed.extend_from_slice(&input);
            let _ = frames(&framed);
        }
    }
}
