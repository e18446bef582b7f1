//! Starts the caches, then every controller; the one entry of this crate.

use std::sync::Arc;

use api::Clock;
use client::{BoxFuture, Client, Measured, ObjectKey, Queue};
use plan::node::ipam::Cidr;
use tokio::task::JoinSet;

use crate::bootstrap::{self, BootstrapSigner, TokenCleaner};
use crate::certificates::{Certificates, Signer};
use crate::context::Context;
use crate::cronjob::CronJobs;
use crate::daemonset::DaemonSets;
use crate::deployment::Deployments;
use crate::disruption::Disruptions;
use crate::endpoints::{EndpointSlices, LegacyEndpoints, MirroredEndpoints};
use crate::garbage::{Everything, GarbageCollector};
use crate::informers::Informers;
use crate::job::{JobOrphans, Jobs};
use crate::kinds::Kinds;
use crate::namespace::Namespaces;
use crate::node::{NodeIpam, NodeLifecycle, PodGarbage, TaintEviction};
use crate::quota::Quotas;
use crate::replicaset::{ReplicaSets, ReplicationControllers};
use crate::runner::work;
use crate::service_cidr::{LeakedAddresses, ServiceAddresses, ServiceCidrs};
use crate::serviceaccount::ServiceAccounts;
use crate::statefulset::StatefulSets;
use crate::tokens::Tokens;
use crate::volume::{Claims, EphemeralVolumes, Volumes};

/// What the controllers must be told.
#[derive(Clone)]
pub struct Config {
    /// Pod networks, at most one a family: `10.244.0.0/16`, `fd00:10:244::/56`. Empty: nodes get no `podCIDR` from us.
    pub cluster_cidrs: Vec<String>,
    /// The certificate (PEM) by which pods know the API server: `kube-root-ca.crt`.
    pub root_ca: String,
    pub clock: Arc<dyn Clock>,
    /// What the controllers ask, and their queues, are counted here.
    pub measured: Arc<Measured>,
    /// Who signs approved CertificateSigningRequests; none leaves them to others.
    pub signer: Option<Arc<dyn Signer>>,
}

/// Runs all controllers until `shutdown` resolves.
pub fn run(client: Client, config: Config, shutdown: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
    Box::pin(until(client, config, shutdown))
}

async fn until(client: Client, config: Config, shutdown: BoxFuture<'static, ()>) {
    let all = async {
        let client = client.measured("kube-controller-manager", &config.measured);
        let informers = Arc::new(Informers::start(&client));
        let (namespaces, quotas): (Queue<ObjectKey>, Queue<ObjectKey>) = (Queue::new(), Queue::new());
        let kinds = Arc::new(Kinds::watch(&client));
        let everything = Arc::new(Everything::watch(&client, kinds.clone(), {
            let (queue, cache, quotas, informers) = (namespaces.clone(), informers.namespaces.cache().clone(), quotas.clone(), informers.clone());
            move |key| {
                crate::quota::recount(&informers, &quotas, &key.namespace);
                // A namespace that is going waits for the last object in it.
                if cache.object("", &key.namespace).is_some_and(|namespace| namespace.meta().deletion_timestamp.is_some()) {
                    queue.add(ObjectKey::new("", &key.namespace));
                }
            }
        }));
        informers.synced().await;
        let context = Arc::new(Context { client: client.clone(), clock: config.clock.clone(), measured: config.measured.clone(), observed: informers.observed() });
        let mut tasks = JoinSet::new();

        macro_rules! start {
            ($controller:expr) => {
                let controller = $controller;
                let queue = controller.keys();
                tasks.spawn(work(controller, queue, context.clone()));
            };
        }
        start!(Deployments(informers.clone()));
        start!(ReplicaSets(informers.clone()));
        start!(DaemonSets(informers.clone()));
        start!(StatefulSets(informers.clone()));
        start!(Jobs(informers.clone()));
        start!(JobOrphans(informers.clone()));
        start!(CronJobs(informers.clone()));
        start!(NodeLifecycle::new(informers.clone(), config.clock.clone()));
        start!(TaintEviction(informers.clone()));
        start!(PodGarbage { informers: informers.clone(), client: client.clone() });
        let cluster: Vec<Cidr> = config
            .cluster_cidrs
            .iter()
            .filter_map(|text| text.parse().inspect_err(|error| tracing::error!(%error, "pod network ignored")).ok())
            .collect();
        if !cluster.is_empty() {
            start!(NodeIpam { informers: informers.clone(), cluster });
        }
        start!(ReplicationControllers(informers.clone()));
        start!(EndpointSlices(informers.clone()));
        start!(LegacyEndpoints(informers.clone()));
        start!(MirroredEndpoints(informers.clone()));
        start!(Tokens { informers: informers.clone(), client: client.clone(), certificate: config.root_ca.as_str().into() });
        start!(ServiceAccounts { informers: informers.clone(), certificate: config.root_ca.as_str().into() });
        start!(Disruptions { informers: informers.clone(), client: client.clone(), kinds: kinds.clone() });
        start!(Quotas { informers: informers.clone(), client: client.clone(), kinds: kinds.clone(), queue: quotas });
        if let Some(signer) = config.signer.clone() {
            start!(Certificates { informers: informers.clone(), client: client.clone(), signer });
        }
        start!(ServiceCidrs(informers.clone()));
        start!(ServiceAddresses { informers: informers.clone(), client: client.clone() });
        start!(LeakedAddresses(informers.clone()));
        start!(Claims(informers.clone()));
        start!(Volumes(informers.clone()));
        start!(EphemeralVolumes(informers.clone()));
        start!(Namespaces { informers: informers.clone(), client: client.clone(), kinds: kinds.clone(), queue: namespaces });
        let bootstrap = bootstrap::Tokens::watch(&client);
        let (signer, cleaner) = (BootstrapSigner(bootstrap.clone()), TokenCleaner(bootstrap.clone()));
        let (signed, cleaned, own) = (signer.keys(), cleaner.keys(), bootstrap.context(&context));
        tasks.spawn(async move {
            bootstrap.synced().await;
            tokio::join!(work(signer, signed, own.clone()), work(cleaner, cleaned, own));
        });
        // Last: nothing is called absent before everything was seen.
        let collector = GarbageCollector { everything: everything.clone(), client: client.clone() };
        let (queue, context) = (everything.keys(), context.clone());
        tasks.spawn(async move {
            everything.synced().await;
            work(collector, queue, context).await;
        });
        while let Some(ended) = tasks.join_next().await {
            // Nobody would do its work any more: whoever runs us begins all of it anew.
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = shutdown => {}
    }
}
