//! Services as packets meet them: a client, a node and a server in network namespaces of their own on this machine, and so many Services in the node.
//!
//! Told are what programming them costs (all at once, then one at a time), how long a new connection through one takes to be there (so its first packets), and how
//! much one connection carries. `--in-node` puts another proxy's rules into the node instead, in turns with ours; see
//! `crates/bench/kube-proxy.sh`. It needs root and iproute2; no cluster.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use network::{Dataplane, DataplaneConfig, DataplaneError, Endpoint, IpNet, ServicePort, ServicePortName, netns};

use crate::measure::{Figure, Stopwatch};
use crate::through::{self, LONG_PORT, Load, SHORT_PORT, program};
use crate::{BenchError, FIRST, Options, SECOND};

const LOAD: Load = Load { connections: 3000, carry: Duration::from_secs(3) };
const CHANGES: u32 = 200;
/// For another proxy to program all of it: kube-proxy takes minutes for 10,000 Services.
const PATIENCE: Duration = Duration::from_secs(900);

/// Pods are in 10.200.0.0/16: the client at 1.2, the servers at 2.2 and 2.3; the node is 1.1 and 2.1.
const SERVERS: [[u8; 4]; 2] = [[10, 200, 2, 2], [10, 200, 2, 3]];
const SERVICE_PORT: u16 = 80;

/// The Service `i` has cluster IP 10.96.1.0 + i; those with an even number lead to `SHORT_PORT`, the others to `LONG_PORT`.
fn cluster_ip(i: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 1, 0).to_bits() + i)
}

fn service(i: u32, endpoints: usize) -> (ServicePortName, ServicePort) {
    let port = if i % 2 == 0 { SHORT_PORT } else { LONG_PORT };
    let endpoints = SERVERS.iter().cycle().take(endpoints.min(SERVERS.len())).map(|address| Endpoint { address: IpAddr::from(*address), port, local: false });
    let name = ServicePortName { namespace: "default".into(), name: format!("service-{i}"), port: String::new() };
    (name, ServicePort { port: SERVICE_PORT, cluster_ips: vec![cluster_ip(i).into()], endpoints: endpoints.collect(), ..ServicePort::default() })
}

fn ip(line: &str) -> Result<(), BenchError> {
    let done = Command::new("ip").args(line.split_whitespace()).status().map_err(program("run iproute2"))?;
    if done.success() { Ok(()) } else { Err(BenchError::Strange(format!("ip {line}: {done}"))) }
}

fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> Result<T, BenchError> + Send) -> Result<T, BenchError> {
    netns::run_in(namespace, work).map_err(program("enter a network namespace"))?
}

/// Three machines in a row.
struct World {
    client: File,
    node: File,
    _server: File,
}

impl World {
    fn new() -> Result<Self, BenchError> {
        let make = || netns::create().map_err(program("make a network namespace"));
        let (client, node, server) = (make()?, make()?, make()?);
        let pid = std::process::id();
        inside(&node, || {
            for (namespace, name, own) in [(&client, "client", "10.200.1.1/24"), (&server, "server", "10.200.2.1/24")] {
                ip(&format!("link add {name} type veth peer name eth0 netns /proc/{pid}/fd/{}", namespace.as_raw_fd()))?;
                ip(&format!("addr add {own} dev {name}"))?;
                ip(&format!("link set {name} up"))?;
            }
            ip("link set lo up")?;
            // kube-proxy wants to know of a way out.
            ip("route add default via 10.200.2.2")?;
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(program("make the node a router"))
        })?;
        for (namespace, addresses, gateway) in [(&client, &["10.200.1.2/24"][..], "10.200.1.1"), (&server, &["10.200.2.2/24", "10.200.2.3/24"], "10.200.2.1")] {
            inside(namespace, || {
                ip("link set lo up")?;
                ip("link set eth0 up")?;
                addresses.iter().try_for_each(|address| ip(&format!("addr add {address} dev eth0")))?;
                ip(&format!("route add default via {gateway}"))
            })?;
        }
        inside(&server, through::answer)?;
        let world = Self { client, node, _server: server };
        // A link that is up takes a moment to be one.
        let start = Instant::now();
        while !world.answers(SocketAddr::from((SERVERS[0], LONG_PORT)))? {
            if start.elapsed() > PATIENCE {
                return Err(BenchError::Late("the way to the server".into()));
            }
            std::thread::sleep(through::TRY);
        }
        Ok(world)
    }

    fn answers(&self, to: SocketAddr) -> Result<bool, BenchError> {
        inside(&self.client, || Ok(through::answers(to)))
    }

    fn measured(&self, with: &str, cluster: &str, [short, long]: [(Ipv4Addr, u16); 2]) -> Result<Vec<Figure>, BenchError> {
        inside(&self.client, || Ok(through::measure(&[short.into()], long.into(), LOAD, with, cluster)))
    }

    fn through(&self, count: u32, cluster: &str) -> Result<Vec<Figure>, BenchError> {
        // The last of each kind.
        let (short, long) = (cluster_ip(count - 2), cluster_ip(count - 1));
        self.measured(&format!("{count} services"), cluster, [(short, SERVICE_PORT), (long, SERVICE_PORT)])
    }
}

fn failed(error: DataplaneError) -> BenchError {
    BenchError::Strange(error.to_string())
}

/// Programs them, and measures with them.
fn ours(world: &World, count: u32) -> Result<Vec<Figure>, BenchError> {
    let cidr = |text: &str| text.parse::<IpNet>().into_iter().collect();
    let (mut dataplane, mut figures) = inside(&world.node, || {
        let mut dataplane = Dataplane::open(DataplaneConfig { cluster_cidrs: cidr("10.200.0.0/16"), service_cidrs: cidr("10.96.0.0/12") }).map_err(failed)?;
        let services: BTreeMap<_, _> = (0..count).map(|i| service(i, 2)).collect();
        let watch = Stopwatch::start(&[]);
        dataplane.sync(&services).map_err(failed)?;
        let took = watch.start.elapsed();
        let mut figures = vec![watch.figure(format!("program {count} services"), FIRST, 1, 0, vec![took])];
        let watch = Stopwatch::start(&[]);
        let mut took = Vec::new();
        for change in 0..CHANGES {
            let (name, port) = service(change * 7 % count, if change * 7 / count % 2 == 0 { 1 } else { 2 });
            let start = Instant::now();
            dataplane.apply([(name, Some(port))]).map_err(failed)?;
            took.push(start.elapsed());
        }
        figures.push(watch.figure(format!("change one of {count}"), FIRST, CHANGES as usize, 0, took));
        dataplane.sync(&services).map_err(failed)?;
        Ok((dataplane, figures))
    })?;
    figures.extend(world.through(count, FIRST)?);
    inside(&world.node, || dataplane.reset().map_err(failed))?;
    Ok(figures)
}

/// Another program in the node; ends with all it started.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // Its own group, so that what a shell started ends as well. That it has ended already is as good.
        let _ = Command::new("kill").args(["-TERM", "--", &format!("-{}", self.0.id())]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

fn theirs(world: &World, count: u32, command: &str) -> Result<Vec<Figure>, BenchError> {
    let start = Instant::now();
    let mut other = inside(&world.node, || {
        let child = Command::new("sh").args(["-c", command]).env("SERVICES", count.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).spawn();
        child.map(Other).map_err(program("run the command of --in-node"))
    })?;
    let to = [count - 2, count - 1].map(|i| SocketAddr::from((cluster_ip(i), SERVICE_PORT)));
    for to in to {
        // What is awaited is another program's rules, which nobody tells of.
        while !world.answers(to)? {
            if start.elapsed() > PATIENCE {
                return Err(BenchError::Late("the command of --in-node".into()));
            }
            if let Some(status) = other.0.try_wait().map_err(program("wait for the command of --in-node"))? {
                return Err(BenchError::Strange(format!("the command of --in-node ended: {status}")));
            }
            std::thread::sleep(through::TRY);
        }
    }
    world.through(count, SECOND)
}

pub async fn run(options: &Options) -> Result<Vec<Figure>, BenchError> {
    let options = options.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let mut figures = Vec::new();
        for count in options.services.iter().copied().filter(|count| *count > 1) {
            // Each in machines of its own: connections that were are remembered for a while, and one with the same port must go round them.
            let world = World::new()?;
            figures.extend(world.measured("no service", FIRST, [(SERVERS[0].into(), SHORT_PORT), (SERVERS[0].into(), LONG_PORT)])?);
            figures.extend(ours(&World::new()?, count)?);
            if let Some(command) = &options.in_node {
                figures.extend(theirs(&World::new()?, count, command)?);
            }
        }
        Ok(figures)
    });
    measured.await.map_err(|error| BenchError::Program { action: "measure", error: io::Error::other(error) })?
}
