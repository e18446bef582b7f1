//! Deployments. Mirrors pkg/apis/apps and pkg/registry/apps/deployment.

use serde_json::Value;

use super::json::{child, default, map_mut, number, text, default_unset};
use super::policy::{BUILT_IN, CHANGE, Generation, Policy};
use super::workload;
use crate::validation::{Errors, Path};

const STRATEGIES: [&str; 2] = ["Recreate", "RollingUpdate"];

pub static DEPLOYMENT: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::SpecOrAnnotations,
    status: true,
    defaults: |object| {
        workload::default_template(object, "spec.template");
        workload::default_numbers(object, &[("replicas", 1), ("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600)]);
        default(object, "status", super::json::empty());
        if let Some(strategy) = workload::nested(object, "spec.strategy") {
            default(strategy, "type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate"
                && let Some(rolling) = workload::nested(strategy, "rollingUpdate")
            {
                default_unset(rolling, "maxUnavailable", "25%");
                default_unset(rolling, "maxSurge", "25%");
            }
        }
    },
    on_status: |new, old, _| {
        let labels = child(old, "metadata.labels").cloned();
        if let Some(metadata) = map_mut(new, "metadata") {
            match labels {
                Some(labels) => metadata.insert("labels".to_owned(), labels),
                None => metadata.remove("labels"),
            };
        }
    },
    check,
    check_update: workload::selector_immutable,
    check_status: |errors, new, old| {
        let counts = ["observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas", "terminatingReplicas", "collisionCount"];
        workload::status_counts(errors, new, &counts, &["updatedReplicas", "readyReplicas", "availableReplicas"], "readyReplicas");
        workload::collisions_only_grow(errors, new, old);
    },
    warnings: |object, warnings| {
        workload::name_warnings(object, warnings);
        workload::template_warnings(object, warnings);
    },
    ..BUILT_IN
};

fn check(errors: &mut Errors, object: &Value) {
    workload::spec_not_negative(errors, object, &["replicas"]);
    workload::selector(errors, object, "deployment", true);
    if let Some(selector) = workload::parsed_selector(errors, object, "invalid label selector") {
        workload::selector_matches_template(errors, object, &selector);
    }
    workload::template(errors, object, "ReplicaSet");
    if let Some(strategy) = child(object, "spec.strategy") {
        check_strategy(errors, &Path::Root("spec.strategy"), strategy);
    }
    workload::spec_not_negative(errors, object, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"]);
    if let Some(deadline) = number(object, "spec.progressDeadlineSeconds")
        && deadline <= number(object, "spec.minReadySeconds").unwrap_or(0)
    {
        errors.invalid(&Path::Root("spec.progressDeadlineSeconds"), &deadline, "must be greater than minReadySeconds");
    }
}

fn check_strategy(errors: &mut Errors, path: &Path, strategy: &Value) {
    let rolling = child(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "Recreate" => {
            if rolling.is_some() {
                errors.forbidden(&path.child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => {
            let Some(rolling) = rolling else { return errors.required(&path.child("rollingUpdate"), "this should be defaulted and never be nil") };
            let path = path.child("rollingUpdate");
            let (unavailable, surge) = (child(rolling, "maxUnavailable"), child(rolling, "maxSurge"));
            workload::int_or_percent(errors, &path.child("maxUnavailable"), unavailable);
            workload::int_or_percent(errors, &path.child("maxSurge"), surge);
            if workload::amount(unavailable) == 0 && workload::amount(surge) == 0 {
                errors.invalid(&path.child("maxUnavailable"), unavailable.unwrap_or(&Value::Null), "may not be 0 when `maxSurge` is 0");
            }
            workload::at_most_all(errors, &path.child("maxUnavailable"), unavailable);
        }
        _ => workload::unknown_strategy(errors, path, "apps.v1.DeploymentStrategy", strategy, &STRATEGIES),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};

    #[test]
    fn a_deployment_of_kubectl_create() {
        let object = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "nginx"}]}}}});
        let (made, causes) = create("apps", "deployments", object);
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(made["metadata"]["generation"], 1);
        assert_eq!(made["status"], json!({}));
        assert_eq!(made["spec"]["replicas"], 1);
        assert_eq!(made["spec"]["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}));
        assert_eq!(made["spec"]["progressDeadlineSeconds"], 600);
        assert_eq!(made["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "Always");
        let mut changed = made.clone();
        changed["spec"]["replicas"] = 3.into();
        changed["status"] = json!({"replicas": 9});
        let (changed, causes) = update("apps", "deployments", changed, &made);
        assert!(causes.is_empty());
        assert_eq!((&changed["metadata"]["generation"], &changed["status"]), (&json!(2), &json!({})));
        let mut moved = made.clone();
        moved["spec"]["selector"]["matchLabels"]["app"] = "other".into();
        moved["spec"]["template"]["metadata"]["labels"]["app"] = "other".into();
        let (_, causes) = update("apps", "deployments", moved, &made);
        assert_eq!(lines(&causes), ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"]);
    }

    #[test]
    fn refusals() {
        let cases = [
            (
                json!({"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}}}),
                vec!["spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"],
            ),
            (
                json!({"metadata": {"name": "w"}, "spec": {"replicas": -1, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}}}),
                vec![
                    "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                    "spec.selector: Required value",
                    "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                json!({"metadata": {"name": "w"}, "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}, "selector": {"matchLabels": {"a": "b"}},
                    "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}}),
                vec!["spec.template.spec.containers: Required value", "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(lines(&create("apps", "deployments", object).1), expected);
        }
    }
}
