//! One build stage: the image as it stands after the steps so far, and the key under which the next step is cached.

use crate::archive::{descriptor, json};
use crate::build::BuildError;
use crate::build::cache::{Cache, Record};
use crate::digest::{Digest, Hasher};
use crate::layer::LayerWriter;
use crate::oci::{ConfigFile, Descriptor, History, ImageConfig, Manifest, RootFs, architecture, media};
use crate::store::{Store, StoreError};
use crate::view::RootView;

use super::Builder;
use super::steps::Arguments;

/// What docker puts into an image that has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone)]
pub struct Stage {
    pub name: Option<String>,
    pub config: ConfigFile,
    /// Blobs, bottom first.
    pub layers: Vec<Descriptor>,
    pub key: Digest,
    /// ARGs declared in this stage.
    pub arguments: Arguments,
    /// CMD was given in this stage: a later ENTRYPOINT leaves it alone.
    pub cmd_given: bool,
}

impl Stage {
    pub fn scratch() -> Stage {
        let mut stage = Stage {
            name: None,
            config: ConfigFile {
                created: String::new(),
                architecture: architecture().to_owned(),
                os: "linux".to_owned(),
                config: ImageConfig::default(),
                rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
                history: Vec::new(),
            },
            layers: Vec::new(),
            key: Digest::of(b"scratch"),
            arguments: Arguments::new(),
            cmd_given: false,
        };
        stage.set_default_path();
        stage
    }

    pub fn from_image(store: &Store, manifest: &Digest) -> Result<Stage, StoreError> {
        let documents = store.documents(manifest)?;
        let mut stage = Stage {
            config: documents.config.clone(),
            layers: documents.manifest.layers.clone(),
            key: documents.manifest.config.digest.clone(),
            ..Stage::scratch()
        };
        stage.set_default_path();
        Ok(stage)
    }

    /// A new stage on top of this one (`FROM build`).
    pub fn successor(&self) -> Stage {
        Stage { name: None, arguments: Arguments::new(), cmd_given: false, ..self.clone() }
    }

    fn set_default_path(&mut self) {
        if self.config.config.env_value("PATH").is_none() {
            self.config.config.set_env("PATH", DEFAULT_PATH);
        }
    }

    /// The image ID the stage would have if it ended here.
    pub fn id(&self) -> Result<Digest, BuildError> {
        Ok(Digest::of(&json(&self.config).map_err(BuildError::Output)?))
    }

    pub fn view(&self, store: &Store) -> RootView {
        RootView::new(self.layer_paths(store))
    }

    /// Topmost first.
    pub fn layer_paths(&self, store: &Store) -> Vec<std::path::PathBuf> {
        self.config.rootfs.diff_ids.iter().rev().map(|d| store.layer_path(d)).collect()
    }

    /// Stores config and manifest; returns the manifest's digest.
    pub fn write(&self, store: &Store) -> Result<Digest, BuildError> {
        let config = json(&self.config).map_err(BuildError::Output)?;
        let digest = store.put_blob(&config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            config: descriptor(media::CONFIG, digest, config.len() as u64),
            layers: self.layers.clone(),
        };
        Ok(store.put_blob(&json(&manifest).map_err(BuildError::Output)?)?)
    }
}

impl Builder<'_> {
    pub(super) fn stage(&mut self) -> Result<&mut Stage, BuildError> {
        self.stages.last_mut().ok_or_else(|| BuildError::Instruction {
            line: 1,
            message: "no build stage in current context: the first instruction must be FROM".into(),
        })
    }

    /// Does one step, or takes it from the cache: `make` changes the stage's config and returns the layer, if any.
    ///
    /// `make` always runs its config part on both paths, so it must be cheap up to the point where it makes a layer:
    /// steps with costly layers use [`Builder::commit_layer`].
    pub(super) fn commit(
        &mut self,
        line: &str,
        parts: &[&str],
        make: impl FnOnce(&Store, &mut Stage) -> Result<Option<LayerWriter>, BuildError>,
    ) -> Result<(), BuildError> {
        let store = self.store;
        let layer = make(store, self.stage()?)?;
        let content = match &layer {
            Some(layer) => super::copy::content_key(layer)?,
            None => Digest::of(b""),
        };
        let mut parts = parts.to_vec();
        parts.push(content.as_str());
        self.commit_layer(line, &parts, |builder| builder.write_layer(layer))
    }

    /// As [`Builder::commit`], but the layer is only made when the cache has none under this key.
    pub(super) fn commit_layer(
        &mut self,
        line: &str,
        parts: &[&str],
        make: impl FnOnce(&mut Self) -> Result<Option<Descriptor>, BuildError>,
    ) -> Result<(), BuildError> {
        let store = self.store;
        let cache = Cache::new(store);
        let key = {
            let mut hasher = Hasher::default();
            hasher.field(self.stage()?.key.as_str());
            hasher.field(line);
            parts.iter().for_each(|part| hasher.field(part));
            hasher.finish()
        };
        let known = if self.options.no_cache { None } else { cache.get(&key)? };
        let record = match known {
            Some(record) => {
                self.say(format_args!(" ---> Using cache"))?;
                record
            }
            None => {
                let layer = make(self)?;
                let record = Record { created: self.created.clone(), layer };
                cache.put(&key, &record)?;
                record
            }
        };
        let stage = self.stage()?;
        let mut hasher = Hasher::default();
        hasher.field(key.as_str());
        if let Some(layer) = &record.layer {
            hasher.field(layer.digest.as_str());
            stage.config.rootfs.diff_ids.push(layer.digest.clone());
            stage.layers.push(layer.clone());
        }
        stage.key = hasher.finish();
        stage.config.created = record.created.clone();
        stage.config.history.push(History {
            created: record.created,
            created_by: line.to_owned(),
            empty_layer: record.layer.is_none(),
        });
        let id = stage.id()?;
        self.say(format_args!(" ---> {}", id.short()))
    }

    /// Writes a layer (nothing, if it is empty) and unpacks it. Stored uncompressed, so that blob digest and diff ID are one.
    pub(super) fn write_layer(&mut self, layer: Option<LayerWriter>) -> Result<Option<Descriptor>, BuildError> {
        let Some(layer) = layer.filter(|layer| !layer.is_empty()) else { return Ok(None) };
        let mut blob = self.store.blob_writer()?;
        layer.write(std::io::BufWriter::with_capacity(256 * 1024, &mut blob))?;
        let (digest, size) = blob.commit(None)?;
        self.store.unpack_layer(&digest, &digest)?;
        Ok(Some(descriptor(media::LAYER_TAR, digest, size)))
    }
}
