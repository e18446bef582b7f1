//! Cell texts shared by several kinds.

use serde_json::{Map, Value};

use crate::kinds::json::{list, map, text};
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

pub const NONE: &str = "<none>";
pub const UNSET: &str = "<unset>";
pub const UNKNOWN: &str = "<unknown>";

pub fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

/// A number cell; missing is 0.
pub fn count(object: &Value, path: &str) -> Value {
    crate::kinds::json::number(object, path).unwrap_or(0).into()
}

pub fn or<'a>(value: &'a str, otherwise: &'a str) -> &'a str {
    if value.is_empty() { otherwise } else { value }
}

/// `a=b,c=d`, sorted.
pub fn labels(labels: Option<&Map<String, Value>>) -> String {
    let joined = labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",");
    if joined.is_empty() { NONE.to_owned() } else { joined }
}

/// `metav1.FormatLabelSelector`.
pub fn selector(object: &Value, path: &str) -> String {
    let selector = map(object, path).map_or(Ok(LabelSelector::nothing()), |map| LabelSelector::from_json(&Value::Object(map.clone())));
    match selector.map(|selector| selector.to_string()) {
        Ok(printed) if printed.is_empty() => NONE.to_owned(),
        Ok(printed) => printed,
        Err(_) => "<error>".to_owned(),
    }
}

/// Names and images of containers, each joined by commas.
pub fn containers(object: &Value, path: &str) -> [Value; 2] {
    ["name", "image"].map(|field| list(object, path).iter().map(|container| text(container, field)).collect::<Vec<_>>().join(",").into())
}

/// The first three, then `+ 2 more...`.
pub fn three(all: &[String], nothing: &str) -> String {
    const MAX: usize = 3;
    let shown = all.iter().take(MAX).map(String::as_str).collect::<Vec<_>>().join(",");
    if all.len() > MAX {
        format!("{shown} + {} more...", all.len() - MAX)
    } else {
        or(&shown, nothing).to_owned()
    }
}

/// A quantity in canonical form; `0` if there is none.
pub fn quantity(value: Option<&Value>) -> String {
    value.and_then(|value| Quantity::from_json(value).ok()).unwrap_or_default().to_string()
}

/// An int-or-string.
pub fn int_or_string(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
