//! `size`, `type`, `dyn` and the conversions between types, with cel-go's errors on what does not fit.

use std::sync::Arc;

use super::{Row, mismatch};
use crate::error::EvalError;
use crate::time;
use crate::value::{Evaluated, Text, Value};

pub const TABLE: &[Row] = &[
    ("size", "size_bytes", "(bytes) -> int", size),
    ("size", "bytes_size", "bytes.() -> int", size),
    ("size", "size_list", "(list(A)) -> int", size),
    ("size", "list_size", "list(A).() -> int", size),
    ("size", "size_map", "(map(A, B)) -> int", size),
    ("size", "map_size", "map(A, B).() -> int", size),
    ("size", "size_string", "(string) -> int", size),
    ("size", "string_size", "string.() -> int", size),
    ("type", "type", "(A) -> type(A)", type_of),
    ("dyn", "to_dyn", "(A) -> dyn", same),
    ("bool", "bool_to_bool", "(bool) -> bool", same),
    ("bool", "string_to_bool", "(string) -> bool", string_to_bool),
    ("bytes", "bytes_to_bytes", "(bytes) -> bytes", same),
    ("bytes", "string_to_bytes", "(string) -> bytes", string_to_bytes),
    ("double", "double_to_double", "(double) -> double", same),
    ("double", "int64_to_double", "(int) -> double", to_double),
    ("double", "string_to_double", "(string) -> double", to_double),
    ("double", "uint64_to_double", "(uint) -> double", to_double),
    ("duration", "duration_to_duration", "(duration) -> duration", same),
    ("duration", "int64_to_duration", "(int) -> duration", to_duration),
    ("duration", "string_to_duration", "(string) -> duration", to_duration),
    ("int", "int64_to_int64", "(int) -> int", same),
    ("int", "double_to_int64", "(double) -> int", to_int),
    ("int", "duration_to_int64", "(duration) -> int", to_int),
    ("int", "string_to_int64", "(string) -> int", to_int),
    ("int", "timestamp_to_int64", "(timestamp) -> int", to_int),
    ("int", "uint64_to_int64", "(uint) -> int", to_int),
    ("string", "string_to_string", "(string) -> string", same),
    ("string", "bool_to_string", "(bool) -> string", to_string),
    ("string", "bytes_to_string", "(bytes) -> string", to_string),
    ("string", "double_to_string", "(double) -> string", to_string),
    ("string", "duration_to_string", "(duration) -> string", to_string),
    ("string", "int64_to_string", "(int) -> string", to_string),
    ("string", "timestamp_to_string", "(timestamp) -> string", to_string),
    ("string", "uint64_to_string", "(uint) -> string", to_string),
    ("timestamp", "timestamp_to_timestamp", "(timestamp) -> timestamp", same),
    ("timestamp", "int64_to_timestamp", "(int) -> timestamp", to_timestamp),
    ("timestamp", "string_to_timestamp", "(string) -> timestamp", to_timestamp),
    ("uint", "uint64_to_uint64", "(uint) -> uint", same),
    ("uint", "double_to_uint64", "(double) -> uint", to_uint),
    ("uint", "int64_to_uint64", "(int) -> uint", to_uint),
    ("uint", "string_to_uint64", "(string) -> uint", to_uint),
];

fn size<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Optional(_) => mismatch(),
        value => value.size().map(|size| Value::Int(size as i64)).ok_or_else(EvalError::no_such_overload),
    }
}

fn type_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Type(Arc::new(args[0].type_of())))
}

fn same<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(args[0].clone())
}

fn string_to_bool<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let Value::String(text) = &args[0] else { return mismatch() };
    match &**text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
        _ => Err(EvalError::failed("type conversion error from 'string' to 'bool'")),
    }
}

fn string_to_bytes<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let Value::String(text) = &args[0] else { return mismatch() };
    Ok(Value::Bytes(text.as_bytes().into()))
}

fn not_a<'a>(from: &str, to: &str) -> Evaluated<'a> {
    Err(EvalError::failed(format!("type conversion error from '{from}' to '{to}'")))
}

fn overflow<'a>(what: &str) -> Evaluated<'a> {
    Err(EvalError::failed(format!("{what} overflow")))
}

fn to_double<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Double(match &args[0] {
        Value::Int(value) => *value as f64,
        Value::Uint(value) => *value as f64,
        Value::String(text) => match parse_double(text) {
            Some(value) => value,
            None => return not_a("string", "double"),
        },
        _ => return mismatch(),
    }))
}

/// As Go's `ParseFloat`, which refuses what is out of range, and takes `inf` and `nan` in any case.
fn parse_double(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let named = text.trim_start_matches(['+', '-']).starts_with(['i', 'I', 'n', 'N']);
    (value.is_finite() || named).then_some(value)
}

fn to_duration<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Int(nanoseconds) => Ok(Value::Duration(*nanoseconds)),
        Value::String(text) => match time::parse_duration(text) {
            Some(nanoseconds) => Ok(Value::Duration(nanoseconds)),
            None => not_a("string", "google.protobuf.Duration"),
        },
        _ => mismatch(),
    }
}

fn to_int<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Int(match &args[0] {
        // Strictly within: the bounds themselves are not exact as doubles.
        Value::Double(value) if *value > -(2f64.powi(63)) && *value < 2f64.powi(63) => *value as i64,
        Value::Double(_) => return overflow("integer"),
        Value::Duration(nanoseconds) => *nanoseconds,
        Value::Timestamp(moment) => moment.at.as_nanosecond().div_euclid(1_000_000_000) as i64,
        Value::Uint(value) => match i64::try_from(*value) {
            Ok(value) => value,
            Err(_) => return overflow("integer"),
        },
        Value::String(text) => match text.parse() {
            Ok(value) => value,
            Err(_) => return not_a("string", "int"),
        },
        _ => return mismatch(),
    }))
}

fn to_uint<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Uint(match &args[0] {
        Value::Double(value) if *value >= 0.0 && *value < 2f64.powi(64) => *value as u64,
        Value::Double(_) => return overflow("unsigned integer"),
        Value::Int(value) => match u64::try_from(*value) {
            Ok(value) => value,
            Err(_) => return overflow("unsigned integer"),
        },
        Value::String(text) => match text.strip_prefix('+').map_or(text.parse::<u64>(), |_| "".parse()) {
            Ok(value) => value,
            Err(_) => return not_a("string", "uint"),
        },
        _ => return mismatch(),
    }))
}

fn to_string<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(match &args[0] {
        Value::Bool(value) => Value::string(if *value { "true" } else { "false" }),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::String(Text::Shared(text.into())),
            Err(_) => return Err(EvalError::failed("invalid UTF-8 in bytes, cannot convert to string")),
        },
        Value::Double(value) => Value::string(format_double(*value)),
        Value::Duration(nanoseconds) => Value::string(time::duration_to_json(*nanoseconds)),
        Value::Int(value) => Value::string(value.to_string()),
        Value::Uint(value) => Value::string(value.to_string()),
        Value::Timestamp(timestamp) => Value::string(time::format_timestamp(*timestamp)),
        _ => return mismatch(),
    })
}

/// Go's `%g`: the shortest digits, with an exponent below 1e-4 and from 1e21 on.
pub fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let number: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&number) || value == 0.0 {
        return format!("{value}");
    }
    format!("{mantissa}e{}{:02}", if number < 0 { '-' } else { '+' }, number.abs())
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Int(seconds) => time::from_seconds(*seconds).map(Value::Timestamp),
        Value::String(text) => time::parse_timestamp(text).map(Value::Timestamp),
        _ => mismatch(),
    }
}
