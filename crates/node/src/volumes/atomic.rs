//! Writes a set of files so that a reader sees all of the old or all of the new: upstream's `AtomicWriter`.
//!
//! The files lie in a folder named by the time; `..data` points to it and is replaced by a rename; what the user sees are links through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Owner other than root.
    pub uid: Option<u32>,
}

/// By path below the volume.
pub type Payload = BTreeMap<String, Projection>;

fn invalid(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: must be relative path without '..': {path}"))
}

fn check(path: &str) -> io::Result<()> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") { Err(invalid(path)) } else { Ok(()) }
}

fn top(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// Returns whether anything changed. `group` becomes the files' group and may read them (`fsGroup`).
pub fn write(folder: &Path, payload: &Payload, group: Option<u32>, now: Timestamp) -> io::Result<bool> {
    payload.keys().try_for_each(|path| check(path))?;
    let data = folder.join(DATA);
    // Nothing but a folder that we made here, should anyone have changed the link.
    let own = |name: &PathBuf| name.components().count() == 1 && name.to_str().and_then(|name| name.strip_prefix("..")).is_some_and(|time| time.starts_with(|first: char| first.is_ascii_digit()));
    let old = fs::read_link(&data).ok().filter(own).map(|name| folder.join(name));
    if let Some(old) = &old
        && same(old, payload)
    {
        // Whoever wrote it may have been killed before the links were there.
        show(folder, payload)?;
        return Ok(false);
    }
    let name = format!("..{}", now.strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let fresh = folder.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let target = fresh.join(path);
        let parent = target.parent().unwrap_or(&fresh);
        fs::create_dir_all(parent)?;
        let mut made = File::options().write(true).create_new(true).mode(0o600).open(&target)?;
        made.write_all(&file.data)?;
        if file.uid.is_some() || group.is_some() {
            chown(&target, file.uid, group)?;
        }
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
    }
    if group.is_some() {
        own_folders(&fresh, group)?;
        chown(folder, None, group)?;
    }
    let link = folder.join(DATA_NEW);
    let _ = fs::remove_file(&link);
    symlink(&name, &link)?;
    fs::rename(&link, &data)?;
    show(folder, payload)?;
    if let Some(old) = old.filter(|old| *old != fresh) {
        fs::remove_dir_all(old).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    }
    Ok(true)
}

fn own_folders(folder: &Path, group: Option<u32>) -> io::Result<()> {
    chown(folder, None, group)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            own_folders(&entry.path(), group)?;
        }
    }
    Ok(())
}

/// The links the user sees: added for what is new, removed for what is gone.
fn show(folder: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().map(|path| top(path)).collect();
    for name in &wanted {
        let link = folder.join(name);
        let target = PathBuf::from(DATA).join(name);
        if fs::read_link(&link).ok().as_ref() != Some(&target) {
            let _ = fs::remove_file(&link);
            symlink(&target, &link)?;
        }
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn same(folder: &Path, payload: &Payload) -> bool {
    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { count(&e.path()) } else { 1 }).sum()
    }
    count(folder) == payload.len() && payload.iter().all(|(path, file)| fs::read(folder.join(path)).is_ok_and(|data| data == file.data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files.iter().map(|(path, data)| ((*path).to_owned(), Projection { data: data.as_bytes().to_vec(), mode: 0o640, uid: None })).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn replaces_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(write(folder, &payload(&[("a", "1"), ("d/b", "2")]), None, at(1)).unwrap());
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(folder.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(folder.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!write(folder, &payload(&[("a", "1"), ("d/b", "2")]), None, at(2)).unwrap(), "nothing changed");
        fs::remove_file(folder.join("a")).unwrap();
        assert!(!write(folder, &payload(&[("a", "1"), ("d/b", "2")]), None, at(2)).unwrap(), "killed before the last link was made");
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "1");
        let before = fs::read_link(folder.join(DATA)).unwrap();
        assert!(write(folder, &payload(&[("a", "3"), ("c", "4")]), None, at(3)).unwrap());
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "3");
        assert!(fs::symlink_metadata(folder.join("d")).is_err() && !folder.join(before).exists());
        assert!(write(folder, &Payload::new(), None, at(4)).unwrap());
        assert!(fs::symlink_metadata(folder.join("a")).is_err());
    }

    #[test]
    fn a_link_that_somebody_changed_leads_nowhere() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("precious"), "").unwrap();
        for (second, target) in [(1, other.path().to_owned()), (2, Path::new("..").join(other.path().file_name().unwrap())), (3, "..".into()), (4, ".".into())] {
            write(folder.path(), &payload(&[("a", "1")]), None, at(second)).unwrap();
            fs::remove_file(folder.path().join(DATA)).unwrap();
            symlink(&target, folder.path().join(DATA)).unwrap();
            assert!(write(folder.path(), &payload(&[("a", "2")]), None, at(second + 100)).unwrap(), "{target:?}");
            assert!(other.path().join("precious").exists() && fs::read_to_string(folder.path().join("a")).unwrap() == "2", "{target:?}");
        }
    }

    #[test]
    fn stays_inside() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "", "..x"] {
            assert!(write(folder.path(), &payload(&[(path, "1")]), None, at(1)).is_err(), "{path}");
        }
    }
}
