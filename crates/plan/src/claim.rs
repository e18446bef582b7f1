//! Who manages what: a controller takes over matching objects that have no controller and lets go of its own that match no more.
//! Mirrors upstream's `ControllerRefManager`.

use std::sync::Arc;

use api::k8s::Metadata;
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::meta::{controller_of, controller_reference, deleting, uid};
use crate::op::{At, Op, value};

/// Of `candidates`, those that `owner` manages from now on; pushes what makes it so. `matches` is the owner's selector.
pub fn claim<O, T>(owner: &O, candidates: &[Arc<T>], matches: impl Fn(&T) -> bool, ops: &mut Vec<Op>) -> Vec<Arc<T>>
where
    O: Metadata<Ty = ObjectMeta>,
    T: Metadata<Ty = ObjectMeta>,
{
    let mut owned = Vec::new();
    let mut confirmed = false;
    for object in candidates {
        match controller_of(object.as_ref()) {
            Some(controller) if controller.uid != uid(owner) => {}
            Some(_) if matches(object) => owned.push(object.clone()),
            Some(_) if deleting(owner) => {}
            Some(_) => {
                let left: Vec<_> = object.metadata().owner_references.iter().flatten().filter(|reference| reference.uid != uid(owner)).collect();
                ops.push(Op::merge(
                    object.as_ref(),
                    json!({"metadata": {"ownerReferences": if left.is_empty() { serde_json::Value::Null } else { value(&left) }}}),
                ));
            }
            None if deleting(owner) || deleting(object.as_ref()) || !matches(object) => {}
            None => {
                if !confirmed {
                    confirmed = true;
                    ops.push(Op::Confirm { at: At::object(owner), uid: uid(owner).to_owned() });
                }
                let mut references = object.metadata().owner_references.clone().unwrap_or_default();
                references.push(controller_reference(owner));
                ops.push(Op::merge(object.as_ref(), json!({"metadata": {"ownerReferences": value(&references)}})));
                owned.push(object.clone());
            }
        }
    }
    owned
}
