//! Who may go where: traffic policies, source ranges, and what becomes of packets that find nobody. Real packets, both families.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use common::*;
use network::{Dataplane, DataplaneConfig, Endpoint, Protocol, ServicePort, ServicePortName, netns};
use std::net::IpAddr;

const VIP4: &str = "10.96.0.50";
const VIP6: &str = "fd00:10:96::50";
const BALANCER4: &str = "203.0.113.5";
const BALANCER6: &str = "2001:db8:1::5";

fn name() -> ServicePortName {
    ServicePortName { namespace: "default".into(), name: "web".into(), port: String::new() }
}

fn dataplane() -> Dataplane {
    let config = DataplaneConfig {
        cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:10:244::/56")],
        service_cidrs: vec![net("10.96.0.0/12"), net("fd00:10:96::/112")],
    };
    Dataplane::open(config).expect("open dataplane")
}

/// A Service of type LoadBalancer on port 80 and node port 30001.
fn service(here: &[&Pod], elsewhere: &[&Pod]) -> ServicePort {
    let local_endpoints: Vec<Endpoint> = here.iter().flat_map(|pod| pod.endpoints(8080)).collect();
    let remote = elsewhere.iter().flat_map(|pod| pod.endpoints(8080)).map(|endpoint| Endpoint { local: false, ..endpoint });
    ServicePort {
        port: 80,
        cluster_ips: vec![ip(VIP4), ip(VIP6)],
        load_balancer_ips: vec![ip(BALANCER4), ip(BALANCER6)],
        node_port: Some(30001),
        endpoints: local_endpoints.iter().copied().chain(remote).collect(),
        local_endpoints,
        ..Default::default()
    }
}

fn apply(dataplane: &mut Dataplane, port: &ServicePort) {
    dataplane.apply([(name(), Some(port.clone()))]).expect("apply");
}

/// Nobody says anything. Where somebody would, a slow machine does not make it pass: it would have to be slow at every try.
fn is_silent(to: IpAddr, port: u16) -> bool {
    const SHORT: Duration = Duration::from_millis(300);
    TcpStream::connect_timeout(&(to, port).into(), SHORT).map_err(|e| e.kind()).err() == Some(ErrorKind::TimedOut)
}

fn servers(mut ask: impl FnMut() -> Result<Answer, ErrorKind>) -> BTreeSet<String> {
    (0..30).map(|_| ask().expect("an answer").server).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| n.to_string()).collect()
}

/// The way from outside to the load balancer's addresses is this node.
fn outside() -> Outside {
    let outside = Outside::new();
    netns::run_in(&outside.namespace, || {
        run(&format!("ip route add {BALANCER4}/32 via {NODE_V4}"));
        run(&format!("ip -6 route add {BALANCER6}/128 via {NODE_V6}"));
    })
    .expect("enter");
    // The node has a way there, as with a default route.
    run(&format!("ip route add {BALANCER4}/32 via {OUTSIDE_V4}"));
    run(&format!("ip -6 route add {BALANCER6}/128 via {OUTSIDE_V6}"));
    outside
}

/// Each way in from outside.
const DOORS: [(&str, u16); 4] = [(NODE_V4, 30001), (NODE_V6, 30001), (BALANCER4, 80), (BALANCER6, 80)];

fn external_local(affinity: Option<u32>) {
    let outside = outside();
    let world = World::new();
    let (client, here, there) = (world.pod("client"), world.pod("here"), world.pod("there"));
    let mut dataplane = dataplane();
    let of = |local: &[&Pod], remote: &[&Pod]| ServicePort { external_local: true, session_affinity: affinity, ..service(local, remote) };
    let any = set(&["here", "there"]);
    let one = |found: BTreeSet<String>, all: &BTreeSet<String>| if affinity.is_some() { found.len() == 1 && found.is_subset(all) } else { found == *all };

    dataplane.sync(&BTreeMap::from([(name(), of(&[&here], &[&there]))])).expect("sync");
    for (door, port) in DOORS {
        let answer = outside.tcp(ip(door), port).expect("an answer");
        assert_eq!((answer.server.as_str(), answer.client), ("here", if ip(door).is_ipv4() { ip(OUTSIDE_V4) } else { ip(OUTSIDE_V6) }), "{door}: stays, and the source is kept");
        assert_eq!(servers(|| outside.tcp(ip(door), port)), set(&["here"]), "{door}");
        assert!(one(servers(|| client.tcp(ip(door), port)), &any), "{door}: a pod goes anywhere");
        let seen = client.tcp(ip(door), port).expect("an answer").client;
        assert!(seen == client.v4 || seen == client.v6, "{door}: a pod's address is kept");
        assert!(one(servers(|| tcp(ip(door), port)), &any), "{door}: the node itself goes anywhere");
    }

    // Nobody here: outside hears nothing, inside does not notice.
    apply(&mut dataplane, &of(&[], &[&there]));
    for (door, port) in DOORS {
        assert!(netns::run_in(&outside.namespace, || is_silent(ip(door), port)).expect("enter"), "{door}: dropped, not refused");
        assert_eq!(client.tcp(ip(door), port).expect("an answer").server, "there", "{door}");
        assert_eq!(tcp(ip(door), port).expect("an answer").server, "there", "{door}");
    }
    assert_eq!(client.tcp(ip(VIP4), 80).expect("an answer").server, "there");

    // Nobody anywhere: all are told.
    apply(&mut dataplane, &of(&[], &[]));
    for (door, port) in DOORS {
        assert_eq!(outside.tcp(ip(door), port), Err(ErrorKind::ConnectionRefused), "{door}");
        assert_eq!(client.tcp(ip(door), port), Err(ErrorKind::ConnectionRefused), "{door}");
        assert_eq!(tcp(ip(door), port), Err(ErrorKind::ConnectionRefused), "{door}");
    }
    apply(&mut dataplane, &of(&[&here], &[&there]));
    assert_eq!(outside.tcp(ip(NODE_V4), 30001).expect("an answer").server, "here");
}

#[test]
fn external_traffic_stays_here() {
    alone(|| external_local(None));
}

#[test]
fn external_traffic_stays_here_with_affinity() {
    alone(|| external_local(Some(60)));
}

#[test]
fn internal_traffic_stays_here() {
    alone(|| {
        let outside = outside();
        let world = World::new();
        let (client, here, there) = (world.pod("client"), world.pod("here"), world.pod("there"));
        let mut dataplane = dataplane();
        let of = |local: &[&Pod], remote: &[&Pod]| ServicePort { internal_local: true, ..service(local, remote) };
        dataplane.sync(&BTreeMap::from([(name(), of(&[&here], &[&there]))])).expect("sync");
        for vip in [ip(VIP4), ip(VIP6)] {
            assert_eq!(servers(|| client.tcp(vip, 80)), set(&["here"]));
            assert_eq!(servers(|| tcp(vip, 80)), set(&["here"]));
        }
        assert_eq!(servers(|| outside.tcp(ip(BALANCER4), 80)), set(&["here", "there"]), "only the cluster IPs");
        apply(&mut dataplane, &of(&[], &[&there]));
        for vip in [ip(VIP4), ip(VIP6)] {
            assert!(netns::run_in(&client.namespace, || is_silent(vip, 80)).expect("enter"));
            assert!(is_silent(vip, 80));
        }
        assert_eq!(outside.tcp(ip(NODE_V6), 30001).expect("an answer").server, "there");
    });
}

#[test]
fn source_ranges() {
    alone(|| {
        let outside = outside();
        let world = World::new();
        let here = world.pod("here");
        let mut dataplane = dataplane();
        let with = |ranges: &[&str]| ServicePort { source_ranges: ranges.iter().map(|range| net(range)).collect(), ..service(&[&here], &[]) };
        dataplane.sync(&BTreeMap::from([(name(), with(&["198.51.100.0/24", "2001:db8:7::/48"]))])).expect("sync");
        let silent = |door: &str, port| netns::run_in(&outside.namespace, || is_silent(ip(door), port)).expect("enter");
        assert!(silent(BALANCER4, 80) && silent(BALANCER6, 80), "in no range");
        assert!(outside.tcp(ip(NODE_V4), 30001).is_ok(), "node ports are open, as with kube-proxy");
        assert!(here.tcp(ip(VIP4), 80).is_ok());

        // A change is a change of the set.
        apply(&mut dataplane, &with(&["198.51.100.0/24", "192.0.2.0/25"]));
        assert!(outside.tcp(ip(BALANCER4), 80).is_ok(), "in the second range");
        assert!(outside.tcp(ip(BALANCER6), 80).is_ok(), "no range of this family is about nobody of it");
        let listing = std::process::Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
        let text = String::from_utf8_lossy(&listing.stdout);
        assert!(listing.status.success() && text.contains("goto firewall-") && text.contains("192.0.2.0/25"), "{text}");

        apply(&mut dataplane, &with(&[]));
        assert!(outside.tcp(ip(BALANCER6), 80).is_ok());
        let listing = std::process::Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
        let text = String::from_utf8_lossy(&listing.stdout);
        assert!(!text.contains("sources-") && !text.contains("firewall-"), "nothing is left that a packet passes: {text}");
        apply(&mut dataplane, &with(&["198.51.100.0/24"]));
        assert!(silent(BALANCER4, 80), "made again");
        dataplane.apply([(name(), None)]).expect("apply");
    });
}

#[test]
fn udp_flows_stay_while_their_endpoint_serves() {
    alone(|| {
        let world = World::new();
        let (a, b) = (world.pod("a"), world.pod("b"));
        let mut dataplane = dataplane();
        let of = |pods: &[&Pod]| ServicePort { protocol: Protocol::Udp, node_port: None, load_balancer_ips: Vec::new(), ..service(pods, &[]) };
        dataplane.sync(&BTreeMap::from([(name(), of(&[&a]))])).expect("sync");
        for vip in [ip(VIP4), ip(VIP6)] {
            apply(&mut dataplane, &of(&[&a]));
            let socket = udp_socket(vip, 80);
            assert_eq!(ask(&socket).expect("an answer").server, "a");
            // It ends, but still answers: old flows stay, new ones go elsewhere.
            apply(&mut dataplane, &ServicePort { draining: a.endpoints(8080).to_vec(), ..of(&[&b]) });
            assert_eq!(ask(&socket).expect("an answer").server, "a");
            assert_eq!(udp(vip, 80).expect("an answer").server, "b");
            apply(&mut dataplane, &of(&[&b]));
            assert_eq!(ask(&socket).expect("an answer").server, "b");
        }
    });
}
