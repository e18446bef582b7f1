//! The API's operations on objects, whatever carries them.
//!
//! Shapes follow the HTTP API: <https://kubernetes.io/docs/reference/using-api/api-concepts/>.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use api::{Object, Status};
use bytes::Bytes;
use futures_util::Stream;
use serde_json::Value;
use tokio::sync::watch;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
pub type EventStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

/// What an operation is about: a collection, an object, or an object's subresource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub plural: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Target {
    /// `/api/v1/namespaces/default/pods/web/log`.
    pub fn path(&self) -> String {
        let mut path = if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) };
        if let Some(namespace) = &self.namespace {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        for part in [&self.name, &self.subresource].into_iter().flatten() {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

/// What is sent: bytes as they came (kubectl), or a value (everything in the process).
#[derive(Debug, Clone)]
pub enum Body {
    Json(Bytes),
    Yaml(Bytes),
    Value(Value),
}

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub limit: usize,
    pub continue_token: String,
    /// Empty: most recent. `"0"`: any. Else not older than.
    pub resource_version: String,
    /// `Exact`, `NotOlderThan` or empty.
    pub resource_version_match: String,
}

#[derive(Debug, Clone, Default)]
pub struct WatchOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub resource_version: String,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    /// `Strict`, `Warn`, `Ignore`, or empty for the server's default.
    pub field_validation: String,
    /// Server-side apply only.
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub preconditions: Preconditions,
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    pub fn content_type(self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
            PatchKind::Apply => "application/apply-patch+yaml",
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct ObjectList {
    pub items: Vec<Arc<Object>>,
    pub resource_version: String,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

#[derive(Debug, Clone)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    Deleted(Arc<Object>),
    /// Everything up to this resourceVersion has been sent. `initial_end` carries the annotation `k8s.io/initial-events-end`.
    Bookmark { resource_version: String, initial_end: bool },
}

/// Carries operations to an API server. Errors are the server's own `Status`; a failure to reach it is one too (503, with the cause as message).
pub trait Transport: Send + Sync + 'static {
    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Arc<Object>, Status>>;
    fn list<'a>(&'a self, target: &'a Target, options: &'a ListOptions) -> BoxFuture<'a, Result<ObjectList, Status>>;
    fn watch<'a>(&'a self, target: &'a Target, options: &'a WatchOptions) -> BoxFuture<'a, Result<EventStream, Status>>;
    /// Also for subresources that are created: `binding`, `eviction`, `token`.
    fn create<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>>;
    fn update<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>>;
    fn patch<'a>(&'a self, target: &'a Target, kind: PatchKind, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>>;
    /// The object as it is after the request (still terminating), or the final `Status` when it is gone at once, both as an object.
    fn delete<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>>;
    fn delete_collection<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions, list: &'a ListOptions) -> BoxFuture<'a, Result<(), Status>>;
    /// Where the API server is, as metrics tell it: `192.0.2.1:6443`.
    fn host(&self) -> String {
        String::new()
    }
    /// Counts how often the server has answered again, to whomever, after it had not: so that nobody sleeps on when it is back. `None` when it cannot be away.
    fn returns(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let mut target = Target { version: "v1".into(), plural: "pods".into(), namespace: Some("default".into()), name: Some("web".into()), ..Target::default() };
        assert_eq!(target.path(), "/api/v1/namespaces/default/pods/web");
        target.subresource = Some("log".into());
        assert_eq!(target.path(), "/api/v1/namespaces/default/pods/web/log");
        let target = Target { group: "apps".into(), version: "v1".into(), plural: "deployments".into(), ..Target::default() };
        assert_eq!(target.path(), "/apis/apps/v1/deployments");
    }
}
