//! `metav1.Status`: the one error every API operation answers with, and its wording.
//!
//! Texts and codes follow k8s.io/apimachinery/pkg/api/errors; clients match on them. One constructor a reason.

use serde::{Deserialize, Serialize};

/// `metav1.StatusReason`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub enum Reason {
    #[default]
    #[serde(rename = "")]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
    /// In others' words, kept as they are: those of webhooks, `NonZeroExitCode`.
    #[serde(untagged)]
    Other(String),
}

/// `metav1.StatusCause`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Cause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// `metav1.StatusDetails`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
    /// Sent even with nothing in them, as upstream's `NewGenericServerResponse` does.
    #[serde(skip)]
    pub shown: bool,
}

impl Details {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `metav1.Status`. `Display` is its message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(default, rename_all = "camelCase")]
#[error("{message}")]
pub struct Status {
    kind: String,
    api_version: String,
    metadata: serde_json::Map<String, serde_json::Value>,
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "is_unknown")]
    pub reason: Reason,
    #[serde(skip_serializing_if = "Details::is_empty")]
    pub details: Details,
    #[serde(skip_serializing_if = "is_zero")]
    pub code: u16,
}

fn is_unknown(reason: &Reason) -> bool {
    *reason == Reason::Unknown
}

fn is_zero(code: &u16) -> bool {
    *code == 0
}

impl Default for Status {
    fn default() -> Self {
        Self {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: Default::default(),
            status: "Failure".into(),
            message: String::new(),
            reason: Reason::Unknown,
            details: Details::default(),
            code: 0,
        }
    }
}

/// `plural.group`, or `plural` in the core group: how upstream writes a `schema.GroupResource`.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), ..Self::default() }
    }

    fn of(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details.group = group.to_owned();
        self.details.kind = kind.to_owned();
        self.details.name = name.to_owned();
        self
    }

    /// What nothing more is known of (`NewGenericServerResponse`).
    pub fn generic(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        let mut status = Self::failure(code, reason, message);
        status.details.shown = true;
        status
    }

    pub fn success() -> Self {
        Self { status: "Success".into(), ..Self::default() }
    }

    pub fn with_code(mut self, code: u16) -> Self {
        self.code = code;
        self
    }

    /// Where an expired list goes on, in the present.
    pub fn with_continue(mut self, token: String) -> Self {
        self.metadata.insert("continue".to_owned(), token.into());
        self
    }

    /// What a delete of an object answers once it is gone.
    pub fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Self {
        let mut status = Self::success().of(group, resource, name);
        status.details.uid = uid.to_owned();
        status
    }

    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::failure(404, Reason::NotFound, format!("{} \"{name}\" not found", qualified(group, resource))).of(group, resource, name)
    }

    /// No such path.
    pub fn no_route() -> Self {
        Self::generic(404, Reason::NotFound, "the server could not find the requested resource")
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::failure(409, Reason::AlreadyExists, format!("{} \"{name}\" already exists", qualified(group, resource))).of(group, resource, name)
    }

    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::failure(409, Reason::Conflict, message).of(group, resource, name)
    }

    /// A stale `resourceVersion`.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(group, resource, name, "the object has been modified; please apply your changes to the latest version and try again")
    }

    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for cause in &causes {
            let text = if cause.field.is_empty() { cause.message.clone() } else { format!("{}: {}", cause.field, cause.message) };
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let listed = match texts.as_slice() {
            [] => "<nil>".to_owned(),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {listed}", if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") });
        let mut status = Self::failure(422, Reason::Invalid, message).of(group, kind, name);
        status.details.causes = causes;
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, message)
    }

    pub fn unauthorized() -> Self {
        Self::failure(401, Reason::Unauthorized, "Unauthorized")
    }

    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let subject = if resource.is_empty() { String::new() } else if name.is_empty() { format!("{} ", qualified(group, resource)) } else { format!("{} \"{name}\" ", qualified(group, resource)) };
        let message = if subject.is_empty() { format!("forbidden: {why}") } else { format!("{subject}is forbidden: {why}") };
        Self::failure(403, Reason::Forbidden, message).of(group, resource, name)
    }

    pub fn method_not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{}\"", qualified(group, resource));
        Self::failure(405, Reason::MethodNotAllowed, message).of(group, resource, "")
    }

    pub fn not_acceptable(accepted: &str) -> Self {
        Self::failure(406, Reason::NotAcceptable, format!("only the following media types are accepted: {accepted}"))
    }

    pub fn unsupported_media_type(accepted: &str) -> Self {
        Self::failure(415, Reason::UnsupportedMediaType, format!("the body of the request was in an unknown format - accepted media types include: {accepted}"))
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::failure(413, Reason::RequestEntityTooLarge, message)
    }

    /// The revision asked for has been compacted away.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Gone, message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(429, Reason::TooManyRequests, message);
        status.details.retry_after_seconds = Some(retry_after_seconds);
        status
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        let mut status = Self::failure(500, Reason::InternalError, format!("Internal error occurred: {message}"));
        status.details.causes.push(Cause { message: message.to_string(), ..Cause::default() });
        status
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, message)
    }

    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(504, Reason::Timeout, format!("Timeout: {}", message.into()));
        status.details.retry_after_seconds = Some(retry_after_seconds);
        status
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// A list or watch has to start over.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason, Reason::Expired | Reason::Gone) || self.code == 410
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_upstreams() {
        let cases = [
            (Status::not_found("", "pods", "a"), r#"pods "a" not found"#),
            (Status::not_found("apps", "deployments", "a"), r#"deployments.apps "a" not found"#),
            (
                Status::modified("apps", "deployments", "a"),
                r#"Operation cannot be fulfilled on deployments.apps "a": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (Status::forbidden("", "", "", r#"User "system:anonymous" cannot get path "/""#), r#"forbidden: User "system:anonymous" cannot get path "/""#),
            (
                Status::invalid("apps", "Deployment", "a", vec![Cause { reason: "FieldValueRequired".into(), message: "Required value".into(), field: "spec.selector".into() }]),
                r#"Deployment.apps "a" is invalid: spec.selector: Required value"#,
            ),
        ];
        for (status, text) in cases {
            assert_eq!(status.message, text);
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let status = Status::not_found("", "pods", "a");
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
