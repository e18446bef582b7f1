//! Which requests a webhook or a policy is about: rules, selectors, and the versions a rule may mean as well.
//!
//! Mirrors k8s.io/apiserver/pkg/admission/plugin/webhook/predicates and plugin/policy/matching.

use std::sync::Arc;

use ::api::selector::LabelSelector;
use ::api::{Resource, Status};
use serde_json::Value;

use super::asked::{Asked, Operation, is_namespaces};
use super::forms;
use crate::api::Api;

/// One RuleWithOperations; of policies also with names.
#[derive(Debug, Default)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    namespaced: Option<bool>,
    names: Vec<String>,
}

fn strings(value: &Value, name: &str) -> Vec<String> {
    value.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn covers(list: &[String], wanted: &str) -> bool {
    list.iter().any(|known| known == "*" || known == wanted)
}

impl Rule {
    pub fn of(rule: &Value) -> Self {
        let split = |text: String| text.split_once('/').map_or_else(|| (text.clone(), String::new()), |(resource, sub)| (resource.to_owned(), sub.to_owned()));
        Self {
            operations: strings(rule, "operations"),
            groups: strings(rule, "apiGroups"),
            versions: strings(rule, "apiVersions"),
            resources: strings(rule, "resources").into_iter().map(split).collect(),
            namespaced: match rule.get("scope").and_then(Value::as_str) {
                Some("Namespaced") => Some(true),
                Some("Cluster") => Some(false),
                _ => None,
            },
            names: strings(rule, "resourceNames"),
        }
    }

    /// Whether the request is covered, were it for `row`.
    pub fn matches(&self, asked: &Asked<'_>, row: &Resource) -> bool {
        let scope = self.namespaced.is_none_or(|wanted| wanted != (is_namespaces(row) || asked.namespace.is_empty()));
        scope
            && covers(&self.operations, asked.operation.as_str())
            && covers(&self.groups, &row.group)
            && covers(&self.versions, &row.version)
            && self.resources.iter().any(|(resource, sub)| (resource == "*" || row.plural == *resource) && (sub == "*" || sub == asked.subresource))
            && (self.names.is_empty() || self.names.contains(&asked.name))
    }
}

/// What a matching rule is about: the row that was asked for, or one that serves the same objects.
pub enum Target {
    Asked,
    Equivalent(Arc<Resource>),
}

impl Target {
    pub fn row<'a>(&'a self, asked: &'a Asked<'_>) -> &'a Resource {
        match self {
            Self::Asked => asked.row,
            Self::Equivalent(row) => row,
        }
    }
}

/// All that a webhook or a policy says of what it is for, short of expressions.
#[derive(Debug)]
pub struct Selection {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// A policy without rules is for everything, a webhook without rules for nothing.
    everything: bool,
    equivalent: bool,
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
}

fn selector(value: &Value, name: &str) -> Result<LabelSelector, String> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(LabelSelector::everything()),
        Some(selector) => LabelSelector::from_json(selector),
    }
}

fn rules(value: &Value, name: &str) -> Vec<Rule> {
    value.get(name).and_then(Value::as_array).into_iter().flatten().map(Rule::of).collect()
}

impl Selection {
    pub fn of_webhook(hook: &Value) -> Self {
        Self { rules: rules(hook, "rules"), excluded: Vec::new(), everything: false, equivalent: equivalent(hook), namespaces: selector(hook, "namespaceSelector"), objects: selector(hook, "objectSelector") }
    }

    /// Of `matchConstraints` or `matchResources`.
    pub fn of_policy(resources: &Value) -> Self {
        let wanted = rules(resources, "resourceRules");
        Self {
            everything: wanted.is_empty(),
            rules: wanted,
            excluded: rules(resources, "excludeResourceRules"),
            equivalent: equivalent(resources),
            namespaces: selector(resources, "namespaceSelector"),
            objects: selector(resources, "objectSelector"),
        }
    }

    /// None: it is not for this request. What cannot be decided is told only of requests it would be for.
    pub fn target(&self, api: &Api, asked: &Asked<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<Option<Target>, Status> {
        if self.first(api, asked, &self.excluded).is_some() {
            return Ok(None);
        }
        let target = if self.everything { Some(Target::Asked) } else { self.first(api, asked, &self.rules) };
        let Some(target) = target else { return Ok(None) };
        // An object that is not selected decides before a namespace that is not there.
        let objects = self.objects.as_ref().map_err(Status::internal)?;
        if !objects.is_empty() && !object.is_some_and(|object| selected(objects, object)) && !old.is_some_and(|old| selected(objects, old)) {
            return Ok(None);
        }
        Ok(self.in_namespace(api, asked, object)?.then_some(target))
    }

    fn first(&self, api: &Api, asked: &Asked<'_>, rules: &[Rule]) -> Option<Target> {
        if rules.iter().any(|rule| rule.matches(asked, asked.row)) {
            return Some(Target::Asked);
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        let others = forms::equivalents(api, asked.row);
        rules.iter().find_map(|rule| others.iter().find(|row| rule.matches(asked, row))).map(|row| Target::Equivalent(row.clone()))
    }

    fn in_namespace(&self, api: &Api, asked: &Asked<'_>, object: Option<&Value>) -> Result<bool, Status> {
        if asked.namespace.is_empty() && !is_namespaces(asked.row) {
            return Ok(true);
        }
        let namespaces = self.namespaces.as_ref().map_err(Status::internal)?;
        if namespaces.is_empty() {
            return Ok(true);
        }
        if is_namespaces(asked.row) && asked.subresource.is_empty() && matches!(asked.operation, Operation::Create | Operation::Update) {
            return Ok(object.is_some_and(|object| selected(namespaces, object)));
        }
        let namespace = api.store.get(&format!("/registry/namespaces/{}", asked.namespace)).ok_or_else(|| Status::not_found("", "namespaces", &asked.namespace))?;
        Ok(namespaces.matches(&namespace.meta().labels))
    }
}

/// `matchPolicy`: Equivalent unless it says Exact.
fn equivalent(value: &Value) -> bool {
    value.get("matchPolicy").and_then(Value::as_str) != Some("Exact")
}

fn selected(selector: &LabelSelector, object: &Value) -> bool {
    match object.pointer("/metadata/labels") {
        Some(Value::Object(labels)) => selector.matches(labels),
        _ => object.get("metadata").is_some() && selector.matches(&serde_json::Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Context;

    #[test]
    fn rules_match_as_upstream() {
        let cx = Context::default();
        let table = ::api::table::table();
        let rule = |operations: &[&str], groups: &[&str], versions: &[&str], resources: &[&str], scope: &str| Rule::of(&json!({"operations": operations, "apiGroups": groups, "apiVersions": versions, "resources": resources, "scope": scope}));
        let any = &["*"][..];
        for (rule, row, sub, namespace, want) in [
            (rule(any, any, any, &["*/*"], "*"), ("", "pods"), "", "a", true),
            (rule(any, any, any, &["*"], "*"), ("", "pods"), "", "a", true),
            (rule(any, any, any, &["*"], "*"), ("", "pods"), "status", "a", false),
            (rule(any, any, any, &["pods/*"], "*"), ("", "pods"), "status", "a", true),
            (rule(any, any, any, &["pods/*"], "*"), ("", "pods"), "", "a", true),
            (rule(any, any, any, &["*/scale"], "*"), ("apps", "deployments"), "scale", "a", true),
            (rule(&["DELETE"], any, any, &["*"], "*"), ("", "pods"), "", "a", false),
            (rule(&["CREATE", "DELETE"], &[""], &["v1"], &["pods"], "Namespaced"), ("", "pods"), "", "a", true),
            (rule(any, &["apps"], any, &["*"], "*"), ("", "pods"), "", "a", false),
            (rule(any, any, &["v2"], &["*"], "*"), ("", "pods"), "", "a", false),
            (rule(any, any, any, &["*"], "Cluster"), ("", "namespaces"), "", "a", true),
            (rule(any, any, any, &["*"], "Namespaced"), ("", "namespaces"), "", "a", false),
            (rule(any, any, any, &["*"], "Cluster"), ("", "pods"), "", "a", false),
            (rule(any, any, any, &["*"], "Cluster"), ("", "nodes"), "", "", true),
        ] {
            let row = table.find(row.0, "v1", row.1).unwrap();
            let asked = Asked::new(Operation::Create, row, sub, Some(namespace), "a", &cx);
            assert_eq!(rule.matches(&asked, row), want, "{rule:?} {}", row.plural);
        }
    }

    #[test]
    fn names_limit_a_policys_rule() {
        let cx = Context::default();
        let row = ::api::table::table().find("", "v1", "pods").unwrap();
        let rule = Rule::of(&json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"], "resourceNames": ["b"]}));
        assert!(!rule.matches(&Asked::new(Operation::Update, row, "", Some("n"), "a", &cx), row));
        assert!(rule.matches(&Asked::new(Operation::Update, row, "", Some("n"), "b", &cx), row));
    }
}
