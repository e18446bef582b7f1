//! The ConfigMap `kube-system/coredns`: what its Corefile says of names outside of the cluster, as whoever customizes CoreDNS writes it
//! (<https://kubernetes.io/docs/tasks/administer-cluster/dns-custom-nameservers/>). Watches: that one ConfigMap. Writes: nothing.
//!
//! A Corefile that cannot be read changes nothing, as in CoreDNS; without one, the node's own resolvers are asked.

use std::path::PathBuf;
use std::sync::Arc;

use ::dns::{CacheRule, Corefile, Table, Target, TlsFiles, Upstream, Upstreams, Zone, ZoneConfig};
pub use ::dns::DEFAULT_COREFILE;
use api::k8s::api::core::v1::ConfigMap;
use client::kubeconfig::Config;
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
    let zone = |config: &ZoneConfig| {
        let kept = config.cache.unwrap_or(CacheRule::NEVER);
        let zone = Zone::new(&config.name, upstreams(config, own).kept_by(kept))?;
        let zone = zone.with_hosts(config.hosts.iter().cloned(), config.hosts_ttl).hosts_falling(config.hosts_fall_through, !config.hosts_no_reverse);
        Some(zone.with_rewrites(&config.rewrites).with_templates(&config.templates).telling(config.log, config.errors))
    };
    let mut table: Table = corefile.zones.iter().filter_map(zone).collect();
    if corefile.zones.is_empty() {
        table.extend(Zone::new("", own.clone()));
    }
    table
}

fn upstreams(config: &ZoneConfig, own: &Upstreams) -> Upstreams {
    let mut tls = None;
    let mut servers = Vec::new();
    for target in &config.forward {
        match target {
            // A file beside servers is left out: its servers may change.
            Target::ResolvConf => {}
            Target::Server(server) => servers.push(Upstream::from(*server)),
            Target::Tls(server, name) => {
                // Without it nobody is asked: never in clear text what was to be secret.
                let Some(settings) = tls.get_or_insert_with(|| told(secure(&config.tls))) else { continue };
                let name = name.as_deref().or(config.tls.server_name.as_deref());
                match Upstream::secure(*server, settings.clone(), name) {
                    Some(upstream) => servers.push(upstream),
                    None => tracing::warn!(target: "dns", %server, name, "no name of a certificate: this server is not asked"),
                }
            }
        }
    }
    let only_files = config.forward.iter().all(|target| *target == Target::ResolvConf);
    if only_files && !config.forward.is_empty() { own.clone() } else { Upstreams::of(servers) }
}

fn told(settings: Result<Arc<rustls::ClientConfig>, String>) -> Option<Arc<rustls::ClientConfig>> {
    settings.inspect_err(|error| tracing::warn!(target: "dns", error, "servers over TLS are not asked")).ok()
}

/// The files are this node's.
fn secure(files: &TlsFiles) -> Result<Arc<rustls::ClientConfig>, String> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let client_identity = files.identity.as_ref().map(|(certificate, key)| Ok::<_, String>((read(certificate)?, read(key)?))).transpose()?;
    let config = Config { certificate_authority: files.authority.as_ref().map(read).transpose()?, client_identity, ..Config::default() };
    client::tls::client_config(&config, &[]).map(Arc::new)
}
