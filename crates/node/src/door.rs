//! The door of the kubelet's API: who connects to the agent, through TLS from other machines or through memory from the same process, is served here.
//!
//! It knows no names and no rules: who may come in is asked of the caller, by the certificate.

use std::convert::Infallible;
use std::sync::Arc;

use client::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::node::Node;

/// Whatever a connection can be.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// By the certificate a client shows: may it come in?
pub type Allowed = Arc<dyn Fn(&CertificateDer<'_>) -> bool + Send + Sync>;

/// One connection, until it ends.
pub fn serve_connection(stream: Box<dyn Stream>, node: Arc<Node>) -> BoxFuture<'static, ()> {
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(node.handle(request).await) }
    });
    Box::pin(async move {
        if let Err(error) = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await {
            tracing::debug!(%error, "a connection to the agent ended");
        }
    })
}

/// Serves those who are allowed to come in, until `shutdown` becomes true or its sender is gone.
pub fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, node: Arc<Node>, allowed: Allowed, mut shutdown: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let acceptor = TlsAcceptor::from(tls);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = shutdown.wait_for(|stop| *stop) => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            let (acceptor, node, allowed) = (acceptor.clone(), node.clone(), allowed.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                if stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).is_some_and(|leaf| allowed(leaf)) {
                    serve_connection(Box::new(stream), node).await;
                }
            });
        }
    })
}
