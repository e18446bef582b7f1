//! The best volume for a claim: one that was set aside for it, else the smallest that has what it asks for. Mirrors `FindMatchingVolume`.

use std::sync::Arc;

use api::k8s::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use api::quantity::Quantity;

use crate::meta::{annotation, deleting, name, namespace, selects, uid};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    annotation(claim, CLASS_ANNOTATION).or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref()).unwrap_or("")
}

pub fn volume_class(volume: &PersistentVolume) -> &str {
    annotation(volume, CLASS_ANNOTATION).or_else(|| volume.spec.as_ref()?.storage_class_name.as_deref()).unwrap_or("")
}

pub fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

/// Set aside for, or bound to, this claim.
pub fn refers(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let is = |field: &Option<String>, value: &str| field.as_deref().unwrap_or("") == value;
    is(&reference.name, name(claim)) && is(&reference.namespace, namespace(claim)) && (is(&reference.uid, "") || is(&reference.uid, uid(claim)))
}

fn storage(list: Option<&std::collections::BTreeMap<String, api::k8s::apimachinery::pkg::api::resource::Quantity>>) -> Quantity {
    list.and_then(|list| list.get("storage")).and_then(|text| Quantity::parse(&text.0).ok()).unwrap_or_default()
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// Why a volume that a claim names cannot serve it.
pub fn unfit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (Some(offer), Some(wish)) = (volume.spec.as_ref(), claim.spec.as_ref()) else { return Some("has no specification") };
    if capacity(volume) < storage(wish.resources.as_ref().and_then(|resources| resources.requests.as_ref())) {
        return Some("requested PV is too small");
    }
    if volume_class(volume) != claim_class(claim) {
        return Some("storageClassName does not match");
    }
    if offer.volume_mode.as_deref().unwrap_or("Filesystem") != wish.volume_mode.as_deref().unwrap_or("Filesystem") {
        return Some("incompatible volumeMode");
    }
    let modes = offer.access_modes.as_deref().unwrap_or(&[]);
    if wish.access_modes.iter().flatten().any(|mode| !modes.contains(mode)) {
        return Some("incompatible accessMode");
    }
    None
}

/// Whether the volume can be had on that node.
fn reaches(volume: &PersistentVolume, node: Option<&Node>) -> bool {
    let required = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    match (required, node) {
        (Some(selector), Some(node)) => crate::node_fit::selects(selector, node),
        _ => true,
    }
}

/// `delayed`: only a volume that was set aside for the claim. `node` is where it is needed, if that is known.
pub fn best<'a>(claim: &PersistentVolumeClaim, volumes: &'a [Arc<PersistentVolume>], delayed: bool, node: Option<&Node>) -> Option<&'a Arc<PersistentVolume>> {
    let fits = |volume: &&Arc<PersistentVolume>| !deleting(volume.as_ref()) && unfit(volume, claim).is_none() && reaches(volume, node);
    if let Some(aside) = volumes.iter().filter(fits).find(|volume| refers(volume, claim)) {
        return Some(aside);
    }
    if delayed {
        return None;
    }
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let attributes = |name: Option<&String>| name.map(String::as_str).unwrap_or("").to_owned();
    let wanted = attributes(claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref()));
    volumes
        .iter()
        .filter(fits)
        .filter(|volume| volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none() && attributes(spec.volume_attributes_class_name.as_ref()) == wanted) && phase(volume) == "Available")
        .filter(|volume| selector.is_none_or(|selector| selects(selector, volume.metadata.labels.as_ref())))
        .min_by(|a, b| capacity(a).cmp(&capacity(b)).then_with(|| name(a.as_ref()).cmp(name(b.as_ref()))))
}
