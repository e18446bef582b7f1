//! The server over real sockets, judged by another implementation's reading of the messages (hickory-proto).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use dns::{HeadlessEndpoint, Port, Protocol, Records, Server, ServiceRecords, Upstreams};
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// However busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
const ZONE: &str = "cluster.local";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("address {text}"))
}

fn port(name: &str, protocol: Protocol, port: u16) -> Port {
    Port { name: name.into(), protocol, port }
}

fn endpoint(address: &str, hostname: Option<&str>) -> HeadlessEndpoint {
    HeadlessEndpoint { address: ip(address), hostname: hostname.map(str::to_owned), ports: vec![port("peer", Protocol::Tcp, 7000)] }
}

fn records() -> Arc<Records> {
    let records = Records::new(ZONE);
    records.set_servers(vec![ip("10.96.0.10")]);
    let addresses = vec![ip("10.96.0.7"), ip("fd00:10:96::7")];
    let ports = vec![port("http", Protocol::Tcp, 80), port("", Protocol::Udp, 53)];
    records.set_service("default", "web", ServiceRecords::ClusterIp { addresses, ports });
    let endpoints = vec![endpoint("10.244.0.5", Some("db-0")), endpoint("10.244.0.6", Some("db-1")), endpoint("fd00:10:244::7", None)];
    records.set_service("default", "db", ServiceRecords::Headless { endpoints });
    records.set_service("default", "none", ServiceRecords::Headless { endpoints: vec![] });
    records.set_service("default", "alias", ServiceRecords::ExternalName { name: "web.default.svc.cluster.local".into() });
    records.set_service("default", "loop", ServiceRecords::ExternalName { name: "loop.default.svc.cluster.local".into() });
    Arc::new(records)
}

async fn start(records: Arc<Records>, upstreams: Upstreams) -> Server {
    Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], records, upstreams).await.expect("bind")
}

fn message(name: &str, kind: RecordType, edns: bool) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    // Relative names keep their case; from_str does not fold it.
    message.add_query(Query::query(Name::from_str(name).expect("name"), kind));
    if edns {
        message.set_edns(Edns::new());
    }
    message
}

async fn udp(server: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.connect(server).await.expect("connect");
    socket.send(&question.to_vec().expect("encode")).await.expect("send");
    let mut buffer = vec![0; 65_535];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("in time").expect("receive");
    let answer = Message::from_vec(&buffer[..length]).expect("decode");
    assert_eq!(answer.metadata.id, question.metadata.id);
    assert_eq!(answer.queries, question.queries);
    answer
}

async fn tcp(server: SocketAddr, question: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.expect("connect");
    let bytes = question.to_vec().expect("encode");
    stream.write_all(&(bytes.len() as u16).to_be_bytes()).await.expect("write");
    stream.write_all(&bytes).await.expect("write");
    let mut answer = vec![0; usize::from(stream.read_u16().await.expect("read"))];
    stream.read_exact(&mut answer).await.expect("read");
    Message::from_vec(&answer).expect("decode")
}

/// Code, then the answers sorted.
fn show(answer: &Message) -> String {
    let mut lines: Vec<String> = answer.answers.iter().map(|r| format!("{} {}", r.record_type(), r.data)).collect();
    lines.sort();
    format!("{:?} {}", answer.metadata.response_code, lines.join(", ")).trim().to_owned()
}

#[tokio::test]
async fn names_of_the_cluster() {
    let server = start(records(), Upstreams::none()).await;
    let address = server.addresses()[0];
    let cases = [
        ("web.default.svc.cluster.local.", RecordType::A, "NoError A 10.96.0.7"),
        ("WEB.Default.SVC.cluster.LOCAL.", RecordType::A, "NoError A 10.96.0.7"),
        ("web.default.svc.cluster.local.", RecordType::AAAA, "NoError AAAA fd00:10:96::7"),
        ("web.default.svc.cluster.local.", RecordType::MX, "NoError"),
        ("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV, "NoError SRV 0 100 80 web.default.svc.cluster.local."),
        ("_http._tcp.web.default.svc.cluster.local.", RecordType::A, "NoError"),
        ("_http._udp.web.default.svc.cluster.local.", RecordType::SRV, "NXDomain"),
        ("_tcp.web.default.svc.cluster.local.", RecordType::A, "NoError"),
        ("db.default.svc.cluster.local.", RecordType::A, "NoError A 10.244.0.5, A 10.244.0.6"),
        ("db-1.db.default.svc.cluster.local.", RecordType::A, "NoError A 10.244.0.6"),
        ("fd00-10-244--7.db.default.svc.cluster.local.", RecordType::AAAA, "NoError AAAA fd00:10:244::7"),
        ("db-9.db.default.svc.cluster.local.", RecordType::A, "NXDomain"),
        ("none.default.svc.cluster.local.", RecordType::A, "NXDomain"),
        (
            "_peer._tcp.db.default.svc.cluster.local.",
            RecordType::SRV,
            "NoError SRV 0 33 7000 db-0.db.default.svc.cluster.local., SRV 0 33 7000 db-1.db.default.svc.cluster.local., SRV 0 33 7000 fd00-10-244--7.db.default.svc.cluster.local.",
        ),
        ("alias.default.svc.cluster.local.", RecordType::A, "NoError A 10.96.0.7, CNAME web.default.svc.cluster.local."),
        ("alias.default.svc.cluster.local.", RecordType::CNAME, "NoError CNAME web.default.svc.cluster.local."),
        ("10-244-0-9.default.pod.cluster.local.", RecordType::A, "NoError A 10.244.0.9"),
        ("fd00--9.default.pod.cluster.local.", RecordType::AAAA, "NoError AAAA fd00::9"),
        ("web.default.pod.cluster.local.", RecordType::A, "NXDomain"),
        ("dns-version.cluster.local.", RecordType::TXT, "NoError TXT 1.1.0"),
        ("ns.dns.cluster.local.", RecordType::A, "NoError A 10.96.0.10"),
        ("cluster.local.", RecordType::NS, "NoError NS ns.dns.cluster.local."),
        ("default.svc.cluster.local.", RecordType::A, "NoError"),
        ("other.svc.cluster.local.", RecordType::A, "NXDomain"),
        ("web.cluster.local.", RecordType::A, "NXDomain"),
        ("google.com.default.svc.cluster.local.", RecordType::A, "NXDomain"),
        ("7.0.96.10.in-addr.arpa.", RecordType::PTR, "NoError PTR web.default.svc.cluster.local."),
        ("5.0.244.10.in-addr.arpa.", RecordType::PTR, "NoError PTR db-0.db.default.svc.cluster.local."),
        ("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.", RecordType::PTR, "NoError PTR web.default.svc.cluster.local."),
        ("9.9.9.9.in-addr.arpa.", RecordType::PTR, "ServFail"),
        ("www.example.com.", RecordType::A, "ServFail"),
        ("redis.", RecordType::A, "NXDomain"),
    ];
    for (name, kind, expected) in cases {
        for edns in [false, true] {
            let answer = udp(address, &message(name, kind, edns)).await;
            assert_eq!(show(&answer), expected, "{name} {kind}");
            assert_eq!(answer.edns.is_some(), edns, "{name}");
            if name.to_lowercase().ends_with("cluster.local.") {
                assert!(answer.metadata.authoritative, "{name}");
                assert!(answer.answers.iter().all(|r| r.ttl == 5), "{name}");
                // Negative answers say how long they may be kept.
                let soa = answer.authorities.iter().any(|r| r.record_type() == RecordType::SOA && r.ttl <= 5);
                assert_eq!(soa, answer.answers.is_empty(), "{name}");
            }
            assert_eq!(show(&tcp(address, &message(name, kind, edns)).await), expected, "{name} over TCP");
        }
    }
    let looped = udp(address, &message("loop.default.svc.cluster.local.", RecordType::A, false)).await;
    assert!(show(&looped).starts_with("ServFail"));
}

#[tokio::test]
async fn names_come_and_go() {
    let records = records();
    let server = start(records.clone(), Upstreams::none()).await;
    let ask = async |name: &str, kind| show(&udp(server.addresses()[0], &message(name, kind, false)).await);
    assert_eq!(ask("new.other.svc.cluster.local.", RecordType::A).await, "NXDomain");
    let cluster_ip = |address| ServiceRecords::ClusterIp { addresses: vec![ip(address)], ports: vec![] };
    records.set_service("other", "new", cluster_ip("10.96.0.99"));
    assert_eq!(ask("new.other.svc.cluster.local.", RecordType::A).await, "NoError A 10.96.0.99");
    assert_eq!(ask("99.0.96.10.in-addr.arpa.", RecordType::PTR).await, "NoError PTR new.other.svc.cluster.local.");
    records.set_service("other", "new", cluster_ip("10.96.0.98"));
    assert_eq!(ask("new.other.svc.cluster.local.", RecordType::A).await, "NoError A 10.96.0.98");
    assert_eq!(ask("99.0.96.10.in-addr.arpa.", RecordType::PTR).await, "ServFail");
    records.remove_service("other", "new");
    assert_eq!(ask("new.other.svc.cluster.local.", RecordType::A).await, "NXDomain");
    assert_eq!(ask("other.svc.cluster.local.", RecordType::A).await, "NXDomain");
}

#[tokio::test]
async fn lists_are_turned_and_cut() {
    let records = Records::new(ZONE);
    let endpoints = (0..100).map(|i| endpoint(&format!("10.244.1.{i}"), None)).collect();
    records.set_service("default", "many", ServiceRecords::Headless { endpoints });
    let server = start(Arc::new(records), Upstreams::none()).await;
    let address = server.addresses()[0];
    let question = message("many.default.svc.cluster.local.", RecordType::A, false);
    let cut = udp(address, &question).await;
    assert!(cut.metadata.truncation);
    assert!(cut.to_vec().expect("encode").len() <= 512);
    let whole = tcp(address, &question).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 100);
    let mut firsts = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let answer = udp(address, &message("many.default.svc.cluster.local.", RecordType::A, true)).await;
        firsts.insert(answer.answers[0].data.to_string());
    }
    assert!(firsts.len() > 1, "askers spread over the endpoints");
}

/// Stands for the world: names `*.default.svc.test`.
async fn world() -> (Server, SocketAddr) {
    let records = Records::new("test");
    let cluster_ip = |address| ServiceRecords::ClusterIp { addresses: vec![ip(address)], ports: vec![] };
    records.set_service("default", "www", cluster_ip("192.0.2.80"));
    let endpoints = (0..100).map(|i| endpoint(&format!("192.0.2.{i}"), None)).collect();
    records.set_service("default", "big", ServiceRecords::Headless { endpoints });
    let server = start(Arc::new(records), Upstreams::none()).await;
    let address = server.addresses()[0];
    (server, address)
}

#[tokio::test]
async fn the_rest_is_forwarded_and_kept_for_a_while() {
    let (upstream, upstream_address) = world().await;
    // The first upstream is dead.
    let dead = UdpSocket::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address");
    let records = records();
    records.set_service("default", "world", ServiceRecords::ExternalName { name: "www.default.svc.test".into() });
    let server = start(records, Upstreams::fixed(vec![dead, upstream_address])).await;
    let address = server.addresses()[0];
    let www = message("wWw.default.svc.test.", RecordType::A, false);
    assert_eq!(show(&udp(address, &www).await), "NoError A 192.0.2.80");
    let alias = udp(address, &message("world.default.svc.cluster.local.", RecordType::A, true)).await;
    assert_eq!(show(&alias), "NoError A 192.0.2.80, CNAME www.default.svc.test.");
    let big = message("big.default.svc.test.", RecordType::A, false);
    assert!(udp(address, &big).await.metadata.truncation);
    assert_eq!(tcp(address, &big).await.answers.len(), 100);
    assert_eq!(show(&udp(address, &message("gone.default.svc.test.", RecordType::A, false)).await), "NXDomain");

    // The upstream goes away: what was asked before is still known, with less time left, to askers of any spelling.
    drop(upstream);
    let kept = udp(address, &message("www.DEFAULT.svc.test.", RecordType::A, false)).await;
    assert_eq!(show(&kept), "NoError A 192.0.2.80");
    assert!(kept.answers[0].ttl <= 5);
    assert_eq!(show(&udp(address, &message("gone.default.svc.test.", RecordType::A, false)).await), "NXDomain");
    assert_eq!(show(&udp(address, &message("other.default.svc.test.", RecordType::A, false)).await), "ServFail");
}

#[tokio::test]
async fn an_edited_resolv_conf_counts_at_once() {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "nameserver 127.0.0.1\n").expect("write");
    // Our own address is left out: there is no upstream, and no loop.
    let own = IpAddr::from(Ipv4Addr::LOCALHOST);
    let server = start(records(), Upstreams::resolv_conf(file.path(), vec![own])).await;
    let question = message("www.example.com.", RecordType::A, false);
    assert_eq!(show(&udp(server.addresses()[0], &question).await), "ServFail");
    // 127.0.0.9:53 refuses, which is told apart from having none only by being asked; both are SERVFAIL, at once.
    std::fs::write(file.path(), "nameserver 127.0.0.9\noptions ndots:1\n").expect("write");
    let answer = udp(server.addresses()[0], &question).await;
    assert_eq!(show(&answer), "ServFail");
}

#[tokio::test]
async fn nonsense_is_answered_with_an_error_or_not_at_all() {
    let server = start(records(), Upstreams::none()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.connect(server.addresses()[0]).await.expect("connect");
    let good = message("web.default.svc.cluster.local.", RecordType::A, true).to_vec().expect("encode");
    // Every cut and every flipped byte; then the server must still answer.
    for cut in 0..good.len() {
        socket.send(&good[..cut]).await.expect("send");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        socket.send(&bad).await.expect("send");
    }
    assert_eq!(show(&udp(server.addresses()[0], &message("web.default.svc.cluster.local.", RecordType::A, true)).await), "NoError A 10.96.0.7");
}

#[tokio::test]
async fn zones_go_where_the_corefile_says() {
    let (_upstream, upstream_address) = world().await;
    let server = start(records(), Upstreams::none()).await;
    let address = server.addresses()[0];
    let www = message("www.default.svc.test.", RecordType::A, false);
    assert_eq!(show(&udp(address, &www).await), "ServFail", "nobody to ask");
    let hosts = [("Printer.office.example".to_owned(), ip("192.0.2.9"))];
    let zone = |name: &str, to| dns::Zone::new(name, to).expect("zone");
    server.routes()(vec![zone("", Upstreams::none()).with_hosts(hosts, Some(60)), zone("svc.test.", Upstreams::fixed(vec![upstream_address]))]);
    for (name, kind, expected) in [
        ("www.default.svc.test.", RecordType::A, "NoError A 192.0.2.80"),
        ("PRINTER.office.example.", RecordType::A, "NoError A 192.0.2.9"),
        ("printer.office.example.", RecordType::AAAA, "NoError"),
        ("other.office.example.", RecordType::A, "ServFail"),
        // The cluster's own names are nobody else's.
        ("web.default.svc.cluster.local.", RecordType::A, "NoError A 10.96.0.7"),
    ] {
        assert_eq!(show(&udp(address, &message(name, kind, true)).await), expected, "{name} {kind}");
    }
    server.routes()(Vec::new());
    assert_eq!(show(&udp(address, &www).await), "ServFail", "not from what was kept for another");
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.expect("write");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    text
}

#[tokio::test]
async fn what_is_asked_is_counted_as_coredns_does() {
    let (_upstream, upstream_address) = world().await;
    let server = start(records(), Upstreams::fixed(vec![upstream_address])).await;
    let address = server.addresses()[0];
    for _ in 0..2 {
        udp(address, &message("web.default.svc.cluster.local.", RecordType::A, true)).await;
        udp(address, &message("www.default.svc.test.", RecordType::A, true)).await;
    }
    tcp(address, &message("gone.default.svc.cluster.local.", RecordType::AAAA, true)).await;
    let ready = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = ready.clone();
    let pages = dns::Pages { metrics: Box::new(server.metrics_text()), ready: Box::new(move || seen.load(std::sync::atomic::Ordering::Relaxed)) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let at = listener.local_addr().expect("address");
    tokio::spawn(dns::serve(listener, Arc::new(pages)));
    let text = get(at, "/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{text}");
    let zone = "server=\"dns://:53\",view=\"\",zone=\".\"";
    for line in [
        format!("coredns_dns_requests_total{{family=\"1\",proto=\"udp\",{zone},type=\"A\"}} 4"),
        format!("coredns_dns_requests_total{{family=\"1\",proto=\"tcp\",{zone},type=\"AAAA\"}} 1"),
        format!("coredns_dns_responses_total{{plugin=\"kubernetes\",rcode=\"NOERROR\",{zone}}} 2"),
        format!("coredns_dns_responses_total{{plugin=\"kubernetes\",rcode=\"NXDOMAIN\",{zone}}} 1"),
        format!("coredns_dns_responses_total{{plugin=\"forward\",rcode=\"NOERROR\",{zone}}} 1"),
        format!("coredns_dns_responses_total{{plugin=\"cache\",rcode=\"NOERROR\",{zone}}} 1"),
        format!("coredns_dns_request_duration_seconds_count{{{zone}}} 5"),
        "coredns_cache_hits_total{server=\"dns://:53\",type=\"success\",view=\"\",zones=\".\"} 1".to_owned(),
        "coredns_cache_entries{server=\"dns://:53\",type=\"success\",view=\"\",zones=\".\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|written| written == line), "{line}\nnot in\n{text}");
    }
    assert!(get(at, "/health").await.ends_with("\r\n\r\nOK"));
    assert!(get(at, "/ready").await.starts_with("HTTP/1.1 503"));
    ready.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(get(at, "/ready").await.starts_with("HTTP/1.1 200"));
    assert!(get(at, "/other").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn names_that_stand_for_others() {
    let (_upstream, upstream_address) = world().await;
    let server = start(records(), Upstreams::none()).await;
    let address = server.addresses()[0];
    let corefile = dns::Corefile::parse(". {\n rewrite name suffix .shop.example .default.svc.cluster.local\n rewrite name regex ^(.*)\\.far\\.example\\.$ {1}.default.svc.test answer auto\n}").expect("a Corefile");
    let zone = dns::Zone::new("", Upstreams::fixed(vec![upstream_address])).expect("zone");
    server.routes()(vec![zone.with_rewrites(&corefile.zones[0].rewrites)]);
    for (name, kind, expected) in [
        ("web.shop.example.", RecordType::A, "NoError A 10.96.0.7"),
        ("WEB.shop.example.", RecordType::AAAA, "NoError AAAA fd00:10:96::7"),
        ("www.far.example.", RecordType::A, "NoError A 192.0.2.80"),
        ("no.far.example.", RecordType::A, "NXDomain"),
        ("no.shop.example.", RecordType::A, "NXDomain"),
        ("web.default.svc.cluster.local.", RecordType::A, "NoError A 10.96.0.7"),
    ] {
        let question = message(name, kind, true);
        let answer = udp(address, &question).await;
        assert_eq!(show(&answer), expected, "{name} {kind}");
        assert!(answer.answers.iter().all(|record| record.name == question.queries[0].name), "{name}: {answer:?}");
    }
}
