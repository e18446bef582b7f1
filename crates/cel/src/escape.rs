//! Field names of a schema as CEL identifiers: `foo.bar` is `foo__dot__bar`, `namespace` is `__namespace__`. Upstream: apiserver's `escaping.go`.

/// Keywords that an identifier cannot be.
const KEYWORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
pub(crate) fn is_keyword(name: &str) -> bool {
    KEYWORDS.contains(&name)
}

const SEQUENCES: &[(&str, &str)] = &[("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

/// `None`: no identifier can stand for it, and the field stays hidden.
pub fn escape(name: &str) -> Option<String> {
    if KEYWORDS.contains(&name) {
        return Some(format!("__{name}__"));
    }
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        if let Some((plain, escaped)) = SEQUENCES.iter().find(|(plain, _)| rest.starts_with(plain)) {
            out.push_str(escaped);
            rest = &rest[plain.len()..];
        } else if first.is_ascii_alphanumeric() || first == '_' {
            out.push(first);
            rest = &rest[1..];
        } else {
            return None;
        }
    }
    Some(out)
}

/// `None`: no name escapes to it.
pub fn unescape(name: &str) -> Option<String> {
    if let Some(keyword) = KEYWORDS.iter().find(|keyword| name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__")) == Some(**keyword)) {
        return Some((*keyword).to_owned());
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        if let Some((plain, escaped)) = SEQUENCES.iter().find(|(_, escaped)| rest.starts_with(escaped)) {
            out.push_str(plain);
            rest = &rest[escaped.len()..];
        } else if rest.starts_with("__") || !(first.is_ascii_alphanumeric() || first == '_') {
            return None;
        } else {
            out.push(first);
            rest = &rest[1..];
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (name, escaped) in [
            ("a", "a"),
            ("a1", "a1"),
            ("_a", "_a"),
            ("namespace", "__namespace__"),
            ("in", "__in__"),
            ("a.b", "a__dot__b"),
            ("a-b", "a__dash__b"),
            ("a/b", "a__slash__b"),
            ("a__b", "a__underscores__b"),
            ("__dot__", "__underscores__dot__underscores__"),
            ("x.y-z/q", "x__dot__y__dash__z__slash__q"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(escaped));
            assert_eq!(unescape(escaped).as_deref(), Some(name));
        }
        for hidden in ["", "1a", "a b", "a:b", "é", "a\n"] {
            assert_eq!(escape(hidden), None, "{hidden}");
        }
        assert_eq!(unescape("a__what__b"), None);
    }
}
