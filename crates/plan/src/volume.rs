//! PersistentVolumes and the claims on them: who gets which, and when they may go.
//!
//! Mirrors `pkg/controller/volume/persistentvolume` for volumes that are there (who provisions new ones comes from outside) and the two protection controllers.

pub mod claim;
pub mod ephemeral;
pub mod matching;
#[allow(clippy::module_inception, reason = "a volume is what the module is about")]
pub mod volume;

use api::k8s::Metadata;
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::meta::{has_finalizer, uid};
use crate::op::{At, Op, PatchKind};

pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Who set a reference: the controller may take back only its own.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const YES: &str = "yes";

/// A patch of the status of this very object, whatever was written of it meanwhile.
fn status<T: Metadata<Ty = ObjectMeta>>(object: &T, status: Value) -> Op {
    Op::Patch { at: At::object(object), subresource: Some("status"), kind: PatchKind::Merge, patch: json!({"metadata": {"uid": uid(object)}, "status": status}) }
}

/// The object's list of finalizers with or without one of them; none if that is how it is.
fn finalizers<T: Metadata<Ty = ObjectMeta>>(object: &T, finalizer: &str, wanted: bool) -> Option<Op> {
    if has_finalizer(object, finalizer) == wanted {
        return None;
    }
    let mut list: Vec<&str> = object.metadata().finalizers.iter().flatten().map(String::as_str).filter(|one| *one != finalizer).collect();
    if wanted {
        list.push(finalizer);
    }
    let list = if list.is_empty() { Value::Null } else { json!(list) };
    Some(Op::merge(object, json!({"metadata": {"finalizers": list}})))
}
