//! In which order resources are printed: namespaces and what others need first, webhooks last; or as they were found.
//!
//! Mirrors kustomize's SortOrderTransformer.

use super::id::Gvk;
use super::kustomization::{LegacySortOptions, SortOptions};
use super::resources::Resources;
use crate::error::{Result, fail};

const FIRST: &[&str] = &[
    "Namespace", "ResourceQuota", "StorageClass", "CustomResourceDefinition", "ServiceAccount", "PodSecurityPolicy", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ConfigMap", "Secret", "Endpoints",
    "Service", "LimitRange", "PriorityClass", "PersistentVolume", "PersistentVolumeClaim", "Deployment", "StatefulSet", "CronJob", "PodDisruptionBudget",
];
const LAST: &[&str] = &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

pub fn sort(resources: &mut Resources, options: &SortOptions) -> Result<()> {
    match options.order.as_str() {
        "fifo" if options.legacy_sort_options.is_some() => fail("the field 'sortOptions.legacySortOptions' is set but the selected sort order is 'fifo', not 'legacy'"),
        "fifo" => Ok(()),
        "legacy" => {
            legacy(resources, options.legacy_sort_options.as_ref());
            Ok(())
        }
        _ => fail("the field 'sortOptions.order' must be one of [fifo, legacy]"),
    }
}

pub fn legacy(resources: &mut Resources, options: Option<&LegacySortOptions>) {
    let texts = |list: &[&str]| list.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
    let (first, last) = match options {
        Some(options) => (options.order_first.clone(), options.order_last.clone()),
        None => (texts(FIRST), texts(LAST)),
    };
    let rank = |gvk: &Gvk| match (last.iter().position(|kind| *kind == gvk.kind), first.iter().position(|kind| *kind == gvk.kind)) {
        (Some(at), _) => 1 + at as i64,
        (None, Some(at)) => at as i64 - first.len() as i64,
        (None, None) => 0,
    };
    resources.0.sort_by_cached_key(|resource| {
        let id = resource.id();
        (rank(&id.gvk), id.gvk.order(), id.order())
    });
}
