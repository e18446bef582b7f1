//! The node's seam to images: find one here, or pull it. The image store implements it; tests have their own.

use std::collections::HashSet;
use std::path::PathBuf;

use sandbox::cri::BoxFuture;

/// A user name and password (or token) for a registry, from an image pull secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The key of `auths`: `https://index.docker.io/v1/`, `registry.example:5000`, …
    pub registry: String,
    pub username: String,
    pub password: String,
}

/// How the image wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub stop_signal: String,
}

#[derive(Debug, Clone, Default)]
pub struct ImageInfo {
    /// `sha256:…`, the digest of the config.
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub size: u64,
    pub config: RunConfig,
    /// Overlay `lowerdir`s, topmost first.
    pub layers: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The reference does not parse.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Failed(String),
}

pub trait Images: Send + Sync + 'static {
    /// The image, if it is here.
    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<ImageInfo>, ImageError>>;
    fn pull<'a>(&'a self, reference: &'a str, credentials: &'a [Credentials]) -> BoxFuture<'a, Result<ImageInfo, ImageError>>;
    fn list(&self) -> BoxFuture<'_, Vec<ImageInfo>>;
    /// Removes the image of that ID with all its names, and what of its content nothing else stands on; `used_layers` are those of containers.
    fn remove<'a>(&'a self, id: &'a str, used_layers: HashSet<PathBuf>) -> BoxFuture<'a, Result<(), ImageError>>;
}
