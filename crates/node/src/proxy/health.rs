//! What load balancers and probes ask the service proxy: is it well (`/healthz` and `/livez` on port 10256; its metrics are on 10249), and has this node endpoints of a Service (its
//! `healthCheckNodePort`). Plain HTTP, as kube-proxy's.
//!
//! Mirrors pkg/proxy/healthcheck, byte for byte where clients read it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::api::Clock;
use ::api::k8s::api::core::v1::{Node, Service};
use client::{Recorder, reference};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::measured::Measured;
use crate::http::{Answer, full};
use crate::services::ServiceKey;

/// kube-proxy's `healthzBindAddress`.
pub const HEALTHZ_PORT: u16 = 10256;
/// kube-proxy's `metricsBindAddress`: of this machine only.
pub const METRICS_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
/// A change that is not programmed for so long makes the proxy unwell (upstream: two sync periods of 30 s).
const LATE: SignedDuration = SignedDuration::from_secs(60);
/// Connections of one port at the same time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// Between attempts to listen on the port of another's.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// The cluster autoscaler is about to remove the node.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// How the proxy is.
pub struct ProxyHealth {
    clock: Arc<dyn Clock>,
    families: Vec<&'static str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since when a change waits.
    pending: Option<Timestamp>,
    updated: Option<Timestamp>,
    eligible: bool,
}

impl ProxyHealth {
    pub fn new(clock: Arc<dyn Clock>, families: Vec<&'static str>) -> Self {
        Self { clock, families, state: Mutex::default() }
    }

    /// There is something to program.
    pub fn queued(&self) {
        let now = self.clock.now();
        self.state.lock().pending.get_or_insert(now);
    }

    /// All that was to be programmed is.
    pub fn updated(&self) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.pending = None;
        state.updated = Some(now);
    }

    /// A node that goes gets no new traffic.
    pub fn set_node(&self, node: Option<&Node>) {
        let eligible = node.is_some_and(|node| {
            let tainted = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == TO_BE_DELETED);
            node.metadata.deletion_timestamp.is_none() && !tainted
        });
        self.state.lock().eligible = eligible;
    }

    pub fn is_healthy(&self) -> bool {
        let now = self.clock.now();
        let state = self.state.lock();
        // Before the first time it is starting, which is no illness.
        state.updated.is_none() || state.pending.is_none_or(|since| now.duration_since(since) < LATE)
    }

    fn answer(&self, path: &str) -> Answer {
        let with_node = match path {
            "/healthz" => true,
            "/livez" => false,
            _ => return full(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n"),
        };
        let (now, healthy) = (self.clock.now(), self.is_healthy());
        let state = self.state.lock();
        let updated = state.updated.unwrap_or(Timestamp::UNIX_EPOCH).to_string();
        let mut body = Map::new();
        let good = healthy && (!with_node || state.eligible);
        body.insert("lastUpdated".into(), if good { now.to_string() } else { updated.clone() }.into());
        body.insert("currentTime".into(), now.to_string().into());
        if with_node {
            body.insert("nodeEligible".into(), state.eligible.into());
        }
        body.insert("healthy".into(), healthy.into());
        if state.updated.is_some() {
            let status: Map<String, Value> = self.families.iter().map(|family| ((*family).to_owned(), json!({"lastUpdated": updated, "healthy": healthy}))).collect();
            body.insert("status".into(), status.into());
        }
        json_answer(good, Value::Object(body).to_string())
    }
}

fn json_answer(good: bool, body: String) -> Answer {
    let mut answer = full(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, "application/json", body);
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Serves `/healthz` and `/livez` until it is dropped, as soon as the port is free.
pub async fn serve_healthz(health: Arc<ProxyHealth>, measured: Arc<Measured>) {
    let listener = as_soon_as_free(HEALTHZ_PORT, || listen(HEALTHZ_PORT)).await;
    let answer = move |path: &str| {
        let answer = health.answer(path);
        measured.asked(path, answer.status().as_u16());
        answer
    };
    serve(listener, Arc::new(answer)).await;
}

/// Serves `/metrics`, which nobody from elsewhere may see, as soon as the port is free.
pub async fn serve_metrics(health: Arc<ProxyHealth>, measured: Arc<Measured>) {
    let listener = as_soon_as_free(METRICS_ADDRESS.port(), || TcpListener::bind(METRICS_ADDRESS)).await;
    let plain = |text: &str| full(StatusCode::OK, "text/plain; charset=utf-8", text.to_owned());
    let answer = move |path: &str| match path {
        "/metrics" => full(StatusCode::OK, basics::metrics::CONTENT_TYPE, measured.text()),
        "/healthz" if health.is_healthy() => plain("ok"),
        "/proxyMode" => plain("nftables"),
        _ => full(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n"),
    };
    serve(listener, Arc::new(answer)).await;
}

/// Another program may have the port: that is told, once, and tried again.
async fn as_soon_as_free<F: Future<Output = io::Result<TcpListener>>>(port: u16, listen: impl Fn() -> F) -> TcpListener {
    let mut told = false;
    loop {
        match listen().await {
            Ok(listener) => return listener,
            Err(error) if !told => tracing::warn!(%error, port, "a port of the service proxy cannot be had: trying again"),
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// On every address of the node.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
        other => other,
    }
}

type Asked = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

async fn serve(listener: TcpListener, asked: Asked) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let (stream, _) = basics::listen::accept(&listener, "health checks of Services").await;
        while connections.try_join_next().is_some() {}
        let asked = asked.clone();
        connections.spawn(async move {
            let service = service_fn(move |request: http::Request<Incoming>| {
                let answer = asked(request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            // Who is asked once a second needs no connection that stays.
            let connection = hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(LISTEN_AGAIN, connection).await {
                tracing::debug!(%error, "a health check's connection ended");
            }
            drop(seat);
        });
    }
}

struct Check {
    port: u16,
    endpoints: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// One server for each Service that wants it. Ends with them when dropped.
pub struct HealthChecks {
    node_name: String,
    health: Arc<ProxyHealth>,
    events: Recorder,
    open: BTreeMap<ServiceKey, Check>,
}

impl Drop for HealthChecks {
    fn drop(&mut self) {
        self.open.values().for_each(|check| check.task.abort());
    }
}

/// The Service, its port for health checks, and how many endpoints it has here.
pub type Wanted = Option<(Arc<Service>, u16, usize)>;

impl HealthChecks {
    pub fn new(node_name: &str, health: Arc<ProxyHealth>, events: Recorder) -> Self {
        Self { node_name: node_name.to_owned(), health, events, open: BTreeMap::new() }
    }

    /// Makes these Services be served as they say now, and leaves the others.
    pub async fn set(&mut self, changes: Vec<(ServiceKey, Wanted)>) {
        // Another may want the port that one gives up.
        for (key, wanted) in &changes {
            let port = wanted.as_ref().map(|(_, port, _)| *port);
            if self.open.get(key).is_some_and(|check| Some(check.port) != port)
                && let Some(check) = self.open.remove(key)
            {
                check.task.abort();
                // Until then the port is taken. It was told to end, so how it did is no news.
                let _ = check.task.await;
            }
        }
        for (key, wanted) in changes {
            let Some((service, port, endpoints)) = wanted else { continue };
            match self.open.get(&key) {
                Some(check) => check.endpoints.store(endpoints, Ordering::Relaxed),
                None => self.open(key, &service, port, endpoints).await,
            }
        }
    }

    async fn open(&mut self, key: ServiceKey, service: &Service, port: u16, endpoints: usize) {
        let listener = match listen(port).await {
            Ok(listener) => listener,
            Err(error) => {
                let (namespace, name) = &key;
                let message = format!("node {} failed to start healthcheck \"{namespace}/{name}\" on port {port}: {error}", self.node_name);
                tracing::error!(%error, port, service = %format_args!("{namespace}/{name}"), "a Service's health check is not served");
                return self.events.warning(&reference(service), "FailedToStartServiceHealthcheck", message);
            }
        };
        let endpoints = Arc::new(AtomicUsize::new(endpoints));
        let (count, health, (namespace, name)) = (endpoints.clone(), self.health.clone(), key.clone());
        let asked: Asked = Arc::new(move |_| service_answer(&namespace, &name, count.load(Ordering::Relaxed), health.is_healthy()));
        self.open.insert(key, Check { port, endpoints, task: tokio::spawn(serve(listener, asked)) });
    }
}

fn service_answer(namespace: &str, name: &str, endpoints: usize, healthy: bool) -> Answer {
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace:?},\n\t\t\"name\": {name:?}\n\t}},\n\t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let mut answer = json_answer(endpoints != 0 && healthy, body);
    answer.headers_mut().insert(WEIGHT, HeaderValue::from(endpoints));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    struct At(Mutex<Timestamp>);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            *self.0.lock()
        }
    }

    async fn read(answer: Answer) -> (u16, String) {
        let status = answer.status().as_u16();
        (status, String::from_utf8(answer.into_body().collect().await.expect("body").to_bytes().to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_service() {
        let (status, body) = read(service_answer("default", "web", 2, true)).await;
        let expected = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
        assert_eq!((status, body.as_str()), (200, expected));
        assert_eq!(service_answer("default", "web", 2, true).headers()[WEIGHT], "2");
        assert_eq!(service_answer("default", "web", 0, true).status(), 503);
        assert_eq!(service_answer("default", "web", 2, false).status(), 503);
    }

    #[tokio::test]
    async fn the_proxy() {
        let at: Timestamp = "2026-11-23T12:00:00Z".parse().expect("time");
        let clock = Arc::new(At(Mutex::new(at)));
        let health = ProxyHealth::new(clock.clone(), vec!["IPv4", "IPv6"]);
        let node = |value: Value| -> Node { serde_json::from_value(value).expect("node") };
        health.queued();
        assert!(health.is_healthy(), "it starts");
        assert_eq!(health.answer("/livez").status(), 200);
        assert_eq!(health.answer("/healthz").status(), 503, "there is no node");
        health.set_node(Some(&node(json!({"metadata": {"name": "a"}}))));
        health.updated();
        let (status, body) = read(health.answer("/healthz")).await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let family = json!({"lastUpdated": "2026-11-23T12:00:00Z", "healthy": true});
        let expected = json!({"lastUpdated": "2026-11-23T12:00:00Z", "currentTime": "2026-11-23T12:00:00Z", "nodeEligible": true, "healthy": true, "status": {"IPv4": family, "IPv6": family}});
        assert_eq!((status, body), (200, expected));
        health.queued();
        *clock.0.lock() = at + SignedDuration::from_secs(59);
        health.queued();
        assert!(health.is_healthy());
        *clock.0.lock() = at + SignedDuration::from_secs(61);
        assert_eq!((health.answer("/healthz").status().as_u16(), health.answer("/livez").status().as_u16()), (503, 503), "a change waits for too long");
        health.updated();
        health.set_node(Some(&node(json!({"metadata": {"name": "a"}, "spec": {"taints": [{"key": TO_BE_DELETED, "effect": "NoSchedule"}]}}))));
        assert_eq!((health.answer("/healthz").status().as_u16(), health.answer("/livez").status().as_u16()), (503, 200), "the node goes");
        assert_eq!(health.answer("/metrics").status(), 404);
    }
}
