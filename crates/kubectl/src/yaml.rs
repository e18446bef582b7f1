//! YAML as sigs.k8s.io/yaml writes and reads it (go-yaml v2 over JSON): sorted keys, lists not indented under their key, quotes only where a bare word would be read as
//! something else, long texts as blocks.

use serde_json::Value;

/// One document without a `---`.
pub fn emit(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn mapping(out: &mut String, value: &Value, depth: usize) {
    let Value::Object(map) = value else { return };
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_by(|a, b| natural(a, b));
    for (at, key) in keys.into_iter().enumerate() {
        if at > 0 {
            indent(out, depth);
        }
        string(out, key, depth, true);
        out.push(':');
        entry(out, &map[key], depth);
    }
}

/// What stands after `key:`.
fn entry(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            indent(out, depth + 1);
            mapping(out, value, depth + 1);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            indent(out, depth);
            sequence(out, items, depth);
        }
        other => {
            out.push(' ');
            scalar(out, other, depth + 1);
            out.push('\n');
        }
    }
}

fn sequence(out: &mut String, items: &[Value], depth: usize) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(out, item, depth + 1),
            Value::Array(items) if !items.is_empty() => sequence(out, items, depth + 1),
            other => {
                scalar(out, other, depth + 1);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => string(out, text, depth, false),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// go-yaml's order of keys: letters before what is none is not its rule, digits by their number is.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (ar, br): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut i = 0;
    while i < ar.len() && i < br.len() {
        let (x, y) = (ar[i], br[i]);
        if x == y {
            i += 1;
            continue;
        }
        let (xl, yl) = (x.is_alphabetic(), y.is_alphabetic());
        if xl && yl {
            return x.cmp(&y);
        }
        if xl || yl {
            return if xl { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less };
        }
        let number = |text: &[char]| -> (usize, u64) {
            let mut length = 0;
            let mut value = 0_u64;
            while let Some(digit) = text.get(length).and_then(|c| c.to_digit(10)) {
                value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
                length += 1;
            }
            (length, value)
        };
        let ((al, an), (bl, bn)) = (number(&ar[i..]), number(&br[i..]));
        if an != bn {
            return an.cmp(&bn);
        }
        if al != bl {
            return al.cmp(&bl);
        }
        return x.cmp(&y);
    }
    ar.len().cmp(&br.len())
}

fn string(out: &mut String, text: &str, depth: usize, key: bool) {
    if !key && text.contains('\n') && block_allowed(text) {
        block(out, text, depth);
    } else if reads_as_other(text) {
        double_quoted(out, text);
    } else if plain_allowed(text) {
        out.push_str(text);
    } else if text.chars().any(|c| !printable(c) || c == '\n' || c == '\t' && false) || space_break(text) {
        double_quoted(out, text);
    } else {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    }
}

fn printable(c: char) -> bool {
    // A tab is none, for go-yaml.
    matches!(c, '\n' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..) && c != '\u{feff}'
}

fn space_break(text: &str) -> bool {
    text.contains(" \n") || text.contains('\t') && text.contains('\n')
}

fn block_allowed(text: &str) -> bool {
    text.chars().all(printable) && !text.contains('\r') && !text.lines().any(|line| line.ends_with(' '))
}

fn block(out: &mut String, text: &str, depth: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    let body = match text.strip_suffix('\n') {
        None => {
            out.push('-');
            text
        }
        Some(body) if body.ends_with('\n') || body.is_empty() => {
            out.push('+');
            body
        }
        Some(body) => body,
    };
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
    }
}

fn double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            '\x1b' => out.push_str("\\e"),
            c if printable(c) => out.push(c),
            c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02X}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push_str(&format!("\\U{:08X}", c as u32)),
        }
    }
    out.push('"');
}

/// Would a reader take the bare word for a boolean, a number, null or a time?
fn reads_as_other(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    matches!(
        text,
        "y" | "Y" | "yes" | "Yes" | "YES" | "n" | "N" | "no" | "No" | "NO" | "true" | "True" | "TRUE" | "false" | "False" | "FALSE" | "on" | "On" | "ON" | "off" | "Off" | "OFF" | "~" | "null" | "Null" | "NULL" | "<<"
            | ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF"
    ) || number(text)
        || sexagesimal(text)
        || timestamp(text)
}

fn number(text: &str) -> bool {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return false;
    }
    let bare = text.replace('_', "");
    let unsigned = bare.strip_prefix(['+', '-']).unwrap_or(&bare);
    let radix = |prefix: &str, radix| unsigned.strip_prefix(prefix).is_some_and(|digits| u64::from_str_radix(digits, radix).is_ok());
    if radix("0x", 16) || radix("0X", 16) || radix("0b", 2) || radix("0o", 8) {
        return true;
    }
    let float = |text: &str| {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text, None),
        };
        let digits = mantissa.chars().filter(char::is_ascii_digit).count();
        let exponent_good = exponent.is_none_or(|exponent| {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !exponent.is_empty() && exponent.chars().all(|c| c.is_ascii_digit())
        });
        digits > 0 && digits + mantissa.matches('.').count() == mantissa.len() && mantissa.matches('.').count() <= 1 && exponent_good
    };
    float(unsigned)
}

/// YAML 1.1's base 60: `12:30`.
fn sexagesimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = unsigned.split(':');
    let first = parts.next().unwrap_or("");
    let mut count = 0;
    let good = !first.is_empty() && first.starts_with(|c: char| c.is_ascii_digit()) && first.chars().all(|c| c.is_ascii_digit() || c == '_');
    let rest = parts.all(|part| {
        count += 1;
        let whole = part.split('.').next().unwrap_or("");
        (1..=2).contains(&whole.len()) && whole.parse::<u8>().is_ok_and(|value| value < 60) && part[whole.len()..].chars().all(|c| c.is_ascii_digit() || c == '.' || c == '_')
    });
    good && rest && count > 0
}

fn timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits == 4 && bytes.get(4) == Some(&b'-') && (text.parse::<jiff::Timestamp>().is_ok() || text.len() <= 10 && text.parse::<jiff::civil::Date>().is_ok())
}

/// May the text stand without quotes in a block (libyaml's analysis)?
fn plain_allowed(text: &str) -> bool {
    if text.starts_with("---") || text.starts_with("...") || text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) {
        return false;
    }
    let characters: Vec<char> = text.chars().collect();
    for (at, c) in characters.iter().enumerate() {
        let followed_by_space = characters.get(at + 1).is_none_or(|next| matches!(next, ' ' | '\t' | '\n'));
        let bad = match c {
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' if at == 0 => true,
            '?' | '-' if at == 0 => followed_by_space,
            ':' => followed_by_space,
            '#' => matches!(characters[at - 1], ' ' | '\t'),
            '\n' => true,
            c => !printable(*c),
        };
        if bad {
            return false;
        }
    }
    true
}

/// Any document, YAML or JSON, as JSON.
pub fn parse(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// The same with `true` and `false` as the only booleans: YAML 1.2, which kustomize reads resources with.
pub fn parse_core(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// The documents of a file, each with what it says.
pub fn documents(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.starts_with("---") && line[3..].trim_end().chars().next().is_none_or(|c| matches!(c, ' ' | '\t' | '#')) {
            found.push(&text[start..at]);
            start = at + line.len();
        }
        at += line.len();
    }
    found.push(&text[start..]);
    found.retain(|document| document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_go_writes_it() {
        let value = json!({"kind": "Pod", "spec": {"containers": [{"args": ["-c", "a\nb\n"], "name": "x", "resources": {}}], "list": [], "nested": [[1, 2]]}, "a10": 1, "a9": 2});
        assert_eq!(
            emit(&value),
            "a9: 2\na10: 1\nkind: Pod\nspec:\n  containers:\n  - args:\n    - -c\n    - |\n      a\n      b\n    name: x\n    resources: {}\n  list: []\n  nested:\n  - - 1\n    - 2\n"
        );
    }

    #[test]
    fn quotes_where_a_bare_word_would_be_something_else() {
        for (text, want) in [
            ("yes", "\"yes\""), ("123", "\"123\""), ("", "\"\""), ("1e3", "\"1e3\""), ("0x1f", "\"0x1f\""), ("12:30", "\"12:30\""), ("2024-07-03T02:40:00Z", "\"2024-07-03T02:40:00Z\""), ("null", "\"null\""),
            ("plain", "plain"), ("100m", "100m"), ("a: b", "'a: b'"), ("a:b", "a:b"), ("*/1 * * * *", "'*/1 * * * *'"), ("- x", "'- x'"), ("-x", "-x"), ("a #b", "'a #b'"), ("it's", "it's"), ("'q", "'''q'"),
            ("{}", "'{}'"), ("10.96.0.1", "10.96.0.1"), ("v1.36.0", "v1.36.0"), ("a\tb", "\"a\\tb\""), (" lead", "' lead'"), ("é", "é"), ("1.5", "\"1.5\""), ("1_000", "\"1_000\""), ("1.2.3", "1.2.3"), ("=", "="), ("\u{7}", "\"\\x07\""),
        ] {
            assert_eq!(emit(&json!({"k": text})), format!("k: {want}\n"), "{text:?}");
        }
        assert_eq!(emit(&json!({"k": "a\nb"})), "k: |-\n  a\n  b\n");
        assert_eq!(emit(&json!({"y": "a\n\nb\n\n"})), "\"y\": |+\n  a\n\n  b\n\n");
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in ["yes", "1e3", "a: b", "x\n  y\n", "\n", " \n", "a\n\n", "no\t#", "0o17", "\u{7}\n", "@x", "12:30:45", "a ", "line \nline", "- a", "~"] {
            let value = json!({"k": text, "list": [text]});
            assert_eq!(parse(&emit(&value)), Ok(value.clone()), "{}", emit(&value));
        }
    }

    #[test]
    fn files_hold_documents() {
        assert_eq!(documents("# c\n---\na: 1\n---\n---\n# only\n--- # x\nb: |\n  --- no\n"), ["a: 1\n", "b: |\n  --- no\n"]);
        assert!(documents("").is_empty());
    }
}
