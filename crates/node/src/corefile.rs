//! The ConfigMap `kube-system/coredns`: what its Corefile says of names outside of the cluster, as whoever customizes CoreDNS writes it
//! (<https://kubernetes.io/docs/tasks/administer-cluster/dns-custom-nameservers/>). Watches: that one ConfigMap. Writes: nothing.
//!
//! A Corefile that cannot be read changes nothing, as in CoreDNS; without one, the node's own resolvers are asked.

use ::dns::{Corefile, Table, Target, Upstreams, Zone, ZoneConfig};
pub use ::dns::DEFAULT_COREFILE;
use api::k8s::api::core::v1::ConfigMap;
use client::{Client, Informer};

pub const NAMESPACE: &str = "kube-system";
pub const NAME: &str = "coredns";
const KEY: &str = "Corefile";

/// Follows it until it is dropped. `own` are the node's own resolvers.
pub async fn run(client: Client, own: Upstreams, set: impl Fn(Table) + Send) {
    let informer = Informer::<ConfigMap>::of(&client, Some(NAMESPACE)).fields(&format!("metadata.name={NAME}")).start();
    let mut changes = informer.subscribe();
    let mut last: Option<Corefile> = None;
    loop {
        let change = changes.next().await;
        let map = change.new.as_ref().and_then(|object| object.typed::<ConfigMap>().ok());
        let text = map.as_ref().and_then(|map| map.data.as_ref()?.get(KEY));
        let wanted = match text.map(|text| Corefile::parse(text)) {
            Some(Ok(corefile)) => corefile,
            Some(Err(error)) => {
                tracing::warn!(target: "dns", %error, "the Corefile of kube-system/coredns is not used: what was before goes on");
                continue;
            }
            None => Corefile::default(),
        };
        // The kept answers of upstreams that stay the same are not to be lost.
        if last.as_ref() == Some(&wanted) {
            continue;
        }
        for (line, what) in &wanted.ignored {
            tracing::warn!(target: "dns", line, what, "something in the Corefile of kube-system/coredns has no effect");
        }
        tracing::info!(target: "dns", zones = wanted.zones.len(), "names outside of the cluster are asked as the Corefile says");
        set(table(&wanted, &own));
        last = Some(wanted);
    }
}

fn table(corefile: &Corefile, own: &Upstreams) -> Table {
    let zone = |config: &ZoneConfig| Zone::new(&config.name, upstreams(&config.forward, own)).map(|zone| zone.with_hosts(config.hosts.iter().cloned(), config.hosts_ttl).with_rewrites(&config.rewrites));
    let mut table: Table = corefile.zones.iter().filter_map(zone).collect();
    if corefile.zones.is_empty() {
        table.extend(Zone::new("", own.clone()));
    }
    table
}

fn upstreams(targets: &[Target], own: &Upstreams) -> Upstreams {
    let servers: Vec<_> = targets.iter().filter_map(|target| if let Target::Server(server) = target { Some(*server) } else { None }).collect();
    // A file beside servers is left out: its servers may change.
    if servers.is_empty() && !targets.is_empty() { own.clone() } else { Upstreams::fixed(servers) }
}
