//! What a user may do: RBAC over the roles and bindings in the store.
//!
//! https://kubernetes.io/docs/reference/access-authn-authz/rbac/ . The rules are compiled once and again when a role or binding has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::api::{Resource, Status};
use parking_lot::RwLock;
use serde_json::Value;
use store::Store;

use crate::authentication::User;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// For requests outside of resources; then the fields above but `verb` are empty.
    pub path: String,
}

#[derive(Debug, Clone, Default)]
struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    paths: Vec<String>,
}

fn covers(list: &[String], wanted: &str) -> bool {
    list.iter().any(|known| known == "*" || known == wanted)
}

impl Rule {
    fn parse(rule: &Value) -> Self {
        let list = |field: &str| rule.get(field).and_then(Value::as_array).map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default();
        Self { verbs: list("verbs"), groups: list("apiGroups"), resources: list("resources"), names: list("resourceNames"), paths: list("nonResourceURLs") }
    }

    fn allows(&self, asked: &Attributes) -> bool {
        if !covers(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.path.is_empty() {
            return self.paths.iter().any(|known| known == "*" || *known == asked.path || known.strip_suffix('*').is_some_and(|prefix| asked.path.starts_with(prefix)));
        }
        covers(&self.groups, &asked.group) && self.covers_resource(asked) && (self.names.is_empty() || self.names.contains(&asked.name))
    }

    fn covers_resource(&self, asked: &Attributes) -> bool {
        self.resources.iter().any(|known| {
            if known == "*" {
                return true;
            }
            if asked.subresource.is_empty() {
                return *known == asked.resource;
            }
            known.split_once('/').is_some_and(|(resource, subresource)| subresource == asked.subresource && (resource == "*" || resource == asked.resource))
        })
    }
}

struct Grant {
    /// Empty: everywhere.
    namespace: String,
    subjects: Vec<(String, String)>,
    rules: Arc<Vec<Rule>>,
}

impl Grant {
    fn is_for(&self, user: &User) -> bool {
        self.subjects.iter().any(|(kind, name)| match kind.as_str() {
            "Group" => user.groups.contains(name),
            _ => user.name == *name,
        })
    }
}

#[derive(Default)]
struct Compiled {
    generation: u64,
    grants: Vec<Grant>,
}

/// The compiled rules, remade when a role or binding was written.
pub struct Authorizer {
    generation: AtomicU64,
    compiled: RwLock<Arc<Compiled>>,
}

impl Default for Authorizer {
    fn default() -> Self {
        Self { generation: AtomicU64::new(1), compiled: RwLock::default() }
    }
}

impl Authorizer {
    /// A write of `row` has happened.
    pub fn note(&self, row: &Resource) {
        if row.group == "rbac.authorization.k8s.io" {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    fn compiled(&self, store: &dyn Store) -> Arc<Compiled> {
        let generation = self.generation.load(Ordering::Acquire);
        let known = self.compiled.read().clone();
        if known.generation == generation {
            return known;
        }
        let fresh = Arc::new(Compiled { generation, grants: compile(store) });
        *self.compiled.write() = fresh.clone();
        fresh
    }

    pub fn allows(&self, store: &dyn Store, user: &User, asked: &Attributes) -> bool {
        if user.is_master() {
            return true;
        }
        self.compiled(store)
            .grants
            .iter()
            .filter(|grant| grant.namespace.is_empty() || grant.namespace == asked.namespace)
            .any(|grant| grant.is_for(user) && grant.rules.iter().any(|rule| rule.allows(asked)))
    }

    /// The rules a user has in a namespace, for SelfSubjectRulesReview.
    pub fn rules(&self, store: &dyn Store, user: &User, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        let everything = Rule { verbs: vec!["*".into()], groups: vec!["*".into()], resources: vec!["*".into()], names: vec![], paths: vec![] };
        let all_paths = Rule { verbs: vec!["*".into()], paths: vec!["*".into()], ..Rule::default() };
        let compiled = self.compiled(store);
        let granted = compiled.grants.iter().filter(|grant| (grant.namespace.is_empty() || grant.namespace == namespace) && grant.is_for(user)).flat_map(|grant| grant.rules.iter());
        let masters = if user.is_master() { vec![&everything, &all_paths] } else { Vec::new() };
        for rule in masters.into_iter().chain(granted) {
            if rule.paths.is_empty() {
                let mut shown = serde_json::json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
                if !rule.names.is_empty() {
                    shown["resourceNames"] = serde_json::json!(rule.names);
                }
                resources.push(shown);
            } else {
                paths.push(serde_json::json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
            }
        }
        (resources, paths)
    }
}

fn values(store: &dyn Store, prefix: &str) -> Vec<Value> {
    store.list(prefix, None, None, 0).map(|page| page.items.iter().filter_map(|(_, object)| object.value().ok()).collect()).unwrap_or_default()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn compile(store: &dyn Store) -> Vec<Grant> {
    let parse = |role: &Value| -> Arc<Vec<Rule>> { Arc::new(role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Rule::parse).collect()) };
    let cluster_roles: std::collections::HashMap<String, Arc<Vec<Rule>>> = values(store, "/registry/clusterroles/").iter().map(|role| (text(role, "/metadata/name").to_owned(), parse(role))).collect();
    let roles: std::collections::HashMap<(String, String), Arc<Vec<Rule>>> =
        values(store, "/registry/roles/").iter().map(|role| ((text(role, "/metadata/namespace").to_owned(), text(role, "/metadata/name").to_owned()), parse(role))).collect();
    let mut grants = Vec::new();
    for binding in values(store, "/registry/clusterrolebindings/").iter().chain(&values(store, "/registry/rolebindings/")) {
        let namespace = text(binding, "/metadata/namespace").to_owned();
        let role = text(binding, "/roleRef/name").to_owned();
        let rules = match text(binding, "/roleRef/kind") {
            "ClusterRole" => cluster_roles.get(&role).cloned(),
            _ => roles.get(&(namespace.clone(), role)).cloned(),
        };
        let Some(rules) = rules else { continue };
        let subjects = binding
            .get("subjects")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|subject| {
                let (kind, name) = (text(subject, "/kind"), text(subject, "/name"));
                if kind == "ServiceAccount" {
                    let home = Some(text(subject, "/namespace")).filter(|home| !home.is_empty()).unwrap_or(&namespace);
                    ("User".to_owned(), format!("system:serviceaccount:{home}:{name}"))
                } else {
                    (kind.to_owned(), name.to_owned())
                }
            })
            .collect();
        grants.push(Grant { namespace, subjects, rules });
    }
    grants
}

/// The refusal in upstream's words.
pub fn refusal(user: &User, asked: &Attributes) -> Status {
    if !asked.path.is_empty() {
        return Status::forbidden("", "", "", &format!("User {:?} cannot {} path {:?}", user.name, asked.verb, asked.path));
    }
    let resource = if asked.subresource.is_empty() { asked.resource.clone() } else { format!("{}/{}", asked.resource, asked.subresource) };
    let place = if asked.namespace.is_empty() { " at the cluster scope".to_owned() } else { format!(" in the namespace {:?}", asked.namespace) };
    Status::forbidden(&asked.group, &asked.resource, &asked.name, &format!("User {:?} cannot {} resource {resource:?} in API group {:?}{place}", user.name, asked.verb, asked.group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(verb: &str, group: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes { verb: verb.into(), group: group.into(), resource: resource.into(), subresource: subresource.into(), name: name.into(), ..Attributes::default() }
    }

    #[test]
    fn rules() {
        let pods = Rule::parse(&json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}));
        let named = Rule::parse(&json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/scale"], "resourceNames": ["web"]}));
        let paths = Rule::parse(&json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
        assert!(pods.allows(&asked("get", "", "pods", "x")) && pods.allows(&asked("get", "", "pods/log", "x")));
        assert!(!pods.allows(&asked("delete", "", "pods", "x")) && !pods.allows(&asked("get", "apps", "pods", "x")) && !pods.allows(&asked("get", "", "pods/exec", "x")));
        assert!(named.allows(&asked("patch", "apps", "deployments/scale", "web")) && !named.allows(&asked("patch", "apps", "deployments/scale", "other")));
        let path = |path: &str| Attributes { verb: "get".into(), path: path.into(), ..Attributes::default() };
        assert!(paths.allows(&path("/healthz")) && paths.allows(&path("/api/v1")) && !paths.allows(&path("/metrics")));
    }

    #[test]
    fn refusals_are_upstreams() {
        let user = User::anonymous();
        let root = Attributes { verb: "get".into(), path: "/".into(), ..Attributes::default() };
        assert_eq!(refusal(&user, &root).message, r#"forbidden: User "system:anonymous" cannot get path "/""#);
        let pods = Attributes { namespace: "a".into(), ..asked("list", "", "pods", "") };
        assert_eq!(refusal(&user, &pods).message, r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "a""#);
    }
}
