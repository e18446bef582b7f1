//! Tests of machines whose clocks differ: TLS, HTTP and the certificates are real, only the joining side's clock is told to be another.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::Clock;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use pki::{Authority, Request, Subject};
use plan::bootstrap::signature;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use crate::bootstrap_token::BootstrapToken;
use crate::discovery::{Found, Trust, discover};
use crate::error::Error;
use crate::host::{Agent, Component, ControlPlane, EtcdFacts, ExternalEtcd, Host, Meaning};
use crate::join;
use crate::options::of_line;

const TOKEN: &str = "abcdef.0123456789abcdef";
/// Of the API server's certificate: it begins five minutes before it was made, and lives for a half hour.
const LIFE_SECONDS: i64 = 1800;
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Ahead of the real one by so much.
struct Ahead(SignedDuration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::now() + self.0
    }
}

/// A control plane that answers everything with its cluster-info, over TLS, for as long as the test runs.
struct Cluster {
    endpoint: String,
    ca: String,
}

impl Cluster {
    fn start(tells_time: bool) -> Self {
        let now = Timestamp::now().as_second();
        let authority = Authority::generate("kubernetes", now).unwrap();
        let request = Request::new(&Subject { common_name: "kube-apiserver".into(), addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], ..Subject::default() }).unwrap();
        let certificate = authority.sign_request(request.request_pem.as_bytes(), &["digital signature".into(), "server auth".into()], LIFE_SECONDS, now).unwrap();
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(chain, PrivateKeyDer::from_pem_slice(request.key_pem.as_bytes()).unwrap()).unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let ca = authority.identity.certificate_pem;
        let kubeconfig = crate::kubeconfig::of_cluster(&format!("https://{endpoint}"), &ca);
        let (id, secret) = TOKEN.split_once('.').unwrap();
        let body = json!({"data": {"kubeconfig": kubeconfig, format!("jws-kubeconfig-{id}"): signature(&kubeconfig, id, secret)}}).to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, body) = (config.clone(), body.clone());
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(rustls::StreamOwned::new(rustls::ServerConnection::new(config).unwrap(), stream));
                    let mut line = String::new();
                    // A client that does not believe the certificate goes away.
                    while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
                        if line == "\r\n" {
                            let date = if tells_time { format!("date: {}\r\n", DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()).unwrap()) } else { String::new() };
                            let answer = format!("HTTP/1.1 200 OK\r\n{date}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                            stream.get_mut().write_all(answer.as_bytes()).unwrap();
                        }
                        line.clear();
                    }
                });
            }
        });
        Self { endpoint, ca }
    }

    fn pin(&self) -> String {
        pki::public_key_hash(self.ca.as_bytes()).unwrap().remove(0)
    }

    fn found(&self, trust: &Trust, ahead: SignedDuration) -> Result<Found, Error> {
        let (token, clock): (BootstrapToken, Arc<dyn Clock>) = (TOKEN.parse().unwrap(), Arc::new(Ahead(ahead)));
        crate::cli::block_on(discover(&self.endpoint, &token, trust, Duration::from_millis(1500), &clock)).unwrap()
    }
}

/// Nothing may be started on it.
struct Machine {
    clock: SignedDuration,
    touched: AtomicBool,
}

impl Machine {
    fn touched(&self) -> Result<(), String> {
        self.touched.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Host for Machine {
    fn version(&self) -> &str {
        "v1.36.2"
    }
    fn own_image(&self) -> String {
        "x:v1.36.2".into()
    }
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(Ahead(self.clock))
    }
    fn meaning(&self, _: Component, _: &str, _: &str) -> Meaning {
        Meaning::Honoured
    }
    fn address(&self, _: bool) -> Option<IpAddr> {
        None
    }
    fn ask_etcd(&self, _: &ExternalEtcd) -> Result<EtcdFacts, String> {
        Err("none".into())
    }
    fn start_control_plane(&self, _: &ControlPlane) -> Result<(), String> {
        self.touched()
    }
    fn start_agent(&self, _: &Agent) -> Result<(), String> {
        self.touched()
    }
    fn restart(&self, _: &Path) -> Result<(), String> {
        self.touched()
    }
    fn remove(&self, _: &Path) -> Result<(), String> {
        self.touched()
    }
    fn undo(&self, _: &Path, _: Option<&[OsString]>) -> Result<(), String> {
        self.touched()
    }
    fn runs(&self, _: &Path) -> bool {
        false
    }
}

#[test]
fn clocks_that_differ_are_told() {
    let cluster = Cluster::start(true);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.conf");
    std::fs::write(&file, crate::kubeconfig::of_cluster(&format!("https://{}", cluster.endpoint), &cluster.ca)).unwrap();
    for trust in [Trust::Pinned(vec![cluster.pin()]), Trust::File(file), Trust::Unverified] {
        let clock = |ahead| cluster.found(&trust, ahead).unwrap().clock;
        assert_eq!(clock(SignedDuration::ZERO), None, "{trust:?}");
        // The certificate seems to have ended, and not to have begun.
        let (ahead, behind) = (clock(HOUR).unwrap(), clock(-HOUR).unwrap());
        assert!(ahead.starts_with("the clock of this machine is 60m0s ahead of") || ahead.starts_with("the clock of this machine is 60m1s ahead of"), "{trust:?}: {ahead}");
        assert!(behind.starts_with("the clock of this machine is 60m0s behind the") || behind.starts_with("the clock of this machine is 59m59s behind the"), "{trust:?}: {behind}");
        assert!(ahead.contains("hint: set it right (`timedatectl set-ntp true`"));
    }
    // Who is not told what time it is there tells of the certificate.
    let silent = Cluster::start(false);
    assert!(silent.found(&Trust::Pinned(vec![silent.pin()]), SignedDuration::ZERO).is_ok());
    for (ahead, side) in [(HOUR, " is after "), (-HOUR, " is before ")] {
        let error = silent.found(&Trust::Pinned(vec![silent.pin()]), ahead).err().unwrap();
        assert!(error.to_string().contains("x509: certificate has expired or is not yet valid: current time ") && error.to_string().contains(side), "{error}");
        assert!(error.hint().unwrap().starts_with("this machine's clock says "));
    }
}

#[test]
fn a_machine_with_another_clock_is_left_as_it_was() {
    let cluster = Cluster::start(true);
    // This machine may be a node, and whoever runs the tests not root.
    let ignored = "Port-10250,FileAvailable--etc-kubernetes-kubelet.conf,FileAvailable--etc-kubernetes-pki-ca.crt,IsPrivilegedUser";
    let join = |machine: &Machine| {
        let line = format!("{} --token {TOKEN} --discovery-token-ca-cert-hash {} --node-name n --data-dir /nonexistent/coracle --ignore-preflight-errors {ignored}", cluster.endpoint, cluster.pin());
        join::run(&of_line(&line).unwrap(), machine).unwrap_err()
    };
    let files = || ["/etc/kubernetes", "/etc/kubernetes/pki", crate::host::KUBELET_FOLDER].map(|folder| crate::files::names_in(Path::new(folder)));
    let before = files();
    for clock in [HOUR, -HOUR] {
        let machine = Machine { clock, touched: AtomicBool::new(false) };
        let error = join(&machine);
        assert!(matches!(&error, Error::Phase { phase: "preflight", source } if matches!(**source, Error::Preflight)), "{error}");
        assert!(!machine.touched.load(Ordering::Relaxed) && error.code() == 2);
    }
    assert_eq!(files(), before);
    // With the right one it comes further: this cluster has no configuration.
    let error = join(&Machine { clock: SignedDuration::ZERO, touched: AtomicBool::new(false) });
    assert!(error.to_string().contains("unable to decode the ClusterConfiguration"), "{error}");
}
