//! Folders and tmpfs mounts of volumes, and whom they belong to (`fsGroup`).

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

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

/// Gives a writable volume to the group: files may be read and written by it, new ones belong to it.
pub fn give_to_group(path: &Path, group: u32) -> Result<(), String> {
    let metadata = fs::symlink_metadata(path).map_err(|e| text(path, e))?;
    if metadata.file_type().is_symlink() {
        return Ok(());
    }
    chown(path, None, Some(group)).map_err(|e| text(path, e))?;
    let mode = metadata.permissions().mode() & 0o7777;
    let wanted = if metadata.is_dir() { mode | 0o2770 } else { mode | 0o660 };
    fs::set_permissions(path, fs::Permissions::from_mode(wanted)).map_err(|e| text(path, e))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(|e| text(path, e))?.flatten() {
            give_to_group(&entry.path(), group)?;
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
}
