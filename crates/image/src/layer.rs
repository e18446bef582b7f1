//! Writes a layer: a deterministic tar (sorted, no clock, no host names) from files, directories and whiteouts.
//!
//! The same entries always give the same bytes, hence the same digest. Hard links among the sources are kept.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use crate::view::is_opaque;

/// A list of extended attribute names longer than this is no file we want in an image.
const XATTR_LIST_MAX: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("{path:?}: {source}")]
    Source { path: PathBuf, source: io::Error },
    #[error("writing layer: {0}")]
    Write(#[from] io::Error),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Meta {
    pub fn root(mode: u32) -> Meta {
        Meta { mode, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() }
    }

    pub fn of(path: &Path, metadata: &Metadata) -> io::Result<Meta> {
        Ok(Meta {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: metadata.mtime().max(0),
            xattrs: if metadata.is_symlink() { Vec::new() } else { read_xattrs(path)? },
        })
    }
}

#[derive(Debug, Clone)]
pub enum Node {
    Directory,
    /// Copied from this file when the layer is written.
    File(PathBuf),
    Inline(Vec<u8>),
    Symlink(PathBuf),
    /// FIFO or device: type, major, minor.
    Special(EntryType, u32, u32),
    /// The name is gone.
    Whiteout,
    /// The directory hides those below.
    Opaque,
}

/// Collects entries (paths relative to the root of the image), then writes them all.
#[derive(Debug, Default)]
pub struct LayerWriter {
    entries: BTreeMap<PathBuf, (Node, Meta)>,
}

impl LayerWriter {
    pub fn new() -> LayerWriter {
        LayerWriter::default()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn insert(&mut self, path: impl Into<PathBuf>, node: Node, meta: Meta) {
        self.entries.insert(path.into(), (node, meta));
    }

    pub fn contains(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }

    pub fn entries(&self) -> impl Iterator<Item = (&Path, &Node, &Meta)> {
        self.entries.iter().map(|(path, (node, meta))| (path.as_path(), node, meta))
    }

    /// Takes a whole directory as overlayfs left it (`upperdir`): its whiteouts and opaque marks included.
    /// `clamp` replaces later modification times, so that what a step wrote does not carry the time of day.
    pub fn insert_upper(&mut self, upper: &Path, clamp: Option<i64>) -> Result<(), LayerError> {
        self.walk_upper(upper, Path::new(""), clamp)
    }

    fn walk_upper(&mut self, upper: &Path, below: &Path, clamp: Option<i64>) -> Result<(), LayerError> {
        let directory = upper.join(below);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| LayerError::Source { path, source }
        };
        for entry in fs::read_dir(&directory).map_err(failed(&directory))? {
            let entry = entry.map_err(failed(&directory))?;
            let real = entry.path();
            let path = below.join(entry.file_name());
            let metadata = fs::symlink_metadata(&real).map_err(failed(&real))?;
            let mut meta = Meta::of(&real, &metadata).map_err(failed(&real))?;
            if clamp.is_some_and(|start| meta.mtime >= start) {
                meta.mtime = 0;
            }
            let Some(node) = node_of(&real, &metadata).map_err(failed(&real))? else { continue };
            let is_directory = matches!(node, Node::Directory);
            self.insert(&path, node, meta.clone());
            if is_directory {
                if is_opaque(&real) {
                    self.insert(path.join(".wh..wh..opq"), Node::Opaque, Meta::root(0o644));
                }
                self.walk_upper(upper, &path, clamp)?;
            }
        }
        Ok(())
    }

    /// Writes the tar. Sources are read now.
    pub fn write(&self, out: impl Write) -> Result<(), LayerError> {
        let mut builder = tar::Builder::new(out);
        builder.mode(tar::HeaderMode::Complete);
        let mut links: HashMap<(u64, u64), &Path> = HashMap::new();
        for (path, (node, meta)) in &self.entries {
            if !meta.xattrs.is_empty() {
                let pairs: Vec<(String, &[u8])> = meta
                    .xattrs
                    .iter()
                    .map(|(name, value)| (format!("SCHILY.xattr.{}", name.to_string_lossy()), value.as_slice()))
                    .collect();
                builder.append_pax_extensions(pairs.iter().map(|(name, value)| (name.as_str(), *value)))?;
            }
            let mut header = Header::new_gnu();
            header.set_mode(meta.mode);
            header.set_uid(meta.uid.into());
            header.set_gid(meta.gid.into());
            header.set_mtime(meta.mtime.max(0) as u64);
            header.set_size(0);
            match node {
                Node::Directory => {
                    header.set_entry_type(EntryType::Directory);
                    builder.append_data(&mut header, as_directory(path), io::empty())?;
                }
                Node::Inline(bytes) => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(bytes.len() as u64);
                    builder.append_data(&mut header, path, bytes.as_slice())?;
                }
                Node::File(real) => {
                    let failed = |source| LayerError::Source { path: real.clone(), source };
                    let file = File::open(real).map_err(failed)?;
                    let metadata = file.metadata().map_err(failed)?;
                    let key = (metadata.dev(), metadata.ino());
                    if metadata.nlink() > 1
                        && let Some(first) = links.get(&key)
                    {
                        header.set_entry_type(EntryType::Link);
                        builder.append_link(&mut header, path, first)?;
                        continue;
                    }
                    links.insert(key, path);
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(metadata.len());
                    // Exactly the announced length, even if the file is being written to.
                    builder.append_data(&mut header, path, Exactly { inner: file, left: metadata.len() })?;
                }
                Node::Symlink(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    builder.append_link(&mut header, path, target)?;
                }
                Node::Special(kind, major, minor) => {
                    header.set_entry_type(*kind);
                    header.set_device_major(*major)?;
                    header.set_device_minor(*minor)?;
                    builder.append_data(&mut header, path, io::empty())?;
                }
                Node::Whiteout => {
                    header.set_entry_type(EntryType::Regular);
                    let mut name = OsString::from(".wh.");
                    name.push(path.file_name().unwrap_or_default());
                    builder.append_data(&mut header, path.with_file_name(name), io::empty())?;
                }
                Node::Opaque => {
                    header.set_entry_type(EntryType::Regular);
                    builder.append_data(&mut header, path, io::empty())?;
                }
            }
        }
        builder.into_inner()?.flush()?;
        Ok(())
    }
}

/// What a file in a source tree is to a layer; sockets are left out, as everywhere.
pub fn node_of(real: &Path, metadata: &Metadata) -> io::Result<Option<Node>> {
    let kind = metadata.file_type();
    let device = |entry| Node::Special(entry, rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    Ok(Some(if kind.is_dir() {
        Node::Directory
    } else if kind.is_file() {
        Node::File(real.to_owned())
    } else if kind.is_symlink() {
        Node::Symlink(fs::read_link(real)?)
    } else if kind.is_char_device() && metadata.rdev() == 0 {
        Node::Whiteout
    } else if kind.is_char_device() {
        device(EntryType::Char)
    } else if kind.is_block_device() {
        device(EntryType::Block)
    } else if kind.is_fifo() {
        Node::Special(EntryType::Fifo, 0, 0)
    } else {
        return Ok(None);
    }))
}

fn as_directory(path: &Path) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push("/");
    text.into()
}

fn read_xattrs(path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut names = vec![0u8; XATTR_LIST_MAX];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|&b| b == 0) {
        if name.starts_with(b"user.") || name == b"security.capability" {
            let name = OsStr::from_bytes(name);
            let mut value = vec![0u8; XATTR_LIST_MAX];
            let n = rustix::fs::lgetxattr(path, name, &mut value)?;
            value.truncate(n);
            found.push((OsString::from_vec(name.as_bytes().to_vec()), value));
        }
    }
    found.sort();
    Ok(found)
}

/// Reads `left` bytes, no more; a file that shrank meanwhile is an error rather than a damaged archive.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..want])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file shrank while it was read"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}
