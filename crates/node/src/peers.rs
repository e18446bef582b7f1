//! The way to the pods of other nodes: keeps [`network::PodNet::set_peers`] as the API's Nodes and this machine's links say. Watches: Node. Writes:
//! nothing. Mirrors what upstream leaves to the pod network (flannel's host-gw and vxlan backends).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::network::{Peer, PodNet, watch_underlay};
use api::k8s::api::core::v1::Node;
use client::{Client, Informer};
use tokio::sync::{Notify, watch};

/// The pause after the kernel refused something.
const RETRY: Duration = Duration::from_secs(1);
/// Beginnings of the names of the pod network's own links.
const OWN_LINKS: &str = "cor";

/// A node as its peers see it; `None` while it has no pods' range or is this node itself.
pub fn peer(node: &Node, own_name: &str) -> Option<Peer> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let spec = node.spec.as_ref()?;
    let mut ranges: Vec<&str> = spec.pod_cidrs.iter().flatten().map(String::as_str).collect();
    if ranges.is_empty() {
        ranges.extend(spec.pod_cidr.as_deref());
    }
    let pod_cidrs: Vec<_> = ranges.into_iter().filter_map(|text| text.parse().ok()).collect();
    if name == own_name || pod_cidrs.is_empty() {
        return None;
    }
    let addresses = node.status.as_ref()?.addresses.iter().flatten().filter(|address| address.type_ == "InternalIP");
    let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.address.parse().ok()).collect();
    (!addresses.is_empty()).then_some(Peer { name, addresses, pod_cidrs })
}

/// Follows until it is dropped; the routes stay as they are then.
pub async fn run(client: Client, own_name: String, pods: Arc<PodNet>) {
    let nodes = Informer::<Node>::of(&client, None).start();
    let changed = Arc::new(Notify::new());
    let mark = Arc::downgrade(&changed);
    nodes.on_change(move |_| {
        if let Some(changed) = mark.upgrade() {
            changed.notify_one();
        }
    });
    let mut underlay = match watch_underlay(vec![OWN_LINKS.to_owned()]) {
        Ok(underlay) => Some(underlay),
        Err(error) => {
            tracing::error!(%error, "routes to other nodes will not follow changes of this machine's links");
            None
        }
    };
    // Until all nodes are known the routes of a former process go on working.
    nodes.synced().await;
    let mut last: Option<Vec<Peer>> = None;
    let mut left_out = Vec::new();
    let mut told = None;
    loop {
        let mut peers: Vec<Peer> = nodes.cache().list().iter().filter_map(|node| peer(node, &own_name)).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        if last.as_ref() != Some(&peers) {
            let (network, wanted) = (pods.clone(), peers.clone());
            match tokio::task::spawn_blocking(move || network.set_peers(&wanted)).await {
                Ok(Ok(wanted)) => {
                    let counts = (peers.len(), wanted.direct.len(), wanted.tunnels.values().map(|tunnel| tunnel.routes.len()).sum::<usize>());
                    // Links come and go with pods, which concerns no route.
                    if told != Some(counts) {
                        let (peers, direct, tunnelled) = counts;
                        tracing::info!(target: "network", peers, direct, tunnelled, "routes to other nodes are set");
                        told = Some(counts);
                    }
                    if left_out != wanted.left_out {
                        wanted.left_out.iter().for_each(|(node, reason)| tracing::warn!(target: "network", node, reason, "a node's pods cannot be reached"));
                        left_out = wanted.left_out;
                    }
                    last = Some(peers);
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "routes to other nodes are not set, trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "setting routes to other nodes panicked, trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        tokio::select! {
            () = changed.notified() => {}
            () = next(&mut underlay) => last = None,
        }
    }
}

/// The next change of the machine's links; never without an ear for them.
async fn next(underlay: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = underlay
        && receiver.changed().await.is_ok()
    {
        return;
    }
    *underlay = None;
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn nodes_as_peers() {
        let node = |spec: Value, addresses: Value| -> Node { serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": spec, "status": {"addresses": addresses}})).unwrap() };
        let addresses = json!([{"type": "InternalIP", "address": "192.0.2.2"}, {"type": "Hostname", "address": "b"}, {"type": "InternalIP", "address": "2001:db8::2"}]);
        let full = node(json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]}), addresses.clone());
        let seen = peer(&full, "a").expect("a peer");
        assert_eq!((seen.name.as_str(), seen.addresses.len(), seen.pod_cidrs.len()), ("b", 2, 2));
        assert_eq!(peer(&full, "b"), None, "itself");
        assert_eq!(peer(&node(json!({"podCIDR": "10.244.1.0/24"}), addresses.clone()), "a").map(|peer| peer.pod_cidrs.len()), Some(1));
        assert_eq!(peer(&node(json!({}), addresses), "a"), None, "no range yet");
        assert_eq!(peer(&node(json!({"podCIDR": "10.244.1.0/24"}), json!([])), "a"), None, "no address yet");
    }
}
