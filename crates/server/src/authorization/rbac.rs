//! RBAC: what the roles and bindings in the store allow.
//!
//! https://kubernetes.io/docs/reference/access-authn-authz/rbac/ . The rules are compiled once and again when a role or binding has changed. Reasons are told in upstream's words.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::api::Resource;
use parking_lot::RwLock;
use serde_json::Value;
use store::Store;

use super::{Attributes, Decision};
use crate::authentication::User;

#[derive(Debug, Clone, Default)]
pub struct Rule {
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
    pub fn everything() -> Self {
        Self { verbs: vec!["*".into()], groups: vec!["*".into()], resources: vec!["*".into()], ..Self::default() }
    }

    pub fn every_path() -> Self {
        Self { verbs: vec!["*".into()], paths: vec!["*".into()], ..Self::default() }
    }

    /// As reviews of rules show it.
    pub fn shown(&self) -> Value {
        if !self.paths.is_empty() {
            return serde_json::json!({"verbs": self.verbs, "nonResourceURLs": self.paths});
        }
        let mut shown = serde_json::json!({"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources});
        if !self.names.is_empty() {
            shown["resourceNames"] = serde_json::json!(self.names);
        }
        shown
    }

    pub fn parse(rule: &Value) -> Self {
        let list = |field: &str| rule.get(field).and_then(Value::as_array).map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default();
        Self { verbs: list("verbs"), groups: list("apiGroups"), resources: list("resources"), names: list("resourceNames"), paths: list("nonResourceURLs") }
    }

    pub fn allows(&self, asked: &Attributes) -> bool {
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

/// Whom a binding is for, and how that is told.
struct Subject {
    group: bool,
    name: String,
    told: String,
}

struct Grant {
    /// Empty: everywhere.
    namespace: String,
    /// `ClusterRoleBinding "b" of ClusterRole "r"`.
    told: String,
    subjects: Vec<Subject>,
    /// Or that there is no such role.
    rules: Result<Arc<Vec<Rule>>, String>,
}

impl Grant {
    fn subject(&self, user: &User) -> Option<&Subject> {
        self.subjects.iter().find(|subject| if subject.group { user.groups.contains(&subject.name) } else { user.name == subject.name })
    }

    fn reaches(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || self.namespace == namespace
    }
}

#[derive(Default)]
struct Compiled {
    generation: u64,
    grants: Vec<Grant>,
}

/// The compiled rules, remade when a role or binding was written.
pub struct Roles {
    generation: AtomicU64,
    compiled: RwLock<Arc<Compiled>>,
}

impl Default for Roles {
    fn default() -> Self {
        Self { generation: AtomicU64::new(1), compiled: RwLock::default() }
    }
}

impl Roles {
    /// A write of `row` has happened.
    pub fn note(&self, row: &Resource) {
        if row.group == "rbac.authorization.k8s.io" {
            self.changed();
        }
    }

    /// By whomever.
    pub fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
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

    pub fn decide(&self, store: &dyn Store, user: &User, asked: &Attributes) -> Decision {
        let compiled = self.compiled(store);
        let mut faults = Vec::new();
        for grant in compiled.grants.iter().filter(|grant| grant.reaches(&asked.namespace)) {
            let Some(subject) = grant.subject(user) else { continue };
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(asked)) => return Decision::allow(format!("RBAC: allowed by {} to {}", grant.told, subject.told)),
                Ok(_) => {}
                Err(missing) if faults.contains(missing) => {}
                Err(missing) => faults.push(missing.clone()),
            }
        }
        match faults.as_slice() {
            [] => Decision::none(""),
            [one] => Decision::none(format!("RBAC: {one}")),
            more => Decision::none(format!("RBAC: [{}]", more.join(", "))),
        }
    }

    /// The rules a user has in a namespace, of resources and of paths, for SelfSubjectRulesReview.
    pub fn rules(&self, store: &dyn Store, user: &User, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        let compiled = self.compiled(store);
        let granted = compiled.grants.iter().filter(|grant| grant.reaches(namespace) && grant.subject(user).is_some()).filter_map(|grant| grant.rules.as_ref().ok()).flat_map(|rules| rules.iter());
        let (paths, resources): (Vec<&Rule>, Vec<&Rule>) = granted.partition(|rule| !rule.paths.is_empty());
        (resources.into_iter().map(Rule::shown).collect(), paths.into_iter().map(Rule::shown).collect())
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
            _ => roles.get(&(namespace.clone(), role.clone())).cloned(),
        };
        let kind = if text(binding, "/roleRef/kind") == "ClusterRole" { "ClusterRole" } else { "Role" };
        let rules = rules.ok_or_else(|| format!("{}.rbac.authorization.k8s.io {role:?} not found", kind.to_lowercase()));
        let name = text(binding, "/metadata/name");
        let told = if namespace.is_empty() { format!("ClusterRoleBinding {name:?} of {kind} {role:?}") } else { format!("RoleBinding {:?} of {kind} {role:?}", format!("{name}/{namespace}")) };
        let subjects = binding
            .get("subjects")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|subject| {
                let (kind, name) = (text(subject, "/kind"), text(subject, "/name"));
                if kind == "ServiceAccount" {
                    let home = Some(text(subject, "/namespace")).filter(|home| !home.is_empty()).unwrap_or(&namespace);
                    Subject { group: false, name: format!("system:serviceaccount:{home}:{name}"), told: format!("{kind} {:?}", format!("{name}/{home}")) }
                } else {
                    Subject { group: kind == "Group", name: name.to_owned(), told: format!("{kind} {name:?}") }
                }
            })
            .collect();
        grants.push(Grant { namespace, told, subjects, rules });
    }
    grants
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
}
