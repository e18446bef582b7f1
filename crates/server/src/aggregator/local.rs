//! What is served here, shown as APIServices: one a group version, built in or of definitions.
//!
//! Watches: CustomResourceDefinitions. Writes: local APIServices. Mirrors kube-apiserver's autoregister controller and crdregistration, with upstream's priorities.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::DeleteOptions;
use serde_json::{Value, json};
use store::{Event, EventKind};
use tokio::sync::watch;

use super::{GROUP, PREFIX};
use crate::api::{Api, Context};
use crate::authentication::User;
use crate::decode;
use crate::follow::{News, follow};
use crate::registry::text;

const DEFINITIONS: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Group and version priority of definitions' groups.
const CUSTOM: (i64, i64) = (1000, 100);

/// Where a built-in group stands in discovery, and each of its versions.
const PRIORITIES: [(&str, i64, &[(&str, i64)]); 22] = [
    ("", 18000, &[("v1", 1)]),
    ("apps", 17800, &[("v1", 15)]),
    ("events.k8s.io", 17750, &[("v1", 15)]),
    ("authentication.k8s.io", 17700, &[("v1", 15)]),
    ("authorization.k8s.io", 17600, &[("v1", 15)]),
    ("autoscaling", 17500, &[("v1", 15), ("v2", 30)]),
    ("batch", 17400, &[("v1", 15)]),
    ("certificates.k8s.io", 17300, &[("v1", 15), ("v1beta1", 9)]),
    ("networking.k8s.io", 17200, &[("v1", 15), ("v1beta1", 9)]),
    ("policy", 17100, &[("v1", 15)]),
    ("rbac.authorization.k8s.io", 17000, &[("v1", 15)]),
    ("storage.k8s.io", 16800, &[("v1", 15), ("v1beta1", 9)]),
    ("admissionregistration.k8s.io", 16700, &[("v1", 15), ("v1beta1", 12)]),
    ("apiextensions.k8s.io", 16700, &[("v1", 15)]),
    ("scheduling.k8s.io", 16600, &[("v1", 15), ("v1alpha2", 2)]),
    ("coordination.k8s.io", 16500, &[("v1", 15), ("v1beta1", 13)]),
    ("node.k8s.io", 16300, &[("v1", 15)]),
    ("discovery.k8s.io", 16200, &[("v1", 15)]),
    ("resource.k8s.io", 16200, &[("v1", 21), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)]),
    ("flowcontrol.apiserver.k8s.io", 16100, &[("v1", 21), ("v1beta3", 18)]),
    ("internal.apiserver.k8s.io", 16000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io", 15800, &[("v1beta1", 9)]),
];

fn context() -> Context {
    Context { field_manager: "kube-apiserver".into(), exempt: true, ..Context::of(Arc::new(User::component("system:apiserver"))) }
}

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: &Arc<Api>, shutdown: watch::Receiver<bool>) {
    let mut definitions = follow(&api.store, DEFINITIONS, shutdown);
    while let Some(news) = definitions.next().await {
        match news {
            News::Afresh => everything(api).await,
            News::Changes(changes) => {
                for change in changes {
                    note(api, &change).await;
                }
            }
        }
    }
}

async fn note(api: &Api, change: &Event) {
    let Ok(definition) = change.object.readable().value() else { return };
    if change.kind == EventKind::Deleted {
        return sweep(api).await;
    }
    for (group, version) in served(&definition) {
        ensure(api, &group, &version, CUSTOM, "true").await;
    }
}

/// The group versions an established definition serves.
fn served(definition: &Value) -> Vec<(String, String)> {
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    if !conditions.into_iter().flatten().any(|condition| text(condition, "/type") == "Established" && text(condition, "/status") == "True") {
        return Vec::new();
    }
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten();
    let served = versions.filter(|version| version.get("served").and_then(Value::as_bool) == Some(true));
    served.map(|version| (text(definition, "/spec/group").to_owned(), text(version, "/name").to_owned())).collect()
}

fn of_definitions(api: &Api) -> BTreeSet<(String, String)> {
    let items = api.store.list(DEFINITIONS, None, None, 0).map(|page| page.items).unwrap_or_default();
    items.iter().filter_map(|(_, object)| object.value().ok()).flat_map(|definition| served(&definition)).collect()
}

fn api_service(group: &str, version: &str, (priority, version_priority): (i64, i64), managed: &str) -> Value {
    let mut spec = json!({"version": version, "groupPriorityMinimum": priority, "versionPriority": version_priority});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}}, "spec": spec})
}

/// The APIServices of built-in groups: there from the start.
pub fn built_in() -> Vec<Value> {
    let rows = ::api::table::table().rows();
    let served = |group: &str, version: &str| rows.iter().any(|row| row.group == group && row.version == version);
    let all = PRIORITIES.iter().flat_map(|(group, priority, versions)| versions.iter().map(move |(version, version_priority)| (*group, *version, (*priority, *version_priority))));
    all.filter(|(group, version, _)| served(group, version)).map(|(group, version, priorities)| api_service(group, version, priorities, "onstart")).collect()
}

async fn everything(api: &Api) {
    for (group, version) in of_definitions(api) {
        ensure(api, &group, &version, CUSTOM, "true").await;
    }
    sweep(api).await;
}

async fn ensure(api: &Api, group: &str, version: &str, priorities: (i64, i64), managed: &str) {
    let object = api_service(group, version, priorities, managed);
    let name = text(&object, "/metadata/name").to_owned();
    // Also another's: who names a Service for a group has said who serves it.
    if api.store.get(&format!("{PREFIX}{name}")).is_some() {
        return;
    }
    let Some(row) = api.serving.rows().find(GROUP, "v1", "apiservices") else { return };
    let cx = context();
    let made = match decode::shape(&row, object, &[], &cx) {
        Ok(value) => api.create(&row, None, value, &cx).await.map(drop),
        Err(status) => Err(status),
    };
    if let Err(error) = made
        && !error.is_already_exists()
    {
        tracing::warn!(%error, name, "cannot show a served group as an APIService");
    }
}

/// Takes away what showed a definition that is no more.
async fn sweep(api: &Api) {
    let wanted = of_definitions(api);
    let Some(row) = api.serving.rows().find(GROUP, "v1", "apiservices") else { return };
    for (_, object) in api.store.list(PREFIX, None, None, 0).map(|page| page.items).unwrap_or_default() {
        if object.meta().labels.get(MANAGED).is_none_or(|managed| managed != "true") {
            continue;
        }
        let Ok(value) = object.value() else { continue };
        let place = (text(&value, "/spec/group").to_owned(), text(&value, "/spec/version").to_owned());
        if wanted.contains(&place) || value.pointer("/spec/service").is_some() {
            continue;
        }
        let name = text(&value, "/metadata/name");
        if let Err(error) = api.delete(&row, None, name, &DeleteOptions::default(), &context()).await
            && !error.is_not_found()
        {
            tracing::warn!(%error, name, "cannot take away an APIService of a definition that is gone");
        }
    }
}
