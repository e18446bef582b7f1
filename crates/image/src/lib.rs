//! Images: names, content store, archives, registry protocol, layers and builds. Knows nothing of Kubernetes.
//!
//! Enter at [`Store`]: it holds what was imported, pulled or built, and gives each image's layers as directories that
//! overlayfs can take as `lowerdir`s. Formats follow the OCI image and distribution specifications.

mod archive;
pub mod build;
mod compress;
mod digest;
pub mod dockerfile;
mod files;
pub mod hub;
mod index;
mod layer;
mod oci;
mod reference;
pub mod registry;
mod store;
mod unpack;
mod unsynced;
mod view;

pub use archive::{ImportError, SaveError};
pub use build::{BuildError, BuildOptions, ChrootRunner, RunRequest, RunStep, build};
pub use digest::Digest;
pub use layer::{LayerError, LayerWriter};
pub use oci::{Healthcheck, ImageConfig};
pub use reference::{InvalidReference, Reference, ReferenceProblem};
pub use registry::{Credentials, ErrorKind, PullError, PushError, Registry, RegistryOptions};
pub use store::{Image, Store, StoreError};
pub use unpack::{UnpackError, Whiteouts, unpack};
pub use view::RootView;
