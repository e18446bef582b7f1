//! Push and pull over loopback, against a registry written here.

mod server;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use image::registry::PullError;
use image::{BuildOptions, ChrootRunner, Credentials, Digest, ErrorKind, Registry, RegistryOptions, RootView, Store, build};
use serde_json::json;
use server::{Auth, Server, State};

struct Stores {
    dir: tempfile::TempDir,
    from: Arc<Store>,
    to: Arc<Store>,
}

fn stores() -> Stores {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| Arc::new(Store::open(dir.path().join(name)).unwrap());
    Stores { from: open("from"), to: open("to"), dir }
}

impl Stores {
    fn make(&self, tag: &str) -> image::Image {
        let context = self.dir.path().join("context");
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("file"), "hello").unwrap();
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY file /a/\nCOPY file /b/\nCMD [\"/x\"]\n").unwrap();
        let options = BuildOptions { context, tags: vec![tag.to_owned()], ..BuildOptions::default() };
        build(&self.from, &options, &ChrootRunner, &mut std::io::sink()).unwrap()
    }
}

fn client() -> Registry {
    Registry::new(RegistryOptions::default()).unwrap()
}

fn me(registry: &str) -> Vec<Credentials> {
    vec![Credentials { registry: registry.to_owned(), username: "me".into(), password: "secret".into() }]
}

fn content(image: &image::Image, path: &str) -> Vec<u8> {
    RootView::new(image.layers.clone()).read(Path::new(path)).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn push_then_pull() {
    let (server, stores) = (Server::start(State::default(), None).await, stores());
    let name = server.name("user/app:v1");
    let made = stores.make(&name);
    let digest = client().push(&stores.from, &name, &[]).await.unwrap();
    assert_eq!(digest, made.manifest);
    let pulled = client().pull(&stores.to, &name, &[]).await.unwrap();
    assert_eq!((&pulled.id, &pulled.config), (&made.id, &made.config));
    assert_eq!(pulled.repo_tags, [name.clone()]);
    assert_eq!(pulled.repo_digests, [format!("{}@{digest}", server.name("user/app"))]);
    assert_eq!(content(&pulled, "a/file"), b"hello");
    // Pushing again sends no blob; pulling again fetches none.
    let uploads = || server.state.lock().log.iter().filter(|(m, _, _)| *m == http::Method::POST).count();
    let before = uploads();
    client().push(&stores.from, &name, &[]).await.unwrap();
    assert_eq!(uploads(), before);
    server.state.lock().blobs.clear();
    client().pull(&stores.to, &name, &[]).await.unwrap();
    // By digest.
    let by_digest = format!("{}@{digest}", server.name("user/app"));
    assert_eq!(client().pull(&stores.to, &by_digest, &[]).await.unwrap().id, made.id);
    // As a mirror of docker.io.
    let options = RegistryOptions { mirrors: [("docker.io".to_owned(), server.address.clone())].into(), ..RegistryOptions::default() };
    let image = Registry::new(options).unwrap().pull(&stores.to, "user/app:v1", &[]).await.unwrap();
    assert!(image.repo_tags.contains(&"docker.io/user/app:v1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_and_compressed_layers() {
    let (server, stores) = (Server::start(State::default(), None).await, stores());
    let made = stores.make("plain");
    let read = |digest: &Digest| std::fs::read(stores.from.blob_path(digest)).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&read(&made.manifest)).unwrap();
    let mut layers = Vec::new();
    for (i, layer) in manifest["layers"].as_array().unwrap().iter().enumerate() {
        let plain = read(&Digest::parse(layer["digest"].as_str().unwrap()).unwrap());
        let (bytes, media_type) = if i == 0 {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&plain).unwrap();
            (gzip.finish().unwrap(), "application/vnd.docker.image.rootfs.diff.tar.gzip")
        } else {
            (zstd::encode_all(plain.as_slice(), 1).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd")
        };
        let digest = Digest::of(&bytes).to_string();
        layers.push(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}));
        server.state.lock().blobs.insert(digest, bytes.into());
    }
    let put = |key: &str, media_type: &str, document: &serde_json::Value| {
        let bytes = Bytes::from(document.to_string());
        let digest = Digest::of(&bytes);
        let mut state = server.state.lock();
        for key in [key.to_owned(), format!("multi/{digest}")] {
            state.manifests.insert(key, (media_type.to_owned(), bytes.clone()));
        }
        digest
    };
    server.state.lock().blobs.insert(made.id.to_string(), read(&made.id).into());
    let document = json!({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "config": manifest["config"], "layers": layers});
    let inner = put("multi/only", "application/vnd.docker.distribution.manifest.v2+json", &document);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let entry = |architecture: &str| json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": inner.to_string(), "size": 1, "platform": {"os": "linux", "architecture": architecture}});
    let index = json!({"schemaVersion": 2, "manifests": [entry("s390x"), entry(architecture)]});
    let top = put("multi/latest", "application/vnd.docker.distribution.manifest.list.v2+json", &index);
    let foreign = json!({"schemaVersion": 2, "manifests": [entry("s390x")]});
    // No media type at all in the answer: the document tells.
    put("multi/foreign", "application/json", &foreign);

    let pulled = client().pull(&stores.to, &server.name("multi"), &[]).await.unwrap();
    assert_eq!(pulled.id, made.id);
    assert_eq!(pulled.manifest, inner);
    assert_eq!(pulled.repo_digests, [format!("{}@{top}", server.name("multi"))]);
    assert_eq!((content(&pulled, "a/file"), content(&pulled, "b/file")), (b"hello".to_vec(), b"hello".to_vec()));
    let error = client().pull(&stores.to, &server.name("multi:foreign"), &[]).await.unwrap_err();
    assert!(error.to_string().ends_with("no match for platform in manifest: not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_and_kept_to_their_host() {
    for auth in [Auth::Basic, Auth::Token] {
        let stores = stores();
        let server = Server::start(State { auth, ..State::default() }, None).await;
        let name = server.name("private:1");
        stores.make(&name);
        let refused = client().push(&stores.from, &name, &[]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthorized, "{refused}");
        client().push(&stores.from, &name, &me(&server.address)).await.unwrap();
        // Blobs lie on another host, which must not see the secret.
        let blobs = std::mem::take(&mut server.state.lock().blobs);
        let other = Server::start(State { blobs, ..State::default() }, None).await;
        server.state.lock().redirect = Some(other.address.clone());
        let mut wrong_first = me(&server.address);
        wrong_first[0].password = "wrong".into();
        wrong_first.extend(me(&server.address));
        client().pull(&stores.to, &name, &wrong_first).await.unwrap();
        let log = &other.state.lock().log;
        assert!(!log.is_empty() && log.iter().all(|(_, _, authorization)| authorization.is_none()));
        let error = client().pull(&stores.to, &name, &wrong_first[..1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        let start = format!("failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": pull access denied, repository does not exist or may require authorization: server message: ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart() {
    let (server, stores) = (Server::start(State::default(), None).await, stores());
    let error = client().pull(&stores.to, &server.name("nosuch:v1"), &[]).await.unwrap_err();
    let name = server.name("nosuch:v1");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!("failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found")
    );
    let error = client().pull(&stores.to, "/worker:v0.3", &[]).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Invalid, "couldn't parse image reference \"/worker:v0.3\": invalid reference format".into()));
    // Nobody listens there.
    let gone = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let error = client().pull(&stores.to, &format!("{gone}/x:1"), &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let want = format!("failed to do request: Get \"http://{gone}/v2/x/manifests/1\": dial tcp {gone}: connect: connection refused");
    assert!(error.to_string().ends_with(&want), "{error}");

    // A registry that sends other bytes than it promised: refused, nothing named, nothing left behind.
    let name = server.name("user/app:v1");
    let made = stores.make(&name);
    client().push(&stores.from, &name, &[]).await.unwrap();
    server.state.lock().blobs.values_mut().for_each(|blob| *blob = Bytes::from_static(b"forged"));
    let error = client().pull(&stores.to, &name, &[]).await.unwrap_err();
    assert!(matches!(error, PullError::Store { .. }), "{error}");
    assert!(stores.to.list().unwrap().is_empty() && !stores.to.has_blob(&made.id));
    server.state.lock().manifests.values_mut().for_each(|(_, document)| *document = Bytes::from_static(b"{"));
    assert!(client().pull(&stores.to, &name, &[]).await.is_err());
    let error = client().push(&stores.from, "nosuch", &[]).await.unwrap_err();
    assert_eq!(error.to_string(), "An image does not exist locally with the tag: nosuch:latest");
}

#[tokio::test(flavor = "multi_thread")]
async fn https_with_a_private_authority() {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let stores = stores();
    let pem = stores.dir.path().join("ca.pem");
    std::fs::write(&pem, key.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private.into())
        .unwrap();
    let server = Server::start(State::default(), Some(Arc::new(config).into())).await;
    // Loopback would be plain HTTP: reached as the mirror under a name it is not loopback for.
    let name = "registry.test/x:1";
    stores.make(name);
    let port = server.address.rsplit_once(':').unwrap().1;
    let options = |roots| RegistryOptions {
        roots,
        mirrors: [("registry.test".to_owned(), format!("https://127.0.0.1:{port}"))].into(),
        ..RegistryOptions::default()
    };
    let trusting = Registry::new(options(vec![pem])).unwrap();
    trusting.push(&stores.from, name, &[]).await.unwrap();
    trusting.pull(&stores.to, name, &[]).await.unwrap();
    let error = Registry::new(options(vec![])).unwrap().pull(&stores.to, name, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("tls: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_network_fails_soon() {
    let stores = stores();
    let start = Instant::now();
    let error = client().pull(&stores.to, "registry.invalid/nosuch:latest", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    let start_text = "failed to pull and unpack image \"registry.invalid/nosuch:latest\": failed to resolve reference \"registry.invalid/nosuch:latest\": failed to do request: Get \"https://registry.invalid/v2/nosuch/manifests/latest\": dial tcp: lookup registry.invalid";
    assert!(error.to_string().starts_with(start_text), "{error}");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
