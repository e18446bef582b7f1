//! Who manages what: a controller takes over matching objects that have no controller and lets go of its own that match no more.
//! Mirrors upstream's `ControllerRefManager`.

use std::sync::Arc;

use api::k8s::Metadata;
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::meta::{controller_of, controller_reference, deleting, has_finalizer, uid};
use crate::op::{At, Op, value};

/// Of `candidates`, those that `owner` manages from now on; pushes what makes it so. `matches` is the owner's selector.
pub fn claim<O, T>(owner: &O, candidates: &[Arc<T>], matches: impl Fn(&T) -> bool, ops: &mut Vec<Op>) -> Vec<Arc<T>>
where
    O: Metadata<Ty = ObjectMeta>,
    T: Metadata<Ty = ObjectMeta>,
{
    claim_held(owner, candidates, matches, None, ops)
}

/// As `claim`, of an owner that holds what it manages by a finalizer: it comes and goes with the owner's reference.
pub fn claim_held<O, T>(owner: &O, candidates: &[Arc<T>], matches: impl Fn(&T) -> bool, finalizer: Option<&str>, ops: &mut Vec<Op>) -> Vec<Arc<T>>
where
    O: Metadata<Ty = ObjectMeta>,
    T: Metadata<Ty = ObjectMeta>,
{
    let held = |object: &T| finalizer.is_some_and(|finalizer| has_finalizer(object, finalizer));
    let mut owned = Vec::new();
    let mut confirmed = false;
    for object in candidates {
        match controller_of(object.as_ref()) {
            Some(controller) if controller.uid != uid(owner) => {}
            Some(_) if matches(object) => owned.push(object.clone()),
            Some(_) if deleting(owner) => {}
            Some(_) => {
                let left: Vec<_> = object.metadata().owner_references.iter().flatten().filter(|reference| reference.uid != uid(owner)).collect();
                let mut patch = json!({"metadata": {"ownerReferences": or_nothing(&left)}});
                if held(object) {
                    let others: Vec<_> = object.metadata().finalizers.iter().flatten().filter(|one| Some(one.as_str()) != finalizer).collect();
                    patch["metadata"]["finalizers"] = or_nothing(&others);
                }
                ops.push(Op::merge(object.as_ref(), patch));
            }
            None if deleting(owner) || deleting(object.as_ref()) || !matches(object) => {}
            None => {
                if !confirmed {
                    confirmed = true;
                    ops.push(Op::Confirm { at: At::object(owner), uid: uid(owner).to_owned() });
                }
                let mut references = object.metadata().owner_references.clone().unwrap_or_default();
                references.push(controller_reference(owner));
                let mut patch = json!({"metadata": {"ownerReferences": value(&references)}});
                if let Some(finalizer) = finalizer.filter(|_| !held(object)) {
                    let mut all = object.metadata().finalizers.clone().unwrap_or_default();
                    all.push(finalizer.to_owned());
                    patch["metadata"]["finalizers"] = value(&all);
                }
                ops.push(Op::merge(object.as_ref(), patch));
                owned.push(object.clone());
            }
        }
    }
    owned
}
/// A list as a merge patch sets it: an empty one is none.
fn or_nothing<T: serde::Serialize>(list: &[T]) -> serde_json::Value {
    if list.is_empty() { serde_json::Value::Null } else { value(&list) }
}

