//! An image of this very program, which every node has without pulling: what the manifest of the pod network runs.
//!
//! It is made when it is first asked for: a folder with a copy of the program, made anew when the program is another one. It is in no list of images and
//! nobody's to remove.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use image::Digest;
use node::{ImageInfo, RunConfig};

/// By this name, with any tag.
pub const NAME: &str = "coracle.dev/coracle";
const PROGRAM: &str = "coracle";

/// Whether a reference names it.
pub fn is_meant(reference: &str) -> bool {
    reference.strip_prefix(NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
}

/// Blocks while the program is copied.
pub fn make(folder: &Path) -> io::Result<ImageInfo> {
    let program = std::env::current_exe()?;
    let found = std::fs::metadata(&program)?;
    let id = Digest::of(format!("{} {} {}.{}", env!("CARGO_PKG_VERSION"), found.len(), found.mtime(), found.mtime_nsec()).as_bytes());
    let layer = folder.join(id.hex());
    if !layer.join(PROGRAM).exists() {
        copy(&program, folder, &layer)?;
    }
    let config = RunConfig { entrypoint: vec![format!("/{PROGRAM}")], ..RunConfig::default() };
    Ok(ImageInfo { id: id.to_string(), repo_tags: vec![format!("{NAME}:latest")], repo_digests: Vec::new(), size: found.len(), config, layers: vec![layer] })
}

/// Older copies go, but for those that something still runs from: the kernel keeps these until it ends.
fn copy(program: &Path, folder: &Path, layer: &Path) -> io::Result<()> {
    let temporary: PathBuf = folder.join("new");
    for old in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        std::fs::remove_dir_all(old.path())?;
    }
    std::fs::create_dir_all(&temporary)?;
    let to = temporary.join(PROGRAM);
    // Beside each other on one disk they need not be two.
    if std::fs::hard_link(program, &to).is_err() {
        std::fs::copy(program, &to)?;
    }
    std::fs::rename(&temporary, layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_name_and_no_other() {
        for (reference, meant) in [(NAME, true), ("coracle.dev/coracle:v1", true), ("coracle.dev/coracle-x", false), ("docker.io/coracle.dev/coracle", false), ("nginx", false)] {
            assert_eq!(is_meant(reference), meant, "{reference}");
        }
    }

    #[test]
    fn made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = make(folder.path()).unwrap();
        let file = |info: &ImageInfo| std::fs::metadata(info.layers[0].join(PROGRAM)).unwrap().ino();
        let again = make(folder.path()).unwrap();
        assert_eq!((&first.id, file(&first)), (&again.id, file(&again)));
    }
}
