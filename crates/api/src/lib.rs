//! The resource table, the schema facts, defaults, validation, selectors and quantities of the Kubernetes API.
//!
//! Floor 0: pure data and pure functions. Types come from `k8s-openapi` (re-exported as [`k8s`]).

pub mod cbor;
pub mod columns;
pub mod cron;
pub mod custom;
pub mod discovery;
pub mod go;
pub mod internal;
pub mod jsonpath;
pub mod kinds;
pub mod names;
pub mod object;
pub mod openapi;
pub mod protobuf;
pub mod quantity;
mod reference;
pub mod regexp;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod structural;
pub mod usage;
pub mod time_zone;
pub mod validation;
pub mod table;
pub mod typed;
pub mod world;

pub use custom::Custom;
pub use k8s_openapi as k8s;
pub use object::{Fields, Meta, Object, OwnerReference};
pub use reference::reference;
pub use resource::{Resource, Scope, Subresource, Verb};
pub use status::{Cause, Reason, Status};
pub use typed::Typed;
pub use world::Clock;
