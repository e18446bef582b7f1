//! What kubeadm publishes in a new cluster, as objects. Names and rules are upstream's (`phases/bootstraptoken`, `uploadconfig`, `kubelet`, `kubeconfig`).
//!
//! Two bindings are our own: nodes are their Services' proxies too, and get serving certificates for themselves.

use serde_json::{Value, json};

use crate::bootstrap_token::GROUP;
use crate::certificates::KUBELET_CLIENT_USER;
use crate::domain::DEFAULT_DNS_DOMAIN;
use crate::host::{Args, ControlPlaneArgs, ExternalEtcd};
use crate::rest::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, CONFIG_MAPS, Kind, ROLE_BINDINGS, ROLES};

const RBAC: &str = "rbac.authorization.k8s.io";
const NODES: &str = "system:nodes";
pub const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";
/// Where the objects of a cluster with one control plane are.
const EMBEDDED_STORE: &str = "/var/lib/coracle/store";
pub const KUBEADM_CONFIG: &str = "kubeadm-config";
pub const KUBELET_CONFIG: &str = "kubelet-config";
pub const KUBEADM_CERTS: &str = "kubeadm-certs";

type Object = (Kind, Value);

fn subject(kind: &str, name: &str) -> Value {
    json!({"kind": kind, "apiGroup": RBAC, "name": name})
}

fn cluster_role(name: &str, rules: Value) -> Object {
    (CLUSTER_ROLES, json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}))
}

fn cluster_binding(name: &str, role: &str, subjects: Value) -> Object {
    let role = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": role});
    (CLUSTER_ROLE_BINDINGS, json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": role, "subjects": subjects}))
}

/// Who may read one ConfigMap or Secret.
fn readable(namespace: &str, role: &str, (resource, name): (&str, &str), subjects: Value) -> [Object; 2] {
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": [resource], "resourceNames": [name]}]);
    let meta = json!({"name": role, "namespace": namespace});
    let reference = json!({"apiGroup": RBAC, "kind": "Role", "name": role});
    [
        (ROLES, json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules})),
        (ROLE_BINDINGS, json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": reference, "subjects": subjects})),
    ]
}

/// Whoever has `admin.conf`.
pub fn administrators() -> Object {
    cluster_binding("kubeadm:cluster-admins", "cluster-admin", json!([subject("Group", "kubeadm:cluster-admins")]))
}

/// What machines with a token may do, and nodes.
pub fn bootstrap_rules() -> Vec<Object> {
    let tokens = || json!([subject("Group", GROUP)]);
    let nodes = || json!([subject("Group", NODES)]);
    vec![
        cluster_role("kubeadm:get-nodes", json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}])),
        cluster_binding("kubeadm:get-nodes", "kubeadm:get-nodes", tokens()),
        cluster_binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", tokens()),
        cluster_binding("kubeadm:node-autoapprove-bootstrap", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", tokens()),
        cluster_binding("kubeadm:node-autoapprove-certificate-rotation", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", nodes()),
        cluster_binding("kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin", json!([subject("User", KUBELET_CLIENT_USER)])),
        cluster_role("coracle:selfnodeserver", json!([{"verbs": ["create"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/selfnodeserver"]}])),
        cluster_binding("coracle:node-autoapprove-serving", "coracle:selfnodeserver", nodes()),
        // What a network plugin's DaemonSet would be granted elsewhere: here the agent itself is the network.
        cluster_binding("coracle:node-proxier", "system:node-proxier", nodes()),
        cluster_role(
            "coracle:network-policies",
            json!([
                {"verbs": ["list", "watch"], "apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"]},
                {"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["namespaces", "pods"]},
            ]),
        ),
        cluster_binding("coracle:network-policies", "coracle:network-policies", nodes()),
    ]
}

/// `cluster-info`, which everybody may read. Its signatures are the control plane's to make.
pub fn cluster_info(kubeconfig: &str) -> Vec<Object> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info", "namespace": "kube-public"}, "data": {"kubeconfig": kubeconfig}});
    let mut all = vec![(CONFIG_MAPS, object)];
    all.extend(readable("kube-public", "kubeadm:bootstrap-signer-clusterinfo", ("configmaps", "cluster-info"), json!([subject("User", "system:anonymous")])));
    all
}

/// What the cluster was made with.
#[derive(Debug, Clone)]
pub struct ClusterConfiguration {
    pub version: String,
    pub control_plane_endpoint: Option<String>,
    pub pod_subnet: String,
    pub service_subnet: String,
    pub no_network: bool,
    /// `proxy.disabled`.
    pub no_proxy: bool,
    /// Of the API server's certificate.
    pub extra_names: Vec<String>,
    /// None: the first machine's data folder.
    pub etcd: Option<ExternalEtcd>,
    pub dns_domain: String,
    /// `extraArgs` of the parts.
    pub args: ControlPlaneArgs,
}

/// `etcd:` of a ClusterConfiguration.
fn etcd_value(etcd: Option<&ExternalEtcd>) -> Value {
    let Some(etcd) = etcd else { return json!({"local": {"dataDir": EMBEDDED_STORE}}) };
    let mut external = json!({"endpoints": etcd.endpoints});
    for (key, file) in [("caFile", &etcd.ca_file), ("certFile", &etcd.cert_file), ("keyFile", &etcd.key_file)] {
        external[key] = file.as_ref().map(|file| file.display().to_string()).unwrap_or_default().into();
    }
    json!({"external": external})
}

/// `etcd.external` of a ClusterConfiguration, if it has one.
pub fn external_etcd(configuration: &Value) -> Option<ExternalEtcd> {
    let external = configuration.pointer("/etcd/external")?;
    let file = |key: &str| external[key].as_str().filter(|text| !text.is_empty()).map(Into::into);
    let endpoints: Vec<String> = external["endpoints"].as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect();
    Some(ExternalEtcd { endpoints, ca_file: file("caFile"), cert_file: file("certFile"), key_file: file("keyFile") })
}

/// Of one part of a ClusterConfiguration.
fn extra_args(configuration: &Value, part: &str) -> Args {
    let items = configuration[part]["extraArgs"].as_array().into_iter().flatten();
    items.filter_map(|argument| Some((argument["name"].as_str()?.to_owned(), argument["value"].as_str()?.to_owned()))).collect()
}

impl ClusterConfiguration {
    pub fn value(&self) -> Value {
        let mut value = json!({
            "apiVersion": API_VERSION, "kind": "ClusterConfiguration",
            "apiServer": {}, "controllerManager": {}, "dns": {}, "proxy": {}, "scheduler": {},
            "caCertificateValidityPeriod": "87600h0m0s", "certificateValidityPeriod": "8760h0m0s", "encryptionAlgorithm": "ECDSA-P256",
            "certificatesDir": "/etc/kubernetes/pki", "clusterName": "kubernetes", "imageRepository": "registry.k8s.io", "kubernetesVersion": self.version,
            "etcd": etcd_value(self.etcd.as_ref()),
            "networking": {"dnsDomain": self.dns_domain, "podSubnet": self.pod_subnet, "serviceSubnet": self.service_subnet},
        });
        if let Some(endpoint) = &self.control_plane_endpoint {
            value["controlPlaneEndpoint"] = endpoint.as_str().into();
        }
        if self.no_proxy {
            value["proxy"]["disabled"] = true.into();
        }
        if !self.extra_names.is_empty() {
            value["apiServer"]["certSANs"] = json!(self.extra_names);
        }
        for (part, args) in [("apiServer", &self.args.api_server), ("controllerManager", &self.args.controller_manager), ("scheduler", &self.args.scheduler)] {
            if !args.is_empty() {
                value[part]["extraArgs"] = args.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            }
        }
        value
    }

    pub fn yaml(&self) -> String {
        // Maps, lists and texts can always be written.
        serde_saphyr::to_string(&self.value()).unwrap_or_default()
    }

    /// What a joining machine must know of it.
    pub fn read(config_map: &Value) -> Option<Self> {
        let text = config_map.pointer("/data/ClusterConfiguration")?.as_str()?;
        let parsed: Value = serde_saphyr::from_str(text).ok()?;
        let at = |path: &str| parsed.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self {
            version: at("/kubernetesVersion")?,
            control_plane_endpoint: at("/controlPlaneEndpoint"),
            pod_subnet: at("/networking/podSubnet").unwrap_or_default(),
            service_subnet: at("/networking/serviceSubnet")?,
            no_network: config_map.pointer("/data/network").and_then(Value::as_str) == Some("none"),
            no_proxy: parsed.pointer("/proxy/disabled").and_then(Value::as_bool).unwrap_or_default(),
            extra_names: parsed.pointer("/apiServer/certSANs").and_then(Value::as_array).into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
            etcd: external_etcd(&parsed),
            dns_domain: at("/networking/dnsDomain").unwrap_or_else(|| DEFAULT_DNS_DOMAIN.to_owned()),
            args: ControlPlaneArgs { api_server: extra_args(&parsed, "apiServer"), controller_manager: extra_args(&parsed, "controllerManager"), scheduler: extra_args(&parsed, "scheduler") },
        })
    }
}

/// Machines with a token read these before they join, nodes later.
fn nodes_and_tokens() -> Value {
    json!([subject("Group", NODES), subject("Group", GROUP)])
}

pub fn kubeadm_config(configuration: &ClusterConfiguration) -> Vec<Object> {
    let mut data = json!({"ClusterConfiguration": configuration.yaml()});
    if configuration.no_network {
        // Not a part of upstream's configuration: there, networks come from elsewhere always.
        data["network"] = "none".into();
    }
    let mut all = vec![(CONFIG_MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": KUBEADM_CONFIG, "namespace": "kube-system"}, "data": data}))];
    all.extend(readable("kube-system", "kubeadm:nodes-kubeadm-config", ("configmaps", KUBEADM_CONFIG), nodes_and_tokens()));
    all
}

/// A KubeletConfiguration, in YAML.
pub fn kubelet_configuration(cluster_dns: &str, domain: &str) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nauthentication:\n  anonymous:\n    enabled: false\n  webhook:\n    enabled: true\n  x509:\n    clientCAFile: /etc/kubernetes/pki/ca.crt\nauthorization:\n  mode: Webhook\ncgroupDriver: cgroupfs\nclusterDNS:\n- {cluster_dns}\nclusterDomain: {domain}\nkind: KubeletConfiguration\nrotateCertificates: true\nserverTLSBootstrap: true\nstaticPodPath: /etc/kubernetes/manifests\n"
    )
}

pub fn kubelet_config(yaml: &str) -> Vec<Object> {
    let mut all = vec![(CONFIG_MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": KUBELET_CONFIG, "namespace": "kube-system"}, "data": {"kubelet": yaml}}))];
    all.extend(readable("kube-system", "kubeadm:kubelet-config", ("configmaps", KUBELET_CONFIG), nodes_and_tokens()));
    all
}

/// Who has a token may have the sealed certificates: they are of no use without their key.
pub fn certificates_readable() -> [Object; 2] {
    readable("kube-system", "kubeadm:kubeadm-certs", ("secrets", KUBEADM_CERTS), json!([subject("Group", GROUP)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_as_it_was_written() {
        let mut configuration = ClusterConfiguration {
            version: "v1.36.2".into(),
            control_plane_endpoint: Some("lb.example:6443".into()),
            pod_subnet: "10.244.0.0/16".into(),
            service_subnet: "10.96.0.0/12".into(),
            no_network: true,
            no_proxy: true,
            extra_names: vec!["lb.example".into()],
            etcd: Some(ExternalEtcd { endpoints: vec!["https://192.0.2.9:2379".into()], ca_file: Some("/etc/etcd/ca.crt".into()), cert_file: None, key_file: None }),
            dns_domain: "example.org".into(),
            args: ControlPlaneArgs { api_server: vec![("audit-log-path".into(), "-".into())], controller_manager: vec![("cluster-signing-duration".into(), "1h".into())], scheduler: Vec::new() },
        };
        for _ in 0..2 {
            let object = &kubeadm_config(&configuration)[0].1;
            assert_eq!(format!("{:?}", ClusterConfiguration::read(object).unwrap()), format!("{configuration:?}"));
            configuration = ClusterConfiguration { control_plane_endpoint: None, no_network: false, no_proxy: false, extra_names: Vec::new(), etcd: None, args: ControlPlaneArgs::default(), ..configuration };
        }
        assert!(ClusterConfiguration::read(&json!({"data": {"ClusterConfiguration": "a: ["}})).is_none());
        let parsed: Value = serde_saphyr::from_str(&kubelet_configuration("10.96.0.10", "example.org")).unwrap();
        assert_eq!(parsed["clusterDNS"], json!(["10.96.0.10"]));
    }
}
