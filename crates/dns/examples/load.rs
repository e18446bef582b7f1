//! Questions per second of the server, asked over UDP on loopback by threads with many questions under way, all on the same machine.
//!
//! `cargo run -p dns --example load [threads] [seconds]`

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dns::{Records, Server, ServiceRecords, Upstreams};

const SERVICES: usize = 1000;
/// Questions under way per thread.
const WINDOW: usize = 32;

fn question(id: u16, service: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(64);
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [format!("service-{service}").as_str(), "default", "svc", "cluster", "local"] {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

fn ask(server: SocketAddr, until: Instant, answered: &AtomicU64) -> std::io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let questions: Vec<Vec<u8>> = (0..SERVICES).map(|i| question(i as u16, i)).collect();
    let mut next = 0;
    let mut send = || {
        next = (next + 1) % SERVICES;
        socket.send(&questions[next])
    };
    for _ in 0..WINDOW {
        send()?;
    }
    let mut buffer = [0; 512];
    while Instant::now() < until {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                answered.fetch_add(1, Ordering::Relaxed);
                send()?;
            }
            // All of the window was lost: fill it again.
            Err(_) => {
                for _ in 0..WINDOW {
                    send()?;
                }
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().map_or(Ok(2), |a| a.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(3), |a| a.parse())?;
    let records = Records::new("cluster.local");
    for i in 0..SERVICES {
        let address = std::net::Ipv4Addr::from_bits(0x0a60_0000 + i as u32).into();
        records.set_service("default", &format!("service-{i}"), ServiceRecords::ClusterIp { addresses: vec![address], ports: vec![] });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], Arc::new(records), Upstreams::none()))?;
    let address = server.addresses()[0];
    let answered = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let askers: Vec<_> = (0..threads)
        .map(|_| {
            let answered = answered.clone();
            std::thread::spawn(move || ask(address, until, &answered))
        })
        .collect();
    for asker in askers {
        asker.join().map_err(|_| "asker panicked")??;
    }
    println!("{:.0} answers/s, {threads} askers, server and askers on the same machine", answered.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
