//! Path elements, in the spelling that `fieldsV1` uses: `f:spec`, `k:{"name":"a"}`, `v:"x"`, `i:0`. Equal elements are spelled equally.

use serde_json::{Map, Value};

pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

pub(super) fn keys(keys: Map<String, Value>) -> String {
    format!("k:{}", Value::Object(keys))
}

pub(super) fn value(value: &Value) -> String {
    format!("v:{value}")
}

/// The field's name, when it is one.
pub(super) fn field_name(element: &str) -> Option<&str> {
    element.strip_prefix("f:")
}

/// Another writer may have put blanks or another order into the JSON of a key.
pub(super) fn canonical(element: &str) -> String {
    match element.split_at_checked(2) {
        Some((kind @ ("k:" | "v:"), json)) => serde_json::from_str::<Value>(json).map_or_else(|_| element.to_owned(), |json| format!("{kind}{json}")),
        _ => element.to_owned(),
    }
}

/// As upstream prints it in a path: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
pub(super) fn display(element: &str) -> String {
    match element.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", json)) => match serde_json::from_str::<Map<String, Value>>(json) {
            Ok(keys) => format!("[{}]", keys.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")),
            Err(_) => format!("[{json}]"),
        },
        Some(("v:", json)) => format!("[={json}]"),
        Some(("i:", index)) => format!("[{index}]"),
        _ => element.to_owned(),
    }
}
