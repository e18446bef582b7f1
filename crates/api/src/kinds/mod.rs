//! The policies of the built-in kinds: one file a kind or small family, each with its defaults, its validation and its strategy.
//!
//! To add a kind: a `static` [`policy::Policy`] that names only where it differs, and a line in [`strategy`].

mod admission;
mod affinity;
mod autoscaling;
pub mod certificates;
pub mod cluster;
mod claim_status;
mod conditions;
mod config;
mod container;
pub mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod devices;
mod diff;
mod endpoints;
mod extension;
mod flow_control;
mod job;
mod job_status;
pub mod json;
mod networking;
mod persistent_volume_claim;
pub mod pod;
mod pod_defaults;
pub mod pod_resize;
mod pod_spec;
mod pod_warnings;
pub mod policy;
mod probe;
pub mod qos;
mod quota;
mod rbac;
mod replica_set;
pub mod resources;
mod scheduling;
mod security;
pub mod service;
mod stateful_set;
mod storage;
mod volume;
mod volume_sources;
mod windows;
mod workload;

use policy::{BUILT_IN, Generation, Policy};

use crate::strategy::Strategy;
use crate::validation::MetadataAgain;

/// A custom resource without a status subresource: its status is content like the rest.
pub static CUSTOM: Policy = Policy { generation: Generation::ContentAndStatus, metadata_again: [MetadataAgain::Change; 2], ..BUILT_IN };

/// A custom resource with one: the status is written there only.
pub static CUSTOM_WITH_STATUS: Policy = Policy {
    generation: Generation::Content,
    metadata_again: [MetadataAgain::Change; 2],
    status_keeps_metadata: true,
    on_create: |object, _| drop(json::take(object, "status")),
    on_update: |new, old, _| crate::strategy::keep(new, old, "status"),
    ..BUILT_IN
};

/// A built-in kind that needs nothing special.
static BARE: Policy = BUILT_IN;

/// A kind with a spec and a status that is another's, and nothing else special.
static REQUEST: Policy = Policy { status: true, status_keeps_metadata: true, unconditional_update: false, ..BUILT_IN };

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
        ("", "events") => &cluster::EVENT,
        ("events.k8s.io", "events") => &cluster::NEW_EVENT,
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
        ("", "persistentvolumes") => &storage::PERSISTENT_VOLUME,
        ("storage.k8s.io", "storageclasses") => &storage::STORAGE_CLASS,
        ("storage.k8s.io", "volumeattributesclasses") => &storage::ATTRIBUTES_CLASS,
        ("storage.k8s.io", "volumeattachments") => &storage::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "csinodes") => &storage::CSI_NODE,
        ("storage.k8s.io", "csidrivers") => &storage::CSI_DRIVER,
        ("storage.k8s.io", "csistoragecapacities") => &storage::STORAGE_CAPACITY,
        ("networking.k8s.io", "ingresses") => &networking::INGRESS,
        ("networking.k8s.io", "ingressclasses") => &networking::INGRESS_CLASS,
        ("networking.k8s.io", "networkpolicies") => &networking::NETWORK_POLICY,
        ("networking.k8s.io", "ipaddresses") => &networking::IP_ADDRESS,
        ("networking.k8s.io", "servicecidrs") => &networking::SERVICE_CIDR,
        ("policy", "poddisruptionbudgets") => &networking::DISRUPTION_BUDGET,
        ("autoscaling", "horizontalpodautoscalers") => &autoscaling::AUTOSCALER,
        ("scheduling.k8s.io", "priorityclasses") => &scheduling::PRIORITY_CLASS,
        ("scheduling.k8s.io", "podgroups") => &scheduling::POD_GROUP,
        ("node.k8s.io", "runtimeclasses") => &scheduling::RUNTIME_CLASS,
        ("resource.k8s.io", "resourceclaims") => &scheduling::RESOURCE_CLAIM,
        ("resource.k8s.io", "resourceclaimtemplates") => &scheduling::RESOURCE_CLAIM_TEMPLATE,
        ("resource.k8s.io", "deviceclasses") => &scheduling::DEVICE_CLASS,
        ("resource.k8s.io", "resourceslices") => &scheduling::RESOURCE_SLICE,
        ("resource.k8s.io", "devicetaintrules") => &scheduling::DEVICE_TAINT_RULE,
        ("resource.k8s.io", "resourcepoolstatusrequests") => &scheduling::POOL_STATUS_REQUEST,
        ("certificates.k8s.io", "certificatesigningrequests") => &certificates::SIGNING_REQUEST,
        ("certificates.k8s.io", "clustertrustbundles") => &certificates::TRUST_BUNDLE,
        ("certificates.k8s.io", "podcertificaterequests") => &certificates::POD_CERTIFICATE_REQUEST,
        ("apiextensions.k8s.io", "customresourcedefinitions") => &custom_resource_definition::CUSTOM_RESOURCE_DEFINITION,
        ("apiregistration.k8s.io", "apiservices") => &extension::API_SERVICE,
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => &admission::MUTATING_WEBHOOKS,
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => &admission::VALIDATING_WEBHOOKS,
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => &admission::VALIDATING_POLICY,
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => &admission::MUTATING_POLICY,
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => &admission::VALIDATING_BINDING,
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => &admission::MUTATING_BINDING,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &flow_control::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &flow_control::PRIORITY_LEVEL,
        ("internal.apiserver.k8s.io", "storageversions") | ("storagemigration.k8s.io", "storageversionmigrations") => &REQUEST,
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
    fn custom_resources_count_their_content() {
        use crate::strategy::Strategy;
        let given = serde_json::json!({"metadata": {"name": "a"}, "spec": {"x": 1}, "status": {"y": 1}});
        for (policy, made_status, generations) in [(&super::CUSTOM, true, [1, 2, 2]), (&super::CUSTOM_WITH_STATUS, false, [1, 1, 2])] {
            let mut made = given.clone();
            policy.prepare_create(&mut made, &cx());
            assert_eq!(made.get("status").is_some(), made_status);
            let counted = [("/metadata/name", "b"), ("/status", "z"), ("/spec/x", "2")].map(|(pointer, value)| {
                let mut new = made.clone();
                if pointer == "/status" {
                    new["status"] = value.into();
                } else if let Some(slot) = new.pointer_mut(pointer) {
                    *slot = value.into();
                }
                policy.prepare_update(&mut new, &made, &cx());
                new["metadata"]["generation"].as_i64().unwrap()
            });
            assert_eq!(counted, generations);
        }
    }

    #[test]
    fn every_selectable_field_has_a_value() {
        for resource in crate::table::table().rows() {
            for field in resource.selectable_fields.iter().filter(|field| !field.starts_with("metadata.")) {
                assert!(strategy(&resource.group, &resource.plural).selectable(&serde_json::json!({}), field).is_some(), "{}: {field}", resource.plural);
            }
        }
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
