//! `coracle up`: wires the rooms together into one cluster and keeps it running until told to stop.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::world::SystemClock;
use arc_swap::ArcSwap;
use basics::tasks::lasting;
use clap::Args;
use client::Client;
use kubeadm::{FRONT_PROXY_CA, Names};
use pki::Pki;
use server::{Api, Local};
use tokio::sync::watch;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{Cidrs, Folder, cidrs, label};
use crate::kubelet_configuration;
use crate::component_logs::ComponentLogs;
use crate::agents::{self, Agents};
use crate::etcd_options::EtcdOptions;
use crate::controller_options::ControllerOptions;
use crate::credentials::{Credentials, write_private};
use crate::leader::{self, Election};
use crate::machine::{Machine, MachineConfig, node_ranges};
use crate::tls::{self, Shown};
use crate::parts::{CONTROLLERS, Part, PartOptions, SCHEDULER};
use crate::paths::Paths;
use crate::user_flags::UserFlags;
use crate::{api_server, credentials, detach, down, kubelet, system};

/// How long work on threads of its own may take once everything else has stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// The cluster's DNS is the tenth address of the Services' range, as kubeadm has it.
pub const DNS_OFFSET: u32 = 10;
/// Links of the pod network: no way to this machine.
const OWN_LINKS: [&str; 2] = ["coracle", "cor"];

#[derive(Args, Clone)]
pub struct Options {
    #[command(flatten)]
    folder: Folder,
    /// Go into the background once the cluster is ready
    #[arg(long)]
    detach: bool,
    /// Name of this machine's node
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Address other machines and pods reach this one by; found by itself when left out
    #[arg(long, value_name = "IP")]
    advertise_address: Option<IpAddr>,
    /// Port of the API server
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// Addresses of Services: one range, or one of each family
    #[arg(long, value_name = "CIDR", value_parser = cidrs, default_value = "10.96.0.0/12")]
    service_cidr: Cidrs,
    /// Addresses of pods: one range, or one of each family
    #[arg(long, value_name = "CIDR", value_parser = cidrs, default_value = "10.244.0.0/16")]
    pod_network_cidr: Cidrs,
    /// Folder of the certificates; `pki` in the data folder when left out
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<std::path::PathBuf>,
    /// Further names and addresses of the API server, for its certificate
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    apiserver_cert_extra_sans: Vec<String>,
    /// What the names of Services and pods end in
    #[arg(long, value_name = "DOMAIN", value_parser = kubeadm::domain, default_value = kubeadm::DEFAULT_DNS_DOMAIN)]
    cluster_domain: String,
    /// `none`: this machine's node is not ready until a network is applied
    #[arg(long, value_name = "WHICH", value_parser = ["builtin", "none"], default_value = "builtin")]
    network: String,
    /// `none`: Services are another proxy's to program on this machine
    #[arg(long, value_name = "WHICH", value_parser = ["builtin", "none"], default_value = "builtin", overrides_with = "service_proxy")]
    service_proxy: String,
    /// Labels that this machine's node gives itself
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    node_labels: Vec<(String, String)>,
    /// A KubeletConfiguration for this machine's node
    #[arg(long, value_name = "FILE")]
    kubelet_config: Option<std::path::PathBuf>,
    /// Control plane only: no node on this machine
    #[arg(long)]
    no_node: bool,
    #[command(flatten)]
    api_server: api_server::ApiServerOptions,
    #[command(flatten)]
    etcd: EtcdOptions,
    #[command(flatten)]
    controllers: ControllerOptions,
    #[command(flatten)]
    leader_times: leader::Times,
    #[command(flatten)]
    parts: PartOptions,
    #[command(flatten)]
    users: UserFlags,
    /// Nodes that only pretend to run their pods: for tests of the control plane
    #[arg(long, hide = true, value_name = "COUNT", default_value_t = 0)]
    hollow_nodes: usize,
}

impl Options {
    /// The data folder, if nothing was said of what lies in it; and whether to go into the background.
    pub fn plain(&self) -> Option<(Paths, bool)> {
        self.cert_dir.is_none().then(|| (Paths::new(&self.folder.data_dir), self.detach))
    }
}

pub fn run(options: Options) -> Result<()> {
    let started = Instant::now();
    let paths = Paths::new(&options.folder.data_dir);
    if let Some(pid) = down::running(&paths).filter(|pid| pid.as_raw() != std::process::id() as i32) {
        bail!("a cluster already runs in {} (process {pid})\nhint: `coracle status` shows it, `coracle down` stops it", paths.data.display());
    }
    if options.detach {
        let arguments = std::env::args_os().skip(1).filter(|word| word != "--detach").collect();
        detach::start(&paths, arguments)?;
        println!("ready after {:.2} s", started.elapsed().as_secs_f64());
        println!("kubeconfig: {}", paths.admin_kubeconfig().display());
        return Ok(());
    }
    let logs = ComponentLogs::default();
    in_foreground(&logs, serve(options, paths, started, logs.clone()))
}

/// Runs what ends at a signal, with its logs.
pub fn in_foreground(logs: &ComponentLogs, work: impl Future<Output = Result<()>>) -> Result<()> {
    let wanted = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::registry().with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(wanted)).with(logs.layer()).init();
    // Whoever started this process may have blocked them, and a blocked signal would be lost.
    let mut asked = nix::sys::signal::SigSet::empty();
    asked.add(nix::sys::signal::Signal::SIGTERM);
    asked.add(nix::sys::signal::Signal::SIGINT);
    asked.add(nix::sys::signal::Signal::SIGPWR);
    asked.thread_unblock().context("cannot unblock signals")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let outcome = runtime.block_on(work);
    // What is acknowledged is on the disk; a call into the kernel that does not return must not hold up the end.
    runtime.shutdown_timeout(STOP_TIMEOUT);
    outcome
}

/// What tells this process from others on the same host.
fn uuid_part() -> String {
    let mut random = [0; 8];
    if getrandom::fill(&mut random).is_err() {
        return std::process::id().to_string();
    }
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name the API accepts: the host's, lower case.
pub fn node_name(given: &Option<String>) -> String {
    given.clone().unwrap_or_else(|| nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_else(|_| "node1".into()))
}

/// Of this machine, as others reach it: by that family if it can be.
pub fn own_address(ipv4: bool) -> Option<IpAddr> {
    let found = network::host_addresses(&OWN_LINKS).ok()?;
    if ipv4 { found.primary() } else { found.ipv6.map(IpAddr::from).or(found.primary()) }
}

/// Of this machine, one of each family that `cidrs` has; `given` are those that are not to be looked for. Never empty.
pub fn own_addresses(given: &[IpAddr], cidrs: &Cidrs) -> Vec<IpAddr> {
    let found = network::host_addresses(&OWN_LINKS).unwrap_or_default();
    let mut own: Vec<IpAddr> = given.to_vec();
    for (base, _) in cidrs.all() {
        let of_family = if base.is_ipv4() { found.ipv4.map(IpAddr::from) } else { found.ipv6.map(IpAddr::from) };
        if !own.iter().any(|address| address.is_ipv4() == base.is_ipv4()) {
            own.extend(of_family);
        }
    }
    if own.is_empty() {
        own.push(found.primary().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
    own
}

/// The addresses of the DNS Service.
pub fn dns_addresses(service_cidrs: &Cidrs) -> Vec<IpAddr> {
    service_cidrs.all().iter().map(|range| nth(*range, DNS_OFFSET)).collect()
}

/// The n-th address of a range.
pub fn nth(range: (IpAddr, u8), offset: u32) -> IpAddr {
    match range.0 {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base) + offset)),
        IpAddr::V6(base) => IpAddr::V6((u128::from(base) + u128::from(offset)).into()),
    }
}

/// Who was given no address keeps the one that was found, until the machine no longer has it.
fn follow_addresses(node: &Arc<node::Node>, mirrors: Arc<system::MirrorPods>, port: u16) -> Result<()> {
    let seen = network::watch_host_addresses(OWN_LINKS.map(str::to_owned).to_vec()).context("cannot follow this machine's addresses")?;
    node.follow_addresses(seen, move |address| {
        let mirrors = mirrors.clone();
        tokio::spawn(async move {
            if let Err(error) = system::moved(&mirrors, address, port).await {
                tracing::warn!(%error, %address, "cannot tell of the new address");
            }
        });
    });
    Ok(())
}

/// As upstream's components: two leaders at once are worse than one process less.
fn lease_lost(lease: &'static str) {
    tracing::error!(target: "leader", lease, "leaderelection lost, and the work does not end: the process does");
    std::process::exit(1);
}

async fn serve(options: Options, paths: Paths, started: Instant, logs: ComponentLogs) -> Result<()> {
    options.leader_times.check()?;
    let mut settings = options.kubelet_config.as_deref().map(kubelet_configuration::load).transpose()?.unwrap_or_default();
    let held = down::hold(&paths)?;
    // From here on, so that a stop while starting is a stop too.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut power = tokio::signal::unix::signal(kubelet::POWER_FAILS)?;
    let clock: Arc<dyn api::Clock> = Arc::new(SystemClock);
    let name = node_name(&options.node_name);
    let addresses = own_addresses(options.advertise_address.as_slice(), &options.service_cidr);
    let address = addresses[0];
    let names = Names::of_api_server(&name, &options.cluster_domain, nth(options.service_cidr.primary(), 1), address, &options.apiserver_cert_extra_sans);
    let credentials = Credentials::open(&options.cert_dir.clone().unwrap_or_else(|| paths.pki()), &names, clock.now().as_second())?;
    let authority = credentials.authority.identity.certificate_pem.clone();

    let encryption = options.api_server.encryption()?;
    let sealing = encryption.clone().map_or_else(store::Sealing::default, |encryption| store::Sealing::with(encryption));
    let store: Arc<dyn store::Store> = if options.etcd.is_asked_for() {
        Arc::new(options.etcd.open(sealing).await?)
    } else {
        let store = store::Embedded::open(store::Config { sealing, ..store::Config::new(paths.store()) }).context("cannot open the store")?;
        tracing::info!(target: "store", folder = %paths.store().display(), "the store is open");
        Arc::new(store)
    };
    let mut config = server::Config::new(credentials.token_key.clone(), credentials.authority.identity.certificate_pem.clone());
    config.front_proxy = Some(credentials.front_proxy.clone());
    config.advertise_address = address;
    config.secure_port = options.secure_port;
    config.service_cidrs = options.service_cidr.all().to_vec();
    config.service_account_issuer = format!("https://kubernetes.default.svc.{}", options.cluster_domain);
    options.api_server.configure(&mut config, &clock)?;
    config.encryption = encryption.clone();
    let fronts = options.users.configure(&mut config, &credentials.folder.certificate(FRONT_PROXY_CA))?;
    let chance: server::Chance = Arc::new(|buffer: &mut [u8]| {
        // The kernel's random numbers cannot fail once the machine is up; if they did, keys and tokens of zeros would be worse than no answer.
        getrandom::fill(buffer).expect("random numbers of the kernel");
    });
    let agents = Arc::new(Agents::default());
    let api = Api::open(store.clone(), clock.clone(), chance, config, agents.clone()).await?;

    let (stop, stopped) = watch::channel(false);
    if let Some(encryption) = encryption {
        let ended = stopped.clone();
        tokio::spawn(lasting("encryption", stopped.clone(), move || server::follow_encryption(encryption.clone(), store.clone(), ended.clone())));
    }
    let listener = tokio::net::TcpListener::bind(SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), options.secure_port))
        .await
        .with_context(|| format!("cannot listen on port {}\nhint: another cluster may run; --secure-port chooses another port", options.secure_port))?;
    let shown = Shown::new(&credentials.api_server()?)?;
    let tls = tls::api_server(shown.clone(), options.api_server.tls()?, &[&authority, &fronts, &api.fronts.borrow().clients_pem])?;
    let tls = Arc::new(ArcSwap::new(tls));
    tokio::spawn(tls::follow(tls.clone(), api.fronts.subscribe(), {
        let (shown, settings, authority) = (shown.clone(), options.api_server.tls()?, authority.clone());
        move |fronts| tls::api_server(shown.clone(), settings.clone(), &[&authority, &fronts.authority_pem, &fronts.clients_pem])
    }));
    tokio::spawn(credentials::follow(credentials.folder.clone(), shown));
    tokio::spawn(credentials::follow_front_proxy(credentials.folder.clone(), api.clone()));
    tokio::spawn(credentials::keep(credentials.folder.clone(), names, clock.clone()));
    let part = |name| Arc::new(Part::new(name, options.leader_times));
    let (scheduler, manager) = (part(SCHEDULER), part(CONTROLLERS));
    // By the API server's certificate, which names this machine's loopback addresses too.
    let of_parts = tls.load_full();
    scheduler.clone().serve(options.parts.scheduler(), &api, &of_parts, &stopped).await;
    manager.clone().serve(options.parts.controllers(), &api, &of_parts, &stopped).await;
    let (quit, quitting) = watch::channel(false);
    let mut serving = tokio::spawn(server::serve(api.clone(), server::ServeConfig { listener, tls }, quitting));
    let url = format!("https://{}", SocketAddr::new(address, options.secure_port));
    write_private(&paths.admin_kubeconfig(), credentials.kubeconfig(&url).as_bytes())?;
    tracing::info!(target: "server", milliseconds = started.elapsed().as_millis() as u64, %url, "the API server is ready");

    let client = Client::new(Arc::new(Local::new(api.clone(), "system:coracle")), "coracle");
    agents.reach_others(client.clone(), credentials.folder.clone(), authority.clone());
    let schedule = {
        let (client, clock, measured) = (client.measured(scheduler.name, &scheduler.client), clock.clone(), scheduler.own.clone().unwrap_or_default());
        move |ended| {
            tracing::info!(target: "scheduler", "the scheduler starts");
            scheduler::run(client.clone(), clock.clone(), measured.clone(), ended)
        }
    };
    let signer = crate::signer::Signer::of(&credentials.authority, options.controllers.signing_seconds())?;
    let controllers = controllers::Config { cluster_cidrs: options.pod_network_cidr.text(), root_ca: credentials.authority.identity.certificate_pem.clone(), clock: clock.clone(), measured: manager.client.clone(), signer: Some(Arc::new(signer)) };
    let control = {
        let client = client.clone();
        move |mut ended: watch::Receiver<bool>| {
            tracing::info!(target: "controllers", "the controllers start");
            let until_ended = Box::pin(async move {
                // The sender's end is a stop too.
                let _ = ended.wait_for(|end| *end).await;
            });
            controllers::run(client.clone(), controllers.clone(), until_ended)
        }
    };
    let mut elections = Vec::new();
    if options.etcd.is_asked_for() {
        // Other processes may serve the same cluster.
        let identity = format!("{name}_{}", uuid_part());
        let election = |part: &Part| Election { client: client.clone(), name: part.name, identity: identity.clone(), clock: clock.clone(), times: options.leader_times, leads: part.leads.clone(), lost: lease_lost };
        elections.push(tokio::spawn(election(&scheduler).run(stopped.clone(), schedule)));
        elections.push(tokio::spawn(election(&manager).run(stopped.clone(), control)));
    } else {
        let (end, ended) = (stopped.clone(), stopped.clone());
        [&scheduler, &manager].into_iter().for_each(|part| part.leads.store(true, Ordering::Relaxed));
        tokio::spawn(lasting(SCHEDULER, stopped.clone(), move || schedule(end.clone())));
        tokio::spawn(lasting(CONTROLLERS, stopped.clone(), move || control(ended.clone())));
    }
    let machine = if options.no_node {
        None
    } else {
        // The cluster's DNS is this process'.
        settings.cluster_domain = options.cluster_domain.clone();
        settings.whole["clusterDomain"] = options.cluster_domain.as_str().into();
        let dns = dns_addresses(&options.service_cidr);
        system::dns_service(&client, &dns).await?;
        system::corefile(&client, &options.cluster_domain).await?;
        // What nodes may do is what the agent may do, as if it came from another machine.
        let agent = Client::new(Arc::new(Local::node(api.clone(), &name)), "kubelet");
        let pod_cidrs = if options.etcd.is_asked_for() {
            // Other control planes may be nodes too: who gets which range is the cluster's to say.
            kubelet::register(&agent, &name, &settings.register_with_taints, &settings.provider_id).await?;
            kubelet::pod_ranges(&client, &name).await
        } else {
            node_ranges(&options.pod_network_cidr)
        };
        let config = MachineConfig { node_name: name.clone(), addresses: addresses.clone(), service_cidrs: options.service_cidr.clone(), pod_network_cidrs: options.pod_network_cidr.clone(), pod_cidrs, cluster_dns: dns, version: server::GIT_VERSION.to_owned(), applied: options.network == "none", service_proxy: options.service_proxy != "none", labels: options.node_labels.iter().cloned().collect(), settings: settings.clone() };
        let agent_access = agent.clone();
        let machine = Machine::start(config, &paths, &client, agent, clock.clone()).await?;
        agents.add(&name, machine.node.clone());
        system::mark_control_plane(&client, &name).await?;
        let issue = {
            let (folder, name, clock) = (credentials.folder.clone(), name.clone(), clock.clone());
            // As long as those of other machines' agents.
            let seconds = options.controllers.signing_seconds();
            move || Ok(folder.authority("ca")?.issue_for(&Pki::Server { name: &format!("system:node:{name}"), groups: &["system:nodes"], dns: std::slice::from_ref(&name), addresses: &addresses }, clock.now().as_second(), seconds)?)
        };
        let identity = issue()?;
        let shown = Shown::new(&identity)?;
        match tokio::net::TcpListener::bind(kubelet::door_address(&settings)).await {
            Ok(listener) => {
                tokio::spawn(node::door::serve(listener, tls::server(shown.clone(), kubelet::door_tls(&settings)?, &[&authority])?, machine.node.clone(), agents::access(agent_access, &name), stopped.clone()));
                tokio::spawn(credentials::keep_agent(shown, identity, clock.clone(), issue));
            }
            Err(error) => tracing::warn!(%error, port = settings.port, "the kubelet's port is taken: other machines cannot reach this node's agent"),
        }
        kubelet::serve_read_only(&machine.node, &stopped).await;
        let mirrors = Arc::new(system::MirrorPods {
            client: client.clone(),
            node: name.clone(),
            parts: system::CONTROL_PLANE,
            service_proxy: options.service_proxy != "none",
            address: parking_lot::Mutex::new(address),
            since: api::world::rfc3339(clock.now()),
            logs,
            log_dir: paths.pod_logs(),
            pods_dir: paths.kubelet().join("pods"),
            external_etcd: options.etcd.is_asked_for(),
        });
        let (kept, owed) = (mirrors.clone(), mirrors.show().await);
        tokio::spawn(async move { kept.keep(owed).await });
        if options.advertise_address.is_none() {
            follow_addresses(&machine.node, mirrors, options.secure_port)?;
        }
        tracing::info!(milliseconds = started.elapsed().as_millis() as u64, node = %name, "the node is up");
        Some(machine)
    };

    if options.hollow_nodes > 0 {
        let fleet = node::hollow::Options::new((0..options.hollow_nodes).map(|number| format!("hollow-{number}")).collect());
        tokio::spawn(node::hollow::run(client.clone(), clock.clone(), fleet));
    }

    detach::say_ready();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // The cluster serves on meanwhile: it is told how the pods end.
        () = kubelet::power_fails(&mut power, machine.as_ref()) => {}
        ended = &mut serving => bail!("the API server ended by itself: {}", ended.err().map_or_else(|| "nobody knows why".to_owned(), |error| error.to_string())),
    }
    tracing::info!("stopping");
    let _ = quit.send(true);
    let impatient = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let finishing = async {
        // Everybody is at work until then: what is under way may need them.
        api.refuses().await;
        let _ = stop.send(true);
        serving.await
    };
    tokio::select! {
        finished = finishing => finished?,
        () = impatient => tracing::warn!("told to stop once more: requests in flight are not waited for"),
    }
    let _ = stop.send(true);
    for election in elections {
        // Whoever leads next need not wait for the lease to end; if it cannot be given back, it does.
        let _ = tokio::time::timeout(STOP_TIMEOUT, election).await;
    }
    if let Some(machine) = machine {
        machine.node.shutdown();
    }
    drop(held);
    Ok(())
}
