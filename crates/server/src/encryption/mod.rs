//! Encryption at rest: values are sealed where a store writes them down and unsealed where it reads them back; in memory they are what clients see.
//!
//! Mirrors kube-apiserver's `--encryption-provider-config` (apiserver/pkg/server/options/encryptionconfig): stored values bear upstream's prefix and key name,
//! `k8s:enc:aescbc:v1:key1:`. The file is followed: when it changes, new writes are sealed by its first key, and the store seals anew what it holds.

mod ciphers;
mod config;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use client::BoxFuture;
use store::{Store, Transform, TransformError, Unsealed};
use tokio::sync::watch;

use crate::decode;
use crate::file_changes::FileChanges;
use ciphers::{seal, unseal};
use config::{Provider, Rules, SEALED};

#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("error reading encryption provider configuration file {path:?}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("error while parsing encryption provider configuration file {path:?}: {why}")]
    Config { path: PathBuf, why: String },
}

/// What a file says of encryption. Given to the store that is to seal its values.
pub struct Encryption {
    path: PathBuf,
    rules: ArcSwap<Rules>,
    /// What the file said when it was opened.
    first: Vec<u8>,
    /// Where a built-in kind lies, and what it is.
    places: HashMap<Box<str>, (Box<str>, Box<str>)>,
    pub reloads: AtomicU64,
    pub failed_reloads: AtomicU64,
}

fn load(path: &Path) -> Result<(Rules, String), EncryptionError> {
    let text = std::fs::read_to_string(path).map_err(|error| EncryptionError::Read { path: path.into(), error })?;
    let rules = decode::yaml(&text).and_then(|config| Rules::of(&config)).map_err(|why| EncryptionError::Config { path: path.into(), why })?;
    Ok((rules, text))
}

impl Encryption {
    pub fn open(path: &Path) -> Result<Arc<Self>, EncryptionError> {
        let rows = ::api::table::table().rows();
        let places = rows.iter().map(|row| ((&*row.prefix).into(), ((&*row.group).into(), (&*row.plural).into()))).collect();
        let (rules, text) = load(path)?;
        Ok(Arc::new(Self { path: path.into(), rules: ArcSwap::from_pointee(rules), first: text.into_bytes(), places, reloads: AtomicU64::new(0), failed_reloads: AtomicU64::new(0) }))
    }

    /// Group and resource of what lies at `key`.
    fn resource<'a>(&'a self, key: &'a str) -> (&'a str, &'a str) {
        for (slash, _) in key.match_indices('/').skip(2).take(3) {
            if let Some((group, resource)) = self.places.get(&key[..=slash]) {
                return (group, resource);
            }
        }
        // Custom kinds lie under their group.
        let mut parts = key.trim_start_matches("/registry/").split('/');
        (parts.next().unwrap_or(""), parts.next().unwrap_or(""))
    }
}

impl Transform for Encryption {
    fn seal(&self, key: &str, plain: &[u8]) -> Result<Option<Bytes>, TransformError> {
        let rules = self.rules.load();
        let (group, resource) = self.resource(key);
        let Some(Provider::Keyed(algorithm, keys)) = rules.providers(group, resource).and_then(<[Provider]>::first) else { return Ok(None) };
        let Some(first) = keys.first() else { return Err(TransformError("there is no key to seal with".into())) };
        let sealed = seal(*algorithm, &first.secret, key.as_bytes(), plain).map_err(|error| TransformError(error.to_string()))?;
        Ok(Some([algorithm.prefix().as_bytes(), first.name.as_bytes(), b":", &sealed].concat().into()))
    }

    fn unseal(&self, key: &str, stored: &[u8]) -> Result<Unsealed, TransformError> {
        let rules = self.rules.load();
        let (group, resource) = self.resource(key);
        let sealed = stored.starts_with(SEALED.as_bytes());
        let Some(providers) = rules.providers(group, resource) else {
            return if sealed { Err(TransformError("identity transformer tried to read encrypted data".into())) } else { Ok(Unsealed::as_it_is(false)) };
        };
        for (place, provider) in providers.iter().enumerate() {
            match provider {
                Provider::Identity if !sealed => return Ok(Unsealed::as_it_is(place > 0)),
                Provider::Identity => {}
                Provider::Keyed(algorithm, keys) => {
                    let Some(rest) = stored.strip_prefix(algorithm.prefix().as_bytes()) else { continue };
                    for (at, known) in keys.iter().enumerate() {
                        let Some(data) = rest.strip_prefix(known.name.as_bytes()).and_then(|rest| rest.strip_prefix(b":")) else { continue };
                        let plain = unseal(*algorithm, &known.secret, key.as_bytes(), data).map_err(|error| TransformError(error.to_string()))?;
                        return Ok(Unsealed { plain: Some(plain.into()), stale: place > 0 || at > 0 });
                    }
                    return Err(TransformError(format!("no matching key was found for the provided {} transformer", if algorithm.field() == "secretbox" { "Secretbox" } else { "AES" })));
                }
            }
        }
        Err(TransformError("no matching prefix found".into()))
    }
}

/// Follows the file until `shutdown` becomes true or its sender is gone. A file that is wrong changes nothing and is told.
pub fn follow_encryption(encryption: Arc<Encryption>, store: Arc<dyn Store>, shutdown: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
    Box::pin(follow(encryption, store, shutdown))
}

async fn follow(encryption: Arc<Encryption>, store: Arc<dyn Store>, mut shutdown: watch::Receiver<bool>) {
    let mut changes = match FileChanges::of(&encryption.path, encryption.first.clone()) {
        Ok(changes) => changes,
        Err(error) => return tracing::warn!(%error, file = %encryption.path.display(), "the encryption provider config is not followed: it counts from the next start"),
    };
    loop {
        tokio::select! {
            changed = changes.next() => if !changed { return },
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        match load(&encryption.path) {
            Ok((rules, _)) => {
                encryption.rules.store(Arc::new(rules));
                encryption.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(file = %encryption.path.display(), "the encryption provider config was read again");
                if let Err(error) = store.reseal().await {
                    tracing::warn!(%error, "what is stored could not be sealed anew");
                }
            }
            Err(error) => {
                encryption.failed_reloads.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "the encryption provider config stays as it was");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(providers: &str) -> (tempfile::TempDir, Arc<Encryption>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encryption.yaml");
        std::fs::write(&path, format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, widgets.example.com]\n  providers:\n{providers}")).unwrap();
        let encryption = Encryption::open(&path).unwrap();
        (folder, encryption)
    }

    const KEYS: &str = "{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}";
    const NEW: &str = "{name: key2, secret: MDEyMzQ1Njc4OWFiY2RlZg==}";
    const PLAIN: &[u8] = br#"{"kind":"Secret"}"#;

    #[test]
    fn keys_are_rotated_by_their_order() {
        let (_one, old) = open(&format!("  - aescbc: {{keys: [{KEYS}]}}\n  - identity: {{}}\n"));
        let (_two, both) = open(&format!("  - aescbc: {{keys: [{NEW}, {KEYS}]}}\n"));
        let (_three, other) = open(&format!("  - aesgcm: {{keys: [{NEW}]}}\n  - aescbc: {{keys: [{KEYS}]}}\n"));
        let (_four, new) = open(&format!("  - aescbc: {{keys: [{NEW}]}}\n"));
        let (_five, open) = open(&format!("  - identity: {{}}\n  - aescbc: {{keys: [{KEYS}]}}\n"));
        let place = "/registry/secrets/default/a";
        let sealed = old.seal(place, PLAIN).unwrap().unwrap();
        assert!(sealed.starts_with(b"k8s:enc:aescbc:v1:key1:"));
        let fresh = |encryption: &Encryption| encryption.unseal(place, &sealed).map(|unsealed| (unsealed.plain.unwrap(), unsealed.stale)).map_err(|error| error.0);
        let known = Bytes::from_static(PLAIN);
        assert_eq!(fresh(&old), Ok((known.clone(), false)));
        assert_eq!(fresh(&both), Ok((known.clone(), true)));
        assert_eq!(fresh(&other), Ok((known.clone(), true)));
        assert_eq!(fresh(&open), Ok((known, true)));
        assert_eq!(fresh(&new), Err("no matching key was found for the provided AES transformer".into()));
        assert!(both.seal(place, PLAIN).unwrap().unwrap().starts_with(b"k8s:enc:aescbc:v1:key2:"));
        assert!(other.seal(place, PLAIN).unwrap().unwrap().starts_with(b"k8s:enc:aesgcm:v1:key2:"));
        assert_eq!(open.seal(place, PLAIN).unwrap(), None);
        // What lies open is read where that is allowed, and nowhere else.
        let plain = |encryption: &Encryption| encryption.unseal(place, PLAIN).map(|unsealed| (unsealed.plain.is_none(), unsealed.stale)).map_err(|error| error.0);
        assert_eq!((plain(&old), plain(&open)), (Ok((true, true)), Ok((true, false))));
        assert_eq!(plain(&new), Err("no matching prefix found".into()));
        // Of other kinds nothing is touched, and nothing sealed is taken for an object.
        assert_eq!(old.seal("/registry/configmaps/default/a", PLAIN).unwrap(), None);
        assert_eq!(old.unseal("/registry/configmaps/default/a", &sealed).map(|_| ()).unwrap_err().0, "identity transformer tried to read encrypted data");
        assert!(old.seal("/registry/example.com/widgets/default/a", PLAIN).unwrap().is_some());
    }

    #[test]
    fn what_lies_where() {
        let (_folder, encryption) = open("  - identity: {}\n");
        for (key, expected) in [
            ("/registry/secrets/default/a", ("", "secrets")),
            ("/registry/services/specs/default/a", ("", "services")),
            ("/registry/minions/a", ("", "nodes")),
            ("/registry/deployments/default/a", ("apps", "deployments")),
            ("/registry/example.com/widgets/default/a", ("example.com", "widgets")),
        ] {
            assert_eq!(encryption.resource(key), expected, "{key}");
        }
    }
}
