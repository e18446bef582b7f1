//! `-o custom-columns=NAME:.metadata.name,…`.

use serde_json::Value;

use crate::error::{Error, Result, fail};
use crate::jsonpath::{JsonPath, shown};
use crate::tabwriter::TABLE;

pub struct CustomColumns {
    columns: Vec<(String, JsonPath)>,
    headers: bool,
}

impl CustomColumns {
    pub fn parse(spec: &str, no_headers: bool) -> Result<Self> {
        if spec.is_empty() {
            return fail("custom-columns format specified but no custom columns given");
        }
        let mut columns = Vec::new();
        for part in spec.split(',') {
            let Some((header, path)) = part.split_once(':') else {
                return fail(format!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"));
            };
            columns.push((header.to_owned(), JsonPath::relaxed(path).map_err(Error::Message)?.allow_missing()));
        }
        Ok(Self { columns, headers: !no_headers })
    }

    /// Headers on one line, paths on the next.
    pub fn file(text: &str, no_headers: bool) -> Result<Self> {
        let mut lines = text.lines();
        let (Some(headers), Some(paths)) = (lines.next(), lines.next()) else { return fail("custom-columns format specified but no custom columns given") };
        let spec: Vec<String> = headers.split_whitespace().zip(paths.split_whitespace()).map(|(header, path)| format!("{header}:{path}")).collect();
        Self::parse(&spec.join(","), no_headers)
    }

    pub fn render(&self, object: &Value) -> Result<String> {
        let mut text = String::new();
        if self.headers {
            text.push_str(&self.columns.iter().map(|(header, _)| header.as_str()).collect::<Vec<_>>().join("\t"));
            text.push('\n');
        }
        let items: Vec<&Value> = match object.get("items").and_then(Value::as_array) {
            Some(items) if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => items.iter().collect(),
            _ => vec![object],
        };
        for item in items {
            let mut cells = Vec::new();
            for (_, path) in &self.columns {
                let found = path.find(item).map_err(Error::Message)?;
                cells.push(if found.is_empty() { "<none>".to_owned() } else { found.iter().map(|value| if value.is_null() { "<nil>".to_owned() } else { shown(value) }).collect::<Vec<_>>().join(",") });
            }
            text.push_str(&cells.join("\t"));
            text.push('\n');
        }
        Ok(if text.is_empty() { text } else { TABLE.format(&text) })
    }
}
