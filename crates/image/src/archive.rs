//! Image archives: reads what `docker save` and OCI tools write (compressed or not), writes one tar that both read.
//!
//! docker-archive: `manifest.json` names config and layers. OCI archive: an OCI layout in a tar. A modern `docker save`
//! is both; then `manifest.json` wins, as it has the tags.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::compress::{Compression, decompressed};
use crate::digest::Digest;
use crate::oci::{ANNOTATION_NAME, ANNOTATION_REF, ConfigFile, Descriptor, Index, Manifest, media};
use crate::reference::{InvalidReference, Reference};
use crate::store::{DOCUMENT_MAX, Image, Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("reading archive: {0}")]
    Read(#[from] io::Error),
    #[error("not an image archive: it has neither manifest.json nor index.json")]
    NotAnImage,
    #[error("image archive lacks {0:?}")]
    Missing(String),
    #[error("image archive: {document}: {source}")]
    Document { document: String, source: serde_json::Error },
    #[error("image archive: {0} is too large")]
    TooLarge(String),
    #[error("image archive holds no image for linux/{}", crate::oci::architecture())]
    NoPlatform,
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("writing archive: {0}")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The archive's files, each in a temporary file, so that they can be read in any order.
struct Contents {
    _dir: tempfile::TempDir,
    files: HashMap<PathBuf, PathBuf>,
    links: HashMap<PathBuf, PathBuf>,
}

impl Store {
    /// Imports every image of an archive and returns them. `name` tags an archive of one image that carries no name.
    pub fn import(&self, mut archive: impl Read, name: Option<&str>) -> Result<Vec<Image>, ImportError> {
        self.imported(&mut archive, name)
    }

    fn imported(&self, archive: &mut dyn Read, name: Option<&str>) -> Result<Vec<Image>, ImportError> {
        let name = name.map(Reference::parse).transpose()?;
        let _adding = self.adding()?;
        let contents = Contents::read(archive, self.temporary())?;
        let found = if contents.has("manifest.json") {
            self.import_docker(&contents)?
        } else if contents.has("index.json") {
            self.import_oci(&contents)?
        } else {
            return Err(ImportError::NotAnImage);
        };
        let mut images = Vec::new();
        let only_one = found.len() == 1;
        for (manifest, mut names) in found {
            if let Some(name) = &name
                && only_one
            {
                names = vec![name.to_string()];
            }
            self.name_image(&manifest, &names)?;
            images.extend(self.resolve(manifest.as_str())?);
        }
        Ok(images)
    }

    fn import_docker(&self, contents: &Contents) -> Result<Vec<(Digest, Vec<String>)>, ImportError> {
        let entries: Vec<DockerEntry> = contents.document("manifest.json")?;
        let mut images = Vec::new();
        for entry in entries {
            let config_bytes = contents.bytes(&entry.config)?;
            let config: ConfigFile = parse(&entry.config, &config_bytes)?;
            let config_digest = self.put_blob(&config_bytes)?;
            let mut layers = Vec::new();
            for (layer, diff_id) in entry.layers.iter().zip(&config.rootfs.diff_ids) {
                let mut head = Vec::new();
                contents.open(layer)?.take(8).read_to_end(&mut head)?;
                let media_type = match Compression::of(&head) {
                    Compression::Gzip => media::LAYER_GZIP,
                    Compression::Zstd => media::LAYER_ZSTD,
                    _ => media::LAYER_TAR,
                };
                let (digest, size) = self.copy_blob(contents.open(layer)?, None)?;
                self.unpack_layer(&digest, diff_id)?;
                layers.push(descriptor(media_type, digest, size));
            }
            let manifest = Manifest {
                schema_version: 2,
                media_type: media::MANIFEST.to_owned(),
                config: descriptor(media::CONFIG, config_digest, config_bytes.len() as u64),
                layers,
            };
            let manifest = self.put_blob(&json(&manifest)?)?;
            let tags = entry.repo_tags.unwrap_or_default();
            let names = tags.iter().map(|tag| Reference::parse(tag).map(|r| r.to_string())).collect::<Result<_, _>>()?;
            images.push((manifest, names));
        }
        Ok(images)
    }

    fn import_oci(&self, contents: &Contents) -> Result<Vec<(Digest, Vec<String>)>, ImportError> {
        let index: Index = contents.document("index.json")?;
        let mut images: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for entry in index.manifests {
            let name = match (entry.annotations.get(ANNOTATION_NAME), entry.annotations.get(ANNOTATION_REF)) {
                (Some(full), _) => Some(full),
                // Only a full name says which repository: a bare tag does not.
                (None, Some(text)) if text.contains(['/', ':']) => Some(text),
                _ => None,
            };
            let name = name.map(|n| Reference::parse(n)).transpose()?;
            let manifest = contents.platform_manifest(entry)?;
            let bytes = contents.blob(&manifest.digest)?;
            let parsed: Manifest = parse(manifest.digest.as_str(), &bytes)?;
            let config_bytes = contents.blob(&parsed.config.digest)?;
            let config: ConfigFile = parse(parsed.config.digest.as_str(), &config_bytes)?;
            for (layer, diff_id) in parsed.layers.iter().zip(&config.rootfs.diff_ids) {
                let file = contents.open(&blob_name(&layer.digest))?;
                self.copy_blob(file, Some(&layer.digest))?;
                self.unpack_layer(&layer.digest, diff_id)?;
            }
            self.put_blob(&config_bytes)?;
            let digest = self.put_blob(&bytes)?;
            images.entry(digest).or_default().extend(name.map(|n| n.to_string()));
        }
        Ok(images.into_iter().collect())
    }

    fn copy_blob(&self, mut from: impl Read, expected: Option<&Digest>) -> Result<(Digest, u64), ImportError> {
        let mut writer = self.blob_writer()?;
        io::copy(&mut from, &mut writer)?;
        Ok(writer.commit(expected)?)
    }

    /// Writes images as one archive that `docker load`, `ctr image import`, skopeo and [`Store::import`] read. Deterministic.
    pub fn save(&self, names: &[&str], out: impl Write) -> Result<(), SaveError> {
        let mut index = Index::default();
        let mut docker = Vec::new();
        let mut blobs = BTreeMap::new();
        for name in names {
            let image = self.resolve(name)?.ok_or_else(|| StoreError::NotFound((*name).to_owned()))?;
            let documents = self.documents(&image.manifest)?;
            let mut entry = descriptor(media::MANIFEST, image.manifest.clone(), 0);
            entry.size = self.blob_size(&image.manifest)?;
            // Saved by ID there is no name to record.
            let reference = Reference::parse(name).ok().filter(|r| r.digest.is_none() && image.repo_tags.contains(&r.to_string()));
            if let Some(reference) = &reference {
                entry.annotations.insert(ANNOTATION_NAME.to_owned(), reference.to_string());
                entry.annotations.insert(ANNOTATION_REF.to_owned(), reference.object().to_owned());
            }
            index.manifests.push(entry);
            let manifest = &documents.manifest;
            docker.push(DockerEntry {
                config: blob_name(&manifest.config.digest),
                repo_tags: reference.map(|r| vec![r.familiar()]),
                layers: manifest.layers.iter().map(|l| blob_name(&l.digest)).collect(),
            });
            for digest in [&image.manifest, &manifest.config.digest].into_iter().chain(manifest.layers.iter().map(|l| &l.digest)) {
                blobs.insert(blob_name(digest), self.blob_path(digest));
            }
        }
        let mut builder = tar::Builder::new(out);
        for (name, path) in &blobs {
            let file = File::open(path)?;
            append(&mut builder, name, file.metadata()?.len(), file)?;
        }
        for (name, bytes) in [
            ("index.json", json(&index)?),
            ("manifest.json", json(&docker)?),
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ] {
            append(&mut builder, name, bytes.len() as u64, bytes.as_slice())?;
        }
        builder.into_inner()?.flush()?;
        Ok(())
    }

    pub(crate) fn blob_size(&self, digest: &Digest) -> Result<u64, StoreError> {
        let path = self.blob_path(digest);
        fs::metadata(&path).map(|m| m.len()).map_err(crate::store::io_error(&path))
    }
}

fn append(builder: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    builder.append_data(&mut header, name, content)
}

pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new(), platform: None }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(crate) fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn parse<T: for<'de> Deserialize<'de>>(document: &str, bytes: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|source| ImportError::Document { document: document.to_owned(), source })
}

impl Contents {
    fn read(archive: impl Read, temporary: &Path) -> Result<Contents, ImportError> {
        let dir = tempfile::Builder::new().prefix("import.").tempdir_in(temporary)?;
        let mut contents = Contents { files: HashMap::new(), links: HashMap::new(), _dir: dir };
        let mut tar = tar::Archive::new(decompressed(archive)?);
        for entry in tar.entries()? {
            let mut entry = entry?;
            let Some(path) = clean(&entry.path()?) else { continue };
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    // The archive's names never become file names of ours.
                    let file = contents._dir.path().join(contents.files.len().to_string());
                    io::copy(&mut entry, &mut File::create_new(&file)?)?;
                    contents.files.insert(path, file);
                }
                // Old `docker save` links a repeated layer to its first copy.
                kind @ (tar::EntryType::Symlink | tar::EntryType::Link) => {
                    if let Some(target) = entry.link_name()? {
                        let base = if kind.is_symlink() { path.parent().unwrap_or(Path::new("")) } else { Path::new("") };
                        if let Some(target) = clean(&base.join(target)) {
                            contents.links.insert(path, target);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(contents)
    }

    fn locate(&self, name: &str) -> Option<&Path> {
        let path = clean(Path::new(name))?;
        let path = self.links.get(&path).unwrap_or(&path);
        self.files.get(path).map(PathBuf::as_path)
    }

    fn has(&self, name: &str) -> bool {
        self.locate(name).is_some()
    }

    fn open(&self, name: &str) -> Result<File, ImportError> {
        let path = self.locate(name).ok_or_else(|| ImportError::Missing(name.to_owned()))?;
        Ok(File::open(path)?)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, ImportError> {
        let mut bytes = Vec::new();
        self.open(name)?.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(ImportError::TooLarge(name.to_owned()));
        }
        Ok(bytes)
    }

    /// A document of the layout, verified.
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, ImportError> {
        let bytes = self.bytes(&blob_name(digest))?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(StoreError::DigestMismatch { expected: digest.clone(), actual }.into());
        }
        Ok(bytes)
    }

    fn document<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, ImportError> {
        parse(name, &self.bytes(name)?)
    }

    fn platform_manifest(&self, entry: Descriptor) -> Result<Descriptor, ImportError> {
        if !matches!(entry.media_type.as_str(), media::INDEX | media::DOCKER_LIST) {
            return Ok(entry);
        }
        let index: Index = parse(entry.digest.as_str(), &self.blob(&entry.digest)?)?;
        index.for_this_machine().cloned().ok_or(ImportError::NoPlatform)
    }
}

/// Relative and without `.`; `..` is folded, and leading nowhere means the entry is ignored.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop().then_some(())?),
            _ => {}
        }
    }
    (!clean.as_os_str().is_empty()).then_some(clean)
}

