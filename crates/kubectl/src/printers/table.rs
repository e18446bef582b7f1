//! The server's tables as people see them.

use serde_json::Value;

use crate::jsonpath::shown;

pub struct Options {
    pub wide: bool,
    pub no_headers: bool,
    pub namespace: bool,
    pub show_labels: bool,
    pub label_columns: Vec<String>,
    /// `deployment.apps/` before each name.
    pub prefix: String,
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        other => shown(other).split('\n').next().unwrap_or("").to_owned(),
    }
}

/// Header (unless unwanted) and rows.
pub fn lines(table: &Value, options: &Options, with_header: bool) -> Vec<Vec<String>> {
    let definitions = table.get("columnDefinitions").and_then(Value::as_array).cloned().unwrap_or_default();
    let shown_at: Vec<usize> = (0..definitions.len()).filter(|at| options.wide || definitions[*at].get("priority").and_then(Value::as_i64).unwrap_or(0) == 0).collect();
    let mut out = Vec::new();
    if with_header && !options.no_headers {
        let mut header: Vec<String> = shown_at.iter().map(|at| definitions[*at].get("name").and_then(Value::as_str).unwrap_or("").to_uppercase()).collect();
        if options.namespace {
            header.insert(0, "NAMESPACE".to_owned());
        }
        header.extend(options.label_columns.iter().map(|label| label.rsplit('/').next().unwrap_or(label).to_uppercase()));
        if options.show_labels {
            header.push("LABELS".to_owned());
        }
        out.push(header);
    }
    for row in table.get("rows").and_then(Value::as_array).into_iter().flatten() {
        let none = Vec::new();
        let cells = row.get("cells").and_then(Value::as_array).unwrap_or(&none);
        let mut line: Vec<String> = shown_at.iter().map(|at| cells.get(*at).map(cell).unwrap_or_default()).collect();
        let name_at = shown_at.iter().position(|at| definitions[*at].get("name").and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case("name")));
        if let Some(name) = name_at.filter(|_| !options.prefix.is_empty()).and_then(|at| line.get_mut(at)) {
            *name = format!("{}/{name}", options.prefix);
        }
        if options.namespace {
            line.insert(0, row.pointer("/object/metadata/namespace").map(shown).unwrap_or_default());
        }
        let labels = row.pointer("/object/metadata/labels").and_then(Value::as_object);
        line.extend(options.label_columns.iter().map(|label| labels.and_then(|labels| labels.get(label)).map(shown).unwrap_or_default()));
        if options.show_labels {
            let text = labels.map(|labels| labels.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect::<Vec<_>>().join(",")).unwrap_or_default();
            line.push(if text.is_empty() { "<none>".to_owned() } else { text });
        }
        out.push(line);
    }
    out
}
