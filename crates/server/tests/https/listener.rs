//! A webhook's server in the test's process: HTTPS with a certificate of its own authority, answered by a closure, which is given path and body.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use pki::{Authority, Pki};

pub struct Listener {
    pub port: u16,
    /// PEM in base64: a `caBundle`.
    pub bundle: String,
    /// What was asked so far: path and body.
    pub asked: Arc<Mutex<Vec<(String, Value)>>>,
    /// The headers that came with them.
    pub heads: Arc<Mutex<Vec<http::HeaderMap>>>,
    connections: Arc<Mutex<usize>>,
}

impl Listener {
    /// `answer` makes a body of what was asked; None: no answer ever.
    pub async fn start(answer: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static) -> Self {
        let now = jiff::Timestamp::now().as_second();
        let authority = Authority::generate("webhook", now).unwrap();
        let dns = ["hook.default.svc".to_owned()];
        let identity = authority.issue(&Pki::Server { name: "webhook", groups: &[], dns: &dns, addresses: &[IpAddr::V4(Ipv4Addr::LOCALHOST)] }, now).unwrap();
        let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, connections, answer) = (Arc::<Mutex<Vec<(String, Value)>>>::default(), Arc::<Mutex<usize>>::default(), Arc::new(answer));
        let heads = Arc::<Mutex<Vec<http::HeaderMap>>>::default();
        let (seen, counted, noted) = (asked.clone(), connections.clone(), heads.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *counted.lock() += 1;
                let (acceptor, seen, answer, noted) = (acceptor.clone(), seen.clone(), answer.clone(), noted.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: http::Request<Incoming>| {
                        let (seen, answer, noted) = (seen.clone(), answer.clone(), noted.clone());
                        async move {
                            let path = request.uri().path().to_owned();
                            noted.lock().push(request.headers().clone());
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                            seen.lock().push((path.clone(), body.clone()));
                            match answer(&path, &body) {
                                Some(value) => Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::new(value.to_string().into()))),
                                None => std::future::pending().await,
                            }
                        }
                    });
                    // A client that goes away ends it.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, bundle: base64::engine::general_purpose::STANDARD.encode(&authority.identity.certificate_pem), asked, heads, connections }
    }

    pub fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.bundle})
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock()
    }

    /// The requests of all reviews so far, in their order.
    pub fn requests(&self) -> Vec<Value> {
        self.asked.lock().iter().map(|(_, review)| review["request"].clone()).collect()
    }
}
