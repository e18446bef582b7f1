//! Our keys and etcd's: the same, but for the prefix.

use etcd::after_prefix;

/// Below the prefix, what is ours and no object.
const OWN: &str = "coracle/";

#[derive(Debug, Clone)]
pub struct Keys {
    root: String,
    prefix: String,
}

impl Keys {
    pub fn new(root: &str, prefix: &str) -> Self {
        Self { root: root.into(), prefix: prefix.into() }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `None`: no key of this store.
    pub fn outside(&self, key: &str) -> Option<Vec<u8>> {
        let rest = key.strip_prefix(&self.root)?;
        Some([self.prefix.as_bytes(), rest.as_bytes()].concat())
    }

    /// `None`: no object's.
    pub fn inside(&self, key: &[u8]) -> Option<String> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        (!rest.starts_with(OWN)).then(|| format!("{}{rest}", self.root))
    }

    /// All of ours: first key, and the one behind the last.
    pub fn all(&self) -> (Vec<u8>, Vec<u8>) {
        (self.prefix.as_bytes().to_vec(), after_prefix(self.prefix.as_bytes()))
    }

    /// What the keys below start with that are no objects.
    pub fn own(&self) -> Vec<u8> {
        format!("{}{OWN}", self.prefix).into_bytes()
    }

    /// Written to see past revisions of others.
    pub fn progress(&self) -> Vec<u8> {
        format!("{}{OWN}progress", self.prefix).into_bytes()
    }

    /// What `coracle store migrate` has to say about this etcd.
    pub fn migration(&self) -> Vec<u8> {
        format!("{}{OWN}migration", self.prefix).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let keys = Keys::new("/registry/", "/other/place/");
        assert_eq!(keys.outside("/registry/pods/a/b").unwrap(), b"/other/place/pods/a/b");
        assert_eq!(keys.inside(b"/other/place/pods/a/b").unwrap(), "/registry/pods/a/b");
        assert_eq!(keys.outside("/elsewhere"), None);
        assert_eq!(keys.inside(&keys.progress()), None);
        assert_eq!(keys.all().1, b"/other/place0");
    }
}
