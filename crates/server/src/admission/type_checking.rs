//! `status.typeChecking` of a ValidatingAdmissionPolicy: its expressions, checked against the types of what it is for. Warnings, never more.
//!
//! Watches and writes: ValidatingAdmissionPolicies. Mirrors plugin/policy/validating/typechecking.go and the validatingadmissionpolicy-status controller.

use std::collections::BTreeSet;
use std::sync::Arc;

use ::api::{Resource, openapi};
use cel::DeclType;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::expressions::{Has, compile, typed_environment};
use super::faults::shown;
use super::policy::with_variables;
use crate::api::{Api, Context};
use crate::authentication::User;
use crate::follow::follow;
use crate::registry::{Part, metadata, text};

const PREFIX: &str = "/registry/validatingadmissionpolicies/";
/// Kinds one policy is checked against.
const MAX_KINDS: usize = 10;
/// Types that hold themselves are followed no deeper.
const MAX_DEPTH: usize = 16;

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: &Arc<Api>, shutdown: watch::Receiver<bool>) {
    let mut policies = follow(&api.store, PREFIX, shutdown);
    while policies.next().await.is_some() {
        pass(api).await;
    }
}

async fn pass(api: &Api) {
    let Ok(page) = api.store.list(PREFIX, None, None, 0) else { return };
    let Some(row) = api.serving.rows().find(super::index::GROUP, "v1", "validatingadmissionpolicies") else { return };
    let cx = Context { field_manager: "kube-controller-manager".into(), exempt: true, ..Context::of(Arc::new(User::component("system:serviceaccount:kube-system:validatingadmissionpolicy-status-controller"))) };
    for (_, object) in page.items {
        let Ok(policy) = object.value() else { continue };
        let generation = policy.pointer("/metadata/generation").cloned().unwrap_or_default();
        if policy.pointer("/status/observedGeneration") == Some(&generation) {
            continue;
        }
        let found = warnings(api, &policy);
        let checked = if found.is_empty() { json!({}) } else { json!({"expressionWarnings": found}) };
        let name = text(&policy, "/metadata/name");
        let changed = api.change(&row, None, name, Part::Status, &cx, |old| {
            let mut new = old.clone();
            // What was checked may have been replaced since: then its own event brings the next pass.
            if old.pointer("/metadata/generation") == Some(&generation) {
                new["status"] = json!({"observedGeneration": generation, "typeChecking": checked});
            }
            metadata(&mut new).remove("resourceVersion");
            Ok(new)
        });
        if let Err(error) = changed.await
            && !error.is_not_found()
        {
            tracing::warn!(%error, policy = name, "cannot write what type checking has found");
        }
    }
}

fn warnings(api: &Api, policy: &Value) -> Vec<Value> {
    let rows = api.serving.rows();
    let kinds: Vec<(String, DeclType)> = kinds(policy, rows.all()).into_iter().filter_map(|row| Some((format!("{}, Kind={}", row.api_version(), row.kind), declared(row, rows.all())?))).collect();
    let params = policy.pointer("/spec/paramKind").filter(|kind| kind.is_object());
    let param_type = params.and_then(|kind| {
        let row = rows.all().iter().find(|row| row.api_version() == text(kind, "/apiVersion") && row.kind == text(kind, "/kind"))?;
        declared(row, rows.all())
    });
    let has = Has { params: params.is_some(), authorizer: true };
    let mut found = Vec::new();
    let mut check = |pointer: String| {
        let expression = text(policy, &pointer);
        if expression.is_empty() {
            return;
        }
        let mut warning = String::new();
        for (kind, decl) in &kinds {
            let env = typed_environment(has, decl.clone(), param_type.clone().unwrap_or_else(DeclType::dyn_));
            let (env, _) = with_variables(env, policy);
            if let Err(why) = compile(&env, expression, &[]) {
                warning.push_str(&format!("{kind}: {why}\n"));
            }
        }
        if !warning.is_empty() {
            found.push(json!({"fieldRef": shown(&pointer), "warning": warning}));
        }
    };
    for index in 0..policy.pointer("/spec/validations").and_then(Value::as_array).map_or(0, Vec::len) {
        check(format!("/spec/validations/{index}/expression"));
        check(format!("/spec/validations/{index}/messageExpression"));
    }
    found
}

/// The kinds a policy names plainly: a rule with `*` or a subresource is for too many, or for none.
fn kinds<'a>(policy: &Value, rows: &'a [Arc<Resource>]) -> Vec<&'a Arc<Resource>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for rule in policy.pointer("/spec/matchConstraints/resourceRules").and_then(Value::as_array).into_iter().flatten() {
        let named = |field: &str, value: &str| rule.get(field).and_then(Value::as_array).is_some_and(|list| list.iter().any(|known| known == value) && !list.iter().any(|known| known == "*"));
        for row in rows.iter().filter(|row| named("apiGroups", &row.group) && named("apiVersions", &row.version) && named("resources", &row.plural)) {
            if found.len() < MAX_KINDS && seen.insert((row.group.to_string(), row.version.to_string(), row.kind.to_string())) {
                found.push(row);
            }
        }
    }
    found.sort_by_key(|row| (row.group.to_string(), row.version.to_string(), row.kind.to_string()));
    found
}

fn declared(row: &Resource, rows: &[Arc<Resource>]) -> Option<DeclType> {
    let document = openapi::v3_group(rows.iter().map(|row| &**row), &row.group, &row.version)?;
    let schemas = document.pointer("/components/schemas")?.as_object()?;
    let of_kind = |schema: &&Value| schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array).is_some_and(|kinds| {
        kinds.iter().any(|kind| text(kind, "/kind") == row.kind && text(kind, "/group") == row.group && text(kind, "/version") == row.version)
    });
    let schema = schemas.values().find(of_kind)?;
    DeclType::from_schema(&inlined(schema, schemas, 0), true)
}

/// The schema with what it refers to in its place.
fn inlined(schema: &Value, schemas: &serde_json::Map<String, Value>, depth: usize) -> Value {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    if let Some(name) = reference.and_then(|reference| reference.rsplit('/').next()) {
        return match schemas.get(name).filter(|_| depth < MAX_DEPTH) {
            Some(found) => inlined(found, schemas, depth + 1),
            None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        };
    }
    match schema {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let value = match key.as_str() {
                    "properties" => value.as_object().map(|inner| inner.iter().map(|(name, inner)| (name.clone(), inlined(inner, schemas, depth + 1))).collect::<Value>()).unwrap_or_default(),
                    "items" | "additionalProperties" => inlined(value, schemas, depth + 1),
                    _ => value.clone(),
                };
                (key.clone(), value)
            })
            .collect(),
        other => other.clone(),
    }
}
