//! Strings: CEL's own tests and cel-go's strings library at version 2. Positions count code points.

use super::regex::compile;
use super::{Row, mismatch, printf};
use crate::error::EvalError;
use crate::value::{Evaluated, Text, Value};

pub const TABLE: &[Row] = &[
    ("contains", "contains_string", "string.(string) -> bool", |args| test(args, |text, part| text.contains(part))),
    ("startsWith", "starts_with_string", "string.(string) -> bool", |args| test(args, |text, part| text.starts_with(part))),
    ("endsWith", "ends_with_string", "string.(string) -> bool", |args| test(args, |text, part| text.ends_with(part))),
    ("matches", "matches", "(string, string) -> bool", matches),
    ("matches", "matches_string", "string.(string) -> bool", matches),
    ("charAt", "string_char_at_int", "string.(int) -> string", char_at),
    ("indexOf", "string_index_of_string", "string.(string) -> int", index_of),
    ("indexOf", "string_index_of_string_int", "string.(string, int) -> int", index_of),
    ("lastIndexOf", "string_last_index_of_string", "string.(string) -> int", last_index_of),
    ("lastIndexOf", "string_last_index_of_string_int", "string.(string, int) -> int", last_index_of),
    ("lowerAscii", "string_lower_ascii", "string.() -> string", |args| change(args, |text| text.to_ascii_lowercase())),
    ("upperAscii", "string_upper_ascii", "string.() -> string", |args| change(args, |text| text.to_ascii_uppercase())),
    ("trim", "string_trim", "string.() -> string", |args| change(args, |text| text.trim_matches(is_space).to_owned())),
    ("strings.quote", "strings_quote", "(string) -> string", |args| change(args, quote)),
    ("replace", "string_replace_string_string", "string.(string, string) -> string", replace),
    ("replace", "string_replace_string_string_int", "string.(string, string, int) -> string", replace),
    ("split", "string_split_string", "string.(string) -> list(string)", split),
    ("split", "string_split_string_int", "string.(string, int) -> list(string)", split),
    ("substring", "string_substring_int", "string.(int) -> string", substring),
    ("substring", "string_substring_int_int", "string.(int, int) -> string", substring),
    ("join", "list_join", "list(string).() -> string", join),
    ("join", "list_join_string", "list(string).(string) -> string", join),
    ("format", "string_format", "string.(list(dyn)) -> string", format),
];

/// What a string made by an expression may at most hold: the cost limit stops most, this stops the rest.
pub const MADE_STRING_LIMIT: usize = 64 * 1024 * 1024;

pub fn too_long<'a>() -> Evaluated<'a> {
    Err(EvalError::failed("string too long"))
}

fn test<'a>(args: &[Value<'a>], test: fn(&str, &str) -> bool) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(test(text, part))),
        _ => mismatch(),
    }
}

fn change<'a>(args: &[Value<'a>], change: fn(&str) -> String) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Ok(change(text).into()),
        _ => mismatch(),
    }
}

/// Go's `unicode.IsSpace`.
fn is_space(character: char) -> bool {
    character.is_whitespace()
}

fn matches<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => Ok(Value::Bool(compile(pattern)?.is_match(text))),
        _ => mismatch(),
    }
}

fn out_of_range<'a>(index: i64) -> Evaluated<'a> {
    Err(EvalError::failed(format!("index out of range: {index}")))
}

fn char_at<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::Int(index)] = args else { return mismatch() };
    let Ok(position) = usize::try_from(*index) else { return out_of_range(*index) };
    match text.chars().nth(position) {
        Some(character) => Ok(Value::string(character)),
        None if text.chars().count() == position => Ok(Value::string("")),
        None => out_of_range(*index),
    }
}

fn index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::String(part), rest @ ..] = args else { return mismatch() };
    let from = rest.first().and_then(Value::as_int).unwrap_or(0);
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let Ok(skipped) = usize::try_from(from) else { return out_of_range(from) };
    let Some((start, _)) = text.char_indices().nth(skipped) else { return Ok(Value::Int(-1)) };
    Ok(Value::Int(text[start..].find(&**part).map_or(-1, |at| from + text[start..start + at].chars().count() as i64)))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::String(part), rest @ ..] = args else { return mismatch() };
    let length = text.chars().count() as i64;
    let from = rest.first().and_then(Value::as_int);
    if part.is_empty() {
        return Ok(Value::Int(from.unwrap_or(length)));
    }
    let latest = match from {
        Some(from) if from < 0 => return out_of_range(from),
        Some(from) if from >= length => return Ok(Value::Int(-1)),
        Some(from) => from,
        None => length,
    };
    let latest = latest.min(length - part.chars().count() as i64);
    let Ok(latest) = usize::try_from(latest) else { return Ok(Value::Int(-1)) };
    let start = text.char_indices().nth(latest).map_or(text.len(), |(at, _)| at);
    // The last occurrence that begins at or before `latest`.
    let end = start + part.len();
    let within = text.get(..end).unwrap_or(text);
    Ok(Value::Int(within.rfind(&**part).map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn replace<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::String(old), Value::String(new), rest @ ..] = args else { return mismatch() };
    let count = rest.first().and_then(Value::as_int).unwrap_or(-1);
    let occurrences = if old.is_empty() { text.len() + 1 } else { text.len() / old.len() };
    if occurrences.saturating_mul(new.len()).saturating_add(text.len()) > MADE_STRING_LIMIT {
        return too_long();
    }
    Ok(match usize::try_from(count) {
        Ok(count) => text.replacen(&**old, new, count),
        Err(_) => text.replace(&**old, new),
    }
    .into())
}

fn split<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::String(separator), rest @ ..] = args else { return mismatch() };
    let limit = rest.first().and_then(Value::as_int).unwrap_or(-1);
    let limit = if limit < 0 { usize::MAX } else { limit as usize };
    let parts: Vec<Value<'a>> = match limit {
        0 => Vec::new(),
        // Go splits into characters, without empty ends.
        _ if separator.is_empty() => {
            let mut parts = Vec::new();
            let mut rest: &str = text;
            while let Some(first) = rest.chars().next() {
                let end = if parts.len() + 1 == limit { rest.len() } else { first.len_utf8() };
                parts.push(Value::string(&rest[..end]));
                rest = &rest[end..];
            }
            parts
        }
        limit => text.splitn(limit, &**separator).map(Value::string).collect(),
    };
    Ok(Value::list(parts))
}

fn substring<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::Int(start), rest @ ..] = args else { return mismatch() };
    let length = text.chars().count() as i64;
    let end = rest.first().and_then(Value::as_int).unwrap_or(length);
    if !rest.is_empty() && *start > end {
        return Err(EvalError::failed(format!("invalid substring range. start: {start}, end: {end}")));
    }
    for index in [*start, end] {
        if !(0..=length).contains(&index) {
            return out_of_range(index);
        }
    }
    Ok(Value::String(Text::Shared(text.chars().skip(*start as usize).take((end - start) as usize).collect::<String>().into())))
}

fn join<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(list), rest @ ..] = args else { return mismatch() };
    let separator = rest.first().and_then(Value::as_str).unwrap_or("");
    let mut out = String::new();
    for (index, item) in list.iter().enumerate() {
        let Value::String(text) = item? else { return Err(EvalError::failed("join: invalid input")) };
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(&text);
        if out.len() > MADE_STRING_LIMIT {
            return too_long();
        }
    }
    Ok(out.into())
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

fn format<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(pattern), Value::List(list)] => Ok(printf::format(pattern, &list.values()?)?.into()),
        _ => mismatch(),
    }
}
