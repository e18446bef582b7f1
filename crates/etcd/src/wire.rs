//! Protobuf's own words, as much of them as etcd's messages need: varints and what is length-delimited.
//!
//! Written once more than in `api`, because a tool knows nothing of Kubernetes; and read without copying, out of one buffer for all.

use bytes::Bytes;

use crate::error::Error;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number, unless it is zero: proto3 leaves those out.
pub fn number(out: &mut Vec<u8>, tag: u32, value: u64) {
    if value != 0 {
        varint(out, u64::from(tag) << 3 | u64::from(VARINT));
        varint(out, value);
    }
}

pub fn flag(out: &mut Vec<u8>, tag: u32, value: bool) {
    number(out, tag, value.into());
}

/// Bytes, unless there are none.
pub fn bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    if !value.is_empty() {
        message(out, tag, value);
    }
}

/// A message is written even when nothing is in it.
pub fn message(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    varint(out, u64::from(tag) << 3 | u64::from(LENGTH));
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[derive(Debug)]
pub enum Part {
    Number(u64),
    Bytes(Bytes),
}

impl Part {
    pub fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }

    pub fn bytes(self) -> Bytes {
        match self {
            Self::Number(_) => Bytes::new(),
            Self::Bytes(bytes) => bytes,
        }
    }

    pub fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

/// The fields of one message, one after the other.
pub struct Fields(pub Bytes);

impl Fields {
    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for (index, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
            if byte & 0x80 == 0 {
                let _ = self.0.split_to(index + 1);
                return Ok(value);
            }
        }
        Err(Error::Malformed)
    }

    fn take(&mut self, length: u64) -> Result<Bytes, Error> {
        match usize::try_from(length) {
            Ok(length) if length <= self.0.len() => Ok(self.0.split_to(length)),
            _ => Err(Error::Malformed),
        }
    }

    pub fn next(&mut self) -> Result<Option<(u64, Part)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let part = match (key & 7) as u8 {
            VARINT => Part::Number(self.varint()?),
            LENGTH => {
                let length = self.varint()?;
                Part::Bytes(self.take(length)?)
            }
            FIXED64 => Part::Bytes(self.take(8)?),
            FIXED32 => Part::Bytes(self.take(4)?),
            _ => return Err(Error::Malformed),
        };
        Ok(Some((key >> 3, part)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let mut out = Vec::new();
        number(&mut out, 1, 300);
        number(&mut out, 2, 0);
        flag(&mut out, 3, true);
        bytes(&mut out, 64, b"key");
        number(&mut out, 5, u64::MAX);
        message(&mut out, 6, b"");
        let mut fields = Fields(out.into());
        let mut found = Vec::new();
        while let Some((tag, part)) = fields.next().unwrap() {
            found.push((tag, format!("{part:?}")));
        }
        assert_eq!(found.iter().map(|(tag, part)| format!("{tag} {part}")).collect::<Vec<_>>(), ["1 Number(300)", "3 Number(1)", "64 Bytes(b\"key\")", "5 Number(18446744073709551615)", "6 Bytes(b\"\")"]);
    }

    #[test]
    fn damage_is_an_error() {
        for input in [&[0x08][..], &[0x08, 0x80], &[0x12, 5, 1], &[0x0b, 1], &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]] {
            let mut fields = Fields(Bytes::copy_from_slice(input));
            assert!(matches!(fields.next(), Err(Error::Malformed)), "{input:?}");
        }
    }
}
