//! The doors of the control plane's other parts: their `/metrics` and their health over HTTPS, on ports of their own.
//!
//! Mirrors how kube-scheduler and kube-controller-manager serve theirs: who asks is found out as the API server does it, and may what roles allow them
//! (`nonResourceURLs`); health is anybody's (`--authorization-always-allow-paths`). In one process with the API server, nobody needs to be asked over the wire.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::api::Status;
use basics::listen::accept;
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::answer::{self, Answer};
use crate::api::Api;
use crate::authentication::{Judged, Presented};
use crate::authorization::{self, Attributes};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// As upstream's: who connects and asks nothing does not stay.
const HEAD_TIMEOUT: Duration = Duration::from_secs(32);
/// Connections of one part at the same time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// What nobody needs a role for.
const PUBLIC: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// What is at a path.
pub struct Page {
    pub content_type: &'static str,
    pub body: String,
}

/// The pages of a part, by path.
pub type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// Serves a part's pages until `shutdown` becomes true or its sender is gone.
pub async fn serve_part(api: Arc<Api>, listener: TcpListener, tls: Arc<rustls::ServerConfig>, pages: Pages, mut shutdown: watch::Receiver<bool>) {
    let (acceptor, seats) = (TlsAcceptor::from(tls), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let next = async {
            let seat = seats.clone().acquire_owned().await;
            (seat, accept(&listener, "a part of the control plane").await.0)
        };
        let (seat, stream) = tokio::select! {
            next = next => next,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        let (api, acceptor, pages) = (api.clone(), acceptor.clone(), pages.clone());
        tokio::spawn(async move {
            let _seat = seat;
            connection(api, acceptor, stream, pages).await;
        });
    }
}

async fn connection(api: Arc<Api>, acceptor: TlsAcceptor, stream: TcpStream, pages: Pages) {
    // Who says nothing must not be waited for.
    let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
    let fronts = api.fronts.borrow().clone();
    let judged = Arc::new(stream.get_ref().1.peer_certificates().map(|chain| Judged::of(fronts, chain)));
    let service = service_fn(move |request: Request<Incoming>| {
        let (api, judged, pages) = (api.clone(), judged.clone(), pages.clone());
        async move {
            let presented = judged.as_ref().as_ref().map(|judged| judged.by(&api.fronts.borrow().clone())).unwrap_or_default();
            Ok::<_, Infallible>(answered(&api, &presented, &request, &pages).await.unwrap_or_else(|status| answer::status(&status)))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Some(HEAD_TIMEOUT));
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to a part of the control plane ended");
    }
}

async fn answered(api: &Api, presented: &Presented, request: &Request<Incoming>, pages: &Pages) -> Result<Answer, Status> {
    let path = request.uri().path();
    let user = api.authenticate(presented, request.headers(), path).await?;
    if !PUBLIC.contains(&path) {
        let asked = Attributes { verb: request.method().as_str().to_ascii_lowercase(), path: path.to_owned(), ..Attributes::default() };
        authorization::decide(api, &user, &asked).await.required(&user, &asked)?;
    }
    let Some(page) = pages(path) else { return Ok(answer::no_page()) };
    let mut found = answer::bytes(200, page.content_type, page.body);
    match *request.method() {
        Method::GET => {}
        Method::HEAD => answer::without_body(&mut found),
        _ => return Err(answer::method_not_allowed()),
    }
    Ok(found)
}
