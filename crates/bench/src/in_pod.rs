//! What runs in the pods of `--only pod-services` until it is told to end: the server, and the client, which measures when it is asked.
//!
//! The client is asked over HTTP, by way of the API server (`pods/proxy`): `GET /answers?to=10.96.0.7:80` and `GET /measure?to=…,…&connections=1000&carry=300`, the last
//! address being the one that takes what comes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::BenchError;
use crate::measure::Figure;
use crate::through::{self, Load, program};

/// The client's.
pub const CLIENT_PORT: u16 = 8082;
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEAD_LIMIT: Duration = Duration::from_secs(10);

pub async fn answer() -> Result<Vec<Figure>, BenchError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(program("wait for a signal"))?;
    through::answer()?;
    terminate.recv().await;
    Ok(Vec::new())
}

pub async fn through() -> Result<Vec<Figure>, BenchError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(program("wait for a signal"))?;
    let everywhere = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, CLIENT_PORT)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))];
    let listener = TcpListener::bind(&everywhere[..]).await.map_err(program("listen"))?;
    loop {
        tokio::select! {
            asked = listener.accept() => {
                let (stream, _) = asked.map_err(program("accept"))?;
                // Whoever asks hears of it; one after the other, so that nothing is measured at the same time.
                let _ = serve(stream).await;
            }
            _ = terminate.recv() => return Ok(Vec::new()),
        }
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    let read = async {
        while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX && stream.read_buf(&mut head).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    tokio::time::timeout(HEAD_LIMIT, read).await??;
    let target = String::from_utf8_lossy(&head).split_whitespace().nth(1).map(str::to_owned).unwrap_or_default();
    let answer = tokio::task::spawn_blocking(move || work(&target)).await.ok().flatten();
    let (status, body) = match answer {
        Some(body) => ("200 OK", body.to_string()),
        None => ("400 Bad Request", "{}".to_owned()),
    };
    let text = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// Nothing, if it is no question.
fn work(target: &str) -> Option<Value> {
    let (path, query) = target.split_once('?')?;
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let to: Vec<SocketAddr> = value("to")?.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    match path {
        "/answers" => Some(json!(to.iter().all(|to| through::answers(*to)))),
        "/measure" => {
            let (long, short) = to.split_last().filter(|(_, short)| !short.is_empty())?;
            let load = Load { connections: value("connections")?.parse().ok()?, carry: Duration::from_millis(value("carry")?.parse().ok()?) };
            Some(json!(through::measure(short, *long, load, "", "")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        for wrong in ["/", "/measure?to=10.0.0.1:80&connections=1&carry=1", "/measure?to=x,y&connections=1&carry=1", "/other?to=10.0.0.1:80"] {
            assert_eq!(work(wrong), None, "{wrong}");
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        assert_eq!(work(&format!("/answers?to={to}")), Some(json!(true)));
        assert_eq!(work(&format!("/measure?connections=0&carry=0&to={to},{to}")).unwrap()[0]["failed"], 0);
    }
}
