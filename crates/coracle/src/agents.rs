//! How the API server reaches the agent of this machine: through memory; and how others do: over TLS at the kubelet's port.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use api::Status;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use node::Node;
use parking_lot::Mutex;
use server::{Dial, NodeStream, User};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Bytes between the API server and an agent in the same process.
const PIPE_BYTES: usize = 64 * 1024;

/// The agents of this process, by node.
#[derive(Default)]
pub struct Agents(Mutex<HashMap<String, Arc<Node>>>);

impl Agents {
    pub fn add(&self, name: &str, node: Arc<Node>) {
        self.0.lock().insert(name.to_owned(), node);
    }
}

impl Dial for Agents {
    fn dial<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Result<NodeStream, Status>> + Send + 'a>> {
        Box::pin(async move {
            let node = self.0.lock().get(name).cloned().ok_or_else(|| Status::internal(format!("error dialing backend: no agent of node {name:?} is known to this API server")))?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::spawn(connection(far, node));
            Ok(Box::new(near) as NodeStream)
        })
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, node: Arc<Node>) {
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(node.handle(request).await) }
    });
    if let Err(error) = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a connection to the agent ended");
    }
}

/// Serves the kubelet's API to holders of a certificate of the cluster's CA.
pub async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, node: Arc<Node>, mut shutdown: watch::Receiver<bool>) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (acceptor, node) = (acceptor.clone(), node.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            // The agent's API runs commands in containers: only the masters of the cluster get in.
            let user = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(|leaf| User::of_certificate(leaf));
            if user.is_some_and(|user| user.is_master()) {
                connection(stream, node).await;
            }
        });
    }
}
