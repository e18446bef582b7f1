//! Where a kustomization's files are read: in its folder and below it, and other kustomizations beside it, but none that it is itself in.
//!
//! Mirrors kustomize's FileLoader. Nothing is fetched: what is at a URL is refused by name.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::kustomization::FILE_NAMES;
use crate::error::{Error, Result, fail};

pub struct Loader {
    pub root: PathBuf,
    referrer: Option<Rc<Loader>>,
    /// May files be read that are not below the root?
    anywhere: bool,
}

/// As Go tells it.
pub fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "is a directory".into(),
        std::io::ErrorKind::NotADirectory => "not a directory".into(),
        _ => error.to_string(),
    }
}

/// `a/b/../c` without its dots, by its letters only.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| {
        // Go tells where its way along the path ended.
        let mut end = path;
        while let Some(parent) = end.parent().filter(|parent| parent.symlink_metadata().is_err()) {
            end = parent;
        }
        Error::Message(format!("evalsymlink failure on '{}' : lstat {}: {}", path.display(), end.display(), reason(&error)))
    })
}

pub fn is_url(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}

/// Would kustomize clone a repository for it?
fn is_repository(path: &str) -> bool {
    is_url(path) || path.starts_with("git@") || path.starts_with("ssh://") || path.starts_with("git::") || path.starts_with("github.com/") || path.contains(".git/") || path.ends_with(".git") || path.contains("?ref=")
}

impl Loader {
    pub fn new(folder: &str, anywhere: bool) -> Result<Rc<Self>> {
        if is_repository(folder) {
            return remote(folder);
        }
        let whole = clean(&std::env::current_dir()?.join(folder));
        let root = absolute(&whole).map_err(|error| Error::Message(format!("must build at directory: not a valid directory: {}", error.to_string().replacen(&whole.display().to_string(), folder, 1))))?;
        if !root.is_dir() {
            return fail(format!("must build at directory: '{folder}': file is not directory"));
        }
        Ok(Rc::new(Self { root, referrer: None, anywhere }))
    }

    /// The loader of another kustomization that this one names.
    pub fn other(self: &Rc<Self>, path: &str) -> Result<Rc<Self>> {
        if path.is_empty() {
            return fail("new root cannot be empty");
        }
        if is_repository(path) {
            return remote(path);
        }
        if path.starts_with('/') {
            return fail(format!("new root '{path}' cannot be absolute"));
        }
        let whole = clean(&self.root.join(path));
        let root = absolute(&whole).map_err(|error| Error::Message(format!("must build at directory: not a valid directory: {error}")))?;
        if !root.is_dir() {
            return fail(format!("must build at directory: '{}': file is not directory", whole.display()));
        }
        let mut known = Some(self);
        while let Some(loader) = known {
            if loader.root.starts_with(&root) {
                return fail(format!("cycle detected: candidate root '{}' contains visited root '{}'", root.display(), loader.root.display()));
            }
            known = loader.referrer.as_ref();
        }
        Ok(Rc::new(Self { root, referrer: Some(self.clone()), anywhere: self.anywhere }))
    }

    pub fn load(&self, path: &str) -> Result<Vec<u8>> {
        if is_url(path) {
            return remote(path);
        }
        let whole = clean(&self.root.join(path));
        let failed = |error: &std::io::Error| Error::Message(format!("open {}: {}", whole.display(), reason(error)));
        if !self.anywhere {
            if whole.is_dir() {
                return fail(format!("'{}' must resolve to a file", whole.display()));
            }
            let real = absolute(&whole)?;
            if !real.starts_with(&self.root) {
                return fail(format!("security; file '{}' is not in or below '{}'", whole.display(), self.root.display()));
            }
        }
        if whole.is_dir() {
            return fail(format!("read {}: is a directory", whole.display()));
        }
        std::fs::read(&whole).map_err(|error| failed(&error))
    }

    pub fn text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.load(path)?).into_owned())
    }

    /// What the folder's kustomization file says.
    pub fn kustomization(&self) -> Result<String> {
        let found: Vec<&str> = FILE_NAMES.into_iter().filter(|name| self.root.join(name).is_file()).collect();
        match found[..] {
            [one] => self.text(one),
            [] => fail(format!("unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{}'", self.root.display())),
            _ => fail(format!("Found multiple kustomization files under: {}\n", self.root.display())),
        }
    }
}

fn remote<T>(path: &str) -> Result<T> {
    Err(Error::Message(format!("{path}: Coracle's kustomize reads folders only; it fetches nothing")).hint("bring it here (git clone, curl) and name the folder or file"))
}
