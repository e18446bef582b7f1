//! Discovery and OpenAPI with the parts of the servers behind: what they said when they were last asked.
//!
//! Mirrors kube-aggregator's discovery manager and its OpenAPI v2 and v3 aggregation.

use serde_json::{Map, Value, json};

use super::{Remote, Said, remotes};
use crate::api::Api;
use crate::registry::text;

fn group_version(remote: &Remote) -> Value {
    let version = if remote.group.is_empty() { remote.version.clone() } else { format!("{}/{}", remote.group, remote.version) };
    json!({"groupVersion": version, "version": remote.version})
}

/// Remote groups in their order: the highest priority first, versions likewise.
fn sorted(api: &Api) -> Vec<std::sync::Arc<Remote>> {
    let mut found = remotes(api).remotes.clone();
    found.sort_by(|a, b| (b.group_priority, &a.group, b.version_priority).cmp(&(a.group_priority, &b.group, a.version_priority)));
    found
}

fn said(api: &Api, remote: &Remote) -> Said {
    api.aggregator.said.lock().get(&remote.name).cloned().unwrap_or_default()
}

/// `/apis`
pub fn group_list(api: &Api, mut list: Value) -> Value {
    let Some(groups) = list.get_mut("groups").and_then(Value::as_array_mut) else { return list };
    for remote in sorted(api) {
        let at = groups.iter().position(|group| text(group, "/name") == remote.group).unwrap_or_else(|| {
            groups.push(json!({"name": remote.group, "preferredVersion": group_version(&remote), "versions": []}));
            groups.len() - 1
        });
        if let Some(versions) = groups[at].get_mut("versions").and_then(Value::as_array_mut) {
            let version = group_version(&remote);
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
    }
    list
}

/// `/apis/<group>`
pub fn group(api: &Api, name: &str, own: Option<Value>) -> Option<Value> {
    if remotes(api).remotes.iter().all(|remote| remote.group != name) {
        return own;
    }
    let list = group_list(api, json!({"groups": own.into_iter().collect::<Vec<_>>()}));
    let mut found = list.get("groups")?.as_array()?.iter().find(|group| text(group, "/name") == name)?.clone();
    found["kind"] = "APIGroup".into();
    found["apiVersion"] = "v1".into();
    Some(found)
}

/// `/apis` in aggregated form.
pub fn aggregated(api: &Api, mut list: Value) -> Value {
    let Some(items) = list.get_mut("items").and_then(Value::as_array_mut) else { return list };
    for remote in sorted(api) {
        let at = items.iter().position(|item| text(item, "/metadata/name") == remote.group).unwrap_or_else(|| {
            items.push(json!({"metadata": {"name": remote.group}, "versions": []}));
            items.len() - 1
        });
        let freshness = if remote.available { "Current" } else { "Stale" };
        let version = json!({"version": remote.version, "resources": resources(&said(api, &remote).resources), "freshness": freshness});
        if let Some(versions) = items[at].get_mut("versions").and_then(Value::as_array_mut) {
            versions.retain(|known| text(known, "/version") != remote.version);
            versions.push(version);
        }
    }
    list
}

/// An APIResourceList's resources, as aggregated discovery has them.
fn resources(list: &Value) -> Vec<Value> {
    let entries = || list.get("resources").and_then(Value::as_array).into_iter().flatten();
    let kind = |entry: &Value| json!({"group": text(entry, "/group"), "version": text(entry, "/version"), "kind": text(entry, "/kind")});
    let verbs = |entry: &Value| entry.get("verbs").cloned().unwrap_or_else(|| json!([]));
    let mut found = Vec::new();
    for entry in entries().filter(|entry| !text(entry, "/name").contains('/')) {
        let name = text(entry, "/name");
        let mut resource = json!({
            "resource": name,
            "responseKind": kind(entry),
            "scope": if entry.get("namespaced").and_then(Value::as_bool) == Some(true) { "Namespaced" } else { "Cluster" },
            "singularResource": text(entry, "/singularName"),
            "verbs": verbs(entry),
        });
        for field in ["shortNames", "categories"] {
            if let Some(value) = entry.get(field).filter(|value| value.is_array()) {
                resource[field] = value.clone();
            }
        }
        let below: Vec<Value> = entries()
            .filter_map(|entry| Some((text(entry, "/name").strip_prefix(name)?.strip_prefix('/')?, entry)))
            .map(|(sub, entry)| json!({"subresource": sub, "responseKind": kind(entry), "verbs": verbs(entry)}))
            .collect();
        if !below.is_empty() {
            resource["subresources"] = below.into();
        }
        found.push(resource);
    }
    found
}

/// `/openapi/v3`
pub fn v3_index(api: &Api, mut index: Value) -> Value {
    for remote in remotes(api).remotes.iter() {
        let path = remote.path().trim_start_matches('/').to_owned();
        if let Some(entry) = said(api, remote).openapi_v3.as_ref().and_then(|theirs| theirs.get("paths")?.get(&path)) {
            index["paths"][path.as_str()] = entry.clone();
        }
    }
    index
}

/// `/openapi/v2`: their paths and what these refer to; a definition we have too stays ours.
pub fn v2(api: &Api, mut document: Value) -> Value {
    for remote in remotes(api).remotes.iter().filter(|remote| remote.available) {
        let Some(theirs) = said(api, remote).openapi_v2 else { continue };
        let prefix = remote.path();
        let list = |field: &str| theirs.get(field).and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
        for (path, item) in list("paths").into_iter().filter(|(path, _)| path.strip_prefix(&prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))) {
            document["paths"][path.as_str()] = item;
        }
        for (name, definition) in list("definitions") {
            if document["definitions"].get(&name).is_none() {
                document["definitions"][name.as_str()] = definition;
            }
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_aggregated() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"]}]});
        assert_eq!(
            resources(&list),
            [json!({"resource": "flunders", "responseKind": {"group": "", "version": "", "kind": "Flunder"}, "scope": "Namespaced", "singularResource": "flunder", "verbs": ["get"], "shortNames": ["fl"],
                "subresources": [{"subresource": "status", "responseKind": {"group": "", "version": "", "kind": "Flunder"}, "verbs": ["update"]}]})]
        );
    }
}
