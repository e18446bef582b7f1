//! How a connection to a server is made: to the first of its addresses that answers, or through the proxy that a kubeconfig names.
//!
//! Mirrors Go's `net.Dialer` (several addresses, RFC 8305) and, for proxies, `net/http` (CONNECT) and `x/net/proxy` (SOCKS5, RFC 1928), in their words.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::HttpError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// When the next of a host's addresses is tried too (RFC 8305).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// The head of a proxy's answer is no longer.
const PROXY_HEAD_BYTES_MAX: usize = 8 << 10;

/// `clusters[].cluster.proxy-url` of a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// As it was written.
    pub url: String,
    socks: bool,
    host: String,
    port: u16,
    /// Whose the way is, if the proxy asks for that.
    authorization: Option<String>,
}

impl Proxy {
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("could not parse: {error}"))?;
        let (socks, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("socks5") => (true, 1080),
            Some("https") => return Err("a proxy that is asked over TLS is not supported yet\nhint: use its http:// address".to_owned()),
            other => return Err(format!("unsupported scheme {:?}, must be http, https, or socks5", other.unwrap_or(""))),
        };
        let authority = uri.authority().ok_or("could not parse: no host")?;
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| percent_decode_str(user).decode_utf8_lossy().into_owned());
        if socks && user.is_some() {
            return Err("a SOCKS proxy that asks for a password is not supported yet\nhint: use an http:// proxy".to_owned());
        }
        let authorization = user.map(|user| base64::engine::general_purpose::STANDARD.encode(if user.contains(':') { user } else { user + ":" }));
        Ok(Self { url: url.to_owned(), socks, host: authority.host().to_owned(), port: authority.port_u16().unwrap_or(port), authorization })
    }
}

/// A connection to a host (an IPv6 address may have its brackets), through the proxy if there is one: the proxy resolves names then.
pub async fn dial(host: &str, port: u16, proxy: Option<&Proxy>) -> Result<TcpStream, HttpError> {
    let Some(proxy) = proxy else { return direct(host, port).await };
    let way = async {
        let mut stream = direct(&proxy.host, proxy.port).await?;
        let asked = if proxy.socks { socks(&mut stream, host, port).await } else { connect(&mut stream, host, port, proxy.authorization.as_deref()).await };
        asked.map_err(|error| HttpError::Http(error.to_string()))?;
        Ok::<_, HttpError>(stream)
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, way).await {
        Ok(outcome) => outcome.map_err(|error| HttpError::Http(format!("{} tcp: {error}", if proxy.socks { "socks connect" } else { "proxyconnect" }))),
        Err(_) => Err(HttpError::Connect { address: format!("{}:{}", proxy.host, proxy.port), cause: "i/o timeout".to_owned() }),
    }
}

async fn direct(host: &str, port: u16) -> Result<TcpStream, HttpError> {
    let addresses = resolver::resolve(host).await?;
    let mut waiting = addresses.into_iter().map(|address| SocketAddr::new(address, port));
    let mut tried = FuturesUnordered::new();
    let mut last = HttpError::Config("no address to connect to".to_owned());
    loop {
        // One that is silent holds up nobody: it may answer yet, while the next is tried.
        let next = waiting.next();
        let more = next.is_some();
        tried.extend(next.map(connect_to));
        let outcome = if more { tokio::time::timeout(NEXT_ADDRESS_AFTER, tried.next()).await } else { Ok(tried.next().await) };
        match outcome {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => last = error,
            Ok(None) => return Err(last),
            Err(_) => {}
        }
    }
}

async fn connect_to(address: SocketAddr) -> Result<TcpStream, HttpError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(HttpError::Refused { address: address.to_string() }),
        Ok(Err(error)) => Err(HttpError::Connect { address: address.to_string(), cause: format!("connect: {}", go_words(&error)) }),
        Err(_) => Err(HttpError::Connect { address: address.to_string(), cause: "i/o timeout".to_owned() }),
    }
}

fn go_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

/// HTTP's CONNECT. What comes after the head of the answer is the server's and stays in the stream.
async fn connect(stream: &mut TcpStream, host: &str, port: u16, authorization: Option<&str>) -> io::Result<()> {
    let authorization = authorization.map(|user| format!("Proxy-Authorization: Basic {user}\r\n")).unwrap_or_default();
    stream.write_all(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == PROXY_HEAD_BYTES_MAX {
            return Err(io::Error::other(format!("the proxy's answer has no end in {PROXY_HEAD_BYTES_MAX} bytes")));
        }
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().and_then(|line| line.strip_prefix("HTTP/1.")).and_then(|line| line.split_once(' '));
    match status {
        Some((_, status)) if status.starts_with("200") => Ok(()),
        Some((_, status)) => Err(io::Error::other(status.split_once(' ').map_or("unknown status code", |(_, text)| text).to_owned())),
        None => Err(io::Error::other(format!("malformed HTTP response {:?}", head.lines().next().unwrap_or("")))),
    }
}

/// SOCKS5 without a password, by the server's name.
async fn socks(stream: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
    const VERSION: u8 = 5;
    const NO_PASSWORD: u8 = 0;
    let host = host.trim_matches(['[', ']']);
    let length = u8::try_from(host.len()).map_err(|_| io::Error::other("FQDN too long"))?;
    stream.write_all(&[VERSION, 1, NO_PASSWORD]).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    if chosen != [VERSION, NO_PASSWORD] {
        return Err(io::Error::other("no acceptable authentication methods"));
    }
    let mut ask = vec![VERSION, 1, 0, 3, length];
    ask.extend_from_slice(host.as_bytes());
    ask.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&ask).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    if answer[1] != 0 {
        const WHY: [&str; 9] =
            ["succeeded", "general SOCKS server failure", "connection not allowed by ruleset", "network unreachable", "host unreachable", "connection refused", "TTL expired", "command not supported", "address type not supported"];
        return Err(io::Error::other(format!("unknown error {}", WHY.get(usize::from(answer[1])).map_or_else(|| format!("unknown code: {}", answer[1]), |why| (*why).to_owned()))));
    }
    // The address that it asks from: of no use, but before the server's bytes.
    let address = match answer[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        other => return Err(io::Error::other(format!("unknown address type {other}"))),
    };
    stream.read_exact(&mut vec![0; address + 2]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy that expects `asked`, answers, and sends what comes after it back.
    async fn through(scheme: &str, exchanges: Vec<(Vec<u8>, Vec<u8>)>) -> Result<String, String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::parse(&format!("{scheme}127.0.0.1:{}", listener.local_addr().unwrap().port())).unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for (asked, answer) in exchanges {
                let mut got = vec![0; asked.len()];
                stream.read_exact(&mut got).await.unwrap();
                assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&asked));
                stream.write_all(&answer).await.unwrap();
            }
        });
        let outcome = dial("api.example", 6443, Some(&proxy)).await;
        let said = match outcome {
            Ok(mut stream) => {
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                Ok(text)
            }
            Err(error) => Err(error.to_string()),
        };
        served.await.unwrap();
        said
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_way() {
        let asked = |more: &str| format!("CONNECT api.example:6443 HTTP/1.1\r\nHost: api.example:6443\r\n{more}\r\n").into_bytes();
        let answer = |text: &str| text.as_bytes().to_vec();
        assert_eq!(through("http://", vec![(asked(""), answer("HTTP/1.1 200 Connection established\r\nVia: p\r\n\r\nthe server's"))]).await.unwrap(), "the server's");
        let named = asked("Proxy-Authorization: Basic dTpwQA==\r\n");
        assert_eq!(through("http://u:p%40@", vec![(named, answer("HTTP/1.0 200\r\n\r\n"))]).await.unwrap(), "");
        assert_eq!(through("http://", vec![(asked(""), answer("HTTP/1.1 403 Forbidden\r\n\r\n"))]).await.unwrap_err(), "proxyconnect tcp: Forbidden");
    }

    #[tokio::test]
    async fn so_is_one_that_speaks_socks() {
        let hello = (vec![5, 1, 0], vec![5, 0]);
        let ask = [&[5, 1, 0, 3, 11], &b"api.example"[..], &6443_u16.to_be_bytes()].concat();
        let answer = [&[5, 0, 0, 1, 192, 0, 2, 1, 4, 56], &b"the server's"[..]].concat();
        assert_eq!(through("socks5://", vec![hello.clone(), (ask.clone(), answer)]).await.unwrap(), "the server's");
        assert_eq!(through("socks5://", vec![hello, (ask, vec![5, 5, 0, 1])]).await.unwrap_err(), "socks connect tcp: unknown error connection refused");
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        for (url, why) in [
            ("ftp://p", "unsupported scheme \"ftp\", must be http, https, or socks5"),
            ("p:3128", "unsupported scheme \"\", must be http, https, or socks5"),
            ("https://p", "a proxy that is asked over TLS is not supported yet\nhint: use its http:// address"),
            ("socks5://u:p@p", "a SOCKS proxy that asks for a password is not supported yet\nhint: use an http:// proxy"),
        ] {
            assert_eq!(Proxy::parse(url).unwrap_err(), why, "{url}");
        }
        assert!(Proxy::parse("http://[").unwrap_err().starts_with("could not parse: "));
    }
}
