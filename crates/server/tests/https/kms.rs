//! Encryption at rest with keys that a KMS plugin keeps: a small plugin behind a unix socket, on a thread of its own.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use server::{Encryption, follow_encryption};
use store::{Transform, TransformError};
use tokio::sync::watch;

use crate::encryption::{OPEN, SECRETS, holds, open, secret, write};
use crate::harness::Server;

/// The length-delimited fields of a message: tag and bytes. None of ours is longer than two bytes of length say.
fn fields(mut message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [key, length, rest @ ..] = message {
        let (length, rest) = if length & 0x80 == 0 { (usize::from(*length), rest) } else { (usize::from(length & 0x7f) | usize::from(rest[0]) << 7, &rest[1..]) };
        found.push((key >> 3, rest[..length].to_vec()));
        message = &rest[length..];
    }
    found
}

fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, value) in fields {
        out.extend([tag << 3 | 2, u8::try_from(value.len()).unwrap()]);
        out.extend_from_slice(value);
    }
    out
}

struct Plugin {
    key: Mutex<String>,
    health: Mutex<String>,
    calls: Mutex<Vec<String>>,
    /// It unseals everything to nothing.
    forgets: AtomicBool,
}

impl Plugin {
    fn start(socket: &Path) -> Arc<Self> {
        let plugin = Arc::new(Self { key: Mutex::new("k1".into()), health: Mutex::new("ok".into()), calls: Mutex::default(), forgets: AtomicBool::new(false) });
        let (serving, listener) = (plugin.clone(), std::os::unix::net::UnixListener::bind(socket).unwrap());
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let plugin = serving.clone();
                    let service = service_fn(move |request: http::Request<Incoming>| {
                        let plugin = plugin.clone();
                        async move {
                            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let answer = plugin.answer(&method, &body[5..]);
                            let mut framed = vec![0];
                            framed.extend(u32::try_from(answer.len()).unwrap().to_be_bytes());
                            framed.extend(answer);
                            let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))]);
                            let frames = [Frame::data(Bytes::from(framed)), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
                            let body = StreamBody::new(futures_util::stream::iter(frames));
                            Ok::<_, Infallible>(http::Response::builder().header("content-type", "application/grpc").body(body).unwrap())
                        }
                    });
                    tokio::spawn(async move { drop(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await) });
                }
            });
        });
        plugin
    }

    /// It seals by turning round, and notes its key before that.
    fn answer(&self, method: &str, asked: &[u8]) -> Vec<u8> {
        self.calls.lock().push(method.to_owned());
        let given = |tag: u8| fields(asked).into_iter().find(|(known, _)| *known == tag).map(|(_, value)| value).unwrap_or_default();
        let (key, turned) = (self.key.lock().clone(), given(1).into_iter().rev().collect::<Vec<u8>>());
        match method {
            "Status" => message(&[(1, b"v2"), (2, self.health.lock().as_bytes()), (3, key.as_bytes())]),
            "Encrypt" => message(&[(1, &turned), (2, key.as_bytes()), (3, &message(&[(1, b"version.example.com"), (2, b"1")]))]),
            _ => {
                assert_eq!(fields(&given(4)), [(1, b"version.example.com".to_vec()), (2, b"1".to_vec())]);
                message(&[(1, if self.forgets.load(Ordering::Relaxed) { &[] } else { &turned })])
            }
        }
    }

    fn calls(&self, method: &str) -> usize {
        self.calls.lock().iter().filter(|known| *known == method).count()
    }
}

#[tokio::test]
async fn a_plugin_keeps_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("encryption.yaml"), folder.path().join("kms.sock"));
    write(&file, &format!("  - kms: {{apiVersion: v2, name: plugin, endpoint: 'unix://{}', timeout: 60s}}\n  - identity: {{}}\n", socket.display()));
    let plugin = Plugin::start(&socket);
    let encryption = Encryption::open(&file).unwrap();
    {
        let server = Server::start_over(open(folder.path(), Some(&encryption)).await.unwrap(), |config| config.encryption = Some(encryption.clone())).await;
        server.post(SECRETS, secret("a")).await.expect(201);
        assert!(holds(folder.path(), b"k8s:enc:kms:v2:plugin:") && !holds(folder.path(), OPEN));
        // Another key of the plugin: another seed, once; the old one is known still.
        *plugin.key.lock() = "k2".into();
        encryption.poll();
        encryption.poll();
        server.post(SECRETS, secret("b")).await.expect(201);
        assert_eq!((plugin.calls("Encrypt"), plugin.calls("Decrypt")), (2, 0));
        assert_eq!(server.get("/healthz/kms-providers").await.expect(200).body, "ok");
        let metrics = String::from_utf8(server.get("/metrics").await.body.to_vec()).unwrap();
        for line in [
            "apiserver_envelope_encryption_kms_operations_latency_seconds_count{provider_name=\"plugin\",method_name=\"/v2.KeyManagementService/Encrypt\",grpc_status_code=\"OK\"} 2",
            "apiserver_envelope_encryption_dek_source_cache_size{provider_name=\"plugin\"} 2",
            "apiserver_storage_transformation_operations_total{resource=\"secrets\",transformation_type=\"to_storage\",transformer_prefix=\"k8s:enc:kms:v2:plugin:\",status=\"OK\"}",
        ] {
            assert!(metrics.contains(line), "{line} is not in {metrics}");
        }
        *plugin.health.lock() = "on fire".into();
        encryption.poll();
        let ill = server.get("/healthz/kms-providers").await.expect(500);
        assert_eq!(ill.body, "internal server error: healthz check kms-providers: kmsv2 Provider plugin is not healthy, error: got unexpected healthz status: on fire\n");
        server.get("/readyz").await.expect(500);
        server.get("/healthz/nonsense").await.expect(404);
        *plugin.health.lock() = "ok".into();
    }
    drop(encryption);
    // Whoever comes later asks for each seed once.
    let encryption = Encryption::open(&file).unwrap();
    let server = Server::start_over(open(folder.path(), Some(&encryption)).await.unwrap(), |_| {}).await;
    for name in ["a", "b"] {
        assert_eq!(server.get(&format!("{SECRETS}/{name}")).await.expect(200).json()["data"]["password"].as_str().map(str::as_bytes), Some(OPEN));
    }
    assert_eq!(plugin.calls("Decrypt"), 2);
}

/// A configuration whose plugin is not well would let nobody write any more.
#[tokio::test]
async fn a_plugin_is_taken_into_use_when_it_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("encryption.yaml"), folder.path().join("kms.sock"));
    write(&file, "  - identity: {}\n");
    let encryption = Encryption::open(&file).unwrap();
    let store = open(folder.path(), Some(&encryption)).await.unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(follow_encryption(encryption.clone(), store.clone(), stopped));
    let server = Server::start_over(store, |_| {}).await;
    let plugin = Plugin::start(&socket);
    *plugin.health.lock() = "on fire".into();
    write(&file, &format!("  - kms: {{apiVersion: v2, name: plugin, endpoint: 'unix://{}', timeout: 60s}}\n  - identity: {{}}\n", socket.display()));
    while !encryption.metrics().contains("apiserver_encryption_config_controller_automatic_reloads_total{status=\"failure\"") {
        tokio::task::yield_now().await;
    }
    server.post(SECRETS, secret("a")).await.expect(201);
    assert!(holds(folder.path(), OPEN), "what counted before counts on");
    *plugin.health.lock() = "ok".into();
    while !holds(folder.path(), b"k8s:enc:kms:v2:plugin:") || holds(folder.path(), OPEN) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_seed_that_is_none_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("encryption.yaml"), folder.path().join("kms.sock"));
    write(&file, &format!("  - kms: {{apiVersion: v2, name: plugin, endpoint: 'unix://{}', timeout: 60s}}\n", socket.display()));
    let plugin = Plugin::start(&socket);
    let place = "/registry/secrets/default/a";
    let sealed = Encryption::open(&file).unwrap().seal(place, b"plain").unwrap().unwrap();
    let encryption = Encryption::open(&file).unwrap();
    plugin.forgets.store(true, Ordering::Relaxed);
    assert_eq!(encryption.unseal(place, &sealed).map(drop), Err(TransformError("invalid seed length 0 used for key generation".into())));
    plugin.forgets.store(false, Ordering::Relaxed);
    assert_eq!(encryption.unseal(place, &sealed).unwrap().plain.as_deref(), Some(&b"plain"[..]));
}
