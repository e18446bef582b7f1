//! A pod network that is brought by whoever applies one (`--network=none`): follows the folder of CNI configurations and gives pods the network the first
//! of them asks for, from the moment it is there. Until then, and when it is taken away again, the node is not ready and pods wait.
//!
//! A configuration whose only plugin is `coracle` asks for the built-in network: it is what Coracle's own manifest puts there. All others are carried out by
//! their plugins; the built-in network is not opened for them, nor are NetworkPolicies enforced: both are the plugins' business, as upstream.
//! Mirrors containerd's CRI plugin (which configuration counts, what plugins are told of a pod) and the kubelet's words.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::cni::{Attachment, Cni, FolderChanges, NetworkList};
use ::network::holder;
use api::quantity::Quantity;
use basics::tasks::for_ever;
use client::Client;
use parking_lot::Mutex;
use sandbox::cri::{self, BoxFuture, PodNetwork, PodSandboxConfig};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::built_in::BuiltIn;
use crate::networking::{NetworkingConfig, NetworkingError};

/// The plugin that needs no program: this node's own network.
const BUILT_IN: &str = "coracle";
/// What Coracle's manifest puts into the folder.
pub const BUILT_IN_FILE: &str = "10-coracle.conflist";
pub const BUILT_IN_CONFIGURATION: &str = "{\"cniVersion\": \"1.0.0\", \"name\": \"coracle\", \"plugins\": [{\"type\": \"coracle\"}]}\n";
/// What is said while there is none, in go-cni's words.
const NOT_INITIALIZED: &str = "cni plugin not initialized";
/// Plugins have no way to say that their state changed (STATUS is asked). The kubelet asks its runtime as often.
const STATUS_PERIOD: Duration = Duration::from_secs(5);
/// The pause after the built-in network could not be opened.
const RETRY: Duration = Duration::from_secs(1);
const INTERFACE: &str = "eth0";

#[derive(Debug, Clone)]
pub struct AppliedConfig {
    /// `/etc/cni/net.d`.
    pub configurations: PathBuf,
    /// `/opt/cni/bin`, …: where plugins are looked for, in order.
    pub programs: Vec<PathBuf>,
}

impl Default for AppliedConfig {
    /// Upstream's folders, and Debian's for the plugins.
    fn default() -> Self {
        Self { configurations: "/etc/cni/net.d".into(), programs: ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"].map(PathBuf::from).to_vec() }
    }
}

/// Why the node takes no pods, as the kubelet says it of its runtime.
pub fn not_ready(why: &str) -> String {
    format!("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: {why}")
}

/// While nothing is known of any network.
pub fn uninitialized() -> String {
    not_ready(NOT_INITIALIZED)
}

#[derive(Clone, PartialEq)]
enum Network {
    None,
    BuiltIn,
    Plugins(Arc<NetworkList>),
}

impl Network {
    fn of(list: Option<NetworkList>) -> Self {
        match list {
            None => Self::None,
            Some(list) if list.plugins.iter().any(|plugin| plugin.kind() == BUILT_IN) => Self::BuiltIn,
            Some(list) => Self::Plugins(Arc::new(list)),
        }
    }
}

pub struct Applied {
    config: NetworkingConfig,
    folder: PathBuf,
    cni: Cni,
    network: Mutex<Network>,
    /// Open from the first time that it was wanted.
    built_in: Mutex<Option<BuiltIn>>,
    not_ready: watch::Sender<Option<String>>,
}

impl Applied {
    pub async fn open(config: &NetworkingConfig, applied: &AppliedConfig) -> Result<Arc<Self>, NetworkingError> {
        let cni = Cni::open(applied.programs.clone(), records(&config.state_dir))?;
        make_folder(config, &applied.configurations).map_err(NetworkingError::Io)?;
        let network = Network::of(load(&applied.configurations));
        // Pods of an earlier process may have addresses of it, whatever the folder says now.
        let built_in = if network == Network::BuiltIn || config.state_dir.join("ips").exists() { Some(BuiltIn::open(config).await?) } else { None };
        let not_ready = (network == Network::None).then(uninitialized);
        Ok(Arc::new(Self {
            config: config.clone(),
            folder: applied.configurations.clone(),
            cni,
            network: Mutex::new(network),
            built_in: Mutex::new(built_in),
            not_ready: watch::Sender::new(not_ready),
        }))
    }

    /// Why the node can take no pods, as it changes.
    pub fn readiness(&self) -> watch::Receiver<Option<String>> {
        self.not_ready.subscribe()
    }

    pub fn built_in(&self) -> Option<BuiltIn> {
        self.built_in.lock().clone()
    }

    pub async fn retain(&self, alive: HashSet<String>) -> Result<(), NetworkingError> {
        let list = match &*self.network.lock() {
            Network::Plugins(list) => Some(list.clone()),
            _ => None,
        };
        // What a plugin cannot give back now is held for longer; the node goes on all the same.
        let _ = self.cni.retain(list.as_deref(), |id| alive.contains(id)).await;
        for id in self.cni.known()? {
            if let Err(error) = self.cni.check(&id).await {
                tracing::warn!(sandbox_id = id, %error, "a pod's network is not as it was made");
            }
        }
        match self.built_in() {
            Some(built_in) => built_in.retain(alive).await,
            None => Ok(()),
        }
    }

    /// Follows the folder until it is dropped; pods keep what they have.
    pub fn run(self: Arc<Self>, client: Client) -> impl Future<Output = ()> + Send {
        // From now on, not from when the task is first scheduled: pods attached in between wait for their policies.
        if let Some(built_in) = self.built_in() {
            built_in.expect();
        }
        for_ever("applied network", move || {
            let mut tasks = JoinSet::new();
            let followed = self.built_in().inspect(|built_in| built_in.follow(&client, &mut tasks)).is_some();
            self.clone().follow(client.clone(), tasks, followed)
        })
    }

    async fn follow(self: Arc<Self>, client: Client, mut tasks: JoinSet<()>, mut followed: bool) {
        let changes = match FolderChanges::of(&self.folder) {
            Ok(changes) => changes,
            Err(error) => return tracing::error!(%error, folder = %self.folder.display(), "no network can be applied: its folder cannot be watched"),
        };
        loop {
            let network = Network::of(load(&self.folder));
            if network == Network::BuiltIn && !followed {
                match self.open_built_in().await {
                    Ok(built_in) => built_in.follow(&client, &mut tasks),
                    Err(error) => {
                        tracing::error!(%error, "the pod network cannot be set up, trying again");
                        self.tell(Some(not_ready(&error.to_string())));
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
                followed = true;
            }
            if std::mem::replace(&mut *self.network.lock(), network.clone()) != network {
                match &network {
                    Network::None => tracing::warn!(target: "network", "there is no pod network any more"),
                    Network::BuiltIn => tracing::info!(target: "network", "the built-in pod network is applied"),
                    Network::Plugins(list) => tracing::info!(target: "network", name = list.name, version = list.version.as_str(), plugins = list.plugins.len(), "a pod network is applied"),
                }
            }
            self.tell(self.trouble(&network).await);
            let asked = matches!(&network, Network::Plugins(list) if list.version >= ::cni::Version::GC);
            tokio::select! {
                changed = changes.next() => if let Err(error) = changed {
                    return tracing::error!(%error, "the folder of network configurations is no longer followed");
                },
                () = tokio::time::sleep(STATUS_PERIOD), if asked => {}
            }
        }
    }

    async fn open_built_in(&self) -> Result<BuiltIn, NetworkingError> {
        if let Some(built_in) = self.built_in() {
            return Ok(built_in);
        }
        let built_in = BuiltIn::open(&self.config).await?;
        *self.built_in.lock() = Some(built_in.clone());
        Ok(built_in)
    }

    async fn trouble(&self, network: &Network) -> Option<String> {
        match network {
            Network::None => Some(uninitialized()),
            Network::BuiltIn => None,
            Network::Plugins(list) => self.cni.status(list).await.err().map(|error| not_ready(&error.to_string())),
        }
    }

    fn tell(&self, why: Option<String>) {
        self.not_ready.send_if_modified(|before| {
            let changed = *before != why;
            *before = why;
            changed
        });
    }

    async fn attach_by(&self, list: &NetworkList, sandbox_id: &str, namespace: &Path, config: &PodSandboxConfig) -> Result<Vec<IpAddr>, String> {
        let netns = namespace.to_owned();
        let raised = tokio::task::spawn_blocking(move || holder::raise_loopback(&netns)).await;
        raised.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let attachment = Attachment {
            container_id: sandbox_id.to_owned(),
            netns: namespace.to_owned(),
            if_name: INTERFACE.to_owned(),
            args: arguments(sandbox_id, config),
            capabilities: capabilities(config, &self.config),
        };
        self.cni.add(list, attachment).await.map_err(|error| error.to_string())
    }
}

impl PodNetwork for Applied {
    fn attach<'a>(&'a self, sandbox_id: &'a str, namespace: &'a Path, config: &'a PodSandboxConfig) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        let (network, built_in) = (self.network.lock().clone(), self.built_in());
        Box::pin(async move {
            match (&network, built_in) {
                (Network::BuiltIn, Some(built_in)) => built_in.attach(sandbox_id, namespace, config).await,
                (Network::Plugins(list), _) => self.attach_by(list, sandbox_id, namespace, config).await,
                _ => Err(NOT_INITIALIZED.to_owned()),
            }
        })
    }

    /// By what it was attached with, whatever is applied now.
    fn detach<'a>(&'a self, sandbox_id: &'a str, config: &'a PodSandboxConfig) -> BoxFuture<'a, Result<(), String>> {
        let built_in = self.built_in();
        Box::pin(async move {
            self.cni.del(sandbox_id).await.map_err(|error| error.to_string())?;
            match built_in {
                Some(built_in) => built_in.detach(sandbox_id, config).await,
                None => Ok(()),
            }
        })
    }
}

fn records(state_dir: &Path) -> PathBuf {
    state_dir.join("cni")
}

fn load(folder: &Path) -> Option<NetworkList> {
    let (list, errors) = ::cni::load(folder);
    for error in errors {
        tracing::warn!(%error, "a network configuration is not used");
    }
    list
}

/// What plugins hold is given back, and the built-in network's configuration taken away. Blocks. For when nothing runs.
pub fn reset(config: &NetworkingConfig, applied: &AppliedConfig) -> Result<(), NetworkingError> {
    let folder = records(&config.state_dir);
    if folder.exists() {
        let cni = Cni::open(applied.programs.clone(), folder)?;
        // A runtime of its own must not be made on a thread that has one.
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| Ok::<_, io::Error>(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(cni.retain(None, |_| false))));
            thread.join().unwrap_or_else(|_| Err(io::Error::other("giving back what network plugins hold failed")))
        });
        if let Err(error) = done.map_err(NetworkingError::Io)? {
            tracing::warn!(%error, "a network plugin keeps something");
        }
    }
    let file = applied.configurations.join(BUILT_IN_FILE);
    if std::fs::read_to_string(&file).is_ok_and(|text| text == BUILT_IN_CONFIGURATION) {
        std::fs::remove_file(&file).map_err(NetworkingError::Io)?;
    }
    for made in std::fs::read_to_string(made_folders(config)).unwrap_or_default().lines() {
        // Fails while others' files are in it, and should.
        let _ = std::fs::remove_dir(made);
    }
    Ok(())
}

/// The folders that were not there before, innermost first.
fn made_folders(config: &NetworkingConfig) -> PathBuf {
    config.state_dir.join("cni-folders")
}

/// What is made is noted, to be taken away again by [`reset`].
fn make_folder(config: &NetworkingConfig, folder: &Path) -> io::Result<()> {
    let missing: Vec<String> = folder.ancestors().take_while(|path| !path.exists()).map(|path| path.display().to_string()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    std::fs::write(made_folders(config), missing.join("\n"))?;
    std::fs::create_dir_all(folder)
}

/// `CNI_ARGS`, as dockershim began them.
fn arguments(sandbox_id: &str, config: &PodSandboxConfig) -> Vec<(String, String)> {
    let pod = &config.metadata;
    [("IgnoreUnknown", "1"), ("K8S_POD_NAMESPACE", &pod.namespace), ("K8S_POD_NAME", &pod.name), ("K8S_POD_INFRA_CONTAINER_ID", sandbox_id), ("K8S_POD_UID", &pod.uid)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
}

/// What may be told to plugins that want to know (the specification's CONVENTIONS.md).
fn capabilities(config: &PodSandboxConfig, node: &NetworkingConfig) -> Map<String, Value> {
    let mut told = Map::new();
    let protocol = |protocol: cri::Protocol| match protocol {
        cri::Protocol::Tcp => "tcp",
        cri::Protocol::Udp => "udp",
        cri::Protocol::Sctp => "sctp",
    };
    let ports = config.port_mappings.iter().map(|port| {
        let host_ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        json!({"hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol(port.protocol), "hostIP": host_ip})
    });
    let ports: Vec<Value> = ports.collect();
    if !ports.is_empty() {
        told.insert("portMappings".into(), Value::Array(ports));
    }
    let rate = |key: &str| config.annotations.get(key).and_then(|text| Quantity::parse(text).ok()).map(|rate| rate.value()).filter(|rate| *rate > 0);
    let mut bandwidth = Map::new();
    for direction in ["ingress", "egress"] {
        if let Some(rate) = rate(&format!("kubernetes.io/{direction}-bandwidth")) {
            bandwidth.insert(format!("{direction}Rate"), rate.into());
            bandwidth.insert(format!("{direction}Burst"), u32::MAX.into());
        }
    }
    if !bandwidth.is_empty() {
        told.insert("bandwidth".into(), Value::Object(bandwidth));
    }
    let mut ranges: HashMap<bool, Vec<Value>> = HashMap::new();
    for net in &node.pod_cidrs {
        ranges.entry(net.is_ipv4()).or_default().push(json!({"subnet": net.to_string()}));
    }
    let ranges: Vec<Value> = [true, false].iter().filter_map(|family| ranges.remove(family)).map(Value::Array).collect();
    told.insert("ipRanges".into(), Value::Array(ranges));
    if let Some(dns) = &config.dns {
        told.insert("dns".into(), json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options}));
    }
    told.insert("cgroupPath".into(), format!("/{}", config.cgroup_parent.trim_start_matches('/')).into());
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plugins_are_told() {
        let node = NetworkingConfig {
            node_name: "node1".into(),
            pod_cidrs: ["10.244.0.0/24", "fd00::/64"].iter().map(|text| text.parse().unwrap()).collect(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            service_proxy: true,
            node_addresses: Vec::new(),
            resolv_conf: PathBuf::new(),
            state_dir: PathBuf::new(),
            applied: None,
        };
        let mut config = PodSandboxConfig { cgroup_parent: "kubepods/poda".into(), ..PodSandboxConfig::default() };
        assert_eq!(Value::Object(capabilities(&config, &node)), json!({"ipRanges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00::/64"}]], "cgroupPath": "/kubepods/poda"}));
        config.port_mappings = vec![cri::PortMapping { protocol: cri::Protocol::Udp, container_port: 53, host_port: 5353, host_ip: None }];
        config.annotations = [("kubernetes.io/ingress-bandwidth".to_owned(), "10M".to_owned()), ("kubernetes.io/egress-bandwidth".to_owned(), "fast".to_owned())].into();
        let told = capabilities(&config, &node);
        assert_eq!(told["portMappings"], json!([{"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": ""}]));
        assert_eq!(told["bandwidth"], json!({"ingressRate": 10_000_000, "ingressBurst": u32::MAX}));
        assert_eq!(arguments("abc", &config)[3], ("K8S_POD_INFRA_CONTAINER_ID".to_owned(), "abc".to_owned()));
    }

    #[test]
    fn the_built_in_network_is_a_configuration_as_any() {
        let list = |text: &str| NetworkList::parse(Path::new("/nowhere/a.conflist"), text.as_bytes()).unwrap();
        assert!(Network::of(Some(list(BUILT_IN_CONFIGURATION))) == Network::BuiltIn);
        assert!(Network::of(Some(list(&BUILT_IN_CONFIGURATION.replace("\"coracle\"}]", "\"bridge\"}]")))) != Network::BuiltIn);
    }
}
