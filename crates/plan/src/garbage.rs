//! Garbage collection: an object goes when all its owners have gone; owners wait for, or let go of, what they own.
//!
//! Watches: the metadata of everything. Writes: deletes, owner references, the finalizers `foregroundDeletion` and `orphan`.
//! Never: deletes an object whose owner's absence was not confirmed by the server. Mirrors `pkg/controller/garbagecollector`.

use std::sync::Arc;

use api::{Object, OwnerReference};
use serde_json::{Value, json};

use crate::op::{At, Op, PatchKind, Plan, Propagation};

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What became of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The server says that there is none with this name and uid.
    Absent,
    Present,
    /// Being deleted in the foreground: it waits for its dependents.
    Waiting,
}

/// An object that names the one in view among its owners.
#[derive(Debug, Clone)]
pub struct Dependent {
    pub at: At,
    pub uid: String,
    pub resource_version: String,
    pub owners: Vec<OwnerReference>,
    /// It is being deleted in the foreground: it waits for its own dependents.
    pub waiting: bool,
}

pub struct View {
    pub at: At,
    pub object: Arc<Object>,
    /// Its owners, each with what became of it.
    pub owners: Vec<(OwnerReference, Owner)>,
    pub dependents: Vec<Dependent>,
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let meta = view.object.meta();
    let has = |finalizer: &str| meta.finalizers.iter().any(|one| one == finalizer);
    let deleting = meta.deletion_timestamp.is_some();
    if deleting && has(ORPHAN) {
        orphan(view, &mut plan);
        return plan;
    }
    if deleting && has(FOREGROUND) {
        foreground(view, &mut plan);
        return plan;
    }
    if deleting || view.owners.is_empty() {
        return plan;
    }
    let (mut solid, mut dangling, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for (reference, owner) in &view.owners {
        match owner {
            Owner::Absent => dangling.push(reference),
            // One that does not block its owner is waited for by nobody; it holds the object only until the owner is gone.
            Owner::Waiting => waiting.push(reference),
            Owner::Present => solid.push(reference),
        }
    }
    if !solid.is_empty() {
        // Somebody still wants it: only the others are forgotten.
        if !dangling.is_empty() || !waiting.is_empty() {
            plan.push(keep_owners(&view.at, &meta.uid, &meta.resource_version, &solid));
        }
        return plan;
    }
    if !waiting.is_empty() && !view.dependents.is_empty() {
        // The owner waits for this one, which has dependents of its own. If one of those waits too, this may be a circle: nobody waits for this one any more.
        if view.dependents.iter().any(|dependent| dependent.waiting) && view.owners.iter().any(|(owner, _)| owner.block_owner_deletion == Some(true)) {
            let unblocked: Vec<OwnerReference> = view.owners.iter().map(|(owner, _)| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() }).collect();
            plan.push(keep_owners(&view.at, &meta.uid, &meta.resource_version, &unblocked.iter().collect::<Vec<_>>()));
        }
        plan.push(delete(view, Propagation::Foreground));
        return plan;
    }
    // As it was deleted, or as those say who want to orphan what it owns.
    let propagation = if has(ORPHAN) {
        Propagation::Orphan
    } else if has(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    plan.push(delete(view, propagation));
    plan
}

fn delete(view: &View, propagation: Propagation) -> Op {
    Op::Delete { at: view.at.clone(), uid: view.object.meta().uid.clone(), propagation, grace_period_seconds: None, announce: None }
}

fn keep_owners(at: &At, uid: &str, resource_version: &str, owners: &[&OwnerReference]) -> Op {
    let list: Vec<Value> = owners
        .iter()
        .map(|owner| {
            let mut reference = json!({"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid});
            if let Some(controller) = owner.controller {
                reference["controller"] = json!(controller);
            }
            if let Some(block) = owner.block_owner_deletion {
                reference["blockOwnerDeletion"] = json!(block);
            }
            reference
        })
        .collect();
    let owners = if list.is_empty() { Value::Null } else { Value::Array(list) };
    patch(at, json!({"metadata": {"uid": uid, "resourceVersion": resource_version, "ownerReferences": owners}}))
}

fn patch(at: &At, patch: Value) -> Op {
    Op::Patch { at: at.clone(), subresource: None, kind: PatchKind::Merge, patch }
}

fn drop_finalizer(view: &View, finalizer: &str) -> Op {
    let meta = view.object.meta();
    let left: Vec<&String> = meta.finalizers.iter().filter(|one| *one != finalizer).collect();
    let finalizers = if left.is_empty() { Value::Null } else { json!(left) };
    patch(&view.at, json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers}}))
}

/// Everything it owns loses it as an owner, then it may go.
fn orphan(view: &View, plan: &mut Plan) {
    let uid = &view.object.meta().uid;
    for dependent in &view.dependents {
        let left: Vec<&OwnerReference> = dependent.owners.iter().filter(|owner| owner.uid != *uid).collect();
        plan.push(keep_owners(&dependent.at, &dependent.uid, &dependent.resource_version, &left));
    }
    plan.push(drop_finalizer(view, ORPHAN));
}

/// What blocks it goes first; when nothing does any more, it may go.
fn foreground(view: &View, plan: &mut Plan) {
    let uid = &view.object.meta().uid;
    let blocking: Vec<&Dependent> = view
        .dependents
        .iter()
        .filter(|dependent| dependent.owners.iter().any(|owner| owner.uid == *uid && owner.block_owner_deletion == Some(true)))
        .collect();
    if blocking.is_empty() {
        plan.push(drop_finalizer(view, FOREGROUND));
    }
    // Dependents themselves are looked at one by one (`Owner::Waiting`): they may have other owners.
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(uid: &str, block: bool) -> OwnerReference {
        OwnerReference {
            api_version: "v1".into(),
            kind: "X".into(),
            name: uid.into(),
            uid: uid.into(),
            controller: None,
            block_owner_deletion: block.then_some(true),
        }
    }

    fn at(name: &str) -> At {
        At {
            group: String::new(),
            version: "v1".into(),
            plural: "configmaps".into(),
            kind: "ConfigMap".into(),
            namespace: Some("ns".into()),
            name: name.into(),
        }
    }

    fn lines(finalizers: &[&str], deleting: bool, owners: &[(&str, Owner)], dependents: &[(&str, bool)]) -> String {
        let object = json!({"metadata": {"name": "me", "namespace": "ns", "uid": "me", "resourceVersion": "1", "finalizers": finalizers, "deletionTimestamp": if deleting { json!("2026-11-22T12:00:00Z") } else { Value::Null }}});
        let view = View {
            at: at("me"),
            object: Arc::new(Object::decode(object.to_string().into()).unwrap()),
            owners: owners.iter().map(|(uid, owner)| (reference(uid, true), *owner)).collect(),
            dependents: dependents
                .iter()
                .map(|(name, block)| Dependent {
                    at: at(name),
                    uid: (*name).into(),
                    resource_version: "2".into(),
                    owners: vec![reference("me", *block), reference("other", false)],
                    // By its name, to keep the cases short.
                    waiting: *name == "waiting",
                })
                .collect(),
        };
        plan(&view).to_string()
    }

    #[test]
    fn who_goes_and_who_stays() {
        use Owner::*;
        let other = r#""ownerReferences":[{"apiVersion":"v1","kind":"X","name":"other","uid":"other"}]"#;
        let cases: [(String, String); 11] = [
            (lines(&[], false, &[], &[("d", true)]), String::new()),
            (lines(&[], false, &[("a", Present)], &[]), String::new()),
            (lines(&[], false, &[("a", Absent)], &[]), "delete ConfigMap ns/me\n".into()),
            (lines(&["orphan"], false, &[("a", Absent)], &[]), "delete ConfigMap ns/me Orphan\n".into()),
            (lines(&[], false, &[("a", Absent), ("b", Present)], &[]), r#"patch ConfigMap ns/me {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"kind":"X","name":"b","uid":"b"}]}}"#.to_owned() + "\n"),
            (lines(&[], false, &[("a", Waiting)], &[]), "delete ConfigMap ns/me\n".into()),
            (lines(&[], false, &[("a", Waiting)], &[("d", true)]), "delete ConfigMap ns/me Foreground\n".into()),
            (
                lines(&[], false, &[("a", Waiting)], &[("waiting", true)]),
                r#"patch ConfigMap ns/me {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":false,"kind":"X","name":"a","uid":"a"}]}}"#.to_owned() + "\ndelete ConfigMap ns/me Foreground\n",
            ),
            (lines(&["foregroundDeletion", "x"], true, &[], &[("d", false)]), r#"patch ConfigMap ns/me {"metadata":{"finalizers":["x"]}}"#.to_owned() + "\n"),
            (lines(&["foregroundDeletion"], true, &[], &[("d", true)]), String::new()),
            (lines(&["orphan"], true, &[], &[("d", true)]), format!("patch ConfigMap ns/d {{\"metadata\":{{{other}}}}}\npatch ConfigMap ns/me {{\"metadata\":{{\"finalizers\":null}}}}\n")),
        ];
        for (have, expected) in cases {
            assert_eq!(have, expected);
        }
    }
}
