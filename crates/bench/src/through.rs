//! What packets through a Service cost, as a client meets it: how long a new connection takes to be there (so its first packets), and how much one connection carries.
//!
//! Both ends are here. They run in network namespaces on this machine (`--only services`) and in pods (`--only pod-services`).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::BenchError;
use crate::measure::{Figure, Stopwatch};

/// Connections, one after the other.
const CONNECTIONS: usize = 3000;
const BUFFER_BYTES: usize = 128 << 10;
/// Between two looks at what nobody tells of: another program's rules.
pub const TRY: Duration = Duration::from_millis(500);
/// For whoever programs the Services to do so: kube-proxy takes minutes for 10,000 of them.
const PATIENCE: Duration = Duration::from_secs(900);

/// Accepts and closes.
pub const SHORT_PORT: u16 = 8080;
/// Takes what comes.
pub const LONG_PORT: u16 = 8081;

pub fn program(action: &'static str) -> impl FnOnce(io::Error) -> BenchError {
    move |error| BenchError::Program { action, error }
}

/// The server: in threads that end with the process.
pub fn answer() -> Result<(), BenchError> {
    // Kernels can be built without IPv6.
    let listen = |port| TcpListener::bind(&[SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))][..]).map_err(program("listen"));
    let (short, long) = (listen(SHORT_PORT)?, listen(LONG_PORT)?);
    std::thread::spawn(move || while short.accept().is_ok() {});
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = long.accept() {
            let mut buffer = vec![0; BUFFER_BYTES];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    });
    Ok(())
}

pub fn answers(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, TRY).is_ok()
}

/// Returns when it answers.
pub fn until_answers(to: SocketAddr) -> Result<(), BenchError> {
    let begun = Instant::now();
    while !answers(to) {
        if begun.elapsed() > PATIENCE {
            return Err(BenchError::Late(to.to_string()));
        }
        std::thread::sleep(TRY);
    }
    Ok(())
}

/// New connections go to `short` in turns; one to `long` carries what it can for so long. `with` is what is between: a number of Services, say.
pub fn measure(short: &[SocketAddr], long: (SocketAddr, Duration), with: &str, cluster: &str) -> Result<Vec<Figure>, BenchError> {
    Ok(vec![connections(short, &format!("connections, {with}"), cluster), carry(long, &format!("MiB through one, {with}"), cluster)?])
}

/// New connections, one after the other.
fn connections(to: &[SocketAddr], what: &str, cluster: &str) -> Figure {
    let watch = Stopwatch::start(&[]);
    let mut took = Vec::with_capacity(CONNECTIONS);
    for to in to.iter().cycle().take(CONNECTIONS) {
        let start = Instant::now();
        let Ok(mut stream) = TcpStream::connect(to) else { continue };
        took.push(start.elapsed());
        // Until the server has taken it: it would fall behind otherwise, and the kernel drop the next ones.
        let _ = stream.read(&mut [0]);
    }
    let seconds = took.iter().sum::<Duration>().as_secs_f64();
    let count = took.len();
    Figure { seconds, per_second: count as f64 / seconds, ..watch.figure(what, cluster, count, CONNECTIONS - count, took) }
}

/// How many MiB one connection carries.
fn carry((to, time): (SocketAddr, Duration), what: &str, cluster: &str) -> Result<Figure, BenchError> {
    let mut stream = TcpStream::connect(to).map_err(program("connect"))?;
    let buffer = vec![7; BUFFER_BYTES];
    let watch = Stopwatch::start(&[]);
    let mut bytes = 0;
    while watch.start.elapsed() < time {
        bytes += stream.write(&buffer).map_err(program("send"))?;
    }
    Ok(watch.figure(what, cluster, bytes >> 20, 0, Vec::new()))
}
