//! describe: pure text of an object and what belongs to it, laid out to the space as k8s.io/kubectl/pkg/describe does.
//!
//! Entry: [`command`], the thin shell: it fetches what belongs to an object through a [`Fetch`] and hands all to [`text`], which is pure.
//! One file a family of kinds; `writer` holds what they share; kinds without a layout of their own are shown by `generic`.

mod batch;
mod certificates;
mod command;
mod config;
mod containers;
mod events;
mod generic;
mod network;
mod network_policy;
mod node;
mod pod;
mod policy;
mod quota;
mod rbac;
mod requests;
mod storage;
mod volumes;
mod workloads;
mod writer;

#[cfg(test)]
mod tests;

use jiff::Zoned;
use serde_json::{Value, json};

pub use command::{Fetch, command};

use writer::Writer;

/// What belongs to an object; each list empty where its kind asks for none.
#[derive(Debug, Default)]
pub struct Related {
    /// `None`: the user may not see them.
    pub pods: Option<Vec<Value>>,
    /// `None`: not asked for.
    pub events: Option<Vec<Value>>,
    pub replica_sets: Vec<Value>,
    pub endpoint_slices: Vec<Value>,
    pub services: Vec<Value>,
    pub leases: Vec<Value>,
    pub resource_quotas: Vec<Value>,
    pub limit_ranges: Vec<Value>,
}

/// The `Pod Template:` part, for `rollout history --revision`, which prints it with its tabs.
pub fn pod_template(template: &Value) -> String {
    let now = Zoned::default();
    let mut w = Writer::new(&now);
    pod::template(&json!({ "template": template }), "template", &mut w);
    w.tabbed()
}

/// `now` carries the zone times are shown in too.
pub fn text(group: &str, kind: &str, object: &Value, related: &Related, now: &Zoned) -> String {
    let mut w = Writer::new(now);
    let write: fn(&Value, &Related, &mut Writer) = match (group, kind) {
        ("", "Pod") => pod::pod,
        ("", "ReplicationController") => workloads::replication_controller,
        ("", "Secret") => config::secret,
        ("", "ConfigMap") => config::config_map,
        ("", "Service") => network::service,
        ("", "ServiceAccount") => config::service_account,
        ("", "Node") => node::node,
        ("", "LimitRange") => quota::limit_range,
        ("", "ResourceQuota") => quota::resource_quota,
        ("", "PersistentVolume") => storage::persistent_volume,
        ("", "PersistentVolumeClaim") => storage::persistent_volume_claim,
        ("", "Namespace") => config::namespace,
        ("", "Endpoints") => network::endpoints,
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice,
        ("autoscaling", "HorizontalPodAutoscaler") => policy::horizontal_pod_autoscaler,
        ("networking.k8s.io", "Ingress") => network::ingress,
        ("networking.k8s.io", "IngressClass") => network::ingress_class,
        ("networking.k8s.io", "ServiceCIDR") => network::service_cidr,
        ("networking.k8s.io", "IPAddress") => network::ip_address,
        ("networking.k8s.io", "NetworkPolicy") => network_policy::network_policy,
        ("batch", "Job") => batch::job,
        ("batch", "CronJob") => batch::cron_job,
        ("apps", "StatefulSet") => workloads::stateful_set,
        ("apps", "Deployment") => workloads::deployment,
        ("apps", "DaemonSet") => workloads::daemon_set,
        ("apps", "ReplicaSet") => workloads::replica_set,
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::request,
        ("storage.k8s.io", "StorageClass") => storage::storage_class,
        ("storage.k8s.io", "CSINode") => storage::csi_node,
        ("storage.k8s.io", "VolumeAttributesClass") => storage::volume_attributes_class,
        ("policy", "PodDisruptionBudget") => policy::pod_disruption_budget,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => rbac::role,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::binding,
        ("scheduling.k8s.io", "PriorityClass") => policy::priority_class,
        _ => generic::object,
    };
    write(object, related, &mut w);
    w.finish()
}
