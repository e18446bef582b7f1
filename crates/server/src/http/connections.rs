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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::gathered::Gathered;
use super::relay::Peer;
use super::streams::{Lasting, Streams};
use super::{answer, routes};
use crate::api::Api;
use crate::authentication::Judged;
use crate::lifecycle::{Connection, Lifecycle, Phase};
use crate::{admission, aggregation, aggregator, cluster_trust, compaction, custom, flow_control, peers, reload};

/// A client has this long to finish the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams a client may have open on one HTTP/2 connection.
const MAX_CONCURRENT_STREAMS: u32 = 1000;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What waits for a client that does not read: of a connection, or of a stream of one. A watch waits with it, and is told 410 when it is too late.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// Go's limit of a request's head; over HTTP/1.1 it is the buffer's.
const MAX_HEAD_BYTES: usize = 1 << 20;

/// While the server ends: a client that has connected has this long to ask, and a connection on which nothing is being answered is ended when its client has taken nothing for this
/// long (upstream gives them 2 s as well).
const PARTING: Duration = Duration::from_secs(2);
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// What waits to be audited is handed on within this time.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(10);
/// To tell other API servers.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

pub type Listener = TcpListener;

pub struct ServeConfig {
    pub listener: TcpListener,
    /// Exchanged while it serves: connections from now on are judged by another.
    pub tls: Arc<ArcSwap<rustls::ServerConfig>>,
}

/// Serves until `shutdown` becomes true or its sender is gone; then ends as [`crate::lifecycle`] has it.
pub fn serve(api: Arc<Api>, config: ServeConfig, shutdown: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
    Box::pin(run(api, config, shutdown))
}

async fn run(api: Arc<Api>, config: ServeConfig, shutdown: watch::Receiver<bool>) {
    // What requests lean on goes on until the last of them is answered.
    let (end, ended) = watch::channel(false);
    macro_rules! last {
        ($name:literal, $run:path, $until:expr $(, $more:expr)*) => {{
            let (api, stop) = (api.clone(), $until.clone());
            tokio::spawn(lasting($name, $until.clone(), move || $run(api.clone(), $($more,)* stop.clone())))
        }};
    }
    last!("compaction", compaction::run, ended);
    last!("aggregated roles", aggregation::run, ended);
    last!("aggregated servers", aggregator::run, ended);
    last!("admission", admission::run, ended);
    last!("custom resources", custom::run, ended);
    last!("flow control", flow_control::run, ended);
    last!("peers", peers::follow_grants, ended);
    last!("cluster trust", cluster_trust::run, ended);
    let mut present = last!("presence", peers::present, shutdown);
    for followed in &api.config.followed {
        let followed = followed.clone();
        last!("configuration", reload::run, ended, followed.clone());
    }
    let audited = api.config.audit.as_ref().map(|audit| audit.run(ended.clone()));
    let lifecycle = api.lifecycle.clone();
    tokio::spawn({
        let lifecycle = lifecycle.clone();
        async move {
            let farewell = async { drop(timeout(FAREWELL_TIMEOUT, &mut present).await) };
            lifecycle.end(shutdown, farewell).await;
        }
    });
    // Nothing is sent: it is closed when the last connection is.
    let (open, mut closed) = mpsc::channel::<Infallible>(1);
    let begin = |stream: TcpStream| {
        let (api, acceptor, open) = (api.clone(), TlsAcceptor::from(config.tls.load_full()), open.clone());
        tokio::spawn(async move {
            let _open = open;
            accepted(api, acceptor, stream).await;
        });
    };
    let closing = lifecycle.reached(lifecycle.closes_at());
    tokio::pin!(closing);
    loop {
        tokio::select! {
            (stream, _) = accept(&config.listener, "the API server") => begin(stream),
            () = &mut closing => break,
        }
    }
    // Those who are through the door already.
    while let Some(Ok((stream, _))) = config.listener.accept().now_or_never() {
        begin(stream);
    }
    drop(config.listener);
    drop(open);
    let longest = api.config.request_timeout + lifecycle.watch_grace() + 2 * PARTING;
    if timeout(longest, async { while closed.recv().await.is_some() {} }).await.is_err() {
        tracing::warn!(seconds = longest.as_secs(), "connections are cut off: their requests have not ended");
    }
    let _ = end.send(true);
    if let Some(audited) = audited
        && timeout(AUDIT_TIMEOUT, audited).await.is_err()
    {
        tracing::warn!(seconds = AUDIT_TIMEOUT.as_secs(), "what waits to be audited is lost");
    }
}

async fn accepted(api: Arc<Api>, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let too_late = async {
        api.lifecycle.reached(api.lifecycle.closes_at()).await;
        sleep(PARTING).await;
    };
    let handshake = tokio::select! {
        handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => handshake,
        () = too_late => return,
    };
    match handshake {
        Ok(Ok(stream)) => connection(api, stream).await,
        Ok(Err(error)) => {
            api.measured.handshake_failed();
            tracing::debug!(%error, "TLS handshake failed");
        }
        Err(_) => {
            api.measured.handshake_failed();
            tracing::debug!("TLS handshake timed out");
        }
    }
}

async fn connection(api: Arc<Api>, stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let lifecycle = api.lifecycle.clone();
    let carried = Arc::<Connection>::default();
    let fronts = api.fronts.borrow().clone();
    let judged = stream.get_ref().1.peer_certificates().map(|chain| Judged::of(fronts, chain));
    let peer = stream.get_ref().0.peer_addr().map(|address| Peer(address.ip())).ok();
    let head_timeout = api.config.head_timeout;
    let begun = Arc::new((AtomicBool::new(false), Notify::new()));
    let (first, of_requests) = (begun.clone(), carried.clone());
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        let mut seat = api.lifecycle.seat(&of_requests);
        if !first.0.load(Ordering::Relaxed) {
            first.0.store(true, Ordering::Relaxed);
            first.1.notify_one();
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
            let handled = AssertUnwindSafe(Box::pin(routes::handle(api, presented, &mut seat, request))).catch_unwind().await;
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
    let patience = sleep(head_timeout);
    tokio::pin!(patience);
    let mut patient = true;
    let refusing = lifecycle.reached(Phase::Refusing);
    let leaving = async {
        tokio::select! {
            () = lifecycle.reached(lifecycle.closes_at()) => {}
            () = carried.leave.notified() => return,
        }
        // Who has just connected is about to ask.
        if !begun.0.load(Ordering::Relaxed) {
            let _ = timeout(FIRST_REQUEST, begun.1.notified()).await;
        }
    };
    let parting = parting(&lifecycle, &carried, || sending.sent());
    tokio::pin!(refusing, leaving, parting);
    let (mut refuses, mut leaves) = (false, false);
    loop {
        tokio::select! {
            // What has come is taken before anything is ended.
            biased;
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
                if !begun.0.load(Ordering::Relaxed) {
                    tracing::debug!("no request came");
                    return;
                }
                patient = false;
            }
            // Watches look up.
            () = &mut refusing, if !refuses => {
                refuses = true;
                lasting.rouse();
            }
            () = &mut leaving, if !leaves => {
                leaves = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut parting, if leaves => {
                tracing::debug!("a connection is cut off");
                return;
            }
        }
    }
}

/// Returns when a connection that is to end has done so for long enough: nothing is being answered, and its client takes nothing, or what is left has no end.
async fn parting(lifecycle: &Lifecycle, carried: &Connection, sent: impl Fn() -> u64) {
    sleep(lifecycle.watch_grace()).await;
    let mut before = sent();
    loop {
        sleep(PARTING).await;
        let now = sent();
        if !carried.is_busy() && (carried.lasts() || now == before) {
            return;
        }
        before = now;
    }
}
