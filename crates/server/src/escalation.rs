//! Nobody grants more than they hold: the check on writes of roles and bindings.
//!
//! Mirrors pkg/registry/rbac (policybased storage, `ConfirmNoEscalation`): the verbs `escalate` on roles and `bind` on role references lift it.
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping>

use std::collections::{BTreeMap, BTreeSet};

use ::api::{Resource, Status};
use serde_json::Value;

use crate::api::{Api, Context};
use crate::authorization::{Attributes, rbac};
use crate::registry::text;

const GROUP: &str = "rbac.authorization.k8s.io";

fn words<'a>(rule: &'a Value, field: &str) -> Vec<&'a str> {
    rule.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// One thing a rule grants: a verb on a resource of a group, perhaps of one name; or on a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Object<'a> {
    Resource { group: &'a str, resource: &'a str, name: Option<&'a str> },
    Path(&'a str),
}

fn grants(rules: &[Value]) -> Vec<(Object<'_>, &str)> {
    let mut all = Vec::new();
    for rule in rules {
        for verb in words(rule, "verbs") {
            for path in words(rule, "nonResourceURLs") {
                all.push((Object::Path(path), verb));
            }
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    let names = words(rule, "resourceNames");
                    if names.is_empty() {
                        all.push((Object::Resource { group, resource, name: None }, verb));
                    }
                    all.extend(names.into_iter().map(|name| (Object::Resource { group, resource, name: Some(name) }, verb)));
                }
            }
        }
    }
    all
}

fn has(list: &[&str], wanted: &str) -> bool {
    list.iter().any(|known| *known == "*" || *known == wanted)
}

/// Whether one of the owner's rules holds the grant.
fn held(owner: &[Value], object: &Object<'_>, verb: &str) -> bool {
    owner.iter().filter(|rule| has(&words(rule, "verbs"), verb)).any(|rule| match object {
        Object::Path(path) => words(rule, "nonResourceURLs").iter().any(|known| *known == "*" || known == path || known.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))),
        Object::Resource { group, resource, name } => {
            let names = words(rule, "resourceNames");
            let resources = words(rule, "resources");
            let any_parent = resource.split_once('/').is_some_and(|(_, subresource)| resources.iter().any(|known| known.strip_prefix("*/") == Some(subresource)));
            has(&words(rule, "apiGroups"), group) && (has(&resources, resource) || any_parent) && (names.is_empty() || name.is_some_and(|name| names.contains(&name)))
        }
    })
}

/// What is not held, as upstream prints it: a line an object, in order.
fn missing(owner: &[Value], wanted: &[Value]) -> Vec<String> {
    let mut lacking: BTreeMap<Object<'_>, Vec<&str>> = BTreeMap::new();
    for (object, verb) in grants(wanted) {
        let verbs = lacking.entry(object.clone()).or_default();
        if !held(owner, &object, verb) && !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
    let quoted = |list: &[&str]| format!("[{}]", list.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "));
    let lines: BTreeSet<String> = lacking
        .into_iter()
        .filter(|(_, verbs)| !verbs.is_empty())
        .map(|(object, verbs)| match object {
            Object::Path(path) => format!("{{NonResourceURLs:{}, Verbs:{}}}", quoted(&[path]), quoted(&verbs)),
            Object::Resource { group, resource, name } => {
                let names = name.map(|name| format!(", ResourceNames:{}", quoted(&[name]))).unwrap_or_default();
                format!("{{APIGroups:{}, Resources:{}{names}, Verbs:{}}}", quoted(&[group]), quoted(&[resource]), quoted(&verbs))
            }
        })
        .collect();
    lines.into_iter().collect()
}

/// The single grants that the owner's rules do not hold, a rule each: upstream's `Covers`.
pub fn uncovered(owner: &[Value], wanted: &[Value]) -> Vec<Value> {
    grants(wanted)
        .into_iter()
        .filter(|(object, verb)| !held(owner, object, verb))
        .map(|(object, verb)| match object {
            Object::Path(path) => serde_json::json!({"verbs": [verb], "nonResourceURLs": [path]}),
            Object::Resource { group, resource, name: None } => serde_json::json!({"verbs": [verb], "apiGroups": [group], "resources": [resource]}),
            Object::Resource { group, resource, name } => serde_json::json!({"verbs": [verb], "apiGroups": [group], "resources": [resource], "resourceNames": [name]}),
        })
        .collect()
}

/// Whether nothing changes but what the garbage collector changes (`IsOnlyMutatingGCFields`). A label, say, is no trifle: by it a role's rules come into the aggregated ones.
fn is_for_garbage(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "selfLink", "managedFields", "resourceVersion"] {
                meta.remove(field);
            }
        }
        object
    };
    rest(new) == rest(old)
}

fn aggregates(role: &Value) -> bool {
    role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array).is_some_and(|selectors| !selectors.is_empty())
}

/// Called with every create and update of a role or binding.
pub fn check(api: &Api, row: &Resource, namespace: Option<&str>, new: &Value, old: Option<&Value>, cx: &Context) -> Result<(), Status> {
    if row.group != GROUP || cx.user.is_master() {
        return Ok(());
    }
    if old.is_some_and(|old| is_for_garbage(new, old)) {
        return Ok(());
    }
    let name = text(new, "/metadata/name");
    let may = |verb: &str, resource: &str, name: &str| {
        let asked = Attributes { verb: verb.into(), group: GROUP.into(), resource: resource.into(), namespace: namespace.unwrap_or("").into(), name: name.into(), ..Attributes::default() };
        api.authorizer.allows(&*api.store, &cx.user, &asked)
    };
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let wanted = match &*row.plural {
        "roles" | "clusterroles" => {
            // Who creates names no object: one name's `escalate` does not help.
            if may("escalate", &row.plural, if old.is_some() { name } else { "" }) {
                return Ok(());
            }
            list(new.get("rules"))
        }
        _ => {
            let (kind, role) = (text(new, "/roleRef/kind"), text(new, "/roleRef/name"));
            let cluster = kind == "ClusterRole";
            if may("bind", if cluster { "clusterroles" } else { "roles" }, role) {
                return Ok(());
            }
            let (key, plural) = if cluster { (format!("/registry/clusterroles/{role}"), "clusterroles") } else { (format!("/registry/roles/{}/{role}", namespace.unwrap_or("")), "roles") };
            let found = api.store.get(&key).ok_or_else(|| Status::not_found(GROUP, plural, role))?;
            list(found.value().map_err(Status::internal)?.get("rules"))
        }
    };
    let (resources, paths, _) = api.authorizer.rules(&*api.store, &cx.user, namespace.unwrap_or(""));
    let owner: Vec<Value> = resources.into_iter().chain(paths).collect();
    let lacking = missing(&owner, &wanted);
    if lacking.is_empty() {
        // Whoever aggregates may come to grant anything; whoever ceases to may keep others from tightening it.
        let everything = [rbac::Rule::everything().shown(), rbac::Rule::every_path().shown()];
        let aggregating = &*row.plural == "clusterroles" && (aggregates(new) || old.is_some_and(aggregates));
        if aggregating && !missing(&owner, &everything).is_empty() {
            return Err(Status::forbidden(GROUP, &row.plural, name, "must have cluster-admin privileges to use the aggregationRule"));
        }
        return Ok(());
    }
    let groups = cx.user.groups.iter().map(|group| format!("{group:?}")).collect::<Vec<_>>().join(" ");
    Err(Status::forbidden(GROUP, &row.plural, name, &format!("user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{}", cx.user.name, lacking.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_held_may_be_granted() {
        let owner = [json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/log"]}), json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"]}), json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]})];
        let cases = [
            (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]}), ""),
            (json!({"verbs": ["get", "delete", "watch"], "apiGroups": [""], "resources": ["pods"]}), r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#),
            (json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"]}), ""),
            (json!({"verbs": ["patch"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["other"]}), r#"{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["other"], Verbs:["patch"]}"#),
            (json!({"verbs": ["patch"], "apiGroups": ["apps"], "resources": ["deployments"]}), r#"{APIGroups:["apps"], Resources:["deployments"], Verbs:["patch"]}"#),
            (json!({"verbs": ["get"], "nonResourceURLs": ["/api/v1", "/metrics"]}), r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#),
        ];
        for (wanted, want) in cases {
            assert_eq!(missing(&owner, &[wanted]).join("\n"), want);
        }
    }
}
