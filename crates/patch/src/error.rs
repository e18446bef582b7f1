//! Why a patch cannot be applied, in upstream's words, and the status the API server answers with.
//!
//! Mirrors apimachinery's `mergepatch/errors.go` and the error handling of apiserver's `endpoints/handlers/patch.go`.

use api::{Reason, Status};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PatchError {
    #[error("error decoding patch: {0}")]
    Decode(String),
    #[error("The allowed maximum operations in a JSON patch is {most}, got {got}")]
    TooManyOperations { most: usize, got: usize },
    /// A JSON patch operation failed; upstream keeps the reason to itself.
    #[error("{0}")]
    Operation(String),
    #[error("json: cannot unmarshal {0} into Go value of type map[string]interface {{}}")]
    NotAnObject(&'static str),
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoMergeKey { item: String, key: String },
    #[error("expected a {wanted}, but received a {got}")]
    WrongType { wanted: &'static str, got: &'static str },
    #[error("unknown patch type: {directive} in map: {item}")]
    UnknownDirective { directive: String, item: String },
    #[error("unable to find api field in struct {kind} for the json field {field:?}")]
    UnknownField { kind: String, field: String },
    /// `kubectl apply` without `--overwrite`.
    #[error("patch:\n{patch}\nconflicts with changes made from original to current:\n{changed}\n")]
    Conflict { patch: String, changed: String },
    #[error("{0}")]
    Other(String),
}

impl PatchError {
    pub(crate) fn no_merge_key(item: &serde_json::Map<String, Value>, key: &str) -> Self {
        Self::NoMergeKey { item: go_map(item), key: key.to_owned() }
    }

    pub(crate) fn wrong_type(wanted: &'static str, got: &Value) -> Self {
        Self::WrongType { wanted, got: go_kind(got) }
    }

    /// What the API server answers.
    pub fn status(&self) -> Status {
        match self {
            Self::Decode(_) | Self::NotAnObject(_) | Self::PrimitiveList | Self::RetainKeys | Self::SetElementOrder => {
                Status::failure(400, Reason::BadRequest, self.to_string())
            }
            Self::TooManyOperations { .. } => Status::failure(413, Reason::RequestEntityTooLarge, format!("Request entity is too large: {self}")),
            Self::Operation(_) | Self::ListOfLists => Status::generic(422, Reason::Invalid, "the server rejected our request due to an error in our request"),
            Self::Conflict { .. } => Status::failure(409, Reason::Conflict, self.to_string()),
            // Upstream makes no Status of the others.
            _ => Status::failure(500, Reason::Unknown, self.to_string()),
        }
    }
}

/// `map[name:a value:1]`, as Go prints a map.
pub(crate) fn go_map(map: &serde_json::Map<String, Value>) -> String {
    let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
    format!("map[{}]", entries.join(" "))
}

/// A value as Go prints it: `map[spec:map[replicas:5]]`.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => go_map(map),
        other => other.to_string(),
    }
}

/// As Go's `%s` shows the type of nothing at all.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    if value.is_null() { "%!s(<nil>)" } else { api::go::type_of(value) }
}
