//! The plugins that are built in, in upstream's order: what changes an object first, what only judges it after.
//!
//! NamespaceLifecycle, LimitRanger, ServiceAccount, TaintNodesByCondition, PodSecurity, Priority, DefaultTolerationSeconds, DefaultStorageClass,
//! StorageObjectInUseProtection, PersistentVolumeClaimResize, RuntimeClass, CertificateApproval, CertificateSigning, CertificateSubjectRestriction,
//! DefaultIngressClass, EventRateLimit. NodeRestriction is asked about deletions and subresources too, and so has a file of its own. ResourceQuota comes last of
//! all, in the registry (`quota.rs`).

use std::time::Instant;

use ::api::{Resource, Status};
use serde_json::Value;

use super::{certificates, default_class, is_pods, limit_ranger, namespace_lifecycle, optional, pod_security, pods, runtime_class, storage, taint_new_node};
use crate::api::{Api, Context};

/// Which of the kinds that plugins care about a row is.
fn kind(row: &Resource) -> (&str, &str) {
    (&row.group, &row.plural)
}

/// Asks one plugin, and measures it.
fn timed(api: &Api, name: &str, kind: &str, operation: &str, ask: impl FnOnce() -> Result<(), Status>) -> Result<(), Status> {
    let begun = Instant::now();
    let outcome = ask();
    api.measured.plugin(name, kind, operation, outcome.is_err(), begun.elapsed());
    outcome
}

pub fn mutate_create(api: &Api, row: &Resource, namespace: Option<&str>, value: &mut Value) -> Result<(), Status> {
    let on = |name| api.config.plugins.on(name);
    if let Some(namespace) = namespace.filter(|_| row.namespaced() && on("NamespaceLifecycle")) {
        timed(api, "NamespaceLifecycle", "admit", "CREATE", || namespace_lifecycle(api, row, namespace, value))?;
    }
    match kind(row) {
        ("", "pods") => {
            let namespace = namespace.unwrap_or("default");
            if on("LimitRanger") {
                timed(api, "LimitRanger", "admit", "CREATE", || limit_ranger::apply(api, namespace, value))?;
            }
            if on("ServiceAccount") {
                timed(api, "ServiceAccount", "admit", "CREATE", || pods::service_account(api, namespace, value))?;
            }
            if on("AlwaysPullImages") {
                timed(api, "AlwaysPullImages", "admit", "CREATE", || {
                    optional::always_pull(value);
                    Ok(())
                })?;
            }
            if on("Priority") {
                timed(api, "Priority", "admit", "CREATE", || pods::priority(api, value))?;
            }
            if on("DefaultTolerationSeconds") {
                timed(api, "DefaultTolerationSeconds", "admit", "CREATE", || {
                    pods::default_tolerations(value);
                    Ok(())
                })?;
            }
            if on("RuntimeClass") {
                timed(api, "RuntimeClass", "admit", "CREATE", || runtime_class::apply(api, value))?;
            }
        }
        ("", "nodes") if on("TaintNodesByCondition") => taint_new_node(value),
        ("", "persistentvolumeclaims") if on("DefaultStorageClass") => timed(api, "DefaultStorageClass", "admit", "CREATE", || default_class::of_claim(api, value))?,
        ("networking.k8s.io", "ingresses") if on("DefaultIngressClass") => timed(api, "DefaultIngressClass", "admit", "CREATE", || default_class::of_ingress(api, value))?,
        _ => {}
    }
    if on("StorageObjectInUseProtection") {
        storage::protect(row, value);
    }
    Ok(())
}

pub fn mutate_update(api: &Api, row: &Resource, subresource: &str, new: &mut Value, old: &Value) {
    let on = |name| api.config.plugins.on(name);
    if is_pods(row) && matches!(subresource, "" | "ephemeralcontainers") && on("AlwaysPullImages") {
        optional::always_pull(new);
    }
    if is_pods(row) && subresource.is_empty() {
        pods::keep_priority(new, old);
        if on("DefaultTolerationSeconds") {
            pods::default_tolerations(new);
        }
    }
}

fn event_rate(api: &Api, namespace: Option<&str>, event: &Value, cx: &Context) -> Result<(), Status> {
    let Some(limit) = &api.config.event_rate_limit else { return Ok(()) };
    limit.check(namespace.unwrap_or_default(), event, cx, api.clock.now().as_microsecond() as f64 / 1e6)
}

pub fn validate_create(api: &Api, row: &Resource, namespace: Option<&str>, value: &Value, cx: &Context) -> Result<(), Status> {
    let on = |name| api.config.plugins.on(name);
    let place = namespace.unwrap_or("default");
    match kind(row) {
        ("", "pods" | "persistentvolumeclaims") if on("LimitRanger") => timed(api, "LimitRanger", "validate", "CREATE", || limit_ranger::check(api, row, place, value))?,
        ("", "services") if on("DenyServiceExternalIPs") => timed(api, "DenyServiceExternalIPs", "validate", "CREATE", || optional::deny_external_ips(value, None))?,
        ("", "events") => event_rate(api, namespace, value, cx)?,
        ("scheduling.k8s.io", "priorityclasses") if on("Priority") => timed(api, "Priority", "validate", "CREATE", || pods::one_default_priority(api, value))?,
        ("certificates.k8s.io", "certificatesigningrequests") if on("CertificateSubjectRestriction") => timed(api, "CertificateSubjectRestriction", "validate", "CREATE", || certificates::restrict_subject(value))?,
        _ => {}
    }
    if is_pods(row) && on("ServiceAccount") {
        timed(api, "ServiceAccount", "validate", "CREATE", || pods::check_service_account(api, place, value))?;
    }
    if on("PodSecurity") {
        timed(api, "PodSecurity", "validate", "CREATE", || pod_security::check(api, row, "", namespace, value, None, cx))?;
    }
    if on("OwnerReferencesPermissionEnforcement") {
        timed(api, "OwnerReferencesPermissionEnforcement", "validate", "CREATE", || optional::owner_references(api, row, "", namespace, value, None, cx))?;
    }
    if is_pods(row) && on("RuntimeClass") { timed(api, "RuntimeClass", "validate", "CREATE", || runtime_class::check(api, value)) } else { Ok(()) }
}

pub fn validate_update(api: &Api, row: &Resource, subresource: &str, namespace: Option<&str>, new: &Value, old: &Value, cx: &Context) -> Result<(), Status> {
    let on = |name| api.config.plugins.on(name);
    // What is on its way out is not held to bounds any more.
    let bounded = on("LimitRanger") && old.pointer("/metadata/deletionTimestamp").is_none();
    match (kind(row), subresource) {
        (("", "pods"), "resize") if bounded => timed(api, "LimitRanger", "validate", "UPDATE", || limit_ranger::check(api, row, namespace.unwrap_or("default"), new))?,
        (("", "persistentvolumeclaims"), "") => {
            if bounded {
                limit_ranger::check(api, row, namespace.unwrap_or("default"), new)?;
            }
            if on("PersistentVolumeClaimResize") {
                timed(api, "PersistentVolumeClaimResize", "validate", "UPDATE", || storage::resize(api, new, old))?;
            }
        }
        (("", "events"), "") => event_rate(api, namespace, new, cx)?,
        (("", "services"), "") if on("DenyServiceExternalIPs") => timed(api, "DenyServiceExternalIPs", "validate", "UPDATE", || optional::deny_external_ips(new, Some(old)))?,
        (("certificates.k8s.io", "certificatesigningrequests"), "approval") if on("CertificateApproval") => timed(api, "CertificateApproval", "validate", "UPDATE", || certificates::check(api, subresource, new, old, cx))?,
        (("certificates.k8s.io", "certificatesigningrequests"), "status") if on("CertificateSigning") => timed(api, "CertificateSigning", "validate", "UPDATE", || certificates::check(api, subresource, new, old, cx))?,
        (("scheduling.k8s.io", "priorityclasses"), "") if on("Priority") => timed(api, "Priority", "validate", "UPDATE", || pods::one_default_priority(api, new))?,
        _ => {}
    }
    if on("OwnerReferencesPermissionEnforcement") {
        timed(api, "OwnerReferencesPermissionEnforcement", "validate", "UPDATE", || optional::owner_references(api, row, subresource, namespace, new, Some(old), cx))?;
    }
    if on("PodSecurity") { timed(api, "PodSecurity", "validate", "UPDATE", || pod_security::check(api, row, subresource, namespace, new, Some(old), cx)) } else { Ok(()) }
}
