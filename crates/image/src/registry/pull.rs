//! Pull: name → manifest for this machine → config → layers (several at once, each verified, unpacked as it arrives).

use std::io::Write;
use std::sync::Arc;

use futures_util::TryStreamExt;
use http::Method;
use http_body_util::BodyExt;

use futures_util::future::BoxFuture;

use super::request::{Call, SILENCE_MAX, Session, read};
use super::{Credentials, ErrorKind, PullError, Registry, RequestError};
use crate::digest::Digest;
use crate::oci::{ConfigFile, Index, Manifest, media};
use crate::reference::Reference;
use crate::store::{Image, Store, StoreError};

/// As containerd's default.
const PARALLEL_LAYERS: usize = 3;
const MANIFESTS: &[&str] = &[media::MANIFEST, media::INDEX, media::DOCKER_MANIFEST, media::DOCKER_LIST];

impl Registry {
    /// Brings an image into the store. Credentials that apply are tried, the most specific first, then none.
    pub fn pull<'a>(&'a self, store: &'a Arc<Store>, name: &'a str, credentials: &'a [Credentials]) -> BoxFuture<'a, Result<Image, PullError>> {
        Box::pin(self.pulled(store, name, credentials))
    }

    async fn pulled(&self, store: &Arc<Store>, name: &str, credentials: &[Credentials]) -> Result<Image, PullError> {
        let reference = Reference::parse(name)?;
        let mut candidates: Vec<Option<&Credentials>> =
            Credentials::for_reference(credentials, &reference).into_iter().map(Some).collect();
        candidates.push(None);
        let mut refused = None;
        for candidate in candidates {
            match self.pull_with(store, &reference, candidate).await {
                // The first refusal is the one worth telling: it was of the best credentials.
                Err(e) if e.kind() == ErrorKind::Unauthorized => _ = refused.get_or_insert(e),
                other => return other,
            }
        }
        Err(refused.unwrap_or_else(|| PullError::Resolve {
            reference: reference.to_string(),
            source: RequestError::NotFound(reference.to_string()),
        }))
    }

    async fn pull_with(&self, store: &Arc<Store>, reference: &Reference, credentials: Option<&Credentials>) -> Result<Image, PullError> {
        let name = reference.to_string();
        let session = Session::new(self, reference, credentials, "pull");
        let stored = |source| PullError::Store { reference: name.clone(), source };
        let locking = store.clone();
        let _adding = blocking(move || locking.adding()).await.map_err(stored)?;

        let resolve = |source| PullError::Resolve { reference: name.clone(), source };
        let (bytes, media_type) = fetch_manifest(&session, reference.object()).await.map_err(resolve)?;
        let top = Digest::of(&bytes);
        if let Some(expected) = &reference.digest
            && *expected != top
        {
            return Err(stored(StoreError::DigestMismatch { expected: expected.clone(), actual: top }));
        }
        let (digest, bytes) = self.manifest_for_here(&session, &name, &top, bytes, &media_type).await?;
        let document = |document: &Digest, reason: String| PullError::Document { reference: name.clone(), document: document.clone(), reason };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| document(&digest, e.to_string()))?;

        self.fetch_blob(&session, store, &name, &manifest.config.digest).await?;
        let config = store.read_document(&manifest.config.digest).map_err(stored)?;
        let config: ConfigFile = serde_json::from_slice(&config).map_err(|e| document(&manifest.config.digest, e.to_string()))?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(document(&digest, "the numbers of layers and diff IDs differ".into()));
        }
        futures_util::stream::iter(manifest.layers.iter().zip(&config.rootfs.diff_ids).map(Ok))
            .try_for_each_concurrent(PARALLEL_LAYERS, |(layer, diff_id)| {
                let (session, name) = (&session, &name);
                async move {
                    self.fetch_blob(session, store, name, &layer.digest).await?;
                    let (store, blob, diff_id) = (store.clone(), layer.digest.clone(), diff_id.clone());
                    let unpacked = blocking(move || store.unpack_layer(&blob, &diff_id)).await;
                    unpacked.map(drop).map_err(|source| PullError::Store { reference: name.clone(), source })
                }
            })
            .await?;

        let mut names = vec![reference.at(&top).to_string()];
        if reference.digest.is_none() {
            names.push(name.clone());
        }
        let finishing = store.clone();
        let image = blocking(move || {
            finishing.put_blob(&bytes)?;
            finishing.name_image(&digest, &names)?;
            finishing.resolve(digest.as_str())?.ok_or(StoreError::NotFound(digest.to_string()))
        });
        image.await.map_err(stored)
    }

    /// Follows an index to the manifest of this architecture.
    async fn manifest_for_here(
        &self,
        session: &Session<'_>,
        name: &str,
        top: &Digest,
        bytes: Vec<u8>,
        media_type: &str,
    ) -> Result<(Digest, Vec<u8>), PullError> {
        let document = |reason: String| PullError::Document { reference: name.to_owned(), document: top.clone(), reason };
        match media_type {
            media::INDEX | media::DOCKER_LIST => {}
            media::MANIFEST | media::DOCKER_MANIFEST => return Ok((top.clone(), bytes)),
            other => return Err(document(format!("media type {other:?} is not supported"))),
        }
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| document(e.to_string()))?;
        let chosen = index.for_this_machine().ok_or_else(|| PullError::NoPlatform { reference: name.to_owned() })?;
        let fetched = fetch_manifest(session, chosen.digest.as_str()).await;
        let (bytes, _) = fetched.map_err(|source| PullError::Fetch { reference: name.to_owned(), source })?;
        let actual = Digest::of(&bytes);
        if actual != chosen.digest {
            let source = StoreError::DigestMismatch { expected: chosen.digest.clone(), actual };
            return Err(PullError::Store { reference: name.to_owned(), source });
        }
        Ok((actual, bytes))
    }

    async fn fetch_blob(&self, session: &Session<'_>, store: &Store, name: &str, digest: &Digest) -> Result<(), PullError> {
        if store.has_blob(digest) {
            return Ok(());
        }
        let fetch = |source| PullError::Fetch { reference: name.to_owned(), source };
        let stored = |source| PullError::Store { reference: name.to_owned(), source };
        let target = format!("/blobs/{digest}");
        let url = session.url(&target);
        let broken = |reason: String| fetch(RequestError::Malformed { url: url.clone(), reason });
        let response = session.call(&Call { method: Method::GET, target, ..Call::default() }).await.map_err(fetch)?;
        let mut body = response.into_body();
        let mut writer = store.blob_writer().map_err(stored)?;
        loop {
            let frame = tokio::time::timeout(SILENCE_MAX, body.frame()).await.map_err(|_| broken("timeout reading the blob".into()))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|e| broken(e.to_string()))?;
            if let Ok(data) = frame.into_data() {
                writer.write_all(&data).map_err(|e| stored(crate::store::io_error(store.temporary())(e)))?;
            }
        }
        writer.commit(Some(digest)).map_err(stored)?;
        Ok(())
    }
}

/// A manifest or index, with its media type.
async fn fetch_manifest(session: &Session<'_>, object: &str) -> Result<(Vec<u8>, String), RequestError> {
    let target = format!("/manifests/{object}");
    let url = session.url(&target);
    let response = session.call(&Call { method: Method::GET, target, accept: MANIFESTS, ..Call::default() }).await?;
    let header = response.headers().get(http::header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    let mut media_type = header.split(';').next().unwrap_or_default().trim().to_owned();
    let bytes = read(response, &url).await?.to_vec();
    if !MANIFESTS.contains(&media_type.as_str()) {
        // Some registries answer with a generic type: then the document itself says.
        let document: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| RequestError::Malformed { url, reason: e.to_string() })?;
        media_type = match document["mediaType"].as_str() {
            Some(given) => given.to_owned(),
            None if document["manifests"].is_array() => media::INDEX.to_owned(),
            None => media::MANIFEST.to_owned(),
        };
    }
    Ok((bytes, media_type))
}

/// Disk work off the async threads. A panic there is passed on.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
