//! Pods on two nodes: on one link, and with a router in between; packets as large as the pods' links carry; and what is left when a node goes.

mod common;

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;

use common::*;
use network::{Dataplane, DataplaneConfig, Endpoint, Peer, PodNet, PodNetConfig, Protocol, ServicePort, ServicePortName, netns};

/// A node with a namespace, a pod network, and one pod that answers.
struct Node {
    namespace: File,
    dir: tempfile::TempDir,
    pods: PodNet,
    pod: Pod,
    peer: Peer,
}

/// The address of a machine on a link, with its prefix.
type At<'a> = [&'a str; 2];

fn lines(namespace: &File, lines: &[String]) {
    netns::run_in(namespace, || lines.iter().for_each(|line| run(line))).expect("enter");
}

/// Links two namespaces by a veth pair and gives its ends these addresses.
fn wire(near: &File, far: &File, names: [&str; 2], addresses: [At<'_>; 2]) {
    lines(near, &[format!("ip link add {} type veth peer name {} netns {}", names[0], names[1], path_of(far).display())]);
    for (namespace, name, [v4, v6]) in [(near, names[0], addresses[0]), (far, names[1], addresses[1])] {
        lines(namespace, &[format!("ip addr add {v4} dev {name}"), format!("ip addr add {v6} dev {name} nodad"), format!("ip link set {name} up")]);
    }
}

fn namespace() -> File {
    let namespace = netns::create().expect("create network namespace");
    // Without looking for duplicates first: a link's own address is there as soon as the link is, and neighbours can be asked for.
    lines(&namespace, &["ip link set lo up".to_owned(), "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0".to_owned()]);
    namespace
}

fn open(dir: &tempfile::TempDir, number: u8) -> PodNet {
    let cidrs = vec![net(&format!("10.244.{number}.0/24")), net(&format!("fd00:10:244:{number}::/64"))];
    let mut config = PodNetConfig::new(cidrs, dir.path().join("network"));
    config.service_cidrs = vec![net("10.96.0.0/12"), net("fd00:10:96::/112")];
    PodNet::open(config).expect("open pod network")
}

fn node(namespace: File, number: u8, addresses: &[&str]) -> Node {
    netns::run_in(&namespace, || {
        let dir = tempfile::tempdir().expect("tempdir");
        let pods = open(&dir, number);
        let name = format!("pod{number}");
        let pod_namespace = netns::create().expect("create network namespace");
        let of_pod = pods.attach(&name, &path_of(&pod_namespace), &[]).expect("attach");
        let pod = Pod { name, namespace: pod_namespace, v4: of_pod[0], v6: of_pod[1] };
        pod.serve(8080);
        let here = File::open("/proc/thread-self/ns/net").expect("own namespace");
        serve_in(&here, &format!("node{number}"), 9000);
        let peer = Peer {
            name: format!("node{number}"),
            addresses: addresses.iter().map(|text| ip(text)).collect(),
            pod_cidrs: vec![net(&format!("10.244.{number}.0/24")), net(&format!("fd00:10:244:{number}::/64"))],
        };
        Node { namespace: here, dir, pods, pod, peer }
    })
    .expect("enter")
}

impl Node {
    fn set_peers(&self, peers: &[&Node]) {
        let peers: Vec<Peer> = peers.iter().map(|node| node.peer.clone()).collect();
        let wanted = netns::run_in(&self.namespace, || self.pods.set_peers(&peers)).expect("enter").expect("set peers");
        assert_eq!(wanted.left_out, []);
    }

    fn show(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let run = || Command::new(words.next().expect("command")).args(words).output().expect(line);
        String::from_utf8_lossy(&netns::run_in(&self.namespace, run).expect("enter").stdout).into_owned()
    }

    fn tcp(&self, to: IpAddr, port: u16) -> Result<Answer, ErrorKind> {
        netns::run_in(&self.namespace, || tcp(to, port)).expect("enter")
    }
}

/// The largest answer the pod's link can carry, asked of and given by the peer without fragments.
fn large(from: &Pod, to: &Pod, mtu: usize) {
    for (address, headers) in [(to.v4, 28), (to.v6, 48)] {
        let any: IpAddr = if address.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
        let server = netns::run_in(&to.namespace, || UdpSocket::bind((any, 0)).expect("bind")).expect("enter");
        let port = server.local_addr().expect("address").port();
        let client = netns::run_in(&from.namespace, || UdpSocket::bind((any, 0)).expect("bind")).expect("enter");
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(TIMEOUT)).expect("timeout");
            never_fragment(socket, address.is_ipv4());
        }
        let data = vec![7; mtu - headers];
        client.send_to(&data, (address, port)).expect("send");
        let mut buffer = vec![0; 65_536];
        let (length, back) = server.recv_from(&mut buffer).expect("arrives");
        assert_eq!(length, data.len());
        server.send_to(&data, back).expect("answer");
        assert_eq!(client.recv(&mut buffer).expect("comes back"), data.len());
        assert!(client.send_to(&vec![7; mtu - headers + 1], (address, port)).is_err(), "one more byte does not fit the link");
    }
}

fn never_fragment(socket: &UdpSocket, ipv4: bool) {
    let (level, name) = if ipv4 { (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER) };
    let value: i32 = libc::IP_PMTUDISC_DO;
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of_val(&value) as u32) };
    assert_eq!(set, 0);
}

/// Everybody reaches everybody, by their own addresses.
fn all_reach_all(a: &Node, b: &Node) {
    let saw = |server: &str, client| Ok(Answer { server: server.into(), client });
    for (from, to) in [(a, b), (b, a)] {
        for (address, own, node) in [(to.pod.v4, from.pod.v4, to.peer.addresses[0]), (to.pod.v6, from.pod.v6, to.peer.addresses[1])] {
            assert_eq!(from.pod.tcp(address, 8080), saw(&to.pod.name, own), "pod to pod");
            assert_eq!(from.pod.udp(address, 8080), saw(&to.pod.name, own), "pod to pod");
            assert_eq!(from.pod.tcp(node, 9000), saw(&to.peer.name, own), "pod to the other node");
            let seen = from.tcp(address, 8080).expect("node to pod").client;
            let own_gateway = from.peer.pod_cidrs.iter().any(|net| net.gateway() == seen);
            assert!(own_gateway || from.peer.addresses.contains(&seen), "the node is seen by an address of its own, not {seen}");
        }
    }
}

#[test]
fn on_one_link() {
    let (near, far) = (namespace(), namespace());
    wire(&near, &far, ["eth0", "eth0"], [["192.0.2.1/24", "2001:db8:1::1/64"], ["192.0.2.2/24", "2001:db8:1::2/64"]]);
    let (a, b) = (node(near, 0, &["192.0.2.1", "2001:db8:1::1"]), node(far, 1, &["192.0.2.2", "2001:db8:1::2"]));
    a.set_peers(&[&b]);
    b.set_peers(&[&a]);
    all_reach_all(&a, &b);
    large(&a.pod, &b.pod, 1500);
    assert!(a.show("ip route show proto 68").contains("10.244.1.0/24 via 192.0.2.2 dev eth0"));
    assert!(!a.show("ip link").contains("coracle-vx"), "no tunnel where none is needed");
    // A node goes: so does what led to it.
    a.set_peers(&[]);
    assert_eq!(a.show("ip route show proto 68") + &a.show("ip -6 route show proto 68"), "");
    assert!(a.pod.tcp(b.pod.v4, 8080).is_err());
}

/// Two nodes with a router in between.
fn routed() -> (Node, Node, File) {
    let (near, far, router) = (namespace(), namespace(), namespace());
    wire(&near, &router, ["eth0", "near"], [["192.0.2.1/24", "2001:db8:1::1/64"], ["192.0.2.254/24", "2001:db8:1::fe/64"]]);
    wire(&far, &router, ["eth0", "far"], [["198.51.100.1/24", "2001:db8:2::1/64"], ["198.51.100.254/24", "2001:db8:2::fe/64"]]);
    lines(&router, &["sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1".to_owned()]);
    lines(&near, &["ip route add default via 192.0.2.254".to_owned(), "ip route add default via 2001:db8:1::fe".to_owned()]);
    lines(&far, &["ip route add default via 198.51.100.254".to_owned(), "ip route add default via 2001:db8:2::fe".to_owned()]);
    let (a, b) = (node(near, 0, &["192.0.2.1", "2001:db8:1::1"]), node(far, 1, &["198.51.100.1", "2001:db8:2::1"]));
    (a, b, router)
}

#[test]
fn behind_a_router() {
    let (a, b, _router) = routed();
    a.set_peers(&[&b]);
    b.set_peers(&[&a]);
    all_reach_all(&a, &b);
    assert_eq!((a.pods.mtu(), b.pods.mtu()), (1450, 1450));
    // Pods of now have links that fit the tunnel.
    let pod = |node: &Node| {
        let namespace = netns::create().expect("create network namespace");
        let addresses = netns::run_in(&node.namespace, || node.pods.attach("large", &path_of(&namespace), &[]).expect("attach")).expect("enter");
        Pod { name: "large".into(), namespace, v4: addresses[0], v6: addresses[1] }
    };
    large(&pod(&a), &pod(&b), 1450);

    // A Service whose endpoint is on the other node.
    let service = ServicePort {
        protocol: Protocol::Tcp,
        port: 80,
        cluster_ips: vec![ip("10.96.0.50"), ip("fd00:10:96::50")],
        endpoints: [b.pod.v4, b.pod.v6].map(|address| Endpoint { address, port: 8080, local: false }).to_vec(),
        ..Default::default()
    };
    let config = DataplaneConfig { cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:10:244::/56")], service_cidrs: vec![net("10.96.0.0/12"), net("fd00:10:96::/112")] };
    let mut dataplane = netns::run_in(&a.namespace, || Dataplane::open(config)).expect("enter").expect("open dataplane");
    dataplane.apply([(ServicePortName { namespace: "default".into(), name: "web".into(), port: String::new() }, Some(service))]).expect("apply");
    for (vip, own) in [("10.96.0.50", a.pod.v4), ("fd00:10:96::50", a.pod.v6)] {
        assert_eq!(a.pod.tcp(ip(vip), 80), Ok(Answer { server: "pod1".into(), client: own }), "pod to Service");
        assert_eq!(a.tcp(ip(vip), 80).expect("node to Service").server, "pod1");
    }
    // All of it again changes nothing; then a node goes, and the tunnel with the last of them.
    let listing = |node: &Node| ["ip route show table all proto 68", "ip -6 route show table all proto 68", "ip rule", "bridge fdb show dev coracle-vx4", "ip -d link show dev coracle-vx4"].map(|line| node.show(line));
    let before = listing(&a);
    a.set_peers(&[&b]);
    assert_eq!(listing(&a), before);
    a.set_peers(&[]);
    let after = listing(&a);
    assert_eq!((after[0].as_str(), after[1].as_str()), ("", ""));
    assert!(!after[2].contains("lookup 67") && !a.show("ip -brief link").contains("coracle-vx"), "{after:?}");
}

/// Machines that have IPv6 alone: pods of both families reach each other through a tunnel over it.
#[test]
fn behind_a_router_of_ipv6_only() {
    let (near, far, router) = (namespace(), namespace(), namespace());
    for (machine, name, at, gateway) in [(&near, "near", "2001:db8:1::1", "2001:db8:1::fe"), (&far, "far", "2001:db8:2::1", "2001:db8:2::fe")] {
        lines(machine, &[format!("ip link add eth0 type veth peer name {name} netns {}", path_of(&router).display()), format!("ip addr add {at}/64 dev eth0 nodad"), "ip link set eth0 up".to_owned()]);
        lines(&router, &[format!("ip addr add {gateway}/64 dev {name} nodad"), format!("ip link set {name} up")]);
        lines(machine, &[format!("ip route add default via {gateway}")]);
    }
    lines(&router, &["sysctl -qw net.ipv6.conf.all.forwarding=1".to_owned()]);
    let (a, b) = (node(near, 0, &["2001:db8:1::1"]), node(far, 1, &["2001:db8:2::1"]));
    a.set_peers(&[&b]);
    b.set_peers(&[&a]);
    assert!(a.show("ip -brief link").contains("coracle-vx6") && !a.show("ip -brief link").contains("coracle-vx4"));
    assert_eq!((a.pods.mtu(), b.pods.mtu()), (1430, 1430));
    for (from, to) in [(&a, &b), (&b, &a)] {
        for (address, own) in [(to.pod.v4, from.pod.v4), (to.pod.v6, from.pod.v6)] {
            assert_eq!(from.pod.tcp(address, 8080), Ok(Answer { server: to.pod.name.clone(), client: own }), "pod to pod");
            assert!(from.tcp(address, 8080).is_ok(), "node to pod");
        }
        assert_eq!(from.pod.tcp(to.peer.addresses[0], 9000), Ok(Answer { server: to.peer.name.clone(), client: from.pod.v6 }), "pod to the other node");
    }
    let pod = |node: &Node| {
        let namespace = netns::create().expect("create network namespace");
        let addresses = netns::run_in(&node.namespace, || node.pods.attach("large", &path_of(&namespace), &[]).expect("attach")).expect("enter");
        Pod { name: "large".into(), namespace, v4: addresses[0], v6: addresses[1] }
    };
    large(&pod(&a), &pod(&b), 1430);
}

#[test]
fn a_restart_and_a_reset() {
    let (a, b, _router) = routed();
    a.set_peers(&[&b]);
    b.set_peers(&[&a]);
    let Node { namespace, dir, pods, pod, .. } = a;
    drop(pods);
    assert!(pod.tcp(b.pod.v4, 8080).is_ok(), "routes outlive the process");
    netns::run_in(&namespace, || {
        let pods = open(&dir, 0);
        pods.set_peers(std::slice::from_ref(&b.peer)).expect("set peers");
        assert!(pod.tcp(b.pod.v4, 8080).is_ok());
        pods.reset().expect("reset");
        let shown = ["ip route show table all proto 68", "ip -6 route show table all proto 68", "ip -brief link", "ip rule"].map(|line| {
            let mut words = line.split_whitespace();
            String::from_utf8_lossy(&Command::new(words.next().expect("command")).args(words).output().expect(line).stdout).into_owned()
        });
        assert_eq!((shown[0].as_str(), shown[1].as_str()), ("", ""));
        assert!(!shown[2].contains("coracle") && !shown[3].contains("lookup 67"), "{shown:?}");
    })
    .expect("enter");
}
