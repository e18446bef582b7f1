//! The node's heartbeat: a Lease in `kube-node-lease`, renewed four times in its duration (every 10 s). Mirrors client-go's component-helpers `lease.Controller`.

use std::sync::Arc;
use std::time::Duration;

use api::Typed as _;
use api::Status;
use api::k8s::api::coordination::v1::Lease;
use api::world::rfc3339_micro;
use serde_json::json;

use crate::node::Node;

pub const NAMESPACE: &str = "kube-node-lease";
/// Unless configured otherwise.
pub const DURATION_SECONDS: i32 = 40;
pub const RENEW_PERIOD: Duration = Duration::from_secs(10);
/// Upstream's `nodeLeaseRenewIntervalFraction`.
const RENEWALS: u32 = 4;
/// First pause after a failure; doubles to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(7);

pub async fn keep(node: Arc<Node>) {
    let mut last: Option<Arc<Lease>> = None;
    let mut pause = RETRY;
    loop {
        match renew(&node, last.as_deref()).await {
            Ok(lease) => {
                last = Some(lease);
                if pause > RETRY {
                    // The server answers again: what could not be told meanwhile is told now.
                    node.status_changed.notify_one();
                }
                pause = RETRY;
                tokio::time::sleep(Duration::from_secs(u64::try_from(node.config.settings.lease_seconds).unwrap_or(1)) / RENEWALS).await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot renew the node's lease");
                last = None;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn renew(node: &Node, last: Option<&Lease>) -> Result<Arc<Lease>, Status> {
    let leases = node.client.of::<Lease>(Some(NAMESPACE));
    let name = &node.config.node_name;
    let known = match last {
        Some(lease) => Some(lease.clone()),
        None => match leases.get(name).await {
            Ok(lease) => Some((*lease).clone()),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        },
    };
    let now = rfc3339_micro(node.now());
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": node.config.settings.lease_seconds, "renewTime": now});
    match known {
        Some(mut lease) => {
            lease.spec = serde_json::from_value(spec).map_err(Status::internal)?;
            leases.update(name, &lease).await
        }
        None => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": NAMESPACE,
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.uid.lock().clone()}]},
                "spec": spec,
            });
            leases.create(&Lease::from_value(&lease).map_err(Status::internal)?).await
        }
    }
}
