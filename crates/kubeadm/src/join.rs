//! `kubeadm join`: one more machine. Finds out whom it deals with, gets a certificate of its own, and starts the agent. Mirrors `cmd/join.go`; what it does is in phases
//! (`join_phases.rs`), which can be run one by one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use client::Client;
use client::kubeconfig::Config;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::bootstrap_token::BootstrapToken;
use crate::config_file::{self, FromFile};
use crate::discovery::{self, Cluster, Trust};
use crate::error::{Error, InPhase};
use crate::files::{Journal, Names, names_in};
use crate::host::{Agent, Host, KUBELET_FOLDER, KUBERNETES_FOLDER};
use crate::identity::IdentityFile;
use crate::control_plane::{ADMIN, BIND_PORT, KUBELET_PORT, running};
use crate::init::node_name;
use crate::join_phases::{self, PHASES};
use crate::{extra_args, join_command};
use crate::kubeconfig::{Login, kubeconfig};
use crate::objects::{ClusterConfiguration, KUBEADM_CONFIG, KUBELET_CONFIG};
use crate::options::{Common, Workflow};
use crate::patches::Patches;
use crate::phases;
use crate::preflight::{self, Check};
use crate::rest::{self, CONFIG_MAPS, NODES, connect};
use crate::shared_certificates::CertificateKey;
use crate::signing::{CLIENT_SIGNER, Wish, sign};

/// How long the control plane may take to approve and sign.
const SIGNING_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub struct JoinCommand {
    /// Address of the control plane's API server, as 192.0.2.1:6443
    #[arg(value_name = "API-SERVER-ENDPOINT")]
    endpoint: Option<String>,
    #[command(flatten)]
    workflow: Workflow<Options>,
}

#[derive(Args, Debug, Clone)]
pub struct Options {
    #[command(flatten)]
    pub common: Common,
    /// Of the command line, or the file.
    #[arg(skip)]
    pub endpoint: Option<String>,
    /// Use this token for both discovery-token and tls-bootstrap-token when those values are not provided
    #[arg(long)]
    pub token: Option<String>,
    /// The token used to validate cluster information fetched from the API server
    #[arg(long, value_name = "TOKEN")]
    pub discovery_token: Option<String>,
    /// The token used to temporarily authenticate with the Kubernetes Control Plane while joining the node
    #[arg(long, value_name = "TOKEN")]
    pub tls_bootstrap_token: Option<String>,
    /// For token-based discovery, validate that the root CA public key matches this hash (format: "<type>:<value>")
    #[arg(long, value_name = "HASH", value_delimiter = ',')]
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// For token-based discovery, allow joining without --discovery-token-ca-cert-hash pinning
    #[arg(long)]
    pub discovery_token_unsafe_skip_ca_verification: bool,
    /// The node name
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this node; found by itself when left out
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Create a new control plane instance on this node
    #[arg(long)]
    pub control_plane: bool,
    /// Use this key to decrypt the certificate secrets uploaded by init
    #[arg(long, value_name = "KEY")]
    pub certificate_key: Option<CertificateKey>,
    /// The IP address the API Server of this node will advertise it's listening on; found by itself when left out
    #[arg(long, value_name = "IP")]
    pub apiserver_advertise_address: Option<IpAddr>,
    /// Port for the API Server of this node to bind to
    #[arg(long, value_name = "PORT", default_value_t = BIND_PORT)]
    pub apiserver_bind_port: u16,
    /// For file-based discovery, a kubeconfig from which to load cluster information
    #[arg(long, value_name = "FILE", conflicts_with_all = ["discovery_token", "discovery_token_ca_cert_hash"])]
    pub discovery_file: Option<PathBuf>,
    /// Path to a directory that contains files named "target[suffix][+patchtype].extension". For example, "kubeletconfiguration0+merge.yaml"
    #[arg(long, value_name = "DIR")]
    pub patches: Option<PathBuf>,
    /// Of the file.
    #[arg(skip)]
    pub file: FromFile,
}

/// What the options come to.
#[derive(Debug)]
pub struct Wanted {
    endpoint: String,
    discovery: BootstrapToken,
    bootstrap: BootstrapToken,
    trust: Trust,
    pub node_name: String,
}

fn wanted(options: &Options) -> Result<Wanted, Error> {
    let token = |given: &Option<String>, what: &str| -> Result<BootstrapToken, Error> {
        let text = given.as_ref().or(options.token.as_ref()).ok_or_else(|| Error::Invalid(format!("{what}: Invalid value: \"\": the bootstrap token is invalid\nhint: --token; `kubeadm token create` on the control-plane node makes one")))?;
        text.trim().parse()
    };
    let admin = Path::new(KUBERNETES_FOLDER).join(ADMIN);
    if options.control_plane && options.endpoint.is_none() && options.discovery_file.is_none() && admin.exists() {
        // A phase after the one that wrote it: nothing needs to be found out any more.
        return Ok(Wanted { endpoint: String::new(), discovery: BootstrapToken::generate()?, bootstrap: BootstrapToken::generate()?, trust: Trust::File(admin), node_name: node_name(options.node_name.as_ref()) });
    }
    if let Some(path) = &options.discovery_file {
        let bootstrap = token(&options.tls_bootstrap_token, "discovery.tlsBootstrapToken")?;
        return Ok(Wanted { endpoint: String::new(), discovery: bootstrap.clone(), bootstrap, trust: Trust::File(path.clone()), node_name: node_name(options.node_name.as_ref()) });
    }
    let mut endpoint = options.endpoint.clone().ok_or_else(|| Error::Invalid("discovery: Invalid value: \"\": bootstrapToken or file must be set\nhint: kubeadm join 192.0.2.1:6443 --token … --discovery-token-ca-cert-hash sha256:…; `kubeadm token create --print-join-command` on the control-plane node prints the whole line".into()))?;
    if let Some((_, rest)) = endpoint.split_once("://") {
        endpoint = rest.trim_end_matches('/').to_owned();
    }
    let valid = endpoint.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && (!host.contains(':') || host.starts_with('[')));
    if !valid {
        return Err(Error::Invalid(format!("discovery.bootstrapToken.apiServerEndpoint: Invalid value: {endpoint:?}: address {endpoint}: missing port in address\nhint: the API server's port belongs to it, as in {endpoint}:6443")));
    }
    let pins = &options.discovery_token_ca_cert_hash;
    pins.iter().try_for_each(|pin| discovery::valid_pin(pin))?;
    let trust = match (pins.is_empty(), options.discovery_token_unsafe_skip_ca_verification) {
        (false, _) => Trust::Pinned(pins.clone()),
        (true, true) => Trust::Unverified,
        (true, false) => {
            return Err(Error::Invalid(
                "discovery.bootstrapToken: Invalid value: \"\": using token-based discovery without caCertHashes can be unsafe. Set unsafeSkipCAVerification as true in your kubeadm config file or pass --discovery-token-unsafe-skip-ca-verification flag to continue".into(),
            ));
        }
    };
    Ok(Wanted { endpoint, discovery: token(&options.discovery_token, "discovery.bootstrapToken.token")?, bootstrap: token(&options.tls_bootstrap_token, "discovery.tlsBootstrapToken")?, trust, node_name: node_name(options.node_name.as_ref()) })
}

struct Files {
    kubeconfig: PathBuf,
    ca: PathBuf,
    config: PathBuf,
    flags: PathBuf,
    identity: IdentityFile,
    pki: PathBuf,
}

impl Files {
    fn new() -> Self {
        let (kubernetes, kubelet) = (Path::new(KUBERNETES_FOLDER), Path::new(KUBELET_FOLDER));
        let pki = kubelet.join("pki");
        Self {
            kubeconfig: kubernetes.join("kubelet.conf"),
            ca: kubernetes.join("pki/ca.crt"),
            config: kubelet.join("config.yaml"),
            flags: kubelet.join("kubeadm-flags.env"),
            identity: IdentityFile::new(&pki, "kubelet-client"),
            pki,
        }
    }
}

/// What the cluster says before this machine is one of its own.
pub struct Learned {
    pub ca: String,
    pub cluster: ClusterConfiguration,
    /// A KubeletConfiguration, in YAML.
    pub kubelet: String,
    /// With the token.
    pub client: Client,
    server: String,
}

fn is_ready(node: &Value) -> bool {
    node.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// As whom the cluster is asked: as who holds the token, or who has a login of their own in the file.
fn login(cluster: &Cluster, wanted: &Wanted) -> Result<Config, Error> {
    if let Trust::File(path) = &wanted.trust {
        let config = Config::load(Some(path))?;
        if config.client_identity.is_some() || config.token.is_some() {
            return Ok(config);
        }
    }
    Ok(Config { server: cluster.server.clone(), certificate_authority: Some(cluster.ca.clone().into_bytes()), token: Some(wanted.bootstrap.to_string()), ..Config::default() })
}

/// `new`: this machine is none of the cluster's yet.
async fn learn(cluster: Cluster, wanted: &Wanted, new: bool) -> Result<Learned, Error> {
    let client = connect(&login(&cluster, wanted)?)?;
    println!("[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...");
    println!("[preflight] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it.");
    let read = async |name: &'static str| -> Result<Value, Error> {
        let found = rest::get(&client, &CONFIG_MAPS, Some("kube-system"), name).await.map_err(|source| match source.code {
            401 => Error::Hinted {
                message: "unable to fetch the kubeadm-config ConfigMap: the token is good to recognize the cluster, but not to authenticate with".into(),
                hint: "it has no usage \"authentication\"; `kubeadm token create` on the control-plane node makes one that has both".into(),
            },
            _ => Error::Api { what: "unable to fetch the kubeadm-config ConfigMap: failed to get config map", source },
        })?;
        found.ok_or_else(|| Error::Hinted { message: format!("unable to fetch the kubeadm-config ConfigMap: configmaps {name:?} not found"), hint: "this cluster was not made by `kubeadm init`".into() })
    };
    let found = read(KUBEADM_CONFIG).await?;
    let configuration = ClusterConfiguration::read(&found).ok_or_else(|| Error::Invalid("unable to decode the ClusterConfiguration in the kubeadm-config ConfigMap".into()))?;
    let kubelet = read(KUBELET_CONFIG).await?.pointer("/data/kubelet").and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = &wanted.node_name;
    let existing = rest::get(&client, &NODES, None, name).await.map_err(Error::api("cannot get Node"))?;
    if new && existing.is_some_and(|node| is_ready(&node)) {
        return Err(Error::Invalid(format!("a Node with name {name:?} and status \"Ready\" already exists in the cluster. You must delete the existing Node or change the name of this new joining Node"))).phase("kubelet-start");
    }
    Ok(Learned { ca: cluster.ca, cluster: configuration, kubelet, client, server: cluster.server })
}

/// One machine on its way into a cluster, and how far it is.
pub struct Join<'a> {
    pub options: &'a Options,
    pub host: &'a dyn Host,
    pub wanted: Wanted,
    learned: Option<Learned>,
    pub journal: Journal,
    /// What was in the data folder before anything was started.
    pub before: Option<Names>,
}

impl<'a> Join<'a> {
    pub fn of(options: &'a Options, host: &'a dyn Host) -> Result<Self, Error> {
        Ok(Self { options, host, wanted: wanted(options)?, learned: None, journal: Journal::default(), before: None })
    }

    pub fn ignored(&self) -> BTreeSet<String> {
        preflight::ignored(&self.options.common.ignore_preflight_errors)
    }

    /// What the cluster says of itself; found out once.
    pub fn learned(&mut self) -> Result<&Learned, Error> {
        let learned = match self.learned.take() {
            Some(learned) => learned,
            None => self.find_out(false)?,
        };
        Ok(self.learned.insert(learned))
    }

    fn find_out(&self, new: bool) -> Result<Learned, Error> {
        let patience = self.options.file.discovery.map_or(discovery::TIMEOUT, SignedDuration::unsigned_abs);
        crate::cli::block_on(async {
            let wanted = &self.wanted;
            let found = discovery::discover(&wanted.endpoint, &wanted.discovery, &wanted.trust, patience, &self.host.clock()).await?;
            preflight::run(&[Check::Found { name: "ClockSkew", wrong: found.clock }], &self.ignored())?;
            learn(found.cluster, wanted, new).await
        })?
    }

    /// Checks this machine, finds out whom it deals with, and what the cluster is like.
    pub fn preflight(&mut self) -> Result<(), Error> {
        let (options, ignored) = (self.options, self.ignored());
        println!("[preflight] Running pre-flight checks");
        preflight::root(&ignored)?;
        let files = Files::new();
        let running = running(self.host, &options.common.data_dir);
        let mut checks = vec![Check::FileAvailable(files.kubeconfig), Check::PortOpen(KUBELET_PORT), Check::HostName(self.wanted.node_name.clone()), Check::Found { name: "Coracle", wrong: running }];
        if !options.control_plane {
            checks.push(Check::FileAvailable(files.ca));
            checks.push(extra_args::check(self.host, &extra_args::of_agent(&options.file.kubelet_args)));
        }
        preflight::run(&checks, &ignored)?;
        self.learned = Some(self.find_out(true)?);
        Ok(())
    }

    /// Makes this machine a worker: a certificate of its own, its files, and the agent.
    pub fn start_agent(&mut self) -> Result<(), Error> {
        self.learned()?;
        let Some(learned) = &self.learned else { return Ok(()) };
        let agent = become_worker(self.options, &self.wanted, learned, &mut self.journal)?;
        println!("[kubelet-start] Starting the kubelet");
        self.before = Some(names_in(&self.options.common.data_dir));
        let started = Instant::now();
        self.host.start_agent(&agent).map_err(Error::Host)?;
        println!("[kubelet-check] The kubelet is healthy after {:.3}s", started.elapsed().as_secs_f64());
        Ok(())
    }

    fn phases(&mut self) -> Result<(), Error> {
        for phase in PHASES.iter().filter(|phase| !phase.is_skipped(&self.options.common.skip_phases)) {
            join_phases::run(self, phase.name, None).phase(phase.name)?;
        }
        Ok(())
    }
}

pub fn run(command: &JoinCommand, host: &dyn Host) -> Result<(), Error> {
    let Some((words, options)) = command.workflow.alone() else {
        return workflow(&filled(&command.workflow.options, command.endpoint.clone())?, host);
    };
    // Addresses have what no phase has.
    let (endpoint, words) = match words.split_last() {
        Some((last, words)) if last.contains([':', '.']) => (Some(last.clone()), words),
        _ => (None, &words[..]),
    };
    let Some((phase, part)) = phases::find(&PHASES, "join", words)? else { return Ok(()) };
    if let Some(why) = join_phases::nothing(phase.name, options.control_plane) {
        println!("[{}] Skipping phase: {why}", phase.name);
        return Ok(());
    }
    let options = filled(options, endpoint)?;
    let mut join = Join::of(&options, host)?;
    join_phases::run(&mut join, phase.name, part).phase(phase.name)?;
    join.journal.keep();
    Ok(())
}

/// With what the file says.
fn filled(options: &Options, endpoint: Option<String>) -> Result<Options, Error> {
    let mut options = Options { endpoint, ..options.clone() };
    if let Some(path) = options.common.config.clone() {
        config_file::join(&mut options, &path)?;
    }
    Ok(options)
}

fn workflow(options: &Options, host: &dyn Host) -> Result<(), Error> {
    phases::known(&PHASES, &options.common.skip_phases)?;
    let mut join = Join::of(options, host)?;
    if let Err(error) = join.phases() {
        // As it was found.
        if let Some(before) = &join.before
            && let Err(message) = host.undo(&options.common.data_dir, before.as_deref())
        {
            eprintln!("warning: {message}");
        }
        return Err(error);
    }
    join.journal.keep();
    match (options.common.dry_run, options.control_plane) {
        (true, _) => {}
        (false, true) => print!("{}", join_command::joined_control_plane()),
        (false, false) => print!("{}", join_command::JOINED),
    }
    Ok(())
}

/// Flags of the file, and its taints as one.
fn kubelet_args(options: &Options) -> Vec<(String, String)> {
    let mut all: Vec<_> = options.file.kubelet_args.iter().filter(|(name, _)| name != "node-ip").cloned().collect();
    let text = |taint: &Value, key: &str| taint[key].as_str().unwrap_or_default().to_owned();
    let taints: Vec<String> = options.file.taints.iter().flatten().map(|taint| format!("{}={}:{}", text(taint, "key"), text(taint, "value"), text(taint, "effect"))).collect();
    if !taints.is_empty() {
        all.push(("register-with-taints".into(), taints.join(",")));
    }
    all
}

/// A certificate of its own, and its files.
fn become_worker(options: &Options, wanted: &Wanted, learned: &Learned, journal: &mut Journal) -> Result<Agent, Error> {
    let files = Files::new();
    println!("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap");
    let wish = Wish { signer: CLIENT_SIGNER, node_name: wanted.node_name.clone(), seconds: None, patience: SIGNING_PATIENCE };
    let identity = crate::cli::block_on(sign(&learned.client, &wish))??;
    journal.write(&files.ca, learned.ca.as_bytes())?;
    println!("[kubelet-start] Writing kubelet configuration to file {:?}", files.config.display().to_string());
    let kubelet = Patches::of(options.patches.as_deref())?.kubelet_configuration(&learned.kubelet)?;
    journal.write(&files.config, kubelet.as_bytes())?;
    println!("[kubelet-start] Writing kubelet environment file with flags to file {:?}", files.flags.display().to_string());
    journal.expect(&files.pki);
    // The agent makes it.
    journal.expect(&Path::new(KUBERNETES_FOLDER).join("manifests"));
    files.identity.store(&identity, Timestamp::now())?;
    let user = format!("system:node:{}", wanted.node_name);
    let current = files.identity.current().display().to_string();
    journal.write(&files.kubeconfig, kubeconfig(&learned.server, &learned.ca, &user, &Login::File(&current)).as_bytes())?;
    journal.write(&files.flags, format!("KUBELET_KUBEADM_ARGS=\"--hostname-override={}\"\n", wanted.node_name).as_bytes())?;
    Ok(Agent {
        data_dir: options.common.data_dir.clone(),
        kubeconfig: files.kubeconfig,
        config: files.config,
        node_name: wanted.node_name.clone(),
        node_ip: options.node_ip,
        pod_network_cidr: learned.cluster.pod_subnet.clone(),
        service_cidr: learned.cluster.service_subnet.clone(),
        no_network: learned.cluster.no_network,
        no_proxy: learned.cluster.no_proxy,
        kubelet_args: kubelet_args(options),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::of_line;

    fn of(line: &str) -> Result<Wanted, Error> {
        let command = of_line::<JoinCommand>(line).unwrap();
        wanted(&Options { endpoint: command.endpoint, ..command.workflow.options })
    }

    #[test]
    fn both_orders_and_bad_ones() {
        let hash = format!("sha256:{}", "a".repeat(64));
        for line in [
            format!("10.0.0.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {hash}"),
            format!("--token abcdef.0123456789abcdef 10.0.0.1:6443 --discovery-token-ca-cert-hash {hash}"),
            format!("--token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {hash} 10.0.0.1:6443"),
            format!("--discovery-token-ca-cert-hash={hash} --token=abcdef.0123456789abcdef https://10.0.0.1:6443"),
        ] {
            let wanted = of(&line).unwrap();
            assert_eq!((wanted.endpoint.as_str(), wanted.bootstrap.id.as_str(), wanted.discovery.id.as_str()), ("10.0.0.1:6443", "abcdef", "abcdef"), "{line}");
            assert!(matches!(&wanted.trust, Trust::Pinned(pins) if *pins == [hash.clone()]));
        }
        assert!(matches!(of("a:6443 --token abcdef.0123456789abcdef --discovery-token-unsafe-skip-ca-verification").unwrap().trust, Trust::Unverified));
        for (line, part) in [
            ("--token abcdef.0123456789abcdef", "bootstrapToken or file must be set"),
            ("10.0.0.1 --token abcdef.0123456789abcdef", "missing port in address"),
            ("10.0.0.1:x --token abcdef.0123456789abcdef", "missing port in address"),
            ("10.0.0.1:6443 --discovery-token-unsafe-skip-ca-verification", "the bootstrap token is invalid"),
            ("10.0.0.1:6443 --token abcdef --discovery-token-unsafe-skip-ca-verification", "was not of the form"),
            ("10.0.0.1:6443 --token abcdef.0123456789abcdef", "without caCertHashes can be unsafe"),
            ("10.0.0.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:12", "expected 64 hexadecimal digits"),
        ] {
            let error = of(line).unwrap_err();
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }
}
