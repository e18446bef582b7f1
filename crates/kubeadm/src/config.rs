//! `kubeadm config`: print, validate, migrate, images. Mirrors `cmd/config.go`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::control_plane::BIND_PORT;
use crate::documents::{self, KUBELET, NEWEST};
use crate::domain::DEFAULT_DNS_DOMAIN;
use crate::error::Error;
use crate::files::write_private;
use crate::host::{ControlPlaneArgs, Host};
use crate::output::{API_VERSION, Output};
use crate::init::{DEFAULT_POD_SUBNET, DEFAULT_SERVICE_SUBNET};
use crate::objects::{ClusterConfiguration, kubelet_configuration};
use crate::config_file::overlaid;

const EXAMPLE_TOKEN: &str = "abcdef.0123456789abcdef";

#[derive(Args, Debug)]
pub struct ConfigCommand {
    #[command(subcommand)]
    what: ConfigWhat,
    #[arg(long, value_name = "FILE", global = true, hide = true)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum ConfigWhat {
    /// Print configuration
    Print {
        #[command(subcommand)]
        which: Print,
    },
    /// Read a file containing the kubeadm configuration API and report any similar validation errors
    Validate {
        /// Path to a kubeadm configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Read an older version of the kubeadm configuration API types from a file, and output the similar config object for the newer version
    Migrate {
        /// Path to the kubeadm config file that is using an old API version and should be converted
        #[arg(long, value_name = "FILE")]
        old_config: PathBuf,
        /// Path to the resulting equivalent kubeadm config file using the new API version; standard output when left out
        #[arg(long, value_name = "FILE")]
        new_config: Option<PathBuf>,
    },
    /// Interact with container images used by kubeadm
    Images {
        #[command(subcommand)]
        which: Images,
    },
}

#[derive(Args, Debug)]
struct PrintOptions {
    /// Components whose defaults are to be printed as well
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    component_configs: Vec<Component>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Component {
    #[value(name = "KubeletConfiguration")]
    Kubelet,
    #[value(name = "KubeProxyConfiguration")]
    KubeProxy,
}

#[derive(Subcommand, Debug)]
enum Print {
    /// Print default init configuration, that can be used for 'kubeadm init'
    InitDefaults(PrintOptions),
    /// Print default join configuration, that can be used for 'kubeadm join'
    JoinDefaults(PrintOptions),
    /// Print default reset configuration, that can be used for 'kubeadm reset'
    ResetDefaults(PrintOptions),
}

#[derive(Args, Debug)]
struct ImageOptions {
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long)]
    image_repository: Option<String>,
    #[arg(long)]
    kubernetes_version: Option<String>,
    #[arg(long)]
    feature_gates: Option<String>,
    #[arg(long)]
    cri_socket: Option<String>,
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Subcommand, Debug)]
enum Images {
    /// Print a list of images kubeadm will use: one, which is this program
    List(ImageOptions),
    /// Pull images used by kubeadm: nothing, every node has them
    Pull(ImageOptions),
}

fn node_registration() -> Value {
    json!({"name": "node", "criSocket": "unix:///run/coracle/cri.sock", "imagePullPolicy": "IfNotPresent", "imagePullSerial": true, "taints": null})
}

fn timeouts() -> Value {
    json!({"controlPlaneComponentHealthCheck": "4m0s", "discovery": "5m0s", "etcdAPICall": "2m0s", "kubeletHealthCheck": "4m0s", "kubernetesAPICall": "1m0s", "tlsBootstrap": "5m0s", "upgradeManifests": "5m0s"})
}

fn default_of(kind: &str, version: &str) -> Value {
    let mut value = match kind {
        "InitConfiguration" => json!({
            "bootstrapTokens": [{"groups": ["system:bootstrappers:kubeadm:default-node-token"], "token": EXAMPLE_TOKEN, "ttl": "24h0m0s", "usages": ["signing", "authentication"]}],
            "localAPIEndpoint": {"advertiseAddress": "1.2.3.4", "bindPort": BIND_PORT}, "nodeRegistration": node_registration(), "timeouts": timeouts(),
        }),
        "JoinConfiguration" => json!({
            "caCertPath": "/etc/kubernetes/pki/ca.crt", "nodeRegistration": node_registration(), "timeouts": timeouts(),
            "discovery": {"bootstrapToken": {"apiServerEndpoint": "kube-apiserver:6443", "token": EXAMPLE_TOKEN, "unsafeSkipCAVerification": true}, "tlsBootstrapToken": EXAMPLE_TOKEN},
        }),
        "ResetConfiguration" => json!({"certificatesDir": "/etc/kubernetes/pki", "criSocket": "unix:///run/coracle/cri.sock", "timeouts": timeouts()}),
        "ClusterConfiguration" => ClusterConfiguration {
            version: version.to_owned(),
            control_plane_endpoint: None,
            pod_subnet: DEFAULT_POD_SUBNET.to_owned(),
            service_subnet: DEFAULT_SERVICE_SUBNET.to_owned(),
            no_network: false,
            no_proxy: false,
            extra_names: Vec::new(),
            etcd: None,
            dns_domain: DEFAULT_DNS_DOMAIN.to_owned(),
            args: ControlPlaneArgs::default(),
        }
        .value(),
        _ => json!({}),
    };
    value["apiVersion"] = NEWEST.into();
    value["kind"] = kind.into();
    value
}

fn defaults(kinds: &[&str], components: &[Component], version: &str) -> String {
    let mut all: Vec<String> = kinds.iter().map(|kind| documents::yaml(&default_of(kind, version))).collect();
    if components.contains(&Component::Kubelet) {
        all.push(kubelet_configuration("10.96.0.10", DEFAULT_DNS_DOMAIN));
    }
    if components.contains(&Component::KubeProxy) {
        all.push("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n".to_owned());
    }
    all.join("---\n")
}

/// Everything that would be said of it; a field that is not known is an error here.
fn validate(path: &Path) -> Result<(), Error> {
    let (documents, notes) = documents::read(path)?;
    notes.deprecated.iter().for_each(|text| eprintln!("W [config] WARNING: {text}"));
    if let Some(unknown) = notes.unknown.first() {
        return Err(Error::Invalid(unknown.clone()));
    }
    crate::cli::check_documents(&documents)?;
    println!("ok");
    Ok(())
}

/// The newest version's form of a file, with its defaults.
fn migrated(text: &str, version: &str) -> Result<String, Error> {
    let (documents, notes) = documents::parse(text)?;
    notes.unknown.iter().for_each(|text| eprintln!("W [config] WARNING: {text}"));
    let of_kubeadm = documents.iter().filter(|document| document.value["apiVersion"] == NEWEST);
    let mut all: Vec<String> = of_kubeadm
        .map(|document| {
            let mut whole = default_of(&document.kind, version);
            for example in ["/bootstrapTokens", "/discovery", "/localAPIEndpoint", "/nodeRegistration/name"] {
                // An example is no default.
                if let Some(value) = whole.pointer_mut(example) {
                    *value = Value::Null;
                }
            }
            overlaid(&mut whole, &document.value);
            if let Some(whole) = whole.as_object_mut() {
                whole.retain(|_, value| !value.is_null());
            }
            documents::yaml(&whole)
        })
        .collect();
    if all.is_empty() {
        return Err(Error::Invalid("invalid configuration: no kubeadm kind was found in the YAML file".into()));
    }
    all.extend(documents.iter().filter(|document| document.kind == KUBELET).map(|document| documents::yaml(&document.value)));
    Ok(all.join("---\n"))
}

/// What pods of the cluster's own may run: the pod network's, when it is applied by its manifest. Upstream's images are in no use here.
fn images(which: &Images, own: &str) {
    match which {
        Images::List(options) if options.output == Output::Text => println!("{own}"),
        Images::List(options) => print!("{}", options.output.shown(&json!({"apiVersion": API_VERSION, "kind": "Images", "images": [own]}))),
        Images::Pull(_) => println!("[config/images] Pulled {own}"),
    }
    let (Images::List(options) | Images::Pull(options)) = which;
    if options.image_repository.is_some() {
        eprintln!("hint: --image-repository has no meaning here: no image is fetched.");
    }
    eprintln!("hint: it is this program, which every node has: the control plane, the proxy and the DNS are in it, and nothing is fetched from a registry.");
}

pub fn run(command: &ConfigCommand, host: &dyn Host) -> Result<(), Error> {
    match &command.what {
        ConfigWhat::Print { which: Print::InitDefaults(options) } => print!("{}", defaults(&["InitConfiguration", "ClusterConfiguration"], &options.component_configs, host.version())),
        ConfigWhat::Print { which: Print::JoinDefaults(options) } => print!("{}", defaults(&["JoinConfiguration"], &options.component_configs, host.version())),
        ConfigWhat::Print { which: Print::ResetDefaults(options) } => print!("{}", defaults(&["ResetConfiguration"], &options.component_configs, host.version())),
        ConfigWhat::Validate { config } => validate(config)?,
        ConfigWhat::Migrate { old_config, new_config } => {
            let text = std::fs::read_to_string(old_config).map_err(Error::file("unable to read config from", old_config))?;
            let new = migrated(&text, host.version())?;
            match new_config {
                Some(path) => write_private(path, new.as_bytes()).map_err(Error::file("failed to write the new configuration to the file", path))?,
                None => print!("{new}"),
            }
        }
        ConfigWhat::Images { which } => images(which, &host.own_image()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_migrate_to_themselves() {
        let text = defaults(&["InitConfiguration", "ClusterConfiguration", "JoinConfiguration", "ResetConfiguration"], &[Component::Kubelet, Component::KubeProxy], "v1.36.2");
        let (all, notes) = documents::parse(&text).unwrap();
        assert_eq!((all.len(), notes.unknown, notes.deprecated.len()), (6, Vec::<String>::new(), 0));
        crate::cli::check_documents(&all).unwrap();
        let (again, _) = documents::parse(&migrated(&text, "v1.36.2").unwrap()).unwrap();
        assert_eq!(documents::of_kind(&again, "InitConfiguration").unwrap()["bootstrapTokens"][0]["token"], EXAMPLE_TOKEN);
    }

    #[test]
    fn older_ones_are_migrated() {
        let new = migrated("apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nnetworking:\n  podSubnet: 10.1.0.0/16\napiServer:\n  extraArgs:\n    v: '4'\n", "v1.36.2").unwrap();
        let value: Value = serde_saphyr::from_str(&new).unwrap();
        assert_eq!((&value["apiVersion"], &value["networking"]["podSubnet"], &value["networking"]["serviceSubnet"]), (&json!(NEWEST), &json!("10.1.0.0/16"), &json!(DEFAULT_SERVICE_SUBNET)));
        assert_eq!(value["apiServer"]["extraArgs"], json!([{"name": "v", "value": "4"}]));
        assert!(migrated("", "v1").is_err());
    }
}
