//! What Services cost: programs 10,000 of them with two endpoints each, then changes one at a time, in a network namespace of its own.
//!
//! `cargo run -p network --example services` (root)

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use network::{Dataplane, DataplaneConfig, DataplaneError, Endpoint, ServicePort, ServicePortName, netns};

const CHANGES: u32 = 200;

fn service(i: u32, endpoints: u32) -> (ServicePortName, ServicePort) {
    let address = |base: [u8; 4], offset: u32| IpAddr::from(Ipv4Addr::from_bits(u32::from_be_bytes(base) + offset));
    let endpoint = |e| Endpoint { address: address([10, 128, 0, 0], i * 4 + e), port: 8080, local: false };
    let name = ServicePortName { namespace: "default".into(), name: format!("service-{i}"), port: String::new() };
    let endpoints = (0..endpoints).map(endpoint).collect();
    (name, ServicePort { port: 80, cluster_ips: vec![address([10, 96, 0, 0], i)], endpoints, ..Default::default() })
}

fn measure(count: u32) -> Result<(Duration, Duration, Duration), DataplaneError> {
    let cidr = |text: &str| text.parse().into_iter().collect();
    let mut dataplane = Dataplane::open(DataplaneConfig { cluster_cidrs: cidr("10.128.0.0/9"), service_cidrs: cidr("10.96.0.0/12") })?;
    let services: BTreeMap<_, _> = (0..count).map(|i| service(i, 2)).collect();
    let start = Instant::now();
    dataplane.sync(&services)?;
    let cold = start.elapsed();
    let mut times = Vec::new();
    for i in 0..CHANGES {
        let (name, port) = service(i * 7 % count, 1 + i % 3);
        let start = Instant::now();
        dataplane.apply([(name, Some(port))])?;
        times.push(start.elapsed());
    }
    times.sort();
    dataplane.reset()?;
    Ok((cold, times[times.len() / 2], times[times.len() * 99 / 100]))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let namespace = netns::create()?;
    netns::run_in(&namespace, || {
        for count in [100, 1_000, 10_000] {
            let (cold, median, worst) = measure(count)?;
            println!("{count:>6} services × 2 endpoints: cold {cold:?}, one change p50 {median:?} p99 {worst:?}");
        }
        Ok::<_, DataplaneError>(())
    })??;
    Ok(())
}
