//! A node in a network namespace of its own, its pods, and a neighbour outside: real links, real packets.
#![allow(dead_code)] // Each test binary uses a part.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use network::{Endpoint, IpNet, PodNet, PodNetConfig, PortMapping, netns};

pub const TIMEOUT: Duration = Duration::from_secs(2);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("address {text}"))
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| panic!("range {text}"))
}

/// Runs a test on a thread in a new network namespace with `lo` up; panics come through.
pub fn alone(test: impl FnOnce() + Send) {
    let node = netns::create().expect("create network namespace");
    netns::run_in(&node, || {
        run("ip link set lo up");
        test();
    })
    .expect("test");
}

/// iproute2, for what is not under test.
pub fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("command")).args(words).output().expect(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn path_of(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// A pod network under a temporary folder.
pub struct World {
    pub dir: tempfile::TempDir,
    pub pods: PodNet,
}

pub fn config(dir: &tempfile::TempDir) -> PodNetConfig {
    let mut config = PodNetConfig::new(vec![net("10.244.0.0/24"), net("fd00:10:244::/64")], dir.path().join("network"));
    config.cluster_cidrs = vec![net("10.244.0.0/16"), net("fd00:10:244::/56")];
    config.service_cidrs = vec![net("10.96.0.0/12"), net("fd00:10:96::/112")];
    config
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let pods = PodNet::open(config(&dir)).expect("open pod network");
        Self { pods, dir }
    }

    pub fn pod(&self, name: &str) -> Pod {
        self.pod_with(name, &[])
    }

    pub fn pod_with(&self, name: &str, ports: &[PortMapping]) -> Pod {
        let namespace = netns::create().expect("create network namespace");
        let addresses = self.pods.attach(name, &path_of(&namespace), ports).expect("attach");
        let pod = Pod { name: name.to_owned(), namespace, v4: addresses[0], v6: addresses[1] };
        pod.serve(8080);
        pod
    }
}

pub struct Pod {
    pub name: String,
    pub namespace: File,
    pub v4: IpAddr,
    pub v6: IpAddr,
}

impl Pod {
    /// Answers TCP and UDP on both families with "<pod> <client's address>".
    pub fn serve(&self, port: u16) {
        serve_in(&self.namespace, &self.name, port);
    }

    pub fn endpoints(&self, port: u16) -> [Endpoint; 2] {
        [self.v4, self.v6].map(|address| Endpoint { address, port, local: true })
    }

    pub fn tcp(&self, to: IpAddr, port: u16) -> Result<Answer, std::io::ErrorKind> {
        netns::run_in(&self.namespace, || tcp(to, port)).expect("enter")
    }

    pub fn udp(&self, to: IpAddr, port: u16) -> Result<Answer, std::io::ErrorKind> {
        netns::run_in(&self.namespace, || udp(to, port)).expect("enter")
    }
}

/// Who answered, and what client it saw.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub server: String,
    pub client: IpAddr,
}

fn answer(text: &str) -> Answer {
    let (server, client) = text.split_once(' ').expect("two words");
    Answer { server: server.to_owned(), client: client.parse().expect("address") }
}

fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// Serves in the namespace until the test's process ends.
pub fn serve_in(namespace: &File, name: &str, port: u16) {
    // Listening on [::] takes both families.
    let (listener, socket) = netns::run_in(namespace, || (TcpListener::bind(("::", port)).expect("listen"), UdpSocket::bind(("::", port)).expect("bind"))).expect("enter");
    serve(name, listener, socket);
}

pub fn serve(name: &str, listener: TcpListener, socket: UdpSocket) {
    let tcp_name = name.to_owned();
    std::thread::spawn(move || {
        while let Ok((mut stream, client)) = listener.accept() {
            // A client that gave up is its own affair.
            let _ = write!(stream, "{tcp_name} {}", canonical(client));
        }
    });
    let name = name.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}", canonical(client)).as_bytes(), client);
        }
    });
}

pub fn tcp(to: IpAddr, port: u16) -> Result<Answer, std::io::ErrorKind> {
    let mut stream = TcpStream::connect_timeout(&(to, port).into(), TIMEOUT).map_err(|e| e.kind())?;
    let mut text = String::new();
    stream.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    stream.read_to_string(&mut text).map_err(|e| e.kind())?;
    Ok(answer(&text))
}

pub fn udp_socket(to: IpAddr, port: u16) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
    let socket = UdpSocket::bind((any, 0)).expect("bind");
    socket.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    socket.connect((to, port)).expect("connect");
    socket
}

pub fn ask(socket: &UdpSocket) -> Result<Answer, std::io::ErrorKind> {
    let mut buffer = [0; 128];
    socket.send(b"?").map_err(|e| e.kind())?;
    let length = socket.recv(&mut buffer).map_err(|e| e.kind())?;
    Ok(answer(std::str::from_utf8(&buffer[..length]).expect("text")))
}

pub fn udp(to: IpAddr, port: u16) -> Result<Answer, std::io::ErrorKind> {
    ask(&udp_socket(to, port))
}

/// A machine on the node's other side: link `eth0` of the node, 192.0.2.1 and 2001:db8::1; the machine is .9 and ::9.
pub struct Outside {
    pub namespace: File,
}

pub const NODE_V4: &str = "192.0.2.1";
pub const NODE_V6: &str = "2001:db8::1";
pub const OUTSIDE_V4: &str = "192.0.2.9";
pub const OUTSIDE_V6: &str = "2001:db8::9";

impl Outside {
    pub fn new() -> Self {
        let namespace = netns::create().expect("create network namespace");
        run(&format!("ip link add eth0 type veth peer name eth0 netns {}", path_of(&namespace).display()));
        for line in [&format!("ip addr add {NODE_V4}/24 dev eth0"), &format!("ip addr add {NODE_V6}/64 dev eth0 nodad"), "ip link set eth0 up"] {
            run(line);
        }
        netns::run_in(&namespace, || {
            for line in [&format!("ip addr add {OUTSIDE_V4}/24 dev eth0"), &format!("ip addr add {OUTSIDE_V6}/64 dev eth0 nodad"), "ip link set eth0 up", "ip link set lo up"] {
                run(line);
            }
        })
        .expect("enter");
        serve_in(&namespace, "outside", 8080);
        Self { namespace }
    }

    pub fn tcp(&self, to: IpAddr, port: u16) -> Result<Answer, std::io::ErrorKind> {
        netns::run_in(&self.namespace, || tcp(to, port)).expect("enter")
    }
}
