//! Registries: pull and push by the OCI distribution specification v2 (docker's registry API).
//!
//! HTTPS, or HTTP for loopback and for hosts named insecure; token and basic authentication; errors in containerd's words,
//! as they end up in `ErrImagePull` messages.

mod auth;
mod connect;
mod error;
mod pull;
mod push;
mod request;

pub use auth::{Credentials, InvalidDockerConfig};
pub use error::{ErrorKind, PullError, PushError, RequestError};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::reference::DEFAULT_DOMAIN;

/// Where Debian, Fedora, Alpine and others keep the system's certificate authorities.
const SYSTEM_ROOTS: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const DOCKER_HUB: &str = "registry-1.docker.io";

#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// More certificate authorities (PEM files), besides the system's.
    pub roots: Vec<PathBuf>,
    /// `host` or `host:port` to speak plain HTTP to. Loopback is always so.
    pub insecure: BTreeSet<String>,
    /// Domain → what is asked in its place: `127.0.0.1:5000`, `https://mirror.example`.
    pub mirrors: BTreeMap<String, String>,
}

/// A client for any number of registries. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    options: Arc<RegistryOptions>,
    tls: tokio_rustls::TlsConnector,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistrySetupError {
    #[error("certificate authorities in {path}: {reason}")]
    Roots { path: PathBuf, reason: String },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Registry {
    pub fn new(options: RegistryOptions) -> Result<Registry, RegistrySetupError> {
        let tls = connect::tls(&options)?;
        Ok(Registry { options: Arc::new(options), tls })
    }

    /// Where to ask for a domain's images: scheme and authority.
    fn endpoint(&self, domain: &str) -> (&'static str, String) {
        let authority = match self.options.mirrors.get(domain) {
            Some(mirror) => mirror.clone(),
            None if domain == DEFAULT_DOMAIN => DOCKER_HUB.to_owned(),
            None => domain.to_owned(),
        };
        if let Some((scheme, rest)) = authority.split_once("://") {
            return (if scheme == "http" { "http" } else { "https" }, rest.trim_end_matches('/').to_owned());
        }
        let plain = self.options.insecure.contains(&authority) || connect::is_loopback(&authority);
        (if plain { "http" } else { "https" }, authority)
    }
}
