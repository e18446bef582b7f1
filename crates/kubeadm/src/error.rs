//! Why a command of kubeadm failed, and how it says so.

use api::Status;
use client::kubeconfig::ConfigError;

/// As upstream's: preflight errors have a code of their own.
const FAILED: u8 = 1;
const PREFLIGHT: u8 = 2;
const INVALID: u8 = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("preflight checks failed")]
    Preflight,
    #[error("{0}")]
    Invalid(String),
    /// With what to do about it.
    #[error("{message}")]
    Hinted { message: String, hint: String },
    #[error("{what}: {source}")]
    Api { what: &'static str, source: Status },
    #[error("{what} {path}: {source}")]
    File { what: &'static str, path: String, source: std::io::Error },
    #[error("failed to load kubeconfig: {0}")]
    Kubeconfig(#[from] ConfigError),
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    #[error("{path}: {message}")]
    Certificate { path: String, message: String },
    #[error("cannot get a certificate for this node: {0}")]
    Signing(#[from] crate::signing::SigningError),
    #[error("{0}")]
    Host(String),
    /// Upstream's name of the phase it happened in.
    #[error("error execution phase {phase}: {source}")]
    Phase { phase: &'static str, source: Box<Error> },
}

impl Error {
    pub fn code(&self) -> u8 {
        match self {
            Error::Preflight => PREFLIGHT,
            Error::Invalid(_) => INVALID,
            Error::Phase { source, .. } => source.code(),
            _ => FAILED,
        }
    }

    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Hinted { hint, .. } => Some(hint),
            Error::Phase { source, .. } => source.hint(),
            _ => None,
        }
    }

    pub fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| Error::File { what, path, source }
    }

    pub fn api(what: &'static str) -> impl FnOnce(Status) -> Self {
        move |source| Error::Api { what, source }
    }
}

/// Says which phase failed.
pub trait InPhase<T> {
    fn phase(self, phase: &'static str) -> Result<T, Error>;
}

impl<T> InPhase<T> for Result<T, Error> {
    fn phase(self, phase: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Phase { phase, source: Box::new(source) })
    }
}
