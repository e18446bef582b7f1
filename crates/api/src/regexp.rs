//! Regular expressions as Go's RE2 reads them, on the `regex` crate, which is a close relative.
//!
//! What differs is rewritten: `\d`, `\w`, `\s` and `\b` are ASCII in Go, a `[` inside a class and a `{` that begins no repetition are themselves, and `&&`, `--`, `~~`
//! mean nothing in a class. <https://pkg.go.dev/regexp/syntax>

use regex::{Regex, RegexBuilder};

/// What one expression may take in memory once it is compiled.
const COMPILED_BYTES_MAX: usize = 8 << 20;

/// Err: why it is none, after `error parsing regexp: ` as Go says it, as well as we know.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern);
    RegexBuilder::new(&translated).size_limit(COMPILED_BYTES_MAX).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "error parsing regexp: expression too large".to_owned(),
        error => format!("error parsing regexp: {}", why(pattern, &error.to_string())),
    })
}

/// The mistakes people make, in Go's words.
fn why(pattern: &str, error: &str) -> String {
    let last = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
    match last {
        text if text.starts_with("unclosed group") => format!("missing closing ): `{pattern}`"),
        text if text.starts_with("unopened group") => format!("unexpected ): `{pattern}`"),
        text if text.starts_with("unclosed character class") => format!("missing closing ]: `{}`", pattern.find('[').map_or(pattern, |at| &pattern[at..])),
        text if text.starts_with("repetition operator missing expression") => {
            let operator = pattern.chars().find(|c| matches!(c, '*' | '+' | '?')).unwrap_or('*');
            format!("missing argument to repetition operator: `{operator}`")
        }
        text if text.starts_with("look-around") => "invalid or unsupported Perl syntax: `(?`".to_owned(),
        text => text.to_owned(),
    }
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let chars: Vec<char> = pattern.chars().collect();
    let mut at = 0;
    // Inside a class: how many characters of it were seen.
    let mut class: Option<usize> = None;
    while at < chars.len() {
        let c = chars[at];
        match (c, class) {
            ('\\', _) => {
                let next = chars.get(at + 1).copied();
                at += 2;
                match (next, class) {
                    (Some('Q'), None) => {
                        while at < chars.len() && !(chars[at] == '\\' && chars.get(at + 1) == Some(&'E')) {
                            out.push_str(&regex::escape(&chars[at].to_string()));
                            at += 1;
                        }
                        at += 2;
                    }
                    (Some('d'), None) => out.push_str("[0-9]"),
                    (Some('D'), None) => out.push_str("[^0-9]"),
                    (Some('w'), None) => out.push_str("[0-9A-Za-z_]"),
                    (Some('W'), None) => out.push_str("[^0-9A-Za-z_]"),
                    (Some('s'), None) => out.push_str("[\\t\\n\\f\\r ]"),
                    (Some('S'), None) => out.push_str("[^\\t\\n\\f\\r ]"),
                    (Some('b'), None) => out.push_str("(?-u:\\b)"),
                    (Some('B'), None) => out.push_str("(?-u:\\B)"),
                    (Some('d'), Some(_)) => out.push_str("0-9"),
                    (Some('w'), Some(_)) => out.push_str("0-9A-Za-z_"),
                    (Some('s'), Some(_)) => out.push_str("\\t\\n\\f\\r "),
                    (Some('D'), Some(_)) => out.push_str("[^0-9]"),
                    (Some('W'), Some(_)) => out.push_str("[^0-9A-Za-z_]"),
                    (Some('S'), Some(_)) => out.push_str("[^\\t\\n\\f\\r ]"),
                    // Go lets any punctuation be escaped, needed or not.
                    (Some(other), _) if other.is_ascii_punctuation() => out.push_str(&regex::escape(&other.to_string())),
                    (Some(other), _) => {
                        out.push('\\');
                        out.push(other);
                        // `\p{Greek}`, `\x{10FFFF}`
                        if matches!(other, 'p' | 'P' | 'x')
                            && chars.get(at) == Some(&'{')
                            && let Some(end) = chars[at..].iter().position(|c| *c == '}')
                        {
                            out.extend(&chars[at..=at + end]);
                            at += end + 1;
                        }
                    }
                    (None, _) => out.push('\\'),
                }
                class = class.map(|seen| seen + 1);
                continue;
            }
            ('[', None) => {
                out.push('[');
                class = Some(0);
                if chars.get(at + 1) == Some(&'^') {
                    out.push('^');
                    at += 1;
                }
            }
            (']', Some(0)) => {
                out.push_str("\\]");
                class = Some(1);
            }
            (']', Some(_)) => {
                out.push(']');
                class = None;
            }
            ('[', Some(seen)) => {
                let named = (chars.get(at + 1) == Some(&':')).then(|| chars[at..].windows(2).position(|pair| pair == [':', ']'])).flatten();
                match named {
                    Some(length) => {
                        out.extend(&chars[at..at + length + 2]);
                        at += length + 1;
                    }
                    None => out.push_str("\\["),
                }
                class = Some(seen + 1);
            }
            ('&' | '~', Some(seen)) => {
                out.push('\\');
                out.push(c);
                class = Some(seen + 1);
            }
            ('-', Some(seen)) if chars.get(at + 1) == Some(&'-') => {
                out.push_str("\\-");
                class = Some(seen + 1);
            }
            ('{', None) if !repeats(&chars[at..]) => out.push_str("\\{"),
            ('}', None) if !closes(&chars[..at]) => out.push_str("\\}"),
            _ => {
                out.push(c);
                class = class.map(|seen| seen + 1);
            }
        }
        at += 1;
    }
    out
}

/// `{2}`, `{2,}`, `{2,5}`
fn repeats(rest: &[char]) -> bool {
    let Some(end) = rest.iter().position(|c| *c == '}') else { return false };
    let inside: String = rest[1..end].iter().collect();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        None => number(&inside),
        Some((least, most)) => number(least) && (most.is_empty() || number(most)),
    }
}

/// Whether a `}` here ends a repetition.
fn closes(before: &[char]) -> bool {
    let Some(open) = before.iter().rposition(|c| *c == '{') else { return false };
    let mut whole: Vec<char> = before[open..].to_vec();
    whole.push('}');
    repeats(&whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_reads_them() {
        for (pattern, text, wanted) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "१२", false),
            (r"^[\w-]+$", "a-b_1", true),
            (r"^[a[]+$", "a[", true),
            (r"^[]a]+$", "]a", true),
            (r"^a{$", "a{", true),
            (r"^a{2}$", "aa", true),
            (r"^[a&&b]+$", "&b", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\p{L}+$", "äb", true),
            (r"^(25[0-5]|2[0-4][0-9])\.\/$", "250./", true),
            (r"\bx\b", "a x b", true),
            (r"^.{0,253}$", "x", true),
            (r"^[^\s]+$", "ab c", false),
            (r"(?i)^ABC$", "abc", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn refusals() {
        for (pattern, wanted) in [("(a", "error parsing regexp: missing closing ): `(a`"), ("[a", "error parsing regexp: missing closing ]: `[a`"), ("*", "error parsing regexp: missing argument to repetition operator: `*`"), ("(?=a)", "error parsing regexp: invalid or unsupported Perl syntax: `(?`")] {
            assert_eq!(compile(pattern).unwrap_err(), wanted);
        }
    }
}
