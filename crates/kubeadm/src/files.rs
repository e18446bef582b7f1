//! Files that only their owner reads, and a journal of what a command made, so that one that fails leaves the machine as it was.

use std::path::{Path, PathBuf};

use basics::files;

use crate::error::Error;
use crate::host::{KUBELET_FOLDER, KUBERNETES_FOLDER};

/// Others never see half a file, and only the owner can read it.
pub fn write_private(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    files::replace_durably(path, contents, files::OWNER_ONLY)
}

/// What is not there when it is told of is removed again, unless all went well.
#[derive(Default)]
pub struct Journal {
    made: Vec<PathBuf>,
    kept: bool,
}

impl Journal {
    /// Something is about to be made there, perhaps with the folders around it.
    pub fn expect(&mut self, path: &Path) {
        if path.symlink_metadata().is_ok() {
            return;
        }
        let outermost = path.ancestors().take_while(|folder| folder.symlink_metadata().is_err()).last();
        self.made.push(outermost.unwrap_or(path).to_owned());
    }

    pub fn write(&mut self, path: &Path, contents: &[u8]) -> Result<(), Error> {
        self.expect(path);
        write_private(path, contents).map_err(Error::file("cannot write", path))
    }

    pub fn keep(mut self) {
        self.kept = true;
    }
}

/// A folder and all in it, or a file. What cannot be removed is told.
pub fn remove(path: &Path) {
    let Ok(there) = path.symlink_metadata() else { return };
    let removed = if there.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    // A folder that something is mounted on is left empty.
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::ResourceBusy
    {
        eprintln!("warning: cannot remove {}: {error}", path.display());
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !self.kept {
            self.made.iter().rev().for_each(|path| remove(path));
        }
    }
}

/// What is in a folder; none if it is not there.
pub type Names = Option<Vec<std::ffi::OsString>>;

pub fn names_in(folder: &Path) -> Names {
    Some(std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name()).collect())
}

/// Folders whose contents `reset` removes, and files.
pub fn traces() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (kubernetes, kubelet) = (Path::new(KUBERNETES_FOLDER), Path::new(KUBELET_FOLDER));
    let folders = vec![kubernetes.join("manifests"), kubelet.to_owned(), kubernetes.join("pki")];
    let names = ["admin.conf", "super-admin.conf", "kubelet.conf", "bootstrap-kubelet.conf", "controller-manager.conf", "scheduler.conf"];
    (folders, names.map(|name| kubernetes.join(name)).to_vec())
}

/// Takes away what kubeadm wrote outside of the data folder. What is mounted there is not followed.
pub fn remove_traces() {
    let (folders, files) = traces();
    folders.iter().chain(&files).for_each(|path| remove(path));
    // Others may have put something there.
    let _ = std::fs::remove_dir(KUBERNETES_FOLDER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_takes_back_only_what_was_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("old"), "1").unwrap();
        let mut journal = Journal::default();
        journal.write(&at("old"), b"2").unwrap();
        journal.write(&at("a/b/new"), b"3").unwrap();
        journal.write(&at("a/c"), b"3").unwrap();
        drop(journal);
        assert!(at("old").exists() && !at("a").exists());
        let mut journal = Journal::default();
        journal.write(&at("a/b"), b"3").unwrap();
        journal.keep();
        assert!(at("a/b").exists());
    }
}
