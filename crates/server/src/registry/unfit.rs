//! What is wrong with a patch, or with what came of it, in upstream's words (apiserver's endpoints/handlers/patch.go).
//!
//! What came of a patch and is no object of its kind any more is told with the patched object (`Invalid value` of `patch`), whatever library found it out:
//! after JSON and merge patches that is the JSON decoder, after strategic ones apimachinery's converter, which speaks of Go's kinds.

use ::api::go::json_word;
use ::api::{Cause, Reason, Status};
use client::PatchKind;
use serde_json::Value;

use crate::api::FieldValidation;

const MAP: &str = "map[string]interface {}";

/// `" \"\" is invalid: patch: Invalid value: …"`.
pub fn invalid(value: &str, why: &str) -> Status {
    let cause = Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {value:?}: {why}"), field: "patch".into() };
    Status::invalid("", "", "", vec![cause])
}

/// A patch that cannot be read at all.
pub fn unread(kind: PatchKind, why: &str, validation: FieldValidation) -> Status {
    match kind {
        PatchKind::Strategic | PatchKind::Apply => Status::bad_request(why),
        _ if validation != FieldValidation::Ignore => Status::bad_request(format!("error decoding patch: {why}")),
        PatchKind::Merge => Status::bad_request("Invalid JSON Patch"),
        PatchKind::Json => Status::bad_request(why),
    }
}

/// Whether a patch that is JSON is a patch; what counts as an empty one is given back as such.
pub fn document(kind: PatchKind, patch: Value, validation: FieldValidation) -> Result<Value, Status> {
    let into = |value: &Value, wanted: &str| format!("json: cannot unmarshal {} into Go value of type {wanted}", json_word(value));
    let strict = validation != FieldValidation::Ignore;
    match (kind, &patch) {
        (PatchKind::Json, Value::Null) => return Ok(Value::Array(Vec::new())),
        (PatchKind::Strategic, Value::Null) => return Ok(Value::Object(Default::default())),
        (PatchKind::Json, Value::Array(operations)) => {
            if let Some(other) = operations.iter().find(|operation| !matches!(operation, Value::Object(_) | Value::Null)) {
                return Err(unread(kind, &into(other, if strict { "handlers.jsonPatchOp" } else { "jsonpatch.Operation" }), validation));
            }
        }
        (PatchKind::Json, other) => return Err(unread(kind, &into(other, if strict { "[]handlers.jsonPatchOp" } else { "jsonpatch.Patch" }), validation)),
        (PatchKind::Merge, Value::Null) => return Err(Status::bad_request("Invalid JSON Patch")),
        (PatchKind::Merge, Value::Array(_)) if !strict => {
            let into = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
            return Err(invalid(&patch.to_string(), &format!("couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type {into}")));
        }
        (PatchKind::Merge | PatchKind::Strategic, Value::Object(_)) => {}
        (PatchKind::Merge | PatchKind::Strategic, other) => return Err(unread(kind, &into(other, MAP), validation)),
        (PatchKind::Apply, Value::Null) => return Ok(Value::Object(Default::default())),
        (PatchKind::Apply, Value::Object(_)) => {}
        (PatchKind::Apply, other) => return Err(Status::bad_request(format!("error decoding YAML: error unmarshaling JSON: while decoding JSON: {}", into(other, MAP)))),
    }
    Ok(patch)
}

/// What is said twice in a merge patch, and what a JSON patch's operations have beside what they may have.
pub fn complaints(kind: PatchKind, patch: &Value, bytes: &[u8]) -> Vec<String> {
    match kind {
        PatchKind::Merge | PatchKind::Strategic => ::api::schema::duplicate_fields(bytes).iter().map(|path| format!("duplicate field {path:?}")).collect(),
        PatchKind::Json => {
            let operations = patch.as_array().into_iter().flatten().enumerate();
            let unknown = operations.flat_map(|(index, operation)| operation.as_object().into_iter().flatten().map(move |(key, _)| (index, key)));
            unknown.filter(|(_, key)| !matches!(key.as_str(), "op" | "path" | "from" | "value")).map(|(index, key)| format!("json patch unknown field \"[{index}].{key}\"")).collect()
        }
        PatchKind::Apply => Vec::new(),
    }
}

/// What the decoder says of the patched object, as PATCH tells it.
pub fn patched(object_kind: &str, schema: &str, kind: PatchKind, patch: &Value, patched: &Value, refused: Status) -> Status {
    if refused.code != 400 {
        return refused;
    }
    let why = unframed(object_kind, &refused);
    match kind {
        PatchKind::Strategic => invalid(&::patch::go_value(patch), &converter(why)),
        _ => invalid(&super::go_order::text(schema, kind, patch, patched), why),
    }
}

/// What the decoder says of the object that an applied configuration was merged into.
pub fn applied(config: &Value, object_kind: &str, refused: Status) -> Status {
    if refused.code != 400 {
        return refused;
    }
    let (named, kind) = (::patch::apply::named(config), ::patch::apply::go_kind(config));
    let why = converter(unframed(object_kind, &refused));
    Status::failure(500, Reason::Unknown, format!("failed to convert new object ({named}) to proper version: unable to convert unstructured object to {kind}: {why}"))
}

/// Of words of POST and PUT, `Pod in version "v1" cannot be handled as a Pod: …`, what comes last.
fn unframed<'a>(object_kind: &str, refused: &'a Status) -> &'a str {
    let frame = format!(" cannot be handled as a {object_kind}: ");
    refused.message.split_once(&frame).map_or(refused.message.as_str(), |(_, why)| why)
}

/// The JSON decoder, of something that should have been a text.
pub fn no_text(given: &Value) -> String {
    let value = if given.is_number() { format!("number {given}") } else { json_word(given).to_owned() };
    format!("json: cannot unmarshal {value} into Go struct field .kind of type string")
}

/// The JSON decoder's words as apimachinery's converter would have put them.
fn converter(why: &str) -> String {
    // What a type reads of itself (times, quantities) it tells of itself.
    let Some((given, rest)) = why.strip_prefix("json: cannot unmarshal ").and_then(|rest| rest.split_once(" into Go struct field ")) else {
        return if why.starts_with("illegal base64") { format!("error decoding from json: {why}") } else { why.to_owned() };
    };
    let (given, detail) = given.split_once(' ').unwrap_or((given, ""));
    let wanted = rest.rsplit_once(" of type ").map_or(rest, |(_, wanted)| wanted);
    let (kind, go) = match given {
        "number" if detail.contains(['.', 'e', 'E']) => ("float64", "float64"),
        "number" => ("int64", "int64"),
        "array" => ("slice", "[]interface {}"),
        "object" => ("map", MAP),
        scalar => (scalar, scalar),
    };
    let simple = ["string", "bool", "int32", "int64", "float64"].contains(&wanted);
    let convertible = matches!((go, wanted), ("int64", "string") | ("int64" | "float64", "int32" | "int64" | "float64"));
    match wanted {
        _ if simple && convertible => format!("cannot convert {go} to {wanted}"),
        _ if simple => format!("unrecognized type: {wanted}"),
        _ if wanted.starts_with("map[") => format!("cannot restore map from {kind}"),
        _ if wanted.starts_with("[]") => format!("cannot restore slice from {kind}"),
        // Texts with names of their own: `v1.ServiceAffinity`.
        _ if !is_struct(wanted) && go == "int64" => format!("cannot convert {go} to {wanted}"),
        _ if !is_struct(wanted) => "unrecognized type: string".to_owned(),
        _ => format!("cannot restore struct from: {kind}"),
    }
}

fn is_struct(go_name: &str) -> bool {
    ::api::schema::types().iter().any(|info| info.go_name() == go_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_patch() {
        let strict = FieldValidation::Warn;
        for (kind, patch, validation, said) in [
            (PatchKind::Json, json!({}), strict, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
            (PatchKind::Json, json!({}), FieldValidation::Ignore, "json: cannot unmarshal object into Go value of type jsonpatch.Patch"),
            (PatchKind::Json, json!([5]), strict, "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"),
            (PatchKind::Merge, json!([]), strict, "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
            (PatchKind::Merge, json!("x"), FieldValidation::Ignore, "Invalid JSON Patch"),
            (PatchKind::Merge, json!(null), strict, "Invalid JSON Patch"),
            (PatchKind::Strategic, json!([]), strict, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
            (PatchKind::Apply, json!(5), strict, "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go value of type map[string]interface {}"),
        ] {
            let refused = document(kind, patch.clone(), validation).unwrap_err();
            assert_eq!((refused.message.as_str(), refused.code), (said, 400), "{kind:?} {patch}");
        }
        assert_eq!(document(PatchKind::Json, json!(null), strict).unwrap(), json!([]));
        assert_eq!(document(PatchKind::Strategic, json!(null), strict).unwrap(), json!({}));
        assert_eq!(document(PatchKind::Merge, json!([]), FieldValidation::Ignore).unwrap_err().code, 422);
    }

    #[test]
    fn the_converters_words() {
        for (json, said) in [
            ("json: cannot unmarshal number into Go struct field ConfigMap.data of type string", "cannot convert int64 to string"),
            ("json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string", "cannot restore map from slice"),
            ("json: cannot unmarshal number into Go struct field ConfigMap.metadata of type v1.ObjectMeta", "cannot restore struct from: int64"),
            ("json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32", "unrecognized type: int32"),
            ("json: cannot unmarshal number into Go struct field ServiceSpec.spec.sessionAffinity of type v1.ServiceAffinity", "cannot convert int64 to v1.ServiceAffinity"),
            ("json: cannot unmarshal bool into Go struct field ServiceSpec.spec.sessionAffinity of type v1.ServiceAffinity", "unrecognized type: string"),
            ("json: cannot unmarshal number 1.5 into Go struct field ConfigMap.data of type string", "unrecognized type: string"),
            ("json: cannot unmarshal number into Go value of type string", "json: cannot unmarshal number into Go value of type string"),
            ("quantities must match the regular expression 'x'", "quantities must match the regular expression 'x'"),
            ("illegal base64 data at input byte 0", "error decoding from json: illegal base64 data at input byte 0"),
        ] {
            assert_eq!(converter(json), said);
        }
    }
}
