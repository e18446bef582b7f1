//! One request as the audit log tells it: an `audit.k8s.io/v1` Event, which grows from stage to stage.
//!
//! Mirrors apiserver/pkg/audit/request.go and context.go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::api::{Status, protobuf};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::Audit;
use super::policy::{Decision, Level, Stage};
use super::webhook::Delivery;
use crate::authentication::{User, user_info};
use crate::registry::text;

const MAX_USER_AGENT_BYTES: usize = 1024;
const MAX_SOURCE_ADDRESSES: usize = 32;

/// `metav1.MicroTime`.
fn micro_time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// What is known of a request when it comes.
pub struct Received<'a> {
    pub id: &'a str,
    pub uri: &'a str,
    pub verb: &'a str,
    pub user: &'a User,
    pub source_addresses: Vec<String>,
    pub user_agent: &'a str,
    /// Of a resource.
    pub object: Option<Value>,
}

pub struct Record {
    audit: Arc<Audit>,
    decision: Decision,
    event: Mutex<Value>,
    /// What the request has to wait for.
    deliveries: Mutex<Vec<Delivery>>,
    failed: AtomicBool,
}

impl Record {
    pub(super) fn new(audit: Arc<Audit>, decision: Decision, received: Received<'_>) -> Arc<Self> {
        let mut agent = received.user_agent.to_owned();
        if agent.len() > MAX_USER_AGENT_BYTES {
            agent.truncate((0..=MAX_USER_AGENT_BYTES).rev().find(|end| agent.is_char_boundary(*end)).unwrap_or(0));
            agent.push_str("...TRUNCATED");
        }
        let now = micro_time(audit.now());
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": decision.level.as_str(), "auditID": received.id, "stage": "", "requestURI": received.uri,
            "verb": received.verb, "user": user_info(received.user), "sourceIPs": received.source_addresses.into_iter().take(MAX_SOURCE_ADDRESSES).collect::<Vec<_>>(),
            "requestReceivedTimestamp": now,
        });
        if !agent.is_empty() {
            event["userAgent"] = agent.into();
        }
        if let Some(object) = received.object {
            event["objectRef"] = object;
        }
        Arc::new(Self { audit, decision, event: Mutex::new(event), deliveries: Mutex::default(), failed: AtomicBool::new(false) })
    }

    /// Whether requests' bodies are written down.
    pub fn wants_request(&self) -> bool {
        self.decision.level >= Level::Request
    }

    pub fn wants_response(&self) -> bool {
        self.decision.level >= Level::RequestResponse
    }

    /// `constraint` is the verb of the mode that allowed it.
    pub fn impersonated(&self, user: &User, constraint: Option<&str>) {
        let mut event = self.event.lock();
        event["impersonatedUser"] = user_info(user);
        if let Some(constraint) = constraint {
            event["authenticationMetadata"] = serde_json::json!({"impersonationConstraint": constraint});
        }
    }

    /// The first word on a key stays.
    pub fn annotate(&self, key: &str, value: &str) {
        let mut event = self.event.lock();
        let annotations = &mut event["annotations"];
        if annotations.get(key).is_none() {
            annotations[key] = value.into();
        }
    }

    /// What the client sent: an object, options, or a patch.
    pub fn request(&self, object: &Value) {
        let mut event = self.event.lock();
        if let Some(reference) = event.get_mut("objectRef").and_then(Value::as_object_mut) {
            // What the URL does not say, the object does.
            for field in ["namespace", "name", "uid", "resourceVersion"] {
                let said = text(object, &format!("/metadata/{field}"));
                if !reference.contains_key(field) && !said.is_empty() {
                    reference.insert(field.to_owned(), said.into());
                }
            }
        }
        if self.wants_request() {
            event["requestObject"] = self.shown(object.clone());
        }
    }

    /// A patch is written down as it was sent.
    pub fn request_patch(&self, patch: &Value) {
        if self.wants_request() {
            self.event.lock()["requestObject"] = patch.clone();
        }
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.decision.omit_managed_fields {
            without_managed_fields(&mut object);
        }
        object
    }

    pub fn refused(&self, status: &Status) {
        let mut shown = serde_json::to_value(status).unwrap_or_default();
        if let Some(status) = shown.as_object_mut() {
            for field in ["kind", "apiVersion"] {
                status.remove(field);
            }
        }
        self.event.lock()["responseStatus"] = shown;
    }

    /// The answer's code and, as far as it is whole and wanted, its body.
    pub fn answered(&self, code: u16, body: Option<&[u8]>) {
        let parsed = body.filter(|body| !body.is_empty()).and_then(|body| serde_json::from_slice::<Value>(body).ok().or_else(|| protobuf::decode(body).ok()));
        let mut event = self.event.lock();
        let failure = parsed.as_ref().filter(|object| text(object, "/kind") == "Status" && text(object, "/status") == "Failure");
        if event.get("responseStatus").is_none() {
            let mut status = json!({"metadata": {}, "code": code});
            for field in ["status", "reason", "message", "details"] {
                if let Some(value) = failure.and_then(|failure| failure.get(field)) {
                    status[field] = value.clone();
                }
            }
            event["responseStatus"] = status;
        }
        if self.wants_response()
            && let Some(object) = parsed
        {
            event["responseObject"] = self.shown(object);
        }
    }

    /// Writes the event down as it is at this stage.
    pub fn stage(&self, stage: Stage) {
        if self.decision.omit_stages.contains(&stage) {
            return;
        }
        let now = self.audit.now();
        let mut event = self.event.lock();
        event["stage"] = stage.as_str().into();
        event["stageTimestamp"] = micro_time(now).into();
        let taken = self.audit.write(&event, now);
        self.deliveries.lock().extend(taken.delivery);
        self.failed.fetch_or(taken.failed, Ordering::Relaxed);
    }

    /// Waits until those who are to be waited for have the events; false: the request is not to go on.
    pub async fn delivered(&self) -> bool {
        let deliveries = std::mem::take(&mut *self.deliveries.lock());
        let mut all = true;
        for delivery in deliveries {
            all &= delivery.await.unwrap_or(false);
        }
        let refused = self.failed.load(Ordering::Relaxed) || (!all && self.audit.is_strict());
        !refused
    }

    pub fn rejected(&self) {
        self.audit.metrics.rejected();
    }
}

/// The end of a stream is the end of its request.
pub struct Completed(pub Arc<Record>);

impl Drop for Completed {
    fn drop(&mut self) {
        self.0.stage(Stage::ResponseComplete);
    }
}

/// Of an object, of each in a list, of each in a table's rows.
fn without_managed_fields(object: &mut Value) {
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(object);
    for (list, within) in [("items", None), ("rows", Some("object"))] {
        for item in object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            match within {
                None => strip(item),
                Some(field) => item.get_mut(field).into_iter().for_each(strip),
            }
        }
    }
}

/// `ObjectReference` of what a URL names.
pub fn reference(fields: [(&str, &str); 6]) -> Value {
    fields.into_iter().filter(|(_, value)| !value.is_empty()).map(|(field, value)| (field.to_owned(), Value::from(value))).collect::<Map<String, Value>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_fields_go_from_everywhere() {
        let one = || json!({"metadata": {"name": "a", "managedFields": [{}]}});
        for mut object in [one(), json!({"items": [one()], "metadata": {}}), json!({"rows": [{"object": one()}]})] {
            without_managed_fields(&mut object);
            assert!(!object.to_string().contains("managedFields"), "{object}");
        }
    }

    #[test]
    fn times_have_microseconds() {
        assert_eq!(micro_time(Timestamp::from_microsecond(1_700_000_000_000_001).unwrap()), "2023-11-14T22:13:20.000001Z");
        assert_eq!(micro_time(Timestamp::from_second(1_700_000_000).unwrap()), "2023-11-14T22:13:20.000000Z");
    }
}
