//! Kubernetes' semantic versions, as blang/semver reads them.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Row, mismatch};
use crate::error::EvalError;
use crate::value::{Evaluated, Value};

#[derive(Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre_release: Vec<Identifier>,
}

#[derive(Debug, PartialEq, Eq)]
enum Identifier {
    Number(u64),
    Text(String),
}

pub const TABLE: &[Row] = &[
    ("semver", "string_to_semver", "(string) -> semver", read),
    ("semver", "string_bool_to_semver", "(string, bool) -> semver", read),
    ("isSemver", "is_semver_string", "(string) -> bool", is_semver),
    ("isSemver", "is_semver_string_bool", "(string, bool) -> bool", is_semver),
    ("major", "semver_major", "semver.() -> int", |args| number(args, 0)),
    ("minor", "semver_minor", "semver.() -> int", |args| number(args, 1)),
    ("patch", "semver_patch", "semver.() -> int", |args| number(args, 2)),
    ("isGreaterThan", "semver_is_greater_than", "semver.(semver) -> bool", |args| two(args, |order| Value::Bool(order == Ordering::Greater))),
    ("isLessThan", "semver_is_less_than", "semver.(semver) -> bool", |args| two(args, |order| Value::Bool(order == Ordering::Less))),
    ("compareTo", "semver_compare_to", "semver.(semver) -> int", |args| two(args, |order| Value::Int(order as i64))),
];

fn parsed(args: &[Value<'_>]) -> Result<Result<Semver, String>, EvalError> {
    let Some(Value::String(text)) = args.first() else { return Err(EvalError::no_such_overload()) };
    let normalise = args.get(1).and_then(Value::as_bool).unwrap_or(false);
    Ok(if normalise { normalised(text).and_then(|text| Semver::parse(&text)) } else { Semver::parse(text) })
}

fn read<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    parsed(args)?.map(|version| Value::Semver(Arc::new(version))).map_err(EvalError::failed)
}

fn is_semver<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Bool(parsed(args)?.is_ok()))
}

fn number<'a>(args: &[Value<'a>], which: usize) -> Evaluated<'a> {
    match args {
        [Value::Semver(version)] => Ok(Value::Int(version.numbers[which] as i64)),
        _ => mismatch(),
    }
}

fn two<'a>(args: &[Value<'a>], read: fn(Ordering) -> Value<'static>) -> Evaluated<'a> {
    match args {
        [Value::Semver(one), Value::Semver(other)] => Ok(read((**one).cmp(other))),
        _ => mismatch(),
    }
}

/// `v1.02` becomes `1.2.0`.
fn normalised(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            if part.len() < 2 {
                return part.to_owned();
            }
            let trimmed = part.trim_start_matches('0');
            if trimmed.starts_with(|character: char| character.is_ascii_digit()) { trimmed.to_owned() } else { format!("0{trimmed}") }
        })
        .collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".to_owned());
    }
    parts.resize(3, "0".to_owned());
    Ok(parts.join("."))
}

impl Semver {
    fn parse(text: &str) -> Result<Semver, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts[..] else { return Err("No Major.Minor.Patch elements found".to_owned()) };
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (patch, pre_release) = match rest.split_once('-') {
            Some((patch, pre_release)) => (patch, Some(pre_release)),
            None => (rest, None),
        };
        let numbers = [component(major, "Major")?, component(minor, "Minor")?, component(patch, "Patch")?];
        let pre_release = pre_release.map(|text| text.split('.').map(identifier).collect()).unwrap_or(Ok(Vec::new()))?;
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return Err("Build meta data is empty".to_owned());
            }
            if !part.bytes().all(is_identifier_byte) {
                return Err(format!("Invalid character(s) found in build meta data {part:?}"));
            }
        }
        Ok(Semver { numbers, pre_release })
    }
}

fn is_identifier_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn component(text: &str, name: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {} number {text:?}", name.to_lowercase()));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{name} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("{name} number out of range {text:?}"))
}

fn identifier(text: &str) -> Result<Identifier, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        return text.parse().map(Identifier::Number).map_err(|_| format!("PreRelease number out of range {text:?}"));
    }
    if !text.bytes().all(is_identifier_byte) {
        return Err(format!("Invalid character(s) found in prerelease {text:?}"));
    }
    Ok(Identifier::Text(text.to_owned()))
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Semver {}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Build metadata does not count; a pre-release comes before its release.
impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre_release.is_empty(), other.pre_release.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre_release.cmp(&other.pre_release),
        })
    }
}

impl PartialOrd for Identifier {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Identifier {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Identifier::Number(one), Identifier::Number(other)) => one.cmp(other),
            (Identifier::Number(_), Identifier::Text(_)) => Ordering::Less,
            (Identifier::Text(_), Identifier::Number(_)) => Ordering::Greater,
            (Identifier::Text(one), Identifier::Text(other)) => one.cmp(other),
        }
    }
}
