//! Puts into a new cluster what kubeadm publishes, telling each step in upstream's words.

use api::Status;
use client::Client;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::bootstrap_token::{BootstrapToken, Description, GROUP};
use crate::config_file::TokenWish;
use crate::error::Error;
use crate::objects::{self, ClusterConfiguration};
use crate::rest::{self, Kind, NODES, SECRETS};

const LABELS: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers"];
pub const TAINT: &str = "node-role.kubernetes.io/control-plane";

async fn put_all(client: &Client, objects: impl IntoIterator<Item = (Kind, Value)>) -> Result<(), Status> {
    for (kind, object) in objects {
        rest::put(client, &kind, object).await?;
    }
    Ok(())
}

/// Lets whoever has `admin.conf` do everything; `client` is the super-admin's.
pub async fn administrators(client: &Client) -> Result<(), Error> {
    put_all(client, [objects::administrators()]).await.map_err(Error::api("unable to create the kubeadm:cluster-admins ClusterRoleBinding"))
}

pub async fn configuration(client: &Client, configuration: &ClusterConfiguration) -> Result<(), Error> {
    println!("[upload-config] Storing the configuration used in ConfigMap \"kubeadm-config\" in the \"kube-system\" Namespace");
    put_all(client, objects::kubeadm_config(configuration)).await.map_err(Error::api("error uploading the kubeadm ClusterConfiguration"))
}

pub async fn kubelet_configuration(client: &Client, kubelet: &str) -> Result<(), Error> {
    println!("[kubelet] Creating a ConfigMap \"kubelet-config\" in namespace kube-system with the configuration for the kubelets in the cluster");
    put_all(client, objects::kubelet_config(kubelet)).await.map_err(Error::api("error creating kubelet configuration ConfigMap"))
}

/// Somebody else changed the node meanwhile.
const CONFLICTS_MAX: u32 = 10;

/// `taints`: others than kubeadm's own.
pub async fn mark_control_plane(client: &Client, node: &str, taints: Option<&[Value]>) -> Result<(), Error> {
    let own = [json!({"key": TAINT, "effect": "NoSchedule"})];
    let taints = taints.unwrap_or(&own);
    println!("[mark-control-plane] Marking the node {node} as control-plane by adding the labels: [{}]", LABELS.join(" "));
    if !taints.is_empty() {
        let shown: Vec<String> = taints.iter().map(|taint| format!("{}:{}", taint["key"].as_str().unwrap_or_default(), taint["effect"].as_str().unwrap_or_default())).collect();
        println!("[mark-control-plane] Marking the node {node} as control-plane by adding the taints [{}]", shown.join(" "));
    }
    let labels: serde_json::Map<String, Value> = LABELS.iter().map(|label| ((*label).to_owned(), "".into())).collect();
    let failed = || Error::api("error applying control-plane label and taints");
    let mut attempts = 0;
    loop {
        let found = rest::get(client, &NODES, None, node).await.map_err(failed())?.unwrap_or_default();
        // What others have it for, and what it registered with, stays: a list is replaced as a whole.
        let patch = json!({"metadata": {"labels": labels, "resourceVersion": found.pointer("/metadata/resourceVersion")}, "spec": {"taints": marked(taints, &found)}});
        match rest::patch(client, &NODES, node, patch).await {
            Err(status) if status.code == 409 && attempts < CONFLICTS_MAX => attempts += 1,
            outcome => return outcome.map_err(failed()),
        }
    }
}

/// `taints`, and those that the node has besides.
fn marked(taints: &[Value], node: &Value) -> Vec<Value> {
    let had = node.pointer("/spec/taints").and_then(Value::as_array).into_iter().flatten();
    taints.iter().chain(had.filter(|taint| !taints.contains(taint))).cloned().collect()
}

pub fn default_description(description: &str) -> Description {
    Description { usages: vec!["authentication".into(), "signing".into()], groups: vec![GROUP.into()], description: description.into() }
}

/// `ttl` of nothing is for ever. The Secret that it is.
pub async fn token(client: &Client, token: &BootstrapToken, what: &Description, ttl: SignedDuration) -> Result<Value, Error> {
    let expires = if ttl.is_zero() { None } else { Timestamp::now().checked_add(ttl).ok() };
    rest::put(client, &SECRETS, token.secret(what, expires)).await.map_err(Error::api("failed to create or update bootstrap token"))
}

/// As a file wants it; what it does not say is kubeadm's default.
pub fn description(wish: &TokenWish, otherwise: &str) -> Description {
    let mut what = default_description(wish.description.as_deref().unwrap_or(otherwise));
    if !wish.usages.is_empty() {
        what.usages = wish.usages.clone();
    }
    if !wish.groups.is_empty() {
        what.groups = wish.groups.clone();
    }
    what
}

/// What machines with a token may do, and nodes.
pub async fn bootstrap_rules(client: &Client) -> Result<(), Error> {
    put_all(client, objects::bootstrap_rules()).await.map_err(Error::api("error configuring RBAC rules for bootstrap tokens"))
}

pub async fn bootstrap(client: &Client, new: &BootstrapToken, ttl: SignedDuration, wish: &TokenWish, cluster_info: &str, show: bool) -> Result<(), Error> {
    if show {
        println!("[bootstrap-token] Using token: {new}");
    }
    println!("[bootstrap-token] Configuring bootstrap tokens, cluster-info ConfigMap, RBAC Roles");
    let what = description(wish, "The default bootstrap token generated by 'kubeadm init'.");
    token(client, new, &what, ttl).await?;
    println!("[bootstrap-token] Configured RBAC rules to allow Node Bootstrap tokens to get nodes");
    println!("[bootstrap-token] Configured RBAC rules to allow Node Bootstrap tokens to post CSRs in order for nodes to get long term certificate credentials");
    println!("[bootstrap-token] Configured RBAC rules to allow the csrapprover controller automatically approve CSRs from a Node Bootstrap Token");
    println!("[bootstrap-token] Configured RBAC rules to allow certificate rotation for all node client certificates in the cluster");
    println!("[bootstrap-token] Configured RBAC rules to allow the API server kubelet client certificate to access the kubelet API");
    bootstrap_rules(client).await?;
    println!("[bootstrap-token] Creating the \"cluster-info\" ConfigMap in the \"kube-public\" namespace");
    put_all(client, objects::cluster_info(cluster_info)).await.map_err(Error::api("error creating the cluster-info ConfigMap"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_of_others_stay() {
        let (own, other) = (json!({"key": TAINT, "effect": "NoSchedule"}), json!({"key": "a", "effect": "NoExecute"}));
        let node = json!({"spec": {"taints": [other, own]}});
        assert_eq!(marked(std::slice::from_ref(&own), &node), [own.clone(), other.clone()]);
        assert_eq!((marked(&[], &node).len(), marked(std::slice::from_ref(&own), &Value::Null)), (2, vec![own]));
    }
}
