//! How the API server reaches a node's agent, for logs, exec, attach, port-forward and proxy.

use std::future::Future;
use std::pin::Pin;

use ::api::Status;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a node's HTTP server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub type NodeStream = Box<dyn Stream>;

/// Opens streams to nodes: in the same process, or over mutual TLS.
pub trait Dial: Send + Sync + 'static {
    fn dial<'a>(&'a self, node: &'a str) -> Pin<Box<dyn Future<Output = Result<NodeStream, Status>> + Send + 'a>>;
}

/// Knows no node: for a control plane without agents, as in simulations.
pub struct NodeDialer;

impl Dial for NodeDialer {
    fn dial<'a>(&'a self, node: &'a str) -> Pin<Box<dyn Future<Output = Result<NodeStream, Status>> + Send + 'a>> {
        Box::pin(async move { Err(Status::internal(format!("error dialing backend: no agent of node {node:?} is known to this API server"))) })
    }
}
