//! Label and field selectors: parsing with upstream's words, matching, printing.
//!
//! Grammar and texts as k8s.io/apimachinery/pkg/labels and pkg/fields. [`LabelSelector`] also reads the JSON form
//! (`matchLabels`, `matchExpressions`) and plain maps (Service, ReplicationController).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::names;

/// Anything labels can be read from.
pub trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

/// The labels object itself; null or absent labels are none.
impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted and unique.
    pub values: Vec<String>,
}

impl Requirement {
    fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, String> {
        let mut errors = Vec::new();
        if let Some(error) = bad_key("key", key) {
            errors.push(error);
        }
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
            for (index, value) in values.iter().enumerate().filter(|(_, value)| value.parse::<i64>().is_err()) {
                errors.push(format!("values[{index}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"));
            }
        }
        if values.is_empty() && matches!(operator, Operator::In | Operator::NotIn) {
            errors.push("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned());
        }
        for (index, value) in values.iter().enumerate() {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                errors.push(format!("values[{index}][{key}]: Invalid value: {value:?}: {}", wrong.join("; ")));
            }
        }
        match errors.as_slice() {
            [] => Ok(Self { key: key.to_owned(), operator, values }),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.label(&self.key);
        let listed = |value: &str| self.values.iter().any(|one| one == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let (Some(have), Some(limit)) = (value.and_then(|v| v.parse::<i64>().ok()), self.values.first().and_then(|v| v.parse::<i64>().ok())) else {
                    return false;
                };
                if self.operator == Operator::GreaterThan { have > limit } else { have < limit }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

fn bad_key(path: &str, key: &str) -> Option<String> {
    let wrong = names::qualified_name(key);
    (!wrong.is_empty()).then(|| format!("{path}: Invalid value: {key:?}: {}", wrong.join("; ")))
}

/// All requirements must hold; none means everything matches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object (upstream's meaning of a nil `metav1.LabelSelector`).
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// `app=web,tier in (a,b),!legacy`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Parser { items: scan(text), at: 0 }.parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// `metav1.LabelSelector`: null matches nothing, `{}` everything.
    pub fn from_json(selector: &Value) -> Result<Self, String> {
        let Some(map) = selector.as_object() else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        if let Some(labels) = map.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                requirements.push(Requirement::new(key, Operator::Equals, vec![value.as_str().unwrap_or_default().to_owned()])?);
            }
        }
        for expression in map.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
            let operator = match expression.get("operator").and_then(Value::as_str).unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let values: BTreeSet<String> = expression.get("values").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement::new(key, operator, values.into_iter().collect())?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// A plain map of labels, not checked; `{}` matches everything.
    pub fn from_map(labels: &Map<String, Value>) -> Self {
        let requirement = |(key, value): (&String, &Value)| Requirement { key: key.clone(), operator: Operator::Equals, values: vec![value.as_str().unwrap_or_default().to_owned()] };
        Self { requirements: labels.iter().map(requirement).collect(), nothing: false }
    }

    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Bad,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn token(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_special(ch: char) -> bool {
    matches!(ch, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(ch: char) -> bool {
    matches!(ch, ' ' | '\t' | '\r' | '\n')
}

/// Symbols are read greedily (`!=` before `!`); the list always ends with `End`.
fn scan(text: &str) -> Vec<(Token, String)> {
    let mut items = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(is_space);
        let Some(first) = rest.chars().next().filter(|ch| *ch != '\0') else { break };
        let length = if is_special(first) {
            let pair = rest.char_indices().nth(1).map_or(rest.len(), |(at, ch)| at + ch.len_utf8());
            if token(&rest[..pair]).is_some() { pair } else { first.len_utf8() }
        } else {
            rest.find(|ch| is_special(ch) || is_space(ch) || ch == '\0').unwrap_or(rest.len())
        };
        let (literal, after) = rest.split_at(length);
        let kind = token(literal).unwrap_or(if is_special(first) { Token::Bad } else { Token::Identifier });
        items.push((kind, literal.to_owned()));
        rest = after;
    }
    items.push((Token::End, String::new()));
    items
}

struct Parser {
    items: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    /// Past the end there is only the end. Where a value is expected, `in` and `notin` are plain words.
    fn peek(&self, values: bool) -> (Token, String) {
        let (kind, literal) = self.items.get(self.at).cloned().unwrap_or((Token::End, String::new()));
        (if values && matches!(kind, Token::In | Token::NotIn) { Token::Identifier } else { kind }, literal)
    }

    fn next(&mut self, values: bool) -> (Token, String) {
        let item = self.peek(values);
        self.at += 1;
        item
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek(true) {
                (Token::Identifier | Token::Not, _) => {
                    requirements.push(self.requirement().map_err(|error| format!("unable to parse requirement: {error}"))?);
                    match self.next(true) {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => {
                            let (kind, literal) = self.peek(true);
                            if !matches!(kind, Token::Identifier | Token::Not) {
                                return Err(format!("found '{literal}', expected: identifier after ','"));
                            }
                        }
                        (_, literal) => return Err(format!("found '{literal}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, literal) => return Err(format!("found '{literal}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut kind, mut literal) = self.next(true);
        let negated = kind == Token::Not;
        if negated {
            (kind, literal) = self.next(true);
        }
        if kind != Token::Identifier {
            return Err(format!("found '{literal}', expected: identifier"));
        }
        let key = literal;
        // Upstream has no path here and prints a nil one.
        if let Some(error) = bad_key("<nil>", &key) {
            return Err(error);
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(true).0, Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let operator = match self.next(false) {
            (Token::In, _) => Operator::In,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::NotEquals, _) => Operator::NotEquals,
            (_, literal) => return Err(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = if matches!(operator, Operator::In | Operator::NotIn) { self.value_list()? } else { self.exact_value()? };
        Requirement::new(&key, operator, values.into_iter().collect())
    }

    fn value_list(&mut self) -> Result<BTreeSet<String>, String> {
        let (kind, literal) = self.next(true);
        if kind != Token::Open {
            return Err(format!("found '{literal}' expected: '('"));
        }
        let mut values = BTreeSet::new();
        match self.peek(true) {
            (Token::Close, _) => {
                self.at += 1;
                values.insert(String::new());
                return Ok(values);
            }
            (Token::Identifier | Token::Comma, _) => {}
            (_, literal) => return Err(format!("found '{literal}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.next(true) {
                (Token::Identifier, literal) => {
                    values.insert(literal);
                    match self.peek(true) {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, literal) => return Err(format!("found '{literal}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    let after = self.peek(true).0;
                    if values.is_empty() || matches!(after, Token::Close | Token::Comma) {
                        values.insert(String::new());
                    }
                    if after == Token::Close {
                        break;
                    }
                }
                (_, literal) => return Err(format!("found '{literal}', expected: ',', or identifier")),
            }
        }
        self.at += 1;
        Ok(values)
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.peek(true).0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next(true) {
            (Token::Identifier, literal) => Ok(BTreeSet::from([literal])),
            (_, literal) => Err(format!("found '{literal}', expected: identifier")),
        }
    }
}

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub value: String,
    /// `!=`.
    pub negated: bool,
}

/// `metadata.name=web,status.phase!=Running`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let Some(at) = part.find(['=', '!']).and_then(|from| operator_at(part, from)) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
            };
            let (start, length, negated) = at;
            let value = unescape(&part[start + length..])?;
            // An empty value asks for nothing: upstream's andTerm drops no such term, and neither do we.
            terms.push(FieldTerm { field: part[..start].to_owned(), value, negated });
        }
        Ok(Self { terms })
    }

    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// `value_of` gives the value of a field, the empty string for one that is not set.
    pub fn matches(&self, mut value_of: impl FnMut(&str) -> String) -> bool {
        self.terms.iter().all(|term| (value_of(&term.field) == term.value) != term.negated)
    }

    /// The value a field must have, if an `=` term says so.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.field == field && !term.negated).map(|term| term.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let value = term.value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
            write!(f, "{comma}{}{}{value}", term.field, if term.negated { "!=" } else { "=" })?;
        }
        Ok(())
    }
}

/// At commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, ch) in text.char_indices() {
        match ch {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// The first `!=`, `==` or `=` from `from` on: where, how long, negated.
fn operator_at(part: &str, from: usize) -> Option<(usize, usize, bool)> {
    part[from..].char_indices().find_map(|(at, _)| {
        let rest = &part[from + at..];
        let (length, negated) = if rest.starts_with("!=") {
            (2, true)
        } else if rest.starts_with("==") {
            (2, false)
        } else if rest.starts_with('=') {
            (1, false)
        } else {
            return None;
        };
        Some((from + at, length, negated))
    })
}

fn unescape(text: &str) -> Result<String, String> {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                other => return Err(format!("invalid field selector: invalid escape sequence: \\{}", other.map(String::from).unwrap_or_default())),
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(ch))),
            _ => value.push(ch),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors() {
        let labels = json!({"app": "web", "tier": "a", "n": "5"});
        let cases = [
            ("", true, ""),
            ("app=web", true, "app=web"),
            ("app==web", true, "app==web"),
            ("app = web , tier=b", false, "app=web,tier=b"),
            ("tier in (b,a)", true, "tier in (a,b)"),
            ("tier notin (a)", false, "tier notin (a)"),
            ("other notin (a)", true, "other notin (a)"),
            ("app", true, "app"),
            ("!app", false, "!app"),
            ("!x,app!=y", true, "app!=y,!x"),
            ("n>4,n<6", true, "n>4,n<6"),
            ("in in (in)", false, "in in (in)"),
            ("x in ()", false, "x in ()"),
            ("app=", false, "app="),
        ];
        for (text, matches, printed) in cases {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&labels), matches, "{text}");
            let mut sorted: Vec<_> = selector.to_string().split(',').map(str::to_owned).collect();
            let mut expected: Vec<_> = printed.split(',').map(str::to_owned).collect();
            sorted.sort();
            expected.sort();
            assert_eq!(sorted, expected, "{text}");
        }
    }

    #[test]
    fn odd_spellings() {
        for (text, printed) in [
            ("\rx", "x"), ("foo  in\t (abc)", "foo in (abc)"), ("x notin\n (abc)", "x notin (abc)"), ("x in (abc,)", "x in (,abc)"), ("x in (a,,a,,a,,a,,)", "x in (,a)"),
            ("x notin (abc,,def),bar,z in (),w", "bar,w,x notin (,abc,def),z in ()"), ("x= ,z= ", "x=,z="), ("0.1.2.domain/99 notin (10.10.100.1, tick.tack.clock)", "0.1.2.domain/99 notin (10.10.100.1,tick.tack.clock)"),
        ] {
            assert_eq!(LabelSelector::parse(text).map(|selector| selector.to_string()), Ok(printed.to_owned()));
        }
        for bad in ["x=a||y=b", "x==a==b", "!x=a", "x<a", "x in (", "(", "x,,y", "in", "x in"] {
            assert!(bad == "in" || LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn label_selector_errors() {
        for (text, error) in [
            ("app in web", "unable to parse requirement: found 'web' expected: '('"),
            ("app in (web", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a=b,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("x>y", "unable to parse requirement: values[0]: Invalid value: \"y\": for 'Gt', 'Lt' operators, the value must be an integer"),
            (
                "a=b_-",
                "unable to parse requirement: values[0][a]: Invalid value: \"b_-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
        ] {
            assert_eq!(LabelSelector::parse(text), Err(error.to_owned()), "{text}");
        }
        assert!(LabelSelector::parse("a/b/c=d").unwrap_err().starts_with("unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must consist"));
        assert!(LabelSelector::parse("\u{e9}=d").is_err());
    }

    #[test]
    fn json_selectors() {
        let labels = json!({"app": "web"});
        for (selector, matches) in [
            (Value::Null, false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}), true),
        ] {
            assert_eq!(LabelSelector::from_json(&selector).unwrap().matches(&labels), matches, "{selector}");
        }
        assert_eq!(LabelSelector::from_json(&json!({"matchExpressions": [{"key": "x", "operator": "Foo"}]})), Err("\"Foo\" is not a valid label selector operator".into()));
    }

    #[test]
    fn field_selectors() {
        let value_of = |field: &str| match field {
            "metadata.name" => "web".to_owned(),
            "status.phase" => "Running".to_owned(),
            _ => String::new(),
        };
        for (text, matches) in [("", true), ("metadata.name=web", true), ("metadata.name==web,status.phase!=Running", false), ("spec.nodeName=", true), ("spec.nodeName!=", false)] {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(value_of), matches, "{text}");
        }
        for (text, error) in [
            ("foo", "invalid selector: 'foo'; can't understand 'foo'"),
            (r"a=b\c", r"invalid field selector: invalid escape sequence: \c"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(FieldSelector::parse(text), Err(error.to_owned()));
        }
        assert_eq!(FieldSelector::parse(r"a=b\,c").unwrap().to_string(), r"a=b\,c");
    }
}
