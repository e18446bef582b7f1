//! The content store: an OCI image layout (`blobs/`, `index.json`) whose layers are also kept unpacked under `layers/`.
//!
//! Promises: what [`Store::resolve`] returns is complete and verified; a `kill -9` at any moment loses at most the
//! operation that was under way (everything is written aside and renamed), and so does a power cut ([`crate::unsynced`]); several
//! processes may use one store at once.
//! What nothing refers to any more is swept by [`Store::gc`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::compress::decompressed;
use crate::digest::{Digest, Hashing};
use crate::files::{Lock, remove_all, sync_parent};
use crate::index::{self, NameIndex, Stamp, find, name_of};
use crate::oci::{ConfigFile, Descriptor, ImageConfig, Index, Manifest, media};
use crate::reference::{InvalidReference, Reference};
use crate::unsynced::Unsynced;
use crate::unpack::{UnpackError, Whiteouts, unpack};

/// A manifest or config larger than this is refused (as containerd does).
pub const DOCUMENT_MAX: u64 = 8 << 20;
/// Shortest prefix of an image ID that is looked up.
const ID_PREFIX_MIN: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    #[error("no such image: {0}")]
    NotFound(String),
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("layer {blob}: {source}")]
    Unpack { blob: Digest, source: UnpackError },
    #[error("layer {blob} unpacks to {actual}, but its image says {expected}")]
    DiffIdMismatch { blob: Digest, expected: Digest, actual: Digest },
    #[error("blob {digest} is damaged: {reason}")]
    Damaged { digest: Digest, reason: String },
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |source| StoreError::Io { path: path.to_owned(), source }
}

/// An image that is all there.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the config: the image ID.
    pub id: Digest,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Full names: `docker.io/library/alpine:latest`.
    pub repo_tags: Vec<String>,
    /// `docker.io/library/alpine@sha256:…`, for what came from a registry.
    pub repo_digests: Vec<String>,
    /// Bytes of manifest, config and layers as stored.
    pub size: u64,
    /// RFC 3339, or empty.
    pub created: String,
    pub config: ImageConfig,
    /// Unpacked layers for overlayfs `lowerdir`, topmost first.
    pub layers: Vec<PathBuf>,
}

pub struct Store {
    dir: PathBuf,
    temporary: PathBuf,
    names: NameIndex,
    unsynced: Unsynced,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    index: Option<(Stamp, Arc<Index>)>,
    documents: HashMap<Digest, Arc<Documents>>,
}

/// A manifest with its config. Immutable, so cached for good.
pub(crate) struct Documents {
    pub manifest: Manifest,
    pub config: ConfigFile,
    size: u64,
}

/// Held while content is being added, so that the sweep leaves it alone.
pub struct Adding(#[allow(dead_code, reason = "held for its Drop")] Lock);

impl Store {
    /// Opens the store in `dir`, making it if need be, and clears what interrupted writers left.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Store, StoreError> {
        let dir = dir.into();
        // Layers hold programs that run as root for whoever starts them, of any age: nobody but root finds them.
        basics::files::private_folder(&dir).map_err(io_error(&dir))?;
        for sub in ["blobs/sha256", "layers", "tmp", "build-cache"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(io_error(&path))?;
        }
        let dir = fs::canonicalize(&dir).map_err(io_error(&dir))?;
        let temporary = dir.join("tmp");
        let unsynced = Unsynced::open(dir.join("unsynced"), temporary.clone()).map_err(io_error(&dir))?;
        let store = Store { names: NameIndex::new(&dir, &temporary), unsynced, temporary, dir, cache: Mutex::default() };
        let layout = store.dir.join("oci-layout");
        if !layout.exists() {
            crate::files::write_atomically(&layout, &store.temporary, br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(io_error(&layout))?;
        }
        if let Some(_alone) = Lock::try_exclusive(&store.content_lock()).map_err(io_error(&store.dir))? {
            store.clear_temporary()?;
            store.unsynced.distrust(|layer| store.discard(&store.dir.join("layers").join(layer), layer)).map_err(io_error(store.unsynced.path()))?;
        }
        Ok(store)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    fn content_lock(&self) -> PathBuf {
        self.dir.join("content.lock")
    }

    /// Take this before adding blobs and keep it until they are named. Waits for a sweep under way.
    pub fn adding(&self) -> Result<Adding, StoreError> {
        let path = self.content_lock();
        Lock::shared(&path).map(Adding).map_err(io_error(&path))
    }

    // ---- names ----

    fn index(&self) -> Result<Arc<Index>, StoreError> {
        let failed = || io_error(self.names.path());
        let Some(stamp) = self.names.stamp().map_err(failed())? else { return Ok(Arc::default()) };
        if let Some((known, index)) = &self.cache.lock().index
            && *known == stamp
        {
            return Ok(index.clone());
        }
        // A replacement between the two calls leaves an old stamp with a newer index: read again next time, no harm.
        let index = Arc::new(self.names.load().map_err(failed())?);
        self.cache.lock().index = Some((stamp, index.clone()));
        Ok(index)
    }

    fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T, StoreError> {
        let result = self.names.update(change).map_err(io_error(self.names.path()))?;
        self.cache.lock().index = None;
        Ok(result)
    }

    /// Every image, by ID. One whose blobs are damaged is logged and left out.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let index = self.index()?;
        let mut images = BTreeMap::new();
        for entry in &index.manifests {
            if images.contains_key(&entry.digest) {
                continue;
            }
            match self.image(&index, &entry.digest) {
                Ok(image) => drop(images.insert(entry.digest.clone(), image)),
                Err(error) => tracing::warn!(manifest = %entry.digest, %error, "image left out of the list"),
            }
        }
        Ok(images.into_values().collect())
    }

    /// Finds an image by name (`alpine`, `user/x:tag`, `x@sha256:…`), by ID (`sha256:…`, or a prefix of its hex digits).
    pub fn resolve(&self, text: &str) -> Result<Option<Image>, StoreError> {
        let index = self.index()?;
        match self.find(&index, text)? {
            Some(manifest) => self.image(&index, &manifest).map(Some),
            None => Ok(None),
        }
    }

    fn find(&self, index: &Index, text: &str) -> Result<Option<Digest>, StoreError> {
        let bare = text.strip_prefix("sha256:").unwrap_or(text);
        let maybe_id = bare.len() >= ID_PREFIX_MIN && bare.len() <= 64 && bare.bytes().all(|b| b.is_ascii_hexdigit());
        match Reference::parse(text) {
            Ok(reference) => {
                let name = match &reference.digest {
                    Some(digest) => reference.at(digest).to_string(),
                    None => reference.to_string(),
                };
                if let Some(entry) = find(index, &name) {
                    return Ok(Some(entry.digest.clone()));
                }
                // A name at the digest of a manifest that was not pulled under it (built or loaded here).
                if let Some(digest) = &reference.digest {
                    let repository = reference.repository() + ":";
                    let here = |d: &&Descriptor| d.digest == *digest && name_of(d).is_some_and(|n| n.starts_with(&repository));
                    return Ok(index.manifests.iter().find(here).map(|d| d.digest.clone()));
                }
            }
            Err(e) if !maybe_id => return Err(e.into()),
            Err(_) => {}
        }
        if maybe_id {
            for entry in &index.manifests {
                if entry.digest.hex() == bare || self.documents(&entry.digest).is_ok_and(|d| d.manifest.config.digest.hex().starts_with(bare)) {
                    return Ok(Some(entry.digest.clone()));
                }
            }
        }
        Ok(None)
    }

    fn image(&self, index: &Index, manifest: &Digest) -> Result<Image, StoreError> {
        let documents = self.documents(manifest)?;
        let mut layers = self.ensure_layers(&documents)?;
        layers.reverse();
        let names = || index.manifests.iter().filter(|d| d.digest == *manifest).filter_map(name_of);
        Ok(Image {
            id: documents.manifest.config.digest.clone(),
            manifest: manifest.clone(),
            repo_tags: names().filter(|n| !n.contains('@')).map(str::to_owned).collect(),
            repo_digests: names().filter(|n| n.contains('@')).map(str::to_owned).collect(),
            size: documents.size,
            created: documents.config.created.clone(),
            config: documents.config.config.clone(),
            layers,
        })
    }

    /// Gives an image one more name.
    pub fn tag(&self, source: &str, target: &str) -> Result<Image, StoreError> {
        let name = Reference::parse(target)?.to_string();
        let _adding = self.adding()?;
        let manifest = self.find(&*self.index()?, source)?.ok_or_else(|| StoreError::NotFound(source.to_owned()))?;
        self.name_image(&manifest, std::slice::from_ref(&name))?;
        self.resolve(&name)?.ok_or(StoreError::NotFound(name))
    }

    /// Makes a complete image visible under `names` (full references); with none, as `<none>`.
    pub(crate) fn name_image(&self, manifest: &Digest, names: &[String]) -> Result<(), StoreError> {
        let documents = self.documents(manifest)?;
        self.ensure_layers(&documents)?;
        let path = self.blob_path(manifest);
        let size = fs::metadata(&path).map_err(io_error(&path))?.len();
        let media_type = match documents.manifest.media_type.as_str() {
            "" => media::MANIFEST.to_owned(),
            given => given.to_owned(),
        };
        let target = Descriptor { media_type, digest: manifest.clone(), size, annotations: BTreeMap::new(), platform: None };
        self.change_index(|index| {
            for name in names {
                index::point(index, Some(name), &target);
            }
            if names.is_empty() {
                index::point(index, None, &target);
            }
        })
    }

    /// Takes a name away, or the image with all its names when given an ID. Content stays until [`Store::gc`]. False if there was none.
    pub fn remove(&self, text: &str) -> Result<bool, StoreError> {
        let index = self.index()?;
        let Some(manifest) = self.find(&index, text)? else { return Ok(false) };
        let name = Reference::parse(text).ok().map(|r| match &r.digest {
            Some(digest) => r.at(digest).to_string(),
            None => r.to_string(),
        });
        let named = name.filter(|name| find(&index, name).is_some());
        self.change_index(|index| match &named {
            Some(name) => drop(index::remove_name(index, name)),
            None => index::remove_image(index, &manifest),
        })?;
        Ok(true)
    }

    // ---- blobs ----

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    pub fn blob_writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        let file = tempfile::NamedTempFile::new_in(&self.temporary).map_err(io_error(&self.temporary))?;
        Ok(BlobWriter { store: self, out: Hashing::new(file) })
    }

    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(io_error(&self.temporary))?;
        Ok(writer.commit(None)?.0)
    }

    /// A small document, checked against its digest.
    pub(crate) fn read_document(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(io_error(&path))?;
        file.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).map_err(io_error(&path))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(StoreError::Damaged { digest: digest.clone(), reason: "document is too large".into() });
        }
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(StoreError::DigestMismatch { expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    pub(crate) fn documents(&self, manifest: &Digest) -> Result<Arc<Documents>, StoreError> {
        if let Some(documents) = self.cache.lock().documents.get(manifest) {
            return Ok(documents.clone());
        }
        let damaged = |digest: &Digest| {
            let digest = digest.clone();
            move |e: serde_json::Error| StoreError::Damaged { digest, reason: e.to_string() }
        };
        let bytes = self.read_document(manifest)?;
        let parsed: Manifest = serde_json::from_slice(&bytes).map_err(damaged(manifest))?;
        let config_bytes = self.read_document(&parsed.config.digest)?;
        let config: ConfigFile = serde_json::from_slice(&config_bytes).map_err(damaged(&parsed.config.digest))?;
        if config.rootfs.diff_ids.len() != parsed.layers.len() {
            let reason = format!("{} layers, but {} diff IDs", parsed.layers.len(), config.rootfs.diff_ids.len());
            return Err(StoreError::Damaged { digest: manifest.clone(), reason });
        }
        let size = (bytes.len() + config_bytes.len()) as u64 + parsed.layers.iter().map(|l| l.size).sum::<u64>();
        let documents = Arc::new(Documents { manifest: parsed, config, size });
        self.cache.lock().documents.insert(manifest.clone(), documents.clone());
        Ok(documents)
    }

    // ---- layers ----

    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join("layers").join(diff_id.hex())
    }

    /// Bottom first; unpacks what is missing.
    fn ensure_layers(&self, documents: &Documents) -> Result<Vec<PathBuf>, StoreError> {
        let diff_ids = &documents.config.rootfs.diff_ids;
        let missing = diff_ids.iter().any(|diff_id| !self.layer_path(diff_id).exists());
        let _adding = missing.then(|| self.adding()).transpose()?;
        documents
            .manifest
            .layers
            .iter()
            .zip(diff_ids)
            .map(|(layer, diff_id)| self.unpack_layer(&layer.digest, diff_id))
            .collect()
    }

    /// Unpacks a layer blob once, verified against the digest of its uncompressed content.
    pub(crate) fn unpack_layer(&self, blob: &Digest, diff_id: &Digest) -> Result<PathBuf, StoreError> {
        let target = self.layer_path(diff_id);
        if target.exists() {
            return Ok(target);
        }
        let path = self.blob_path(blob);
        let file = File::open(&path).map_err(io_error(&path))?;
        let staging = tempfile::Builder::new().prefix("layer.").tempdir_in(&self.temporary).map_err(io_error(&self.temporary))?;
        // The layer's directory becomes the container's `/`.
        fs::set_permissions(staging.path(), fs::Permissions::from_mode(0o755)).map_err(io_error(staging.path()))?;
        let mut stream = Hashing::new(decompressed(file).map_err(io_error(&path))?);
        unpack(&mut stream, staging.path(), Whiteouts::Overlay).map_err(|source| StoreError::Unpack { blob: blob.clone(), source })?;
        io::copy(&mut stream, &mut io::sink()).map_err(io_error(&path))?;
        let actual = stream.hasher.finish();
        if actual != *diff_id {
            return Err(StoreError::DiffIdMismatch { blob: blob.clone(), expected: diff_id.clone(), actual });
        }
        self.unsynced.note(diff_id.hex()).map_err(io_error(self.unsynced.path()))?;
        let staging = staging.keep();
        match fs::rename(&staging, &target) {
            Ok(()) => {}
            // Another process unpacked the same layer first.
            Err(_) if target.exists() => remove_all(&staging).map_err(io_error(&staging))?,
            Err(e) => return Err(io_error(&target)(e)),
        }
        Ok(target)
    }

    /// Writes unpacked layers out to the disk, if need be: until then they are unpacked again after a power cut. Takes as long as the disk; for those that
    /// run for long.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.unsynced.settle().map_err(io_error(self.unsynced.path()))
    }

    /// Renamed first: a half-removed layer must never look like a whole one.
    fn discard(&self, layer: &Path, name: &str) -> io::Result<()> {
        let doomed = self.temporary.join(format!("gone.{name}"));
        match fs::rename(layer, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => remove_all(&doomed),
        }
    }

    // ---- sweep ----

    /// Removes blobs and layers that no image refers to, except the layer directories in `in_use`. Returns the bytes of
    /// blobs freed. Does nothing while content is being added.
    pub fn gc(&self, in_use: &HashSet<PathBuf>) -> Result<u64, StoreError> {
        let lock = self.content_lock();
        let Some(_alone) = Lock::try_exclusive(&lock).map_err(io_error(&lock))? else { return Ok(0) };
        self.clear_temporary()?;
        let mut blobs = HashSet::new();
        let mut layers = HashSet::new();
        self.forget_damaged()?;
        for entry in &self.index()?.manifests {
            // What cannot be read just now cannot be swept safely either: stop.
            let documents = self.documents(&entry.digest)?;
            blobs.insert(entry.digest.hex().to_owned());
            blobs.insert(documents.manifest.config.digest.hex().to_owned());
            blobs.extend(documents.manifest.layers.iter().map(|l| l.digest.hex().to_owned()));
            layers.extend(documents.config.rootfs.diff_ids.iter().map(|d| d.hex().to_owned()));
        }
        let mut freed = 0;
        for (sub, keep) in [("blobs/sha256", &blobs), ("layers", &layers)] {
            let dir = self.dir.join(sub);
            for entry in fs::read_dir(&dir).map_err(io_error(&dir))? {
                let entry = entry.map_err(io_error(&dir))?;
                let path = entry.path();
                if entry.file_name().to_str().is_some_and(|n| keep.contains(n)) || in_use.contains(&path) {
                    continue;
                }
                if sub == "layers" {
                    self.discard(&path, &entry.file_name().to_string_lossy()).map_err(io_error(&path))?;
                } else {
                    freed += entry.metadata().map_or(0, |m| m.len());
                    remove_all(&path).map_err(io_error(&path))?;
                }
            }
        }
        let mut cache = self.cache.lock();
        cache.documents.retain(|manifest, _| blobs.contains(manifest.hex()));
        Ok(freed)
    }

    /// Images whose manifest or configuration is no more what its digest says lose their names: nobody can run them, they may be pulled or imported anew, and
    /// they must not keep everything else from being swept.
    fn forget_damaged(&self) -> Result<(), StoreError> {
        let is_lost = |error: &StoreError| match error {
            StoreError::Damaged { .. } | StoreError::DigestMismatch { .. } => true,
            StoreError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        };
        for entry in &self.index()?.manifests {
            if let Err(error) = self.documents(&entry.digest)
                && is_lost(&error)
            {
                tracing::warn!(manifest = %entry.digest, image = name_of(entry), %error, "an image is damaged and forgotten");
                self.change_index(|index| index::remove_image(index, &entry.digest))?;
            }
        }
        Ok(())
    }

    fn clear_temporary(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.temporary).map_err(io_error(&self.temporary))? {
            let path = entry.map_err(io_error(&self.temporary))?.path();
            remove_all(&path).map_err(io_error(&path))?;
        }
        Ok(())
    }
}

/// A blob being written: hashed on the way, invisible until committed.
pub struct BlobWriter<'a> {
    store: &'a Store,
    out: Hashing<tempfile::NamedTempFile>,
}

impl BlobWriter<'_> {
    /// Makes the blob visible under its digest, which must be `expected` if given. Returns digest and length.
    pub fn commit(self, expected: Option<&Digest>) -> Result<(Digest, u64), StoreError> {
        let Hashing { inner: file, hasher } = self.out;
        let length = hasher.length();
        let digest = hasher.finish();
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(StoreError::DigestMismatch { expected: expected.clone(), actual: digest });
        }
        let target = self.store.blob_path(&digest);
        if !target.exists() {
            file.as_file().sync_all().map_err(io_error(&target))?;
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).map_err(io_error(&target))?;
            file.persist(&target).map_err(|e| io_error(&target)(e.error))?;
            sync_parent(&target).map_err(io_error(&target))?;
        }
        Ok((digest, length))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
