//! The policies of the built-in kinds: one file a kind or small family, each with its defaults, its validation and its strategy.
//!
//! To add a kind: a `static` [`policy::Policy`] that names only where it differs, and a line in [`strategy`].

mod affinity;
pub mod cluster;
mod config;
mod container;
mod cron;
mod daemon_set;
mod deployment;
mod diff;
mod endpoints;
mod job;
pub mod json;
mod persistent_volume_claim;
pub mod pod;
mod pod_defaults;
mod pod_spec;
pub mod policy;
mod probe;
pub mod qos;
mod quota;
mod rbac;
mod replica_set;
mod resources;
mod security;
mod service;
mod stateful_set;
mod volume;
mod workload;

use policy::{BUILT_IN, Generation, Policy};

use crate::strategy::Strategy;

/// Every custom resource: generation counts what is not metadata or status.
pub static CUSTOM: Policy = Policy { generation: Generation::Content, status_keeps_metadata: true, ..BUILT_IN };

/// A built-in kind that needs nothing special.
static BARE: Policy = BUILT_IN;

/// The strategy of a built-in kind.
pub fn strategy(group: &str, plural: &str) -> &'static dyn Strategy {
    let policy: &'static Policy = match (group, plural) {
        ("", "pods") => &pod::POD,
        ("", "podtemplates") => &cluster::POD_TEMPLATE,
        ("", "services") => &service::SERVICE,
        ("", "endpoints") => &endpoints::ENDPOINTS,
        ("discovery.k8s.io", "endpointslices") => &endpoints::ENDPOINT_SLICE,
        ("", "configmaps") => &config::CONFIG_MAP,
        ("", "secrets") => &config::SECRET,
        ("", "namespaces") => &cluster::NAMESPACE,
        ("", "nodes") => &cluster::NODE,
        ("", "serviceaccounts") => &cluster::SERVICE_ACCOUNT,
        ("" | "events.k8s.io", "events") => &cluster::EVENT,
        ("coordination.k8s.io", "leases") => &cluster::LEASE,
        ("", "limitranges") => &cluster::LIMIT_RANGE,
        ("", "resourcequotas") => &quota::RESOURCE_QUOTA,
        ("", "persistentvolumeclaims") => &persistent_volume_claim::PERSISTENT_VOLUME_CLAIM,
        ("", "replicationcontrollers") => &replica_set::REPLICATION_CONTROLLER,
        ("apps", "deployments") => &deployment::DEPLOYMENT,
        ("apps", "replicasets") => &replica_set::REPLICA_SET,
        ("apps", "daemonsets") => &daemon_set::DAEMON_SET,
        ("apps", "statefulsets") => &stateful_set::STATEFUL_SET,
        ("apps", "controllerrevisions") => &daemon_set::CONTROLLER_REVISION,
        ("batch", "jobs") => &job::JOB,
        ("batch", "cronjobs") => &job::CRON_JOB,
        ("rbac.authorization.k8s.io", "roles") => &rbac::ROLE,
        ("rbac.authorization.k8s.io", "clusterroles") => &rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "rolebindings") => &rbac::ROLE_BINDING,
        ("rbac.authorization.k8s.io", "clusterrolebindings") => &rbac::CLUSTER_ROLE_BINDING,
        _ => &BARE,
    };
    policy
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::strategy;
    use crate::status::Cause;
    use crate::strategy::Context;

    fn cx() -> Context {
        Context::at("2026-01-01T00:00:00Z".parse().unwrap())
    }

    /// What the server does on create, without metadata: the object as stored, and what is wrong with it.
    pub fn create(group: &str, plural: &str, mut object: Value) -> (Value, Vec<Cause>) {
        let strategy = strategy(group, plural);
        strategy.default(&mut object);
        strategy.prepare_create(&mut object, &cx());
        let causes = strategy.validate(&object);
        (object, causes)
    }

    pub fn update(group: &str, plural: &str, mut object: Value, old: &Value) -> (Value, Vec<Cause>) {
        let strategy = strategy(group, plural);
        strategy.default(&mut object);
        strategy.prepare_update(&mut object, old, &cx());
        let causes = strategy.validate_update(&object, old);
        (object, causes)
    }

    pub fn lines(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn no_kind_trips_over_odd_objects() {
        for resource in crate::table::table().rows() {
            for object in [serde_json::json!({}), serde_json::json!({"metadata": {"name": "a"}, "spec": {}, "status": {}}), Value::Null, serde_json::json!({"spec": null, "metadata": null})] {
                let (made, _) = create(&resource.group, &resource.plural, object.clone());
                let (_, _) = update(&resource.group, &resource.plural, object.clone(), &made);
                let (again, _) = update(&resource.group, &resource.plural, made.clone(), &object);
                let strategy = strategy(&resource.group, &resource.plural);
                let mut status = again;
                strategy.prepare_status(&mut status, &made, &cx());
                strategy.validate_status(&status, &made);
                strategy.warnings(&made);
                strategy.delete_grace(&made, None);
            }
        }
    }
}
