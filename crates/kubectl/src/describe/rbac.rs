//! Roles and bindings; rules broken down and put together again as k8s.io/kubectl/pkg/util/rbac.

use std::collections::BTreeMap;

use api::kinds::json::{list, strings, text};
use serde_json::Value;

use super::Related;
use super::writer::{Writer, line};

#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    urls: Vec<String>,
    verbs: Vec<String>,
}

impl Rule {
    /// Upstream sorts by the text Go's generated code prints.
    fn order(&self) -> String {
        let words = |words: &[String]| format!("[{}]", words.join(" "));
        format!(
            "Verbs:{},APIGroups:{},Resources:{},ResourceNames:{},NonResourceURLs:{},",
            words(&self.verbs), words(&self.groups), words(&self.resources), words(&self.names), words(&self.urls)
        )
    }

    fn resource(&self) -> String {
        let Some(resource) = self.resources.first() else { return String::new() };
        let (name, sub) = resource.split_once('/').map_or((resource.as_str(), None), |(name, sub)| (name, Some(sub)));
        let group = self.groups.first().filter(|group| !group.is_empty()).map(|group| format!(".{group}")).unwrap_or_default();
        format!("{name}{group}{}", sub.map(|sub| format!("/{sub}")).unwrap_or_default())
    }
}

fn compact(rules: &[Value]) -> Vec<Rule> {
    let mut compacted = Vec::new();
    let mut simple: BTreeMap<(String, String, Option<String>), Vec<String>> = BTreeMap::new();
    for rule in rules {
        for verb in strings(rule, "verbs") {
            for url in strings(rule, "nonResourceURLs") {
                compacted.push(Rule { urls: vec![url.to_owned()], verbs: vec![verb.to_owned()], ..Rule::default() });
            }
        }
        for group in strings(rule, "apiGroups") {
            for resource in strings(rule, "resources") {
                for verb in strings(rule, "verbs") {
                    let mut names: Vec<Option<String>> = strings(rule, "resourceNames").map(|name| Some(name.to_owned())).collect();
                    if names.is_empty() {
                        names.push(None);
                    }
                    for name in names {
                        let verbs = simple.entry((group.to_owned(), resource.to_owned(), name)).or_default();
                        if !verbs.iter().any(|have| have == verb) {
                            verbs.push(verb.to_owned());
                        }
                    }
                }
            }
        }
    }
    compacted.extend(simple.into_iter().map(|((group, resource, name), verbs)| Rule { groups: vec![group], resources: vec![resource], names: name.into_iter().collect(), verbs, ..Rule::default() }));
    compacted.sort_by_cached_key(Rule::order);
    compacted
}

pub fn role(object: &Value, _: &Related, w: &mut Writer) {
    w.cluster_head(object);
    line!(w, 0, "PolicyRule:");
    line!(w, 1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    line!(w, 1, "---------\t-----------------\t--------------\t-----");
    for rule in compact(list(object, "rules")) {
        line!(w, 1, "{}\t[{}]\t[{}]\t[{}]", rule.resource(), rule.urls.join(" "), rule.names.join(" "), rule.verbs.join(" "));
    }
}

pub fn binding(object: &Value, _: &Related, w: &mut Writer) {
    w.cluster_head(object);
    line!(w, 0, "Role:");
    line!(w, 1, "Kind:\t{}", text(object, "roleRef.kind"));
    line!(w, 1, "Name:\t{}", text(object, "roleRef.name"));
    line!(w, 0, "Subjects:");
    line!(w, 1, "Kind\tName\tNamespace");
    line!(w, 1, "----\t----\t---------");
    for subject in list(object, "subjects") {
        line!(w, 1, "{}\t{}\t{}", text(subject, "kind"), text(subject, "name"), text(subject, "namespace"));
    }
}
