//! `kubeadm init`: the first machine of a cluster. Checks, certificates, kubeconfigs, the control plane, and what others need to join.
//!
//! Mirrors `cmd/init.go`: its phases by their names, one after the other or one alone (`init phase`). The control plane is one process instead of static pods, so some say less.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::SignedDuration;
use serde_json::Value;

use crate::bootstrap_token::{BootstrapToken, duration};
use crate::config_file::{self, FromFile, overlaid};
use crate::control_plane::{BIND_PORT, advertised, endpoint, nth};
use crate::documents;
use crate::domain::{DEFAULT_DNS_DOMAIN, domain};
use crate::error::{Error, InPhase};
use crate::files::{Journal, Names, names_in};
use crate::host::{ControlPlane, ExternalEtcd, Host};
use crate::init_phases::{self, PHASES};
use crate::objects::kubelet_configuration;
use crate::options::{Common, Workflow};
use crate::patches::Patches;
use crate::phases;
use crate::shared_certificates::CertificateKey;

pub const DEFAULT_POD_SUBNET: &str = "10.244.0.0/16";
pub const DEFAULT_SERVICE_SUBNET: &str = "10.96.0.0/12";
/// The cluster's DNS is the tenth address of the Services' range.
const DNS_OFFSET: u128 = 10;

#[derive(Args, Debug, Clone)]
pub struct Options {
    #[command(flatten)]
    pub common: Common,
    /// The IP address the API Server will advertise it's listening on; found by itself when left out
    #[arg(long, value_name = "IP")]
    pub apiserver_advertise_address: Option<IpAddr>,
    /// Port for the API Server to bind to
    #[arg(long, value_name = "PORT", default_value_t = BIND_PORT)]
    pub apiserver_bind_port: u16,
    /// Extra names and addresses for the API Server's certificate
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub apiserver_cert_extra_sans: Vec<String>,
    /// Range of IP addresses for the pod network
    #[arg(long, value_name = "CIDR", value_parser = cidr, default_value = DEFAULT_POD_SUBNET)]
    pub pod_network_cidr: String,
    /// Range of IP addresses for service VIPs
    #[arg(long, value_name = "CIDR", value_parser = cidr, default_value = DEFAULT_SERVICE_SUBNET)]
    pub service_cidr: String,
    /// Use alternative domain for services, e.g. "myorg.internal"
    #[arg(long, value_name = "DOMAIN", value_parser = domain, default_value = DEFAULT_DNS_DOMAIN)]
    pub service_dns_domain: String,
    /// The token to use for establishing bidirectional trust between nodes and control-plane nodes
    #[arg(long)]
    pub token: Option<String>,
    /// The duration before the token is automatically deleted; 0 is never
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h0m0s", allow_hyphen_values = true)]
    pub token_ttl: SignedDuration,
    /// Skip printing of the default bootstrap token
    #[arg(long)]
    pub skip_token_print: bool,
    /// A stable IP address or DNS name for the control plane
    #[arg(long, value_name = "HOST[:PORT]")]
    pub control_plane_endpoint: Option<String>,
    /// The node name
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// `none`: this machine gets no pod network until one is applied
    #[arg(long, value_name = "WHICH", value_parser = ["builtin", "none"], default_value = "builtin")]
    pub network: String,
    /// Where to save and store the certificates
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/pki")]
    pub cert_dir: PathBuf,
    #[command(flatten)]
    pub etcd: EtcdFlags,
    /// Upload control-plane certificates to the kubeadm-certs Secret
    #[arg(long)]
    pub upload_certs: bool,
    /// Key used to encrypt the control-plane certificates in the kubeadm-certs Secret
    #[arg(long, value_name = "KEY")]
    pub certificate_key: Option<CertificateKey>,
    /// Don't print the key used to encrypt the control-plane certificates
    #[arg(long)]
    pub skip_certificate_key_print: bool,
    /// The kubeconfig file to use when talking to the cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Path to a directory that contains files named "target[suffix][+patchtype].extension". For example, "kubeletconfiguration0+merge.yaml"
    #[arg(long, value_name = "DIR")]
    pub patches: Option<PathBuf>,
    /// Of the file.
    #[arg(skip)]
    pub file: FromFile,
    /// Taken for upstream's sake: there is one version, this program's
    #[arg(long, value_name = "VERSION")]
    pub kubernetes_version: Option<String>,
}

/// An etcd that several control planes share: kube-apiserver's flags for it.
#[derive(Args, Debug, Clone, Default)]
pub struct EtcdFlags {
    /// Keep the cluster's objects in this etcd (URLs, comma separated) instead of the data folder; several API servers may share it
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// The authority of etcd's certificates
    #[arg(long, value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// The certificate by which etcd knows this cluster
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
}

impl EtcdFlags {
    pub fn of(etcd: &ExternalEtcd) -> Self {
        Self { etcd_servers: etcd.endpoints.clone(), etcd_cafile: etcd.ca_file.clone(), etcd_certfile: etcd.cert_file.clone(), etcd_keyfile: etcd.key_file.clone() }
    }

    pub fn external(&self) -> Option<ExternalEtcd> {
        (!self.etcd_servers.is_empty()).then(|| ExternalEtcd { endpoints: self.etcd_servers.clone(), ca_file: self.etcd_cafile.clone(), cert_file: self.etcd_certfile.clone(), key_file: self.etcd_keyfile.clone() })
    }
}

/// `10.244.0.0/16`, or one of each family: `10.244.0.0/16,fd00:10:244::/56`; as it was given.
pub fn cidr(text: &str) -> Result<String, String> {
    let family = |text: &str| {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(address.is_ipv4())
    };
    match text.split(',').map(family).collect::<Option<Vec<bool>>>().as_deref() {
        Some([_]) => Ok(text.to_owned()),
        Some([first, second]) if first != second => Ok(text.to_owned()),
        Some(_) => Err("expected one (IPv4 or IPv6) CIDR or two CIDRs from each family for dual-stack networking".to_owned()),
        None => Err("couldn't parse subnet: invalid CIDR address, want one as 10.244.0.0/16".to_owned()),
    }
}

/// As upstream has it: who skips the phase has a cluster whose configuration says `proxy.disabled`, also to the machines that join.
fn skips_proxy(skipped: &[String]) -> bool {
    skipped.iter().any(|name| name == "addon") || !phases::wants("addon", init_phases::PROXY, None, skipped)
}

/// The host's name in lower case.
pub fn node_name(given: Option<&String>) -> String {
    given.cloned().unwrap_or_else(|| nix::unistd::gethostname().map(|name| name.to_string_lossy().trim().to_lowercase()).unwrap_or_default())
}

/// The default, with what a file says otherwise.
pub fn kubelet_yaml(dns: &str, domain: &str, over: Option<&Value>) -> String {
    let text = kubelet_configuration(dns, domain);
    let (Some(over), Ok(mut whole)) = (over, serde_saphyr::from_str::<Value>(&text)) else { return text };
    overlaid(&mut whole, over);
    documents::yaml(&whole)
}

/// A new cluster, as it was asked for, and how far it is.
pub struct Init<'a> {
    pub options: &'a Options,
    pub host: &'a dyn Host,
    pub what: ControlPlane,
    /// `192.0.2.1:6443`: in kubeconfigs and in the join command.
    pub endpoint: String,
    pub token: BootstrapToken,
    pub certificate_key: Option<CertificateKey>,
    /// A KubeletConfiguration, in YAML.
    pub kubelet: String,
    pub journal: Journal,
    /// What was in the data folder before the control plane was started.
    pub before: Option<Names>,
}

impl<'a> Init<'a> {
    pub fn of(options: &'a Options, host: &'a dyn Host) -> Result<Self, Error> {
        let address = advertised(options.apiserver_advertise_address, &options.service_cidr, host)?;
        let given = options.token.as_ref().or_else(|| options.file.tokens.first()?.token.as_ref());
        let token = match given {
            Some(text) => text.parse()?,
            None => BootstrapToken::generate()?,
        };
        let mut extra_names = options.apiserver_cert_extra_sans.clone();
        let endpoint = match &options.control_plane_endpoint {
            Some(text) => {
                let (host, endpoint) = endpoint(text, options.apiserver_bind_port)?;
                extra_names.push(host);
                Some(endpoint)
            }
            None => None,
        };
        let what = ControlPlane {
            data_dir: options.common.data_dir.clone(),
            pki_dir: options.cert_dir.clone(),
            node_name: node_name(options.node_name.as_ref()),
            advertise_address: address,
            secure_port: options.apiserver_bind_port,
            pod_network_cidr: options.pod_network_cidr.clone(),
            service_cidr: options.service_cidr.clone(),
            extra_names,
            no_network: options.network == "none",
            no_proxy: options.file.proxy_disabled || skips_proxy(&options.common.skip_phases),
            etcd: options.etcd.external(),
            dns_domain: options.service_dns_domain.clone(),
            args: options.file.args.clone(),
            kubelet_args: options.file.kubelet_args.clone(),
        };
        let dns = nth(&what.service_cidr, DNS_OFFSET).map(|address| address.to_string()).unwrap_or_default();
        Ok(Self {
            options,
            host,
            endpoint: endpoint.unwrap_or_else(|| what.own_endpoint()),
            what,
            token,
            certificate_key: options.certificate_key.clone(),
            kubelet: kubelet_yaml(&dns, &options.service_dns_domain, options.file.kubelet.as_ref()),
            journal: Journal::default(),
            before: None,
        })
    }

    pub fn server(&self) -> String {
        format!("https://{}", self.endpoint)
    }

    /// The KubeletConfiguration of this machine: only here is it patched, as upstream has it.
    pub fn kubelet_patched(&self) -> Result<String, Error> {
        Patches::of(self.options.patches.as_deref())?.kubelet_configuration(&self.kubelet)
    }

    pub fn kubelet_config(&self) -> PathBuf {
        Path::new(crate::host::KUBELET_FOLDER).join("config.yaml")
    }

    /// Notes what is in the data folder, and starts.
    pub fn start(&mut self) -> Result<(), Error> {
        self.before = Some(names_in(&self.what.data_dir));
        self.host.start_control_plane(&self.what).map_err(Error::Host)
    }

    fn phases(&mut self) -> Result<(), Error> {
        for phase in PHASES.iter().filter(|phase| !phase.is_skipped(&self.options.common.skip_phases)) {
            init_phases::run(self, phase.name, None).phase(phase.name)?;
        }
        Ok(())
    }
}

pub fn run(command: &Workflow<Options>, host: &dyn Host) -> Result<(), Error> {
    match command.alone() {
        None => workflow(&filled(&command.options)?, host),
        Some((words, options)) => {
            let Some((phase, part)) = phases::find(&PHASES, "init", words)? else { return Ok(()) };
            if let Some(why) = init_phases::nothing(phase.name) {
                println!("[{}] Skipping phase: {why}", phase.name);
                return Ok(());
            }
            let options = filled(options)?;
            let mut init = Init::of(&options, host)?;
            init_phases::run(&mut init, phase.name, part).phase(phase.name)?;
            init.journal.keep();
            Ok(())
        }
    }
}

/// With what the file says.
fn filled(options: &Options) -> Result<Options, Error> {
    let mut options = options.clone();
    if let Some(path) = options.common.config.clone() {
        config_file::init(&mut options, &path)?;
    }
    Ok(options)
}

fn workflow(options: &Options, host: &dyn Host) -> Result<(), Error> {
    phases::known(&PHASES, &options.common.skip_phases)?;
    let mut init = Init::of(options, host)?;
    println!("[init] Using Kubernetes version: {}", host.version());
    if let Err(error) = init.phases() {
        // As it was found.
        if let Some(before) = &init.before
            && let Err(message) = host.undo(&init.what.data_dir, before.as_deref())
        {
            eprintln!("warning: {message}");
        }
        return Err(error);
    }
    init.journal.keep();
    if options.common.dry_run {
        println!("[dryrun] Finished dry-running successfully. Above are the resources that would be created");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_the_proxy() {
        assert!(skips_proxy(&["addon/kube-proxy".into()]) && skips_proxy(&["addon".into()]) && !skips_proxy(&["addon/coredns".into()]));
        assert!(cidr("10.0.0.0/33").is_err() && cidr("10.0.0.0").is_err() && cidr("fd00::/64").is_ok());
    }
}
