//! The second engine: a real etcd (3.4 and later) of one or more members, under any number of API servers.
//!
//! Reads come from a mirror of the whole key space in memory, which one watch feeds; writes are transactions on the revision of their key. Keys
//! lie where Kubernetes has them (`/registry/pods/default/web`), a `resourceVersion` is etcd's revision of the key's last change, values are
//! JSON; what an upstream API server has written as protobuf is read too. Mirrors storage/etcd3 and storage/cacher. Why so: `docs/adr/0010-etcd.md`.

mod barrier;
mod compaction;
mod config;
mod engine;
mod keys;
mod leases;
mod mirror;
mod value;
mod writes;

pub use config::{FIRST_PAUSE, RemoteConfig, RemoteError};
pub use keys::Keys;
pub use leases::Leases;
pub use mirror::load;
pub use value::{sealed, stored};
pub use engine::Remote;
