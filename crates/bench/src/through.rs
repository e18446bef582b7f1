//! What packets through a Service cost, as a client meets it: how long a new connection takes to be there (so its first packets), and how much one connection carries.
//!
//! Both ends are here. They run in network namespaces on this machine (`--only services`) and in pods (`--only pod-services`). Nothing here waits without a limit: what
//! does not come in time is counted as failed. Clients reset their connections when they are done, and take another port for each: so neither end, nor any connection
//! tracking between them, remembers thousands of connections that the next ones must go round.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use crate::BenchError;
use crate::measure::{Figure, Stopwatch};

const BUFFER_BYTES: usize = 128 << 10;
/// Between two looks at what nobody tells of: another program's rules.
pub const TRY: Duration = Duration::from_millis(500);
/// For a connection to be there, and for anything to move on it. Two packets in a row may be lost.
const LIMIT: Duration = Duration::from_secs(5);
/// After so many that fail no other connection is tried: each would take as long to fail.
const FAILURES_MAX: usize = 3;
/// A client that is gone without a word must not keep the server's threads.
const SILENCE: Duration = Duration::from_secs(60);

/// Accepts and closes.
pub const SHORT_PORT: u16 = 8080;
/// Takes what comes.
pub const LONG_PORT: u16 = 8081;

/// Clients' ports, in a row: one comes again when connection tracking has long forgotten it.
const FIRST_OWN_PORT: u16 = 10_000;
static OWN_PORT: AtomicU16 = AtomicU16::new(FIRST_OWN_PORT);

/// How much is measured at one time.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// New connections, one after the other.
    pub connections: usize,
    /// How long one connection carries what it can.
    pub carry: Duration,
}

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
        while let Ok((stream, _)) = long.accept() {
            // One each: a pod can end with bytes and its farewell unsent, and whoever came next would wait for it.
            std::thread::spawn(move || take(stream));
        }
    });
    Ok(())
}

fn take(mut stream: TcpStream) {
    if stream.set_read_timeout(Some(SILENCE)).is_err() {
        return;
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

/// From a port of its own, to be reset when it is dropped. Within this time, also whatever is sent or read later.
fn open(to: SocketAddr, limit: Duration) -> io::Result<(TcpStream, Duration)> {
    let (family, any) = if to.is_ipv4() { (AddressFamily::Inet, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))) } else { (AddressFamily::Inet6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))) };
    let own: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let time = TimeVal::new(limit.as_secs() as _, limit.subsec_micros().into());
    setsockopt(&own, sockopt::SendTimeout, &time)?;
    setsockopt(&own, sockopt::ReceiveTimeout, &time)?;
    setsockopt(&own, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    loop {
        let port = OWN_PORT.fetch_add(1, Ordering::Relaxed);
        if port < FIRST_OWN_PORT {
            OWN_PORT.store(FIRST_OWN_PORT, Ordering::Relaxed);
            continue;
        }
        match bind(own.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any.ip(), port))) {
            Err(Errno::EADDRINUSE) => {}
            other => break other?,
        }
    }
    let to = SockaddrStorage::from(to);
    let start = Instant::now();
    connect(own.as_raw_fd(), &to)?;
    let took = start.elapsed();
    Ok((TcpStream::from(own), took))
}

pub fn answers(to: SocketAddr) -> bool {
    open(to, TRY).is_ok()
}

/// New connections go to `short` in turns; one to `long` carries what it can. `with` is what is between: a number of Services, say.
pub fn measure(short: &[SocketAddr], long: SocketAddr, load: Load, with: &str, cluster: &str) -> Vec<Figure> {
    vec![connections(short, load.connections, &format!("connections, {with}"), cluster), carry(long, load.carry, &format!("MiB through one, {with}"), cluster)]
}

/// New connections, one after the other.
fn connections(to: &[SocketAddr], count: usize, what: &str, cluster: &str) -> Figure {
    let watch = Stopwatch::start(&[]);
    let mut took = Vec::with_capacity(count);
    let mut failed = 0;
    for to in to.iter().cycle().take(count) {
        // Until the server has taken it: it would fall behind otherwise, and the kernel drop the next ones.
        match open(*to, LIMIT).and_then(|(mut stream, took)| stream.read(&mut [0]).map(|_| took)) {
            Ok(time) => took.push(time),
            Err(_) => failed += 1,
        }
        if failed == FAILURES_MAX {
            break;
        }
    }
    let seconds = took.iter().sum::<Duration>().as_secs_f64();
    let count = took.len();
    Figure { seconds, per_second: if count == 0 { 0.0 } else { count as f64 / seconds }, ..watch.figure(what, cluster, count, failed, took) }
}

/// How many MiB one connection carries.
fn carry(to: SocketAddr, time: Duration, what: &str, cluster: &str) -> Figure {
    let stream = open(to, LIMIT);
    let buffer = vec![7; BUFFER_BYTES];
    let watch = Stopwatch::start(&[]);
    let mut bytes = 0;
    let sent = stream.and_then(|(mut stream, _)| {
        while watch.start.elapsed() < time {
            bytes += stream.write(&buffer)?;
        }
        Ok(())
    });
    let seconds = watch.start.elapsed().as_secs_f64();
    let mib = bytes as f64 / f64::from(1 << 20);
    Figure { seconds, per_second: mib / seconds, ..watch.figure(what, cluster, bytes >> 20, usize::from(sent.is_err()), Vec::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_told_in_time() {
        // Nobody takes from the queue, which is soon full: one connection that never moves must end by itself.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        assert!(answers(to));
        let (mut stream, _) = open(to, Duration::from_millis(50)).unwrap();
        assert!(stream.read(&mut [0]).is_err());
        let buffer = vec![0; BUFFER_BYTES];
        while stream.write(&buffer).is_ok() {}
        drop(listener);
        let figure = connections(&[to], 10, "x", "a");
        assert_eq!((figure.count, figure.failed, figure.per_second), (0, FAILURES_MAX, 0.0));
        assert_eq!(carry(to, Duration::from_millis(1), "x", "a").failed, 1);
    }
}
