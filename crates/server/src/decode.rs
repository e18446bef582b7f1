//! From a request's body to a value that is known to have its kind's shape.
//!
//! Mirrors apiserver's decoders: unknown and duplicate fields by `fieldValidation`, wrong types and kinds in upstream's words
//! (endpoints/handlers/rest.go `transformDecodeError`).

use ::api::go::json_word;
use ::api::protobuf::{self, ProtobufError};
use ::api::structural::{metadata, prune};
use ::api::{Cause, Custom, Resource, Status, cbor};
use serde_json::{Map, Value};

use crate::api::{Context, FieldValidation};
use crate::http::negotiate;

/// Upstream's limit of a request body.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Format {
    /// By `Content-Type`; a body that says nothing of itself is JSON. CBOR only where it is spoken.
    pub fn of(content_type: Option<&str>, cbor: bool) -> Result<Self, Status> {
        let header = content_type.filter(|header| !header.is_empty()).unwrap_or("application/json");
        match negotiate::media_type(header).as_deref() {
            Some("application/json") => Ok(Self::Json),
            Some("application/yaml") => Ok(Self::Yaml),
            Some(protobuf::CONTENT_TYPE) => Ok(Self::Protobuf),
            Some(cbor::CONTENT_TYPE) if cbor => Ok(Self::Cbor),
            _ => Err(Status::unsupported_media_type(&negotiate::accepted(cbor))),
        }
    }
}

/// Any body as a value. Go's json errors are not reproduced letter for letter, their frame is.
pub fn parse(bytes: &[u8], format: Format) -> Result<Value, Status> {
    read(bytes, format).map_err(Status::bad_request)
}

fn read(bytes: &[u8], format: Format) -> Result<Value, String> {
    match format {
        Format::Json => serde_json::from_slice(bytes).or_else(|error| {
            if std::str::from_utf8(bytes).is_err() {
                // Go reads bytes that are no UTF-8 as U+FFFD.
                return serde_json::from_str(&String::from_utf8_lossy(bytes)).map_err(|error| format!("couldn't get version/kind; json parse error: {}", go_json_error(bytes, &error)));
            }
            Err(format!("couldn't get version/kind; json parse error: {}", go_json_error(bytes, &error)))
        }),
        Format::Protobuf => protobuf::decode(bytes).map_err(|error| error.to_string()),
        Format::Cbor => cbor::decode(bytes).map_err(|error| error.to_string()),
        Format::Yaml => {
            let text = String::from_utf8_lossy(bytes);
            yaml(&text).map_err(|error| format!("error converting YAML to JSON: yaml: {}", error.lines().next().unwrap_or_default().trim_start_matches("error: ")))
        }
    }
}

/// A body of a subresource or review, which is decoded where it is handled: an object of whatever kind.
pub fn body(kind: &str, bytes: &[u8], format: Format) -> Result<Value, Status> {
    object_of(kind, read(bytes, format).map_err(Status::bad_request)?, bytes)
}

/// JSON's null is an object without fields; anything else that is none is refused.
fn object_of(kind: &str, value: Value, bytes: &[u8]) -> Result<Value, Status> {
    match value {
        Value::Null => Ok(Value::Object(Map::new())),
        value @ Value::Object(_) => Ok(value),
        other => {
            let into = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
            Err(unrecognized(kind, &format!("couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type {into}", json_word(&other)), bytes))
        }
    }
}

/// A patch's JSON; Err is Go's words.
pub fn patch(bytes: &[u8]) -> Result<Value, String> {
    read(bytes, Format::Json).map_err(|why| why.strip_prefix("couldn't get version/kind; json parse error: ").map(str::to_owned).unwrap_or(why))
}

/// The start of a body that is no object at all, as the refusal shows it (`summarizeData`).
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let (shown, dots) = if bytes.len() > SHOWN { (&bytes[..SHOWN], " ...") } else { (bytes, "") };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(shown)),
        Some(_) => format!("{}{dots}", shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

fn unrecognized(kind: &str, why: &str, bytes: &[u8]) -> Status {
    Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({})", summary(bytes)))
}

/// YAML as sigs.k8s.io/yaml reads it: YAML 1.1 booleans, octal numbers, merge keys; of a key that stands twice the last one counts.
pub fn yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// A key that stands twice, in Go's words; `yaml` keeps the last one.
fn yaml_duplicate(bytes: &[u8]) -> Option<String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let error = serde_saphyr::from_str_with_options::<Value>(&String::from_utf8_lossy(bytes), options).err()?.to_string();
    let (place, rest) = error.lines().find_map(|line| line.split_once("duplicate mapping key: "))?;
    let line = place.split_once("line ")?.1.split(' ').next()?;
    let key = rest.split(", set DuplicateKeyPolicy").next()?;
    Some(format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map"))
}

/// What is applied may not say a thing twice, if that is asked for.
pub fn applied_once(bytes: &[u8], cx: &Context) -> Result<(), Status> {
    if cx.field_validation == FieldValidation::Ignore {
        return Ok(());
    }
    let Some(why) = yaml_duplicate(bytes).map(|why| format!("error converting YAML to JSON: {why}")) else { return Ok(()) };
    if cx.field_validation == FieldValidation::Strict {
        return Err(Status::bad_request(format!("error strict decoding YAML: {why}")));
    }
    cx.warn(why);
    Ok(())
}

/// encoding/json's words for the two mistakes people make.
pub(crate) fn go_json_error(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    if error.to_string().starts_with("recursion limit") {
        return "exceeded max depth".to_owned();
    }
    let offset = bytes.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
    match bytes.get(offset) {
        Some(byte) if error.is_syntax() => format!("invalid character {:?} looking for beginning of value", char::from(*byte)),
        _ => error.to_string(),
    }
}

/// An object for `row`: right group, version and kind, known fields only, right types.
pub fn object(row: &Resource, bytes: &[u8], format: Format, cx: &Context) -> Result<Value, Status> {
    if format == Format::Protobuf {
        let value = protobuf::decode_as(bytes, &row.api_version(), &row.kind).map_err(|error| match error {
            // Known by its kind alone, as any other body.
            ProtobufError::UnknownKind { api_version, kind } => another(&row.api_version(), &row.kind, &api_version, &kind),
            error => unrecognized(&row.kind, &error.to_string(), bytes),
        })?;
        return shape(row, value, &[], cx);
    }
    let value = object_of(&row.kind, read(bytes, format).map_err(|why| unrecognized(&row.kind, &why, bytes))?, bytes)?;
    if row.custom.is_some() && value.get("kind").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(unrecognized(&row.kind, &format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(bytes)), bytes));
    }
    if format == Format::Yaml
        && cx.field_validation != FieldValidation::Ignore
        && let Some(why) = yaml_duplicate(bytes)
    {
        settle_complaints(vec![why], cx, |why| Status::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {why}", row.version, kind = row.kind)))?;
    }
    let duplicates = if format == Format::Json && cx.field_validation != FieldValidation::Ignore { ::api::schema::duplicate_fields(bytes) } else { Vec::new() };
    if row.custom.is_some() {
        return shape(row, value, &duplicates, cx);
    }
    typed_from(&row.schema, &row.api_version(), &row.kind, value, Source { duplicates: &duplicates, json: if format == Format::Cbor { b"" } else { bytes } }, cx)
}

/// The text a value was read from, for telling its mistakes as they stand there; empty if it was none.
#[derive(Clone, Copy, Default)]
struct Source<'a> {
    duplicates: &'a [String],
    json: &'a [u8],
}

/// The same for a value that never was bytes.
pub fn shape(row: &Resource, value: Value, duplicates: &[String], cx: &Context) -> Result<Value, Status> {
    if let Some(custom) = &row.custom {
        return custom_object(row, custom, value, duplicates, cx);
    }
    typed(&row.schema, &row.api_version(), &row.kind, value, duplicates, cx)
}

/// An object of a custom kind: of the version asked for, its metadata settled, unknown fields pruned.
fn custom_object(row: &Resource, custom: &Custom, mut value: Value, duplicates: &[String], cx: &Context) -> Result<Value, Status> {
    let Some(map) = value.as_object_mut() else {
        return Err(Status::bad_request(format!("the object provided is unrecognized (must be of type {}): couldn't get version/kind; json: cannot unmarshal {} into Go value of type struct", row.kind, json_word(&value))));
    };
    let (given_version, given_kind, api_version) = (take_text(map, "apiVersion")?, take_text(map, "kind")?, row.api_version());
    if !given_version.is_empty() && given_version != api_version {
        return Err(Status::bad_request(format!("the API version in the data ({given_version}) does not match the expected API version ({api_version})")));
    }
    if !given_kind.is_empty() && given_kind != row.kind {
        let cause = Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {given_kind:?}: must be {}", row.kind), field: "kind".into() };
        let name = map.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str).unwrap_or_default().to_owned();
        return Err(Status::invalid(&row.group, &row.kind, &name, vec![cause]));
    }
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), row.kind.to_string().into());
    let refused = |why: String| Status::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {why}", row.version, kind = row.kind));
    let mut unknown = metadata::coerce(&mut value, custom.schema()).map_err(|error| refused(format!("{}: Invalid value: {}: {}", error.path, error.value, error.message)))?;
    unknown.extend(prune::resource(&mut value, custom.schema()));
    let mut complaints: Vec<String> = duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
    complaints.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
    settle_complaints(complaints, cx, refused)?;
    Ok(value)
}

/// What `fieldValidation` makes of unknown and duplicate fields.
fn settle_complaints(complaints: Vec<String>, cx: &Context, refused: impl Fn(String) -> Status) -> Result<(), Status> {
    match cx.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => complaints.into_iter().for_each(|text| cx.warn(text)),
        FieldValidation::Strict if complaints.is_empty() => {}
        FieldValidation::Strict => return Err(refused(format!("strict decoding error: {}", complaints.join(", ")))),
    }
    Ok(())
}

/// A value of any known type: what a subresource takes.
pub fn typed(schema: &str, api_version: &str, kind: &str, value: Value, duplicates: &[String], cx: &Context) -> Result<Value, Status> {
    typed_from(schema, api_version, kind, value, Source { duplicates, json: &[] }, cx)
}

fn typed_from(schema: &str, api_version: &str, kind: &str, value: Value, source: Source<'_>, cx: &Context) -> Result<Value, Status> {
    let Value::Object(mut map) = value else {
        return Err(Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json: cannot unmarshal {} into Go value of type struct", json_word(&value))));
    };
    let given_version = take_text(&mut map, "apiVersion")?;
    let given_kind = take_text(&mut map, "kind")?;
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    if (!given_kind.is_empty() && given_kind != kind) || (!given_version.is_empty() && given_version != api_version) {
        return Err(another(api_version, kind, &given_version, &given_kind));
    }
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    let mut value = Value::Object(map);
    if schema.is_empty() {
        return Ok(value);
    }
    let unknown = ::api::schema::check(schema, kind, version, &mut value).map_err(|mismatch| Status::bad_request(mismatch.message))?;
    // As many occurrences before it as make it wrong: the first of an unknown field, the second of a duplicate one.
    let mut wrong: Vec<(&str, usize, &str)> = source.duplicates.iter().map(|path| ("duplicate", 1, path.as_str())).collect();
    wrong.extend(unknown.iter().map(|field| ("unknown", 0, field.path.as_str())));
    if wrong.len() > 1 && !source.json.is_empty() {
        let order = ::api::schema::fields_in_order(source.json);
        let place = |(_, skipped, path): &(&str, usize, &str)| order.iter().enumerate().filter(|(_, known)| known == path).map(|(place, _)| place).nth(*skipped).unwrap_or(usize::MAX);
        wrong.sort_by_cached_key(place);
    }
    let complaints = wrong.iter().map(|(what, _, path)| format!("{what} field {path:?}")).collect();
    settle_complaints(complaints, cx, |why| Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}")))?;
    Ok(value)
}

/// An object of another kind or version than the URL's: unknown, not convertible, or just of another version.
fn another(api_version: &str, kind: &str, given_version: &str, given_kind: &str) -> Status {
    let split = |text: &str| text.split_once('/').map_or((String::new(), text.to_owned()), |(group, version)| (group.to_owned(), version.to_owned()));
    let given_version = if given_version.is_empty() { api_version } else { given_version };
    let given_kind = if given_kind.is_empty() { kind } else { given_kind };
    let (group, version) = split(given_version);
    let frame = |why: String| Status::bad_request(format!("{given_kind} in version {version:?} cannot be handled as a {kind}: {why}"));
    if ::api::table::table().find_kind(&group, &version, given_kind).is_none() {
        return frame(format!("no kind {given_kind:?} is registered for version {given_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""));
    }
    if given_kind != kind {
        return frame(format!("converting ({version}.{given_kind}) to ({}.{kind}): unknown conversion", package(&split(api_version).0)));
    }
    Status::bad_request(format!("the API version in the data ({given_version}) does not match the expected API version ({api_version})"))
}

/// Go's package of a group's internal types is the group's first word; the core group's is `core`.
pub fn package(group: &str) -> &str {
    group.split('.').next().filter(|word| !word.is_empty()).unwrap_or("core")
}

fn take_text(map: &mut Map<String, Value>, field: &str) -> Result<String, Status> {
    match map.remove(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Status::bad_request(format!("couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field .{field} of type string", json_word(&other)))),
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
    fn mistakes_are_told_as_they_stand_in_the_text() {
        let row = ::api::table::table().find("", "v1", "configmaps").unwrap();
        let cx = Context { field_validation: FieldValidation::Strict, ..Context::default() };
        let told = |text: &str| object(row, text.as_bytes(), Format::Json, &cx).unwrap_err().message;
        assert!(told(r#"{"x": 1, "data": {"a": "1", "a": "2"}, "metadata": {"b": 1}}"#).ends_with(r#"unknown field "x", duplicate field "data.a", unknown field "metadata.b""#));
        assert!(told(r#"{"data": {"a": "1", "a": "2"}, "x": 1}"#).ends_with(r#"duplicate field "data.a", unknown field "x""#));
    }

    #[test]
    fn yaml_that_says_a_thing_twice() {
        let text = b"kind: ConfigMap\ndata:\n  a: one\n  a: two\n";
        assert_eq!(parse(text, Format::Yaml).unwrap()["data"]["a"], "two");
        assert_eq!(yaml_duplicate(text).as_deref(), Some("yaml: unmarshal errors:\n  line 4: key \"a\" already set in map"));
        assert_eq!(yaml_duplicate(b"a: 1\nb: 1\n"), None);
    }

    #[test]
    fn broken_json_is_told_in_gos_words() {
        assert!(parse(b"{", Format::Json).unwrap_err().message.ends_with("unexpected end of JSON input"));
        assert!(parse(b"{x}", Format::Json).unwrap_err().message.contains("invalid character 'x'"));
    }

    /// A body that is broken anywhere is refused or read, never a panic; what it may cost is bounded by the parsers' own limits of depth and of aliases.
    #[test]
    fn broken_bodies_never_panic() {
        let row = ::api::table::table().find("apps", "v1", "deployments").unwrap();
        let json = br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","labels":{"a":"\u00e9\ud83d\ude00"}},"spec":{"replicas":3,"template":{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"1e3m"}},"ports":[{"containerPort":80}]}],"tolerations":null}}}}"#;
        let yaml = b"apiVersion: apps/v1\nkind: Deployment\nmetadata: &m {name: d, labels: {a: !!str 1, <<: {b: \"x\"}}}\nspec:\n  replicas: 0o17\n  template:\n    spec: |\n      text\n  more: [1, 2.5e3, ~, *m, ? x : y]\n...\n";
        let protobuf = protobuf::encode(json).unwrap();
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut below = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % limit.max(1) as u64) as usize
        };
        let cx = Context { field_validation: FieldValidation::Strict, ..Context::default() };
        for (seed, format) in [(&json[..], Format::Json), (&yaml[..], Format::Yaml), (&protobuf[..], Format::Protobuf)] {
            for _ in 0..600 {
                let mut bytes = seed.to_vec();
                for _ in 0..=below(3) {
                    let at = below(bytes.len());
                    match below(4) {
                        0 => bytes.truncate(at),
                        1 => bytes.splice(at..at, [b"{[\"&*:-0\xff\n\\"[below(11)]]).for_each(drop),
                        _ if bytes.is_empty() => {}
                        2 => bytes[at] ^= 1 << below(8),
                        _ => bytes[at] = below(256) as u8,
                    }
                }
                let _ = object(row, &bytes, format, &cx);
            }
        }
        for deep in ["[".repeat(100_000), "{\"a\":".repeat(100_000)] {
            assert!(parse(deep.as_bytes(), Format::Json).is_err());
            assert!(parse(deep.as_bytes(), Format::Yaml).is_err());
        }
        // Each line is nine times the one before it.
        let laughs: String = (1..12).map(|line| format!("a{line}: &a{line} [{}]\n", vec![format!("*a{}", line - 1); 9].join(","))).collect();
        assert!(parse(format!("a0: &a0 lol\n{laughs}").as_bytes(), Format::Yaml).is_err());
    }
}
