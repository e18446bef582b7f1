//! The wire's own words: varints, keys, lengths.

/// Length-delimited: texts, bytes, messages.
pub const BYTES: u8 = 2;
pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;

/// Bytes of a varint.
pub const fn varint_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn key(out: &mut Vec<u8>, tag: u32, wire_type: u8) {
    varint(out, u64::from(tag) << 3 | u64::from(wire_type));
}

/// A length-delimited field whole.
pub fn bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    key(out, tag, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Moves what lies from `from` to the end down to `to`, behind its own length.
pub fn close(out: &mut Vec<u8>, from: usize, to: usize) {
    let length = out.len() - from;
    let size = varint_size(length as u64);
    let start = to + size;
    if start + length > out.len() {
        out.resize(start + length, 0);
    }
    out.copy_within(from..from + length, start);
    out.truncate(start + length);
    let mut left = length as u64;
    for slot in &mut out[to..start] {
        *slot = left as u8 & 0x7f | 0x80;
        left >>= 7;
    }
    out[start - 1] &= 0x7f;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_before_what_they_measure() {
        for length in [0usize, 1, 127, 128, 300, 16_384] {
            let mut out = b"head".to_vec();
            out.extend(std::iter::repeat_n(7, length));
            close(&mut out, 4, 4);
            let mut want = b"head".to_vec();
            varint(&mut want, length as u64);
            assert_eq!(want.len() - 4, varint_size(length as u64));
            want.extend(std::iter::repeat_n(7, length));
            assert_eq!(out, want);
        }
    }
}
