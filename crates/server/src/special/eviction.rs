//! POST pods/eviction: a delete that PodDisruptionBudgets may refuse.
//!
//! https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/

use ::api::selector::LabelSelector;
use ::api::{Resource, Status};
use client::DeleteOptions;
use serde_json::Value;

use crate::api::{Api, Context};
use crate::registry::{Deleted, text};

impl Api {
    pub async fn evict(&self, row: &Resource, namespace: &str, name: &str, options: &DeleteOptions, cx: &Context) -> Result<Status, Status> {
        let pod = self.stored(row, Some(namespace), name)?;
        let value = pod.value().map_err(Status::internal)?;
        let finished = matches!(text(&value, "/status/phase"), "Succeeded" | "Failed" | "Pending") || pod.meta().deletion_timestamp.is_some();
        if !finished {
            self.check_budgets(namespace, &pod.meta().labels)?;
        }
        match self.delete(row, Some(namespace), name, options, cx).await? {
            Deleted::Gone(_) | Deleted::Going(_) => Ok(Status::success().with_code(201)),
        }
    }

    fn check_budgets(&self, namespace: &str, labels: &std::collections::BTreeMap<String, String>) -> Result<(), Status> {
        let page = self.store.list(&format!("/registry/poddisruptionbudgets/{namespace}/"), None, None, 0).map_err(Status::internal)?;
        for (_, object) in page.items {
            let budget = object.value().map_err(Status::internal)?;
            let Some(selector) = budget.pointer("/spec/selector") else { continue };
            let covers = LabelSelector::from_json(selector).is_ok_and(|selector| selector.matches(labels));
            let allowed = budget.pointer("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0);
            if covers && allowed <= 0 {
                let mut status = Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0);
                status.details.retry_after_seconds = None;
                status.details.causes.push(::api::Cause {
                    reason: "DisruptionBudget".into(),
                    message: format!(
                        "The disruption budget {} needs {} healthy pods and has {} currently",
                        object.meta().name,
                        budget.pointer("/status/desiredHealthy").and_then(Value::as_i64).unwrap_or(0),
                        budget.pointer("/status/currentHealthy").and_then(Value::as_i64).unwrap_or(0)
                    ),
                    field: String::new(),
                });
                return Err(status);
            }
        }
        Ok(())
    }
}
