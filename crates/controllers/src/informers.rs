//! The caches that controllers share, and how a change finds the keys it concerns.

use std::collections::HashMap;
use std::sync::Arc;

use api::Object;
use api::k8s::Resource;
use api::k8s::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use api::k8s::api::batch::v1::{CronJob, Job};
use api::k8s::api::certificates::v1::CertificateSigningRequest;
use api::k8s::api::coordination::v1::Lease;
use api::k8s::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use api::k8s::api::discovery::v1::EndpointSlice;
use api::k8s::api::networking::v1::{IPAddress, ServiceCIDR};
use api::k8s::api::policy::v1::PodDisruptionBudget;
use api::k8s::api::storage::v1::StorageClass;
use client::{Change, Client, Informer, ObjectKey, Queue};

use crate::context::Observed;

/// Index: the uid of the managing owner; for an object without one `orphan/` and its namespace.
pub const CONTROLLER: &str = "controller";
/// Index: the node a pod is bound to.
pub const NODE: &str = "spec.nodeName";

macro_rules! informers {
    ($($field:ident: $kind:ty => $build:expr;)*) => {
        pub struct Informers {
            $(pub $field: Informer<$kind>,)*
        }

        impl Informers {
            pub fn start(client: &Client) -> Self {
                $(let $field = ($build)(Informer::<$kind>::of(client, None)).start();)*
                Self { $($field,)* }
            }

            /// By group and plural.
            pub fn observed(&self) -> HashMap<(String, String), Arc<dyn Observed>> {
                let mut map: HashMap<(String, String), Arc<dyn Observed>> = HashMap::new();
                $(map.insert((<$kind as Resource>::GROUP.to_owned(), <$kind as Resource>::URL_PATH_SEGMENT.to_owned()), Arc::new(self.$field.clone()));)*
                map
            }
        }
    };
}

type Builder<T> = client::Builder<T>;

fn plain<T: 'static>(builder: Builder<T>) -> Builder<T> {
    builder
}

fn managed<T: 'static>(builder: Builder<T>) -> Builder<T> {
    builder.index(CONTROLLER, |object| {
        let meta = object.meta();
        let uid = meta.owner_references.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone());
        vec![uid.unwrap_or_else(|| orphans(meta.namespace.as_deref().unwrap_or("")))]
    })
}

informers! {
    budgets: PodDisruptionBudget => plain;
    claims: PersistentVolumeClaim => plain;
    config_maps: ConfigMap => |builder: Builder<ConfigMap>| builder.fields("metadata.name=kube-root-ca.crt");
    controller_revisions: ControllerRevision => managed;
    cron_jobs: CronJob => plain;
    daemon_sets: DaemonSet => plain;
    deployments: Deployment => plain;
    endpoint_slices: EndpointSlice => |builder: Builder<EndpointSlice>| builder.index_label(plan::endpoints::slices::SERVICE_NAME);
    endpoints: Endpoints => plain;
    ip_addresses: IPAddress => plain;
    jobs: Job => managed;
    leases: Lease => |builder: Builder<Lease>| builder.fields("metadata.namespace=kube-node-lease");
    namespaces: Namespace => plain;
    nodes: Node => plain;
    pods: Pod => |builder| managed(builder).index(NODE, |object| object.typed::<Pod>().ok().and_then(|pod| pod.spec.as_ref()?.node_name.clone()).into_iter().collect());
    quotas: ResourceQuota => plain;
    replica_sets: ReplicaSet => managed;
    replication_controllers: ReplicationController => plain;
    service_accounts: ServiceAccount => plain;
    service_cidrs: ServiceCIDR => plain;
    services: Service => plain;
    signing_requests: CertificateSigningRequest => plain;
    stateful_sets: StatefulSet => plain;
    storage_classes: StorageClass => plain;
    token_secrets: Secret => |builder: Builder<Secret>| builder.fields("type=kubernetes.io/service-account-token");
    volumes: PersistentVolume => plain;
}

/// The value of the index `CONTROLLER` for objects without a managing owner.
pub fn orphans(namespace: &str) -> String {
    format!("orphan/{namespace}")
}

impl Informers {
    pub async fn synced(&self) {
        for informer in self.observed().into_values() {
            informer.synced().await;
        }
    }

    /// Pods that this owner manages or that nobody does.
    pub fn pods_for(&self, namespace: &str, uid: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.cache().list_by(CONTROLLER, uid);
        pods.extend(self.pods.cache().list_by(CONTROLLER, &orphans(namespace)));
        pods
    }
}

/// Every change of an object is work on the object.
pub fn itself<T: 'static>(informer: &Informer<T>, queue: &Queue<ObjectKey>) {
    let queue = queue.clone();
    informer.on_change(move |change| queue.add(change.key.clone()));
}

/// A change of an object is work on the owner of kind `O` that manages it (before or after); on `also` when nobody does.
pub fn owner<O: Resource, T: 'static>(
    informer: &Informer<T>,
    queue: &Queue<ObjectKey>,
    also: impl Fn(&Arc<Object>) -> Vec<ObjectKey> + Send + Sync + 'static,
) {
    let queue = queue.clone();
    informer.on_change(move |change: &Change| {
        for object in [&change.old, &change.new].into_iter().flatten() {
            let meta = object.meta();
            match meta.owner_references.iter().find(|owner| owner.controller == Some(true)) {
                Some(owner) if owner.kind == O::KIND => queue.add(ObjectKey::new(meta.namespace.as_deref().unwrap_or(""), &owner.name)),
                Some(_) => {}
                None => also(object).into_iter().for_each(|key| queue.add(key)),
            }
        }
    });
}
