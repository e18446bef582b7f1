//! The agent's certificate on disk: `kubelet-client-current.pem` leads to the newest of the dated files, as upstream's certificate store has it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pki::{Certificate, Identity};

use crate::error::Error;
use crate::files::write_private;

/// Older files that are kept; upstream keeps all.
const KEPT_FILES: usize = 3;

#[derive(Debug, Clone)]
pub struct IdentityFile {
    folder: PathBuf,
    /// `kubelet-client`, `kubelet-server`.
    name: &'static str,
}

impl IdentityFile {
    pub fn new(folder: &Path, name: &'static str) -> Self {
        Self { folder: folder.to_owned(), name }
    }

    /// What kubeconfigs name.
    pub fn current(&self) -> PathBuf {
        self.folder.join(format!("{}-current.pem", self.name))
    }

    /// Certificate and key in one, and what the certificate says.
    pub fn load(&self) -> Result<(Identity, Certificate), Error> {
        let path = self.current();
        let text = std::fs::read_to_string(&path).map_err(Error::file("cannot read", &path))?;
        let facts = Certificate::read(text.as_bytes()).map_err(|error| Error::Certificate { path: path.display().to_string(), message: error.to_string() })?;
        // Both readers of PEM pass over what is not theirs.
        Ok((Identity { certificate_pem: text.clone(), key_pem: text }, facts))
    }

    /// Becomes the current one; whoever reads finds the old or the new one, whole.
    pub fn store(&self, identity: &Identity, now: Timestamp) -> Result<(), Error> {
        let stamp = now.strftime("%Y-%m-%d-%H-%M-%S").to_string();
        let file = format!("{}-{stamp}.pem", self.name);
        let path = self.folder.join(&file);
        write_private(&path, format!("{}{}", identity.certificate_pem, identity.key_pem).as_bytes()).map_err(Error::file("cannot write", &path))?;
        let (current, next) = (self.current(), self.folder.join(format!(".{}-next", self.name)));
        let _ = std::fs::remove_file(&next);
        std::os::unix::fs::symlink(&file, &next).and_then(|()| std::fs::rename(&next, &current)).map_err(Error::file("cannot write", &current))?;
        self.forget_old();
        Ok(())
    }

    fn forget_old(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let dated = |name: &str| name.strip_prefix(self.name).is_some_and(|rest| rest.starts_with("-2") && rest.ends_with(".pem"));
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| dated(name)).collect();
        names.sort();
        for old in names.iter().rev().skip(KEPT_FILES) {
            let _ = std::fs::remove_file(self.folder.join(old));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_current() {
        let folder = tempfile::tempdir().unwrap();
        let file = IdentityFile::new(folder.path(), "kubelet-client");
        assert!(file.load().is_err());
        let authority = pki::Authority::generate("kubernetes", 1_800_000_000).unwrap();
        for number in 0..5 {
            let user = format!("system:node:{number}");
            let identity = authority.issue(&pki::Pki::Client { user: &user, groups: &["system:nodes"] }, 1_800_000_000).unwrap();
            file.store(&identity, Timestamp::from_second(1_800_000_000 + number).unwrap()).unwrap();
            assert_eq!(file.load().unwrap().1.common_name, user);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), KEPT_FILES + 1);
    }
}
