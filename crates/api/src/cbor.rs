//! CBOR (RFC 8949) as the API speaks it (KEP-4222): JSON's values to data items and back.
//!
//! Written as upstream's `serializer/cbor` does: inside the self-described tag, strings as byte strings, keys sorted by their bytes, floats as short as they keep their value. Read: whatever
//! stands for a JSON value, of indefinite length too; byte strings under an "expected later encoding" tag become base64 or base16 text. Twice the same key, bignums, NaN, infinities and
//! other simple values than `false`, `true` and `null` are refused.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Number, Value};

pub const CONTENT_TYPE: &str = "application/cbor";
/// Items one after the other: what a watch sends.
pub const SEQUENCE_TYPE: &str = "application/cbor-seq";
/// The head of tag 55799, by which CBOR is known.
pub const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
/// Items within items, at most: as many as JSON may have.
const MAX_DEPTH: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    #[error("cbor: {0}")]
    Malformed(String),
    #[error("cbor: {0} bytes of extraneous data starting at index {1}")]
    Trailing(usize, usize),
    #[error("cbor: found duplicate map key {0:?}")]
    Duplicate(String),
    #[error("cbor: exceeded max nested level {MAX_DEPTH}")]
    Depth,
    #[error("cbor: map key is no string")]
    Key,
    #[error("cbor: {0} cannot be a JSON value")]
    NoJson(&'static str),
}

impl From<minicbor::decode::Error> for CborError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed(if error.is_end_of_input() { "unexpected EOF".to_owned() } else { error.to_string() })
    }
}

/// A JSON text as one item, with the self-described tag.
pub fn encode_json(json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    Ok(encode(&serde_json::from_slice(json)?))
}

pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Encoder::new(SELF_DESCRIBED.to_vec());
    // Writing into memory cannot fail.
    let _ = item(&mut out, value);
    out.into_writer()
}

/// One event of a watch; `object` was encoded before.
pub fn event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = SELF_DESCRIBED.to_vec();
    out.push(0xa2);
    let mut text = |text: &str| {
        let _ = Encoder::new(&mut out).bytes(text.as_bytes());
    };
    text("type");
    text(kind);
    text("object");
    out.extend_from_slice(object);
    out
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn item(out: &mut Encoder<Vec<u8>>, value: &Value) -> Written {
    match value {
        Value::Null => out.null()?.ok(),
        Value::Bool(flag) => out.bool(*flag)?.ok(),
        Value::Number(number) => self::number(out, number),
        Value::String(text) => out.bytes(text.as_bytes())?.ok(),
        Value::Array(list) => {
            out.array(list.len() as u64)?;
            list.iter().try_for_each(|value| item(out, value))
        }
        Value::Object(map) => {
            out.map(map.len() as u64)?;
            // The head of a key begins with its length.
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
            entries.into_iter().try_for_each(|(key, value)| {
                out.bytes(key.as_bytes())?;
                item(out, value)
            })
        }
    }
}

fn number(out: &mut Encoder<Vec<u8>>, number: &Number) -> Written {
    if let Some(number) = number.as_i64() {
        return out.i64(number)?.ok();
    }
    if let Some(number) = number.as_u64() {
        return out.u64(number)?.ok();
    }
    let long = number.as_f64().unwrap_or_default();
    let short = long as f32;
    if f64::from(short) != long {
        return out.f64(long)?.ok();
    }
    if let Some(half) = half_of(short) {
        out.writer_mut().push(HALF);
        out.writer_mut().extend_from_slice(&half.to_be_bytes());
        return Ok(());
    }
    out.f32(short)?.ok()
}

/// What begins a float of 16 bits.
const HALF: u8 = 0xf9;

/// The same number in 16 bits, if it has one: among 65,536 patterns it is found by its own.
fn half_of(number: f32) -> Option<u16> {
    let bits = number.to_bits();
    let (sign, exponent, mantissa) = ((bits >> 16 & 0x8000) as u16, (bits >> 23 & 0xff) as i32 - 127, bits & 0x7f_ffff);
    let half = match exponent {
        -127 if mantissa == 0 => sign,
        -14..=15 => sign | ((exponent + 15) as u16) << 10 | (mantissa >> 13) as u16,
        -24..=-15 => sign | ((mantissa | 0x80_0000) >> (-exponent - 1)) as u16,
        _ => return None,
    };
    (from_half(half) == number).then_some(half)
}

fn from_half(half: u16) -> f32 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(half >> 10 & 0x1f), f32::from(half & 0x3ff));
    sign * match exponent {
        0 => mantissa * 2f32.powi(-24),
        31 if mantissa == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + mantissa / 1024.0) * 2f32.powi(exponent - 15),
    }
}

/// One item and nothing after it.
pub fn decode(bytes: &[u8]) -> Result<Value, CborError> {
    let bytes = bytes.strip_prefix(&SELF_DESCRIBED).unwrap_or(bytes);
    let mut input = Decoder::new(bytes);
    let value = read(&mut input, MAX_DEPTH, None)?;
    match bytes.len() - input.position() {
        0 => Ok(value),
        left => Err(CborError::Trailing(left, input.position())),
    }
}

/// What byte strings are to become when they become text (RFC 8949 §3.4.5.2).
#[derive(Clone, Copy)]
enum Later {
    Base64Url,
    Base64,
    Base16,
}

fn read(input: &mut Decoder<'_>, depth: usize, later: Option<Later>) -> Result<Value, CborError> {
    let depth = depth.checked_sub(1).ok_or(CborError::Depth)?;
    Ok(match input.datatype()? {
        Type::Null => {
            input.null()?;
            Value::Null
        }
        Type::Bool => input.bool()?.into(),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
            let number = i128::from(input.int()?);
            i64::try_from(number).map_err(|_| CborError::NoJson("an integer of more than 64 bits"))?.into()
        }
        Type::F16 => {
            let at = input.position() + 1;
            let bits = input.input().get(at..at + 2).ok_or_else(|| CborError::Malformed("unexpected EOF".to_owned()))?;
            input.set_position(at + 2);
            float(from_half(u16::from_be_bytes([bits[0], bits[1]])).into())?
        }
        Type::F32 => float(input.f32()?.into())?,
        Type::F64 => float(input.f64()?)?,
        Type::Bytes | Type::BytesIndef => {
            let bytes = byte_string(input)?;
            match later {
                None => text(bytes)?,
                Some(Later::Base64Url) => URL_SAFE_NO_PAD.encode(bytes),
                Some(Later::Base64) => STANDARD.encode(bytes),
                Some(Later::Base16) => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
            }
            .into()
        }
        Type::String | Type::StringIndef => text_string(input)?.into(),
        Type::Array | Type::ArrayIndef => {
            let mut left = input.array()?;
            let mut list = Vec::new();
            while more(input, &mut left)? {
                list.push(read(input, depth, later)?);
            }
            list.into()
        }
        Type::Map | Type::MapIndef => {
            let mut left = input.map()?;
            let mut map = Map::new();
            while more(input, &mut left)? {
                let key = match input.datatype()? {
                    Type::Bytes | Type::BytesIndef => text(byte_string(input)?)?,
                    Type::String | Type::StringIndef => text_string(input)?,
                    _ => return Err(CborError::Key),
                };
                if map.contains_key(&key) {
                    return Err(CborError::Duplicate(key));
                }
                map.insert(key, read(input, depth, later)?);
            }
            map.into()
        }
        Type::Tag => tagged(input, depth, later)?,
        Type::Undefined | Type::Simple => return Err(CborError::NoJson("this simple value")),
        Type::Break | Type::Unknown(_) => return Err(CborError::Malformed(format!("no item begins at index {}", input.position()))),
    })
}

fn tagged(input: &mut Decoder<'_>, depth: usize, later: Option<Later>) -> Result<Value, CborError> {
    match input.tag()?.as_u64() {
        0 => match read(input, depth, None)? {
            Value::String(time) if time.parse::<Timestamp>().is_ok() => Ok(time.into()),
            _ => Err(CborError::NoJson("a time that is not as RFC 3339 writes it")),
        },
        1 => {
            let given = read(input, depth, None)?;
            let nanoseconds = given.as_i64().map(|seconds| i128::from(seconds) * 1_000_000_000).or_else(|| given.as_f64().map(|seconds| (seconds * 1e9) as i128));
            let time = nanoseconds.and_then(|nanoseconds| Timestamp::from_nanosecond(nanoseconds).ok());
            Ok(time.ok_or(CborError::NoJson("a time out of range"))?.to_string().into())
        }
        2 | 3 => Err(CborError::NoJson("a bignum")),
        21 => read(input, depth, Some(Later::Base64Url)),
        22 => read(input, depth, Some(Later::Base64)),
        23 => read(input, depth, Some(Later::Base16)),
        _ => read(input, depth, later),
    }
}

/// Whether another entry follows: by the number that was told, or up to the break.
fn more(input: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, CborError> {
    match left {
        Some(0) => Ok(false),
        Some(left) => {
            *left -= 1;
            Ok(true)
        }
        None if input.datatype()? == Type::Break => {
            input.set_position(input.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

fn float(number: f64) -> Result<Value, CborError> {
    Number::from_f64(number).map(Value::Number).ok_or(CborError::NoJson("a number that is not finite"))
}

fn byte_string(input: &mut Decoder<'_>) -> Result<Vec<u8>, CborError> {
    Ok(input.bytes_iter()?.collect::<Result<Vec<_>, _>>()?.concat())
}

fn text_string(input: &mut Decoder<'_>) -> Result<String, CborError> {
    Ok(input.str_iter()?.collect::<Result<Vec<_>, _>>()?.concat())
}

fn text(bytes: Vec<u8>) -> Result<String, CborError> {
    // Go reads bytes that are no UTF-8 as U+FFFD when they become JSON.
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn items_are_written_as_upstream_writes_them() {
        for (value, want) in [
            (json!({"kind": "A", "apiVersion": "v1"}), "a2 44 6b696e64 41 41 4a 61706956657273696f6e 42 7631"),
            (json!([0, -1, 23, 24, 300, u64::MAX]), "86 00 20 17 1818 19012c 1bffffffffffffffff"),
            (json!([null, true, false]), "83 f6 f5 f4"),
            (json!([1.5, 100_000.5, 1.1]), "83 f93e00 fa47c35040 fb3ff199999999999a"),
        ] {
            assert_eq!(encode(&value), [SELF_DESCRIBED.to_vec(), hex(want)].concat(), "{value}");
        }
        assert_eq!(decode(&event("ADDED", &encode(&json!({"a": 1})))).unwrap(), json!({"type": "ADDED", "object": {"a": 1}}));
    }

    #[test]
    fn every_short_float_is_its_own() {
        for half in (0..=u16::MAX).filter(|half| from_half(*half).is_finite()) {
            assert_eq!(half_of(from_half(half)), Some(half), "{half:04x}");
        }
        for long in [1e-8, 65_520.0, 1.000_1, f32::MIN_POSITIVE] {
            assert_eq!(half_of(long), None, "{long}");
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let value = json!({"apiVersion": "v1", "items": [{"a": "ü", "b": 1.25, "e": 1e300, "c": [[], {}], "d": -77_777_777_777_i64}], "x": null});
        assert_eq!(decode(&encode(&value)).unwrap(), value);
    }

    #[test]
    fn items_of_others_are_read() {
        for (bytes, want) in [
            ("a1 6161 01", json!({"a": 1})),
            ("bf 4161 9f 01 02 ff ff", json!({"a": [1, 2]})),
            ("7f 6161 6162 ff", json!("ab")),
            ("5f 4161 4162 ff", json!("ab")),
            ("d6 43 010203", json!("AQID")),
            ("d7 42 abcd", json!("ABCD")),
            ("c0 74 323031332d30332d32315432303a30343a30305a", json!("2013-03-21T20:04:00Z")),
            ("c1 1a514b67b0", json!("2013-03-21T20:04:00Z")),
            ("d9d9f7 d9d9f7 f6", json!(null)),
        ] {
            assert_eq!(decode(&hex(bytes)).unwrap(), want, "{bytes}");
        }
    }

    #[test]
    fn what_no_json_can_say_is_refused() {
        for (bytes, why) in [
            ("", "unexpected EOF"),
            ("a2 4161 01 6161 02", "duplicate map key \"a\""),
            ("a1 01 02", "map key is no string"),
            ("c2 41 01", "a bignum"),
            ("f97e00", "not finite"),
            ("f7", "simple value"),
            ("1bffffffffffffffff", "more than 64 bits"),
            ("01 02", "1 bytes of extraneous data starting at index 1"),
            ("9a ffffffff", "unexpected EOF"),
            ("ff", "no item begins at index 0"),
        ] {
            let told = decode(&hex(bytes)).unwrap_err().to_string();
            assert!(told.contains(why), "{bytes}: {told}");
        }
        assert_eq!(decode(&[0x81; 5000]).unwrap_err(), CborError::Depth);
    }
}
