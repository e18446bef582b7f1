//! A real etcd for tests, of one or three members, with TLS on loopback addresses of its own: no port is ever taken.
//!
//! Included by the tests of several crates with `#[path]`; they need `rcgen` and `tempfile`.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

pub struct Etcd {
    pub dir: tempfile::TempDir,
    members: Vec<Member>,
}

struct Member {
    address: Ipv4Addr,
    arguments: Vec<String>,
    process: Option<Child>,
}

/// One that nobody else has: by process and by number.
fn address() -> Ipv4Addr {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id();
    Ipv4Addr::new(127, 64 + (process >> 16) as u8 % 128, (process >> 8) as u8, process as u8 ^ (NUMBER.fetch_add(1, Ordering::Relaxed) as u8).rotate_right(3))
}

impl Etcd {
    /// Returns when all members serve.
    pub fn start(members: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("etcd-test-").tempdir().unwrap();
        let addresses: Vec<Ipv4Addr> = (0..members).map(|_| address()).collect();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(path("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        // One certificate for members and clients alike.
        // Members check where their peers come from, and that is the loopback's first address.
        let names = addresses.iter().chain([&Ipv4Addr::LOCALHOST]).map(Ipv4Addr::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        std::fs::write(path("etcd.crt"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(path("etcd.key"), key.serialize_pem()).unwrap();
        let all = addresses.iter().map(|address| format!("m{address}=https://{address}:2380")).collect::<Vec<_>>().join(",");
        // A member alone elects itself at once; three need time for each other even on a busy machine.
        let (heartbeat, election) = if members == 1 { (10, 100) } else { (50, 500) };
        let members = addresses
            .iter()
            .map(|address| {
                let mut arguments = Vec::new();
                let mut flag = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
                flag("name", format!("m{address}"));
                flag("data-dir", path(&format!("m{address}")));
                for name in ["listen-client-urls", "advertise-client-urls"] {
                    flag(name, format!("https://{address}:2379"));
                }
                for name in ["listen-peer-urls", "initial-advertise-peer-urls"] {
                    flag(name, format!("https://{address}:2380"));
                }
                flag("initial-cluster", all.clone());
                flag("heartbeat-interval", heartbeat.to_string());
                flag("election-timeout", election.to_string());
                for side in ["", "peer-"] {
                    flag(&format!("{side}client-cert-auth"), "true".into());
                    flag(&format!("{side}trusted-ca-file"), path("ca.crt"));
                    flag(&format!("{side}cert-file"), path("etcd.crt"));
                    flag(&format!("{side}key-file"), path("etcd.key"));
                }
                flag("logger", "zap".into());
                flag("log-outputs", "stderr".into());
                Member { address: *address, arguments, process: None }
            })
            .collect();
        let mut etcd = Self { dir, members };
        etcd.begin(&(0..etcd.members.len()).collect::<Vec<_>>());
        etcd
    }

    /// Starts members that do not run, and waits until each serves clients: it says so.
    pub fn begin(&mut self, which: &[usize]) {
        let mut outputs = Vec::new();
        for index in which {
            let member = &mut self.members[*index];
            let mut process = Command::new("etcd").args(&member.arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("etcd (Debian's package etcd-server)");
            outputs.push(process.stderr.take().unwrap());
            member.process = Some(process);
        }
        for output in outputs {
            let mut lines = BufReader::new(output).lines();
            let mut said = Vec::new();
            loop {
                match lines.next() {
                    Some(Ok(line)) if line.contains("serving client traffic") => break,
                    Some(Ok(line)) => said.push(line),
                    _ => panic!("etcd ended:\n{}", said.join("\n")),
                }
            }
            // A full pipe would stop it.
            std::thread::spawn(move || lines.for_each(drop));
        }
    }

    /// `kill -9`
    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("https://{}:2379", member.address)).collect()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> etcd::Config {
        let read = |name: &str| std::fs::read(self.file(name)).unwrap();
        let tls = etcd::tls(&read("ca.crt"), Some((&read("etcd.crt"), &read("etcd.key")))).unwrap();
        let resolve: etcd::Resolve = Arc::new(|host| Box::pin(async move { Ok(vec![host.parse().map_err(|_| format!("{host} is no address"))?]) }));
        etcd::Config { endpoints: self.endpoints(), tls: Some(tls), resolve }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}
