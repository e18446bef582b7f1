//! `format`: cel-go's `%s %d %f %e %b %x %X %o`, as its first formatter prints them in English.

use super::conversions::format_double;
use super::strings::MADE_STRING_LIMIT;
use crate::error::EvalError;
use crate::time;
use crate::value::Value;

const DEFAULT_PRECISION: usize = 6;
const MAX_PRECISION: usize = 1000;
/// Lists in lists; values of JSON are not deeper.
const DEPTH_LIMIT: u32 = 128;

pub fn format(pattern: &str, args: &[Value<'_>]) -> Result<String, EvalError> {
    let mut out = String::with_capacity(pattern.len());
    let mut args = args.iter().enumerate();
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        if rest.peek() == Some(&'%') {
            rest.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if rest.peek() == Some(&'.') {
            rest.next();
            let mut digits = String::new();
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let wanted = digits.parse().map_err(|_| EvalError::failed("could not parse formatting clause: error while parsing precision"))?;
            if wanted > MAX_PRECISION {
                return Err(EvalError::failed("could not parse formatting clause: precision too large"));
            }
            precision = Some(wanted);
        }
        let verb = rest.next().ok_or_else(|| EvalError::failed("could not parse formatting clause: unexpected end of format string"))?;
        if !"sdfebxXo".contains(verb) {
            return Err(EvalError::failed(format!("could not parse formatting clause: unrecognized formatting clause {verb:?}")));
        }
        let Some((_, value)) = args.next() else {
            return Err(EvalError::failed(format!("index {} out of range", args.len())));
        };
        out.push_str(
            &clause(verb, precision.unwrap_or(DEFAULT_PRECISION), value)
                .map_err(|error| EvalError::failed(format!("error during formatting: {error}")))?,
        );
        if out.len() > MADE_STRING_LIMIT {
            return Err(EvalError::failed("string too long"));
        }
    }
    Ok(out)
}

fn unsupported(verb: char, kind: &str, takes: &str, value: &Value<'_>) -> EvalError {
    EvalError::failed(format!("{kind} clause (%{verb}) can only be used on {takes}, was given {}", value.type_of().runtime_name()))
}

fn clause(verb: char, precision: usize, value: &Value<'_>) -> Result<String, EvalError> {
    let double = |kind: &str| match value {
        Value::Double(value) => Ok(*value),
        Value::String(text) => match &**text {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => Err(unsupported(verb, kind, "doubles", value)),
        },
        _ => Err(unsupported(verb, kind, "doubles", value)),
    };
    match (verb, value) {
        ('s', _) => text(value, 0),
        ('d', Value::Int(value)) => Ok(value.to_string()),
        ('d', Value::Uint(value)) => Ok(value.to_string()),
        ('d', _) => Err(unsupported(verb, "decimal", "integers", value)),
        ('f', _) => double("fixed-point").map(|value| fixed(value, precision)),
        ('e', _) => double("scientific").map(|value| scientific(value, precision)),
        ('b', Value::Int(value)) => Ok(signed(*value, |value| format!("{value:b}"))),
        ('b', Value::Uint(value)) => Ok(format!("{value:b}")),
        ('b', Value::Bool(value)) => Ok(u8::from(*value).to_string()),
        ('b', _) => Err(unsupported(verb, "only integers and bools can be formatted as binary", "integers and bools", value)),
        ('o', Value::Int(value)) => Ok(signed(*value, |value| format!("{value:o}"))),
        ('o', Value::Uint(value)) => Ok(format!("{value:o}")),
        ('o', _) => Err(unsupported(verb, "octal", "integers", value)),
        (_, Value::Int(value)) => Ok(cased(verb, signed(*value, |value| format!("{value:x}")))),
        (_, Value::Uint(value)) => Ok(cased(verb, format!("{value:x}"))),
        (_, Value::String(text)) => Ok(cased(verb, hexadecimal(text.as_bytes()))),
        (_, Value::Bytes(bytes)) => Ok(cased(verb, hexadecimal(bytes))),
        _ => Err(unsupported(verb, "hex", "integers, byte buffers, and strings", value)),
    }
}

fn signed(value: i64, format: impl Fn(u64) -> String) -> String {
    format!("{}{}", if value < 0 { "-" } else { "" }, format(value.unsigned_abs()))
}

fn cased(verb: char, text: String) -> String {
    if verb == 'X' { text.to_ascii_uppercase() } else { text }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named(value: f64) -> Option<String> {
    if value.is_nan() {
        return Some("NaN".to_owned());
    }
    value.is_infinite().then(|| if value > 0.0 { "∞".to_owned() } else { "-∞".to_owned() })
}

/// In English: thousands are set apart.
fn fixed(value: f64, precision: usize) -> String {
    if let Some(name) = named(value) {
        return name;
    }
    let plain = format!("{value:.precision$}");
    let (sign, digits) = plain.strip_prefix('-').map_or(("", plain.as_str()), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut out = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// `1.052033 × 10⁰³`.
fn scientific(value: f64, precision: usize) -> String {
    if let Some(name) = named(value) {
        return name;
    }
    let plain = format!("{value:.precision$e}");
    let Some((mantissa, exponent)) = plain.split_once('e') else { return plain };
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("⁻", digits));
    let raised: String =
        format!("{digits:0>2}").chars().filter_map(|digit| digit.to_digit(10)).filter_map(|digit| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit as usize)).collect();
    format!("{mantissa}×10{sign}{raised}")
}

fn text(value: &Value<'_>, depth: u32) -> Result<String, EvalError> {
    Ok(match value {
        _ if depth > DEPTH_LIMIT => return Err(EvalError::failed("value is nested too deeply")),
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => format_double(*value),
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(nanoseconds) => time::duration_to_json(*nanoseconds),
        Value::Timestamp(timestamp) => time::format_timestamp(*timestamp),
        Value::Type(ty) => ty.runtime_name().to_owned(),
        Value::List(list) => {
            let items: Result<Vec<String>, EvalError> = list.iter().map(|item| quoted(&item?, depth + 1)).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Map(_) | Value::Object(_) => {
            let (keys, get): (Vec<Value<'_>>, _) = match value {
                Value::Map(map) => (map.keys(), None),
                Value::Object(object) => (object.keys(), Some(object)),
                _ => (Vec::new(), None),
            };
            let mut pairs = Vec::with_capacity(keys.len());
            for key in &keys {
                let found = match (value, get) {
                    (_, Some(object)) => object.field(key.as_str().unwrap_or_default()),
                    (Value::Map(map), _) => map.get(key),
                    _ => None,
                };
                if let Some(found) = found {
                    pairs.push(format!("{}:{}", quoted(key, depth + 1)?, quoted(&found?, depth + 1)?));
                }
            }
            pairs.sort();
            format!("{{{}}}", pairs.join(", "))
        }
        _ => {
            return Err(EvalError::failed(format!(
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                value.type_of().runtime_name()
            )));
        }
    })
}

/// Inside of a list or a map.
fn quoted(value: &Value<'_>, depth: u32) -> Result<String, EvalError> {
    let plain = match value {
        Value::Double(value) if value.is_finite() => return Ok(format!("{value:.DEFAULT_PRECISION$}")),
        Value::Duration(_) => return Ok(format!("duration({:?})", text(value, depth)?)),
        Value::Timestamp(_) => return Ok(format!("timestamp({:?})", text(value, depth)?)),
        Value::Type(_) => return Ok(format!("type({})", text(value, depth)?)),
        _ => text(value, depth)?,
    };
    Ok(match value {
        Value::String(_) | Value::Double(_) => format!("{plain:?}"),
        Value::Bytes(_) => format!("b{plain:?}"),
        _ => plain,
    })
}
