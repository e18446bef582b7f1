//! DaemonSets, and ControllerRevisions.

use serde_json::Value;

use super::json::{child, default, empty, ensure, entry, map_mut, number, text, default_unset};
use super::policy::{BUILT_IN, CHANGE, Generation, Policy};
use super::workload;
use crate::validation::{Errors, Path, Raw, same};

/// Where `apps/v1` shows what was `spec.templateGeneration`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const STRATEGIES: [&str; 2] = ["RollingUpdate", "OnDelete"];
const COUNTS: [&str; 9] = [
    "currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady", "observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount",
];

pub static DAEMON_SET: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::Spec,
    status: true,
    defaults: |object| {
        workload::default_template(object, "spec.template");
        workload::default_numbers(object, &[("revisionHistoryLimit", 10)]);
        default(object, "status", empty());
        if let Some(strategy) = workload::nested(object, "spec.updateStrategy") {
            default(strategy, "type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate"
                && let Some(rolling) = workload::nested(strategy, "rollingUpdate")
            {
                default_unset(rolling, "maxUnavailable", 1);
                default_unset(rolling, "maxSurge", 0);
            }
        }
    },
    on_create: |object, _| {
        if let Some(status) = map_mut(object, "status") {
            for name in ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"] {
                status.insert(name.to_owned(), 0.into());
            }
        }
        set_template_generation(object, template_generation(object).max(1));
    },
    on_update: |new, old, _| {
        let changed = !same(child(new, "spec.template"), child(old, "spec.template"));
        set_template_generation(new, template_generation(old) + i64::from(changed));
    },
    check_create: check,
    check_update: |errors, new, old| {
        workload::selector_immutable(errors, new, old);
        check(errors, new);
    },
    check_status: |errors, new, old| {
        workload::status_counts(errors, new, &COUNTS, &[], "");
        workload::collisions_only_grow(errors, new, old);
    },
    warnings: workload::template_warnings,
    ..BUILT_IN
};

fn template_generation(object: &Value) -> i64 {
    entry(object, "metadata.annotations", TEMPLATE_GENERATION).and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    if let Some(annotations) = ensure(object, "metadata.annotations") {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

fn check(errors: &mut Errors, object: &Value) {
    if child(object, "spec.selector").is_some() {
        // Upstream judges the selector, then whether it matches, then whether it is empty.
        errors.label_selector(&Path::Root("spec.selector"), child(object, "spec.selector"));
    }
    if let Some(selector) = workload::parsed_selector(&mut Errors::new(), object, "") {
        workload::selector_matches_template(errors, object, &selector);
        if selector.is_empty() {
            errors.invalid(&Path::Root("spec.selector"), &Raw("{}"), "empty selector is invalid for daemonset");
        }
    } else if child(object, "spec.selector").is_none() {
        workload::parsed_selector(errors, object, "");
    }
    workload::template(errors, object, "DaemonSet");
    workload::spec_not_negative(errors, object, &["minReadySeconds"]);
    let path = Path::Root("spec.updateStrategy");
    let none = Value::Null;
    let strategy = child(object, "spec.updateStrategy").unwrap_or(&none);
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => check_rolling_update(errors, &path.child("rollingUpdate"), child(strategy, "rollingUpdate")),
        _ => workload::unknown_strategy(errors, &path, "apps.v1.DaemonSetUpdateStrategy", strategy, &STRATEGIES),
    }
    workload::spec_not_negative(errors, object, &["revisionHistoryLimit"]);
}

fn check_rolling_update(errors: &mut Errors, path: &Path, rolling: Option<&Value>) {
    let Some(rolling) = rolling else { return errors.required(path, "") };
    let (unavailable, surge) = (child(rolling, "maxUnavailable"), child(rolling, "maxSurge"));
    let (unavailable_path, surge_path) = (path.child("maxUnavailable"), path.child("maxSurge"));
    workload::int_or_percent(errors, &unavailable_path, unavailable);
    workload::int_or_percent(errors, &surge_path, surge);
    workload::at_most_all(errors, &unavailable_path, unavailable);
    workload::at_most_all(errors, &surge_path, surge);
    match (workload::amount(unavailable) != 0, workload::amount(surge) != 0) {
        (true, true) => errors.invalid(&surge_path, surge.unwrap_or(&Value::Null), "may not be set when maxUnavailable is non-zero"),
        (false, false) => errors.required(&unavailable_path, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

pub static CONTROLLER_REVISION: Policy = Policy {
    check: |errors, object| errors.not_negative(&Path::Root("revision"), number(object, "revision")),
    check_create: |errors, object| match object.get("data") {
        None | Some(Value::Null) => errors.required(&Path::Root("data"), "data is mandatory"),
        Some(Value::Object(_)) => {}
        Some(_) => errors.required(&Path::Root("data"), "data must be a valid JSON object"),
    },
    check_update: |errors, new, old| errors.immutable(&Path::Root("data"), new.get("data"), old.get("data")),
    ..BUILT_IN
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};

    #[test]
    fn template_generation_counts_templates() {
        let object = json!({"metadata": {"name": "rng"}, "spec": {"selector": {"matchLabels": {"app": "rng"}}, "template": {"metadata": {"labels": {"app": "rng"}},
            "spec": {"containers": [{"name": "rng", "image": "x/rng:v1"}]}}}});
        let (made, causes) = create("apps", "daemonsets", object);
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(made["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "1");
        assert_eq!(made["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}));
        let mut changed = made.clone();
        changed["spec"]["template"]["metadata"]["labels"]["isactive"] = "yes".into();
        let (changed, causes) = update("apps", "daemonsets", changed, &made);
        assert!(causes.is_empty());
        assert_eq!(changed["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "2");
        let mut selected = made.clone();
        selected["spec"]["selector"]["matchLabels"]["isactive"] = "yes".into();
        let (_, causes) = update("apps", "daemonsets", selected, &made);
        assert_eq!(
            lines(&causes),
            [
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"rng\",\"isactive\":\"yes\"}}: field is immutable",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"rng\"}: `selector` does not match template `labels`",
            ]
        );
    }
}
