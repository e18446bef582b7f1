//! `-o go-template`, over gotmpl, with kubectl's two functions.

use std::sync::Arc;

use base64::Engine;
use gotmpl::TemplateError;
use serde_json::Value;

use crate::error::{Error, Result};

pub struct Template {
    text: String,
    parsed: gotmpl::Template,
}

fn convert(value: &Value) -> gotmpl::Value {
    match value {
        Value::Null => gotmpl::Value::Nil,
        Value::Bool(flag) => gotmpl::Value::Bool(*flag),
        Value::Number(number) => number.as_i64().map_or_else(|| gotmpl::Value::Float(number.as_f64().unwrap_or(0.0)), gotmpl::Value::Int),
        Value::String(text) => gotmpl::Value::String(text.as_str().into()),
        Value::Array(items) => gotmpl::Value::List(items.iter().map(convert).collect()),
        Value::Object(map) => gotmpl::Value::Map(Arc::new(map.iter().map(|(key, value)| (key.as_str().into(), convert(value))).collect())),
    }
}

fn exists(args: &[gotmpl::Value]) -> bool {
    let Some((first, keys)) = args.split_first() else { return false };
    let mut value = first.clone();
    for key in keys {
        value = match value.index(key) {
            Ok(next) if !matches!(next, gotmpl::Value::Nil) => next,
            _ => return false,
        };
    }
    true
}

impl Template {
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |error: TemplateError| Error::Message(format!("error parsing template {text}, {error}\n"));
        let parsed = gotmpl::Template::new("output")
            .func("exists", |args| Ok(gotmpl::Value::Bool(exists(args))))
            .func("base64decode", |args| {
                let text = args.first().map(ToString::to_string).unwrap_or_default();
                let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_bytes()).unwrap_or_default();
                Ok(gotmpl::Value::String(String::from_utf8_lossy(&bytes).as_ref().into()))
            })
            .parse(text)
            .map_err(bad)?;
        Ok(Self { text: text.to_owned(), parsed })
    }

    pub fn render(&self, object: &Value) -> Result<String> {
        self.parsed.execute_to_string(&convert(object)).map_err(|error| Error::Message(format!("error executing template \"{}\": {error}", self.text)))
    }
}
