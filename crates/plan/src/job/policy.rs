//! `podFailurePolicy`: what a failed pod means for the Job. Mirrors `pkg/controller/job/pod_failure_policy.go`.

use api::k8s::api::batch::v1::{PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use api::k8s::api::core::v1::Pod;

use super::Work;
use crate::meta::{name, namespace};

pub(super) enum Outcome {
    /// It counts towards `backoffLimit`.
    Count,
    /// As if it had not been.
    Ignore,
    /// It counts, and ends its index.
    FailIndex,
    /// It ends the Job, for this reason.
    Fail(String),
}

impl Work<'_> {
    pub(super) fn policy(&self, pod: &Pod) -> Outcome {
        let Some(policy) = &self.spec.pod_failure_policy else { return Outcome::Count };
        for (index, rule) in policy.rules.iter().enumerate() {
            if let Some(message) = met(rule, index, pod) {
                return match rule.action.as_str() {
                    "Ignore" => Outcome::Ignore,
                    "FailJob" => Outcome::Fail(message),
                    "FailIndex" => Outcome::FailIndex,
                    _ => Outcome::Count,
                };
            }
        }
        Outcome::Count
    }
}

fn met(rule: &PodFailurePolicyRule, index: usize, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(codes) = &rule.on_exit_codes {
        let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        for container in containers.filter(|container| codes.container_name.as_ref().is_none_or(|wanted| *wanted == container.name)) {
            let Some(ended) = container.state.as_ref().and_then(|state| state.terminated.as_ref()).filter(|ended| ended.exit_code != 0) else {
                continue;
            };
            if includes(codes, ended.exit_code) {
                return Some(format!(
                    "Container {} for pod {}/{} failed with exit code {} matching {} rule at index {index}",
                    container.name,
                    namespace(pod),
                    name(pod),
                    ended.exit_code,
                    rule.action
                ));
            }
        }
        return None;
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or(&[]);
    let condition = status.conditions.iter().flatten().find(|condition| {
        patterns.iter().any(|pattern| pattern.type_ == condition.type_ && pattern.status.as_deref().unwrap_or("True") == condition.status)
    })?;
    Some(format!("Pod {}/{} has condition {} matching {} rule at index {index}", namespace(pod), name(pod), condition.type_, rule.action))
}

fn includes(codes: &PodFailurePolicyOnExitCodesRequirement, code: i32) -> bool {
    match codes.operator.as_str() {
        "In" => codes.values.contains(&code),
        "NotIn" => !codes.values.contains(&code),
        _ => false,
    }
}
