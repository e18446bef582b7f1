//! StorageObjectInUseProtection and PersistentVolumeClaimResize: volumes and claims that are in use are not lost, and grow only where their class allows it.
//!
//! Mirrors plugin/pkg/admission/storage. The finalizers are taken off by the protection controllers (`plan::storage`).

use ::api::quantity::Quantity;
use ::api::{Resource, Status};
use serde_json::{Value, json};

use super::shown_name;
use crate::api::Api;
use crate::registry::text;

/// The finalizer of a kind that is protected while it is in use.
fn finalizer(row: &Resource) -> Option<&'static str> {
    match (&*row.group, &*row.plural) {
        ("", "persistentvolumeclaims") => Some("kubernetes.io/pvc-protection"),
        ("", "persistentvolumes") => Some("kubernetes.io/pv-protection"),
        _ => None,
    }
}

pub fn protect(row: &Resource, object: &mut Value) {
    let Some(finalizer) = finalizer(row) else { return };
    let list = &mut object["metadata"]["finalizers"];
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|known| known == finalizer)
    {
        list.push(finalizer.into());
    }
}

fn size(claim: &Value) -> Option<Quantity> {
    Quantity::from_json(claim.pointer("/spec/resources/requests/storage")?).ok()
}

fn class(claim: &Value) -> &str {
    match claim.pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class").and_then(Value::as_str) {
        Some(class) => class,
        None => text(claim, "/spec/storageClassName"),
    }
}

/// An update of a claim that makes it bigger.
pub fn resize(api: &Api, new: &Value, old: &Value) -> Result<(), Status> {
    let allows = |class: &str| -> bool {
        api.store.get(&format!("/registry/storageclasses/{class}")).and_then(|class| class.value().ok()).is_some_and(|class| class.get("allowVolumeExpansion").and_then(Value::as_bool) == Some(true))
    };
    grow(new, old, allows).map_err(|why| Status::forbidden("", "persistentvolumeclaims", shown_name(new), why))
}

fn grow(new: &Value, old: &Value, allows: impl Fn(&str) -> bool) -> Result<(), &'static str> {
    if size(new).unwrap_or_default() <= size(old).unwrap_or_default() {
        return Ok(());
    }
    if text(old, "/status/phase") != "Bound" {
        return Err("Only bound persistent volume claims can be expanded");
    }
    let (class, before) = (class(new), class(old));
    if class.is_empty() || class != before || !allows(class) {
        return Err("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_grow_where_they_may() {
        let claim = |size: &str, class: &str, phase: &str| json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}, "status": {"phase": phase}});
        let to = |class: &str, size: &str, phase: &str| grow(&claim(size, class, phase), &claim("1Gi", class, phase), |class| class == "gold");
        assert_eq!(to("gold", "2Gi", "Bound"), Ok(()));
        assert_eq!(to("iron", "1Gi", "Pending"), Ok(()));
        assert_eq!(to("gold", "2Gi", "Pending"), Err("Only bound persistent volume claims can be expanded"));
        assert!(to("iron", "2Gi", "Bound").is_err());
        assert!(to("", "2Gi", "Bound").is_err());
    }

    #[test]
    fn finalizers_are_put_once() {
        let row = ::api::table::table().rows().iter().find(|row| row.plural == "persistentvolumeclaims").unwrap();
        let mut object = json!({"metadata": {"name": "c"}});
        protect(row, &mut object);
        protect(row, &mut object);
        assert_eq!(object["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    }
}
