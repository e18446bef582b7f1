//! The door of the kubelet's API: who connects to the agent, through TLS from other machines or through memory from the same process, is served here.
//!
//! Who comes from another machine is asked who they are and whether they may, each time (see [`crate::access`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use client::BoxFuture;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::access::Access;
use crate::node::Node;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// As upstream's: who connects and asks nothing does not stay.
const HEAD_TIMEOUT: Duration = Duration::from_secs(32);

/// For connections from elsewhere.
fn http1() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
}

/// Whatever a connection can be.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

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

/// The same for a connection from elsewhere, by whoever showed a certificate, or nobody.
async fn serve_guarded(stream: TlsStream<TcpStream>, node: Arc<Node>, access: Arc<Access>) {
    let session = stream.get_ref().1;
    let certificate = Arc::new(session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned()));
    let http2 = session.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<Incoming>| {
        let (node, access, certificate) = (node.clone(), access.clone(), certificate.clone());
        async move {
            let (head, body) = request.into_parts();
            Ok::<_, Infallible>(match access.refusal(&head, certificate.as_ref().as_ref()).await {
                Some(refusal) => refusal,
                None => node.handle(Request::from_parts(head, body)).await,
            })
        }
    });
    let served = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
    } else {
        http1().serve_connection(TokioIo::new(stream), service).with_upgrades().await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the agent ended");
    }
}

/// Serves other machines until `shutdown` becomes true or its sender is gone.
pub fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, node: Arc<Node>, access: Access, mut shutdown: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let (acceptor, access) = (TlsAcceptor::from(tls), Arc::new(access));
        loop {
            let (stream, _) = tokio::select! {
                accepted = basics::listen::accept(&listener, "the agent") => accepted,
                _ = shutdown.wait_for(|stop| *stop) => return,
            };
            let (acceptor, node, access) = (acceptor.clone(), node.clone(), access.clone());
            tokio::spawn(async move {
                // Who says nothing must not be waited for.
                let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
                serve_guarded(stream, node, access).await;
            });
        }
    })
}

/// What may be looked at without a name, where that is configured (`readOnlyPort`).
const READ_ONLY: [&str; 7] = ["/healthz", "/pods", "/stats/summary", "/metrics", "/metrics/cadvisor", "/metrics/probes", "/metrics/resource"];

/// Serves those who only look, in plain text and unasked who they are, until `shutdown` becomes true or its sender is gone.
pub fn serve_read_only(listener: TcpListener, node: Arc<Node>, mut shutdown: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        loop {
            let (stream, _) = tokio::select! {
                accepted = basics::listen::accept(&listener, "the agent's read-only port") => accepted,
                _ = shutdown.wait_for(|stop| *stop) => return,
            };
            let node = node.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let node = node.clone();
                async move {
                    let allowed = request.method() == http::Method::GET && READ_ONLY.contains(&request.uri().path());
                    Ok::<_, Infallible>(if allowed { node.handle(request).await } else { crate::http::full(http::StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n") })
                }
            });
            tokio::spawn(async move {
                if let Err(error) = http1().serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(%error, "a connection to the read-only port ended");
                }
            });
        }
    })
}
