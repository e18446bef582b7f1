//! What a pod gets: addresses, neighbours, the node, the world, host ports; and that nothing is left behind.

mod common;

use std::process::Command;

use common::*;
use network::{PodNet, PortMapping, Protocol, host_addresses, netns};

#[test]
fn pods_reach_each_other_the_node_and_the_world() {
    alone(|| {
        let outside = Outside::new();
        let world = World::new();
        let (a, b) = (world.pod("a"), world.pod("b"));
        let here = std::fs::File::open("/proc/thread-self/ns/net").expect("own namespace");
        serve_in(&here, "node", 9000);
        for (b_address, a_address, gateway, node, far, node_seen) in
            [(b.v4, a.v4, "10.244.0.1", NODE_V4, OUTSIDE_V4, NODE_V4), (b.v6, a.v6, "fd00:10:244::1", NODE_V6, OUTSIDE_V6, NODE_V6)]
        {
            let saw = |server: &str, client| Ok(Answer { server: server.into(), client });
            assert_eq!(a.tcp(b_address, 8080), saw("b", a_address), "pod to pod");
            assert_eq!(a.udp(b_address, 8080), saw("b", a_address), "pod to pod");
            assert_eq!(a.tcp(a_address, 8080), saw("a", a_address), "pod to itself");
            assert_eq!(a.tcp(ip(gateway), 9000), saw("node", a_address), "pod to gateway");
            assert_eq!(a.tcp(ip(node), 9000), saw("node", a_address), "pod to node");
            assert_eq!(tcp(b_address, 8080), saw("b", ip(gateway)), "node to pod");
            assert_eq!(a.tcp(ip(far), 8080), saw("outside", ip(node_seen)), "pod to the world");
        }
        // An address nobody has is refused at once, not lost.
        let unused = a.tcp(ip("10.244.0.200"), 80).expect_err("nobody there");
        assert_eq!(unused, std::io::ErrorKind::HostUnreachable);
        drop(outside);
    });
}

#[test]
fn host_ports() {
    alone(|| {
        let outside = Outside::new();
        let world = World::new();
        let port = |host_port, host_ip| PortMapping { protocol: Protocol::Tcp, container_port: 8080, host_port, host_ip };
        let ports = [port(8088, None), port(8089, Some(ip(NODE_V4)))];
        let a = world.pod_with("a", &ports);
        let b = world.pod("b");
        for node in [NODE_V4, NODE_V6] {
            assert_eq!(outside.tcp(ip(node), 8088).expect("from outside").server, "a");
            assert_eq!(b.tcp(ip(node), 8088).expect("from a pod").server, "a");
            assert_eq!(a.tcp(ip(node), 8088).expect("from itself").server, "a");
            assert_eq!(tcp(ip(node), 8088).expect("from the node").server, "a");
        }
        assert_eq!(tcp(ip("127.0.0.1"), 8088).expect("from localhost").server, "a");
        assert_eq!(outside.tcp(ip(NODE_V4), 8089).expect("on one address").server, "a");
        assert!(outside.tcp(ip(NODE_V6), 8089).is_err());

        // A restart keeps them, the end of the pod ends them.
        let World { pods, dir } = world;
        drop(pods);
        let pods = PodNet::open(config(&dir)).expect("open again");
        assert_eq!(outside.tcp(ip(NODE_V4), 8088).expect("after a restart").server, "a");
        pods.detach("a").expect("detach");
        assert!(outside.tcp(ip(NODE_V4), 8088).is_err());
        assert!(outside.tcp(ip(NODE_V4), 8089).is_err());
    });
}

#[test]
fn a_restart_keeps_pods_and_addresses() {
    alone(|| {
        let World { pods, dir } = World::new();
        let namespace = netns::create().expect("namespace");
        let first = pods.attach("a", &path_of(&namespace), &[]).expect("attach");
        drop(pods);
        let pods = PodNet::open(config(&dir)).expect("open again");
        serve_in(&namespace, "a", 8080);
        assert_eq!(tcp(first[0], 8080).expect("still linked").server, "a");
        assert_eq!(pods.addresses().get(&first[0]).map(String::as_str), Some("a"));
        assert_eq!(pods.attach("a", &path_of(&namespace), &[]).expect("attach again"), first);
        assert_eq!(tcp(first[1], 8080).expect("linked anew").server, "a");
        pods.detach("a").expect("detach");
        pods.detach("a").expect("detach again");
        assert!(pods.addresses().is_empty());
        pods.attach("gone", &path_of(&netns::create().expect("namespace")), &[]).expect("attach");
        pods.retain(|sandbox| sandbox != "gone").expect("retain");
        assert!(pods.addresses().is_empty());
        let next = pods.attach("b", &path_of(&namespace), &[]).expect("attach");
        assert_ne!(next, first, "a freed address is not given again at once");
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    alone(|| {
        let world = World::new();
        assert!(world.pods.attach("a", std::path::Path::new("/nonexistent"), &[]).is_err());
        let plain = world.dir.path().join("plain");
        std::fs::write(&plain, "").expect("write");
        assert!(world.pods.attach("a", &plain, &[]).is_err());
        assert!(world.pods.addresses().is_empty());
    });
}

/// Everything this namespace has that `reset` must put back.
fn inventory() -> String {
    let mut text = String::new();
    for line in ["ip -brief link", "ip addr show dev eth0", "ip route", "ip -6 route", "nft list ruleset", "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv6.conf.eth0.accept_ra"] {
        let mut words = line.split_whitespace();
        let output = Command::new(words.next().expect("command")).args(words).output().expect(line);
        text += &String::from_utf8_lossy(&output.stdout);
    }
    text
}

#[test]
fn reset_leaves_the_node_as_it_was() {
    alone(|| {
        let _outside = Outside::new();
        let before = inventory();
        let world = World::new();
        let _pod = world.pod_with("a", &[PortMapping { protocol: Protocol::Udp, container_port: 1, host_port: 2, host_ip: None }]);
        assert_ne!(inventory(), before);
        let state = world.dir.path().join("network");
        assert!(state.exists());
        world.pods.reset().expect("reset");
        assert_eq!(inventory(), before);
        assert!(!state.exists());
    });
}

#[test]
fn node_addresses_are_found_and_their_changes_told() {
    alone(|| {
        assert_eq!(host_addresses(&[]).expect("addresses"), Default::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let mut changes = network::watch_host_addresses(vec!["cor".into()]).expect("watch");
            assert_eq!(changes.borrow_and_update().primary(), None);
            let _outside = Outside::new();
            let wait = changes.wait_for(|host| host.ipv4.is_some() && host.ipv6.is_some());
            let host = tokio::time::timeout(TIMEOUT, wait).await.expect("in time").expect("watching").clone();
            assert_eq!((host.primary(), host.ipv6.map(Into::into), host.mtu), (Some(ip(NODE_V4)), Some(ip(NODE_V6)), Some(1500)));
            run("ip addr add 203.0.113.7/24 dev eth0");
            run("ip route add default via 203.0.113.1");
            let wait = changes.wait_for(|host| host.primary() == Some(ip("203.0.113.7")));
            let host = tokio::time::timeout(TIMEOUT, wait).await.expect("in time").expect("watching").clone();
            assert_eq!(host.others, [ip(NODE_V4)]);
        });
    });
}
