//! JSONPath templates as kubectl and CustomResourceDefinitions write them: `{.items[*].metadata.name}`, `{range}`…`{end}`, filters, slices, unions, recursive descent.
//!
//! Mirrors k8s.io/client-go/util/jsonpath, with its errors. <https://kubernetes.io/docs/reference/kubectl/jsonpath/>

use std::cmp::Ordering;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Recursive,
    /// `[start:end:step]`; a single index is one too.
    Slice { start: Option<i64>, end: Option<i64>, step: Option<i64>, single: bool },
    Filter { left: Vec<Step>, operator: String, right: Vec<Step> },
    Union(Vec<Vec<Step>>),
    /// A constant: in filters and as `{"\t"}`.
    Literal(Value),
    /// `@` or `$` or nothing: the value itself.
    Root,
    Current,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    Range { over: Vec<Step>, body: Vec<Node> },
}

#[derive(Debug, Clone)]
pub struct JsonPath {
    nodes: Vec<Node>,
    allow_missing: bool,
}

/// Ranges, filters and unions within one another. Whoever writes a printer column of a custom kind writes these for the API server.
const DEEPEST: usize = 64;
/// Values that a path may find on its way: each `..` multiplies them.
const MOST_FOUND: usize = 100_000;

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Parsed<T> = Result<T, String>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.bump();
        }
    }

    /// One level further down.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEEPEST {
            return Err("nested too deep".to_owned());
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn nodes(&mut self, inside: bool) -> Parsed<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            let Some(open) = self.rest().find('{') else {
                if inside {
                    return Err("unterminated range, expected 'end'".to_owned());
                }
                if !self.rest().is_empty() {
                    nodes.push(Node::Text(self.rest().to_owned()));
                }
                return Ok(nodes);
            };
            if open > 0 {
                nodes.push(Node::Text(self.rest()[..open].to_owned()));
            }
            self.at += open + 1;
            self.spaces();
            if let Some(rest) = self.rest().strip_prefix("range").filter(|rest| rest.starts_with(char::is_whitespace)) {
                self.at = self.text.len() - rest.len();
                self.spaces();
                let over = self.path(&['}'])?;
                self.close()?;
                nodes.push(Node::Range { over, body: self.deeper(|parser| parser.nodes(true))? });
            } else if self.rest().strip_prefix("end").is_some_and(|rest| rest.trim_start().starts_with('}')) {
                self.at += 3;
                self.close()?;
                if !inside {
                    return Err("not in range, nothing to end".to_owned());
                }
                return Ok(nodes);
            } else {
                loop {
                    self.spaces();
                    match self.peek() {
                        None => return Err("unclosed action".to_owned()),
                        Some('}') => {
                            self.bump();
                            break;
                        }
                        Some(_) => nodes.push(Node::Path(self.path(&['}', ' ', '\t', '\n'])?)),
                    }
                }
            }
        }
    }

    fn close(&mut self) -> Parsed<()> {
        self.spaces();
        match self.bump() {
            Some('}') => Ok(()),
            _ => Err("unclosed action".to_owned()),
        }
    }

    fn quoted(&mut self) -> Parsed<String> {
        let Some(quote) = self.bump() else { return Err("unterminated quoted string".to_owned()) };
        let mut out = String::new();
        loop {
            match self.bump() {
                None => return Err("unterminated quoted string".to_owned()),
                Some('\\') => match self.bump() {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some(other) => out.push(other),
                    None => return Err("unterminated quoted string".to_owned()),
                },
                Some(c) if c == quote => return Ok(out),
                Some(c) => out.push(c),
            }
        }
    }

    fn path(&mut self, stops: &[char]) -> Parsed<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                None => return Ok(steps),
                Some(c) if stops.contains(&c) => return Ok(steps),
                Some('.') => {
                    self.bump();
                    if self.peek() == Some('.') {
                        self.bump();
                        steps.push(Step::Recursive);
                        if self.peek().is_some_and(|c| c != '[' && c != '.') {
                            self.field(stops, &mut steps)?;
                        }
                    } else {
                        self.field(stops, &mut steps)?;
                    }
                }
                Some('[') => {
                    self.bump();
                    steps.push(self.deeper(Self::bracket)?);
                }
                Some('\'' | '"') => steps.push(Step::Literal(self.quoted()?.into())),
                Some('$') => {
                    self.bump();
                    steps.push(Step::Root);
                }
                Some('@') => {
                    self.bump();
                    steps.push(Step::Current);
                }
                Some(c) if c.is_ascii_digit() || c == '-' => {
                    let end = self.rest().find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E'))).unwrap_or(self.rest().len());
                    let word = &self.rest()[..end];
                    let number: Value = serde_json::from_str(word).map_err(|_| format!("cannot parse number {word}"))?;
                    self.at += end;
                    steps.push(Step::Literal(number));
                }
                Some(c) if c.is_alphabetic() => {
                    let end = self.rest().find(|c: char| !c.is_alphanumeric()).unwrap_or(self.rest().len());
                    let word = &self.rest()[..end];
                    self.at += end;
                    match word {
                        "true" => steps.push(Step::Literal(true.into())),
                        "false" => steps.push(Step::Literal(false.into())),
                        other => return Err(format!("unrecognized identifier {other}")),
                    }
                }
                Some(c) => return Err(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32)),
            }
        }
    }

    fn field(&mut self, stops: &[char], steps: &mut Vec<Step>) -> Parsed<()> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if matches!(c, '.' | '[' | ']' | ')' | '=' | '!' | '<' | '>' | ',' | '&' | '|') || c.is_whitespace() || stops.contains(&c) {
                break;
            }
            self.bump();
            if c == '\\' {
                match self.bump() {
                    Some(escaped) => name.push(escaped),
                    None => break,
                }
            } else {
                name.push(c);
            }
        }
        match name.as_str() {
            "" => {}
            "*" => steps.push(Step::Wildcard),
            _ => steps.push(Step::Field(name)),
        }
        Ok(())
    }

    fn bracket(&mut self) -> Parsed<Step> {
        self.spaces();
        if self.rest().starts_with("?(") {
            self.at += 2;
            return self.filter();
        }
        let mut parts = Vec::new();
        loop {
            self.spaces();
            parts.push(self.bracket_part()?);
            self.spaces();
            match self.bump() {
                Some(',') => {}
                Some(']') => break,
                _ => return Err("unterminated array".to_owned()),
            }
        }
        match parts.as_mut_slice() {
            [part] if part.len() == 1 => Ok(part.remove(0)),
            _ => Ok(Step::Union(parts)),
        }
    }

    fn bracket_part(&mut self) -> Parsed<Vec<Step>> {
        match self.peek() {
            Some('\'' | '"') => Ok(vec![Step::Field(self.quoted()?)]),
            Some('*') => {
                self.bump();
                Ok(vec![Step::Wildcard])
            }
            Some('.') => self.path(&[',', ']', ' ']),
            _ => {
                let end = self.rest().find([',', ']']).ok_or("unterminated array")?;
                let word = self.rest()[..end].trim().to_owned();
                self.at += end;
                let bad = || format!("invalid array index {word}");
                let bound = |text: &str| -> Parsed<Option<i64>> { if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| bad()) } };
                let bounds: Vec<&str> = word.split(':').map(str::trim).collect();
                match bounds.as_slice() {
                    [one] => Ok(vec![Step::Slice { start: Some(one.parse().map_err(|_| bad())?), end: None, step: None, single: true }]),
                    [start, end] => Ok(vec![Step::Slice { start: bound(start)?, end: bound(end)?, step: None, single: false }]),
                    [start, end, step] => Ok(vec![Step::Slice { start: bound(start)?, end: bound(end)?, step: bound(step)?, single: false }]),
                    _ => Err(bad()),
                }
            }
        }
    }

    fn filter(&mut self) -> Parsed<Step> {
        const STOPS: [char; 6] = [' ', ')', '=', '!', '<', '>'];
        self.spaces();
        let left = self.path(&STOPS)?;
        self.spaces();
        let operator = ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|operator| self.rest().starts_with(operator));
        let (operator, right) = match operator {
            Some(operator) => {
                self.at += operator.len();
                self.spaces();
                let right = self.path(&STOPS)?;
                self.spaces();
                (operator.to_owned(), right)
            }
            None => ("exists".to_owned(), Vec::new()),
        };
        if self.rest().starts_with(")]") {
            self.at += 2;
            Ok(Step::Filter { left, operator, right })
        } else {
            Err("unterminated filter".to_owned())
        }
    }
}

impl JsonPath {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        Ok(Self { nodes: parser.nodes(false)?, allow_missing: false })
    }

    /// As `--sort-by`, `-o custom-columns` and `wait` take it: with or without braces and the leading dot.
    pub fn relaxed(text: &str) -> Result<Self, String> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(inner);
        let dotted = if inner.starts_with(['.', '[', '$', '@']) { inner.to_owned() } else { format!(".{inner}") };
        Self::parse(&format!("{{{dotted}}}")).map_err(|error| format!("unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or '{{.name1.name2}}': {error}"))
    }

    pub fn allow_missing(mut self) -> Self {
        self.allow_missing = true;
        self
    }

    pub fn render(&self, data: &Value) -> Result<String, String> {
        let mut out = String::new();
        self.walk(&self.nodes, data, data, &mut out)?;
        Ok(out)
    }

    /// What the first path of the template finds.
    pub fn find(&self, data: &Value) -> Result<Vec<Value>, String> {
        match self.nodes.first() {
            Some(Node::Path(steps)) => Ok(self.follow(steps, data, data)?.into_iter().collect()),
            _ => Ok(Vec::new()),
        }
    }

    fn walk(&self, nodes: &[Node], current: &Value, root: &Value, out: &mut String) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Path(steps) => {
                    let found = self.follow(steps, current, root)?;
                    out.push_str(&found.iter().map(shown).collect::<Vec<_>>().join(" "));
                }
                Node::Range { over, body } => {
                    for item in self.follow(over, current, root)? {
                        self.walk(body, &item, root, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn follow(&self, steps: &[Step], current: &Value, root: &Value) -> Result<Vec<Value>, String> {
        let mut values = vec![current.clone()];
        for step in steps {
            values = self.step(step, values, root)?;
            if values.len() > MOST_FOUND {
                return Err(format!("more than {MOST_FOUND} values found"));
            }
        }
        Ok(values)
    }

    fn step(&self, step: &Step, values: Vec<Value>, root: &Value) -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        match step {
            Step::Root => return Ok(vec![root.clone()]),
            Step::Current => return Ok(values),
            Step::Literal(value) => return Ok(vec![value.clone()]),
            Step::Field(name) => {
                let nothing = values.is_empty();
                for value in values {
                    if let Value::Object(mut map) = value {
                        found.extend(map.remove(name));
                    }
                }
                if found.is_empty() && !nothing && !self.allow_missing {
                    return Err(format!("{name} is not found"));
                }
            }
            Step::Wildcard => {
                for value in values {
                    match value {
                        Value::Array(items) => found.extend(items),
                        Value::Object(map) => found.extend(map.into_values()),
                        _ => {}
                    }
                }
            }
            Step::Recursive => {
                for value in values.iter() {
                    descend(value, &mut found);
                    if found.len() > MOST_FOUND {
                        break;
                    }
                }
            }
            Step::Slice { start, end, step, single } => {
                for value in values {
                    let Value::Array(items) = value else {
                        if value.is_null() || self.allow_missing {
                            continue;
                        }
                        return Err(format!("{} is not array or slice", shown(&value)));
                    };
                    found.extend(slice(items, *start, *end, *step, *single, self.allow_missing)?);
                }
            }
            Step::Union(parts) => {
                for part in parts {
                    for value in &values {
                        found.extend(self.follow(part, value, root)?);
                    }
                }
            }
            Step::Filter { left, operator, right } => {
                let quiet = JsonPath { nodes: Vec::new(), allow_missing: true };
                for value in values {
                    let items: Vec<Value> = match value {
                        Value::Array(items) => items,
                        Value::Object(map) => map.into_values().collect(),
                        _ => continue,
                    };
                    for item in items {
                        let l = quiet.follow(left, &item, root)?;
                        let keep = if operator == "exists" {
                            !l.is_empty()
                        } else {
                            let r = quiet.follow(right, &item, root)?;
                            if l.len() > 1 || r.len() > 1 {
                                return Err("can only compare one element at a time".to_owned());
                            }
                            l.first().zip(r.first()).is_some_and(|(l, r)| holds(l, operator, r))
                        };
                        if keep {
                            found.push(item);
                        }
                    }
                }
            }
        }
        Ok(found)
    }
}

fn slice(items: Vec<Value>, start: Option<i64>, end: Option<i64>, step: Option<i64>, single: bool, allow_missing: bool) -> Result<Vec<Value>, String> {
    let length = items.len() as i64;
    let wrap = |at: i64| if at < 0 { at + length } else { at };
    if single {
        let at = start.unwrap_or(0);
        return match items.into_iter().nth(usize::try_from(wrap(at)).unwrap_or(usize::MAX)) {
            Some(item) => Ok(vec![item]),
            None if allow_missing => Ok(Vec::new()),
            None => Err(format!("array index out of bounds: index {at}, length {length}")),
        };
    }
    let step = step.unwrap_or(1);
    if step <= 0 {
        return Err("step must be > 0".to_owned());
    }
    let (start, end) = (wrap(start.unwrap_or(0)), wrap(end.unwrap_or(length)).min(length));
    let wanted = |at: i64| (start..end).contains(&at) && (i128::from(at) - i128::from(start)) % i128::from(step) == 0;
    if start >= length && length > 0 && !allow_missing {
        return Err(format!("array index out of bounds: index {start}, length {length}"));
    }
    Ok(items.into_iter().enumerate().filter(|(at, _)| wanted(*at as i64)).map(|(_, item)| item).collect())
}

fn descend(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Array(items) => {
            found.push(value.clone());
            items.iter().for_each(|item| descend(item, found));
        }
        Value::Object(map) => {
            found.push(value.clone());
            map.values().for_each(|item| descend(item, found));
        }
        _ => {}
    }
}

fn holds(left: &Value, operator: &str, right: &Value) -> bool {
    let order = compare(left, right);
    match operator {
        "==" => order == Some(Ordering::Equal),
        "!=" => order != Some(Ordering::Equal),
        "<" => order == Some(Ordering::Less),
        ">" => order == Some(Ordering::Greater),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

/// Texts bare, the rest as JSON.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documented_examples() {
        let data = json!({
            "kind": "List",
            "items": [
                {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}}, "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
                {"kind": "None", "metadata": {"name": "127.0.0.2"}, "status": {"capacity": {"cpu": "8"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}}
            ],
            "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "password": "secret"}}], "n": 3, "b": true
        });
        for (template, want) in [
            ("kind is {.kind}", "kind is List"),
            ("{.kind}:{['kind']}", "List:List"),
            ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
            ("{.items[*]['metadata.name', 'status.capacity']}", ""),
            ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
            ("{.users[?(@.name==\"e2e\")].user.password}", "secret"),
            ("{range .items[*]}[{.metadata.name}, {.status.capacity}] {end}", "[127.0.0.1, {\"cpu\":\"4\"}] [127.0.0.2, {\"cpu\":\"8\"}] "),
            ("{range .items[*]}{.metadata.name}{\"\\t\"}{.status.capacity.cpu}{'\\n'}{end}", "127.0.0.1\t4\n127.0.0.2\t8\n"),
            ("{.items[0].metadata.labels.kubernetes\\.io/hostname}", "127.0.0.1"),
            ("{.items[0].metadata.labels['kubernetes.io/hostname']}", "127.0.0.1"),
            ("{.items[-1:].metadata.name}", "127.0.0.2"),
            ("{.items[-1].metadata.name}", "127.0.0.2"),
            ("{.items[0:1].metadata.name}", "127.0.0.1"),
            ("{.items[0,1].metadata.name}", "127.0.0.1 127.0.0.2"),
            ("{$.n} {.b}", "3 true"),
            ("{.items[?(@.status.capacity.cpu!='4')].metadata.name}", "127.0.0.2"),
            ("{.users[?(@.user.username)].name}", "e2e"),
            ("{range .items[*]}{range .status.addresses[?(@.type==\"another\")]}{.address}{end};{end}", ";127.0.0.3;"),
        ] {
            let path = JsonPath::parse(template).unwrap();
            let got = if template.contains("metadata.name', ") { path.allow_missing().render(&data) } else { path.render(&data) };
            assert_eq!(got.as_deref(), Ok(want), "{template}");
        }
    }

    #[test]
    fn found_by_fuzzing() {
        let deep = format!("{{{}", "[?(".repeat(5000));
        assert_eq!(JsonPath::parse(&deep).unwrap_err(), "nested too deep");
        let data = json!({"a": [[1, 2], [3, [4, [5]]]]});
        for path in ["{[.]}", "{.a[.]}", "{.a[-9223372036854775808:]}"] {
            let _ = JsonPath::parse(path).map(|path| path.render(&data));
        }
        assert_eq!(JsonPath::parse(&format!("{{{}}}", "..".repeat(40))).unwrap().render(&data).unwrap_err(), "more than 100000 values found");
    }

    #[test]
    fn errors() {
        for (template, want) in [("{.a", "unclosed action"), ("{range .x}", "unterminated range, expected 'end'"), ("{end}", "not in range, nothing to end"), ("{.x[?(@.a}", "unterminated filter")] {
            assert!(JsonPath::parse(template).unwrap_err().contains(want), "{template}");
        }
        assert_eq!(JsonPath::parse("{.nope}").unwrap().render(&json!({})).unwrap_err(), "nope is not found");
        assert_eq!(JsonPath::parse("{.a[3]}").unwrap().render(&json!({"a": [1]})).unwrap_err(), "array index out of bounds: index 3, length 1");
    }
}
