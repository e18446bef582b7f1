//! `kubeadm init`: the first machine of a cluster. Checks, certificates, kubeconfigs, the control plane, and what others need to join.
//!
//! Mirrors `cmd/init.go` and its phases; the control plane is one process instead of static pods, so their phases say less.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use client::kubeconfig::Config;
use jiff::{SignedDuration, Timestamp};
use pki::Pki;

use crate::bootstrap_token::{BootstrapToken, duration};
use crate::certificates::{CA, CONFIGS, Names, PkiFolder};
use crate::error::{Error, InPhase};
use crate::files::{Journal, names_in};
use crate::host::{ControlPlane, Host, KUBELET_FOLDER, KUBERNETES_FOLDER};
use crate::kubeconfig::{Login, kubeconfig, of_cluster};
use crate::objects::{ClusterConfiguration, kubelet_configuration};
use crate::preflight::{self, Check};
use crate::publish;
use crate::rest::connect;

pub const BIND_PORT: u16 = 6443;
pub const KUBELET_PORT: u16 = 10250;
pub const DEFAULT_POD_SUBNET: &str = "10.244.0.0/16";
pub const DEFAULT_SERVICE_SUBNET: &str = "10.96.0.0/12";
pub const DEFAULT_DATA: &str = "/var/lib/coracle";
/// Where the objects are, in the data folder: there is a cluster already.
const STORE: &str = "store";
/// The cluster's DNS is the tenth address of the Services' range.
const DNS_OFFSET: u128 = 10;

#[derive(Args, Debug, Clone)]
pub struct Options {
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
    /// Where the cluster's data are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data_dir: PathBuf,
    /// Where to save and store the certificates
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/pki")]
    pub cert_dir: PathBuf,
    /// Checks whose errors will be shown as warnings; 'all' ignores errors from all checks
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    pub ignore_preflight_errors: Vec<String>,
    /// Taken for upstream's sake: there is one version, this program's
    #[arg(long, value_name = "VERSION")]
    pub kubernetes_version: Option<String>,
    /// Taken for upstream's sake: the container runtime is built in
    #[arg(long, value_name = "SOCKET")]
    pub cri_socket: Option<String>,
    /// Taken for upstream's sake: certificates are not uploaded
    #[arg(long)]
    pub upload_certs: bool,
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

fn is_ipv4(ranges: &str) -> bool {
    nth(ranges, 0).is_none_or(|address| address.is_ipv4())
}

/// The n-th address of a range; of two, of the first.
fn nth(range: &str, offset: u128) -> Option<IpAddr> {
    match range.split_once('/')?.0.parse().ok()? {
        IpAddr::V4(base) => Some(IpAddr::V4(u32::from(base).checked_add(u32::try_from(offset).ok()?)?.into())),
        IpAddr::V6(base) => Some(IpAddr::V6(u128::from(base).checked_add(offset)?.into())),
    }
}

/// The host's name in lower case.
pub fn node_name(given: Option<&String>) -> String {
    given.cloned().unwrap_or_else(|| nix::unistd::gethostname().map(|name| name.to_string_lossy().trim().to_lowercase()).unwrap_or_default())
}

/// `host`, `host:port`, `[v6]:port`; the API server's port when there is none.
fn endpoint(text: &str, port: u16) -> Result<(String, String), Error> {
    let bad = || Error::Invalid(format!("the control plane endpoint {text:?} is no address, name, or one of them with a port"));
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((text.to_owned(), std::net::SocketAddr::new(address, port).to_string()));
    }
    let (host, given) = match text.rsplit_once(':') {
        Some((host, given)) => (host.trim_start_matches('[').trim_end_matches(']'), given.parse().map_err(|_| bad())?),
        None => (text, port),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(bad());
    }
    let shown = if host.contains(':') { format!("[{host}]:{given}") } else { format!("{host}:{given}") };
    Ok((host.to_owned(), shown))
}

/// All that follows from the options.
struct Wanted {
    control_plane: ControlPlane,
    names: Names,
    /// `192.0.2.1:6443`: in kubeconfigs and in the join command.
    endpoint: String,
    token: BootstrapToken,
}

fn wanted(options: &Options, host: &dyn Host) -> Result<Wanted, Error> {
    let address = options.apiserver_advertise_address.or_else(|| host.address(is_ipv4(&options.service_cidr))).ok_or_else(|| Error::Hinted {
        message: "couldn't use \"\" as \"apiserver-advertise-address\", must be ipv4 or ipv6 address".into(),
        hint: "this machine has no address but its loopback's; --apiserver-advertise-address names one".into(),
    })?;
    let node_name = node_name(options.node_name.as_ref());
    let token = match &options.token {
        Some(text) => text.parse()?,
        None => BootstrapToken::generate()?,
    };
    let service = nth(&options.service_cidr, 1).ok_or_else(|| Error::Invalid(format!("the range of Services {} has no addresses", options.service_cidr)))?;
    let mut extra_names = options.apiserver_cert_extra_sans.clone();
    let own = std::net::SocketAddr::new(address, options.apiserver_bind_port).to_string();
    let endpoint = match &options.control_plane_endpoint {
        Some(text) => {
            let (host, endpoint) = endpoint(text, options.apiserver_bind_port)?;
            extra_names.push(host);
            endpoint
        }
        None => own,
    };
    let mut names = Names { dns: ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", &node_name].map(str::to_owned).to_vec(), addresses: vec![service, address, IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()] };
    for name in &extra_names {
        match name.parse() {
            Ok(address) => names.addresses.push(address),
            Err(_) => names.dns.push(name.clone()),
        }
    }
    let control_plane = ControlPlane {
        data_dir: options.data_dir.clone(),
        pki_dir: options.cert_dir.clone(),
        node_name,
        advertise_address: address,
        secure_port: options.apiserver_bind_port,
        pod_network_cidr: options.pod_network_cidr.clone(),
        service_cidr: options.service_cidr.clone(),
        extra_names,
        no_network: options.network == "none",
    };
    Ok(Wanted { control_plane, names, endpoint, token })
}

fn checks(wanted: &ControlPlane) -> Vec<Check> {
    vec![
        Check::PortOpen(wanted.secure_port),
        Check::FileAvailable(Path::new(KUBERNETES_FOLDER).join("kubelet.conf")),
        Check::PortOpen(KUBELET_PORT),
        Check::DirAvailable(wanted.data_dir.join(STORE)),
        Check::HostName(wanted.node_name.clone()),
        Check::Found { name: "AdvertiseAddress", wrong: overlap(wanted) },
    ]
}

/// An address of this machine in a range that is for Services or pods would never be reached.
fn overlap(wanted: &ControlPlane) -> Option<String> {
    let address = wanted.advertise_address;
    let (flag, range) = [("--service-cidr", &wanted.service_cidr), ("--pod-network-cidr", &wanted.pod_network_cidr)]
        .into_iter()
        .flat_map(|(flag, ranges)| ranges.split(',').map(move |range| (flag, range)))
        .find(|(_, range)| within(range, address))?;
    Some(format!("this machine's address {address} is in {range}, the range of {flag}: nobody could reach it\n\thint: choose another range, or another of this machine's addresses with --apiserver-advertise-address"))
}

fn within(range: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = range.split_once('/').and_then(|(base, bits)| Some((base.parse().ok()?, bits.parse::<u32>().ok()?))) else { return false };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => (u32::from(base) ^ u32::from(address)).checked_shr(32 - bits.min(32)).unwrap_or(0) == 0,
        (IpAddr::V6(base), IpAddr::V6(address)) => (u128::from(base) ^ u128::from(address)).checked_shr(128 - bits.min(128)).unwrap_or(0) == 0,
        _ => false,
    }
}

/// The kubeconfigs, each with a new certificate.
fn write_kubeconfigs(journal: &mut Journal, pki: &PkiFolder, server: &str, node: &str) -> Result<(), Error> {
    let folder = Path::new(KUBERNETES_FOLDER);
    println!("[kubeconfig] Using kubeconfig folder {KUBERNETES_FOLDER:?}");
    let authority = pki.authority(CA)?;
    let now = Timestamp::now().as_second();
    let kubelet = format!("system:node:{node}");
    let all = CONFIGS.iter().map(|entry| (entry.file, entry.user, entry.groups)).chain([("kubelet.conf", kubelet.as_str(), &["system:nodes"] as &[&str])]);
    for (file, user, groups) in all {
        println!("[kubeconfig] Writing {file:?} kubeconfig file");
        let identity = authority.issue(&Pki::Client { user, groups }, now)?;
        journal.write(&folder.join(file), kubeconfig(server, &authority.identity.certificate_pem, user, &Login::Certificate(&identity)).as_bytes())?;
    }
    Ok(())
}

/// `kubeadm join …` in two lines, as upstream prints it.
pub fn join_command(endpoint: &str, token: &str, ca: &str) -> Result<String, Error> {
    let hashes = pki::public_key_hash(ca.as_bytes()).map_err(|error| Error::Certificate { path: "the cluster's CA".into(), message: error.to_string() })?;
    let hashes: String = hashes.iter().map(|hash| format!("--discovery-token-ca-cert-hash {hash} ")).collect();
    Ok(format!("kubeadm join {endpoint} --token {token} \\\n\t{hashes}"))
}

fn done(join: &str, no_network: bool) -> String {
    let mut text = format!(
        "\nYour Kubernetes control-plane has initialized successfully!\n\nTo start using your cluster, you need to run the following as a regular user:\n\n  mkdir -p $HOME/.kube\n  sudo cp -i {KUBERNETES_FOLDER}/admin.conf $HOME/.kube/config\n  sudo chown $(id -u):$(id -g) $HOME/.kube/config\n\nAlternatively, if you are the root user, you can run:\n\n  export KUBECONFIG={KUBERNETES_FOLDER}/admin.conf\n\nYou should now deploy a pod network to the cluster.\nRun \"kubectl apply -f [podnetwork].yaml\" with one of the options listed at:\n  https://kubernetes.io/docs/concepts/cluster-administration/addons/\n\nThen you can join any number of worker nodes by running the following on each as root:\n\n{join}\n"
    );
    if !no_network {
        text.push_str("hint: the built-in pod network runs already; nothing needs to be deployed.\n");
    }
    text
}

pub fn run(options: &Options, host: &dyn Host) -> Result<(), Error> {
    let ignored = preflight::ignored(&options.ignore_preflight_errors);
    preflight::root(&ignored).phase("preflight")?;
    let wanted = wanted(options, host)?;
    let what = &wanted.control_plane;
    println!("[init] Using Kubernetes version: {}", host.version());
    println!("[preflight] Running pre-flight checks");
    preflight::run(&checks(what), &ignored).phase("preflight")?;

    let mut journal = Journal::default();
    let pki = PkiFolder(what.pki_dir.clone());
    println!("[certs] Using certificateDir folder {:?}", pki.0.display().to_string());
    journal.expect(&pki.0);
    pki.ensure(&wanted.names, Timestamp::now().as_second(), &mut |line| println!("{line}")).phase("certs")?;
    let server = format!("https://{}", wanted.endpoint);
    write_kubeconfigs(&mut journal, &pki, &server, &what.node_name).phase("kubeconfig")?;
    let config = Path::new(KUBELET_FOLDER).join("config.yaml");
    println!("[kubelet-start] Writing kubelet configuration to file {:?}", config.display().to_string());
    let dns = nth(&what.service_cidr, DNS_OFFSET).map(|address| address.to_string()).unwrap_or_default();
    let kubelet = kubelet_configuration(&dns);
    journal.write(&config, kubelet.as_bytes())?;

    println!("[kubelet-start] Starting the kubelet");
    println!("[wait-control-plane] Waiting for the control plane: one process, with the kubelet of this node in it");
    let started = std::time::Instant::now();
    let before = names_in(&what.data_dir);
    let outcome = host.start_control_plane(what).map_err(Error::Host).phase("wait-control-plane").and_then(|()| {
        println!("[control-plane-check] kube-apiserver is healthy after {:.3}s", started.elapsed().as_secs_f64());
        publish(options, &wanted, &pki, &kubelet, host.version())
    });
    if let Err(error) = outcome {
        // As it was found.
        if let Err(message) = host.undo(&what.data_dir, &before) {
            eprintln!("warning: {message}");
        }
        return Err(error);
    }
    journal.keep();
    let ca = pki.identity(CA)?.certificate_pem;
    let token = if options.skip_token_print { "<value withheld>".to_owned() } else { wanted.token.to_string() };
    print!("{}", done(&join_command(&wanted.endpoint, &token, &ca)?, what.no_network));
    Ok(())
}

fn publish(options: &Options, wanted: &Wanted, pki: &PkiFolder, kubelet: &str, version: &str) -> Result<(), Error> {
    let what = &wanted.control_plane;
    // Over its own address: what a balancer in front does not know yet must not hold this up.
    let load = |file: &str| -> Result<_, Error> {
        let mut config = Config::load(Some(&Path::new(KUBERNETES_FOLDER).join(file)))?;
        config.server = format!("https://{}", std::net::SocketAddr::new(what.advertise_address, what.secure_port));
        connect(&config)
    };
    let configuration = ClusterConfiguration {
        version: version.to_owned(),
        control_plane_endpoint: options.control_plane_endpoint.as_ref().map(|_| wanted.endpoint.clone()),
        pod_subnet: what.pod_network_cidr.clone(),
        service_subnet: what.service_cidr.clone(),
        no_network: what.no_network,
        extra_names: what.extra_names.clone(),
    };
    let cluster_info = of_cluster(&format!("https://{}", wanted.endpoint), &pki.identity(CA)?.certificate_pem);
    crate::cli::block_on(async {
        publish::administrators(&load("super-admin.conf")?).await.phase("wait-control-plane")?;
        let client = load("admin.conf")?;
        publish::configuration(&client, &configuration, kubelet).await.phase("upload-config")?;
        if options.upload_certs {
            println!("[upload-certs] Certificates are not uploaded: copy /etc/kubernetes/pki to further control-plane nodes by hand");
        } else {
            println!("[upload-certs] Skipping phase. Please see --upload-certs");
        }
        publish::mark_control_plane(&client, &what.node_name).await.phase("mark-control-plane")?;
        publish::bootstrap(&client, &wanted.token, options.token_ttl, &cluster_info, !options.skip_token_print).await.phase("bootstrap-token")?;
        println!("[addons] Applied essential addon: CoreDNS");
        println!("[addons] Applied essential addon: kube-proxy");
        Ok(())
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, host, shown) in [
            ("lb.example", "lb.example", "lb.example:6443"),
            ("lb.example:443", "lb.example", "lb.example:443"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.1:6443"),
            ("fd00::1", "fd00::1", "[fd00::1]:6443"),
            ("[fd00::1]:443", "fd00::1", "[fd00::1]:443"),
        ] {
            assert_eq!(endpoint(text, 6443).unwrap(), (host.to_owned(), shown.to_owned()));
        }
        for bad in ["", "a:b", ":6443", "a b", "a:99999"] {
            assert!(endpoint(bad, 6443).is_err(), "{bad}");
        }
        assert_eq!(nth("10.96.0.0/12", 10).unwrap().to_string(), "10.96.0.10");
        assert_eq!(nth("fd00::/112", 10).unwrap().to_string(), "fd00::a");
        assert!(nth("255.255.255.255/32", 1).is_none());
        for (range, address, is) in [("10.96.0.0/12", "10.99.0.1", true), ("10.96.0.0/12", "10.112.0.1", false), ("0.0.0.0/0", "1.2.3.4", true), ("1.2.3.4/32", "1.2.3.5", false), ("fd00::/64", "fd00::1", true), ("fd00::/64", "10.0.0.1", false)] {
            assert_eq!(within(range, address.parse().unwrap()), is, "{range} {address}");
        }
        assert!(cidr("10.0.0.0/33").is_err() && cidr("10.0.0.0").is_err() && cidr("fd00::/64").is_ok());
    }

    #[test]
    fn the_lines_people_look_for() {
        let ca = pki::Authority::generate("kubernetes", 1_800_000_000).unwrap().identity.certificate_pem;
        let text = done(&join_command("192.0.2.1:6443", "abcdef.0123456789abcdef", &ca).unwrap(), true);
        for line in [
            "Your Kubernetes control-plane has initialized successfully!",
            "  mkdir -p $HOME/.kube",
            "  sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config",
            "  sudo chown $(id -u):$(id -g) $HOME/.kube/config",
            "Then you can join any number of worker nodes by running the following on each as root:",
            "kubeadm join 192.0.2.1:6443 --token abcdef.0123456789abcdef \\",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("\n\t--discovery-token-ca-cert-hash sha256:") && !text.contains("hint"));
    }
}
