//! How the API server reaches the agent of this machine: through memory. And who of the others may, at the kubelet's port.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use api::Status;
use node::Node;
use node::door::{Allowed, serve_connection};
use parking_lot::Mutex;
use server::{Dial, NodeStream, User};

/// Bytes between the API server and an agent in the same process.
const PIPE_BYTES: usize = 64 * 1024;

/// The agents of this process, by node.
#[derive(Default)]
pub struct Agents(Mutex<HashMap<String, Arc<Node>>>);

impl Agents {
    pub fn add(&self, name: &str, node: Arc<Node>) {
        self.0.lock().insert(name.to_owned(), node);
    }
}

impl Dial for Agents {
    fn dial<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Result<NodeStream, Status>> + Send + 'a>> {
        Box::pin(async move {
            let node = self.0.lock().get(name).cloned().ok_or_else(|| Status::internal(format!("error dialing backend: no agent of node {name:?} is known to this API server")))?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::spawn(serve_connection(Box::new(far), node));
            Ok(Box::new(near) as NodeStream)
        })
    }
}

/// The agent's API runs commands in containers: only the masters of the cluster get in.
pub fn masters_only() -> Allowed {
    Arc::new(|certificate| User::of_certificate(certificate).is_some_and(|user| user.is_master()))
}
