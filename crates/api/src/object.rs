//! One revision of one API object: its bytes as every client gets them, and what was decoded of them, at most once.
//!
//! The bytes are the JSON that GET, LIST and WATCH send (decision 2 of the design); readers splice them and never encode again.
//! The typed value and the metadata are decoded on first use and shared by all who hold the object.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

/// Why bytes are not the object that was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot decode {what}: {message}")]
pub struct DecodeError {
    pub what: &'static str,
    pub message: String,
}

/// `metav1.ObjectMeta`, as far as machinery needs it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    pub name: String,
    pub namespace: Option<String>,
    pub uid: String,
    pub resource_version: String,
    pub generation: Option<i64>,
    pub creation_timestamp: Option<String>,
    pub deletion_timestamp: Option<String>,
    pub deletion_grace_period_seconds: Option<i64>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner_references: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: Option<bool>,
    pub block_owner_deletion: Option<bool>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Meta,
}

struct Head {
    api_version: Box<str>,
    kind: Box<str>,
    meta: Meta,
}

/// See the module head. Cheap to share as `Arc<Object>`.
pub struct Object {
    bytes: Bytes,
    resource_version: u64,
    archived: bool,
    head: OnceLock<Box<Head>>,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
    fields: OnceLock<Fields>,
}

/// Values of an object's fields by name.
pub type Fields = Box<[(Box<str>, Box<str>)]>;

impl Object {
    /// `bytes` is one JSON object which already carries `resource_version`.
    pub fn new(bytes: Bytes, resource_version: u64) -> Self {
        Self { bytes, resource_version, archived: false, head: OnceLock::new(), typed: OnceLock::new(), fields: OnceLock::new() }
    }

    /// The same revision for an archive: its bytes, and nothing decoded of them.
    pub fn archived(&self) -> Self {
        Self { archived: true, ..Self::new(self.bytes.clone(), self.resource_version) }
    }

    /// What may be decoded: the object itself, or a copy of its own of an archived one, which would keep what is decoded as long as the archive.
    pub fn readable(self: &Arc<Self>) -> Arc<Self> {
        if self.archived { Arc::new(Self::new(self.bytes.clone(), self.resource_version)) } else { Arc::clone(self) }
    }

    /// Whether this is an archive's copy.
    pub fn is_archived(&self) -> bool {
        self.archived
    }

    /// Whether anything decoded is kept with it.
    pub fn is_decoded(&self) -> bool {
        self.head.get().is_some() || self.typed.get().is_some()
    }

    /// From a peer: the resource version is read from the metadata.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let envelope: Envelope = serde_json::from_slice(&bytes).map_err(|error| DecodeError { what: "object", message: error.to_string() })?;
        let resource_version = envelope.metadata.resource_version.parse().unwrap_or(0);
        let object = Self::new(bytes, resource_version);
        let _ = object.head.set(Box::new(Head {
            api_version: envelope.api_version.into(),
            kind: envelope.kind.into(),
            meta: envelope.metadata,
        }));
        Ok(object)
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    fn head(&self) -> &Head {
        self.head.get_or_init(|| {
            // What is stored was written by us; a peer's bytes were decoded in `decode`. Should it still not parse, it has no metadata.
            let envelope: Envelope =
                serde_json::from_slice(&self.bytes).unwrap_or(Envelope { api_version: String::new(), kind: String::new(), metadata: Meta::default() });
            Box::new(Head { api_version: envelope.api_version.into(), kind: envelope.kind.into(), meta: envelope.metadata })
        })
    }

    pub fn meta(&self) -> &Meta {
        &self.head().meta
    }

    pub fn api_version(&self) -> &str {
        &self.head().api_version
    }

    pub fn kind(&self) -> &str {
        &self.head().kind
    }

    /// The typed value, decoded once for all holders. A second type for the same object (rare) is decoded each time.
    pub fn typed<T: crate::Typed>(&self) -> Result<Arc<T>, DecodeError> {
        if let Some(known) = self.typed.get()
            && let Ok(value) = Arc::clone(known).downcast::<T>()
        {
            return Ok(value);
        }
        let failed = |error: serde_json::Error| DecodeError { what: std::any::type_name::<T>(), message: error.to_string() };
        let value: Arc<T> = Arc::new(T::from_json(&self.bytes).or_else(|error| T::from_json(self.completed().ok_or(error)?.as_bytes())).map_err(failed)?);
        let _ = self.typed.set(value.clone());
        Ok(value)
    }

    /// With what Go reads as zero values in conditions that clients left incomplete; nothing when they are complete.
    fn completed(&self) -> Option<String> {
        let mut value = self.value().ok()?;
        let mut changed = false;
        for condition in value.pointer_mut("/status/conditions")?.as_array_mut()?.iter_mut().filter_map(Value::as_object_mut) {
            for (field, zero) in [("lastTransitionTime", "0001-01-01T00:00:00Z"), ("reason", ""), ("message", "")] {
                if condition.get(field).is_none_or(Value::is_null) {
                    condition.insert(field.to_owned(), zero.into());
                    changed = true;
                }
            }
        }
        changed.then(|| value.to_string())
    }

    /// The fields that selectors ask for, as `find` finds them in the object: once for all holders, who must all look for the same ones.
    pub fn fields(&self, find: impl FnOnce(&Value) -> Fields) -> &[(Box<str>, Box<str>)] {
        self.fields.get_or_init(|| self.value().map(|value| find(&value)).unwrap_or_default())
    }

    /// A fresh copy to change.
    pub fn value(&self) -> Result<Value, DecodeError> {
        serde_json::from_slice(&self.bytes).map_err(|error| DecodeError { what: "object", message: error.to_string() })
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meta = self.meta();
        write!(f, "{} {}/{}@{}", self.kind(), meta.namespace.as_deref().unwrap_or(""), meta.name, self.resource_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    const JSON: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b","resourceVersion":"7","labels":{"x":"y"}},"data":{"k":"v"}}"#;

    #[test]
    fn decodes_once_and_shares() {
        let object = Object::decode(Bytes::from_static(JSON.as_bytes())).unwrap();
        assert_eq!(object.resource_version(), 7);
        assert_eq!(object.meta().labels["x"], "y");
        let first = object.typed::<ConfigMap>().unwrap();
        let second = object.typed::<ConfigMap>().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn an_archive_keeps_bytes_only() {
        let object = Object::decode(Bytes::from_static(JSON.as_bytes())).unwrap();
        assert!(object.is_decoded() && !object.is_archived());
        let archived = Arc::new(object.archived());
        let read = archived.readable();
        assert_eq!((read.meta().name.as_str(), read.resource_version()), ("a", 7));
        assert!(archived.is_archived() && !archived.is_decoded());
        assert!(Arc::ptr_eq(&read.readable(), &read));
    }

    #[test]
    fn incomplete_conditions_hide_no_object() {
        let service = |conditions: &str| Object::decode(Bytes::from(format!(r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"a"}},"status":{{"conditions":{conditions}}}}}"#))).unwrap();
        let read = service(r#"[{"type":"X","status":"True"}]"#).typed::<k8s_openapi::api::core::v1::Service>().unwrap();
        assert_eq!(read.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].type_, "X");
        assert!(service("7").typed::<k8s_openapi::api::core::v1::Service>().is_err());
    }

    #[test]
    fn says_what_it_could_not_decode() {
        assert!(Object::decode(Bytes::from_static(b"{]")).is_err());
    }
}
