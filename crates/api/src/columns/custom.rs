//! The columns of custom kinds: NAME, then `additionalPrinterColumns`, or AGE. Mirrors registry/customresource/tableconvertor.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::human_duration;
use crate::custom::{Column, Custom};
use crate::jsonpath::shown;
use crate::kinds::json::text;

pub fn definitions(custom: &Custom) -> Value {
    let name = json!({"name": "Name", "type": "string", "format": "name", "description": "Name of the object, unique within its namespace and kind.", "priority": 0});
    let rest = custom.facts().columns.iter().map(|column| json!({"name": column.name, "type": column.kind, "format": column.format, "description": column.description, "priority": column.priority}));
    std::iter::once(name).chain(rest).collect()
}

pub fn cells(custom: &Custom, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = Value::from(text(object, "metadata.name"));
    std::iter::once(name).chain(custom.facts().columns.iter().map(|column| cell(column, object, now))).collect()
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = column.path.as_ref().and_then(|path| path.find(object).ok()).unwrap_or_default();
    // Only simple paths are meant: one result.
    let Some(value) = found.into_iter().next() else { return Value::Null };
    match (column.kind.as_str(), &value) {
        ("string", Value::Null) => "<nil>".into(),
        ("string", value) => shown(value).into(),
        ("integer", Value::Number(number)) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).map_or(Value::Null, Value::from),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value,
        ("date", Value::String(at)) => match at.parse::<Timestamp>() {
            Ok(at) => human_duration(now.duration_since(at).as_secs()).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}
