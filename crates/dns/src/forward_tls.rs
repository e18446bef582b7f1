//! DNS over TLS to an upstream (`forward . tls://9.9.9.9`, RFC 7858): one question at a time on a connection, which is kept for the next one for a while, as CoreDNS's `forward` does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::forward::framed;

/// Connections that wait for another question.
const IDLE_MAX: usize = 8;
/// As `expire` of CoreDNS's `forward`.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) struct Secure {
    address: SocketAddr,
    connector: TlsConnector,
    name: ServerName<'static>,
    idle: Mutex<Vec<(TlsStream<TcpStream>, Instant)>>,
}

impl Secure {
    pub fn new(address: SocketAddr, config: Arc<ClientConfig>, name: Option<&str>) -> Option<Self> {
        let name = match name {
            Some(name) => ServerName::try_from(name.to_owned()).ok()?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        Some(Self { address, connector: TlsConnector::from(config), name, idle: Mutex::default() })
    }

    fn waiting(&self) -> Option<TlsStream<TcpStream>> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(stream, _)| stream)
    }

    fn put_back(&self, stream: TlsStream<TcpStream>) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push((stream, Instant::now()));
        }
    }

    /// What comes back, whatever it is.
    pub async fn exchange(&self, asked: &[u8]) -> io::Result<Vec<u8>> {
        // The other side may have closed it meanwhile.
        if let Some(mut stream) = self.waiting()
            && let Ok(answer) = framed(&mut stream, asked).await
        {
            self.put_back(stream);
            return Ok(answer);
        }
        let stream = TcpStream::connect(self.address).await?;
        let _ = stream.set_nodelay(true);
        let mut stream = self.connector.connect(self.name.clone(), stream).await?;
        let answer = framed(&mut stream, asked).await?;
        self.put_back(stream);
        Ok(answer)
    }
}
