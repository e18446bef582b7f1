//! Services as packets meet them: from pods, the node and outside, both families, with and without endpoints.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use common::*;
use network::{Dataplane, DataplaneConfig, Endpoint, Protocol, ServicePort, ServicePortName};

const VIP4: &str = "10.96.0.50";
const VIP6: &str = "fd00:10:96::50";

fn name(text: &str) -> ServicePortName {
    ServicePortName { namespace: "default".into(), name: text.into(), port: String::new() }
}

fn dataplane() -> Dataplane {
    let config = DataplaneConfig {
        cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:10:244::/56")],
        service_cidrs: vec![net("10.96.0.0/12"), net("fd00:10:96::/112")],
    };
    Dataplane::open(config).expect("open dataplane")
}

fn service(protocol: Protocol, pods: &[&Pod]) -> ServicePort {
    ServicePort {
        protocol,
        port: 80,
        cluster_ips: vec![ip(VIP4), ip(VIP6)],
        endpoints: pods.iter().flat_map(|pod| pod.endpoints(8080)).collect(),
        ..Default::default()
    }
}

/// The servers that answer `ask`, over enough tries to see each of a few (missing one of two in 30 tries: 2 in 10^9).
fn servers(mut ask: impl FnMut() -> Result<Answer, ErrorKind>) -> BTreeSet<String> {
    (0..30).map(|_| ask().expect("an answer").server).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| n.to_string()).collect()
}

#[test]
fn cluster_ips() {
    alone(|| {
        let world = World::new();
        let (client, a, b) = (world.pod("client"), world.pod("a"), world.pod("b"));
        let mut dataplane = dataplane();
        let both = [(name("tcp"), service(Protocol::Tcp, &[&a, &b])), (name("udp"), service(Protocol::Udp, &[&a, &b]))];
        dataplane.sync(&BTreeMap::from(both)).expect("sync");
        for vip in [ip(VIP4), ip(VIP6)] {
            assert_eq!(servers(|| client.tcp(vip, 80)), set(&["a", "b"]));
            assert_eq!(servers(|| client.udp(vip, 80)), set(&["a", "b"]));
            assert_eq!(servers(|| tcp(vip, 80)), set(&["a", "b"]), "from the node, without any default route");
            assert_eq!(servers(|| udp(vip, 80)), set(&["a", "b"]));
        }
        let seen = client.tcp(ip(VIP4), 80).expect("an answer").client;
        assert_eq!(seen, client.v4, "a pod's address is kept");

        // One leaves: from then on only the other answers, and the rest of the Services did not change.
        dataplane.apply([(name("tcp"), Some(service(Protocol::Tcp, &[&b])))]).expect("apply");
        assert_eq!(servers(|| client.tcp(ip(VIP4), 80)), set(&["b"]));
        assert_eq!(servers(|| client.udp(ip(VIP6), 80)), set(&["a", "b"]));
        dataplane.apply([(name("tcp"), None)]).expect("apply");
        assert_eq!(client.tcp(ip(VIP4), 80), Err(ErrorKind::ConnectionRefused), "an unused port of the range");
        dataplane.reset().expect("reset");
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    alone(|| {
        let world = World::new();
        let a = world.pod("a");
        let mut dataplane = dataplane();
        let mut port = service(Protocol::Tcp, &[&a]);
        port.node_port = Some(30001);
        dataplane.sync(&BTreeMap::from([(name("tcp"), port), (name("udp"), service(Protocol::Udp, &[&a]))])).expect("sync");
        for (vip, gateway) in [(ip(VIP4), ip("10.244.0.1")), (ip(VIP6), ip("fd00:10:244::1"))] {
            assert_eq!(a.tcp(vip, 80).expect("an answer").server, "a");
            assert_eq!(a.udp(vip, 80).expect("an answer").server, "a");
            assert_eq!(a.tcp(gateway, 30001).expect("an answer").server, "a");
        }
    });
}

#[test]
fn node_ports() {
    alone(|| {
        let outside = Outside::new();
        let world = World::new();
        let (client, a, b) = (world.pod("client"), world.pod("a"), world.pod("b"));
        let mut dataplane = dataplane();
        let mut port = service(Protocol::Tcp, &[&a, &b]);
        port.node_port = Some(30001);
        dataplane.sync(&BTreeMap::from([(name("web"), port.clone())])).expect("sync");
        for node in [ip(NODE_V4), ip(NODE_V6)] {
            assert_eq!(servers(|| outside.tcp(node, 30001)), set(&["a", "b"]), "from outside");
            assert_eq!(servers(|| tcp(node, 30001)), set(&["a", "b"]), "from the node");
            assert_eq!(servers(|| client.tcp(node, 30001)), set(&["a", "b"]), "from a pod");
        }
        assert_eq!(servers(|| tcp(ip("127.0.0.1"), 30001)), set(&["a", "b"]), "from localhost");
        let seen = outside.tcp(ip(NODE_V4), 30001).expect("an answer").client;
        assert_ne!(seen, ip(OUTSIDE_V4), "the node stands in, so that the answer comes back through it");

        port.external_local = true;
        port.local_endpoints = port.endpoints.clone();
        dataplane.apply([(name("web"), Some(port.clone()))]).expect("apply");
        let seen = outside.tcp(ip(NODE_V4), 30001).expect("an answer").client;
        assert_eq!(seen, ip(OUTSIDE_V4), "externalTrafficPolicy Local keeps the source");
        assert_eq!(servers(|| tcp(ip("127.0.0.1"), 30001)), set(&["a", "b"]));

        port.external_ips = vec![ip("203.0.113.5")];
        port.endpoints.clear();
        port.local_endpoints.clear();
        dataplane.apply([(name("web"), Some(port))]).expect("apply");
        assert_eq!(outside.tcp(ip(NODE_V4), 30001), Err(ErrorKind::ConnectionRefused));
        assert_eq!(tcp(ip(NODE_V6), 30001), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn without_endpoints_it_is_refused_at_once() {
    alone(|| {
        let world = World::new();
        let client = world.pod("client");
        let mut dataplane = dataplane();
        dataplane.sync(&BTreeMap::from([(name("tcp"), service(Protocol::Tcp, &[])), (name("udp"), service(Protocol::Udp, &[]))])).expect("sync");
        for vip in [ip(VIP4), ip(VIP6)] {
            assert_eq!(client.tcp(vip, 80), Err(ErrorKind::ConnectionRefused));
            assert_eq!(client.udp(vip, 80), Err(ErrorKind::ConnectionRefused));
            assert_eq!(tcp(vip, 80), Err(ErrorKind::ConnectionRefused));
            // The kernel's word to a local sender whose datagram a filter refused.
            assert_eq!(udp(vip, 80), Err(ErrorKind::PermissionDenied));
        }
        // The first endpoint arrives.
        let a = world.pod("a");
        dataplane.apply([(name("tcp"), Some(service(Protocol::Tcp, &[&a])))]).expect("apply");
        assert_eq!(client.tcp(ip(VIP4), 80).expect("an answer").server, "a");
    });
}

#[test]
fn session_affinity() {
    alone(|| {
        let world = World::new();
        let (client, a, b) = (world.pod("client"), world.pod("a"), world.pod("b"));
        let mut dataplane = dataplane();
        let mut port = service(Protocol::Tcp, &[&a, &b]);
        port.session_affinity = Some(60);
        port.node_port = Some(30001);
        dataplane.sync(&BTreeMap::from([(name("web"), port.clone())])).expect("sync");
        for (vip, gateway) in [(ip(VIP4), ip("10.244.0.1")), (ip(VIP6), ip("fd00:10:244::1"))] {
            let chosen = servers(|| client.tcp(vip, 80));
            assert_eq!(chosen.len(), 1);
            assert_eq!(servers(|| client.tcp(gateway, 30001)).len(), 1);
            // The chosen one leaves: the client is sent to the other.
            let (stays, other) = if chosen.contains("a") { (&b, "b") } else { (&a, "a") };
            port.endpoints = stays.endpoints(8080).to_vec();
            dataplane.apply([(name("web"), Some(port.clone()))]).expect("apply");
            assert_eq!(servers(|| client.tcp(vip, 80)), set(&[other]));
            assert_eq!(servers(|| client.tcp(gateway, 30001)), set(&[other]), "the same by either way in");
            // It comes back: the client stays.
            port.endpoints = [a.endpoints(8080), b.endpoints(8080)].concat();
            dataplane.apply([(name("web"), Some(port.clone()))]).expect("apply");
            assert_eq!(servers(|| client.tcp(vip, 80)), set(&[other]));
        }
        // What we program, Debian's nft can show.
        let listing = std::process::Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
        let text = String::from_utf8_lossy(&listing.stdout);
        assert!(listing.status.success() && text.contains("goto sticky-"), "{text}");

        port.session_affinity = None;
        dataplane.apply([(name("web"), Some(port.clone()))]).expect("apply");
        assert_eq!(servers(|| client.tcp(ip(VIP4), 80)), set(&["a", "b"]));
        port.session_affinity = Some(5);
        dataplane.apply([(name("web"), Some(port))]).expect("apply");
        dataplane.apply([(name("web"), None)]).expect("apply");
        let listing = std::process::Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
        let text = String::from_utf8_lossy(&listing.stdout);
        assert!(listing.status.success() && !text.contains("sticky-") && !text.contains("clients-"), "{text}");
    });
}

#[test]
fn udp_clients_leave_an_endpoint_that_is_gone() {
    alone(|| {
        let world = World::new();
        let (a, b) = (world.pod("a"), world.pod("b"));
        let mut dataplane = dataplane();
        dataplane.sync(&BTreeMap::from([(name("dns"), service(Protocol::Udp, &[&a]))])).expect("sync");
        for vip in [ip(VIP4), ip(VIP6)] {
            dataplane.apply([(name("dns"), Some(service(Protocol::Udp, &[&a])))]).expect("apply");
            // One socket, so one flow.
            let socket = udp_socket(vip, 80);
            assert_eq!(ask(&socket).expect("an answer").server, "a");
            dataplane.apply([(name("dns"), Some(service(Protocol::Udp, &[&b])))]).expect("apply");
            assert_eq!(ask(&socket).expect("an answer").server, "b");
        }
    });
}

#[test]
fn a_restart_and_a_flush_are_mended() {
    alone(|| {
        let world = World::new();
        let (client, a) = (world.pod("client"), world.pod("a"));
        let mut first = dataplane();
        let services = BTreeMap::from([(name("web"), service(Protocol::Tcp, &[&a])), (name("old"), ServicePort { port: 81, ..service(Protocol::Tcp, &[&a]) })]);
        first.sync(&services).expect("sync");
        drop(first);
        assert!(client.tcp(ip(VIP4), 80).is_ok(), "Services outlive the process");
        let mut second = dataplane();
        assert!(client.tcp(ip(VIP4), 81).is_ok());
        second.sync(&BTreeMap::from([(name("web"), service(Protocol::Tcp, &[&a]))])).expect("sync");
        assert!(client.tcp(ip(VIP4), 80).is_ok());
        assert_eq!(client.tcp(ip(VIP4), 81), Err(ErrorKind::ConnectionRefused), "what went meanwhile is gone");

        run("nft delete table ip coracle");
        assert!(client.tcp(ip(VIP4), 80).is_err());
        second.apply([(name("new"), Some(ServicePort { port: 82, ..service(Protocol::Tcp, &[&a]) }))]).expect("apply");
        assert!(client.tcp(ip(VIP4), 80).is_ok());
        assert!(client.tcp(ip(VIP6), 82).is_ok());
    });
}

#[test]
fn two_services_with_the_same_external_address() {
    alone(|| {
        let world = World::new();
        let (a, b) = (world.pod("a"), world.pod("b"));
        let mut dataplane = dataplane();
        let external = ip("203.0.113.5");
        run("ip route add 203.0.113.0/24 dev coracle0");
        let of = |pod: &Pod, vip: &str| ServicePort { cluster_ips: vec![ip(vip)], external_ips: vec![external], ..service(Protocol::Tcp, &[pod]) };
        let one = (name("one"), of(&a, "10.96.0.1"));
        let two = (name("two"), of(&b, "10.96.0.2"));
        dataplane.sync(&BTreeMap::from([one, two])).expect("sync");
        assert_eq!(servers(|| tcp(external, 80)), set(&["a"]), "the first has it");
        dataplane.apply([(name("one"), None)]).expect("apply");
        assert_eq!(servers(|| tcp(external, 80)), set(&["b"]), "then the other");
    });
}

#[test]
fn a_cluster_ip_is_nobody_elses_external_address() {
    alone(|| {
        let world = World::new();
        let (a, b) = (world.pod("a"), world.pod("b"));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut dataplane = dataplane();
            let ask = |address: &str| servers(|| if protocol == Protocol::Tcp { tcp(ip(address), 80) } else { udp(ip(address), 80) });
            let of = |pod: &Pod, vip: &str, external: &str| ServicePort { cluster_ips: vec![ip(vip)], external_ips: vec![ip(external)], ..service(protocol, &[pod]) };
            // Each wants the other's.
            let one = (name("one"), of(&a, "10.96.0.1", "10.96.0.2"));
            let two = (name("two"), of(&b, "10.96.0.2", "10.96.0.1"));
            dataplane.apply([(one.0.clone(), Some(one.1.clone()))]).expect("apply");
            assert_eq!((ask("10.96.0.1"), ask("10.96.0.2")), (set(&["a"]), set(&["a"])), "while it is nobody's");
            dataplane.apply([(two.0.clone(), Some(two.1.clone()))]).expect("apply");
            assert_eq!((ask("10.96.0.1"), ask("10.96.0.2")), (set(&["a"]), set(&["b"])), "the cluster IP wins, also when it comes later");
            // All at once, as after a restart.
            let mut again = self::dataplane();
            again.sync(&BTreeMap::from([one, two])).expect("sync");
            assert_eq!((ask("10.96.0.1"), ask("10.96.0.2")), (set(&["a"]), set(&["b"])));
            again.apply([(name("two"), None)]).expect("apply");
            assert_eq!((ask("10.96.0.1"), ask("10.96.0.2")), (set(&["a"]), set(&["a"])), "free again");
            again.reset().expect("reset");
        }
    });
}

#[test]
fn ten_thousand_services_fit() {
    alone(|| {
        let mut dataplane = dataplane();
        let services: BTreeMap<_, _> = (0..10_000u32).map(|i| many(i, 2)).collect();
        dataplane.sync(&services).expect("sync");
        dataplane.apply([many(77, 3)].map(|(name, port)| (name, Some(port)))).expect("apply");
    });
}

fn many(i: u32, endpoints: u32) -> (ServicePortName, ServicePort) {
    let address = |base: u32, i: u32| std::net::Ipv4Addr::from_bits(base + i).into();
    let endpoint = |e| Endpoint { address: address(0x0af4_0000, i * 4 + e), port: 8080, local: false };
    let port = ServicePort { port: 80, cluster_ips: vec![address(0x0a60_0000, i)], endpoints: (0..endpoints).map(endpoint).collect(), ..Default::default() };
    (name(&format!("service-{i}")), port)
}
