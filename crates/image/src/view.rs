//! The file tree that a stack of layers shows, read without mounting it.
//!
//! Mirrors overlayfs: the topmost layer that has a name decides; a whiteout, an opaque directory or a non-directory hides
//! what lies below. Symlinks are followed inside the tree only. Builds copy from it; a node can look up `/etc/passwd`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use crate::unpack::OPAQUE_XATTR;

/// As in the kernel (MAXSYMLINKS).
const SYMLINKS_MAX: usize = 40;

/// Layer directories, topmost first, seen as one tree. Also serves for a single plain directory.
#[derive(Clone, Debug, Default)]
pub struct RootView {
    layers: Vec<PathBuf>,
}

/// Something in the view: where it really lies, and what it is (symlinks not followed).
#[derive(Debug)]
pub struct Found {
    pub real: PathBuf,
    pub metadata: Metadata,
}

impl RootView {
    pub fn new(layers: Vec<PathBuf>) -> RootView {
        RootView { layers }
    }

    /// Looks at a path (relative to the tree's root, its parents free of symlinks) without following a final symlink.
    pub fn lstat(&self, path: &Path) -> io::Result<Option<Found>> {
        Ok(self.stack(path)?.into_iter().next())
    }

    /// All layers' parts of `path` that are visible: one for a file, several for a merged directory. Topmost first.
    fn stack(&self, path: &Path) -> io::Result<Vec<Found>> {
        let mut parts = Vec::new();
        'layers: for layer in &self.layers {
            let mut real = layer.clone();
            let mut metadata = match fs::symlink_metadata(&real) {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            // Does this layer hide the ones below at this path?
            let mut last_layer = false;
            for component in path.components() {
                let Component::Normal(name) = component else { continue };
                if !metadata.is_dir() {
                    // A symlink or file in the middle hides the rest.
                    break 'layers;
                }
                last_layer |= is_opaque(&real);
                real.push(name);
                metadata = match fs::symlink_metadata(&real) {
                    Ok(metadata) => metadata,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        if last_layer {
                            break 'layers;
                        }
                        continue 'layers;
                    }
                    Err(e) => return Err(e),
                };
                if is_whiteout(&metadata) {
                    break 'layers;
                }
            }
            let directory = metadata.is_dir();
            last_layer |= directory && is_opaque(&real);
            if !directory && !parts.is_empty() {
                break;
            }
            parts.push(Found { real, metadata });
            if !directory || last_layer {
                break;
            }
        }
        Ok(parts)
    }

    /// Names in a directory, sorted; empty for what is no directory.
    pub fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names: BTreeMap<OsString, bool> = BTreeMap::new();
        for part in self.stack(path)? {
            if !part.metadata.is_dir() {
                break;
            }
            for entry in fs::read_dir(&part.real)? {
                let entry = entry?;
                let visible = !is_whiteout(&entry.metadata()?);
                names.entry(entry.file_name()).or_insert(visible);
            }
        }
        Ok(names.into_iter().filter(|(_, visible)| *visible).map(|(name, _)| name).collect())
    }

    /// Follows every symlink, the last one too, inside the tree. What does not exist (yet) is taken as it is written.
    /// The result is relative to the root and free of `.` and `..`.
    pub fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.walk(path, true)
    }

    /// As [`RootView::resolve`], but a final symlink stays itself.
    pub fn resolve_parent(&self, path: &Path) -> io::Result<PathBuf> {
        self.walk(path, false)
    }

    fn walk(&self, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
        let mut resolved = PathBuf::new();
        let mut todo: Vec<OsString> = components(path);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == OsStr::new("..") {
                resolved.pop();
                continue;
            }
            resolved.push(&name);
            if todo.is_empty() && !follow_last {
                break;
            }
            let Some(found) = self.lstat(&resolved)? else { continue };
            if !found.metadata.is_symlink() {
                continue;
            }
            links += 1;
            if links > SYMLINKS_MAX {
                return Err(io::Error::other(format!("too many levels of symbolic links: {}", path.display())));
            }
            let target = fs::read_link(&found.real)?;
            resolved.pop();
            if target.is_absolute() {
                resolved = PathBuf::new();
            }
            todo.extend(components(&target));
        }
        Ok(resolved)
    }

    /// The content of a file, following symlinks inside the tree; `None` when there is no such file.
    pub fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match self.lstat(&self.resolve(path)?)? {
            Some(found) if found.metadata.is_file() => fs::read(&found.real).map(Some),
            _ => Ok(None),
        }
    }
}

/// In reverse, to be popped.
fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

pub fn is_opaque(directory: &Path) -> bool {
    let mut value = [0u8; 2];
    matches!(rustix::fs::getxattr(directory, OPAQUE_XATTR, &mut value), Ok(1) if value[0] == b'y')
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, XattrFlags};

    use super::*;

    fn write(path: PathBuf, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn merges_like_overlayfs() {
        let dir = tempfile::tempdir().unwrap();
        let (low, top) = (dir.path().join("low"), dir.path().join("top"));
        write(low.join("etc/passwd"), "low");
        write(low.join("etc/gone"), "low");
        write(low.join("opaque/old"), "low");
        write(low.join("file-then-dir"), "low");
        write(top.join("etc/passwd"), "top");
        write(top.join("opaque/new"), "top");
        write(top.join("file-then-dir/x"), "top");
        rustix::fs::mknodat(CWD, top.join("etc/gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        rustix::fs::setxattr(top.join("opaque"), OPAQUE_XATTR, b"y", XattrFlags::empty()).unwrap();
        std::os::unix::fs::symlink("/etc", top.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", top.join("loop")).unwrap();

        let view = RootView::new(vec![top, low]);
        assert_eq!(view.read(Path::new("/etc/passwd")).unwrap().unwrap(), b"top");
        assert!(view.lstat(Path::new("etc/gone")).unwrap().is_none());
        assert!(view.lstat(Path::new("opaque/old")).unwrap().is_none());
        assert_eq!(view.read_dir(Path::new("opaque")).unwrap(), ["new"]);
        assert_eq!(view.read_dir(Path::new("etc")).unwrap(), ["passwd"]);
        assert_eq!(view.read_dir(Path::new("file-then-dir")).unwrap(), ["x"]);
        assert_eq!(view.read(Path::new("link/../../link/passwd")).unwrap().unwrap(), b"top");
        assert_eq!(view.resolve(Path::new("link/new/sub")).unwrap(), Path::new("etc/new/sub"));
        assert_eq!(view.resolve_parent(Path::new("/link")).unwrap(), Path::new("link"));
        assert!(view.resolve(Path::new("loop")).is_err());
    }
}
