//! Kinds that are served in more than one form: to the stored one and back.
//!
//! Most kinds are stored as they are served and pass through at no cost. HorizontalPodAutoscalers are stored as autoscaling/v2,
//! events.k8s.io Events as core/v1 Events. Custom kinds have any number of versions (`custom/conversion.rs`), and may need a webhook to be shown.

use std::sync::Arc;

use ::api::{Object, Resource, Status};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::autoscalers;
use crate::custom::conversion;
use crate::outbound::Outbound;

fn is_event(row: &Resource) -> bool {
    row.group == "events.k8s.io" && row.plural == "events"
}

fn is_old_autoscaler(row: &Resource) -> bool {
    row.group == "autoscaling" && row.version == "v1" && row.plural == "horizontalpodautoscalers"
}

/// Whether the row's objects are stored in another form than they are served in.
pub fn converts(row: &Resource) -> bool {
    is_event(row) || is_old_autoscaler(row)
}

pub fn to_storage(row: &Resource, value: &mut Value) -> Result<(), Status> {
    let Some(map) = value.as_object_mut() else { return Ok(()) };
    if is_event(row) {
        map.insert("apiVersion".into(), "v1".into());
        for (new, old) in EVENT_FIELDS {
            rename(map, new, old);
        }
        if let Some(controller) = map.remove("reportingController") {
            map.insert("reportingComponent".into(), controller);
        }
    } else if is_old_autoscaler(row) {
        map.insert("apiVersion".into(), "autoscaling/v2".into());
        autoscalers::to_v2(map);
    }
    Ok(())
}

/// The object as the row shows it.
pub async fn shown(outbound: &Outbound, row: &Resource, object: Arc<Object>) -> Result<Arc<Object>, Status> {
    match &row.custom {
        None => from_storage(row, object),
        Some(custom) => conversion::shown(outbound, row, custom, vec![object]).await?.pop().ok_or_else(|| Status::internal("an object was lost in conversion")),
    }
}

/// What a dry run would have written, as the row shows it: custom kinds are in its version already.
pub async fn shown_unsaved(outbound: &Outbound, row: &Resource, object: Arc<Object>) -> Result<Arc<Object>, Status> {
    if row.custom.is_some() { Ok(object) } else { shown(outbound, row, object).await }
}

/// The object as the row shows it, when nobody has to be asked for that.
pub fn shown_at_once(row: &Resource, object: Arc<Object>) -> Result<Option<Arc<Object>>, Status> {
    match &row.custom {
        None => from_storage(row, object).map(Some),
        Some(custom) => Ok(match conversion::begin(row, custom, object)? {
            conversion::Shown::Ready(object) => Some(object),
            conversion::Shown::Ask(_) => None,
        }),
    }
}

/// What of the row's form is stored. Built-in kinds are in their stored form already when they are judged, see [`to_storage`].
pub async fn for_storage(outbound: &Outbound, row: &Resource, value: &Value) -> Result<bytes::Bytes, Status> {
    match &row.custom {
        Some(custom) if row.storage_version != row.version => Ok(crate::encode::at_rest(&conversion::for_storage(outbound, row, custom, value.clone()).await?)),
        _ => Ok(crate::encode::at_rest(value)),
    }
}

/// A stored object in the form it is judged in: built-in kinds as they are stored, custom ones in the row's version.
pub async fn judged(outbound: &Outbound, row: &Resource, object: &Arc<Object>, value: &Value) -> Result<Value, Status> {
    match &row.custom {
        None => Ok(value.clone()),
        Some(_) => shown(outbound, row, object.clone()).await?.value().map_err(Status::internal),
    }
}

/// For built-in kinds.
pub fn from_storage(row: &Resource, object: Arc<Object>) -> Result<Arc<Object>, Status> {
    if !is_event(row) && !is_old_autoscaler(row) {
        return Ok(object);
    }
    let mut value = object.value().map_err(Status::internal)?;
    show(row, &mut value);
    let mut out = Vec::new();
    crate::encode::write(&mut out, &value);
    Ok(Arc::new(Object::new(Bytes::from(out), object.resource_version())))
}

/// A built-in kind's stored form as the row shows it.
pub fn show(row: &Resource, value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    map.insert("apiVersion".into(), row.api_version().into());
    if is_event(row) {
        for (new, old) in EVENT_FIELDS {
            rename(map, old, new);
        }
        if let Some(component) = map.remove("reportingComponent") {
            map.insert("reportingController".into(), component);
        }
        // Here they are left out when there is nothing in them.
        for name in ["reportingController", "reportingInstance"] {
            if map.get(name).and_then(Value::as_str) == Some("") {
                map.remove(name);
            }
        }
    } else if is_old_autoscaler(row) {
        autoscalers::to_v1(map);
    }
}

/// events.k8s.io name, core name.
const EVENT_FIELDS: [(&str, &str); 6] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.into(), value);
    }
}
