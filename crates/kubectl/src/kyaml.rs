//! KYAML (KEP-5295): the dialect of YAML that cannot be read in two ways. Braces and brackets instead of indentation, every text quoted, commas at every end.
//!
//! Mirrors sigs.k8s.io/yaml/kyaml, byte for byte.

use std::fmt::Write;

use serde_json::Value;

/// A text of several lines goes on after this: YAML folds it away.
const FOLD: &str = "\\\n";
const INDENT: &str = "  ";

/// A document with the line that begins it.
pub fn emit(value: &Value) -> String {
    let mut out = "---\n".to_owned();
    node(value, 0, &mut out);
    out.push('\n');
    out
}

fn node(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::String(text) => quoted(text, indent + 1, false, out),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        // Structures in a list share their lines with its brackets.
        Value::Array(items) if items.iter().all(|item| item.is_array() || item.is_object()) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                node(item, indent, out);
            }
            out.push(']');
        }
        Value::Array(items) => {
            out.push_str("[\n");
            for item in items {
                out.push_str(&INDENT.repeat(indent + 1));
                node(item, indent + 1, out);
                out.push_str(",\n");
            }
            out.push_str(&INDENT.repeat(indent));
            out.push(']');
        }
        Value::Object(fields) if fields.is_empty() => out.push_str("{}"),
        Value::Object(fields) => {
            out.push_str("{\n");
            for (key, value) in fields {
                out.push_str(&INDENT.repeat(indent + 1));
                if needs_quotes(key) { quoted(key, indent + 1, true, out) } else { out.push_str(key) }
                out.push_str(": ");
                node(value, indent + 1, out);
                out.push_str(",\n");
            }
            out.push_str(&INDENT.repeat(indent));
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

fn quoted(text: &str, indent: usize, compact: bool, out: &mut String) {
    let folded = !compact && text.contains('\n');
    out.push('"');
    if folded {
        out.push_str(FOLD);
    }
    for character in text.chars() {
        if out.ends_with('\n') {
            out.push_str(&INDENT.repeat(indent));
            // White space at the beginning of a line counts only when it is escaped.
            out.push(if character.is_whitespace() && character != '\n' { '\\' } else { ' ' });
        }
        match character {
            '\n' if compact => out.push_str("\\n"),
            '\n' => {
                out.push_str("\\n");
                out.push_str(FOLD);
            }
            '\t' if compact => out.push_str("\\t"),
            '\t' => out.push('\t'),
            '"' | '\\' => out.extend(['\\', character]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\u{b}' => out.push_str("\\v"),
            '\0' => out.push_str("\\0"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{a0}' => out.push_str("\\_"),
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            // Writing into memory cannot fail.
            control if control < ' ' || control == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", control as u32);
            }
            // Go's IsPrint takes no space but the plain one, and nothing that only formats.
            hidden if hidden.is_control() || hidden.is_whitespace() && hidden != ' ' || FORMATTING.iter().any(|range| range.contains(&hidden)) => {
                let code = hidden as u32;
                let _ = if code < 0x10000 { write!(out, "\\u{code:04x}") } else { write!(out, "\\U{code:08x}") };
            }
            plain => out.push(plain),
        }
    }
    if folded {
        if !out.ends_with('\n') {
            out.push_str(FOLD);
        }
        out.push_str(&INDENT.repeat(indent));
    }
    out.push('"');
}

/// Characters of Unicode's Cf, and what is for private use.
const FORMATTING: [std::ops::RangeInclusive<char>; 7] =
    ['\u{ad}'..='\u{ad}', '\u{200b}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{2060}'..='\u{206f}', '\u{e000}'..='\u{f8ff}', '\u{feff}'..='\u{feff}', '\u{e0000}'..='\u{10ffff}'];

/// Keys stand bare where no reader of YAML takes them for anything but a text.
fn needs_quotes(key: &str) -> bool {
    let last = key.chars().count().saturating_sub(1);
    let plain = |(at, character): (usize, char)| character.is_alphanumeric() || character == '_' || (at > 0 && at < last && matches!(character, '-' | '.' | '/'));
    key.is_empty() || ambiguous(key) || !key.chars().enumerate().all(plain)
}

fn ambiguous(key: &str) -> bool {
    let lower = key.to_lowercase();
    if ["null", "~", "t", "f", "true", "y", "yes", "on", "false", "n", "no", "off", ".inf", "-.inf", "+.inf", ".nan"].contains(&lower.as_str()) {
        return true;
    }
    let digits = lower.replace('_', "");
    let unsigned = digits.trim_start_matches(['+', '-']);
    let based = [("0x", 16), ("0b", 2), ("0o", 8), ("0", 8)].iter().any(|(prefix, radix)| unsigned.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && u64::from_str_radix(rest, *radix).is_ok()));
    // Go's ParseFloat takes the same words as Rust's: decimal, scientific, inf, infinity, nan; and hexadecimal with an exponent.
    let hexadecimal = unsigned.starts_with("0x") && unsigned.contains('p');
    // 2001-12-14: four digits and a hyphen begin a moment.
    let mut parts = key.splitn(3, '-');
    let numeric = |part: Option<&str>, most: usize| part.is_some_and(|part| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()));
    let date = key.as_bytes().get(4) == Some(&b'-') && numeric(parts.next(), 4) && numeric(parts.next(), 2) && parts.next().is_some_and(|day| day.split(['T', 't', ' ']).next().is_some_and(|day| numeric(Some(day), 2)));
    based || digits.parse::<f64>().is_ok() || hexadecimal || date
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_upstream_writes_it() {
        let object = json!({
            "kind": "X", "no": true, "app.kubernetes.io/name": "a\"b", "1e3": null, "key": "", "-a": 1.5, "012": {}, "a b": [],
            "items": [{"a": 1}, {"b": ["x", {"c": "d"}]}], "lines": "one\n  two\n\tthree\n", "open": "a\nb\u{1}",
        });
        let want = "---\n{\n  \"-a\": 1.5,\n  \"012\": {},\n  \"1e3\": null,\n  \"a b\": [],\n  app.kubernetes.io/name: \"a\\\"b\",\n  items: [{\n    a: 1,\n  }, {\n    b: [\n      \"x\",\n      {\n        c: \"d\",\n      },\n    ],\n  }],\n  key: \"\",\n  kind: \"X\",\n  lines: \"\\\n     one\\n\\\n    \\  two\\n\\\n    \\\tthree\\n\\\n    \",\n  \"no\": true,\n  open: \"\\\n     a\\n\\\n     b\\x01\\\n    \",\n}\n";
        assert_eq!(emit(&object), want);
    }
}
