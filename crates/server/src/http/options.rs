//! The query parameters of requests: read as upstream reads them, refused in its words.
//!
//! Mirrors apimachinery's `ParameterCodec`, meta/v1/validation (CreateOptions and friends) and meta/internalversion/validation (ListOptions).

use ::api::go::json_word;
use ::api::{Cause, Status};
use client::{ListOptions, WatchOptions};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::Method;
use serde_json::{Value, json};

use crate::api::{Context, FieldValidation};
use crate::path::Query;

const MAX_FIELD_MANAGER_BYTES: usize = 128;
const APPLY: &str = "application/apply-patch+yaml";
pub const APPLY_CBOR: &str = "application/apply-patch+cbor";

fn cause(reason: &str, field: &str, message: String) -> Cause {
    Cause { reason: reason.into(), message, field: field.into() }
}

fn forbidden(field: &str, why: &str) -> Cause {
    cause("FieldValueForbidden", field, format!("Forbidden: {why}"))
}

/// `strconv.ParseInt` of a parameter; a missing or empty one is none.
pub fn integer(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse::<i64>().map(Some).map_err(|error| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
    })
}

/// What holds for all writes: `CreateOptions`, `UpdateOptions`, `PatchOptions`; `DeleteOptions` knows `dryRun` only.
pub fn write(cx: &mut Context, query: &Query, parts: &Parts) -> Result<(), Status> {
    let kind = match parts.method {
        Method::POST => "CreateOptions",
        Method::PUT => "UpdateOptions",
        Method::PATCH => "PatchOptions",
        Method::DELETE => "DeleteOptions",
        _ => return Ok(()),
    };
    let applies = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|media| [APPLY, APPLY_CBOR].contains(&media.split(';').next().unwrap_or("").trim()));
    let mut causes = Vec::new();
    let manager = query.text("fieldManager");
    if kind == "PatchOptions" {
        if applies && manager.is_empty() {
            causes.push(cause("FieldValueRequired", "fieldManager", "Required value: is required for apply patch".into()));
        }
        if !applies && query.get("force").is_some() {
            causes.push(forbidden("force", "may not be specified for non-apply patch"));
        }
    }
    if kind != "DeleteOptions" {
        if manager.len() > MAX_FIELD_MANAGER_BYTES {
            causes.push(cause("FieldValueTooLong", "fieldManager", format!("Too long: may not be more than {MAX_FIELD_MANAGER_BYTES} bytes")));
        }
        for (at, letter) in manager.char_indices().filter(|(_, letter)| letter.is_control() || (letter.is_whitespace() && *letter != ' ')) {
            causes.push(cause("FieldValueInvalid", "fieldManager", format!("Invalid value: {manager:?}: invalid character U+{:04X} (at position {at})", u32::from(letter))));
        }
    }
    let dry: Vec<&str> = query.all("dryRun").collect();
    if let Some(unknown) = unknown_dry_run(&dry) {
        causes.push(unknown);
    }
    cx.dry_run = dry.contains(&"All");
    cx.field_validation = match query.get("fieldValidation") {
        None | Some("" | "Warn") => FieldValidation::Warn,
        Some("Strict") => FieldValidation::Strict,
        Some("Ignore") => FieldValidation::Ignore,
        Some(other) => {
            if kind != "DeleteOptions" {
                causes.push(cause("FieldValueNotSupported", "fieldValidation", format!("Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"")));
            }
            FieldValidation::Warn
        }
    };
    if !causes.is_empty() {
        return Err(Status::invalid("meta.k8s.io", kind, "", causes));
    }
    cx.force = query.flag("force");
    cx.field_manager = manager;
    if cx.field_manager.is_empty() {
        // Upstream takes the program's name from the User-Agent.
        let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
        cx.field_manager = agent.split('/').next().unwrap_or("unknown").chars().take(MAX_FIELD_MANAGER_BYTES).collect();
    }
    Ok(())
}

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

fn unknown_dry_run(dry: &[&str]) -> Option<Cause> {
    let unknown = dry.iter().any(|value| !matches!(*value, "All" | ""));
    unknown.then(|| cause("FieldValueNotSupported", "dryRun", format!("Unsupported value: {}: supported values: \"All\"", json!(dry))))
}

/// Whether a body is what a DELETE takes.
pub fn is_delete_options(given: &Value) -> Result<(), Status> {
    let text = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or("");
    if !matches!(given, Value::Object(_) | Value::Null) {
        let into = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        return Err(Status::bad_request(format!("couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type {into}", json_word(given))));
    }
    match text("kind") {
        // A precondition or a dry run that is not understood is none: then nothing is deleted.
        "" | "DeleteOptions" => {
            let mut options = if given.is_null() { json!({}) } else { given.clone() };
            ::api::schema::check(DELETE_OPTIONS, "DeleteOptions", "v1", &mut options).map_err(|mismatch| Status::bad_request(mismatch.cause))?;
            let dry: Vec<&str> = given.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
            match unknown_dry_run(&dry) {
                Some(cause) => Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause])),
                None => Ok(()),
            }
        }
        other => {
            let version = Some(text("apiVersion")).filter(|version| !version.is_empty()).unwrap_or("meta.k8s.io/v1");
            Err(Status::bad_request(format!("no kind {other:?} is registered for version {version:?} in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"")))
        }
    }
}

fn fields(query: &Query, name: Option<&str>) -> String {
    let fields = query.text("fieldSelector");
    match name {
        None => fields,
        Some(name) if fields.is_empty() => format!("metadata.name={name}"),
        Some(name) => format!("{fields},metadata.name={name}"),
    }
}

/// What a LIST asks for.
pub fn list(query: &Query, name: Option<&str>) -> Result<ListOptions, Status> {
    // Read, though a list does not end earlier for it: nonsense is refused.
    integer(query, "timeoutSeconds")?;
    let limit = integer(query, "limit")?.unwrap_or(0);
    let mut causes = Vec::new();
    let matching = query.text("resourceVersionMatch");
    let version = query.text("resourceVersion");
    if !matching.is_empty() {
        if version.is_empty() {
            causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if !query.text("continue").is_empty() {
            causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(matching.as_str(), "Exact" | "NotOlderThan") {
            causes.push(cause("FieldValueNotSupported", "resourceVersionMatch", format!("Unsupported value: {matching:?}: supported values: \"Exact\", \"NotOlderThan\", \"\"")));
        }
        if matching == "Exact" && version == "0" {
            causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
    }
    if query.get("sendInitialEvents").is_some() {
        causes.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if !causes.is_empty() {
        return Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes));
    }
    Ok(ListOptions {
        label_selector: query.text("labelSelector"),
        field_selector: fields(query, name),
        // Zero or less is no limit.
        limit: usize::try_from(limit).unwrap_or(0),
        continue_token: query.text("continue"),
        resource_version: version,
        resource_version_match: matching,
    })
}

/// What a WATCH asks for.
pub fn watch(query: &Query) -> Result<WatchOptions, Status> {
    let timeout = integer(query, "timeoutSeconds")?;
    integer(query, "limit")?;
    let mut causes = Vec::new();
    let matching = query.text("resourceVersionMatch");
    let initial = query.get("sendInitialEvents");
    if initial.is_some() && matching != "NotOlderThan" {
        causes.push(forbidden("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    }
    if !matching.is_empty() {
        if initial.is_none() {
            causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
        }
        if matching != "NotOlderThan" {
            causes.push(cause("FieldValueNotSupported", "resourceVersionMatch", format!("Unsupported value: {matching:?}: supported values: \"NotOlderThan\"")));
        }
        if !query.text("continue").is_empty() {
            causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    if !causes.is_empty() {
        return Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes));
    }
    Ok(WatchOptions {
        label_selector: query.text("labelSelector"),
        field_selector: query.text("fieldSelector"),
        resource_version: query.text("resourceVersion"),
        allow_bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events: initial.map(|_| query.flag("sendInitialEvents")),
        timeout_seconds: timeout.and_then(|seconds| u64::try_from(seconds).ok()),
    })
}
