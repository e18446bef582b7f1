//! Typed client, kubeconfig, informer cache and work queue.
//!
//! A [`Client`] speaks the API's contract over a [`Transport`]: HTTPS to any Kubernetes, or a call into the API server of the same process,
//! which shares objects instead of bytes (decision 10 of the design).

mod cache;
mod changes;
pub mod dial;
mod events;
pub mod exec_credential;
mod informer;
pub mod http;
pub mod kubeconfig;
mod measured;
mod measuring;
mod queue;
pub mod remote;
mod rotating;
pub mod tls;
mod transport;
mod typed;
mod upgrade;
pub mod websocket;

pub use crate::http::{EXPIRED, HttpClient};
pub use remote::HttpTransport;
pub use rotating::Rotating;
pub use cache::{Cache, Change, IndexFn, ObjectKey, Untyped};
pub use changes::Changes;
pub use api::reference;
pub use events::{EventType, Recorder};
pub use informer::{Builder, Informer, Jitter, seeded_jitter};
pub use measured::Measured;
pub use measuring::Measuring;
pub use queue::{Item, Queue};
pub use transport::{
    Body, BoxFuture, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Preconditions, Propagation, Target, Transport, WatchEvent, WatchOptions, WriteOptions,
};
pub use typed::{Client, Typed};
