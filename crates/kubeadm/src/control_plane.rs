//! A machine that is (one of) the control plane: what follows from how it was asked for, what must be so before it is made, and its files. `init` and
//! `join --control-plane` share it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use client::Client;
use client::kubeconfig::Config;
use jiff::Timestamp;
use pki::Pki;

use crate::certificates::{CA, CONFIGS, Names, PkiFolder};
use crate::error::Error;
use crate::extra_args;
use crate::files::Journal;
use crate::host::{ControlPlane, ExternalEtcd, Host, KUBERNETES_FOLDER};
use crate::kubeconfig::{Login, kubeconfig};
use crate::preflight::Check;
use crate::rest::connect;

pub const BIND_PORT: u16 = 6443;
pub const KUBELET_PORT: u16 = 10250;
/// Where the objects are, in the data folder: there is a cluster already.
const STORE: &str = "store";
pub const ADMIN: &str = "admin.conf";
pub const SUPER_ADMIN: &str = "super-admin.conf";
pub const KUBELET_CONFIG: &str = "kubelet.conf";

/// What etcd is like before a cluster's first control plane is made, and before another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Etcd {
    Empty,
    InUse,
}

/// The n-th address of a range; of two, of the first.
pub fn nth(range: &str, offset: u128) -> Option<IpAddr> {
    match range.split_once('/')?.0.parse().ok()? {
        IpAddr::V4(base) => Some(IpAddr::V4(u32::from(base).checked_add(u32::try_from(offset).ok()?)?.into())),
        IpAddr::V6(base) => Some(IpAddr::V6(u128::from(base).checked_add(offset)?.into())),
    }
}

/// `host`, `host:port`, `[v6]:port`: the host, and both; the API server's port when there is none.
pub fn endpoint(text: &str, port: u16) -> Result<(String, String), Error> {
    let bad = || Error::Invalid(format!("the control plane endpoint {text:?} is no address, name, or one of them with a port"));
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((text.to_owned(), SocketAddr::new(address, port).to_string()));
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

/// The address by which others reach this machine: of the Services' first family, if it has one.
pub fn advertised(given: Option<IpAddr>, service_cidr: &str, host: &dyn Host) -> Result<IpAddr, Error> {
    let ipv4 = nth(service_cidr, 0).is_none_or(|address| address.is_ipv4());
    given.or_else(|| host.address(ipv4)).ok_or_else(|| Error::Hinted {
        message: "couldn't use \"\" as \"apiserver-advertise-address\", must be ipv4 or ipv6 address".into(),
        hint: "this machine has no address but its loopback's; --apiserver-advertise-address names one".into(),
    })
}

fn within(range: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = range.split_once('/').and_then(|(base, bits)| Some((base.parse().ok()?, bits.parse::<u32>().ok()?))) else { return false };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => (u32::from(base) ^ u32::from(address)).checked_shr(32 - bits.min(32)).unwrap_or(0) == 0,
        (IpAddr::V6(base), IpAddr::V6(address)) => (u128::from(base) ^ u128::from(address)).checked_shr(128 - bits.min(128)).unwrap_or(0) == 0,
        _ => false,
    }
}

fn kubernetes_file(name: &str) -> PathBuf {
    Path::new(KUBERNETES_FOLDER).join(name)
}

impl ControlPlane {
    pub fn pki(&self) -> PkiFolder {
        PkiFolder(self.pki_dir.clone())
    }

    /// `192.0.2.1:6443`.
    pub fn own_endpoint(&self) -> String {
        SocketAddr::new(self.advertise_address, self.secure_port).to_string()
    }

    /// What the API server's certificate is to be good for.
    pub fn names(&self) -> Result<Names, Error> {
        let service = nth(&self.service_cidr, 1).ok_or_else(|| Error::Invalid(format!("the range of Services {} has no addresses", self.service_cidr)))?;
        Ok(Names::of_api_server(&self.node_name, &self.dns_domain, service, self.advertise_address, &self.extra_names))
    }

    pub fn checks(&self, host: &dyn Host, etcd: Etcd) -> Vec<Check> {
        let mut all = vec![
            Check::PortOpen(self.secure_port),
            Check::FileAvailable(kubernetes_file(KUBELET_CONFIG)),
            Check::PortOpen(KUBELET_PORT),
            Check::DirAvailable(self.data_dir.join(STORE)),
            Check::HostName(self.node_name.clone()),
            Check::Found { name: "AdvertiseAddress", wrong: self.overlap().or_else(|| self.elsewhere()) },
            Check::Found { name: "Coracle", wrong: running(host, &self.data_dir) },
            extra_args::check(host, &extra_args::of_control_plane(&self.args, &self.kubelet_args)),
        ];
        all.extend(self.etcd_check(host, etcd));
        all
    }

    pub fn etcd_check(&self, host: &dyn Host, etcd: Etcd) -> Option<Check> {
        let external = self.etcd.as_ref()?;
        Some(Check::Found { name: "ExternalEtcd", wrong: judge_etcd(host, external, etcd) })
    }

    /// An address of this machine in a range that is for Services or pods would never be reached.
    fn overlap(&self) -> Option<String> {
        let address = self.advertise_address;
        let (flag, range) = [("--service-cidr", &self.service_cidr), ("--pod-network-cidr", &self.pod_network_cidr)]
            .into_iter()
            .flat_map(|(flag, ranges)| ranges.split(',').map(move |range| (flag, range)))
            .find(|(_, range)| within(range, address))?;
        Some(format!("this machine's address {address} is in {range}, the range of {flag}: nobody could reach it\n\thint: choose another range, or another of this machine's addresses with --apiserver-advertise-address"))
    }

    /// Whoever is told an address that is another machine's, or nobody's, looks for this one in vain.
    fn elsewhere(&self) -> Option<String> {
        let address = self.advertise_address;
        let own = std::net::UdpSocket::bind((address, 0));
        own.is_err().then(|| format!("{address} is not an address of this machine\n\thint: `ip -brief address` shows those it has; --apiserver-advertise-address names one. If {address} leads here all the same, --ignore-preflight-errors=AdvertiseAddress"))
    }

    /// One kubeconfig with a new certificate, or all; `server` is `https://192.0.2.1:6443`.
    pub fn write_kubeconfigs(&self, journal: &mut Journal, server: &str, only: Option<&str>) -> Result<(), Error> {
        let authority = self.pki().authority(CA)?;
        let now = Timestamp::now().as_second();
        let kubelet = format!("system:node:{}", self.node_name);
        let all = CONFIGS.iter().map(|entry| (entry.file, entry.user, entry.groups)).chain([(KUBELET_CONFIG, kubelet.as_str(), &["system:nodes"] as &[&str])]);
        for (file, user, groups) in all.filter(|(file, ..)| only.is_none_or(|only| file.strip_suffix(".conf") == Some(only))) {
            println!("[kubeconfig] Writing {file:?} kubeconfig file");
            let identity = authority.issue(&Pki::Client { user, groups }, now)?;
            journal.write(&kubernetes_file(file), kubeconfig(server, &authority.identity.certificate_pem, user, &Login::Certificate(&identity)).as_bytes())?;
        }
        Ok(())
    }

    /// To this machine's own API server: what a balancer in front does not know yet must not hold this up.
    pub fn client(&self, file: &str) -> Result<Client, Error> {
        let mut config = Config::load(Some(&kubernetes_file(file)))?;
        config.server = format!("https://{}", self.own_endpoint());
        connect(&config)
    }
}

/// A machine has one cluster.
pub fn running(host: &dyn Host, data_dir: &Path) -> Option<String> {
    host.runs(data_dir).then(|| format!("a cluster or an agent already runs on this machine with {}\n\thint: `kubeadm reset` takes this machine out of it", data_dir.display()))
}

/// What is wrong with the etcd that is to be used.
fn judge_etcd(host: &dyn Host, etcd: &ExternalEtcd, expected: Etcd) -> Option<String> {
    let endpoints = etcd.endpoints.join(", ");
    match host.ask_etcd(etcd) {
        Err(message) => Some(format!("etcd at {endpoints} does not answer: {message}\n\thint: does it run, are these its addresses, and are they reached from here (`etcdctl endpoint health`)?")),
        Ok(facts) if facts.in_use && expected == Etcd::Empty => Some(format!(
            "etcd {} at {endpoints} holds a cluster's objects already: its keys would not fit a new cluster's certificates\n\thint: to add this machine to that cluster: `kubeadm join … --control-plane`; to throw that cluster away: `etcdctl del --prefix /registry/`",
            facts.version
        )),
        Ok(facts) if !facts.in_use && expected == Etcd::InUse => Some(format!("etcd {} at {endpoints} is empty: it is not this cluster's\n\thint: the cluster's etcd is named in `kubectl -n kube-system get configmap kubeadm-config -o yaml`", facts.version)),
        Ok(_) => None,
    }
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
    }

    #[test]
    fn ranges() {
        assert_eq!(nth("10.96.0.0/12", 10).unwrap().to_string(), "10.96.0.10");
        assert_eq!(nth("fd00::/112", 10).unwrap().to_string(), "fd00::a");
        assert!(nth("255.255.255.255/32", 1).is_none());
        for (range, address, is) in [("10.96.0.0/12", "10.99.0.1", true), ("10.96.0.0/12", "10.112.0.1", false), ("0.0.0.0/0", "1.2.3.4", true), ("1.2.3.4/32", "1.2.3.5", false), ("fd00::/64", "fd00::1", true), ("fd00::/64", "10.0.0.1", false)] {
            assert_eq!(within(range, address.parse().unwrap()), is, "{range} {address}");
        }
    }
}
