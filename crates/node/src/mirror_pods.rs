//! Mirror pods: what the API shows of static pods. They follow the files, not the API: one that is deleted is made again, one without a static pod is removed.
//!
//! Mirrors upstream's `pkg/kubelet/pod/mirror_client.go` and the part of `kubelet.go` that keeps them.

use std::sync::Arc;
use std::time::Duration;

use api::Status;
use api::k8s::api::core::v1::Pod;
use api::k8s::apimachinery::pkg::apis::meta::v1::OwnerReference;
use client::{DeleteOptions, Preconditions};

use crate::node::{MIRROR, Node};
use crate::pod;
use crate::static_pods::{HASH, annotation, is_of_file};

/// Until the API is asked again after it refused.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// What the API is to show of a static pod.
fn mirror_of(node: &Node, pod: &Pod) -> Pod {
    let mut mirror = pod.clone();
    let meta = &mut mirror.metadata;
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    meta.annotations.get_or_insert_default().insert(MIRROR.to_owned(), hash);
    meta.uid = None;
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.config.node_name.clone(),
        uid: node.uid.lock().clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror
}

/// Brings the API's mirrors in line, once.
async fn reconcile(node: &Node) -> Result<(), Status> {
    if node.uid.lock().is_empty() {
        // Not registered yet: told again when it is.
        return Ok(());
    }
    let (wanted, shown) = (node.static_pods(), node.mirrors_of_files());
    let same = |one: &Pod, other: &Pod| pod::name(one) == pod::name(other) && pod::namespace(one) == pod::namespace(other);
    for mirror in &shown {
        let kept = wanted.iter().any(|pod| same(pod, mirror) && annotation(pod, HASH) == annotation(mirror, MIRROR));
        if kept && !pod::is_terminating(mirror) {
            continue;
        }
        let options = DeleteOptions { grace_period_seconds: Some(0), preconditions: Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None }, ..DeleteOptions::default() };
        match node.client.of::<Pod>(mirror.metadata.namespace.as_deref()).delete(pod::name(mirror), &options).await {
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            done => done?,
        }
    }
    for pod in wanted.iter().filter(|pod| !shown.iter().any(|mirror| same(pod, mirror))) {
        match node.client.of::<Pod>(pod.metadata.namespace.as_deref()).create(&mirror_of(node, pod)).await {
            // Not seen yet, or somebody's pod of that name: both are told by the API.
            Err(error) if error.is_already_exists() => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// Whenever a file or a mirror has changed. Never ends.
pub async fn keep(node: Arc<Node>) {
    loop {
        node.mirrors_stale.notified().await;
        while let Err(error) = reconcile(&node).await {
            tracing::warn!(%error, "cannot keep the mirror pods");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// The mirror that shows a static pod, if the API has it.
pub fn shown(node: &Node, pod: &Pod) -> Option<Arc<Pod>> {
    let mirror = node.mirror(pod::namespace(pod), pod::name(pod))?;
    (is_of_file(&mirror) && !pod::is_terminating(&mirror) && annotation(&mirror, MIRROR) == annotation(pod, HASH)).then_some(mirror)
}
