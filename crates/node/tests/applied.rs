//! A pod network that is applied: the folder of CNI configurations, plugins that are programs, and the built-in network by its own configuration. Needs root.

#[path = "host/mod.rs"]
mod host;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use host::ip;
use node::networking::{AppliedConfig, BUILT_IN_CONFIGURATION, BUILT_IN_FILE, Networking, NetworkingConfig};
use sandbox::cri::PodSandboxConfig;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(30);
const NOT_INITIALIZED: &str = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";

/// A link with two ends, and the address that its configuration says.
const PLUGIN: &str = r#"#!/bin/sh
set -e
config=$(cat)
link=pt$(printf %s "$CNI_CONTAINERID" | cut -c1-10)
case $CNI_COMMAND in
ADD)
  address=$(printf %s "$config" | sed 's/.*"address":"\([^"]*\)".*/\1/')
  ip link add "$link" type veth peer name "$link-p"
  ip link set "$link-p" netns "$CNI_NETNS"
  nsenter --net="$CNI_NETNS" sh -e -c "ip link set $link-p name $CNI_IFNAME; ip addr add $address/32 dev $CNI_IFNAME; ip link set $CNI_IFNAME up; ip route add default dev $CNI_IFNAME"
  ip link set "$link" up
  ip route add "$address/32" dev "$link"
  echo "{\"cniVersion\":\"1.1.0\",\"interfaces\":[{\"name\":\"$CNI_IFNAME\",\"sandbox\":\"$CNI_NETNS\"}],\"ips\":[{\"interface\":0,\"address\":\"$address/32\"}]}" ;;
DEL) ip link del "$link" 2>/dev/null || true ;;
STATUS) [ ! -e "$(dirname "$0")/sick" ] || { echo '{"cniVersion":"1.1.0","code":50,"msg":"out of order"}'; exit 1; } ;;
esac
"#;

fn config(dir: &Path) -> NetworkingConfig {
    NetworkingConfig { applied: Some(AppliedConfig { configurations: dir.join("etc/cni/net.d"), programs: vec![dir.join("bin")] }), ..host::config(dir) }
}

async fn until(readiness: &mut watch::Receiver<Option<String>>, wanted: impl Fn(&Option<String>) -> bool) {
    let seen = tokio::time::timeout(PATIENCE, readiness.wait_for(|why| wanted(why))).await.map(|seen| seen.map(|why| why.clone()));
    assert!(matches!(seen, Ok(Ok(_))), "not in time: {:?}", readiness.borrow());
}

/// A pod that answers a connection with its name; or why there is none.
async fn pod(networking: &Networking, name: &'static str) -> Result<(File, IpAddr), String> {
    let namespace = network::netns::create().expect("namespace");
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let addresses = networking.pod_network().attach(name, path.as_ref(), &PodSandboxConfig::default()).await?;
    let listener = network::netns::run_in(&namespace, || TcpListener::bind((addresses[0], 8080)).expect("listen")).expect("enter");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(name.as_bytes());
        }
    });
    Ok((namespace, addresses[0]))
}

fn ask(to: IpAddr) -> String {
    let mut text = String::new();
    TcpStream::connect_timeout(&SocketAddr::new(to, 8080), PATIENCE).and_then(|mut stream| stream.read_to_string(&mut text)).expect("an answer");
    text
}

fn has_link(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists() || std::process::Command::new("ip").args(["link", "show", name]).output().expect("iproute2").status.success()
}

async fn scenario() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (configurations, programs) = (dir.path().join("etc/cni/net.d"), dir.path().join("bin"));
    std::fs::create_dir(&programs).expect("folder");
    std::fs::write(programs.join("two-ends"), PLUGIN).expect("write");
    std::fs::set_permissions(programs.join("two-ends"), std::fs::Permissions::from_mode(0o755)).expect("mode");
    let client = host::api_server("system:kube-proxy").await;
    let mut networking = Networking::open(config(dir.path())).await.expect("open");
    networking.follow(&client).expect("follow");
    let mut readiness = networking.readiness().expect("it waits for a network");

    // Nothing yet, and a configuration that is no use.
    assert_eq!(readiness.borrow().as_deref(), Some(NOT_INITIALIZED));
    assert_eq!(pod(&networking, "early").await.expect_err("no network"), "cni plugin not initialized");
    assert!(!has_link("coracle0"), "the built-in network is not opened");

    // Somebody else's, whose plugin can be out of order.
    std::fs::write(programs.join("sick"), "").expect("write");
    std::fs::write(configurations.join("20-other.conflist"), r#"{"cniVersion":"1.1.0","name":"other","plugins":[{"type":"two-ends","address":"10.77.0.5"}]}"#).expect("write");
    until(&mut readiness, |why| why.as_deref().is_some_and(|why| why.ends_with(r#"plugin type="two-ends" name="other" failed (status): out of order"#))).await;
    std::fs::remove_file(programs.join("sick")).expect("remove");
    // Asked again at once when the folder changes; else a little later.
    std::fs::write(configurations.join("note.txt"), "").expect("write");
    until(&mut readiness, Option::is_none).await;
    let (_first, address) = pod(&networking, "first").await.expect("attach");
    assert_eq!((address, ask(address).as_str()), (ip("10.77.0.5"), "first"));
    assert!(has_link("ptfirst") && !has_link("coracle0"));

    // The built-in one comes before it by name. Who has the other's network keeps it, until it goes.
    std::fs::write(configurations.join(BUILT_IN_FILE), BUILT_IN_CONFIGURATION).expect("write");
    let (_second, address) = loop {
        let made = pod(&networking, "second").await;
        match made {
            Ok(made) if made.1 != ip("10.77.0.5") => break made,
            // The change has not been heard of yet.
            _ => networking.pod_network().detach("second", &PodSandboxConfig::default()).await.expect("detach"),
        }
    };
    assert_eq!((address.to_string().starts_with("10.244.0."), ask(address).as_str(), ask(ip("10.77.0.5")).as_str()), (true, "second", "first"));
    assert!(readiness.borrow().is_none());
    let network = networking.pod_network();
    network.detach("first", &PodSandboxConfig::default()).await.expect("detach");
    assert!(!has_link("ptfirst"));

    // A restart knows what there is, and what has gone meanwhile.
    drop((networking, network));
    let mut networking = Networking::open(config(dir.path())).await.expect("open again");
    assert!(networking.readiness().expect("readiness").borrow().is_none());
    networking.follow(&client).expect("follow");
    networking.retain(&[]).await.expect("retain");
    assert!(networking.pods().expect("built in").addresses().is_empty());

    // Taken away: nothing new, until it is back.
    let mut readiness = networking.readiness().expect("readiness");
    std::fs::remove_file(configurations.join(BUILT_IN_FILE)).expect("remove");
    std::fs::remove_file(configurations.join("20-other.conflist")).expect("remove");
    std::fs::remove_file(configurations.join("note.txt")).expect("remove");
    until(&mut readiness, Option::is_some).await;
    std::fs::write(configurations.join(BUILT_IN_FILE), BUILT_IN_CONFIGURATION).expect("write");
    until(&mut readiness, Option::is_none).await;
    drop(networking);
    Networking::reset(&config(dir.path())).expect("reset");
    assert!(!dir.path().join("network").exists() && !configurations.exists() && !has_link("coracle0") && !has_link("coracle-dns"));
}

#[test]
fn networks_come_and_go() {
    host::in_a_namespace(scenario());
}
