//! Mutations of bytes: small damage, words of the language at wrong places, pieces of other inputs, and pieces over and over again.

use crate::json;
use crate::random::Random;

/// What decoders tend to stumble over, whatever their language.
const COMMON: &[&str] = &[
    "", "\0", "\n", "\r\n", "\t", " ", "\"", "'", "\\", "/", "{", "}", "[", "]", "(", ")", ",", ":", ";", "=", "!", "-", "--", "&a", "*a", "<<", "|", ">", "#", "$", "${", "%", "%s", "..", "0", "-0", "-1", "1e309",
    "1e-400", "0x7fffffff", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551616", "null", "true", "NaN", ".inf", "\u{0}", "\u{feff}", "\u{202e}", "é", "日本", "😀", "\u{301}", "\\u0000", "\\ud800", "\\udc00",
];
/// Inputs do not grow beyond this.
const LARGEST: usize = 1 << 16;
/// Deeper nesting than any decoder should follow.
const DEEPEST: usize = 4000;

fn range(bytes: &[u8], random: &mut Random, longest: usize) -> std::ops::Range<usize> {
    let start = random.below(bytes.len() + 1);
    start..(start + random.below(longest.min(bytes.len() - start) + 1))
}

fn insert(bytes: &mut Vec<u8>, random: &mut Random, piece: &[u8]) {
    let at = random.below(bytes.len() + 1);
    bytes.splice(at..at, piece.iter().copied());
}

fn once(bytes: &mut Vec<u8>, words: &[&'static str], other: &[u8], random: &mut Random) {
    match random.below(13) {
        0 => {
            if let Some(at) = (!bytes.is_empty()).then(|| random.below(bytes.len())) {
                bytes[at] ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(at) = (!bytes.is_empty()).then(|| random.below(bytes.len())) {
                bytes[at] = random.number() as u8;
            }
        }
        2 | 3 => insert(bytes, random, random.clone().word(words).as_bytes()),
        4 => insert(bytes, random, random.clone().word(COMMON).as_bytes()),
        5 => drop(bytes.drain(range(bytes, random, 32))),
        6 => {
            let piece = bytes[range(bytes, random, 64)].to_vec();
            insert(bytes, random, &piece);
        }
        7 => {
            let piece = other[range(other, random, 256)].to_vec();
            insert(bytes, random, &piece);
        }
        8 => {
            let at = range(bytes, random, 32);
            let word = random.word(words).as_bytes().to_vec();
            bytes.splice(at, word);
        }
        9 => {
            let piece = bytes[range(bytes, random, 16)].to_vec();
            let times = 1 << random.below(8);
            insert(bytes, random, &piece.repeat(times));
        }
        10 => bytes.truncate(random.below(bytes.len() + 1)),
        11 => {
            let piece = random.word(&["[", "{\"a\":", "(", "-", "!", "${a:-", "- ", "{\"a\":[", "((", "'", "a.", "[?("]).as_bytes();
            let times = random.below(DEEPEST);
            insert(bytes, random, &piece.repeat(times));
        }
        _ => {
            let (at, word) = (range(bytes, random, 8), random.word(COMMON).as_bytes().to_vec());
            bytes.splice(at, word);
        }
    }
}

/// A few mutations of `input`; of a JSON document mostly such that it stays one.
pub fn mutate(input: &[u8], words: &[&'static str], other: &[u8], random: &mut Random) -> Vec<u8> {
    if !random.once_in(3)
        && let Ok(mut value) = serde_json::from_slice(input)
    {
        let other = serde_json::from_slice(other).unwrap_or_default();
        for _ in 0..1 + random.below(4) {
            json::mutate(&mut value, words, &other, random);
        }
        return value.to_string().into_bytes();
    }
    let mut bytes = input.to_vec();
    for _ in 0..1 << random.below(4) {
        // An insertion's word and its place are drawn apart.
        random.number();
        once(&mut bytes, words, other, random);
    }
    bytes.truncate(LARGEST);
    bytes
}

/// The same input with one piece of it so many times that it has about `size` bytes.
pub fn grown(input: &[u8], piece: std::ops::Range<usize>, size: usize) -> Vec<u8> {
    let mut out = input[..piece.end].to_vec();
    let times = size / piece.len().max(1);
    out.extend(input[piece.clone()].repeat(times));
    out.extend_from_slice(&input[piece.end..]);
    out
}

/// A piece worth to be repeated.
pub fn piece(input: &[u8], random: &mut Random) -> std::ops::Range<usize> {
    range(input, random, 40)
}
