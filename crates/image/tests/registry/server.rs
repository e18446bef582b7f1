//! A registry small enough to read: the distribution API in memory, with switches for authentication and faults.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Default, Clone, Copy, PartialEq)]
pub enum Auth {
    #[default]
    Open,
    Basic,
    Token,
}

#[derive(Default)]
pub struct State {
    pub auth: Auth,
    pub blobs: HashMap<String, Bytes>,
    /// `name/tag` or `name/sha256:…` → media type and document.
    pub manifests: HashMap<String, (String, Bytes)>,
    /// Blobs are answered with a redirect to this other registry.
    pub redirect: Option<String>,
    /// Requests seen: method, path, Authorization.
    pub log: Vec<(Method, String, Option<String>)>,
}

pub type Shared = Arc<Mutex<State>>;

pub struct Server {
    pub address: String,
    pub state: Shared,
}

/// Base64 of `me:secret`.
pub const BASIC: &str = "Basic bWU6c2VjcmV0";

impl Server {
    pub async fn start(state: State, tls: Option<TlsAcceptor>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state: Shared = Arc::new(Mutex::new(state));
        let (shared, own) = (state.clone(), address.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, own, tls) = (shared.clone(), own.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let (state, own) = (state.clone(), own.clone());
                        async move { Ok::<_, std::convert::Infallible>(answer(&state, &own, request).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => return,
                        },
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                    };
                });
            }
        });
        Server { address, state }
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

async fn answer(state: &Shared, own: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path().to_owned();
    let authorization = head.headers.get("authorization").map(|h| h.to_str().unwrap().to_owned());
    let mut state = state.lock();
    state.log.push((head.method.clone(), path.clone(), authorization.clone()));
    if path == "/token" {
        let query = head.uri.query().unwrap_or_default();
        assert!(query.contains("service=test") && query.contains("scope=repository:"), "{query}");
        return match authorization.as_deref() {
            Some(BASIC) => plain(StatusCode::OK, r#"{"token":"good"}"#),
            _ => plain(StatusCode::UNAUTHORIZED, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#),
        };
    }
    let (allowed, challenge) = match state.auth {
        Auth::Open => (true, String::new()),
        Auth::Basic => (authorization.as_deref() == Some(BASIC), "Basic realm=\"test\"".to_owned()),
        Auth::Token => {
            let scope = format!("repository:{}:pull,push", path.split('/').nth(2).unwrap_or_default());
            (authorization.as_deref() == Some("Bearer good"), format!("Bearer realm=\"http://{own}/token\",service=\"test\",scope=\"{scope}\""))
        }
    };
    if !allowed {
        let mut response = plain(StatusCode::UNAUTHORIZED, "");
        response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
        return response;
    }
    let Some(rest) = path.strip_prefix("/v2/") else { return plain(StatusCode::NOT_FOUND, "") };
    if let Some((name, object)) = rest.split_once("/manifests/") {
        return manifest(&mut state, &head, name, object, body);
    }
    if rest.ends_with("/blobs/uploads/") && head.method == Method::POST {
        let mut response = plain(StatusCode::ACCEPTED, "");
        response.headers_mut().insert("location", format!("/v2/{rest}1?state=x").parse().unwrap());
        return response;
    }
    if rest.contains("/blobs/uploads/") && head.method == Method::PUT {
        let digest = head.uri.query().unwrap().split("digest=").nth(1).unwrap().to_owned();
        assert_eq!(image::Digest::of(&body).as_str(), digest, "the body is what the digest says");
        state.blobs.insert(digest, body);
        return plain(StatusCode::CREATED, "");
    }
    let Some((_, digest)) = rest.split_once("/blobs/") else { return plain(StatusCode::NOT_FOUND, "") };
    if let Some(target) = &state.redirect {
        let mut response = plain(StatusCode::TEMPORARY_REDIRECT, "");
        response.headers_mut().insert("location", format!("http://{target}{path}").parse().unwrap());
        return response;
    }
    match state.blobs.get(digest) {
        Some(blob) => plain(StatusCode::OK, blob.clone()),
        None => plain(StatusCode::NOT_FOUND, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no"}]}"#),
    }
}

fn manifest(state: &mut State, head: &http::request::Parts, name: &str, object: &str, body: Bytes) -> Response<Full<Bytes>> {
    let key = format!("{name}/{object}");
    if head.method == Method::PUT {
        let media_type = head.headers["content-type"].to_str().unwrap().to_owned();
        let digest = image::Digest::of(&body);
        state.manifests.insert(format!("{name}/{digest}"), (media_type.clone(), body.clone()));
        state.manifests.insert(key, (media_type, body));
        return plain(StatusCode::CREATED, "");
    }
    match state.manifests.get(&key) {
        Some((media_type, document)) => {
            let mut response = plain(StatusCode::OK, document.clone());
            response.headers_mut().insert("content-type", media_type.parse().unwrap());
            response
        }
        None => plain(StatusCode::NOT_FOUND, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#),
    }
}
