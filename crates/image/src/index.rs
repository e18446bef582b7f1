//! The names of the store's images: `index.json` of the OCI layout, one entry per name, as containerd writes it.
//!
//! An entry's annotation `io.containerd.image.name` is the full reference (`docker.io/library/alpine:latest`, or with
//! `@sha256:…` for a repo digest). An entry without it is an image that lost its last tag (`<none>`). The file is only
//! ever replaced whole, under a lock that other processes honour too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::files::{Lock, write_atomically};
use crate::oci::{ANNOTATION_NAME, Descriptor, Index};

pub struct NameIndex {
    file: PathBuf,
    lock: PathBuf,
    temporary: PathBuf,
}

/// Tells one version of the file from another: a replaced file has another inode or time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64, u64, i64, i64);

impl NameIndex {
    pub fn new(dir: &Path, temporary: &Path) -> NameIndex {
        NameIndex { file: dir.join("index.json"), lock: dir.join("index.lock"), temporary: temporary.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.file
    }

    pub fn stamp(&self) -> io::Result<Option<Stamp>> {
        use std::os::unix::fs::MetadataExt;
        match fs::metadata(&self.file) {
            Ok(m) => Ok(Some(Stamp(m.ino(), m.size(), m.mtime(), m.mtime_nsec()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn load(&self) -> io::Result<Index> {
        match fs::read(&self.file) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(e) => Err(e),
        }
    }

    /// Reads, changes and replaces the file, alone.
    pub fn update<T>(&self, change: impl FnOnce(&mut Index) -> T) -> io::Result<T> {
        let _lock = Lock::exclusive(&self.lock)?;
        let mut index = self.load()?;
        let result = change(&mut index);
        let bytes = serde_json::to_vec_pretty(&index)?;
        write_atomically(&self.file, &self.temporary, &bytes)?;
        Ok(result)
    }
}

pub fn name_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(ANNOTATION_NAME).map(String::as_str)
}

pub fn find<'a>(index: &'a Index, name: &str) -> Option<&'a Descriptor> {
    index.manifests.iter().find(|d| name_of(d) == Some(name))
}

/// Points `name` at `target`. An image that loses its last name so stays, nameless, until it is removed.
pub fn point(index: &mut Index, name: Option<&str>, target: &Descriptor) {
    let mut bare = Descriptor { annotations: Default::default(), platform: None, ..target.clone() };
    let Some(name) = name else {
        if !index.manifests.iter().any(|d| d.digest == target.digest) {
            index.manifests.push(bare);
        }
        return;
    };
    let previous = find(index, name).cloned();
    index.manifests.retain(|d| name_of(d) != Some(name) && !(d.digest == target.digest && name_of(d).is_none()));
    bare.annotations.insert(ANNOTATION_NAME.to_owned(), name.to_owned());
    index.manifests.push(bare);
    if let Some(mut previous) = previous
        && !index.manifests.iter().any(|d| d.digest == previous.digest)
    {
        previous.annotations.remove(ANNOTATION_NAME);
        index.manifests.push(previous);
    }
    index.manifests.sort_by(|a, b| name_of(a).cmp(&name_of(b)).then_with(|| a.digest.cmp(&b.digest)));
}

/// Takes one name away; the image goes with its last tag (repo digests alone do not hold it).
pub fn remove_name(index: &mut Index, name: &str) -> bool {
    let Some(digest) = find(index, name).map(|d| d.digest.clone()) else { return false };
    index.manifests.retain(|d| name_of(d) != Some(name));
    let tagged = index.manifests.iter().any(|d| d.digest == digest && name_of(d).is_some_and(|n| !n.contains('@')));
    if !tagged {
        index.manifests.retain(|d| d.digest != digest);
    }
    true
}

pub fn remove_image(index: &mut Index, manifest: &Digest) {
    index.manifests.retain(|d| d.digest != *manifest);
}
