//! Name/value blocks: how they look unpacked, and the zlib streams (one a direction, for the whole life of a connection) that pack them.
//!
//! Section 2.6.10 of the specification. Names are in lower case; values of one name are separated by NUL.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::dictionary::DICTIONARY;
use crate::frame::FrameError;
use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX};

/// How much room a block gets at first, and more each time.
const ROOM: usize = 4096;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The first value, whatever the case of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, values) = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        values.split('\0').next()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn unpacked(&self) -> Vec<u8> {
        let mut block = (self.0.len() as u32).to_be_bytes().to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        block
    }

    fn parse(block: &[u8]) -> Result<Self, FrameError> {
        let mut rest = block;
        let count = number(&mut rest)?;
        if count > HEADERS_MAX {
            return Err(FrameError::Headers("more headers than allowed"));
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = text(&mut rest)?.to_ascii_lowercase();
            let value = text(&mut rest)?;
            if name.is_empty() {
                return Err(FrameError::Headers("a header without a name"));
            }
            headers.push((name, value));
        }
        if rest.is_empty() { Ok(Self(headers)) } else { Err(FrameError::Headers("bytes after the last header")) }
    }
}

fn number(rest: &mut &[u8]) -> Result<usize, FrameError> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or(FrameError::Headers("a block that ends early"))?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| FrameError::Headers("a length that is too large"))
}

fn text(rest: &mut &[u8]) -> Result<String, FrameError> {
    let length = number(rest)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(FrameError::Headers("a block that ends early"))?;
    *rest = after;
    String::from_utf8(bytes.to_vec()).map_err(|_| FrameError::Headers("text that is not UTF-8"))
}

/// Packs the blocks of one direction.
pub struct Packer(Compress);

impl Packer {
    pub fn new() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        // Only a compressor that has already been used refuses a dictionary.
        let _ = zlib.set_dictionary(&DICTIONARY);
        Self(zlib)
    }

    pub fn pack(&mut self, headers: &Headers) -> Result<Vec<u8>, FrameError> {
        let block = headers.unpacked();
        let start = self.0.total_in();
        let mut packed = Vec::with_capacity(ROOM);
        loop {
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let rest = block.get(taken..).unwrap_or_default();
            self.0.compress_vec(rest, &mut packed, FlushCompress::Sync).map_err(|_| FrameError::Headers("a block that cannot be packed"))?;
            // Room left over says that all of it is out.
            if packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(ROOM);
        }
    }
}

/// Unpacks the blocks of one direction. After an error the connection is of no use: the two sides' states differ.
pub struct Unpacker(Decompress);

impl Unpacker {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub fn unpack(&mut self, packed: &[u8]) -> Result<Headers, FrameError> {
        const BROKEN: FrameError = FrameError::Headers("a block that cannot be unpacked");
        let start = self.0.total_in();
        let mut block = Vec::with_capacity(ROOM);
        loop {
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let rest = packed.get(taken..).unwrap_or_default();
            match self.0.decompress_vec(rest, &mut block, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(BROKEN),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| BROKEN)?;
                    continue;
                }
                Err(_) => return Err(BROKEN),
            }
            if block.len() == block.capacity() {
                if block.len() >= HEADER_BYTES_MAX {
                    return Err(FrameError::Headers("more bytes than allowed"));
                }
                block.reserve(ROOM);
            } else if self.0.total_in() - start >= packed.len() as u64 {
                return Headers::parse(&block);
            } else {
                // Room and input are left, but nothing goes on.
                return Err(BROKEN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_depend_on_those_before() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        for headers in [Headers::default().with("streamType", "stdin"), Headers::default(), Headers::default().with("port", "80").with("requestID", "0")] {
            let packed = packer.pack(&headers).unwrap();
            assert_eq!(unpacker.unpack(&packed).unwrap(), headers);
        }
        let headers = Headers::default().with("StreamType", "a\0b");
        assert_eq!((headers.get("streamtype"), headers.get("port")), (Some("a"), None));
    }

    /// zlib's header names the dictionary by its checksum; without it the other side does not read on.
    #[test]
    fn the_first_block_names_the_dictionary() {
        let packed = Packer::new().pack(&Headers::default().with("streamtype", "error")).unwrap();
        assert_eq!((packed[1] & 0x20, &packed[2..6]), (0x20, &[0xe3, 0xc6, 0xa7, 0xc2][..]));
    }

    #[test]
    fn limits_hold() {
        let long = Headers::default().with("x", &"y".repeat(HEADER_BYTES_MAX));
        let packed = Packer::new().pack(&long).unwrap();
        assert!(Unpacker::new().unpack(&packed).is_err());
        let many = (0..=HEADERS_MAX).fold(Headers::default(), |headers, n| headers.with(&format!("h{n}"), ""));
        let packed = Packer::new().pack(&many).unwrap();
        assert!(Unpacker::new().unpack(&packed).is_err());
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(blocks in prop::collection::vec(prop::collection::vec(("[a-z-]{1,20}", "\\PC{0,200}"), 0..20), 1..8)) {
            let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
            for block in blocks {
                let headers = block.iter().fold(Headers::default(), |headers, (name, value)| headers.with(name, value));
                prop_assert_eq!(unpacker.unpack(&packer.pack(&headers).unwrap()).unwrap(), headers);
            }
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0usize..40, with in any::<u8>()) {
            let _ = Unpacker::new().unpack(&bytes);
            let _ = Headers::parse(&bytes);
            let mut packed = Packer::new().pack(&Headers::default().with("streamtype", "stdin")).unwrap();
            if let Some(byte) = packed.get_mut(at) { *byte ^= with; }
            let _ = Unpacker::new().unpack(&packed);
        }
    }
}
