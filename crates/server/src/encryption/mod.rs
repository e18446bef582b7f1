//! Encryption at rest: values are sealed where a store writes them down and unsealed where it reads them back; in memory they are what clients see.
//!
//! Mirrors kube-apiserver's `--encryption-provider-config` (apiserver/pkg/server/options/encryptionconfig): stored values bear upstream's prefix and key name,
//! `k8s:enc:aescbc:v1:key1:`. The file is followed: when it changes, new writes are sealed by its first key, and the store seals anew what it holds. One that names a
//! service that is not well counts only when that is well; until then what counted before goes on.

mod ciphers;
mod config;
mod envelope;
mod kms;
mod metrics;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use client::BoxFuture;
use store::{Store, Transform, TransformError, Unsealed};
use tokio::sync::watch;

use crate::decode;
use crate::file_changes::FileChanges;
use ciphers::{seal, unseal};
use config::{Provider, Rules, SEALED};
use kms::Kms;
use metrics::EncryptionMetrics;

#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("error reading encryption provider configuration file {path:?}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("error while parsing encryption provider configuration file {path:?}: {why}")]
    Config { path: PathBuf, why: String },
    #[error("error processing encryption config file {path:?}: health check for new transformers failed, polling error: {why}")]
    Ill { path: PathBuf, why: String },
}

/// How soon a service that is ill is asked again whether its configuration can be taken into use; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What a file says of encryption. Given to the store that is to seal its values.
pub struct Encryption {
    path: PathBuf,
    loaded: ArcSwap<Loaded>,
    /// What the file said when it was opened.
    first: Vec<u8>,
    /// Where a built-in kind lies, and what it is.
    places: HashMap<Box<str>, (Box<str>, Box<str>)>,
    /// `--encryption-provider-config-automatic-reload`
    follows: AtomicBool,
    pub(crate) metrics: Arc<EncryptionMetrics>,
}

/// The rules, and the services they name.
struct Loaded {
    rules: Rules,
    kms: BTreeMap<String, Arc<Kms>>,
}

impl Loaded {
    /// Whether the services are well.
    fn health(&self) -> Result<(), String> {
        let ill: Vec<String> = self.kms.values().filter_map(|kms| kms.ill()).collect();
        match ill.as_slice() {
            [] => Ok(()),
            [one] => Err(one.clone()),
            more => Err(format!("[{}]", more.join(", "))),
        }
    }

    fn poll(&self) {
        for kms in self.kms.values() {
            kms.poll();
        }
    }
}

/// Services that are as they were are gone on with.
fn load(path: &Path, before: Option<&Loaded>, metrics: &Arc<EncryptionMetrics>) -> Result<(Loaded, String), EncryptionError> {
    let text = std::fs::read_to_string(path).map_err(|error| EncryptionError::Read { path: path.into(), error })?;
    let wrong = |why: String| EncryptionError::Config { path: path.into(), why };
    let rules = decode::yaml(&text).and_then(|config| Rules::of(&config)).map_err(wrong)?;
    let mut kms = BTreeMap::new();
    for wanted in rules.kms() {
        let known = before.and_then(|before| before.kms.get(&wanted.name)).filter(|known| known.config == *wanted).cloned();
        let service = match known {
            Some(known) => known,
            None => Kms::open(wanted.clone(), metrics.clone()).map_err(wrong)?,
        };
        kms.insert(wanted.name.clone(), service);
    }
    Ok((Loaded { rules, kms }, text))
}

impl Encryption {
    pub fn open(path: &Path) -> Result<Arc<Self>, EncryptionError> {
        let rows = ::api::table::table().rows();
        let places = rows.iter().map(|row| ((&*row.prefix).into(), ((&*row.group).into(), (&*row.plural).into()))).collect();
        let metrics = Arc::new(EncryptionMetrics::default());
        let (loaded, text) = load(path, None, &metrics)?;
        metrics.reloads.begin(text.as_bytes());
        Ok(Arc::new(Self { path: path.into(), loaded: ArcSwap::from_pointee(loaded), first: text.into_bytes(), places, follows: AtomicBool::new(true), metrics }))
    }

    /// Whether the file is read again when it changes.
    pub fn follow(&self, follows: bool) {
        self.follows.store(follows, Ordering::Relaxed);
    }

    pub(crate) fn has_kms(&self) -> bool {
        !self.loaded.load().kms.is_empty()
    }

    /// Whether the services are well.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.loaded.load().health()
    }

    /// Asks the services how they are and which key is theirs now, without waiting for the next time.
    pub fn poll(&self) {
        self.loaded.load().poll();
    }

    /// What has been counted, as `/metrics` has it.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        self.metrics.text(&mut text);
        text
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

/// What stands before a value that a service sealed.
fn kms_prefix(name: &str) -> String {
    format!("{SEALED}kms:v2:{name}:")
}

impl Transform for Encryption {
    fn seal(&self, key: &str, plain: &[u8]) -> Result<Option<Bytes>, TransformError> {
        let begun = Instant::now();
        let loaded = self.loaded.load();
        let (group, resource) = self.resource(key);
        let Some(first) = loaded.rules.providers(group, resource).and_then(<[Provider]>::first) else { return Ok(None) };
        let (prefix, outcome) = match first {
            Provider::Identity => return Ok(None),
            Provider::Keyed(algorithm, _) => (algorithm.prefix().to_owned(), first.seal_keyed(key, plain)),
            Provider::Kms(config) => {
                let prefix = kms_prefix(&config.name);
                let sealed = loaded.kms.get(&config.name).ok_or_else(|| "there is no such KMS provider".to_owned()).and_then(|kms| kms.seal(key.as_bytes(), plain));
                let outcome = sealed.map(|sealed| Some(Bytes::from([prefix.as_bytes(), &sealed].concat()))).map_err(TransformError);
                (prefix, outcome)
            }
        };
        self.metrics.transformed(&qualified(group, resource), "to_storage", &prefix, begun.elapsed(), outcome.is_ok());
        outcome
    }

    fn unseal(&self, key: &str, stored: &[u8]) -> Result<Unsealed, TransformError> {
        let begun = Instant::now();
        let (group, resource) = self.resource(key);
        let (prefix, outcome) = self.unsealed(key, stored);
        // What lies open is not counted: it is nobody's transformation.
        if !prefix.is_empty() || outcome.is_err() {
            self.metrics.transformed(&qualified(group, resource), "from_storage", if prefix.is_empty() { "unknown" } else { &prefix }, begun.elapsed(), outcome.is_ok());
        }
        outcome
    }
}

/// `deployments.apps`
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Provider {
    fn seal_keyed(&self, key: &str, plain: &[u8]) -> Result<Option<Bytes>, TransformError> {
        let Self::Keyed(algorithm, keys) = self else { return Ok(None) };
        let Some(first) = keys.first() else { return Err(TransformError("there is no key to seal with".into())) };
        let sealed = seal(*algorithm, &first.secret, key.as_bytes(), plain).map_err(|error| TransformError(error.to_string()))?;
        Ok(Some([algorithm.prefix().as_bytes(), first.name.as_bytes(), b":", &sealed].concat().into()))
    }
}

impl Encryption {
    /// The prefix of whoever sealed it, and what it was.
    fn unsealed(&self, key: &str, stored: &[u8]) -> (String, Result<Unsealed, TransformError>) {
        let loaded = self.loaded.load();
        let (group, resource) = self.resource(key);
        let sealed = stored.starts_with(SEALED.as_bytes());
        let nobody = |outcome| (String::new(), outcome);
        let Some(providers) = loaded.rules.providers(group, resource) else {
            return nobody(if sealed { Err(TransformError("identity transformer tried to read encrypted data".into())) } else { Ok(Unsealed::as_it_is(false)) });
        };
        for (place, provider) in providers.iter().enumerate() {
            match provider {
                Provider::Identity if !sealed => return nobody(Ok(Unsealed::as_it_is(place > 0))),
                Provider::Identity => {}
                Provider::Kms(config) => {
                    let prefix = kms_prefix(&config.name);
                    let Some(rest) = stored.strip_prefix(prefix.as_bytes()) else { continue };
                    let plain = loaded.kms.get(&config.name).ok_or_else(|| "there is no such KMS provider".to_owned()).and_then(|kms| kms.unseal(key.as_bytes(), rest));
                    let outcome = plain.map(|(plain, stale)| Unsealed { plain: Some(plain.into()), stale: stale || place > 0 }).map_err(TransformError);
                    return (prefix, outcome);
                }
                Provider::Keyed(algorithm, keys) => {
                    let Some(rest) = stored.strip_prefix(algorithm.prefix().as_bytes()) else { continue };
                    for (at, known) in keys.iter().enumerate() {
                        let Some(data) = rest.strip_prefix(known.name.as_bytes()).and_then(|rest| rest.strip_prefix(b":")) else { continue };
                        let plain = unseal(*algorithm, &known.secret, key.as_bytes(), data).map_err(|error| TransformError(error.to_string()));
                        return (algorithm.prefix().to_owned(), plain.map(|plain| Unsealed { plain: Some(plain.into()), stale: place > 0 || at > 0 }));
                    }
                    let missing = format!("no matching key was found for the provided {} transformer", if algorithm.field() == "secretbox" { "Secretbox" } else { "AES" });
                    return (algorithm.prefix().to_owned(), Err(TransformError(missing)));
                }
            }
        }
        nobody(Err(TransformError("no matching prefix found".into())))
    }
}

/// Follows the file until `shutdown` becomes true or its sender is gone. A file that is wrong changes nothing and is told.
pub fn follow_encryption(encryption: Arc<Encryption>, store: Arc<dyn Store>, shutdown: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
    Box::pin(follow(encryption, store, shutdown))
}

async fn follow(encryption: Arc<Encryption>, store: Arc<dyn Store>, mut shutdown: watch::Receiver<bool>) {
    if !encryption.follows.load(Ordering::Relaxed) {
        return;
    }
    let mut changes = match FileChanges::of(&encryption.path, encryption.first.clone()) {
        Ok(changes) => changes,
        Err(error) => return tracing::warn!(%error, file = %encryption.path.display(), "the encryption provider config is not followed: it counts from the next start"),
    };
    // What a file says whose services are not well: it is not taken into use before they are, as else nothing could be written any more.
    let (mut awaited, mut pause) = (None::<(Loaded, String)>, FIRST_RETRY);
    loop {
        tokio::select! {
            changed = changes.next() => {
                if !changed {
                    return;
                }
                (awaited, pause) = (None, FIRST_RETRY);
            }
            () = tokio::time::sleep(pause), if awaited.is_some() => pause = (pause * 2).min(LONGEST_RETRY),
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        // Services are asked at once, which may take its time.
        let (again, waiting) = (encryption.clone(), awaited.take());
        let read = tokio::task::spawn_blocking(move || match waiting {
            Some(waiting) => {
                waiting.0.poll();
                Ok(waiting)
            }
            None => load(&again.path, Some(&again.loaded.load()), &again.metrics),
        });
        // A panic costs this one reading.
        let Ok(read) = read.await else { continue };
        let outcome = read.and_then(|candidate| match candidate.0.health() {
            Ok(()) => Ok(candidate),
            Err(why) => {
                awaited = Some(candidate);
                Err(EncryptionError::Ill { path: encryption.path.clone(), why })
            }
        });
        match outcome {
            Ok((loaded, text)) => {
                encryption.loaded.store(Arc::new(loaded));
                encryption.metrics.reloads.read(Some(text.as_bytes()));
                tracing::info!(file = %encryption.path.display(), "the encryption provider config was read again");
                if let Err(error) = store.reseal().await {
                    tracing::warn!(%error, "what is stored could not be sealed anew");
                }
            }
            Err(error) => {
                encryption.metrics.reloads.read(None);
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
