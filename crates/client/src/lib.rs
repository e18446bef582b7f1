//! Typed client, kubeconfig, informer cache and work queue.
//!
//! A [`Client`] speaks the API's contract over a [`Transport`]: HTTPS to any Kubernetes, or a call into the API server of the same process,
//! which shares objects instead of bytes (decision 10 of the design).

mod transport;
mod typed;

pub use transport::{
    Body, BoxFuture, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Preconditions, Propagation, Target, Transport, WatchEvent, WatchOptions, WriteOptions,
};
pub use typed::{Client, Typed};
