//! POST pods/eviction: a delete that PodDisruptionBudgets may refuse.
//!
//! https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/

use ::api::selector::LabelSelector;
use ::api::{Cause, Object, Resource, Status};
use client::DeleteOptions;
use serde_json::{Value, json};

use super::pods::set_condition;
use crate::api::{Api, Context};
use crate::registry::{Deleted, Part, text};

/// Pods whose going a budget's controller has not seen yet.
const MAX_DISRUPTED_PODS: usize = 2_000;
/// When to come again to a budget that its controller has not looked at yet.
const RETRY_SECONDS: u32 = 10;

impl Api {
    pub async fn evict(&self, row: &Resource, namespace: &str, name: &str, options: &DeleteOptions, cx: &Context) -> Result<Status, Status> {
        let pod = self.stored(row, Some(namespace), name)?;
        let value = pod.value().map_err(Status::internal)?;
        // These do no work that anyone could miss.
        let free = matches!(text(&value, "/status/phase"), "Succeeded" | "Failed" | "Pending") || pod.meta().deletion_timestamp.is_some();
        let mut options = options.clone();
        options.dry_run |= cx.dry_run;
        if !free && let Some(budget) = self.budget(namespace, &pod.meta().labels)? {
            if goes_unasked(&budget.value().map_err(Status::internal)?, &value) {
                // Should it become ready meanwhile, it does count.
                options.preconditions.resource_version.get_or_insert_with(|| pod.resource_version().to_string());
            } else {
                self.spend(namespace, &budget.meta().name, name, options.dry_run, cx).await?;
            }
        }
        let delete_cx = Context { exempt: true, ..Context::like(cx).dry(options.dry_run) };
        if !options.dry_run {
            let marked = self.mark_evicted(row, namespace, name, &options, &delete_cx).await?;
            if let Some(version) = &mut options.preconditions.resource_version {
                *version = marked.resource_version().to_string();
            }
        }
        match self.delete(row, Some(namespace), name, &options, &delete_cx).await? {
            Deleted::Gone(_) | Deleted::Going(_) => Ok(Status::success().with_code(201)),
        }
    }

    /// The one budget that covers such a pod.
    fn budget(&self, namespace: &str, labels: &std::collections::BTreeMap<String, String>) -> Result<Option<std::sync::Arc<Object>>, Status> {
        let page = self.store.list(&format!("/registry/poddisruptionbudgets/{namespace}/"), None, None, 0).map_err(Status::internal)?;
        let mut found = None;
        for (_, object) in page.items {
            let budget = object.value().map_err(Status::internal)?;
            let Some(selector) = budget.pointer("/spec/selector") else { continue };
            if !LabelSelector::from_json(selector).is_ok_and(|selector| selector.matches(labels)) {
                continue;
            }
            if found.replace(object).is_some() {
                return Err(Status::failure(500, ::api::Reason::Unknown, "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."));
            }
        }
        Ok(found)
    }

    /// Takes one from `disruptionsAllowed` and notes the pod, so that nobody counts on it any more.
    async fn spend(&self, namespace: &str, budget: &str, pod: &str, dry_run: bool, cx: &Context) -> Result<(), Status> {
        let row = self.serving.rows().find("policy", "v1", "poddisruptionbudgets").ok_or_else(Status::no_route)?;
        let now = self.now();
        let cx = Context { exempt: true, ..Context::like(cx).dry(dry_run) };
        self.change(&row, Some(namespace), budget, Part::Status, &cx, |old| {
            refuse(old)?;
            let mut new = unversioned(old);
            let status = &mut new["status"];
            let left = number(old, "disruptionsAllowed") - 1;
            status["disruptionsAllowed"] = left.into();
            if !status["disruptedPods"].is_object() {
                status["disruptedPods"] = json!({});
            }
            status["disruptedPods"][pod] = now.as_str().into();
            if left == 0 {
                let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "", "observedGeneration": old.pointer("/status/observedGeneration"), "lastTransitionTime": now});
                set_condition(&mut new, condition);
            }
            Ok(new)
        })
        .await
        .map(drop)
    }

    /// Says on the pod why it goes.
    async fn mark_evicted(&self, row: &Resource, namespace: &str, name: &str, options: &DeleteOptions, cx: &Context) -> Result<std::sync::Arc<Object>, Status> {
        let now = self.now();
        self.change(row, Some(namespace), name, Part::Status, cx, |old| {
            let conflict = |what: &str, asked: &str, have: &str| Status::conflict("", "Pod", name, &format!("the {what} in the precondition ({asked}) does not match the {what} in record ({have}). The object might have been {}", if what == "UID" { "deleted and then recreated" } else { "modified" }));
            let (uid, version) = (text(old, "/metadata/uid"), text(old, "/metadata/resourceVersion"));
            if let Some(asked) = options.preconditions.uid.as_deref().filter(|asked| *asked != uid) {
                return Err(conflict("UID", asked, uid));
            }
            if let Some(asked) = options.preconditions.resource_version.as_deref().filter(|asked| *asked != version) {
                return Err(conflict("ResourceVersion", asked, version));
            }
            let mut new = unversioned(old);
            let known = old.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten().find(|known| text(known, "/type") == "DisruptionTarget" && text(known, "/status") == "True");
            let since = known.map_or(now.as_str(), |known| text(known, "/lastTransitionTime"));
            let generation = old.pointer("/metadata/generation");
            set_condition(&mut new, json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": since, "observedGeneration": generation}));
            Ok(new)
        })
        .await
    }
}

/// To be tried again on whatever another write made of it.
fn unversioned(old: &Value) -> Value {
    let mut new = old.clone();
    crate::registry::metadata(&mut new).remove("resourceVersion");
    new
}

fn number(budget: &Value, field: &str) -> i64 {
    budget.pointer(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or(0)
}

/// A pod that is not ready is no loss, if the budget says so or has all the healthy ones it wants.
fn goes_unasked(budget: &Value, pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().any(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True");
    let (healthy, desired) = (number(budget, "currentHealthy"), number(budget, "desiredHealthy"));
    !ready && (text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow" || (healthy >= desired && desired > 0))
}

/// The budget's no, in upstream's words (`checkAndDecrement`).
fn refuse(budget: &Value) -> Result<(), Status> {
    let name = text(budget, "/metadata/name");
    let no = |seconds: u32, why: String| {
        let mut status = Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", seconds);
        if seconds == 0 {
            status.details.retry_after_seconds = None;
        }
        status.details.causes.push(Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() });
        Err(status)
    };
    let generation = budget.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    if number(budget, "observedGeneration") < generation {
        return no(RETRY_SECONDS, format!("The disruption budget {name} is still being processed by the server."));
    }
    if budget.pointer("/status/disruptedPods").and_then(Value::as_object).is_some_and(|pods| pods.len() > MAX_DISRUPTED_PODS) {
        return Err(Status::forbidden("policy", "poddisruptionbudget", name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    match number(budget, "disruptionsAllowed") {
        ..0 => Err(Status::forbidden("policy", "poddisruptionbudget", name, "pdb disruptions allowed is negative")),
        0 => {
            let conditions = budget.pointer("/status/conditions").and_then(Value::as_array);
            let condition = conditions.into_iter().flatten().find(|known| text(known, "/type") == "DisruptionAllowed" && text(known, "/status") == "False" && !text(known, "/message").is_empty());
            let (healthy, desired) = (number(budget, "currentHealthy"), number(budget, "desiredHealthy"));
            no(0, match condition {
                Some(known) if text(known, "/reason") == "SyncFailed" => format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {}", text(known, "/message")),
                _ if healthy <= desired => format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"),
                Some(known) => format!("The disruption budget {name} does not allow evicting pods currently ({}): {}", text(known, "/reason"), text(known, "/message")),
                None => format!("The disruption budget {name} does not allow evicting pods currently"),
            })
        }
        _ => Ok(()),
    }
}
