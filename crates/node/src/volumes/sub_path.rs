//! subPath and subPathExpr: a part of a volume, never anything outside of it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use api::k8s::api::core::v1::VolumeMount;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::expand::expand;

/// The part a mount asks for, with variables expanded. Empty: the whole volume.
pub fn wanted(mount: &VolumeMount, env: &[(String, String)]) -> Result<String, String> {
    let Some(expression) = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) else {
        return Ok(mount.sub_path.clone().unwrap_or_default());
    };
    let missing = std::cell::RefCell::new(None);
    let lookup = |name: &str| {
        let found = env.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        if found.is_none() {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        found
    };
    let expanded = expand(expression, &lookup);
    match missing.into_inner() {
        Some(name) => Err(format!("missing value for {name:?}")),
        None => Ok(expanded),
    }
}

/// The volume's own path and that of `sub` below it, both without links; made as a folder when nothing is there. Those who write in the volume may change it
/// meanwhile: what is made is made where it was looked for, and whoever mounts it looks again ([`sandbox::cri::Mount::sub_path`]).
pub fn resolve(root: &Path, sub: &str) -> Result<(PathBuf, PathBuf), String> {
    let escapes = || format!("subPath {sub:?} is outside of the volume");
    if Path::new(sub).is_absolute() || Path::new(sub).components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(format!("subPath {sub:?} must be a relative path without '..'"));
    }
    let root = fs::canonicalize(root).map_err(|error| format!("{}: {error}", root.display()))?;
    let mut at = PathBuf::new();
    for part in Path::new(sub).components().filter(|part| matches!(part, Component::Normal(_))) {
        let next = root.join(&at).join(part);
        match fs::canonicalize(&next) {
            Ok(real) => at = real.strip_prefix(&root).map_err(|_| escapes())?.to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&next).is_err() => {
                make(&root, &at, part.as_os_str()).map_err(|error| format!("{}: {error}", next.display()))?;
                at.push(part);
            }
            Err(error) => return Err(format!("{}: {error}", next.display())),
        }
    }
    Ok((root, at))
}

/// A folder below `root`, at a path without links.
fn make(root: &Path, at: &Path, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = rustix::fs::open(root, flags, Mode::empty())?;
    if !at.as_os_str().is_empty() {
        folder = rustix::fs::openat2(&folder, at, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
    }
    Ok(rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o750))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_the_volume() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("f"), "").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::os::unix::fs::symlink("f", root.join("in")).unwrap();
        let real = root.canonicalize().unwrap();
        assert_eq!(resolve(root, "f").unwrap(), (real.clone(), "f".into()));
        assert_eq!(resolve(root, "./in").unwrap(), (real.clone(), "f".into()));
        assert_eq!(resolve(root, "a/b").unwrap(), (real, "a/b".into()));
        assert!(root.join("a/b").is_dir());
        // A link that came after it was looked for.
        assert!(make(root, Path::new("out"), OsStr::new("made")).is_err() && !Path::new("/etc/made").exists());
        for bad in ["../x", "/etc", "out", "out/passwd", "a/../../x"] {
            assert!(resolve(root, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expressions_need_their_variables() {
        let mount = VolumeMount { sub_path_expr: Some("$(POD)/x".into()), ..VolumeMount::default() };
        assert_eq!(wanted(&mount, &[("POD".into(), "p".into())]).unwrap(), "p/x");
        assert_eq!(wanted(&mount, &[]).unwrap_err(), "missing value for \"POD\"");
    }
}
