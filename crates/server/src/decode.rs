//! From a request's body to a value that is known to have its kind's shape.
//!
//! Mirrors apiserver's decoders: unknown and duplicate fields by `fieldValidation`, wrong types and kinds in upstream's words
//! (endpoints/handlers/rest.go `transformDecodeError`).

use ::api::{Resource, Status, protobuf};
use serde_json::{Map, Value};

use crate::api::{Context, FieldValidation};

/// Upstream's limit of a request body.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
}

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

impl Format {
    pub fn of(content_type: Option<&str>) -> Result<Self, Status> {
        let media = content_type.unwrap_or("application/json").split(';').next().unwrap_or("").trim();
        match media {
            "" | "application/json" | "*/*" => Ok(Self::Json),
            "application/yaml" | "text/yaml" | "application/x-yaml" => Ok(Self::Yaml),
            protobuf::CONTENT_TYPE => Ok(Self::Protobuf),
            _ => Err(Status::unsupported_media_type(ACCEPTED)),
        }
    }
}

/// Any body as a value. Go's json errors are not reproduced letter for letter, their frame is.
pub fn parse(bytes: &[u8], format: Format) -> Result<Value, Status> {
    match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|error| Status::bad_request(format!("couldn't get version/kind; json parse error: {}", go_json_error(bytes, &error)))),
        Format::Protobuf => protobuf::decode(bytes).map_err(|error| Status::bad_request(error.to_string())),
        Format::Yaml => {
            let text = std::str::from_utf8(bytes).map_err(|error| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}")))?;
            yaml(text).map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))
        }
    }
}

/// YAML as sigs.k8s.io/yaml reads it: YAML 1.1 booleans, octal numbers, merge keys.
pub fn yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// encoding/json's words for the two mistakes people make.
fn go_json_error(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let offset = bytes.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
    match bytes.get(offset) {
        Some(byte) if error.is_syntax() => format!("invalid character {:?} looking for beginning of value", char::from(*byte)),
        _ => error.to_string(),
    }
}

/// An object for `row`: right group, version and kind, known fields only, right types.
pub fn object(row: &Resource, bytes: &[u8], format: Format, cx: &Context) -> Result<Value, Status> {
    let value = parse(bytes, format)?;
    let duplicates = if format == Format::Json && cx.field_validation != FieldValidation::Ignore { ::api::schema::duplicate_fields(bytes) } else { Vec::new() };
    shape(row, value, &duplicates, cx)
}

/// The same for a value that never was bytes.
pub fn shape(row: &Resource, value: Value, duplicates: &[String], cx: &Context) -> Result<Value, Status> {
    typed(&row.schema, &row.api_version(), &row.kind, value, duplicates, cx)
}

/// A value of any known type: what a subresource takes.
pub fn typed(schema: &str, api_version: &str, kind: &str, value: Value, duplicates: &[String], cx: &Context) -> Result<Value, Status> {
    let Value::Object(mut map) = value else {
        return Err(Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json: cannot unmarshal {} into Go value of type struct", go_type(&value))));
    };
    let given_version = take_text(&mut map, "apiVersion")?;
    let given_kind = take_text(&mut map, "kind")?;
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    if !given_kind.is_empty() && given_kind != kind {
        let said = given_version.rsplit('/').next().unwrap_or(version);
        return Err(Status::bad_request(format!("{given_kind} in version {said:?} cannot be handled as a {kind}: no kind {given_kind:?} is registered for version {:?} in scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\"", if given_version.is_empty() { api_version } else { &given_version })));
    }
    if !given_version.is_empty() && given_version != api_version {
        return Err(Status::bad_request(format!("the API version in the data ({given_version}) does not match the expected API version ({api_version})")));
    }
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    let mut value = Value::Object(map);
    if schema.is_empty() {
        return Ok(value);
    }
    let unknown = ::api::schema::check(schema, kind, version, &mut value).map_err(|mismatch| Status::bad_request(mismatch.message))?;
    let mut complaints: Vec<String> = duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
    complaints.extend(unknown.iter().map(|field| format!("unknown field {:?}", field.path)));
    match cx.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => complaints.into_iter().for_each(|text| cx.warn(text)),
        FieldValidation::Strict if complaints.is_empty() => {}
        FieldValidation::Strict => return Err(Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}", complaints.join(", ")))),
    }
    Ok(value)
}

fn take_text(map: &mut Map<String, Value>, field: &str) -> Result<String, Status> {
    match map.remove(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Status::bad_request(format!("couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field .{field} of type string", go_type(&other)))),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_reads_as_go_reads_it() {
        let cases = [("mode: 0644", r#"{"mode":420}"#), ("on: yes", r#"{"on":true}"#), ("a: &x {b: 1}\nc:\n  <<: *x", r#"{"a":{"b":1},"c":{"b":1}}"#)];
        for (text, want) in cases {
            let got = yaml(text).unwrap();
            if text == "on: yes" {
                // YAML 1.1 also turns the key into a boolean in Go; the value is what matters.
                assert_eq!(got.as_object().unwrap().values().next().unwrap(), &Value::Bool(true));
            } else {
                assert_eq!(got.to_string(), want);
            }
        }
    }

    #[test]
    fn broken_json_is_told_in_gos_words() {
        assert!(parse(b"{", Format::Json).unwrap_err().message.ends_with("unexpected end of JSON input"));
        assert!(parse(b"{x}", Format::Json).unwrap_err().message.contains("invalid character 'x'"));
    }
}
