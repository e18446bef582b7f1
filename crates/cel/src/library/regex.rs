//! Kubernetes' regex library, and the compilation of patterns for it and for `matches`.

use ::regex::{Regex, RegexBuilder};

use super::{Row, mismatch, re2};
use crate::error::EvalError;
use crate::value::{Evaluated, Value};

pub const TABLE: &[Row] = &[
    ("find", "string_find_string", "string.(string) -> string", find),
    ("findAll", "string_find_all_string", "string.(string) -> list(string)", find_all),
    ("findAll", "string_find_all_string_int", "string.(string, int) -> list(string)", find_all),
];

/// The automaton of one pattern.
const SIZE_LIMIT: usize = 4 * 1024 * 1024;

pub fn compile(pattern: &str) -> Result<Regex, EvalError> {
    let illegal = |message: String| EvalError::failed(format!("error parsing regexp: {message}: `{pattern}`"));
    let translated = re2::translate(pattern).map_err(illegal)?;
    RegexBuilder::new(&translated).size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT).nest_limit(200).build().map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        // Go's words for the frequent ones.
        illegal(match reason {
            "unopened group" => "unexpected )".to_owned(),
            "unclosed group" => "missing closing )".to_owned(),
            "unclosed character class" => "missing closing ]".to_owned(),
            "repetition operator missing expression" => "missing argument to repetition operator".to_owned(),
            other => other.to_owned(),
        })
    })
}

fn find<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => found(text, &compile(pattern)?),
        _ => mismatch(),
    }
}

fn find_all<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(pattern), rest @ ..] => all_found(text, &compile(pattern)?, rest.first().and_then(Value::as_int)),
        _ => mismatch(),
    }
}

pub fn found<'a>(text: &str, regex: &Regex) -> Evaluated<'a> {
    Ok(Value::string(regex.find(text).map_or("", |found| found.as_str())))
}

pub fn all_found<'a>(text: &str, regex: &Regex, limit: Option<i64>) -> Evaluated<'a> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    Ok(Value::list(regex.find_iter(text).take(limit).map(|found| Value::string(found.as_str())).collect()))
}
