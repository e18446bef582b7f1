//! The list of a cluster's certificates, and the folder they are in. Names, users and files are kubeadm's (`phases/certs/certlist.go`), but for etcd's: there is none.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use pki::{Authority, Certificate, Identity, Pki, Subject};

use crate::error::Error;
use crate::files::write_private;

/// What ends sooner is made anew at the next start.
pub const RENEW_BEFORE_SECONDS: i64 = 30 * 24 * 3600;
/// As whom the API server comes to agents.
pub const KUBELET_CLIENT_USER: &str = "kube-apiserver-kubelet-client";
pub const KUBELET_CLIENT: &str = "apiserver-kubelet-client";
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";
pub const API_SERVER: &str = "apiserver";
/// As whom it serves.
const API_SERVER_NAME: &str = "kube-apiserver";
pub const CA: &str = "ca";
pub const FRONT_PROXY_CA: &str = "front-proxy-ca";
pub const TOKEN_KEY: &str = "sa";

pub struct AuthorityEntry {
    pub name: &'static str,
    common_name: &'static str,
}

pub struct Entry {
    pub name: &'static str,
    pub long_name: &'static str,
    pub authority: &'static str,
    /// None: it is the API server's own.
    user: Option<&'static str>,
}

impl Entry {
    /// Who it is for, for whoever signs it elsewhere.
    pub fn subject(&self, names: &Names) -> Subject {
        match self.user {
            Some(user) => Subject { common_name: user.to_owned(), ..Subject::default() },
            None => Subject { common_name: API_SERVER_NAME.to_owned(), organization: None, dns_names: names.dns.clone(), addresses: names.addresses.clone() },
        }
    }
}

/// A certificate inside of a kubeconfig.
pub struct ConfigEntry {
    pub file: &'static str,
    pub long_name: &'static str,
    pub user: &'static str,
    pub groups: &'static [&'static str],
}

pub const AUTHORITIES: [AuthorityEntry; 2] = [AuthorityEntry { name: CA, common_name: "kubernetes" }, AuthorityEntry { name: FRONT_PROXY_CA, common_name: "front-proxy-ca" }];

pub const ENTRIES: [Entry; 3] = [
    Entry { name: API_SERVER, long_name: "certificate for serving the Kubernetes API", authority: CA, user: None },
    Entry { name: KUBELET_CLIENT, long_name: "certificate for the API server to connect to kubelet", authority: CA, user: Some(KUBELET_CLIENT_USER) },
    Entry { name: FRONT_PROXY_CLIENT, long_name: "certificate for the front proxy client", authority: FRONT_PROXY_CA, user: Some("front-proxy-client") },
];

pub const CONFIGS: [ConfigEntry; 4] = [
    ConfigEntry { file: "admin.conf", long_name: "certificate embedded in the kubeconfig file for the admin to use and for kubeadm itself", user: "kubernetes-admin", groups: &["kubeadm:cluster-admins"] },
    ConfigEntry { file: "super-admin.conf", long_name: "certificate embedded in the kubeconfig file for the super-admin", user: "kubernetes-super-admin", groups: &["system:masters"] },
    ConfigEntry { file: "controller-manager.conf", long_name: "certificate embedded in the kubeconfig file for the controller manager to use", user: "system:kube-controller-manager", groups: &[] },
    ConfigEntry { file: "scheduler.conf", long_name: "certificate embedded in the kubeconfig file for the scheduler manager to use", user: "system:kube-scheduler", groups: &[] },
];

/// What the API server's certificate is good for.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Names {
    /// As the API server of a cluster whose names end in `domain` is called: from inside, from this machine, by its address, and as was asked for.
    pub fn of_api_server(node_name: &str, domain: &str, service: IpAddr, own: IpAddr, extra: &[String]) -> Self {
        let service_name = format!("kubernetes.default.svc.{domain}");
        let dns = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", &service_name, "localhost", node_name].map(str::to_owned);
        let mut names = Self { dns: dns.to_vec(), addresses: vec![service, own, std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()] };
        for name in extra {
            match name.parse() {
                Ok(address) => names.addresses.push(address),
                Err(_) => names.dns.push(name.clone()),
            }
        }
        names
    }

    fn within(&self, certificate: &Certificate) -> bool {
        self.dns.iter().all(|name| certificate.dns_names.contains(name)) && self.addresses.iter().all(|address| certificate.addresses.contains(address))
    }
}

/// A folder of certificates and keys, `ca.crt` beside `ca.key`.
#[derive(Debug, Clone)]
pub struct PkiFolder(pub PathBuf);

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(Error::file("cannot read", path))
}

impl PkiFolder {
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.crt"))
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.key"))
    }

    pub fn identity(&self, name: &str) -> Result<Identity, Error> {
        Ok(Identity { certificate_pem: read(&self.certificate(name))?, key_pem: read(&self.key(name))? })
    }

    /// What a certificate there says; none if it is not there.
    pub fn facts(&self, name: &str) -> Result<Option<Certificate>, Error> {
        let path = self.certificate(name);
        match std::fs::read(&path) {
            Ok(pem) => Certificate::read(&pem).map(Some).map_err(|error| Error::Certificate { path: path.display().to_string(), message: error.to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("cannot read", &path)(error)),
        }
    }

    fn write(&self, name: &str, identity: &Identity) -> Result<(), Error> {
        let (certificate, key) = (self.certificate(name), self.key(name));
        write_private(&key, identity.key_pem.as_bytes()).map_err(Error::file("cannot write", &key))?;
        write_private(&certificate, identity.certificate_pem.as_bytes()).map_err(Error::file("cannot write", &certificate))
    }

    pub fn authority(&self, name: &str) -> Result<Authority, Error> {
        let identity = self.identity(name)?;
        Authority::load(&identity.certificate_pem, &identity.key_pem).map_err(|error| Error::Certificate { path: self.certificate(name).display().to_string(), message: error.to_string() })
    }

    /// A certificate made anew, whatever was there.
    pub fn issue(&self, entry: &Entry, names: &Names, now: i64) -> Result<(), Error> {
        let authority = self.authority(entry.authority)?;
        let wanted = match entry.user {
            Some(user) => Pki::Client { user, groups: &[] },
            None => Pki::Server { name: API_SERVER_NAME, groups: &[], dns: &names.dns, addresses: &names.addresses },
        };
        self.write(entry.name, &authority.issue(&wanted, now)?)
    }

    /// Makes what is missing, ends soon, or does not name the API server as it is called now. `say` is told each.
    pub fn ensure(&self, names: &Names, now: i64, say: &mut dyn FnMut(String)) -> Result<(), Error> {
        self.ensure_some(names, now, &|_| true, say)
    }

    /// The same for those that are `wanted` by their names.
    pub fn ensure_some(&self, names: &Names, now: i64, wanted: &dyn Fn(&str) -> bool, say: &mut dyn FnMut(String)) -> Result<(), Error> {
        for entry in &AUTHORITIES {
            if !wanted(entry.name) {
                // Somebody else's.
            } else if self.certificate(entry.name).exists() {
                say(format!("[certs] Using existing {} certificate authority", entry.name));
            } else {
                say(format!("[certs] Generating {:?} certificate and key", entry.name));
                self.write(entry.name, &Authority::generate(entry.common_name, now)?.identity)?;
            }
            for entry in ENTRIES.iter().filter(|leaf| leaf.authority == entry.name && wanted(leaf.name)) {
                let good = |facts: &Certificate| facts.not_after > now + RENEW_BEFORE_SECONDS && facts.not_before <= now && (entry.user.is_some() || names.within(facts));
                if self.facts(entry.name)?.is_some_and(|facts| good(&facts)) {
                    say(format!("[certs] Using existing {} certificate and key on disk", entry.name));
                    continue;
                }
                say(format!("[certs] Generating {:?} certificate and key", entry.name));
                self.issue(entry, names, now)?;
                if entry.user.is_none() {
                    let addresses: Vec<String> = names.addresses.iter().map(ToString::to_string).collect();
                    say(format!("[certs] {} serving cert is signed for DNS names [{}] and IPs [{}]", entry.name, names.dns.join(" "), addresses.join(" ")));
                }
            }
        }
        if !wanted(TOKEN_KEY) {
            // Somebody else's.
        } else if self.key(TOKEN_KEY).exists() {
            say("[certs] Using existing sa keys".to_owned());
        } else {
            say(format!("[certs] Generating {TOKEN_KEY:?} key and public key"));
            let (private, public) = pki::key_pair()?;
            let (key, public_file) = (self.key(TOKEN_KEY), self.0.join("sa.pub"));
            write_private(&key, private.as_bytes()).map_err(Error::file("cannot write", &key))?;
            write_private(&public_file, public.as_bytes()).map_err(Error::file("cannot write", &public_file))?;
        }
        Ok(())
    }

    /// The key that signs service-account tokens, as PKCS#8 DER.
    pub fn token_key(&self) -> Result<Vec<u8>, Error> {
        let path = self.key(TOKEN_KEY);
        let bytes = std::fs::read(&path).map_err(Error::file("cannot read", &path))?;
        Ok(pki::key_der(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn ensure(folder: &PkiFolder, names: &Names, now: i64) -> Vec<String> {
        let mut said = Vec::new();
        folder.ensure(names, now, &mut |line| said.push(line)).unwrap();
        said
    }

    #[test]
    fn what_is_good_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = PkiFolder(folder.path().join("pki"));
        let mut names = Names { dns: vec!["kubernetes".into()], addresses: vec!["10.0.0.1".parse().unwrap()] };
        let said = ensure(&folder, &names, NOW);
        assert_eq!(said.len(), 7, "{said:#?}");
        assert!(said.contains(&"[certs] apiserver serving cert is signed for DNS names [kubernetes] and IPs [10.0.0.1]".to_owned()));
        assert!(ensure(&folder, &names, NOW + 10).iter().all(|line| line.contains("existing")));
        let generated = |said: Vec<String>| said.into_iter().filter(|line| line.contains("Generating")).collect::<Vec<_>>();
        names.addresses.push("10.0.0.2".parse().unwrap());
        assert_eq!(generated(ensure(&folder, &names, NOW)), ["[certs] Generating \"apiserver\" certificate and key"]);
        assert_eq!(generated(ensure(&folder, &names, NOW + 350 * 24 * 3600)).len(), 3);
        assert_eq!(folder.facts(KUBELET_CLIENT).unwrap().unwrap().common_name, KUBELET_CLIENT_USER);
        assert_eq!(folder.facts("nothing").unwrap(), None);
        assert_eq!(folder.token_key().unwrap()[0], 0x30);
    }
}
