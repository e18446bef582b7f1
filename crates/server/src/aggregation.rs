//! Aggregated ClusterRoles: their rules are those of the roles their `aggregationRule` selects.
//!
//! Watches: ClusterRoles. Writes: their `rules`. Mirrors pkg/controller/clusterroleaggregation: roles by name, each rule once.

use std::sync::Arc;

use ::api::selector::LabelSelector;
use serde_json::Value;
use tokio::sync::watch;

use crate::api::{Api, Context};
use crate::authentication::User;
use crate::follow::follow;
use crate::registry::{Part, text};

const PREFIX: &str = "/registry/clusterroles/";

/// The rules `role` is to have, of all `roles`.
pub fn rules(role: &Value, roles: &[Value]) -> Vec<Value> {
    let own = text(role, "/metadata/name");
    let mut found: Vec<Value> = Vec::new();
    for selector in role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array).into_iter().flatten() {
        let Ok(selector) = LabelSelector::from_json(selector) else { continue };
        let mut selected: Vec<&Value> = roles.iter().filter(|other| other["kind"] == "ClusterRole" && text(other, "/metadata/name") != own && selector.matches(&labels(other))).collect();
        selected.sort_by_key(|other| text(other, "/metadata/name"));
        for rule in selected.iter().flat_map(|other| other.get("rules").and_then(Value::as_array).into_iter().flatten()) {
            if !found.contains(rule) {
                found.push(rule.clone());
            }
        }
    }
    found
}

fn labels(role: &Value) -> std::collections::BTreeMap<String, String> {
    role.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Brings every aggregating role up to date. A change may feed another role; the write's own event leads to the next pass.
async fn pass(api: &Api) {
    let Ok(page) = api.store.list(PREFIX, None, None, 0) else { return };
    let roles: Vec<Value> = page.items.iter().filter_map(|(_, object)| object.value().ok()).collect();
    let Some(row) = api.serving.rows().find("rbac.authorization.k8s.io", "v1", "clusterroles") else { return };
    let cx = Context { field_manager: "clusterrole-aggregation-controller".into(), ..Context::of(Arc::new(User::component("system:serviceaccount:kube-system:clusterrole-aggregation-controller"))) };
    for role in roles.iter().filter(|role| role.get("aggregationRule").is_some_and(Value::is_object)) {
        let wanted = Value::from(rules(role, &roles));
        if role.get("rules").cloned().unwrap_or_else(|| Value::from(Vec::<Value>::new())) == wanted {
            continue;
        }
        let name = text(role, "/metadata/name");
        let changed = api.change(&row, None, name, Part::Main, &cx, |old| {
            let mut new = old.clone();
            new["rules"] = wanted.clone();
            if let Some(meta) = new["metadata"].as_object_mut() {
                meta.remove("resourceVersion");
            }
            Ok(new)
        });
        if let Err(error) = changed.await
            && !error.is_not_found()
        {
            tracing::warn!(%error, role = name, "cannot aggregate the rules of a ClusterRole");
        }
    }
}

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: Arc<Api>, shutdown: watch::Receiver<bool>) {
    let mut roles = follow(&api.store, PREFIX, shutdown);
    while roles.next().await.is_some() {
        pass(&api).await;
    }
}
