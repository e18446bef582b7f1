//! What can go wrong with a registry, in containerd's words: clients and lessons match on them.

use std::io;

use crate::digest::Digest;
use crate::reference::InvalidReference;
use crate::store::StoreError;

/// For callers that decide by kind rather than text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The reference does not parse.
    Invalid,
    NotFound,
    /// Refused, with these credentials or none.
    Unauthorized,
    /// The registry could not be reached.
    Connect,
    Other,
}

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("{0}: not found")]
    NotFound(String),
    #[error("{action} access denied, repository does not exist or may require authorization: {message}")]
    Denied { action: &'static str, message: String },
    #[error("failed to do request: {method} {url:?}: {source}")]
    Connect { method: String, url: String, source: io::Error },
    #[error("unexpected status from {method} request to {url}: {status}{message}")]
    Status { method: String, url: String, status: u16, message: String },
    #[error("{url}: {reason}")]
    Malformed { url: String, reason: String },
}

impl RequestError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            RequestError::NotFound(_) => ErrorKind::NotFound,
            RequestError::Denied { .. } => ErrorKind::Unauthorized,
            RequestError::Connect { .. } => ErrorKind::Connect,
            RequestError::Status { .. } | RequestError::Malformed { .. } => ErrorKind::Other,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    #[error("failed to pull and unpack image {reference:?}: failed to resolve reference {reference:?}: {source}")]
    Resolve { reference: String, source: RequestError },
    #[error("failed to pull and unpack image {reference:?}: failed to copy: {source}")]
    Fetch { reference: String, source: RequestError },
    #[error("failed to pull and unpack image {reference:?}: no match for platform in manifest: not found")]
    NoPlatform { reference: String },
    #[error("failed to pull and unpack image {reference:?}: {document}: {reason}")]
    Document { reference: String, document: Digest, reason: String },
    #[error("failed to pull and unpack image {reference:?}: {source}")]
    Store { reference: String, source: StoreError },
}

impl PullError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            PullError::Reference(_) => ErrorKind::Invalid,
            PullError::Resolve { source, .. } | PullError::Fetch { source, .. } => source.kind(),
            PullError::NoPlatform { .. } => ErrorKind::NotFound,
            PullError::Document { .. } | PullError::Store { .. } => ErrorKind::Other,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    #[error("An image does not exist locally with the tag: {0}")]
    NoImage(String),
    #[error("failed to push {reference:?}: {source}")]
    Request { reference: String, source: RequestError },
    #[error("failed to push {reference:?}: {source}")]
    Store { reference: String, source: StoreError },
}

impl PushError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            PushError::Reference(_) => ErrorKind::Invalid,
            PushError::NoImage(_) => ErrorKind::NotFound,
            PushError::Request { source, .. } => source.kind(),
            PushError::Store { .. } => ErrorKind::Other,
        }
    }
}
