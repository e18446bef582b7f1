//! Discovery: `/api`, `/apis`, `/apis/<group>`, `/apis/<group>/<version>` and the aggregated form that kubectl asks for since 1.26.
//!
//! Everything is derived from rows: built-in ones in their order (upstream's group priority), then CRDs' in whatever order they are handed in.
//! Mirrors apiserver's `endpoints/discovery` and `endpoints/discovery/aggregated`, and upstream's `api/discovery/*.json`.

use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::resource::{Resource, Subresource};

/// The content type of aggregated discovery, for the version asked for.
pub fn aggregated_content_type(version: &str) -> String {
    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
}

/// `/api`
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`
pub fn group_list<'a>(rows: impl IntoIterator<Item = &'a Resource>) -> Value {
    let groups: Vec<Value> = groups(rows).iter().filter(|group| !group.name.is_empty()).map(Group::summary).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`
pub fn group<'a>(rows: impl IntoIterator<Item = &'a Resource>, name: &str) -> Option<Value> {
    let groups = groups(rows);
    let found = groups.iter().find(|group| group.name == name && !name.is_empty())?;
    let mut summary = found.summary();
    summary["kind"] = "APIGroup".into();
    summary["apiVersion"] = "v1".into();
    Some(summary)
}

/// `/api/v1` (an empty group) and `/apis/<group>/<version>`
pub fn resource_list<'a>(rows: impl IntoIterator<Item = &'a Resource>, group: &str, version: &str) -> Option<Value> {
    let groups = groups(rows);
    let found = groups.iter().find(|candidate| candidate.name == group)?;
    let (_, rows) = found.versions.iter().find(|(candidate, _)| *candidate == version)?;
    let mut resources = Vec::new();
    for row in rows {
        resources.push(resource(row));
        resources.extend(row.subresources.iter().map(|sub| subresource(row, sub)));
    }
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version(group, version), "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

/// `/api` in aggregated form; `version` is `v2`, or `v2beta1` for older clients.
pub fn aggregated_core<'a>(rows: impl IntoIterator<Item = &'a Resource>, version: &str) -> Value {
    aggregated(groups(rows).into_iter().filter(|group| group.name.is_empty()), version)
}

/// `/apis` in aggregated form.
pub fn aggregated_apis<'a>(rows: impl IntoIterator<Item = &'a Resource>, version: &str) -> Value {
    aggregated(groups(rows).into_iter().filter(|group| !group.name.is_empty()), version)
}

fn aggregated<'a>(groups: impl Iterator<Item = Group<'a>>, version: &str) -> Value {
    let items: Vec<Value> = groups.map(|group| group.aggregated()).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items})
}

struct Group<'a> {
    name: &'a str,
    /// The preferred one first; the rows of each by name.
    versions: Vec<(&'a str, Vec<&'a Resource>)>,
}

fn groups<'a>(rows: impl IntoIterator<Item = &'a Resource>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for row in rows {
        let at = groups.iter().position(|group| group.name == row.group).unwrap_or_else(|| {
            groups.push(Group { name: &row.group, versions: Vec::new() });
            groups.len() - 1
        });
        let versions = &mut groups[at].versions;
        match versions.iter_mut().find(|(version, _)| *version == row.version) {
            Some((_, rows)) => rows.push(row),
            None => versions.push((&row.version, vec![row])),
        }
    }
    for group in &mut groups {
        group.versions.sort_by(|(a, _), (b, _)| version_priority(b).cmp(&version_priority(a)));
        for (_, rows) in &mut group.versions {
            rows.sort_by(|a, b| a.plural.cmp(&b.plural));
        }
    }
    groups
}

/// Orders versions as Kubernetes does: stable before beta before alpha before anything else, then by number.
pub fn version_priority(version: &str) -> (u8, u32, u32, std::cmp::Reverse<&str>) {
    let parsed = || -> Option<(u8, u32, u32)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..digits].parse().ok()?;
        let stage = &rest[digits..];
        if stage.is_empty() {
            return Some((3, major, 0));
        }
        let (level, minor) = stage.strip_prefix("beta").map(|minor| (2, minor)).or_else(|| stage.strip_prefix("alpha").map(|minor| (1, minor)))?;
        Some((level, major, minor.parse().ok()?))
    };
    let (level, major, minor) = parsed().unwrap_or((0, 0, 0));
    (level, major, minor, std::cmp::Reverse(version))
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl Group<'_> {
    fn summary(&self) -> Value {
        let versions: Vec<Value> =
            self.versions.iter().map(|(version, _)| json!({"groupVersion": group_version(self.name, version), "version": version})).collect();
        json!({"name": self.name, "preferredVersion": versions[0], "versions": versions})
    }

    fn aggregated(&self) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|(version, rows)| {
                let resources: Vec<Value> = rows.iter().map(|row| aggregated_resource(row)).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = if self.name.is_empty() { json!({}) } else { json!({"name": self.name}) };
        json!({"metadata": metadata, "versions": versions})
    }
}

fn resource(row: &Resource) -> Value {
    let verbs: Vec<&str> = row.verbs.iter().map(|verb| verb.as_str()).collect();
    let mut value =
        json!({"name": row.plural, "singularName": row.singular, "namespaced": row.namespaced(), "kind": row.kind, "verbs": verbs});
    names(&mut value, row);
    if let Some(hash) = storage_version_hash(row) {
        value["storageVersionHash"] = hash.into();
    }
    value
}

fn names(value: &mut Value, row: &Resource) {
    for (key, list) in [("shortNames", &row.short_names), ("categories", &row.categories)] {
        if !list.is_empty() {
            value[key] = list.iter().map(|name| Value::from(&**name)).collect();
        }
    }
}

fn subresource(row: &Resource, sub: &Subresource) -> Value {
    let verbs: Vec<&str> = sub.verbs.iter().map(|verb| verb.as_str()).collect();
    let name = format!("{}/{}", row.plural, sub.name);
    let mut value = json!({"name": name, "singularName": "", "namespaced": row.namespaced(), "kind": sub.kind, "verbs": verbs});
    if (&sub.group, &sub.version) != (&row.group, &row.version) {
        value["group"] = (&*sub.group).into();
        value["version"] = (&*sub.version).into();
    }
    value
}

/// Group and version are left empty where they are the list's own.
fn response_kind(row: &Resource, group: &str, version: &str, kind: &str) -> Value {
    if (group, version) == (&*row.group, &*row.version) {
        json!({"group": "", "version": "", "kind": kind})
    } else {
        json!({"group": group, "version": version, "kind": kind})
    }
}

fn aggregated_resource(row: &Resource) -> Value {
    let verbs: Vec<&str> = row.verbs.iter().map(|verb| verb.as_str()).collect();
    let mut value = json!({
        "resource": row.plural,
        "responseKind": response_kind(row, &row.group, &row.version, &row.kind),
        "scope": if row.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": verbs,
    });
    names(&mut value, row);
    if !row.subresources.is_empty() {
        value["subresources"] = row
            .subresources
            .iter()
            .map(|sub| {
                let verbs: Vec<&str> = sub.verbs.iter().map(|verb| verb.as_str()).collect();
                json!({"subresource": sub.name, "responseKind": response_kind(row, &sub.group, &sub.version, &sub.kind), "verbs": verbs})
            })
            .collect();
    }
    value
}

/// Kinds, by group, whose objects upstream stores as `v1beta1` still. Ours are stored as they are served; that hash is all clients see of it.
const STORED_AS_BETA: [(&str, &str); 3] =
    [("apiextensions.k8s.io", "CustomResourceDefinition"), ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"), ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding")];

/// Tells clients when the stored form of a kind changes. None for kinds which are not stored.
pub fn storage_version_hash(row: &Resource) -> Option<String> {
    const HASH_BYTES: usize = 8;
    if !row.allows(crate::Verb::Watch) {
        return None;
    }
    // Events are stored in the core form whichever way they came in.
    let group = if row.group == "events.k8s.io" { "" } else { &*row.group };
    let version = if STORED_AS_BETA.contains(&(group, &row.kind)) { "v1beta1" } else { &row.storage_version };
    let digest = Sha256::digest(format!("{group}/{version}/{}", row.kind));
    Some(base64::engine::general_purpose::STANDARD.encode(&digest[..HASH_BYTES]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::table;

    fn rows() -> &'static [Resource] {
        table().rows()
    }

    #[test]
    fn hashes_are_upstreams() {
        for (group, version, plural, wanted) in [
            ("", "v1", "persistentvolumes", "HN/zwEC+JgM="),
            ("", "v1", "pods", "xPOwRZ+Yhw8="),
            ("", "v1", "services", "0/CO1lhkEBI="),
            ("", "v1", "events", "r2yiGXH7wu8="),
            ("events.k8s.io", "v1", "events", "r2yiGXH7wu8="),
            ("autoscaling", "v1", "horizontalpodautoscalers", "qwQve8ut294="),
            ("networking.k8s.io", "v1", "ingresses", "39NQlfNR+bo="),
            ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "jfWCUB31mvA="),
            ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies", "LYmCf+UMVdg="),
            ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "6OxvlMmQ6is="),
        ] {
            assert_eq!(storage_version_hash(table().find(group, version, plural).unwrap()).unwrap(), wanted, "{plural}");
        }
        assert!(storage_version_hash(table().find("", "v1", "bindings").unwrap()).is_none());
    }

    #[test]
    fn groups_stand_in_order_with_the_preferred_version_first() {
        let list = group_list(rows());
        let names: Vec<&str> = list["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
        assert_eq!(names[..4], ["apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io"]);
        let autoscaling = group(rows(), "autoscaling").unwrap();
        assert_eq!(autoscaling["preferredVersion"]["groupVersion"], "autoscaling/v2");
        assert_eq!(autoscaling["versions"][1]["version"], "v1");
        assert!(group(rows(), "").is_none() && group(rows(), "nonsense").is_none());
    }

    #[test]
    fn lists_resources_and_what_is_below_them() {
        let list = resource_list(rows(), "apps", "v1").unwrap();
        assert_eq!(list["groupVersion"], "apps/v1");
        let find = |name: &str| list["resources"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone();
        assert_eq!(find("deployments")["shortNames"], json!(["deploy"]));
        assert_eq!(find("deployments")["categories"], json!(["all"]));
        assert_eq!(
            find("deployments/scale"),
            json!({"name": "deployments/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"]})
        );
        assert_eq!(find("deployments/status").get("group"), None);
        assert!(resource_list(rows(), "apps", "v2").is_none());
        assert!(resource_list(rows(), "", "v1").unwrap().get("apiVersion").is_none());
    }

    #[test]
    fn aggregates() {
        let core = aggregated_core(rows(), "v2");
        assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2");
        let pods = core["items"][0]["versions"][0]["resources"].as_array().unwrap().iter().find(|entry| entry["resource"] == "pods").unwrap().clone();
        assert_eq!(pods["responseKind"], json!({"group": "", "version": "", "kind": "Pod"}));
        let eviction = pods["subresources"].as_array().unwrap().iter().find(|sub| sub["subresource"] == "eviction").unwrap().clone();
        assert_eq!(eviction, json!({"subresource": "eviction", "responseKind": {"group": "policy", "version": "v1", "kind": "Eviction"}, "verbs": ["create"]}));
        assert_eq!(aggregated_apis(rows(), "v2")["items"].as_array().unwrap().len(), 20);
    }

    #[test]
    fn versions_rank_by_stability() {
        let mut versions = vec!["v1alpha1", "v2beta1", "v10", "foo", "v1", "v1beta2", "v2"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]);
    }
}
