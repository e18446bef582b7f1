//! The authorities and keys that all control planes of a cluster share: sealed in the Secret `kubeadm-certs`, for two hours.
//!
//! Mirrors `phases/copycerts`: AES-GCM with the nonce in front, under a key that only the administrator has; the Secret ends with a token that is good for nothing else.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use client::Client;
use jiff::SignedDuration;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::{Map, Value, json};

use crate::bootstrap_token::{BootstrapToken, Description};
use crate::certificates::{CA, FRONT_PROXY_CA, PkiFolder, TOKEN_KEY};
use crate::error::Error;
use crate::files::Journal;
use crate::host::ExternalEtcd;
use crate::objects::{self, KUBEADM_CERTS};
use crate::publish;
use crate::rest::{self, SECRETS};

const NAMESPACE: &str = "kube-system";
/// How long the Secret stays.
const LIFETIME: SignedDuration = SignedDuration::from_hours(2);
/// Bytes of a key that we make.
const KEY_BYTES: usize = 32;

/// The key under which certificates are sealed: 64 hexadecimal digits on the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey(Vec<u8>);

impl std::fmt::Display for CertificateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// It is nothing for logs.
impl std::fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl std::str::FromStr for CertificateKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        let bytes: Vec<u8> = pairs.collect::<Option<_>>().ok_or("certificateKey: Invalid value: it is no hexadecimal number with an even number of digits\nhint: `kubeadm certs certificate-key` makes one")?;
        if !matches!(bytes.len(), 16 | KEY_BYTES) {
            return Err(format!("certificateKey: Invalid value: it has {} bytes, not {KEY_BYTES}\nhint: `kubeadm certs certificate-key` makes one", bytes.len()));
        }
        Ok(Self(bytes))
    }
}

fn no_chance(error: getrandom::Error) -> Error {
    Error::Host(format!("the kernel gives no random numbers: {error}"))
}

impl CertificateKey {
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = vec![0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(no_chance)?;
        Ok(Self(bytes))
    }

    fn cipher(&self) -> Result<LessSafeKey, Error> {
        let algorithm = if self.0.len() == KEY_BYTES { &AES_256_GCM } else { &AES_128_GCM };
        UnboundKey::new(algorithm, &self.0).map(LessSafeKey::new).map_err(|_| Error::Invalid("error decoding certificate key".into()))
    }

    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(no_chance)?;
        let mut sealed = plain.to_vec();
        let failed = |_| Error::Host("cannot seal the certificates".into());
        self.cipher()?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).map_err(failed)?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let wrong = || Error::Hinted {
            message: "error decoding secret data with provided key: cipher: message authentication failed".into(),
            hint: "--certificate-key is not the one these certificates were uploaded with; `kubeadm init phase upload-certs --upload-certs` on a control plane uploads them anew and prints its key".into(),
        };
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut rest = rest.to_vec();
        let plain = self.cipher()?.open_in_place(nonce, Aad::empty(), &mut rest).map_err(|_| wrong())?;
        Ok(plain.to_vec())
    }
}

/// Entry of the Secret, and the file it is of.
fn entries(pki: &PkiFolder, etcd: Option<&ExternalEtcd>) -> Vec<(String, PathBuf)> {
    let mut all = Vec::new();
    for name in [CA, FRONT_PROXY_CA] {
        all.push((format!("{name}.crt"), pki.certificate(name)));
        all.push((format!("{name}.key"), pki.key(name)));
    }
    all.push((format!("{TOKEN_KEY}.key"), pki.key(TOKEN_KEY)));
    all.push((format!("{TOKEN_KEY}.pub"), pki.0.join(format!("{TOKEN_KEY}.pub"))));
    if let Some(etcd) = etcd {
        let files = [("external-etcd-ca.crt", &etcd.ca_file), ("external-etcd.crt", &etcd.cert_file), ("external-etcd.key", &etcd.key_file)];
        all.extend(files.into_iter().filter_map(|(name, file)| Some((name.to_owned(), file.clone()?))));
    }
    all
}

/// Seals what is in the folder and puts it where machines with a token find it.
pub async fn upload(client: &Client, pki: &PkiFolder, etcd: Option<&ExternalEtcd>, key: &CertificateKey) -> Result<(), Error> {
    println!("[upload-certs] Storing the certificates in Secret {KUBEADM_CERTS:?} in the {NAMESPACE:?} Namespace");
    let mut data = Map::new();
    for (name, path) in entries(pki, etcd) {
        let plain = std::fs::read(&path).map_err(Error::file("error uploading certs: cannot read", &path))?;
        data.insert(name, base64::engine::general_purpose::STANDARD.encode(key.seal(&plain)?).into());
    }
    // Nobody is let in by it; when it ends, what it owns goes too.
    let clock = BootstrapToken::generate()?;
    let what = Description { usages: Vec::new(), groups: Vec::new(), description: "Proxy for managing TTL for the kubeadm-certs secret".into() };
    let owner = publish::token(client, &clock, &what, LIFETIME).await?;
    let meta = json!({"name": KUBEADM_CERTS, "namespace": NAMESPACE, "ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true, "controller": true}]});
    let failed = || Error::api("error uploading certs");
    rest::put(client, &SECRETS, json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})).await.map_err(failed())?;
    for (kind, object) in objects::certificates_readable() {
        rest::put(client, &kind, object).await.map_err(failed())?;
    }
    Ok(())
}

fn contents(secret: &Value, name: &str, key: &CertificateKey) -> Result<Option<Vec<u8>>, Error> {
    let Some(text) = secret.pointer("/data").and_then(|data| data.get(name)).and_then(Value::as_str).filter(|text| !text.is_empty()) else { return Ok(None) };
    let sealed = base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| Error::Invalid(format!("error decoding secret data: {name}: {error}")))?;
    key.open(&sealed).map(Some)
}

/// Writes what was uploaded to where the cluster's configuration says.
pub async fn download(client: &Client, pki: &PkiFolder, etcd: Option<&ExternalEtcd>, key: &CertificateKey, journal: &mut Journal) -> Result<(), Error> {
    println!("[download-certs] Downloading the certificates in Secret {KUBEADM_CERTS:?} in the {NAMESPACE:?} Namespace");
    let found = rest::get(client, &SECRETS, Some(NAMESPACE), KUBEADM_CERTS).await;
    let missing = || {
        Error::Invalid(format!(
            "error downloading certs: error downloading the secret: Secret {KUBEADM_CERTS:?} was not found in the {NAMESPACE:?} Namespace. This Secret might have expired. Please, run `kubeadm init phase upload-certs --upload-certs` on a control plane to generate a new one"
        ))
    };
    let secret = match found {
        // Nobody was allowed to read what was never there.
        Err(status) if status.code == 403 => return Err(missing()),
        found => found.map_err(Error::api("error downloading certs: error downloading the secret"))?.ok_or_else(missing)?,
    };
    let opened = entries(pki, etcd).into_iter().map(|(name, path)| Ok((contents(&secret, &name, key)?, name, path))).collect::<Result<Vec<_>, Error>>()?;
    println!("[download-certs] Saving the certificates to the folder: {:?}", pki.0.display().to_string());
    for (plain, name, path) in opened {
        let plain = plain.ok_or_else(|| Error::Invalid(format!("error downloading certs: the Secret does not include the required certificate or key - name: {name}, path: {}", path.display())))?;
        journal.write(&path, &plain)?;
    }
    Ok(())
}

/// Which of the shared files are not there, for who brings them by hand.
pub fn missing(pki: &PkiFolder, etcd: Option<&ExternalEtcd>) -> Option<String> {
    let absent: Vec<String> = entries(pki, etcd).into_iter().filter(|(_, path)| !path.exists()).map(|(_, path)| absence(&path)).collect();
    (!absent.is_empty()).then(|| format!("[{}]", absent.join(", ")))
}

fn absence(path: &Path) -> String {
    format!("couldn't load the certificate or key file {}: no such file or directory", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let key = CertificateKey::generate().unwrap();
        assert_eq!(key.to_string().parse::<CertificateKey>().unwrap(), key);
        assert!(!format!("{key:?}").contains(&key.to_string()[..4]));
        for bad in ["", "abc", "zz", "é", "aabb", &"a".repeat(63), &"a".repeat(66)] {
            assert!(bad.parse::<CertificateKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_key_opens() {
        let key: CertificateKey = "00".repeat(32).parse().unwrap();
        let sealed = key.seal(b"pem").unwrap();
        assert_eq!((sealed.len(), key.open(&sealed).unwrap()), (NONCE_LEN + 3 + 16, b"pem".to_vec()));
        let error = CertificateKey::generate().unwrap().open(&sealed).unwrap_err();
        assert_eq!(error.to_string(), "error decoding secret data with provided key: cipher: message authentication failed");
        assert!(key.open(&sealed[..5]).is_err() && key.open(&[]).is_err());
        let secret = json!({"data": {"ca.crt": base64::engine::general_purpose::STANDARD.encode(&sealed), "empty": "", "bad": "!"}});
        assert_eq!(contents(&secret, "ca.crt", &key).unwrap().unwrap(), b"pem");
        assert!(contents(&secret, "empty", &key).unwrap().is_none() && contents(&secret, "none", &key).unwrap().is_none() && contents(&secret, "bad", &key).is_err());
    }

    #[test]
    fn what_is_shared() {
        let pki = PkiFolder("/pki".into());
        let names = |etcd: Option<&ExternalEtcd>| entries(&pki, etcd).into_iter().map(|(name, path)| format!("{name}={}", path.display())).collect::<Vec<_>>().join(" ");
        assert_eq!(names(None), "ca.crt=/pki/ca.crt ca.key=/pki/ca.key front-proxy-ca.crt=/pki/front-proxy-ca.crt front-proxy-ca.key=/pki/front-proxy-ca.key sa.key=/pki/sa.key sa.pub=/pki/sa.pub");
        let etcd = ExternalEtcd { endpoints: Vec::new(), ca_file: Some("/etc/etcd/ca.crt".into()), cert_file: None, key_file: None };
        assert!(names(Some(&etcd)).ends_with(" external-etcd-ca.crt=/etc/etcd/ca.crt"));
        assert!(missing(&pki, None).unwrap().starts_with("[couldn't load the certificate or key file /pki/ca.crt: "));
    }
}
