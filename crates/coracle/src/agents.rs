//! How the API server reaches agents: that of this machine through memory, those of others over mutual TLS. And who may, at the kubelet's port.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::Status;
use api::k8s::api::core::v1::Node as ApiNode;
use client::Client;
use kubeadm::{KUBELET_CLIENT, KUBELET_CLIENT_USER, PkiFolder};
use node::Node;
use node::access::{self, Access, Who};
use node::door::serve_connection;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use server::{Dial, NodeStream, User};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// Bytes between the API server and an agent in the same process.
const PIPE_BYTES: usize = 64 * 1024;
/// A node that is cut off must not hold up who asks for longer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// By which of its addresses a node is dialled, best first: names need a resolver that knows them.
const ADDRESS_KINDS: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];

/// Who may do everything.
const MASTERS: &str = "system:masters";

/// The agents of this process, by node, and the way to the others.
#[derive(Default)]
pub struct Agents {
    here: Mutex<HashMap<String, Arc<Node>>>,
    others: OnceLock<Others>,
}

struct Others {
    client: Client,
    pki: PkiFolder,
    authority: String,
}

fn failed(cause: impl std::fmt::Display) -> Status {
    Status::internal(format!("error dialing backend: {cause}"))
}

impl Agents {
    pub fn add(&self, name: &str, node: Arc<Node>) {
        self.here.lock().insert(name.to_owned(), node);
    }

    /// Agents elsewhere are found by their Nodes' addresses; `authority` (PEM) signed their certificates.
    pub fn reach_others(&self, client: Client, pki: PkiFolder, authority: String) {
        // Told once, at the start.
        let _ = self.others.set(Others { client, pki, authority });
    }
}

impl Others {
    async fn dial(&self, name: &str) -> Result<NodeStream, Status> {
        let node = self.client.of::<ApiNode>(None).get(name).await.map_err(|status| failed(status.message))?;
        let status = node.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        let host = ADDRESS_KINDS.iter().find_map(|kind| addresses.iter().find(|address| address.type_ == *kind)).ok_or_else(|| failed(format!("no preferred addresses found; known addresses: {addresses:?}")))?;
        let port = status.and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()).map_or(node::KUBELET_PORT, |endpoint| endpoint.port as u16);
        let address = *resolver::resolve(&host.address).await.map_err(|error| failed(format!("dial tcp: {error}")))?.first().ok_or_else(|| failed("no address"))?;
        let address = SocketAddr::new(address, port);
        // Read at each dial: they are renewed while we run.
        let identity = self.pki.identity(KUBELET_CLIENT).map_err(failed)?;
        let tls = tls::to_nodes(&identity, &self.authority).map_err(|error| failed(format!("{error:#}")))?;
        let server = ServerName::try_from(name.to_owned()).map_err(failed)?;
        let connected = async {
            let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => failed(format!("dial tcp {address}: connect: connection refused")),
                std::io::ErrorKind::HostUnreachable => failed(format!("dial tcp {address}: connect: no route to host")),
                _ => failed(format!("dial tcp {address}: connect: {error}")),
            })?;
            let _ = stream.set_nodelay(true);
            TlsConnector::from(tls).connect(server, stream).await.map_err(|error| failed(format!("tls: failed to verify certificate: x509: {error}")))
        };
        let stream = tokio::time::timeout(DIAL_TIMEOUT, connected).await.map_err(|_| failed(format!("dial tcp {address}: i/o timeout")))??;
        Ok(Box::new(stream) as NodeStream)
    }
}

impl Dial for Agents {
    fn dial<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Result<NodeStream, Status>> + Send + 'a>> {
        Box::pin(async move {
            let here = self.here.lock().get(name).cloned();
            if let Some(node) = here {
                let (near, far) = tokio::io::duplex(PIPE_BYTES);
                tokio::spawn(serve_connection(Box::new(far), node));
                return Ok(Box::new(near) as NodeStream);
            }
            match self.others.get() {
                Some(others) => others.dial(name).await,
                None => Err(failed(format!("no agent of node {name:?} is known to this API server"))),
            }
        })
    }
}

/// Who may use the agent's API: whoever the API server lets. It itself and the cluster's masters need no question.
pub fn access(client: Client, node: &str) -> Access {
    let identify: access::Identify = Arc::new(|certificate| {
        // A connection may last longer than the certificate that it was made with.
        let good = pki::Certificate::of_der(certificate).is_ok_and(|facts| facts.not_after >= jiff::Timestamp::now().as_second());
        User::of_certificate(certificate).filter(|_| good).map(|user| Who { name: user.name, uid: user.uid, groups: user.groups, extra: user.extra.into_iter().collect() })
    });
    let trusted: access::Trusted = Arc::new(|who| who.name == KUBELET_CLIENT_USER || who.groups.iter().any(|group| group == MASTERS));
    Access::new(client, node, identify, trusted)
}
