//! What a value sealed with a key of a KMS is stored as, and how it is sealed: byte for byte upstream's, so that either reads what the other wrote.
//!
//! Mirrors apiserver/pkg/storage/value/encrypt/envelope/kmsv2 (EncryptedObject) and aes_extended_nonce.go: of a seed that the KMS keeps sealed, every value gets a key of
//! its own by HKDF. Pure but for chance.

use std::collections::BTreeMap;

use bytes::Bytes;
use etcd::grpc::{Fields, wire};
use ring::hkdf::{HKDF_SHA256, Prk};

use super::ciphers::{self, Algorithm, CipherError};

const SEED_BYTES: usize = 32;
const INFO_BYTES: usize = 32;
const KEY_ID_BYTES_MAX: usize = 1024;
const SOURCE_BYTES_MAX: usize = 1024;
const ANNOTATION_BYTES_MAX: usize = 32 * 1024;

/// What the KMS keeps sealed: a key, as it was once, or a seed of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SourceKind {
    Key,
    #[default]
    Seed,
}

/// A key or seed as the KMS sealed it: what it is found again by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Source {
    pub kind: SourceKind,
    pub sealed: Vec<u8>,
    pub key_id: String,
    pub annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub source: Source,
    pub data: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyIdFault {
    Empty,
    TooLong,
}

impl KeyIdFault {
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong => "too_long",
        }
    }
}

pub fn check_key_id(key_id: &str) -> Result<(), (KeyIdFault, String)> {
    match key_id.len() {
        0 => Err((KeyIdFault::Empty, "keyID is empty".into())),
        length if length > KEY_ID_BYTES_MAX => Err((KeyIdFault::TooLong, format!("keyID is {length} bytes, which exceeds the max size of {KEY_ID_BYTES_MAX}"))),
        _ => Ok(()),
    }
}

impl Source {
    pub fn check(&self) -> Result<(), String> {
        match self.sealed.len() {
            0 => return Err("failed to validate encrypted DEK source: encrypted DEK source is empty".into()),
            length if length > SOURCE_BYTES_MAX => {
                return Err(format!("failed to validate encrypted DEK source: encrypted DEK source is {length} bytes, which exceeds the max size of {SOURCE_BYTES_MAX}"));
            }
            _ => {}
        }
        check_key_id(&self.key_id).map_err(|(_, why)| format!("failed to validate key id: {why}"))?;
        let total: usize = self.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
        let named = |name: &&String| !name.contains('.') || !::api::names::dns_subdomain(name).is_empty();
        if let Some(name) = self.annotations.keys().find(named) {
            return Err(format!("failed to validate annotations: annotations: Invalid value: {name:?}: should be a domain with at least two segments separated by dots"));
        }
        if total > ANNOTATION_BYTES_MAX {
            return Err(format!("failed to validate annotations: total size of annotations is {total}, which exceeds the max size of {ANNOTATION_BYTES_MAX}"));
        }
        Ok(())
    }
}

pub fn annotations(out: &mut Vec<u8>, tag: u32, annotations: &BTreeMap<String, Vec<u8>>) {
    for (name, value) in annotations {
        let mut entry = Vec::new();
        wire::bytes(&mut entry, 1, name.as_bytes());
        wire::bytes(&mut entry, 2, value);
        wire::message(out, tag, &entry);
    }
}

/// One entry of a map of annotations.
pub fn annotation(bytes: Bytes) -> Result<(String, Vec<u8>), String> {
    let (mut name, mut value, mut fields) = (String::new(), Vec::new(), Fields(bytes));
    while let Some((tag, part)) = fields.next().map_err(|error| error.to_string())? {
        match tag {
            1 => name = part.text(),
            2 => value = part.bytes().to_vec(),
            _ => {}
        }
    }
    Ok((name, value))
}

impl Envelope {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::bytes(&mut out, 1, &self.data);
        wire::bytes(&mut out, 2, self.source.key_id.as_bytes());
        wire::bytes(&mut out, 3, &self.source.sealed);
        annotations(&mut out, 4, &self.source.annotations);
        wire::number(&mut out, 5, u64::from(self.source.kind == SourceKind::Seed));
        out
    }

    pub fn decode(stored: &[u8]) -> Result<Self, String> {
        let mut envelope = Self { source: Source { kind: SourceKind::Key, ..Source::default() }, data: Vec::new() };
        let mut fields = Fields(Bytes::copy_from_slice(stored));
        while let Some((tag, part)) = fields.next().map_err(|_| "proto: cannot parse invalid wire-format data".to_owned())? {
            match tag {
                1 => envelope.data = part.bytes().to_vec(),
                2 => envelope.source.key_id = part.text(),
                3 => envelope.source.sealed = part.bytes().to_vec(),
                4 => {
                    let (name, value) = annotation(part.bytes())?;
                    envelope.source.annotations.insert(name, value);
                }
                5 => {
                    envelope.source.kind = match part.number() {
                        0 => SourceKind::Key,
                        1 => SourceKind::Seed,
                        other => return Err(format!("unknown encryptedDEKSourceType: {other}")),
                    };
                }
                _ => {}
            }
        }
        if envelope.data.is_empty() {
            return Err("encrypted data is empty".into());
        }
        envelope.source.check()?;
        Ok(envelope)
    }
}

pub fn new_seed() -> Result<Vec<u8>, CipherError> {
    let mut seed = vec![0; SEED_BYTES];
    getrandom::fill(&mut seed).map_err(|_| CipherError::Chance)?;
    Ok(seed)
}

fn derived(seed: &[u8], info: &[u8]) -> Result<[u8; SEED_BYTES], CipherError> {
    let mut key = [0; SEED_BYTES];
    // The length is the hash's own: it cannot be too long.
    Prk::new_less_safe(HKDF_SHA256, seed).expand(&[info], HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).map_err(|_| CipherError::Short)?;
    Ok(key)
}

pub fn seal(seed: &[u8], place: &[u8], plain: &[u8]) -> Result<Vec<u8>, CipherError> {
    let mut info = [0; INFO_BYTES];
    getrandom::fill(&mut info).map_err(|_| CipherError::Chance)?;
    let sealed = ciphers::seal(Algorithm::Gcm, &derived(seed, &info)?, place, plain)?;
    Ok([&info[..], &sealed].concat())
}

/// What a plugin unsealed must be a key, or long enough for a seed.
pub fn check_secret(kind: SourceKind, secret: &[u8]) -> Result<(), String> {
    match kind {
        SourceKind::Key if !Algorithm::Gcm.key_sizes().contains(&secret.len()) => Err(format!("crypto/aes: invalid key size {}", secret.len())),
        SourceKind::Seed if secret.len() < SEED_BYTES => Err(format!("invalid seed length {} used for key generation", secret.len())),
        _ => Ok(()),
    }
}

pub fn unseal(kind: SourceKind, secret: &[u8], place: &[u8], data: &[u8]) -> Result<Vec<u8>, CipherError> {
    match kind {
        SourceKind::Key if Algorithm::Gcm.key_sizes().contains(&secret.len()) => ciphers::unseal(Algorithm::Gcm, secret, place, data),
        SourceKind::Seed if secret.len() >= SEED_BYTES => {
            let (info, sealed) = data.split_first_chunk::<INFO_BYTES>().ok_or(CipherError::Short)?;
            ciphers::unseal(Algorithm::Gcm, &derived(secret, info)?, place, sealed)
        }
        _ => Err(CipherError::Short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_and_read_again() {
        let seed = new_seed().unwrap();
        let data = seal(&seed, b"/registry/secrets/a", b"plain").unwrap();
        assert_eq!(unseal(SourceKind::Seed, &seed, b"/registry/secrets/a", &data), Ok(b"plain".to_vec()));
        assert_eq!(unseal(SourceKind::Seed, &seed, b"/registry/secrets/b", &data), Err(CipherError::Authentication));
        assert_eq!(unseal(SourceKind::Seed, &seed, b"", b"short"), Err(CipherError::Short));
        let key = [7; 32];
        let once = ciphers::seal(Algorithm::Gcm, &key, b"p", b"old").unwrap();
        assert_eq!(unseal(SourceKind::Key, &key, b"p", &once), Ok(b"old".to_vec()));
        let source = Source { kind: SourceKind::Seed, sealed: vec![1, 2], key_id: "k1".into(), annotations: [("a.b".to_owned(), vec![9])].into() };
        let envelope = Envelope { source, data };
        assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope.clone()));
        for (wrong, why) in [
            (Envelope { data: Vec::new(), ..envelope.clone() }, "encrypted data is empty"),
            (Envelope { source: Source { key_id: String::new(), ..envelope.source.clone() }, ..envelope.clone() }, "failed to validate key id: keyID is empty"),
            (Envelope { source: Source { sealed: Vec::new(), ..envelope.source.clone() }, ..envelope.clone() }, "failed to validate encrypted DEK source: encrypted DEK source is empty"),
        ] {
            assert_eq!(Envelope::decode(&wrong.encode()), Err(why.to_owned()));
        }
        assert!(Envelope::decode(&[0xff, 0xff]).is_err());
    }

    /// RFC 5869, test case 1, its second half.
    #[test]
    fn keys_are_derived_as_everywhere() {
        let hex = |text: &str| (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<u8>>();
        let key = derived(&hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"), &hex("f0f1f2f3f4f5f6f7f8f9")).unwrap();
        assert_eq!(key.to_vec(), hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"));
    }
}
