//! Files that are replaced whole: whoever reads finds the old content or the new, also after `kill -9` of the writer.
//!
//! One writer a file at a time. What an interrupted one leaves lies beside the file, under a name that [`is_unfinished`] knows, and is taken away by the next.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Keys, and whatever else only root may read.
pub const OWNER_ONLY: u32 = 0o600;
pub const READABLE: u32 = 0o644;

const FOLDER_OWNER_ONLY: u32 = 0o700;

const UNFINISHED: &str = ".new";

/// Whether this is the name of something that an interrupted writer left.
pub fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

/// For what need not outlive a crash of the machine: nothing is synced.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write(path, content, mode, false)
}

/// On the disk, under its name, when this returns.
pub fn replace_durably(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write(path, content, mode, true)
}

/// A folder that only its owner enters, made with those around it if it is not there. One that is open to others is closed to them.
pub fn private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(parent(path))?;
    match fs::DirBuilder::new().mode(FOLDER_OWNER_ONLY).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_OWNER_ONLY)),
        made => made,
    }
}

fn write(path: &Path, content: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    let beside = beside(path)?;
    // Made anew: one that is there already might have another mode, or be a link.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = fill(&beside, content, mode, durable).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The error that counts is the first.
        drop(fs::remove_file(&beside));
    }
    written?;
    if durable { File::open(parent(path))?.sync_all() } else { Ok(()) }
}

fn fill(path: &Path, content: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    if durable { file.sync_all() } else { Ok(()) }
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path of a folder"))?.to_owned();
    name.push(UNFINISHED);
    Ok(path.with_file_name(name))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_left_beside_it_decides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (folder.path().join("ca.key"), folder.path().join("elsewhere"));
        // A link of somebody else's, then a file that everybody reads.
        symlink(&elsewhere, folder.path().join("ca.key.new")).unwrap();
        replace_durably(&path, b"one", OWNER_ONLY).unwrap();
        assert!(!elsewhere.exists());
        fs::write(folder.path().join("ca.key.new"), "half").unwrap();
        replace_durably(&path, b"two", OWNER_ONLY).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, OWNER_ONLY);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_that_differ_only_in_their_endings_do_not_meet() {
        assert_ne!(beside(Path::new("a/ca.crt")).unwrap(), beside(Path::new("a/ca.key")).unwrap());
        assert!(is_unfinished("ca.crt.new") && !is_unfinished("ca.crt"));
        assert!(replace(Path::new("/"), b"", READABLE).is_err());
    }

    #[test]
    fn a_folder_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("a/new"), folder.path().join("old"));
        fs::DirBuilder::new().mode(0o755).create(&old).unwrap();
        for path in [&new, &old] {
            private_folder(path).unwrap();
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, FOLDER_OWNER_ONLY, "{}", path.display());
        }
        assert_ne!(fs::metadata(folder.path().join("a")).unwrap().permissions().mode() & 0o777, FOLDER_OWNER_ONLY);
    }

    #[test]
    fn a_failure_leaves_the_old_and_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("full")).unwrap();
        assert!(replace(&path, b"x", READABLE).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
