//! A schema as text: its description, its fields, and the way along a path of fields.

use serde_json::Value;

use super::wrap::{indent, wrap};

/// Enums of a field list show this many values.
const SHOWN_VALUES: usize = 4;
const WIDTH: usize = 76;

pub struct Schema<'a> {
    pub document: &'a Value,
    pub recursive: bool,
}

fn reference(schema: &Value) -> &str {
    schema.get("$ref").and_then(Value::as_str).unwrap_or("")
}

/// A part that says something: absent, `false` and empty ones do not.
fn part<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    schema.get(name).filter(|part| match part {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => false,
    })
}

/// The alternatives of `allOf`.
fn all_of(schema: &Value) -> &[Value] {
    schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn values(schema: &Value) -> Vec<String> {
    let shown = |value: &Value| match value.as_str() {
        Some("") => "\"\"".to_owned(),
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    schema.get("enum").and_then(Value::as_array).into_iter().flatten().map(shown).collect()
}

impl<'a> Schema<'a> {
    fn resolve<'s>(&self, schema: &'s Value) -> &'s Value
    where
        'a: 's,
    {
        let found = reference(schema).strip_prefix('#').and_then(|path| self.document.pointer(path));
        found.unwrap_or(schema)
    }

    /// Empty if there is no such path.
    pub fn explain(&self, schema: &Value, path: &[&str]) -> String {
        self.walk(schema, path, &mut Vec::new())
    }

    /// `seen` are the references followed since the last field: meeting one again leads nowhere.
    fn walk(&self, schema: &Value, path: &[&str], seen: &mut Vec<String>) -> String {
        let resolved = self.resolve(schema);
        let Some((first, rest)) = path.split_first() else { return self.whole(resolved) };
        let name = reference(schema);
        if !name.is_empty() {
            if seen.iter().any(|known| known == name) {
                return String::new();
            }
            seen.push(name.to_owned());
        }
        if let Some(field) = resolved.get("properties").and_then(|fields| fields.get(first)) {
            let mut out = String::new();
            if rest.is_empty() {
                out.push_str(&format!("FIELD: {first} <{}>\n", self.type_of(field)));
                let values = values(field);
                if !values.is_empty() {
                    out.push_str("ENUM:");
                    values.iter().for_each(|value| out.push_str(&format!("\n    {value}")));
                }
                // One line end after the enum, or an empty line without one; and another.
                out.push_str("\n\n");
            }
            out.push_str(&self.walk(field, rest, &mut Vec::new()));
            return out;
        }
        if let Some(items) = part(resolved, "items") {
            return self.walk(items, path, seen);
        }
        if let Some(values) = part(resolved, "additionalProperties") {
            return self.walk(values, path, seen);
        }
        all_of(resolved).iter().map(|one| self.walk(one, path, &mut seen.clone())).find(|text| !text.is_empty()).unwrap_or_default()
    }

    fn whole(&self, schema: &Value) -> String {
        let description = self.description(schema);
        let description = if description.is_empty() { "<empty>" } else { &description };
        let mut out = format!("DESCRIPTION:\n{}\n", indent(4, &wrap(WIDTH, description)));
        if let Some(docs) = external_docs(schema, 0) {
            out.push_str(&format!("\n{docs}"));
        }
        let fields = self.fields(schema, 1, &[]);
        if !fields.is_empty() {
            out.push_str(&format!("FIELDS:\n{fields}"));
        }
        out
    }

    /// Its own words and those of all it is made of.
    fn description(&self, schema: &Value) -> String {
        let resolved = self.resolve(schema);
        let mut out = part(resolved, "description").and_then(Value::as_str).map(|text| format!("{text}\n")).unwrap_or_default();
        let parts = all_of(resolved).iter().chain(part(resolved, "items")).chain(part(resolved, "additionalProperties"));
        parts.for_each(|part| out.push_str(&self.description(part)));
        out
    }

    fn fields(&self, schema: &Value, level: usize, seen: &[&str]) -> String {
        let name = reference(schema);
        if !name.is_empty() && seen.contains(&name) {
            return String::new();
        }
        let seen: Vec<&str> = seen.iter().copied().chain([name]).collect();
        let resolved = self.resolve(schema);
        let mut out = String::new();
        for (name, field) in resolved.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let required = resolved.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|required| required == name));
            out.push_str(&self.field(name, field, required, level));
            if self.recursive {
                out.push_str(&self.fields(field, level + 1, &seen));
            }
        }
        let parts = all_of(resolved).iter().chain(part(resolved, "items")).chain(part(resolved, "additionalProperties"));
        parts.for_each(|part| out.push_str(&self.fields(part, level, &seen)));
        out
    }

    fn field(&self, name: &str, field: &Value, required: bool, level: usize) -> String {
        let margin = level * 2;
        let mut out = format!("{:margin$}{name}\t<{}>{}", "", self.type_of(field), if required { " -required-" } else { "" });
        let values = values(field);
        if !values.is_empty() {
            let more = if values.len() > SHOWN_VALUES { ", ...." } else { "" };
            out.push_str(&format!("\n{:margin$}enum: {}{more}", "", values[..values.len().min(SHOWN_VALUES)].join(", ")));
        }
        out.push('\n');
        if !self.recursive {
            let description = part(field, "description").and_then(Value::as_str).unwrap_or("<no description>");
            out.push_str(&indent(margin + 2, &wrap((WIDTH + 2).saturating_sub(margin), description)));
            out.push('\n');
            if let Some(docs) = external_docs(field, margin + 2) {
                out.push_str(&format!("\n{docs}"));
            }
            out.push('\n');
        }
        out
    }

    /// `string`, `[]Container`, `map[string]string`, `Object`
    fn type_of(&self, schema: &Value) -> String {
        let kind = |schema: &Value| part(schema, "type").and_then(Value::as_str).map(str::to_owned);
        if let Some(items) = part(schema, "items") {
            return format!("[]{}", self.type_of(items));
        }
        if let Some(values) = part(schema, "additionalProperties") {
            return format!("map[string]{}", self.type_of(values));
        }
        if let ([one], None) = (all_of(schema), part(schema, "properties")) {
            return self.type_of(one);
        }
        let name = reference(schema);
        if name.is_empty() {
            return kind(schema).filter(|kind| kind != "object").unwrap_or_else(|| "Object".to_owned());
        }
        let resolved = name.strip_prefix('#').and_then(|path| self.document.pointer(path));
        match resolved.and_then(kind) {
            Some(kind) if kind != "object" => kind,
            _ => match name.rsplit(['/', '.']).next() {
                Some("") | None => "Object".to_owned(),
                Some(last) => last.to_owned(),
            },
        }
    }
}

fn external_docs(schema: &Value, margin: usize) -> Option<String> {
    let docs = part(schema, "externalDocs")?;
    let mut out = format!("{}\n", indent(margin, "EXTERNAL DOCS:"));
    let text = |name| part(docs, name).and_then(Value::as_str);
    if let Some(description) = text("description") {
        out.push_str(&format!("{}\n", indent(margin + if margin == 0 { 4 } else { 2 }, &wrap(WIDTH.saturating_sub(margin.saturating_sub(2)), description))));
    }
    if let Some(url) = text("url") {
        out.push_str(&format!("{}\n", indent(margin + if margin == 0 { 4 } else { 2 }, &format!("URL: {url}"))));
    }
    Some(out)
}
