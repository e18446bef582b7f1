//! subPath and subPathExpr: a part of a volume, never anything outside of it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use api::k8s::api::core::v1::VolumeMount;

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

/// The host path of `sub` in the volume at `root`; made as a folder when nothing is there.
pub fn resolve(root: &Path, sub: &str) -> Result<PathBuf, String> {
    let escapes = || format!("subPath {sub:?} is outside of the volume");
    if Path::new(sub).is_absolute() || Path::new(sub).components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(format!("subPath {sub:?} must be a relative path without '..'"));
    }
    let root = fs::canonicalize(root).map_err(|error| format!("{}: {error}", root.display()))?;
    let mut at = root.clone();
    for part in Path::new(sub).components() {
        let next = at.join(part);
        match fs::canonicalize(&next) {
            Ok(real) if real.starts_with(&root) => at = real,
            Ok(_) => return Err(escapes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&next).is_err() => {
                fs::DirBuilder::new().mode(0o750).create(&next).map_err(|error| format!("{}: {error}", next.display()))?;
                at = next;
            }
            Err(error) => return Err(format!("{}: {error}", next.display())),
        }
    }
    Ok(at)
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
        assert_eq!(resolve(root, "f").unwrap(), root.canonicalize().unwrap().join("f"));
        assert_eq!(resolve(root, "in").unwrap(), root.canonicalize().unwrap().join("f"));
        assert!(resolve(root, "a/b").unwrap().is_dir());
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
