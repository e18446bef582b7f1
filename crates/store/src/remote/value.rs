//! Values: JSON as we write it, and whatever an upstream API server wrote: its protobuf, and JSON in another order.

use std::borrow::Cow;
use std::sync::Arc;

use api::{Object, protobuf};
use bytes::Bytes;
use etcd::KeyValue;
use serde_json::Value;

use crate::sealing::{Sealing, TransformError};
use crate::splice;
use crate::types::Revision;

const PROTOBUF: &[u8] = b"k8s\0";
/// Ours have their metadata within so many bytes.
const HEAD_BYTES: usize = 512;

/// Why a value is no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Of someone else, perhaps; others can be served without it.
    #[error("{0}")]
    Strange(String),
    /// Ours, under a key that we do not have: nothing may be served without it.
    #[error(transparent)]
    Sealed(#[from] TransformError),
}

/// The object a value is, with its revision. `key` is ours.
pub fn object(key: &str, item: &KeyValue, sealing: &Sealing) -> Result<Arc<Object>, Unreadable> {
    let (value, _) = sealing.unseal(key, &item.value)?;
    plain(&value, item.mod_revision).map_err(Unreadable::Strange)
}

fn plain(value: &[u8], revision: Revision) -> Result<Arc<Object>, String> {
    let bytes = if is_ours(value) { splice::insert(value, revision) } else { splice::insert(&translated(value)?, revision) };
    bytes.map(|bytes| Arc::new(Object::new(bytes, revision))).ok_or_else(|| "it has no metadata".into())
}

/// What is stored of an object: its JSON without the revision, which is etcd's to say. Not sealed yet.
pub fn stored(object: &Object) -> Option<Bytes> {
    splice::remove(object.bytes())
}

/// What lies in etcd at `key`.
pub fn sealed(key: &str, plain: &Bytes, sealing: &Sealing) -> Result<Bytes, TransformError> {
    Ok(match sealing.seal(key, plain)? {
        Cow::Borrowed(_) => plain.clone(),
        Cow::Owned(sealed) => sealed.into(),
    })
}

/// `{"apiVersion":…,"kind":…,"metadata":{`, and no revision in it.
fn is_ours(value: &[u8]) -> bool {
    let head = &value[..value.len().min(HEAD_BYTES)];
    if !head.starts_with(b"{\"apiVersion\":\"") {
        return false;
    }
    let Some(metadata) = head.windows(METADATA.len()).position(|window| window == METADATA) else { return false };
    head[..metadata].iter().filter(|byte| **byte == b'"').count() == 8 && !head[metadata + METADATA.len()..].starts_with(b"\"resourceVersion\"")
}

const METADATA: &[u8] = b"\"metadata\":{";

fn translated(value: &[u8]) -> Result<Vec<u8>, String> {
    let mut object: Value = if value.starts_with(PROTOBUF) {
        protobuf::decode(value).map_err(|error| error.to_string())?
    } else {
        serde_json::from_slice(value).map_err(|error| error.to_string())?
    };
    let map = object.as_object_mut().ok_or("it is no object")?;
    let mut take = |field: &str| map.remove(field).ok_or_else(|| format!("it has no {field}"));
    let (api_version, kind) = (take("apiVersion")?, take("kind")?);
    let mut metadata = take("metadata")?;
    metadata.as_object_mut().ok_or("its metadata is no object")?.remove("resourceVersion");
    let rest = object.to_string();
    let mut out = format!("{{\"apiVersion\":{api_version},\"kind\":{kind},\"metadata\":{metadata}").into_bytes();
    if rest.len() > 2 {
        out.push(b',');
    }
    out.extend_from_slice(&rest.as_bytes()[1..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &[u8]) -> Result<String, String> {
        plain(value, 7).map(|object| String::from_utf8_lossy(object.bytes()).into_owned())
    }

    #[test]
    fn ours_and_others() {
        let ours = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"y"}}"#;
        let served = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"7","name":"a"},"data":{"x":"y"}}"#;
        for other in [
            ours,
            r#"{"data":{"x":"y"},"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}"#,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"3","name":"a"},"data":{"x":"y"}}"#,
            r#"{ "apiVersion": "v1", "data": {"x":"y"}, "kind": "ConfigMap", "metadata": {"name": "a"} }"#,
        ] {
            assert_eq!(text(other.as_bytes()).unwrap(), served, "{other}");
        }
        assert_eq!(text(br#"{"apiVersion":"v1","kind":"A","metadata":{}}"#).unwrap(), r#"{"apiVersion":"v1","kind":"A","metadata":{"resourceVersion":"7"}}"#);
        for wrong in [&b"x"[..], b"{}", b"[]", b"k8s\0", b"", br#"{"apiVersion":"v1","kind":"A","metadata":[]}"#] {
            assert!(text(wrong).is_err());
        }
    }

    #[test]
    fn protobuf_of_upstream() {
        // What kube-apiserver stores: a ConfigMap named a in the envelope.
        let config_map = b"\x0a\x03\x0a\x01a\x12\x06\x0a\x01x\x12\x01y";
        let mut value = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12".to_vec();
        value.push(config_map.len() as u8);
        value.extend_from_slice(config_map);
        let served = text(&value).unwrap();
        assert!(served.starts_with(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"7","#), "{served}");
        assert!(served.contains(r#""data":{"x":"y"}"#) && served.contains(r#""name":"a""#), "{served}");
    }

    #[test]
    fn what_is_stored_has_no_revision() {
        let ours = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"y"}}"#;
        assert_eq!(stored(&plain(ours.as_bytes(), 7).unwrap()).unwrap(), ours.as_bytes());
    }
}
