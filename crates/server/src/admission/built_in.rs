//! The plugins that are built in, in upstream's order: what changes an object first, what only judges it after.
//!
//! NamespaceLifecycle, LimitRanger, ServiceAccount, TaintNodesByCondition, PodSecurity, Priority, DefaultTolerationSeconds, DefaultStorageClass,
//! StorageObjectInUseProtection, PersistentVolumeClaimResize, RuntimeClass, CertificateApproval, CertificateSigning, CertificateSubjectRestriction,
//! DefaultIngressClass, EventRateLimit. NodeRestriction is asked about deletions and subresources too, and so has a file of its own. ResourceQuota comes last of
//! all, in the registry (`quota.rs`).

use ::api::{Resource, Status};
use serde_json::Value;

use super::{certificates, default_class, is_pods, limit_ranger, namespace_lifecycle, pod_security, pods, runtime_class, storage, taint_new_node};
use crate::api::{Api, Context};

/// Which of the kinds that plugins care about a row is.
fn kind(row: &Resource) -> (&str, &str) {
    (&row.group, &row.plural)
}

pub fn mutate_create(api: &Api, row: &Resource, namespace: Option<&str>, value: &mut Value) -> Result<(), Status> {
    if let Some(namespace) = namespace.filter(|_| row.namespaced()) {
        namespace_lifecycle(api, row, namespace, value)?;
    }
    match kind(row) {
        ("", "pods") => {
            let namespace = namespace.unwrap_or("default");
            limit_ranger::apply(api, namespace, value)?;
            pods::service_account(api, namespace, value)?;
            pods::priority(api, value)?;
            pods::default_tolerations(value);
            runtime_class::apply(api, value)?;
        }
        ("", "nodes") => taint_new_node(value),
        ("", "persistentvolumeclaims") => default_class::of_claim(api, value)?,
        ("networking.k8s.io", "ingresses") => default_class::of_ingress(api, value)?,
        _ => {}
    }
    storage::protect(row, value);
    Ok(())
}

pub fn mutate_update(row: &Resource, subresource: &str, new: &mut Value, old: &Value) {
    if is_pods(row) && subresource.is_empty() {
        pods::keep_priority(new, old);
        pods::default_tolerations(new);
    }
}

fn event_rate(api: &Api, namespace: Option<&str>, event: &Value, cx: &Context) -> Result<(), Status> {
    let Some(limit) = &api.config.event_rate_limit else { return Ok(()) };
    limit.check(namespace.unwrap_or_default(), event, cx, api.clock.now().as_microsecond() as f64 / 1e6)
}

pub fn validate_create(api: &Api, row: &Resource, namespace: Option<&str>, value: &Value, cx: &Context) -> Result<(), Status> {
    match kind(row) {
        ("", "pods") => {
            limit_ranger::check(api, row, namespace.unwrap_or("default"), value)?;
            pods::check_service_account(api, namespace.unwrap_or("default"), value)?;
            pod_security::check(api, row, "", namespace, value, None, cx)?;
            runtime_class::check(api, value)
        }
        ("", "persistentvolumeclaims") => limit_ranger::check(api, row, namespace.unwrap_or("default"), value),
        ("", "events") => event_rate(api, namespace, value, cx),
        ("scheduling.k8s.io", "priorityclasses") => pods::one_default_priority(api, value),
        ("certificates.k8s.io", "certificatesigningrequests") => certificates::restrict_subject(value),
        _ => pod_security::check(api, row, "", namespace, value, None, cx),
    }
}

pub fn validate_update(api: &Api, row: &Resource, subresource: &str, namespace: Option<&str>, new: &Value, old: &Value, cx: &Context) -> Result<(), Status> {
    // What is on its way out is not held to bounds any more.
    let going = old.pointer("/metadata/deletionTimestamp").is_some();
    match (kind(row), subresource) {
        (("", "pods"), "resize") if !going => limit_ranger::check(api, row, namespace.unwrap_or("default"), new)?,
        (("", "persistentvolumeclaims"), "") => {
            if !going {
                limit_ranger::check(api, row, namespace.unwrap_or("default"), new)?;
            }
            storage::resize(api, new, old)?;
        }
        (("certificates.k8s.io", "certificatesigningrequests"), "approval" | "status") => certificates::check(api, subresource, new, old, cx)?,
        (("", "events"), "") => event_rate(api, namespace, new, cx)?,
        (("scheduling.k8s.io", "priorityclasses"), "") => pods::one_default_priority(api, new)?,
        _ => {}
    }
    pod_security::check(api, row, subresource, namespace, new, Some(old), cx)
}
