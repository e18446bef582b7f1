//! Push: what the registry lacks of layers and config, then the manifest under its tag.

use std::sync::Arc;

use bytes::Bytes;
use http::header::LOCATION;
use http::{Method, StatusCode};

use super::pull::blocking;
use futures_util::future::BoxFuture;

use super::request::{Call, Payload, Session};
use super::{Credentials, ErrorKind, PushError, Registry, RequestError};
use crate::digest::Digest;
use crate::oci::media;
use crate::reference::Reference;
use crate::store::Store;

impl Registry {
    /// Pushes the image of that name to the registry the name says. Returns the manifest's digest.
    pub fn push<'a>(&'a self, store: &'a Arc<Store>, name: &'a str, credentials: &'a [Credentials]) -> BoxFuture<'a, Result<Digest, PushError>> {
        Box::pin(self.pushed(store, name, credentials))
    }

    async fn pushed(&self, store: &Arc<Store>, name: &str, credentials: &[Credentials]) -> Result<Digest, PushError> {
        let reference = Reference::parse(name)?;
        let mut candidates: Vec<Option<&Credentials>> =
            Credentials::for_reference(credentials, &reference).into_iter().map(Some).collect();
        if candidates.is_empty() {
            candidates.push(None);
        }
        let mut refused = None;
        for candidate in candidates {
            match self.push_with(store, &reference, candidate).await {
                Err(e) if e.kind() == ErrorKind::Unauthorized => _ = refused.get_or_insert(e),
                other => return other,
            }
        }
        Err(refused.unwrap_or(PushError::NoImage(reference.familiar())))
    }

    async fn push_with(&self, store: &Arc<Store>, reference: &Reference, credentials: Option<&Credentials>) -> Result<Digest, PushError> {
        let name = reference.to_string();
        let stored = |source| PushError::Store { reference: name.clone(), source };
        let failed = |source| PushError::Request { reference: name.clone(), source };
        let reading = store.clone();
        let wanted = name.clone();
        let found = blocking(move || {
            // Held on to, so that no sweep takes a blob away under our hands.
            let adding = reading.adding()?;
            let Some(image) = reading.resolve(&wanted)? else { return Ok(None) };
            let documents = reading.documents(&image.manifest)?;
            let bytes = reading.read_document(&image.manifest)?;
            Ok(Some((adding, image.manifest, documents, bytes)))
        });
        let Some((_adding, digest, documents, bytes)) = found.await.map_err(stored)? else {
            return Err(PushError::NoImage(reference.familiar()));
        };
        let session = Session::new(self, reference, credentials, "push");
        let manifest = &documents.manifest;
        for blob in manifest.layers.iter().chain([&manifest.config]).map(|d| &d.digest) {
            let path = store.blob_path(blob);
            let length = store.blob_size(blob).map_err(stored)?;
            push_blob(&session, blob, Payload::File(path, length)).await.map_err(failed)?;
        }
        let media_type = if manifest.media_type.is_empty() { media::MANIFEST } else { &manifest.media_type };
        let object = reference.tag.as_deref().unwrap_or(digest.as_str());
        let call = Call {
            method: Method::PUT,
            target: format!("/manifests/{object}"),
            content_type: media_type,
            body: Payload::Bytes(Bytes::from(bytes)),
            ..Call::default()
        };
        session.call(&call).await.map_err(failed)?;
        Ok(digest)
    }
}

async fn push_blob(session: &Session<'_>, digest: &Digest, content: Payload) -> Result<(), RequestError> {
    let known = session.call(&Call { method: Method::HEAD, target: format!("/blobs/{digest}"), ..Call::default() }).await;
    match known {
        Ok(_) => return Ok(()),
        Err(RequestError::NotFound(_)) => {}
        Err(e) => return Err(e),
    }
    let start = Call { method: Method::POST, target: "/blobs/uploads/".to_owned(), ..Call::default() };
    let response = session.call(&start).await?;
    let url = session.url(&start.target);
    let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
    let Some(location) = location.filter(|_| response.status() == StatusCode::ACCEPTED) else {
        return Err(RequestError::Malformed { url, reason: "registry named no place to upload to".into() });
    };
    let separator = if location.contains('?') { '&' } else { '?' };
    let target = format!("{location}{separator}digest={digest}");
    let put = Call { method: Method::PUT, target, content_type: "application/octet-stream", body: content, ..Call::default() };
    session.call(&put).await.map(drop)
}
