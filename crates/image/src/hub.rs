//! The other side of the distribution specification v2: a registry over a store. Pull, push (whole or in pieces), tags; no deleting, and nobody is asked who they are.
//!
//! Knows nothing of sockets: who serves HTTP hands over what was asked and writes back what is answered. Mirrors the CNCF distribution's registry in paths,
//! headers and error codes. Kept are images; lists for several architectures are refused (`MANIFEST_INVALID`), since a store holds what this machine can run.
//! Uploads that nobody finishes stay until the registry is opened again.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;
use crate::files::remove_all;
use crate::oci::media;
use crate::reference::{DEFAULT_DOMAIN, Reference};
use crate::store::{DOCUMENT_MAX, Store, StoreError, io_error};

/// Names that docker and others know the default registry by.
const HUB_NAMES: [&str; 3] = ["registry-1.docker.io", "index.docker.io", "docker.io"];

/// What is asked; the body comes beside it.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub method: &'a str,
    /// Whom the client thinks it talks to: the registry of the names.
    pub host: &'a str,
    /// With the query: `/v2/library/alpine/manifests/latest`.
    pub target: &'a str,
    pub content_type: &'a str,
}

#[derive(Debug)]
pub enum Content {
    Bytes(Vec<u8>),
    File(File, u64),
}

impl Content {
    pub fn length(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(_, length) => *length,
        }
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// Of an answer to HEAD only the length is sent.
    pub content: Content,
}

impl Reply {
    fn new(status: u16, headers: Vec<(&'static str, String)>) -> Self {
        Self { status, headers, content: Content::Bytes(Vec::new()) }
    }

    fn json(status: u16, value: &serde_json::Value) -> Self {
        Self { status, headers: vec![("Content-Type", "application/json".into())], content: Content::Bytes(value.to_string().into_bytes()) }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &serde_json::json!({"errors": [{"code": code, "message": message}]}))
    }
}

pub struct Hub {
    store: Store,
    uploads: PathBuf,
    next: AtomicU64,
}

/// What of a registry a path names.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Root,
    Manifest(&'a str, &'a str),
    Blob(&'a str),
    Uploads(&'a str),
    Upload(&'a str, u64),
    Tags(&'a str),
    Nowhere,
}

fn place(path: &str) -> Place<'_> {
    let Some(rest) = path.strip_prefix("/v2") else { return Place::Nowhere };
    if matches!(rest, "" | "/") {
        return Place::Root;
    }
    let rest = rest.trim_start_matches('/');
    if let Some((name, object)) = rest.rsplit_once("/manifests/") {
        return Place::Manifest(name, object);
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Place::Tags(name);
    }
    match rest.rsplit_once("/blobs/uploads") {
        Some((name, "" | "/")) => return Place::Uploads(name),
        Some((name, number)) => return number.trim_start_matches('/').parse().map_or(Place::Nowhere, |number| Place::Upload(name, number)),
        None => {}
    }
    rest.rsplit_once("/blobs/").map_or(Place::Nowhere, |(_, digest)| Place::Blob(digest))
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Digests are the only values with something to decode in them.
fn digest_of(text: &str) -> Option<Digest> {
    Digest::parse(&text.replace("%3A", ":").replace("%3a", ":")).ok()
}

impl Hub {
    /// One registry a store.
    pub fn open(store: Store) -> Result<Self, StoreError> {
        let uploads = store.dir().join("uploads");
        remove_all(&uploads).map_err(io_error(&uploads))?;
        fs::create_dir_all(&uploads).map_err(io_error(&uploads))?;
        Ok(Self { store, uploads, next: AtomicU64::new(1) })
    }

    /// Names of the registry that `host` is.
    fn reference(host: &str, name: &str, object: &str) -> Option<Reference> {
        let domain = if HUB_NAMES.contains(&host) { DEFAULT_DOMAIN } else { host };
        let separator = if object.contains(':') { '@' } else { ':' };
        Reference::parse(&format!("{domain}/{name}{separator}{object}")).ok()
    }

    pub fn answer(&self, ask: &Ask, body: &mut dyn Read) -> Reply {
        let (path, query) = ask.target.split_once('?').unwrap_or((ask.target, ""));
        let reply = match (ask.method, place(path)) {
            ("GET" | "HEAD", Place::Root) => Ok(Reply::json(200, &serde_json::json!({}))),
            ("GET" | "HEAD", Place::Manifest(name, object)) => self.manifest(ask.host, name, object),
            ("PUT", Place::Manifest(name, object)) => self.put_manifest(ask, name, object, body),
            ("GET" | "HEAD", Place::Blob(digest)) => self.blob(digest),
            ("GET", Place::Tags(name)) => self.tags(ask.host, name),
            ("POST", Place::Uploads(name)) => self.begin(name, query, body),
            ("PATCH", Place::Upload(name, number)) => self.append(name, number, body),
            ("PUT", Place::Upload(name, number)) => self.finish(name, number, query, body),
            (_, Place::Nowhere) => Ok(Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry")),
            _ => Ok(Reply::error(405, "UNSUPPORTED", "The operation is unsupported.")),
        };
        let mut reply = reply.unwrap_or_else(|error| match error {
            StoreError::DigestMismatch { .. } => Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
            other => Reply::error(500, "UNKNOWN", &other.to_string()),
        });
        reply.headers.push(("Docker-Distribution-Api-Version", "registry/2.0".into()));
        reply
    }

    fn manifest(&self, host: &str, name: &str, object: &str) -> Result<Reply, StoreError> {
        let unknown = || Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        let Some(reference) = Self::reference(host, name, object) else { return Ok(unknown()) };
        let Some(image) = self.store.resolve(&reference.to_string())? else { return Ok(unknown()) };
        let bytes = self.store.read_document(&image.manifest)?;
        let media_type = match self.store.documents(&image.manifest)?.manifest.media_type.as_str() {
            "" => media::MANIFEST.to_owned(),
            given => given.to_owned(),
        };
        Ok(Reply { status: 200, headers: vec![("Content-Type", media_type), ("Docker-Content-Digest", image.manifest.to_string())], content: Content::Bytes(bytes) })
    }

    fn put_manifest(&self, ask: &Ask, name: &str, object: &str, body: &mut dyn Read) -> Result<Reply, StoreError> {
        let invalid = |why: &str| Ok(Reply::error(400, "MANIFEST_INVALID", why));
        let Some(reference) = Self::reference(ask.host, name, object) else { return invalid("manifest invalid: no such name can be") };
        if matches!(ask.content_type, media::INDEX | media::DOCKER_LIST) {
            return invalid("manifest invalid: this registry keeps images, no lists of them");
        }
        let mut bytes = Vec::new();
        body.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).map_err(io_error(&self.uploads))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            return invalid("manifest invalid: too large");
        }
        let digest = Digest::of(&bytes);
        if reference.digest.as_ref().is_some_and(|expected| *expected != digest) {
            return Ok(Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"));
        }
        let Ok(manifest) = serde_json::from_slice::<crate::oci::Manifest>(&bytes) else { return invalid("manifest invalid: not an image's") };
        if let Some(missing) = manifest.layers.iter().chain([&manifest.config]).find(|blob| !self.store.has_blob(&blob.digest)) {
            return Ok(Reply::error(400, "MANIFEST_BLOB_UNKNOWN", &format!("blob unknown to registry: {}", missing.digest)));
        }
        let _adding = self.store.adding()?;
        self.store.put_blob(&bytes)?;
        self.store.name_image(&digest, &[reference.to_string()])?;
        Ok(Reply::new(201, vec![("Location", format!("/v2/{name}/manifests/{digest}")), ("Docker-Content-Digest", digest.to_string())]))
    }

    fn blob(&self, digest: &str) -> Result<Reply, StoreError> {
        let unknown = || Ok(Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry"));
        let Some(digest) = digest_of(digest) else { return unknown() };
        let path = self.store.blob_path(&digest);
        match File::open(&path) {
            Ok(file) => {
                let length = file.metadata().map_err(io_error(&path))?.len();
                let headers = vec![("Content-Type", "application/octet-stream".to_owned()), ("Docker-Content-Digest", digest.to_string())];
                Ok(Reply { status: 200, headers, content: Content::File(file, length) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => unknown(),
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    fn tags(&self, host: &str, name: &str) -> Result<Reply, StoreError> {
        let Some(repository) = Self::reference(host, name, "latest").map(|reference| reference.repository()) else {
            return Ok(Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry"));
        };
        let images = self.store.list()?;
        let mut tags: Vec<&str> = images.iter().flat_map(|image| &image.repo_tags).filter_map(|tag| tag.strip_prefix(&repository)?.strip_prefix(':')).collect();
        tags.sort_unstable();
        Ok(match tags.as_slice() {
            [] => Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry"),
            tags => Reply::json(200, &serde_json::json!({"name": name, "tags": tags})),
        })
    }

    // ---- uploads ----

    fn upload(&self, number: u64) -> PathBuf {
        self.uploads.join(number.to_string())
    }

    fn accepted(name: &str, number: u64, length: u64) -> Reply {
        let headers = vec![
            ("Location", format!("/v2/{name}/blobs/uploads/{number}")),
            ("Range", format!("0-{}", length.saturating_sub(1))),
            ("Docker-Upload-UUID", number.to_string()),
        ];
        Reply::new(202, headers)
    }

    fn created(name: &str, digest: &Digest) -> Reply {
        Reply::new(201, vec![("Location", format!("/v2/{name}/blobs/{digest}")), ("Docker-Content-Digest", digest.to_string())])
    }

    /// With `mount` what is here already, with `digest` all at once, else in pieces.
    fn begin(&self, name: &str, query: &str, body: &mut dyn Read) -> Result<Reply, StoreError> {
        if let Some(digest) = parameter(query, "mount").and_then(digest_of).filter(|digest| self.store.has_blob(digest)) {
            return Ok(Self::created(name, &digest));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.upload(number);
        File::create_new(&path).map_err(io_error(&path))?;
        match parameter(query, "digest") {
            Some(_) => self.finish(name, number, query, body),
            None => Ok(Self::accepted(name, number, 0)),
        }
    }

    fn append(&self, name: &str, number: u64, body: &mut dyn Read) -> Result<Reply, StoreError> {
        let path = self.upload(number);
        let Ok(mut file) = File::options().append(true).open(&path) else { return Ok(Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")) };
        io::copy(body, &mut file).map_err(io_error(&path))?;
        Ok(Self::accepted(name, number, file.metadata().map_err(io_error(&path))?.len()))
    }

    fn finish(&self, name: &str, number: u64, query: &str, body: &mut dyn Read) -> Result<Reply, StoreError> {
        let Some(digest) = parameter(query, "digest").and_then(digest_of) else {
            return Ok(Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"));
        };
        let path = self.upload(number);
        let Ok(mut earlier) = File::open(&path) else { return Ok(Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")) };
        let mut blob = self.store.blob_writer()?;
        io::copy(&mut earlier, &mut blob).and_then(|_| io::copy(body, &mut blob)).and_then(|_| blob.flush()).map_err(io_error(&path))?;
        let outcome = blob.commit(Some(&digest));
        fs::remove_file(&path).map_err(io_error(&path))?;
        outcome.map(|_| Self::created(name, &digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &mut Reply) -> Vec<u8> {
        match &mut reply.content {
            Content::Bytes(bytes) => std::mem::take(bytes),
            Content::File(file, _) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                bytes
            }
        }
    }

    fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
        reply.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    #[test]
    fn places() {
        for (path, expected) in [
            ("/v2/", Place::Root),
            ("/v2", Place::Root),
            ("/v2/library/alpine/manifests/latest", Place::Manifest("library/alpine", "latest")),
            ("/v2/a/blobs/sha256:1", Place::Blob("sha256:1")),
            ("/v2/a/b/blobs/uploads/", Place::Uploads("a/b")),
            ("/v2/a/blobs/uploads", Place::Uploads("a")),
            ("/v2/a/blobs/uploads/12", Place::Upload("a", 12)),
            ("/v2/a/blobs/uploads/../x", Place::Nowhere),
            ("/v2/a/tags/list", Place::Tags("a")),
            ("/v1/a", Place::Nowhere),
        ] {
            assert_eq!(place(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_pushed_can_be_pulled() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::open(Store::open(folder.path()).unwrap()).unwrap();
        let ask = |method: &str, host: &str, target: &str, content_type: &str, body: &[u8]| hub.answer(&Ask { method, host, target, content_type }, &mut &body[..]);
        let call = |method: &str, target: &str, body: &[u8]| ask(method, "registry-1.docker.io", target, media::MANIFEST, body);
        assert_eq!(call("GET", "/v2/", b"").status, 200);

        // An empty layer, in pieces; the config at once.
        let layer = vec![0; 1024];
        let (layer_digest, config) = (Digest::of(&layer), format!(r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, Digest::of(&layer)));
        let config_digest = Digest::of(config.as_bytes());
        assert_eq!(call("HEAD", &format!("/v2/me/app/blobs/{layer_digest}"), b"").status, 404);
        let begun = call("POST", "/v2/me/app/blobs/uploads/", b"");
        let location = header(&begun, "Location").to_owned();
        assert_eq!((begun.status, location.as_str()), (202, "/v2/me/app/blobs/uploads/1"));
        let more = call("PATCH", &location, &layer[..1000]);
        assert_eq!((more.status, header(&more, "Range")), (202, "0-999"));
        assert_eq!(call("PUT", &format!("{location}?digest={config_digest}"), &layer[1000..]).status, 400, "not what was announced");
        let location = header(&call("POST", "/v2/me/app/blobs/uploads/", b""), "Location").to_owned();
        assert_eq!(call("PUT", &format!("{location}?digest={}", layer_digest.to_string().replace(':', "%3A")), &layer).status, 201);
        assert_eq!(call("PUT", &format!("{location}?digest={layer_digest}"), &layer).status, 404, "it is over");
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media::MANIFEST,
            "config": {"mediaType": media::CONFIG, "digest": config_digest, "size": config.len()},
            "layers": [{"mediaType": media::LAYER_TAR, "digest": layer_digest, "size": layer.len()}]})
        .to_string();
        assert_eq!(call("PUT", "/v2/me/app/manifests/v1", manifest.as_bytes()).status, 400, "its config is not here yet");
        assert_eq!(call("POST", &format!("/v2/me/app/blobs/uploads/?digest={config_digest}"), config.as_bytes()).status, 201);
        assert_eq!(call("POST", &format!("/v2/me/other/blobs/uploads/?mount={config_digest}&from=me/app"), b"").status, 201);
        assert_eq!(call("PUT", "/v2/me/app/manifests/v1", b"{}").status, 400);
        assert_eq!(ask("PUT", "docker.io", "/v2/me/app/manifests/v1", media::INDEX, b"{}").status, 400);
        assert_eq!(call("PUT", "/v2/me/app/manifests/v1", manifest.as_bytes()).status, 201);

        let digest = Digest::of(manifest.as_bytes());
        for object in ["v1", digest.as_str()] {
            let mut got = ask("GET", "index.docker.io", &format!("/v2/me/app/manifests/{object}"), "", b"");
            assert_eq!((got.status, header(&got, "Content-Type"), header(&got, "Docker-Content-Digest")), (200, media::MANIFEST, digest.as_str()), "{object}");
            assert_eq!(text(&mut got), manifest.as_bytes());
        }
        assert_eq!(text(&mut call("GET", &format!("/v2/me/app/blobs/{layer_digest}"), b"")), layer);
        assert_eq!(text(&mut call("GET", "/v2/me/app/tags/list", b"")), br#"{"name":"me/app","tags":["v1"]}"#);
        // Another registry's names are others.
        assert_eq!(ask("GET", "quay.io", "/v2/me/app/manifests/v1", "", b"").status, 404);
        for (method, target, status) in [
            ("GET", "/v2/me/app/manifests/v2", 404),
            ("GET", "/v2/me/app/blobs/sha256:../../etc/passwd", 404),
            ("GET", "/v2/UPPER/manifests/v1", 404),
            ("DELETE", "/v2/me/app/manifests/v1", 405),
            ("GET", "/v3/", 404),
        ] {
            assert_eq!(call(method, target, b"").status, status, "{method} {target}");
        }
    }
}
