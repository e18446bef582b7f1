//! What a Corefile says of upstreams and answers, over real sockets: a name server that is reached over TLS, answers from templates and lists of hosts before the cluster's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dns::{CacheRule, Corefile, Records, Server, ServiceRecords, Upstream, Upstreams, Zone};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use pki::{Authority, Pki};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

const SERVER_NAME: &str = "dns.example";
const NOW: i64 = 1_800_000_000;

/// Answers every question with one address, over TLS; counts connections and questions.
async fn secure_upstream(authority: &Authority) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(NOW, |since| since.as_secs() as i64);
    let identity = authority.issue(&Pki::Server { name: SERVER_NAME, groups: &[], dns: &[SERVER_NAME.to_owned()], addresses: &[] }, now).expect("a certificate");
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    let (connections, questions) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (connections.clone(), questions.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, questions) = (acceptor.clone(), counts.1.clone());
            counts.0.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                while let Ok(length) = stream.read_u16().await {
                    let mut bytes = vec![0; usize::from(length)];
                    if stream.read_exact(&mut bytes).await.is_err() {
                        return;
                    }
                    questions.fetch_add(1, Ordering::Relaxed);
                    let asked = Message::from_vec(&bytes).expect("a question");
                    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                    answer.add_query(asked.queries[0].clone());
                    answer.add_answer(Record::from_rdata(asked.queries[0].name().clone(), 60, RData::A(A::new(192, 0, 2, 7))));
                    let bytes = answer.to_vec().expect("an answer");
                    let _ = stream.write_all(&[&(bytes.len() as u16).to_be_bytes(), bytes.as_slice()].concat()).await;
                }
            });
        }
    });
    (address, connections, questions)
}

fn client_config(authority: &Authority) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.identity.certificate_pem.as_bytes()).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Arc::new(rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots).with_no_client_auth())
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> String {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.parse::<Name>().expect("a name"), kind));
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.connect(server).await.expect("connect");
    socket.send(&question.to_vec().expect("encode")).await.expect("send");
    let mut buffer = vec![0; 65_535];
    let length = socket.recv(&mut buffer).await.expect("receive");
    let answer = Message::from_vec(&buffer[..length]).expect("decode");
    let lines: Vec<String> = answer.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect();
    if answer.metadata.response_code == ResponseCode::NoError { lines.join(", ") } else { format!("{:?}", answer.metadata.response_code) }
}

#[tokio::test]
async fn over_tls() {
    let authority = Authority::generate("dns", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(NOW, |since| since.as_secs() as i64)).expect("an authority");
    let (address, connections, questions) = secure_upstream(&authority).await;
    let config = client_config(&authority);
    let to = |name: Option<&str>| Upstreams::of(vec![Upstream::secure(address, config.clone(), name).expect("a name")]);
    let server = Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], Arc::new(Records::new("cluster.local")), Upstreams::none()).await.expect("bind");
    let routes = server.routes();
    let at = server.addresses()[0];
    routes(Zone::new("", to(Some(SERVER_NAME)).kept_by(CacheRule::NEVER)).into_iter().collect());
    for _ in 0..3 {
        assert_eq!(ask(at, "www.example.org.", RecordType::A).await, "A 192.0.2.7");
    }
    // One connection, and nothing was kept.
    assert_eq!((connections.load(Ordering::Relaxed), questions.load(Ordering::Relaxed)), (1, 3));
    routes(Zone::new("", to(Some(SERVER_NAME)).kept_by(CacheRule::default())).into_iter().collect());
    for _ in 0..3 {
        assert_eq!(ask(at, "www.example.org.", RecordType::A).await, "A 192.0.2.7");
    }
    assert_eq!(questions.load(Ordering::Relaxed), 4);
    // Somebody else's certificate.
    for name in [Some("other.example"), None] {
        routes(Zone::new("", to(name)).into_iter().collect());
        assert_eq!(ask(at, "www.example.org.", RecordType::A).await, "ServFail");
    }
    assert!(Upstream::secure(address, config, Some("not a name")).is_none());
}

#[tokio::test]
async fn before_the_cluster_s_own() {
    let text = ".:53 {\n hosts {\n  10.0.0.9 web.default.svc.cluster.local db.example\n }\n template IN A tpl.example {\n  match \"^ip-([0-9]+)[.]tpl[.]example[.]$\"\n  answer \"{{ .Name }} 5 IN A 10.1.1.{{ index .Match 1 }}\"\n  fallthrough\n }\n template IN AAAA\n}";
    let corefile = Corefile::parse(text).expect("a Corefile");
    let records = Records::new("cluster.local");
    let own = || ServiceRecords::ClusterIp { addresses: vec!["10.96.0.7".parse().expect("an address"), "fd00::7".parse().expect("an address")], ports: vec![] };
    records.set_service("default", "web", own());
    records.set_service("default", "api", own());
    let server = Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], Arc::new(records), Upstreams::none()).await.expect("bind");
    let zone = &corefile.zones[0];
    let table = Zone::new(&zone.name, Upstreams::none()).map(|made| made.with_hosts(zone.hosts.iter().cloned(), None).hosts_falling(zone.hosts_fall_through, !zone.hosts_no_reverse).with_templates(&zone.templates));
    server.routes()(table.into_iter().collect());
    let at = server.addresses()[0];
    for (name, kind, expected) in [
        ("web.default.svc.cluster.local.", RecordType::A, "A 10.0.0.9"),
        ("api.default.svc.cluster.local.", RecordType::A, "A 10.96.0.7"),
        ("api.default.svc.cluster.local.", RecordType::AAAA, ""),
        ("db.example.", RecordType::A, "A 10.0.0.9"),
        ("9.0.0.10.in-addr.arpa.", RecordType::PTR, "PTR web.default.svc.cluster.local., PTR db.example."),
        ("ip-44.tpl.example.", RecordType::A, "A 10.1.1.44"),
        // In no list, and nobody else is to be asked.
        ("other.example.", RecordType::A, "ServFail"),
    ] {
        assert_eq!(ask(at, name, kind).await, expected, "{name} {kind}");
    }
}
