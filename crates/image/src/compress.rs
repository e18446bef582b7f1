//! Layer compression, told by the first bytes rather than by media type or file name (as containerd and docker do).

use std::io::{self, BufRead, BufReader, Read};

/// A stream that decompresses gzip and zstd and passes anything else through.
pub fn decompressed<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 * 1024, reader);
    let head = reader.fill_buf()?;
    Ok(match Compression::of(head) {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        Compression::Unsupported(name) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{name} compression is not supported")));
        }
        Compression::None => Box::new(reader),
    })
}

#[derive(Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Unsupported(&'static str),
}

impl Compression {
    pub fn of(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Unsupported("xz"),
            [b'B', b'Z', b'h', ..] => Compression::Unsupported("bzip2"),
            _ => Compression::None,
        }
    }
}

/// Does this file hold a tar archive, compressed or not? (What makes ADD extract.)
pub fn is_tar(reader: impl Read) -> io::Result<bool> {
    let mut reader = BufReader::new(reader);
    if let Compression::Unsupported(name) = Compression::of(reader.fill_buf()?) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{name} compression is not supported")));
    }
    // A damaged stream is not an archive: it is copied as the file it is.
    let mut block = [0u8; 512];
    let whole = decompressed(reader).and_then(|mut stream| stream.read_exact(&mut block)).is_ok();
    Ok(whole && (&block[257..262] == b"ustar"))
}
