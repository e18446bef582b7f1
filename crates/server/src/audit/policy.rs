//! The audit policy: of which requests how much is written down.
//!
//! Mirrors apiserver/pkg/audit/policy (reader.go, checker.go) and apis/audit/validation. Pure: the first rule that matches decides; what no rule matches is not audited.

use std::collections::BTreeSet;

use ::api::names;
use serde_json::Value;

use crate::authentication::User;
use crate::authorization::Attributes;
use crate::registry::text;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Request, Self::RequestResponse];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const ALL: [Self; 4] = [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// How one request is audited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub level: Level,
    pub omit_stages: BTreeSet<Stage>,
    pub omit_managed_fields: bool,
}

#[derive(Debug)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    decision: Decision,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    namespaces: Vec<String>,
    resources: Vec<GroupResources>,
    urls: Vec<String>,
}

#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Decision,
}

fn array<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn strings(value: &Value, field: &str) -> Vec<String> {
    array(value, field).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn stages(value: &Value, path: &str, errors: &mut Vec<String>) -> BTreeSet<Stage> {
    let known: Vec<&str> = Stage::ALL.map(Stage::as_str).to_vec();
    let mut found = BTreeSet::new();
    for (index, name) in strings(value, "omitStages").iter().enumerate() {
        match Stage::ALL.into_iter().find(|stage| stage.as_str() == name) {
            Some(stage) => drop(found.insert(stage)),
            None => errors.push(format!("{path}omitStages[{index}]: Invalid value: {name:?}: allowed stages are {}", known.join(","))),
        }
    }
    found
}

impl Policy {
    /// Of an `audit.k8s.io/v1` Policy.
    pub fn of(policy: &Value) -> Result<Self, String> {
        let (version, kind) = (text(policy, "/apiVersion"), text(policy, "/kind"));
        if version != "audit.k8s.io/v1" || kind != "Policy" {
            return Err(format!("unknown group version field {version}, Kind={kind} in policy"));
        }
        let mut errors = Vec::new();
        let omit = stages(policy, "", &mut errors);
        let omit_managed_fields = policy.get("omitManagedFields").and_then(Value::as_bool).unwrap_or(false);
        let mut rules: Vec<Rule> = Vec::new();
        for (index, rule) in array(policy, "rules").enumerate() {
            let path = format!("rules[{index}].");
            let mut omit_stages = stages(rule, &path, &mut errors);
            omit_stages.extend(&omit);
            let level = match Level::ALL.into_iter().find(|level| level.as_str() == text(rule, "/level")) {
                Some(level) => level,
                None => {
                    errors.push(match text(rule, "/level") {
                        "" => format!("{path}level: Required value"),
                        other => format!("{path}level: Unsupported value: {other:?}: supported values: \"Metadata\", \"None\", \"Request\", \"RequestResponse\""),
                    });
                    Level::None
                }
            };
            let resources: Vec<GroupResources> =
                array(rule, "resources").map(|resources| GroupResources { group: text(resources, "/group").to_owned(), resources: strings(resources, "resources"), names: strings(resources, "resourceNames") }).collect();
            for GroupResources { group, resources, names } in &resources {
                if let Some(why) = names::dns_subdomain(group).first().filter(|_| !matches!(group.as_str(), "" | "*")) {
                    errors.push(format!("{path}resources.group: Invalid value: {group:?}: {why}"));
                }
                if !names.is_empty() && resources.is_empty() {
                    errors.push(format!("{path}resources.resourceNames: Invalid value: {names:?}: using resourceNames requires at least one resource"));
                }
            }
            let (urls, namespaces) = (strings(rule, "nonResourceURLs"), strings(rule, "namespaces"));
            for (at, url) in urls.iter().enumerate().filter(|(_, url)| *url != "*") {
                if !url.starts_with('/') {
                    errors.push(format!("{path}nonResourceURLs[{at}]: Invalid value: {url:?}: non-resource URL rules must begin with a '/' character"));
                }
                if url.find('*').is_some_and(|star| star + 1 < url.len()) {
                    errors.push(format!("{path}nonResourceURLs[{at}]: Invalid value: {url:?}: non-resource URL wildcards '*' must be the final character of the rule"));
                }
            }
            if !urls.is_empty() && (!resources.is_empty() || !namespaces.is_empty()) {
                errors.push(format!("{path}nonResourceURLs: Invalid value: {urls:?}: rules cannot apply to both regular resources and non-resource URLs"));
            }
            let decision = Decision { level, omit_stages, omit_managed_fields: rule.get("omitManagedFields").and_then(Value::as_bool).unwrap_or(omit_managed_fields) };
            rules.push(Rule { decision, users: strings(rule, "users"), groups: strings(rule, "userGroups"), verbs: strings(rule, "verbs"), namespaces, resources, urls });
        }
        match errors.as_slice() {
            [] if rules.is_empty() => Err("loaded illegal policy with 0 rules".into()),
            [] => Ok(Self { rules, otherwise: Decision { level: Level::None, omit_stages: omit, omit_managed_fields } }),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    pub fn decide(&self, user: &User, asked: &Attributes) -> &Decision {
        self.rules.iter().find(|rule| rule.matches(user, asked)).map_or(&self.otherwise, |rule| &rule.decision)
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|known| known == wanted)
}

impl Rule {
    fn matches(&self, user: &User, asked: &Attributes) -> bool {
        if !self.users.is_empty() && !has(&self.users, &user.name) || !self.groups.is_empty() && !user.groups.iter().any(|group| has(&self.groups, group)) || !self.verbs.is_empty() && !has(&self.verbs, &asked.verb) {
            return false;
        }
        let of_resource = asked.path.is_empty();
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return of_resource && (self.namespaces.is_empty() || has(&self.namespaces, &asked.namespace)) && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.matches(asked)));
        }
        if !self.urls.is_empty() {
            return !of_resource && self.urls.iter().any(|url| url == "*" || *url == asked.path || url.strip_suffix('*').is_some_and(|prefix| asked.path.starts_with(prefix)));
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, asked: &Attributes) -> bool {
        if self.group != asked.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.names.is_empty() && !has(&self.names, &asked.name) {
            return false;
        }
        self.resources.iter().any(|known| {
            known == "*"
                || match known.split_once('/') {
                    None => asked.subresource.is_empty() && *known == asked.resource,
                    Some(("*", subresource)) => !asked.subresource.is_empty() && subresource == asked.subresource,
                    // Also the resource itself.
                    Some((resource, "*")) => resource == asked.resource,
                    Some((resource, subresource)) => resource == asked.resource && subresource == asked.subresource,
                }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(rules: Value) -> Result<Policy, String> {
        Policy::of(&json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}))
    }

    #[test]
    fn the_first_rule_that_matches() {
        let policy = policy(json!([
            {"level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"], "resources": [{"group": "", "resources": ["endpoints", "services"]}]},
            {"level": "None", "userGroups": ["system:authenticated"], "nonResourceURLs": ["/api*", "/version"]},
            {"level": "Request", "resources": [{"group": "", "resources": ["configmaps"]}], "namespaces": ["kube-system"], "omitManagedFields": true},
            {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "pods/*"], "resourceNames": []}, {"group": "apps", "resources": ["*/scale"]}]},
            {"level": "Request", "resources": [{"group": "", "resources": ["nodes"], "resourceNames": ["a"]}], "omitStages": ["Panic"]},
            {"level": "RequestResponse", "resources": [{"group": "batch"}]},
        ]))
        .unwrap();
        let user = |name: &str| User { name: name.into(), groups: vec!["system:authenticated".into()], ..User::default() };
        let on = |verb: &str, group: &str, resource: &str, namespace: &str, name: &str| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            Attributes { verb: verb.into(), group: group.into(), resource: resource.into(), subresource: subresource.into(), namespace: namespace.into(), name: name.into(), ..Attributes::default() }
        };
        let path = |path: &str| Attributes { verb: "get".into(), path: path.into(), ..Attributes::default() };
        let table = [
            ("bob", on("watch", "", "services", "", ""), Level::None),
            ("bob", path("/apis"), Level::None),
            ("bob", path("/healthz"), Level::None),
            ("bob", on("get", "", "configmaps", "kube-system", "x"), Level::Request),
            ("bob", on("get", "", "configmaps", "default", "x"), Level::None),
            ("bob", on("get", "", "secrets", "default", "x"), Level::Metadata),
            ("bob", on("get", "", "secrets/status", "default", "x"), Level::None),
            ("bob", on("create", "", "pods/exec", "default", "x"), Level::Metadata),
            ("bob", on("get", "", "pods", "default", "x"), Level::Metadata),
            ("bob", on("update", "apps", "deployments/scale", "default", "x"), Level::Metadata),
            ("bob", on("get", "apps", "deployments", "default", "x"), Level::None),
            ("bob", on("get", "", "nodes", "", "a"), Level::Request),
            ("bob", on("get", "", "nodes", "", "b"), Level::None),
            ("bob", on("delete", "batch", "jobs/status", "default", "b"), Level::RequestResponse),
        ];
        for (name, asked, level) in table {
            assert_eq!(policy.decide(&user(name), &asked).level, level, "{name} {asked:?}");
        }
        assert!(policy.decide(&user("bob"), &on("get", "", "configmaps", "kube-system", "x")).omit_managed_fields);
        assert_eq!(policy.decide(&user("bob"), &on("get", "", "nodes", "", "a")).omit_stages, BTreeSet::from([Stage::RequestReceived, Stage::Panic]));
        assert_eq!(policy.decide(&user("bob"), &path("/healthz")).omit_stages, BTreeSet::from([Stage::RequestReceived]));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |rules: Value| policy(rules).unwrap_err();
        assert_eq!(wrong(json!([])), "loaded illegal policy with 0 rules");
        assert_eq!(wrong(json!([{}])), "rules[0].level: Required value");
        assert_eq!(wrong(json!([{"level": "All"}])), "rules[0].level: Unsupported value: \"All\": supported values: \"Metadata\", \"None\", \"Request\", \"RequestResponse\"");
        assert_eq!(wrong(json!([{"level": "None", "omitStages": ["x"]}])), "rules[0].omitStages[0]: Invalid value: \"x\": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic");
        assert_eq!(wrong(json!([{"level": "None", "nonResourceURLs": ["a*b"]}])), "[rules[0].nonResourceURLs[0]: Invalid value: \"a*b\": non-resource URL rules must begin with a '/' character, rules[0].nonResourceURLs[0]: Invalid value: \"a*b\": non-resource URL wildcards '*' must be the final character of the rule]");
        assert!(wrong(json!([{"level": "None", "nonResourceURLs": ["/"], "namespaces": ["a"]}])).ends_with("rules cannot apply to both regular resources and non-resource URLs"));
        assert_eq!(Policy::of(&json!({"apiVersion": "v1", "kind": "Policy"})).unwrap_err(), "unknown group version field v1, Kind=Policy in policy");
    }
}
