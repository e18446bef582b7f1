//! What a node's agent may do: its own Node, lease and pods, and what those pods need; nothing of other nodes.
//!
//! Mirrors plugin/pkg/auth/authorizer/node, reasons word for word: https://kubernetes.io/docs/reference/access-authn-authz/node/ . What it writes into objects that it
//! may write is NodeRestriction's to judge (`admission/node_restriction.rs`).
//!
//! The graph is made when a node asks for the first time and reads on in the store's events whenever one asks: what was acknowledged before the question counts.

use std::sync::LazyLock;

use parking_lot::Mutex;
use serde_json::Value;
use store::{EventKind, Store, Watch, WatchItem};

use super::node_graph::{Graph, Kind};
use super::rbac::Rule;
use super::{Attributes, Decision};
use crate::authentication::User;
use crate::default_roles;

pub const NODES_GROUP: &str = "system:nodes";
pub const NODE_PREFIX: &str = "system:node:";
pub const LEASES_NAMESPACE: &str = "kube-node-lease";

/// The node a user is; empty when it is one that does not say which.
pub fn identity(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_PREFIX)?;
    user.groups.iter().any(|group| group == NODES_GROUP).then_some(name)
}

/// What all nodes may do alike: the rules of the role `system:node`.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let roles = default_roles::all();
    let role = roles.iter().find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "system:node");
    role.and_then(|role| role.get("rules")).and_then(Value::as_array).into_iter().flatten().map(Rule::parse).collect()
});

const FOLLOWED: [(&str, Kind); 5] = [
    ("/registry/pods/", Kind::Pod),
    ("/registry/persistentvolumes/", Kind::Volume),
    ("/registry/volumeattachments/", Kind::VolumeAttachment),
    ("/registry/resourceslices/", Kind::ResourceSlice),
    ("/registry/podcertificaterequests/", Kind::PodCertificateRequest),
];

/// The graph as of the last question.
struct Followed {
    graph: Graph,
    watches: Vec<(Kind, Box<dyn Watch>)>,
}

fn note(graph: &mut Graph, kind: Kind, object: &::api::Object, gone: bool) {
    match (kind, gone) {
        (Kind::Pod, false) => graph.pod(object),
        (Kind::Pod, true) => graph.pod_gone(object),
        (Kind::Volume, false) => graph.volume(object),
        (Kind::Volume, true) => graph.volume_gone(object),
        (kind, false) => graph.own(kind, object),
        (kind, true) => graph.own_gone(kind, object),
    }
}

impl Followed {
    fn load(store: &dyn Store) -> Option<Self> {
        let mut followed = Self { graph: Graph::default(), watches: Vec::new() };
        for (prefix, kind) in FOLLOWED {
            let page = store.list(prefix, None, None, 0).ok()?;
            for (_, object) in &page.items {
                note(&mut followed.graph, kind, object, false);
            }
            followed.watches.push((kind, store.watch(prefix, page.revision).ok()?));
        }
        Some(followed)
    }

    /// False when it fell too far behind and must be loaded anew.
    fn catch_up(&mut self) -> bool {
        for (kind, watch) in &mut self.watches {
            while let Some(item) = watch.try_next() {
                match item {
                    WatchItem::Event(event) => note(&mut self.graph, *kind, &event.object, event.kind == EventKind::Deleted),
                    WatchItem::Progress(_) => {}
                    WatchItem::Expired(_) => return false,
                }
            }
        }
        true
    }
}

#[derive(Default)]
pub struct NodeAuthorizer {
    followed: Mutex<Option<Followed>>,
}

/// How often the graph is loaded when the history is cut off under it meanwhile.
const LOADS_MAX: usize = 3;

impl NodeAuthorizer {
    pub fn decide(&self, store: &dyn Store, user: &User, asked: &Attributes) -> Decision {
        match identity(user) {
            None => Decision::none(""),
            Some("") => Decision::none(format!("unknown node for user {:?}", user.name)),
            Some(node) => match judge(node, asked, &|kind, namespace, name| self.reaches(store, node, kind, namespace, name)) {
                Ok(()) => Decision::allow(""),
                Err(why) => Decision::none(why),
            },
        }
    }

    fn reaches(&self, store: &dyn Store, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let mut held = self.followed.lock();
        for _ in 0..LOADS_MAX {
            if held.is_none() {
                *held = Followed::load(store);
            }
            if let Some(followed) = held.as_mut()
                && followed.catch_up()
            {
                return followed.graph.reaches(node, kind, namespace, name);
            }
            *held = None;
        }
        false
    }
}

type Reaches<'a> = dyn Fn(Kind, &str, &str) -> bool + 'a;

/// `Err` is why there is no opinion: whoever is asked next may still allow it.
fn judge(node: &str, asked: &Attributes, reaches: &Reaches<'_>) -> Result<(), String> {
    let one = |ok: bool, why: &str| if ok { Ok(()) } else { Err(why.to_owned()) };
    let related = |kind: Kind| {
        one(!asked.name.is_empty(), "No Object name found")?;
        one(reaches(kind, &asked.namespace, &asked.name), &format!("no relationship found between node '{node}' and this object"))
    };
    let get = |kind: Kind| {
        one(asked.verb == "get", "can only get individual resources of this type")?;
        one(asked.subresource.is_empty(), "cannot get subresource")?;
        related(kind)
    };
    let read = |kind: Kind| {
        one(matches!(&*asked.verb, "get" | "list" | "watch"), "can only read resources of this type")?;
        one(asked.subresource.is_empty(), "cannot read subresource")?;
        one(!asked.namespace.is_empty(), "can only read namespaced object of this type")?;
        related(kind)
    };
    let selects = |field: &str| asked.fields.iter().any(|term| term.field == field && !term.negated && term.value == node);
    let (verb, subresource) = (&*asked.verb, &*asked.subresource);
    if asked.path.is_empty() {
        match (&*asked.group, &*asked.resource) {
            ("", "secrets") => return read(Kind::Secret),
            ("", "configmaps") => return read(Kind::ConfigMap),
            ("", "persistentvolumeclaims") if subresource == "status" => {
                one(matches!(verb, "update" | "patch"), "can only get/update/patch this type")?;
                return related(Kind::Claim);
            }
            ("", "persistentvolumeclaims") => return get(Kind::Claim),
            ("", "persistentvolumes") => return get(Kind::Volume),
            ("resource.k8s.io", "resourceclaims") => return get(Kind::ResourceClaim),
            ("storage.k8s.io", "volumeattachments") => return get(Kind::VolumeAttachment),
            ("", "serviceaccounts") if verb == "get" && subresource.is_empty() => return read(Kind::ServiceAccount),
            ("", "serviceaccounts") => {
                one(verb == "create" && !asked.name.is_empty(), "can only create tokens for individual service accounts")?;
                one(subresource == "token", "can only create token subresource of serviceaccount")?;
                return related(Kind::ServiceAccount);
            }
            ("coordination.k8s.io", "leases") => {
                one(matches!(verb, "get" | "create" | "update" | "patch" | "delete"), "can only get, create, update, patch, or delete a node lease")?;
                one(asked.namespace == LEASES_NAMESPACE, &format!("can only access leases in the {LEASES_NAMESPACE:?} system namespace"))?;
                return one(verb == "create" || asked.name == node, "can only access node lease with the same name as the requesting node");
            }
            ("storage.k8s.io", "csinodes") => {
                one(matches!(verb, "get" | "create" | "update" | "patch" | "delete"), "can only get, create, update, patch, or delete a CSINode")?;
                one(subresource.is_empty(), "cannot authorize CSINode subresources")?;
                return one(verb == "create" || asked.name == node, "can only access CSINode with the same name as the requesting node");
            }
            ("resource.k8s.io", "resourceslices") => {
                one(subresource.is_empty(), "cannot authorize ResourceSlice subresources")?;
                return match verb {
                    "create" => Ok(()),
                    "get" | "update" | "patch" | "delete" => related(Kind::ResourceSlice),
                    "watch" | "list" | "deletecollection" => one(selects("spec.nodeName"), "can only list/watch/deletecollection resourceslices with nodeName field selector"),
                    _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection".into()),
                };
            }
            ("", "nodes") => {
                return match (subresource, verb) {
                    ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
                    ("", "get" | "list" | "watch") if asked.name == node => Ok(()),
                    ("", "get" | "list" | "watch") if asked.name.is_empty() => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
                    ("", "get" | "list" | "watch") => Err(format!("node '{node}' cannot read '{}', only its own Node object", asked.name)),
                    _ => Err(String::new()),
                };
            }
            ("", "pods") => {
                return match (subresource, verb) {
                    ("", "get") => get(Kind::Pod),
                    ("", "list" | "watch") if selects("spec.nodeName") => Ok(()),
                    ("", "list" | "watch") if !asked.name.is_empty() => related(Kind::Pod),
                    ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".into()),
                    ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
                    _ => Err(String::new()),
                };
            }
            ("certificates.k8s.io", "podcertificaterequests") => {
                one(subresource.is_empty(), "nodes may not access the status subresource of PodCertificateRequests")?;
                return match verb {
                    "create" => Ok(()),
                    "get" => related(Kind::PodCertificateRequest),
                    "list" | "watch" => one(selects("spec.nodeName"), "can only list/watch podcertificaterequests with nodeName field selector"),
                    other => Err(format!("nodes may not {other} podcertificaterequests")),
                };
            }
            _ => {}
        }
    }
    one(RULES.iter().any(|rule| rule.allows(asked)), "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::api::selector::FieldSelector;

    /// `get/secrets@ns/name?fields`; the node is `n` and knows everything that is called `known`.
    fn ask(text: &str, group: &str) -> String {
        let (text, fields) = text.split_once('?').unwrap_or((text, ""));
        let (verb, rest) = text.split_once(' ').unwrap();
        let (resource, place) = rest.split_once('@').unwrap_or((rest, ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        let fields = FieldSelector::parse(fields).unwrap().terms().to_vec();
        let asked = Attributes { verb: verb.into(), group: group.into(), resource: resource.into(), subresource: subresource.into(), namespace: namespace.into(), name: name.into(), fields, ..Attributes::default() };
        match judge("n", &asked, &|_, _, name| name == "known") {
            Ok(()) => "yes".into(),
            Err(why) => why,
        }
    }

    #[test]
    fn what_nodes_may() {
        const NO_WAY: &str = "no relationship found between node 'n' and this object";
        let cases = [
            ("get secrets@a/known", "", "yes"),
            ("watch secrets@a/known", "", "yes"),
            ("get secrets@a/other", "", NO_WAY),
            ("list secrets@a/", "", "No Object name found"),
            ("list secrets", "", "can only read namespaced object of this type"),
            ("update secrets@a/known", "", "can only read resources of this type"),
            ("get configmaps@a/other", "", NO_WAY),
            ("get persistentvolumeclaims@a/known", "", "yes"),
            ("list persistentvolumeclaims@a/", "", "can only get individual resources of this type"),
            ("patch persistentvolumeclaims/status@a/known", "", "yes"),
            ("get persistentvolumeclaims/status@a/known", "", "can only get/update/patch this type"),
            ("get persistentvolumes@known", "", "yes"),
            ("create serviceaccounts/token@a/known", "", "yes"),
            ("create serviceaccounts/token@a/other", "", NO_WAY),
            ("create serviceaccounts@a/x", "", "can only create token subresource of serviceaccount"),
            ("delete serviceaccounts@a/x", "", "can only create tokens for individual service accounts"),
            ("update leases@kube-node-lease/n", "coordination.k8s.io", "yes"),
            ("update leases@kube-node-lease/m", "coordination.k8s.io", "can only access node lease with the same name as the requesting node"),
            ("get leases@kube-system/n", "coordination.k8s.io", "can only access leases in the \"kube-node-lease\" system namespace"),
            ("list leases@kube-node-lease/", "coordination.k8s.io", "can only get, create, update, patch, or delete a node lease"),
            ("get nodes@n", "", "yes"),
            ("get nodes@m", "", "node 'n' cannot read 'm', only its own Node object"),
            ("list nodes", "", "node 'n' cannot read all nodes, only its own Node object"),
            ("patch nodes/status@n", "", "yes"),
            ("delete nodes@n", "", ""),
            ("list pods?spec.nodeName=n", "", "yes"),
            ("list pods?spec.nodeName=m", "", "can only list/watch pods with spec.nodeName field selector"),
            ("list pods?spec.nodeName!=n", "", "can only list/watch pods with spec.nodeName field selector"),
            ("get pods@a/other", "", NO_WAY),
            ("create pods/eviction@a/p", "", "yes"),
            ("create pods/exec@a/p", "", ""),
            ("watch services", "", "yes"),
            ("create events@a/", "", "yes"),
            ("list endpointslices", "discovery.k8s.io", ""),
            ("list deployments@a/", "apps", ""),
            ("create certificatesigningrequests", "certificates.k8s.io", "yes"),
            ("list resourceslices?spec.nodeName=n", "resource.k8s.io", "yes"),
            ("list resourceslices", "resource.k8s.io", "can only list/watch/deletecollection resourceslices with nodeName field selector"),
            ("create csinodes", "storage.k8s.io", "yes"),
            ("get csinodes@m", "storage.k8s.io", "can only access CSINode with the same name as the requesting node"),
        ];
        for (text, group, want) in cases {
            assert_eq!(ask(text, group), want, "{text}");
        }
    }

    #[test]
    fn who_is_a_node() {
        let user = |name: &str, group: &str| User { name: name.into(), groups: vec![group.into()], ..User::default() };
        assert_eq!(identity(&user("system:node:a", NODES_GROUP)), Some("a"));
        assert_eq!(identity(&user("system:node:", NODES_GROUP)), Some(""));
        assert_eq!(identity(&user("system:node:a", "dev")), None);
        assert_eq!(identity(&user("a", NODES_GROUP)), None);
    }
}
