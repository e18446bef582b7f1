//! What is not DNS: `/metrics` for Prometheus, `/health` and `/ready` in CoreDNS's words, over plain HTTP. One small request at a time on a connection.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// As CoreDNS's `prometheus :9153`.
pub const METRICS_PORT: u16 = 9153;
const HEAD_BYTES_MAX: usize = 8 << 10;
const CONNECTIONS_MAX: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

/// What is served.
pub struct Pages {
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether the cluster's names are known.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
}

/// On all addresses, of both families if there are two.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
        bound => bound,
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let (stream, _) = basics::listen::accept(&listener, "the name server's metrics").await;
        let pages = pages.clone();
        tokio::spawn(async move {
            // How a client ends its connection is its own affair.
            let _ = timeout(PATIENCE, answer(stream, &pages)).await;
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, pages: &Pages) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, kind, body) = match (method, target.split('?').next().unwrap_or_default()) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", (pages.metrics)()),
        ("GET" | "HEAD", "/health") => ("200 OK", "text/plain; charset=utf-8", "OK".to_owned()),
        ("GET" | "HEAD", "/ready") if (pages.ready)() => ("200 OK", "text/plain; charset=utf-8", "OK".to_owned()),
        ("GET" | "HEAD", "/ready") => ("503 Service Unavailable", "text/plain; charset=utf-8", "kubernetes".to_owned()),
        ("GET" | "HEAD", _) => ("404 Not Found", "text/plain; charset=utf-8", "404 page not found\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain; charset=utf-8", "405 method not allowed\n".to_owned()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}
