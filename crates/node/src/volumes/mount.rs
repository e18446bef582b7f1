//! Folders and tmpfs mounts of volumes, and whom they belong to (`fsGroup`).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, chownat, fstat, open, openat};
use rustix::io::Errno;

fn text(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

pub fn folder(path: &Path, mode: u32) -> Result<(), String> {
    fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode))).map_err(|e| text(path, e))
}

pub fn is_mount_point(path: &Path) -> bool {
    let device = |p: &Path| fs::metadata(p).map(|m| m.dev()).ok();
    matches!((device(path), path.parent().and_then(device)), (Some(own), Some(parent)) if own != parent)
}

/// Mounts a tmpfs unless one is there already (this process restarted).
pub fn tmpfs(path: &Path, mode: u32, size_bytes: Option<i64>) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| text(path, e))?;
    if is_mount_point(path) {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size_bytes.filter(|s| *s > 0) {
        options.push_str(&format!(",size={size}"));
    }
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str())).map_err(|e| text(path, e))
}

/// Mounts the layers (topmost first) of an image one over the other, read-only, unless it is done already.
pub fn layers(path: &Path, layers: &[PathBuf]) -> Result<(), String> {
    // An overlay without an upper folder wants two lower ones at least. Never a bind mount: those of the same disk are not told from the folder
    // they are on, and what takes a volume down would remove the layer itself.
    let below = path.with_extension("empty");
    for folder in [path, &below] {
        fs::create_dir_all(folder).map_err(|e| text(folder, e))?;
    }
    if is_mount_point(path) {
        return Ok(());
    }
    let mut options = "lowerdir=".to_owned();
    for layer in layers {
        options.push_str(&layer.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:"));
        options.push(':');
    }
    options.push_str(&below.to_string_lossy());
    mount(Some("overlay"), path, Some("overlay"), MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str())).map_err(|e| text(path, e))
}

/// Takes away a mount, if there is one.
pub fn unmount(path: &Path) -> io::Result<()> {
    while is_mount_point(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// Gives a writable volume to the group: files may be read and written by it, new ones belong to it. Whoever writes in the volume meanwhile leads this nowhere else.
pub fn give_to_group(path: &Path, group: u32) -> Result<(), String> {
    let root = open(path, FOUND, Mode::empty()).map_err(|e| text(path, e))?;
    give(&root, group, 0).map_err(|e| text(path, e))
}

/// As [`give_to_group`], of one that this was done with unless it was just made: what its containers have made of it since is theirs.
pub fn give_once_to_group(path: &Path, group: u32) -> Result<(), String> {
    let known = fs::symlink_metadata(path).map_err(|e| text(path, e))?;
    let done = known.gid() == group && known.mode() & DIRECTORY_MODE == DIRECTORY_MODE;
    if done { Ok(()) } else { give_to_group(path, group) }
}

/// What is found by a name, whatever it is; not what a link leads to.
const FOUND: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIRECTORY_MODE: u32 = 0o2770;
const FILE_MODE: u32 = 0o660;
/// Folders in folders; who has more of them has them for no good.
const DEPTH_MAX: usize = 200;

fn give(found: &OwnedFd, group: u32, depth: usize) -> io::Result<()> {
    let stat = fstat(found)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        return Ok(());
    }
    chownat(found, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
    let wanted = stat.st_mode & 0o7777 | if kind == FileType::Directory { DIRECTORY_MODE } else { FILE_MODE };
    fs::set_permissions(format!("/proc/self/fd/{}", found.as_raw_fd()), fs::Permissions::from_mode(wanted))?;
    if kind != FileType::Directory {
        return Ok(());
    }
    if depth >= DEPTH_MAX {
        return Err(io::Error::other(format!("more than {DEPTH_MAX} folders are in each other")));
    }
    let folder = openat(found, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match openat(&folder, name, FOUND, Mode::empty()) {
            Ok(child) => give(&child, group, depth + 1)?,
            // Gone meanwhile.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_shown_and_survive() {
        let folder = tempfile::tempdir().unwrap();
        let (lower, upper, path) = (folder.path().join("a:b"), folder.path().join("upper"), folder.path().join("v"));
        for (layer, name) in [(&lower, "x"), (&lower, "y"), (&upper, "y")] {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join(name), layer.to_string_lossy().as_bytes()).unwrap();
        }
        for stack in [vec![upper.clone(), lower.clone()], vec![lower.clone()]] {
            layers(&path, &stack).unwrap();
            layers(&path, &stack).unwrap();
            assert!(is_mount_point(&path) && path.join("x").exists());
            assert_eq!(fs::read_to_string(path.join("y")).unwrap(), stack[0].to_string_lossy());
            assert!(fs::write(path.join("z"), "").is_err(), "read-only");
            unmount(&path).unwrap();
            assert!(!path.join("x").exists() && lower.join("x").exists());
        }
    }

    #[test]
    fn tmpfs_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        tmpfs(&path, 0o1777, Some(1 << 20)).unwrap();
        tmpfs(&path, 0o1777, Some(1 << 20)).unwrap();
        assert!(is_mount_point(&path));
        assert!(fs::write(path.join("big"), vec![0; 2 << 20]).is_err(), "the size limit holds");
        give_to_group(&path, 1234).unwrap();
        assert_eq!((fs::metadata(&path).unwrap().gid(), fs::metadata(&path).unwrap().mode() & 0o2000), (1234, 0o2000));
        unmount(&path).unwrap();
        assert!(!is_mount_point(&path));
    }

    #[test]
    fn only_what_is_in_the_volume_is_given() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let facts = |path: &Path| (fs::metadata(path).unwrap().gid(), fs::metadata(path).unwrap().mode() & 0o7777);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("d/f"), "").unwrap();
        fs::set_permissions(folder.path().join("d/f"), fs::Permissions::from_mode(0o604)).unwrap();
        fs::write(other.path().join("f"), "").unwrap();
        let before = (facts(other.path()), facts(&other.path().join("f")));
        std::os::unix::fs::symlink(other.path(), folder.path().join("out")).unwrap();
        std::os::unix::fs::symlink(other.path().join("f"), folder.path().join("d/out")).unwrap();
        give_once_to_group(folder.path(), 1234).unwrap();
        assert_eq!((facts(folder.path()), facts(&folder.path().join("d/f"))), ((1234, 0o2770), (1234, 0o664)));
        assert_eq!((facts(other.path()), facts(&other.path().join("f"))), before);
        // What its users made of it is theirs.
        fs::set_permissions(folder.path().join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        give_once_to_group(folder.path(), 1234).unwrap();
        assert_eq!(facts(&folder.path().join("d/f")), (1234, 0o600));
        give_to_group(folder.path(), 1234).unwrap();
        assert_eq!(facts(&folder.path().join("d/f")), (1234, 0o660));
    }
}
