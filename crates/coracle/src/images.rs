//! The image store as the node wants it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use image::{Registry, Store, StoreError};
use node::{Credentials, ImageError, ImageInfo, Images, RunConfig};
use sandbox::cri::BoxFuture;

use crate::own_image;

pub struct LocalImages {
    store: Arc<Store>,
    registry: Registry,
    /// Where the image of this program lies.
    own: PathBuf,
}

impl LocalImages {
    pub fn new(store: Arc<Store>, registry: Registry, own: PathBuf) -> Self {
        Self { store, registry, own }
    }

    async fn own(&self) -> Result<ImageInfo, ImageError> {
        let folder = self.own.clone();
        match tokio::task::spawn_blocking(move || own_image::make(&folder)).await {
            Ok(made) => made.map_err(|error| ImageError::Failed(format!("cannot make an image of this program: {error}"))),
            Err(error) => Err(ImageError::Failed(error.to_string())),
        }
    }
}

fn info(image: image::Image) -> ImageInfo {
    ImageInfo {
        id: image.id.to_string(),
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size: image.size,
        config: RunConfig {
            entrypoint: image.config.entrypoint,
            cmd: image.config.cmd,
            env: image.config.env,
            user: image.config.user,
            working_dir: image.config.working_dir,
            stop_signal: image.config.stop_signal,
        },
        layers: image.layers,
    }
}

fn failed(error: StoreError) -> ImageError {
    match error {
        StoreError::Reference(invalid) => ImageError::Invalid(invalid.to_string()),
        other => ImageError::Failed(other.to_string()),
    }
}

impl Images for LocalImages {
    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<ImageInfo>, ImageError>> {
        let (store, reference) = (self.store.clone(), reference.to_owned());
        Box::pin(async move {
            if own_image::is_meant(&reference) {
                return self.own().await.map(Some);
            }
            match tokio::task::spawn_blocking(move || store.resolve(&reference)).await {
                Ok(found) => found.map(|image| image.map(info)).map_err(failed),
                Err(error) => Err(ImageError::Failed(error.to_string())),
            }
        })
    }

    fn pull<'a>(&'a self, reference: &'a str, credentials: &'a [Credentials]) -> BoxFuture<'a, Result<ImageInfo, ImageError>> {
        Box::pin(async move {
            if own_image::is_meant(reference) {
                return self.own().await;
            }
            let known: Vec<image::Credentials> =
                credentials.iter().map(|each| image::Credentials { registry: each.registry.clone(), username: each.username.clone(), password: each.password.clone() }).collect();
            self.registry.pull(&self.store, reference, &known).await.map(info).map_err(|error| ImageError::Failed(error.to_string()))
        })
    }

    fn remove<'a>(&'a self, id: &'a str, used_layers: HashSet<PathBuf>) -> BoxFuture<'a, Result<(), ImageError>> {
        let (store, id) = (self.store.clone(), id.to_owned());
        Box::pin(async move {
            let removed = tokio::task::spawn_blocking(move || {
                // One configuration may have been pulled with several manifests.
                while store.remove(&id)? {}
                store.gc(&used_layers)
            })
            .await;
            match removed {
                Ok(removed) => removed.map(drop).map_err(failed),
                Err(error) => Err(ImageError::Failed(error.to_string())),
            }
        })
    }

    fn list(&self) -> BoxFuture<'_, Vec<ImageInfo>> {
        let store = self.store.clone();
        Box::pin(async move {
            let mut seen = HashSet::new();
            let settling = store.clone();
            // Nobody waits for the disk.
            drop(tokio::task::spawn_blocking(move || settling.settle().inspect_err(|error| tracing::warn!(%error, "unpacked layers may have to be unpacked again after a power cut"))));
            let images = tokio::task::spawn_blocking(move || store.list()).await.ok().and_then(Result::ok).unwrap_or_default();
            images.into_iter().map(info).filter(|image| seen.insert(image.id.clone())).collect()
        })
    }
}
