//! hostPath volumes: checks (or makes) what the type asks for. Mirrors upstream's host_path.go.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use api::k8s::api::core::v1::HostPathVolumeSource;

pub fn check(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let failed = |what: &str| format!("hostPath type check failed: {} is not {what}", source.path);
    let kind = |test: fn(&fs::Metadata) -> bool, what: &str| if fs::metadata(path).is_ok_and(|m| test(&m)) { Ok(()) } else { Err(failed(what)) };
    match source.type_.as_deref().unwrap_or_default() {
        "" => {
            if path.exists() {
                return Ok(());
            }
            // Container runtimes make what is missing, as a folder.
            fs::create_dir_all(path).map_err(|error| format!("{}: {error}", source.path))
        }
        "DirectoryOrCreate" => {
            if !path.exists() {
                fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755))).map_err(|error| format!("{}: {error}", source.path))?;
            }
            kind(fs::Metadata::is_dir, "a directory")
        }
        "Directory" => kind(fs::Metadata::is_dir, "a directory"),
        "FileOrCreate" => {
            if !path.exists() {
                fs::write(path, "").and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644))).map_err(|error| format!("{}: {error}", source.path))?;
            }
            kind(fs::Metadata::is_file, "a file")
        }
        "File" => kind(fs::Metadata::is_file, "a file"),
        "Socket" => kind(|m| m.file_type().is_socket(), "a socket file"),
        "CharDevice" => kind(|m| m.file_type().is_char_device(), "a character device"),
        "BlockDevice" => kind(|m| m.file_type().is_block_device(), "a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("dir")).unwrap();
        let cases = [
            ("file", "", true), ("new1", "", true), ("dir", "Directory", true), ("file", "Directory", false), ("none", "Directory", false), ("new2", "DirectoryOrCreate", true),
            ("file", "DirectoryOrCreate", false), ("file", "File", true), ("dir", "File", false), ("new3", "FileOrCreate", true), ("file", "Socket", false), ("file", "Odd", false),
        ];
        for (name, kind, fine) in cases {
            let source = HostPathVolumeSource { path: at(name), type_: Some(kind.to_owned()) };
            assert_eq!(check(&source).is_ok(), fine, "{name} {kind}");
        }
        assert!(fs::metadata(at("new3")).unwrap().is_file());
        assert!(check(&HostPathVolumeSource { path: "/dev/null".into(), type_: Some("CharDevice".into()) }).is_ok());
    }
}
