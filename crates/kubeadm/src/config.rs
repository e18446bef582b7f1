//! `kubeadm config print` and `kubeadm upgrade`: what upstream would read from a file, and how this program is upgraded.

use clap::{Args, Subcommand};

use crate::host::Host;
use crate::init::{DEFAULT_POD_SUBNET, DEFAULT_SERVICE_SUBNET};

#[derive(Args, Debug)]
pub struct ConfigCommand {
    #[command(subcommand)]
    what: ConfigWhat,
}

#[derive(Subcommand, Debug)]
enum ConfigWhat {
    /// Print configuration
    Print {
        #[command(subcommand)]
        which: Print,
    },
    /// Interact with container images used by kubeadm
    Images {
        #[command(subcommand)]
        which: Images,
    },
}

#[derive(Subcommand, Debug)]
enum Print {
    /// Print default init configuration, that can be used for 'kubeadm init'
    InitDefaults,
    /// Print default join configuration, that can be used for 'kubeadm join'
    JoinDefaults,
}

#[derive(Subcommand, Debug)]
enum Images {
    /// Print a list of images kubeadm will use
    List,
    /// Pull images used by kubeadm
    Pull,
}

#[derive(Args, Debug)]
pub struct UpgradeCommand {
    #[command(subcommand)]
    what: Option<Upgrade>,
}

#[derive(Subcommand, Debug)]
enum Upgrade {
    /// Check which versions are available to upgrade to
    Plan,
    /// Upgrade your Kubernetes cluster to the specified version
    Apply { version: Option<String> },
    /// Upgrade commands for a node in the cluster
    Node,
}

fn init_defaults(version: &str) -> String {
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nbootstrapTokens:\n- groups:\n  - system:bootstrappers:kubeadm:default-node-token\n  token: abcdef.0123456789abcdef\n  ttl: 24h0m0s\n  usages:\n  - signing\n  - authentication\nkind: InitConfiguration\nlocalAPIEndpoint:\n  advertiseAddress: 1.2.3.4\n  bindPort: 6443\nnodeRegistration:\n  imagePullPolicy: IfNotPresent\n  name: node\n  taints: null\n---\napiServer: {{}}\napiVersion: kubeadm.k8s.io/v1beta4\ncaCertificateValidityPeriod: 87600h0m0s\ncertificateValidityPeriod: 8760h0m0s\ncertificatesDir: /etc/kubernetes/pki\nclusterName: kubernetes\ncontrollerManager: {{}}\nkind: ClusterConfiguration\nkubernetesVersion: {version}\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: {DEFAULT_POD_SUBNET}\n  serviceSubnet: {DEFAULT_SERVICE_SUBNET}\nscheduler: {{}}\n"
    )
}

const JOIN_DEFAULTS: &str = "apiVersion: kubeadm.k8s.io/v1beta4\ncaCertPath: /etc/kubernetes/pki/ca.crt\ndiscovery:\n  bootstrapToken:\n    apiServerEndpoint: kube-apiserver:6443\n    token: abcdef.0123456789abcdef\n    unsafeSkipCAVerification: true\n  tlsBootstrapToken: abcdef.0123456789abcdef\nkind: JoinConfiguration\nnodeRegistration:\n  imagePullPolicy: IfNotPresent\n  name: node\n  taints: null\n";

pub fn run(command: &ConfigCommand, host: &dyn Host) {
    match &command.what {
        ConfigWhat::Print { which: Print::InitDefaults } => {
            print!("{}", init_defaults(host.version()));
            eprintln!("hint: for reading: `kubeadm init` takes flags, no --config file.");
        }
        ConfigWhat::Print { which: Print::JoinDefaults } => {
            print!("{JOIN_DEFAULTS}");
            eprintln!("hint: for reading: `kubeadm join` takes flags, no --config file.");
        }
        ConfigWhat::Images { .. } => eprintln!("hint: no images are needed: the control plane, the proxy and the DNS are this program."),
    }
}

pub fn upgrade(command: &UpgradeCommand, host: &dyn Host) {
    match &command.what {
        Some(Upgrade::Apply { .. } | Upgrade::Node) => println!("[upgrade] Nothing to apply: this program is the whole of Kubernetes {}.", host.version()),
        _ => println!("[upgrade/versions] Cluster version: {0}\n[upgrade/versions] kubeadm version: {0}\n[upgrade/versions] This command looks for no newer versions: it does not ask the Internet.", host.version()),
    }
    println!("hint: to upgrade a machine, put a newer binary in place of this one, `coracle down`, and start it again; pods run on meanwhile. Control plane first.");
}

#[cfg(test)]
mod tests {
    #[test]
    fn defaults_are_yaml() {
        for text in super::init_defaults("v1.36.2").split("---\n").chain([super::JOIN_DEFAULTS]) {
            let value: serde_json::Value = serde_saphyr::from_str(text).unwrap();
            assert_eq!(value["apiVersion"], "kubeadm.k8s.io/v1beta4");
        }
    }
}
