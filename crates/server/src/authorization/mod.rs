//! What a user may do: the authorizers in their order, the first with an opinion decides.
//!
//! `system:masters` may everything; then, as `--authorization-mode` or a configuration (`config.rs`) has it, nodes (`node.rs`), roles (`rbac.rs`) and webhooks
//! (`webhook.rs`). Nobody's opinion is a refusal.
//! https://kubernetes.io/docs/reference/access-authn-authz/authorization/

pub mod config;
pub mod node;
mod node_graph;
pub mod rbac;
pub mod webhook;

use std::sync::Arc;

use ::api::selector::{FieldSelector, FieldTerm};
use ::api::{Clock, Resource, Status, names};
use arc_swap::ArcSwap;
use client::Target;
use futures_util::FutureExt;
use serde_json::Value;
use store::Store;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::api::Api;
use crate::authentication::User;
use crate::outbound::Outbound;

pub use config::AuthorizationConfigError;
pub use webhook::{AuthorizationWebhook, WebhookConfig};

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// Of a request for many: the terms of its field selector.
    pub fields: Vec<FieldTerm>,
    /// For requests outside of resources; then the fields above but `verb` are empty.
    pub path: String,
}

impl Attributes {
    /// Of a request for a resource; `fields` is its field selector, as it came.
    pub fn of(verb: &str, target: &Target, fields: &str) -> Self {
        let many = matches!(verb, "list" | "watch" | "deletecollection");
        // One that is not understood narrows nothing; it is refused later.
        let fields = FieldSelector::parse(if many { fields } else { "" }).unwrap_or_default();
        // Whoever lists or watches by one name asks for that object (upstream's RequestInfo).
        let selected = || fields.requires("metadata.name").filter(|name| verb != "deletecollection" && names::path_segment(name).is_empty()).map(str::to_owned);
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        Self {
            verb: verb.to_owned(),
            group: target.group.clone(),
            version: target.version.clone(),
            resource: target.plural.clone(),
            subresource: text(&target.subresource),
            namespace: text(&target.namespace),
            name: target.name.clone().or_else(selected).unwrap_or_default(),
            fields: fields.terms().to_vec(),
            path: String::new(),
        }
    }
}

/// Who is asked, in which order.
#[derive(Clone)]
pub enum AuthorizationMode {
    Node,
    Rbac,
    AlwaysAllow,
    AlwaysDeny,
    Webhook(Arc<AuthorizationWebhook>),
}

impl AuthorizationMode {
    /// Those that need to be told nothing more.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "Node" => Self::Node,
            "RBAC" => Self::Rbac,
            "AlwaysAllow" => Self::AlwaysAllow,
            "AlwaysDeny" => Self::AlwaysDeny,
            _ => return None,
        })
    }
}

/// As it came out, with the words of those who had something to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// Refused for good: nobody else is asked.
    pub denied: bool,
    pub reason: String,
}

impl Decision {
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { allowed: true, denied: false, reason: reason.into() }
    }

    /// Refuses what was not allowed.
    pub fn required(&self, user: &User, asked: &Attributes) -> Result<(), Status> {
        if self.allowed { Ok(()) } else { Err(refusal(user, asked, &self.reason)) }
    }

    /// No opinion.
    pub fn none(reason: impl Into<String>) -> Self {
        Self { allowed: false, denied: false, reason: reason.into() }
    }
}

pub struct Authorizer {
    modes: ArcSwap<Vec<AuthorizationMode>>,
    outbound: Arc<Outbound>,
    clock: Arc<dyn Clock>,
    roles: rbac::Roles,
    nodes: node::NodeAuthorizer,
}

impl Authorizer {
    pub fn new(modes: Vec<AuthorizationMode>, outbound: Arc<Outbound>, clock: Arc<dyn Clock>) -> Self {
        Self { modes: ArcSwap::from_pointee(modes), outbound, clock, roles: rbac::Roles::default(), nodes: node::NodeAuthorizer::default() }
    }

    /// From now on these are asked.
    pub fn ask(&self, modes: Vec<AuthorizationMode>) {
        self.modes.store(Arc::new(modes));
    }

    /// A write of `row` has happened.
    pub fn note(&self, row: &Resource) {
        self.roles.note(row);
    }

    /// Roles or bindings were written, by whomever.
    pub fn changed(&self) {
        self.roles.changed();
    }

    /// As [`Self::resolve`], for those who cannot wait: expressions, and what plugins ask beside the request.
    pub fn decide(&self, store: &dyn Store, user: &User, asked: &Attributes) -> Decision {
        let resolved = self.resolve(store, user, asked);
        if !self.modes.load().iter().any(|mode| matches!(mode, AuthorizationMode::Webhook(_))) {
            // Nothing in it waits.
            return resolved.now_or_never().unwrap_or_default();
        }
        match Handle::try_current() {
            Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(|| runtime.block_on(resolved)),
            // The one thread there is would wait for itself.
            _ => Decision::none("the authorization webhook cannot be asked here"),
        }
    }

    pub async fn resolve(&self, store: &dyn Store, user: &User, asked: &Attributes) -> Decision {
        if user.is_master() {
            return Decision::allow("");
        }
        let mut reasons = Vec::new();
        for mode in self.modes.load_full().iter() {
            let decision = match mode {
                AuthorizationMode::Node => self.nodes.decide(store, user, asked),
                AuthorizationMode::Rbac => self.roles.decide(store, user, asked),
                AuthorizationMode::AlwaysAllow => Decision::allow(""),
                AuthorizationMode::AlwaysDeny => Decision::none("Everything is forbidden."),
                AuthorizationMode::Webhook(webhook) => webhook.decide(&self.outbound, self.clock.now(), user, asked).await,
            };
            if decision.allowed || decision.denied {
                return decision;
            }
            if !decision.reason.is_empty() {
                reasons.push(decision.reason);
            }
        }
        Decision::none(reasons.join("\n"))
    }

    pub fn allows(&self, store: &dyn Store, user: &User, asked: &Attributes) -> bool {
        self.decide(store, user, asked).allowed
    }

    /// The rules a user has in a namespace: of resources, of paths, and why that is not all, should it not be.
    pub fn rules(&self, store: &dyn Store, user: &User, namespace: &str) -> (Vec<Value>, Vec<Value>, Option<&'static str>) {
        let everything = || (vec![rbac::Rule::everything().shown()], vec![rbac::Rule::every_path().shown()]);
        let (mut resources, mut paths) = if user.is_master() { everything() } else { (Vec::new(), Vec::new()) };
        let mut incomplete = None;
        for mode in self.modes.load().iter() {
            let (more_resources, more_paths) = match mode {
                AuthorizationMode::Node => {
                    if node::identity(user).is_some() {
                        incomplete = Some("node authorizer does not support user rule resolution");
                    }
                    continue;
                }
                AuthorizationMode::Rbac => self.roles.rules(store, user, namespace),
                AuthorizationMode::AlwaysAllow => everything(),
                AuthorizationMode::AlwaysDeny => continue,
                AuthorizationMode::Webhook(_) => {
                    incomplete = Some("webhook authorizer does not support user rule resolution");
                    continue;
                }
            };
            resources.extend(more_resources);
            paths.extend(more_paths);
        }
        (resources, paths, incomplete)
    }
}

/// Refuses what is not allowed.
pub async fn require(api: &Api, user: &User, asked: &Attributes) -> Result<(), Status> {
    decide(api, user, asked).await.required(user, asked)
}

pub async fn decide(api: &Api, user: &User, asked: &Attributes) -> Decision {
    api.authorizer.resolve(&*api.store, user, asked).await
}

/// The refusal in upstream's words.
pub fn refusal(user: &User, asked: &Attributes, reason: &str) -> Status {
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !asked.path.is_empty() {
        return Status::forbidden("", "", "", &format!("User {:?} cannot {} path {:?}{why}", user.name, asked.verb, asked.path));
    }
    let resource = if asked.subresource.is_empty() { asked.resource.clone() } else { format!("{}/{}", asked.resource, asked.subresource) };
    let place = if asked.namespace.is_empty() { " at the cluster scope".to_owned() } else { format!(" in the namespace {:?}", asked.namespace) };
    Status::forbidden(&asked.group, &asked.resource, &asked.name, &format!("User {:?} cannot {} resource {resource:?} in API group {:?}{place}{why}", user.name, asked.verb, asked.group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_upstreams() {
        let user = User::anonymous();
        let root = Attributes { verb: "get".into(), path: "/".into(), ..Attributes::default() };
        assert_eq!(refusal(&user, &root, "").message, r#"forbidden: User "system:anonymous" cannot get path "/""#);
        let pods = Attributes { verb: "list".into(), resource: "pods".into(), namespace: "a".into(), ..Attributes::default() };
        assert_eq!(refusal(&user, &pods, "no").message, r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "a": no"#);
    }
}
