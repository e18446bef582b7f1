//! The API over HTTPS: connections, and the road from a request to the registry and back.

mod alike;
pub(crate) mod answer;
mod audited;
mod backend;
mod bells;
mod compress;
mod connections;
mod counted;
mod documents;
mod gathered;
mod held;
mod impersonation;
mod links;
pub(crate) mod negotiate;
mod options;
mod part;
mod pieces;
mod proxy;
pub(crate) mod relay;
mod render;
mod resource;
mod routes;
mod sent_events;
pub(crate) mod spent;
mod stream;
mod streams;

pub(crate) use counted::Requests;
pub use connections::{Listener, ServeConfig, serve};
pub use part::{Page, Pages, serve_part};
