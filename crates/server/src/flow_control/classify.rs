//! Which FlowSchema a request falls under, and which flow within it.
//!
//! Mirrors apiserver/pkg/util/flowcontrol/rule.go: the first schema by matching precedence, then by name. Pure.

use serde_json::Value;

use crate::authentication::User;
use crate::authorization::Attributes;
use crate::registry::text;

pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distinguisher {
    None,
    User,
    Namespace,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    /// Namespace, and name or `*`.
    ServiceAccount(String, String),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    /// Verbs and URLs.
    paths: Vec<(Vec<String>, Vec<String>)>,
}

/// A FlowSchema, as far as requests are concerned.
#[derive(Debug)]
pub struct Schema {
    pub name: String,
    pub uid: String,
    pub level: String,
    pub precedence: i64,
    pub distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// Upstream's validation makes sure that `*` stands alone.
fn covers(list: &[String], wanted: &str) -> bool {
    list.iter().any(|known| known == "*" || known == wanted)
}

fn array<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn strings(value: &Value, field: &str) -> Vec<String> {
    array(value, field).filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Schema {
    pub fn of(object: &Value) -> Self {
        let subject = |subject: &Value| {
            Some(match text(subject, "/kind") {
                "User" => Subject::User(text(subject, "/user/name").to_owned()),
                "Group" => Subject::Group(text(subject, "/group/name").to_owned()),
                "ServiceAccount" => Subject::ServiceAccount(text(subject, "/serviceAccount/namespace").to_owned(), text(subject, "/serviceAccount/name").to_owned()),
                _ => return None,
            })
        };
        let resource = |rule: &Value| ResourceRule {
            verbs: strings(rule, "verbs"),
            groups: strings(rule, "apiGroups"),
            resources: strings(rule, "resources"),
            namespaces: strings(rule, "namespaces"),
            cluster_scope: rule.get("clusterScope").and_then(Value::as_bool).unwrap_or(false),
        };
        let rule = |rule: &Value| Rule {
            subjects: array(rule, "subjects").filter_map(subject).collect(),
            resources: array(rule, "resourceRules").map(resource).collect(),
            paths: array(rule, "nonResourceRules").map(|rule| (strings(rule, "verbs"), strings(rule, "nonResourceURLs"))).collect(),
        };
        Self {
            name: text(object, "/metadata/name").to_owned(),
            uid: text(object, "/metadata/uid").to_owned(),
            level: text(object, "/spec/priorityLevelConfiguration/name").to_owned(),
            precedence: object.pointer("/spec/matchingPrecedence").and_then(Value::as_i64).unwrap_or(0),
            distinguisher: match text(object, "/spec/distinguisherMethod/type") {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: object.get("spec").into_iter().flat_map(|spec| array(spec, "rules")).map(rule).collect(),
        }
    }

    pub fn matches(&self, user: &User, asked: &Attributes) -> bool {
        self.rules.iter().any(|rule| rule.subjects.iter().any(|subject| subject.matches(user)) && rule.matches(asked))
    }

    /// What tells flows of this schema apart.
    pub fn flow<'a>(&self, user: &'a User, asked: &'a Attributes) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &asked.namespace,
        }
    }
}

impl Subject {
    fn matches(&self, user: &User) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.groups.contains(name),
            Self::ServiceAccount(namespace, name) => {
                let Some((home, account)) = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) else { return false };
                home == namespace && (name == "*" || account == name)
            }
        }
    }
}

impl Rule {
    fn matches(&self, asked: &Attributes) -> bool {
        if asked.path.is_empty() { self.resources.iter().any(|rule| rule.matches(asked)) } else { self.paths.iter().any(|(verbs, urls)| covers(verbs, &asked.verb) && urls.iter().any(|url| covers_path(url, &asked.path))) }
    }
}

impl ResourceRule {
    fn matches(&self, asked: &Attributes) -> bool {
        let resource = |known: &String| known == "*" || if asked.subresource.is_empty() { *known == asked.resource } else { known.split_once('/') == Some((&asked.resource, &asked.subresource)) };
        covers(&self.verbs, &asked.verb)
            && self.resources.iter().any(resource)
            && covers(&self.groups, &asked.group)
            && if asked.namespace.is_empty() { self.cluster_scope } else { covers(&self.namespaces, &asked.namespace) }
    }
}

/// A URL stands for what lies under it too, with or without a star.
fn covers_path(url: &str, path: &str) -> bool {
    let root = url.strip_suffix('*').unwrap_or(url);
    let root = root.strip_suffix('/').unwrap_or(root);
    url == "*" || url == path || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}

/// In the order in which they are asked.
pub fn order(schemas: &mut [Schema]) {
    schemas.sort_by(|one, other| (one.precedence, &one.name).cmp(&(other.precedence, &other.name)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_control::defaults;

    fn schemas() -> Vec<Schema> {
        let mut schemas: Vec<Schema> = defaults::flow_schemas().iter().map(|default| Schema::of(&default.object)).collect();
        order(&mut schemas);
        schemas
    }

    fn user(name: &str, groups: &[&str]) -> User {
        User { name: name.into(), groups: groups.iter().map(|group| (*group).to_owned()).collect(), ..User::default() }
    }

    fn on(verb: &str, group: &str, resource: &str, namespace: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes { verb: verb.into(), group: group.into(), resource: resource.into(), subresource: subresource.into(), namespace: namespace.into(), ..Attributes::default() }
    }

    fn path(verb: &str, path: &str) -> Attributes {
        Attributes { verb: verb.into(), path: path.into(), ..Attributes::default() }
    }

    #[test]
    fn upstreams_defaults_classify_as_upstreams() {
        let schemas = schemas();
        let (authenticated, account) = ("system:authenticated", "system:serviceaccounts");
        let controller = "system:serviceaccount:kube-system:gc";
        let table = [
            (user("admin", &["system:masters", authenticated]), on("list", "", "pods", ""), "exempt", ""),
            (user("system:anonymous", &["system:unauthenticated"]), path("get", "/healthz"), "probes", ""),
            (user("bob", &[authenticated]), path("get", "/readyz/etcd"), "probes", ""),
            (user("bob", &[authenticated]), path("get", "/metrics"), "global-default", "bob"),
            (user("system:kube-scheduler", &[authenticated]), on("update", "coordination.k8s.io", "leases", "kube-system"), "system-leader-election", "system:kube-scheduler"),
            (user("system:kube-scheduler", &[authenticated]), on("list", "coordination.k8s.io", "leases", "kube-system"), "kube-scheduler", "kube-system"),
            (user(controller, &[account, authenticated]), on("get", "coordination.k8s.io", "leases", "kube-system"), "system-leader-election", controller),
            (user(controller, &[account, authenticated]), on("get", "", "pods", "shop"), "kube-system-service-accounts", "shop"),
            (user("system:node:a", &["system:nodes", authenticated]), on("patch", "", "nodes/status", ""), "system-node-high", "system:node:a"),
            (user("system:node:a", &["system:nodes", authenticated]), on("get", "", "secrets", "shop"), "system-nodes", "system:node:a"),
            (user("system:kube-controller-manager", &[authenticated]), on("create", "apps", "replicasets", "shop"), "kube-controller-manager", "shop"),
            (user("system:serviceaccount:shop:web", &[account, authenticated]), on("get", "", "pods", "shop"), "service-accounts", "system:serviceaccount:shop:web"),
            (user("bob", &[authenticated]), on("get", "", "pods", "shop"), "global-default", "bob"),
        ];
        for (user, asked, expected, flow) in table {
            let found = schemas.iter().find(|schema| schema.matches(&user, &asked)).expect("a schema");
            assert_eq!((&*found.name, found.flow(&user, &asked)), (expected, flow), "{user:?} {asked:?}");
        }
    }

    #[test]
    fn paths() {
        for (url, asked, expected) in [("*", "/x", true), ("/healthz", "/healthz", true), ("/healthz", "/healthz/ping", true), ("/healthz", "/healthzz", false), ("/api/*", "/api/v1", true), ("/api/*", "/apis", false)] {
            assert_eq!(covers_path(url, asked), expected, "{url} {asked}");
        }
    }
}
