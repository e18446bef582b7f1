//! `coracle kubelet`: the agent alone, for machines that join: node, container runtime, pod network, Service proxy and DNS, over mutual TLS to an API server elsewhere.
//!
//! Who it is stands in a kubeconfig that `kubeadm join` wrote. It renews its certificates while it runs, and serves the kubelet's API with one the cluster signed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::Typed as _;
use api::k8s::api::core::v1::Node as ApiNode;
use api::Clock as _;
use api::world::SystemClock;
use clap::Args;
use client::kubeconfig::Config;
use client::{Client, HttpClient, HttpTransport, Informer, Rotating};
use node::configuration::Settings;
use kubeadm::{IdentityFile, SERVING_SIGNER, Wish};
use pki::Identity;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::agent_login::AgentLogin;
use crate::api_server::Tls;
use crate::cli::{Cidrs, Folder, cidr, cidrs, label};
use crate::kubelet_configuration;
use crate::component_logs::ComponentLogs;
use crate::machine::{Machine, MachineConfig};
use crate::paths::Paths;
use crate::renewal::{Renewal, SIGNING_PATIENCE};
use crate::tls::{self, Shown};
use crate::{agents, detach, down, system, up};

/// Between attempts to reach the API server.
pub const RETRY_PAUSE: Duration = Duration::from_millis(500);
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);

#[derive(Args, Clone)]
pub struct Options {
    #[command(flatten)]
    pub folder: Folder,
    /// Go into the background once the node is registered
    #[arg(long)]
    detach: bool,
    /// Who this node is and where its API server is
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/kubelet.conf")]
    kubeconfig: PathBuf,
    /// By which it asks for a certificate when it has none that is good
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/bootstrap-kubelet.conf")]
    bootstrap_kubeconfig: PathBuf,
    /// A KubeletConfiguration: cluster DNS and domain
    #[arg(long, value_name = "FILE", default_value = "/var/lib/kubelet/config.yaml")]
    config: PathBuf,
    /// Name of this machine's node
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// Addresses other machines reach this one by, at most one of each family; found by themselves when left out
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    /// Folder of this node's certificates
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet/pki")]
    cert_dir: PathBuf,
    /// Addresses of Services
    #[arg(long, value_name = "CIDR", value_parser = cidrs, default_value = "10.96.0.0/12")]
    service_cidr: Cidrs,
    /// Addresses of all pods
    #[arg(long, value_name = "CIDR", value_parser = cidrs, default_value = "10.244.0.0/16")]
    pod_network_cidr: Cidrs,
    /// Labels that the node gives itself
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    node_labels: Vec<(String, String)>,
    /// Taints with which the node registers: key=value:effect
    #[arg(long, value_name = "TAINTS", value_delimiter = ',', value_parser = taint)]
    register_with_taints: Vec<Value>,
    /// `none`: the node is not ready until a network is applied
    #[arg(long, value_name = "WHICH", value_parser = ["builtin", "none"], default_value = "builtin")]
    network: String,
    /// `none`: Services are another proxy's to program
    #[arg(long, value_name = "WHICH", value_parser = ["builtin", "none"], default_value = "builtin", overrides_with = "service_proxy")]
    service_proxy: String,
    /// How long certificates shall be good; as long as the cluster gives when left out
    #[arg(long, value_name = "SECONDS", hide = true)]
    certificate_seconds: Option<i32>,
}

pub fn run(options: Options) -> Result<()> {
    let started = Instant::now();
    let paths = Paths::new(&options.folder.data_dir);
    if let Some(pid) = down::running(&paths).filter(|pid| pid.as_raw() != std::process::id() as i32) {
        bail!("an agent or a cluster already runs in {} (process {pid})\nhint: `coracle status` shows it, `coracle down` stops it", paths.data.display());
    }
    if options.detach {
        detach::start(&paths, std::env::args_os().skip(1).filter(|word| word != "--detach").collect())?;
        println!("ready after {:.2} s", started.elapsed().as_secs_f64());
        return Ok(());
    }
    let logs = ComponentLogs::default();
    up::in_foreground(&logs, serve(options, paths, started, logs.clone()))
}

/// The machine shuts down, and nobody else says so: from `coracle down --node-shutdown`, and what guards the power.
pub const POWER_FAILS: tokio::signal::unix::SignalKind = tokio::signal::unix::SignalKind::from_raw(nix::sys::signal::Signal::SIGPWR as i32);

/// Returns when the machine is to shut down and the pods have ended.
pub async fn power_fails(signal: &mut tokio::signal::unix::Signal, machine: Option<&Machine>) {
    if signal.recv().await.is_none() {
        return std::future::pending().await;
    }
    if let Some(machine) = machine {
        machine.node.shut_down_machine().await;
    }
}

/// `key=value:effect`, the value may be left out.
fn taint(text: &str) -> Result<Value, String> {
    let (key, effect) = text.rsplit_once(':').ok_or("want key=value:effect")?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    let mut taint = json!({"key": key, "effect": effect});
    if !value.is_empty() {
        taint["value"] = value.into();
    }
    Ok(taint)
}

/// The node is there before anything runs on it: only then is it given a range for its pods.
pub async fn register(client: &Client, name: &str, taints: &[Value], provider_id: &str) -> Result<()> {
    let mut pause = RETRY_PAUSE;
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}}});
    if !taints.is_empty() {
        node["spec"]["taints"] = taints.into();
    }
    if !provider_id.is_empty() {
        node["spec"]["providerID"] = provider_id.into();
    }
    let node = ApiNode::from_value(&node)?;
    loop {
        match client.of::<ApiNode>(None).create(&node).await {
            Ok(_) => return Ok(()),
            Err(status) if status.is_already_exists() => return Ok(()),
            Err(status) if status.code == 401 || status.code == 403 => bail!("the API server does not know this node any more: {}\nhint: `kubeadm reset`, then join again with a new token", status.message),
            Err(status) => tracing::warn!(error = %status.message, "cannot reach the API server yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// The range that the control plane gives this node's pods.
pub async fn pod_ranges(client: &Client, name: &str) -> Vec<(IpAddr, u8)> {
    let own = Informer::<ApiNode>::of(client, None).fields(&format!("metadata.name={name}")).start();
    let mut changes = own.subscribe();
    loop {
        let change = changes.next().await;
        let Some(node) = change.new.as_ref().and_then(|object| object.typed::<ApiNode>().ok()) else { continue };
        let spec = node.spec.as_ref();
        let ranges: Vec<_> = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten().filter_map(|text| cidr(text).ok()).collect();
        if !ranges.is_empty() {
            return ranges;
        }
    }
}

/// Where the kubelet's API is served; everywhere on both families unless an address is configured.
pub fn door_address(settings: &Settings) -> SocketAddr {
    SocketAddr::new(settings.address.unwrap_or(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)), settings.port)
}

/// The port for those who only look, if one is configured. That it is taken is no reason not to run.
pub async fn serve_read_only(node: &Arc<node::Node>, stopped: &watch::Receiver<bool>) {
    let settings = &node.config.settings;
    let Some(port) = settings.read_only_port else { return };
    let address = SocketAddr::new(settings.address.unwrap_or(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)), port);
    match tokio::net::TcpListener::bind(address).await {
        Ok(listener) => drop(tokio::spawn(node::door::serve_read_only(listener, node.clone(), stopped.clone()))),
        Err(error) => tracing::warn!(%error, %address, "the read-only port is not served"),
    }
}

/// As `tlsMinVersion` and `tlsCipherSuites` have it.
pub fn door_tls(settings: &Settings) -> Result<Tls> {
    Tls::of(settings.tls_min_version.as_deref() == Some("VersionTLS13"), &settings.tls_cipher_suites)
}

/// Serves the kubelet's API, as soon as the cluster has signed a certificate for it.
async fn serve_door(node: Arc<node::Node>, client: Client, serving: Renewal, authority: String, stopped: watch::Receiver<bool>) -> Result<()> {
    let identity = serving.first(&client).await;
    let access = agents::access(client.clone(), &node.config.node_name);
    let shown = Shown::new(&identity)?;
    let tls = tls::server(shown.clone(), door_tls(&node.config.settings)?, &[&authority])?;
    let address = door_address(&node.config.settings);
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tokio::spawn(async move {
        serving
            .keep(&client, |identity| {
                if let Err(error) = shown.exchange(identity) {
                    tracing::error!(error = %format_args!("{error:#}"), "the new serving certificate is not used");
                }
            })
            .await;
    });
    tracing::info!(%address, "the agent serves the kubelet's API");
    node::door::serve(listener, tls, node, access, stopped).await;
    Ok(())
}

fn transport(config: &Config, identity: &Identity) -> Result<Arc<HttpTransport>> {
    let identity = (identity.certificate_pem.clone().into_bytes(), identity.key_pem.clone().into_bytes());
    let config = Config { client_identity: Some(identity), ..config.clone() };
    Ok(Arc::new(HttpTransport::new(HttpClient::new(&config, "kubelet")?)))
}

/// What runs here of the cluster's own parts shows in `kube-system`, as on the first machine.
fn show_mirrors(client: &Client, name: &str, address: IpAddr, paths: &Paths, logs: ComponentLogs, service_proxy: bool) {
    let mirrors = system::MirrorPods {
        client: client.clone(),
        node: name.to_owned(),
        parts: system::JOINED,
        service_proxy,
        external_etcd: false,
        address: parking_lot::Mutex::new(address),
        since: api::world::rfc3339(SystemClock.now()),
        logs,
        log_dir: paths.pod_logs(),
        pods_dir: paths.kubelet().join("pods"),
    };
    tokio::spawn(async move {
        let owed = mirrors.show().await;
        mirrors.keep(owed).await;
    });
}

async fn serve(options: Options, paths: Paths, started: Instant, logs: ComponentLogs) -> Result<()> {
    let held = down::hold(&paths)?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut power = tokio::signal::unix::signal(POWER_FAILS)?;
    let (stop, stopped) = watch::channel(false);
    let work = agent(&options, &paths, started, logs, stopped);
    tokio::pin!(work);
    // A stop while starting is a stop too.
    let machine = tokio::select! {
        machine = &mut work => Some(machine?),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    if let Some(machine) = machine {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = power_fails(&mut power, Some(&machine)) => {}
        }
        machine.node.shutdown();
    }
    tracing::info!("stopping");
    let _ = stop.send(true);
    drop(held);
    Ok(())
}

async fn agent(options: &Options, paths: &Paths, started: Instant, logs: ComponentLogs, stopped: watch::Receiver<bool>) -> Result<Machine> {
    let name = up::node_name(&options.hostname_override);
    let wish = |signer| Wish { signer, node_name: name.clone(), seconds: options.certificate_seconds, patience: SIGNING_PATIENCE };
    let file = IdentityFile::new(&options.cert_dir, "kubelet-client");
    let login = AgentLogin { kubeconfig: &options.kubeconfig, bootstrap: &options.bootstrap_kubeconfig, file: &file, wish: &wish(kubeadm::CLIENT_SIGNER) };
    let (config, identity) = login.find().await?;
    let authority = config.certificate_authority.clone().and_then(|pem| String::from_utf8(pem).ok()).context("the kubeconfig names no certificate authority")?;
    let rotating = Arc::new(Rotating::new(transport(&config, &identity)?));
    let client = Client::new(rotating.clone(), "kubelet");
    let kubelet = kubelet_configuration::load_if_there(&options.config)?;
    let taints = [&options.register_with_taints[..], &kubelet.register_with_taints].concat();
    if kubelet.register_node {
        register(&client, &name, &taints, &kubelet.provider_id).await?;
    }
    tracing::info!(milliseconds = started.elapsed().as_millis() as u64, node = %name, server = %config.server, "the node is registered");
    detach::say_ready();

    let own = Renewal { file, wish: wish(kubeadm::CLIENT_SIGNER), bootstrap: Some(options.bootstrap_kubeconfig.clone()) };
    let (renewing, exchanged) = (client.clone(), config.clone());
    tokio::spawn(async move {
        own.keep(&renewing, |identity| match transport(&exchanged, identity) {
            Ok(next) => rotating.exchange(next),
            Err(error) => tracing::error!(error = %format_args!("{error:#}"), "the new client certificate is not used"),
        })
        .await;
    });

    let pod_cidrs = pod_ranges(&client, &name).await;
    let addresses = up::own_addresses(&options.node_ip, &options.service_cidr);
    let address = addresses.first().copied();
    let mut cluster_dns = up::dns_addresses(&options.service_cidr);
    for told in kubelet.cluster_dns.iter().copied().rev() {
        cluster_dns.retain(|address| address.is_ipv4() != told.is_ipv4());
        cluster_dns.insert(0, told);
    }
    let wanted = MachineConfig { node_name: name.clone(), addresses, service_cidrs: options.service_cidr.clone(), pod_network_cidrs: options.pod_network_cidr.clone(), pod_cidrs, cluster_dns, version: server::GIT_VERSION.to_owned(), applied: options.network == "none", service_proxy: options.service_proxy != "none", labels: options.node_labels.iter().cloned().collect(), settings: kubelet.clone() };
    let machine = Machine::start(wanted, paths, &client, client.clone(), Arc::new(SystemClock)).await?;
    tracing::info!(milliseconds = started.elapsed().as_millis() as u64, node = %name, "the node is up");
    if let Some(address) = address {
        show_mirrors(&client, &name, address, paths, logs, options.service_proxy != "none");
    }
    let serving = Renewal { file: IdentityFile::new(&options.cert_dir, "kubelet-server"), wish: wish(SERVING_SIGNER), bootstrap: None };
    let node = machine.node.clone();
    serve_read_only(&node, &stopped).await;
    tokio::spawn(async move {
        if let Err(error) = serve_door(node, client, serving, authority, stopped).await {
            tracing::error!(error = %format_args!("{error:#}"), "other machines cannot reach this node's agent");
        }
    });
    Ok(machine)
}
