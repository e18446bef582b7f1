//! Listening, TLS, and one task a connection.

use client::BoxFuture;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use ::api::Status;
use arc_swap::ArcSwap;
use basics::listen::accept;
use basics::tasks::lasting;
use futures_util::FutureExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::gathered::Gathered;
use super::relay::Peer;
use super::streams::{Lasting, Streams};
use super::{answer, routes};
use crate::api::Api;
use crate::authentication::Judged;
use crate::{admission, aggregation, aggregator, compaction, custom, flow_control, peers, reload};

/// A client has this long to finish the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams a client may have open on one HTTP/2 connection.
const MAX_CONCURRENT_STREAMS: u32 = 1000;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What waits for a client that does not read: of a connection, or of a stream of one. A watch waits with it, and is told 410 when it is too late.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// Go's limit of a request's head; over HTTP/1.1 it is the buffer's.
const MAX_HEAD_BYTES: usize = 1 << 20;

pub type Listener = TcpListener;

pub struct ServeConfig {
    pub listener: TcpListener,
    /// Exchanged while it serves: connections from now on are judged by another.
    pub tls: Arc<ArcSwap<rustls::ServerConfig>>,
}

/// Serves until `shutdown` becomes true or its sender is gone.
pub fn serve(api: Arc<Api>, config: ServeConfig, shutdown: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
    Box::pin(run(api, config, shutdown))
}

async fn run(api: Arc<Api>, config: ServeConfig, mut shutdown: watch::Receiver<bool>) {
    macro_rules! last {
        ($name:literal, $run:path $(, $more:expr)*) => {{
            let (api, stop) = (api.clone(), shutdown.clone());
            tokio::spawn(lasting($name, shutdown.clone(), move || $run(api.clone(), $($more,)* stop.clone())));
        }};
    }
    last!("compaction", compaction::run);
    last!("aggregated roles", aggregation::run);
    last!("aggregated servers", aggregator::run);
    last!("admission", admission::run);
    last!("custom resources", custom::run);
    last!("flow control", flow_control::run);
    last!("peers", peers::run);
    for followed in &api.config.followed {
        let followed = followed.clone();
        last!("configuration", reload::run, followed.clone());
    }
    if let Some(audit) = &api.config.audit {
        audit.run(shutdown.clone());
    }
    loop {
        let (stream, _) = tokio::select! {
            accepted = accept(&config.listener, "the API server") => accepted,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        let (api, shutdown, acceptor) = (api.clone(), shutdown.clone(), TlsAcceptor::from(config.tls.load_full()));
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => connection(api, stream, shutdown).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake timed out"),
            }
        });
    }
}

async fn connection(api: Arc<Api>, stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, mut shutdown: watch::Receiver<bool>) {
    let fronts = api.fronts.borrow().clone();
    let judged = stream.get_ref().1.peer_certificates().map(|chain| Judged::of(fronts, chain));
    let peer = stream.get_ref().0.peer_addr().map(|address| Peer(address.ip())).ok();
    let head_timeout = api.config.head_timeout;
    let begun = Arc::new(AtomicBool::new(false));
    let first = begun.clone();
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        if !first.load(Ordering::Relaxed) {
            first.store(true, Ordering::Relaxed);
        }
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        // By the authorities of this moment: a connection may outlive those it began with.
        let fronts = api.fronts.borrow().clone();
        let presented = judged.as_ref().map(|judged| judged.by(&fronts)).unwrap_or_default();
        let api = api.clone();
        async move {
            // A panic costs one request, never the process.
            // In a box, which goes when it has answered: a watch lasts, and what it took to begin it need not.
            let handled = AssertUnwindSafe(Box::pin(routes::handle(api, presented, request))).catch_unwind().await;
            Ok::<_, Infallible>(handled.unwrap_or_else(|_| {
                tracing::error!("a request panicked");
                answer::status(&Status::internal("the handler of this request panicked; the server goes on"))
            }))
        }
    });
    let streams = Streams::default();
    let mut lasting = Lasting::of(&streams);
    let mut builder = auto::Builder::new(streams);
    builder.http1().timer(TokioTimer::new()).max_buf_size(SEND_BUFFER_BYTES).header_read_timeout(Some(head_timeout));
    builder.http2().timer(TokioTimer::new()).max_header_list_size(MAX_HEAD_BYTES as u32).max_send_buf_size(SEND_BUFFER_BYTES).max_concurrent_streams(MAX_CONCURRENT_STREAMS).initial_stream_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(STREAM_WINDOW_BYTES * 4);
    let gathers = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (gathered, sending) = Gathered::new(stream, gathers);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(gathered), service);
    tokio::pin!(connection);
    let patience = tokio::time::sleep(head_timeout);
    tokio::pin!(patience);
    let mut patient = true;
    loop {
        tokio::select! {
            ended = std::future::poll_fn(|cx| {
                lasting.poll(cx);
                let ended = connection.as_mut().poll(cx);
                match sending.poll(cx) {
                    Poll::Ready(Err(error)) if ended.is_pending() => Poll::Ready(Err(error.into())),
                    _ => ended,
                }
            }) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            // Who connects and says nothing does not stay.
            () = patience.as_mut(), if patient => {
                if !begun.load(Ordering::Relaxed) {
                    tracing::debug!("no request came");
                    return;
                }
                patient = false;
            }
            _ = shutdown.wait_for(|stop| *stop) => {
                connection.as_mut().graceful_shutdown();
                return;
            }
        }
    }
}
