//! ComponentStatuses: how the parts of the control plane are, made when asked for and stored nowhere (registry/core/componentstatus).
//!
//! Controllers and scheduler are in this process and answer no probe of their own: they are as well as it is.

use std::sync::Arc;

use ::api::{Object, Resource, Status};
use serde_json::json;

use crate::encode;

const PARTS: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

pub fn is(row: &Resource) -> bool {
    row.group.is_empty() && row.plural == "componentstatuses"
}

fn status(name: &str) -> Arc<Object> {
    let value = json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]});
    // As what is stored, its head first: lists are spliced of that.
    Arc::new(Object::new(encode::at_rest(&value), 0))
}

pub fn all() -> Vec<Arc<Object>> {
    PARTS.into_iter().map(status).collect()
}

pub fn one(name: &str) -> Result<Arc<Object>, Status> {
    PARTS.into_iter().find(|part| *part == name).map(status).ok_or_else(|| Status::not_found("", "componentstatus", name))
}
