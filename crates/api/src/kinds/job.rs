//! Jobs and CronJobs. Mirrors pkg/apis/batch and pkg/registry/batch; what holds for a Job's status is in `job_status`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::json::{child, child_mut, default, default_unset, empty, ensure, flag, list, map, number, text};
use super::policy::{BUILT_IN, CHANGE, Generation, Policy};
use super::{job_status, pod_defaults, pod_spec, workload};
use crate::{cron, names};
use crate::selector::LabelSelector;
use crate::internal::{self, Internal};
use crate::validation::{Errors, IMMUTABLE, Path, ShownSelector};

const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const CRON_JOB_NAME_MAX: usize = 52;
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
const FAILURE_RULES_MAX: usize = 20;
const SUCCESS_RULES_MAX: usize = 20;
const MANAGED_BY_MAX: usize = 63;

pub static JOB: Policy = Policy {
    generation: Generation::Spec,
    status: true,
    defaults: |object| {
        if let Some(spec) = child_mut(object, "spec") {
            default_spec(spec);
        }
        default(object, "status", empty());
        if map(object, "metadata.labels").is_none_or(serde_json::Map::is_empty) {
            labels_of_template(object);
        }
    },
    on_create: |object, _| {
        // A job without labels of its own has its template's, and what is generated for them.
        let shared = map(object, "metadata.labels").is_none_or(serde_json::Map::is_empty) || child(object, "metadata.labels") == child(object, "spec.template.metadata.labels");
        if !flag(object, "spec.manualSelector") {
            generate_selector(object);
            if shared {
                labels_of_template(object);
            }
        }
    },
    check_create: |errors, object| check_job(errors, object, true),
    check_update: |errors, new, old| {
        // Jobs of old have no labels with a domain.
        let labels = child(old, "spec.template.metadata.labels");
        let prefixed = [NAME_LABELS[1], UID_LABELS[1]].iter().all(|key| labels.is_some_and(|labels| labels.get(key).is_some()));
        check_job(errors, new, prefixed);
        // Twice, as upstream: the job as it is, and the spec as it becomes.
        check_whole_spec(errors, new);
        check_update(errors, new, old);
    },
    check_status: job_status::check,
    warnings: workload::template_warnings,
    selectable: |object, field| (field == "status.successful").then(|| number(object, "status.succeeded").unwrap_or(0).to_string()),
    ..BUILT_IN
};

pub static CRON_JOB: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::Spec,
    status: true,
    defaults: |object| {
        default(object, "status", empty());
        let Some(spec) = child_mut(object, "spec") else { return };
        default(spec, "concurrencyPolicy", "Allow");
        default(spec, "suspend", false);
        default(spec, "successfulJobsHistoryLimit", 3);
        default(spec, "failedJobsHistoryLimit", 1);
        // Of the job's own defaults a template gets only those of its pods (and of its failure rules).
        if let Some(job) = child_mut(spec, "jobTemplate.spec") {
            default_nested(job);
        }
    },
    check: check_cron_job,
    check_create: |errors, object| {
        let name = text(object, "metadata.name");
        if name.len() > CRON_JOB_NAME_MAX {
            errors.invalid(&Path::Root("metadata.name"), name, "must be no more than 52 characters");
        }
    },
    ..BUILT_IN
};

fn default_nested(spec: &mut Value) {
    if let Some(template) = child_mut(spec, "template") {
        pod_defaults::template(template);
    }
    for rule in super::json::list_mut(spec, "podFailurePolicy.rules") {
        for pattern in super::json::list_mut(rule, "onPodConditions") {
            default(pattern, "status", "True");
        }
    }
}

/// Exit codes of a rule, and the length of `succeededIndexes`.
const EXIT_CODES_MAX: usize = 255;
const SUCCEEDED_INDEXES_MAX: usize = 64 * 1024;

fn default_spec(spec: &mut Value) {
    default_nested(spec);
    if child(spec, "completions").is_none() && child(spec, "parallelism").is_none() {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    let backoff = if child(spec, "backoffLimitPerIndex").is_some() { i64::from(i32::MAX) } else { 6 };
    default(spec, "backoffLimit", backoff);
    default_unset(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let replacement = if child(spec, "podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    default_unset(spec, "podReplacementPolicy", replacement);
    default(spec, "manualSelector", false);
}

/// Labels the pods with the job's name and uid, and selects by the uid. The server has given the object both before.
fn labels_of_template(object: &mut Value) {
    if let Some(labels) = child(object, "spec.template.metadata.labels").cloned()
        && let Some(metadata) = child_mut(object, "metadata")
    {
        super::json::set(metadata, "labels", labels);
    }
}

fn generate_selector(object: &mut Value) {
    let (name, uid) = (text(object, "metadata.name").to_owned(), text(object, "metadata.uid").to_owned());
    if let Some(labels) = ensure(object, "spec.template.metadata.labels") {
        for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
            for key in keys {
                labels.entry(key).or_insert_with(|| value.clone().into());
            }
        }
    }
    if let Some(labels) = ensure(object, "spec.selector.matchLabels") {
        labels.entry(UID_LABELS[1]).or_insert_with(|| uid.into());
    }
}

fn check_selector(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec.selector");
    let Some(selector) = child(object, "spec.selector") else {
        errors.required(&path, "");
        // And what selects nothing does not select the template.
        workload::parsed_selector(errors, object, "");
        return;
    };
    errors.label_selector(&path, Some(selector));
    if let Ok(selector) = LabelSelector::from_json(selector) {
        workload::selector_matches_template(errors, object, &selector);
    }
}

fn check_whole_spec(errors: &mut Errors, object: &Value) {
    check_spec(errors, &Path::Root("spec"), child(object, "spec").unwrap_or(&Value::Null));
    check_selector(errors, object);
}

/// With `prefixed`, the pods carry the labels that have a domain, too.
fn check_job(errors: &mut Errors, object: &Value, prefixed: bool) {
    generated_selector(errors, object, prefixed);
    check_whole_spec(errors, object);
    let name = text(object, "metadata.name");
    if text(object, "spec.completionMode") == "Indexed"
        && let Some(completions) = number(object, "spec.completions").filter(|completions| *completions > 0)
    {
        let last = format!("{name}-{}", completions - 1);
        if !names::dns_label(&last).is_empty() {
            errors.invalid(&Path::Root("metadata.name"), name, &format!("will not able to create pod with invalid DNS label: {last}"));
        }
    }
}

fn generated_selector(errors: &mut Errors, object: &Value, prefixed: bool) {
    let (name, uid) = (text(object, "metadata.name"), text(object, "metadata.uid"));
    let Some(selector) = child(object, "spec.selector").filter(|_| !flag(object, "spec.manualSelector")) else { return };
    if uid.is_empty() {
        errors.required(&Path::Root("metadata.uid"), "");
    }
    let path = Path::Root("spec.template.metadata.labels");
    let labels = child(object, "spec.template.metadata.labels");
    let mut expected = std::collections::BTreeMap::new();
    for at in 0..=usize::from(prefixed) {
        for (key, wanted) in [(UID_LABELS[at], uid), (NAME_LABELS[at], name)] {
            expected.insert(key.to_owned(), wanted.to_owned());
            match labels.and_then(|labels| labels.get(key)).and_then(Value::as_str) {
                None => errors.required(&path.key(key), &format!("must be '{wanted}'")),
                Some(actual) if actual != wanted => errors.invalid(&path.key(key), labels.unwrap_or(&Value::Null), &format!("must be '{wanted}'")),
                Some(_) => {}
            }
        }
    }
    if LabelSelector::from_json(selector).is_ok_and(|selector| !selector.matches(&expected)) {
        errors.invalid(&Path::Root("spec.selector"), &ShownSelector(selector), "`selector` not auto-generated");
    }
}

fn check_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    for name in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes"] {
        errors.not_negative(&path.child(name), number(spec, name));
    }
    let (per_index, failed_max) = (number(spec, "backoffLimitPerIndex"), number(spec, "maxFailedIndexes"));
    if failed_max.is_some() && per_index.is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = child(spec, "managedBy").and_then(Value::as_str) {
        let path = path.child("managedBy");
        match manager.split_once('/') {
            _ if manager.is_empty() => errors.required(&path, ""),
            Some((host, rest)) if !host.is_empty() && !rest.is_empty() => errors.name(&path, host, names::dns_subdomain),
            _ => errors.invalid(&path, manager, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        }
        if manager.len() > MANAGED_BY_MAX {
            errors.too_long(&path, MANAGED_BY_MAX);
        }
    }
    let mode = text(spec, "completionMode");
    let (completions, parallelism) = (number(spec, "completions"), number(spec, "parallelism"));
    match mode {
        "Indexed" => {
            if completions.is_none() {
                errors.required(&path.child("completions"), "when completion mode is Indexed");
            }
            if let Some(parallelism) = parallelism.filter(|parallelism| *parallelism > INDEXED_PARALLELISM_MAX) {
                errors.invalid(&path.child("parallelism"), &parallelism, &format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"));
            }
            if let (Some(completions), Some(failed)) = (completions, failed_max)
                && failed > completions
            {
                errors.invalid(&path.child("maxFailedIndexes"), &failed, "must be less than or equal to completions");
            }
            if let Some(failed) = failed_max.filter(|failed| *failed > FAILED_INDEXES_MAX) {
                errors.invalid(&path.child("maxFailedIndexes"), &failed, &format!("must be less than or equal to {FAILED_INDEXES_MAX}"));
            }
        }
        mode if mode == "NonIndexed" || child(spec, "completionMode").is_none() => {
            for (name, value) in [("backoffLimitPerIndex", per_index), ("maxFailedIndexes", failed_max)] {
                if let Some(value) = value {
                    errors.invalid(&path.child(name), &value, "requires indexed completion mode");
                }
            }
        }
        other => errors.not_supported(&path.child("completionMode"), other, &["NonIndexed", "Indexed"]),
    }
    if let Some(policy) = child(spec, "podFailurePolicy") {
        failure_policy(errors, &path.child("podFailurePolicy"), spec, policy);
    }
    if let Some(policy) = child(spec, "successPolicy") {
        success_policy(errors, &path.child("successPolicy"), mode, completions, policy);
    }
    let replacement = text(spec, "podReplacementPolicy");
    let replaces = child(spec, "podReplacementPolicy").is_some();
    if replaces && child(spec, "podFailurePolicy").is_some() && replacement != "Failed" {
        errors.not_supported(&path.child("podReplacementPolicy"), replacement, &["Failed"]);
    } else if replaces && !matches!(replacement, "Failed" | "TerminatingOrFailed") {
        errors.not_supported(&path.child("podReplacementPolicy"), replacement, &["Failed", "TerminatingOrFailed"]);
    }
    let none = Value::Null;
    pod_spec::template(errors, &path.child("template"), child(spec, "template").unwrap_or(&none));
    let restart_path = path.child("template.spec.restartPolicy");
    match text(spec, "template.spec.restartPolicy") {
        "" | "Always" => errors.required(&restart_path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if child(spec, "podFailurePolicy").is_some() => errors.invalid(&restart_path, "OnFailure", "only \"Never\" is supported when podFailurePolicy is specified"),
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&restart_path, other, &["OnFailure", "Never"]),
    }
}

fn failure_policy(errors: &mut Errors, path: &Path, spec: &Value, policy: &Value) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|name| child(spec, "template.spec").map_or(&[][..], |pod| list(pod, name)))
        .map(|container| text(container, "name"))
        .collect();
    let rules = list(policy, "rules");
    let path = path.child("rules");
    if rules.len() > FAILURE_RULES_MAX {
        errors.too_many(&path, rules.len(), FAILURE_RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        match text(rule, "action") {
            "" => errors.required(&path.child("action"), "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            "FailIndex" if child(spec, "backoffLimitPerIndex").is_none() => errors.invalid(&path.child("action"), "FailIndex", "requires the backoffLimitPerIndex to be set"),
            action if !ACTIONS.contains(&action) => errors.not_supported(&path.child("action"), action, &ACTIONS),
            _ => {}
        }
        let conditions = list(rule, "onPodConditions");
        if let Some(codes) = child(rule, "onExitCodes") {
            let path = path.child("onExitCodes");
            let operator = text(codes, "operator");
            if operator.is_empty() {
                errors.required(&path.child("operator"), "valid values: [\"In\" \"NotIn\"]");
            } else if !matches!(operator, "In" | "NotIn") {
                errors.not_supported(&path.child("operator"), operator, &["In", "NotIn"]);
            }
            let name = text(codes, "containerName");
            if child(codes, "containerName").is_some() && !containers.contains(name) {
                errors.invalid(&path.child("containerName"), name, "must be one of the container or initContainer names in the pod template");
            }
            exit_codes(errors, &path.child("values"), operator, child(codes, "values"));
        }
        for (at, pattern) in conditions.iter().enumerate() {
            let patterns = path.child("onPodConditions");
            let path = patterns.index(at);
            errors.name(&path.child("type"), text(pattern, "type"), names::qualified_name);
            let status = text(pattern, "status");
            if status.is_empty() {
                errors.required(&path.child("status"), "valid values: [\"False\" \"True\" \"Unknown\"]");
            } else if !matches!(status, "True" | "False" | "Unknown") {
                errors.not_supported(&path.child("status"), status, &["False", "True", "Unknown"]);
            }
        }
        match (child(rule, "onExitCodes").is_some(), conditions.is_empty()) {
            (true, false) => errors.push_omitting(&path, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, true) => errors.push_omitting(&path, "specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

/// Some, each once, in their order; success is none to be looked for.
fn exit_codes(errors: &mut Errors, path: &Path, operator: &str, values: Option<&Value>) {
    let codes: Vec<i64> = values.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_i64).collect();
    let shown = values.cloned().unwrap_or(Value::Null);
    if codes.is_empty() {
        errors.invalid(path, &shown, "at least one value is required");
    } else if codes.len() > EXIT_CODES_MAX {
        errors.too_many(path, codes.len(), EXIT_CODES_MAX);
    }
    let mut seen = BTreeSet::new();
    for (index, code) in codes.iter().enumerate() {
        if operator == "In" && *code == 0 {
            errors.invalid(&path.index(index), code, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            errors.duplicate(&path.index(index), code);
        }
    }
    if !codes.is_sorted() {
        errors.invalid(path, &shown, "must be ordered");
    }
}

fn success_policy(errors: &mut Errors, path: &Path, mode: &str, completions: Option<i64>, policy: &Value) {
    if mode != "Indexed" {
        return errors.invalid(path, &Internal("batch.v1.SuccessPolicy", Some(policy)), "requires indexed completion mode");
    }
    let rules = list(policy, "rules");
    let path = path.child("rules");
    if rules.is_empty() {
        errors.required(&path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > SUCCESS_RULES_MAX {
        errors.too_many(&path, rules.len(), SUCCESS_RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let (indexes, count) = (child(rule, "succeededIndexes"), number(rule, "succeededCount"));
        if indexes.is_none() && count.is_none() {
            errors.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        // Without completions the job is refused as it is.
        let Some(completions) = completions else { continue };
        let mut total = 0;
        if let Some(text) = indexes.and_then(Value::as_str) {
            let at = path.child("succeededIndexes");
            if text.len() > SUCCEEDED_INDEXES_MAX {
                errors.too_long(&at, SUCCEEDED_INDEXES_MAX);
            }
            match job_status::indexes(text, completions) {
                Ok(found) => total = found,
                Err(why) => errors.invalid(&at, text, &format!("error parsing succeededIndexes: {why}")),
            }
        }
        let at = path.child("succeededCount");
        errors.not_negative(&at, count);
        if let Some(count) = count.filter(|count| *count > completions) {
            errors.invalid(&at, &count, &format!("must be less than or equal to {completions} (the number of specified completions)"));
        }
        if let Some(count) = count.filter(|count| indexes.is_some() && *count > total) {
            errors.invalid(&at, &count, &format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"));
        }
    }
}

fn check_update(errors: &mut Errors, new: &Value, old: &Value) {
    let path = Path::Root("spec");
    let of = |object: &'_ Value, name: &str| child(object, "spec").and_then(|spec| child(spec, name)).cloned();
    let completions = (of(new, "completions"), of(old, "completions"));
    if text(new, "spec.completionMode") != "Indexed" {
        errors.immutable(&path.child("completions"), completions.0.as_ref(), completions.1.as_ref());
    } else if completions.0 != completions.1 && completions.0.is_some() && completions.0 != of(new, "parallelism") {
        errors.invalid(&path.child("completions"), completions.0.as_ref().unwrap_or(&Value::Null), "can only be modified in tandem with spec.parallelism");
    }
    workload::selector_immutable(errors, new, old);
    template_immutable(errors, &path, new, old);
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        internal::immutable(errors, &path, "batch.v1.JobSpec", name, child(new, "spec"), child(old, "spec"));
    }
}

/// Of a job that is suspended and has no pods, what says where pods may run may change, and what they may use.
fn template_immutable(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let suspended = flag(old, "spec.suspend");
    let movable = suspended && (child(old, "status.startTime").is_none() || job_status::is(old, "Suspended")) && number(old, "status.active").unwrap_or(0) == 0;
    let now = child(new, "spec.template").unwrap_or(&Value::Null);
    let mut before = child(old, "spec.template").cloned().unwrap_or(Value::Null);
    if movable {
        take_over(&mut before, now, "metadata", &["annotations", "labels"]);
        take_over(&mut before, now, "spec", &["nodeSelector", "tolerations", "schedulingGates"]);
        node_affinity(&mut before, now);
        for name in ["containers", "initContainers"] {
            let containers = child(now, "spec").map_or(&[][..], |pod| list(pod, name));
            let Some(old_containers) = child_mut(&mut before, "spec").map(|pod| super::json::list_mut(pod, name)).filter(|all| all.len() == containers.len()) else { continue };
            for (old, new) in old_containers.iter_mut().zip(containers).filter(|(old, new)| text(old, "name") == text(new, "name")) {
                put(old, new, "resources");
            }
        }
        let (now, before) = (child(now, "spec"), child(&before, "spec"));
        if !internal::same("core.v1.PodSpec", now, before) {
            errors.invalid(&path.child("template.spec"), &Internal("core.v1.PodSpec", now), IMMUTABLE);
        }
    } else if !internal::same("core.v1.PodTemplateSpec", Some(now), Some(&before)) {
        errors.invalid(&path.child("template"), &Internal("core.v1.PodTemplateSpec", Some(now)), IMMUTABLE);
    }
}

fn put(to: &mut Value, from: &Value, name: &str) {
    match child(from, name) {
        Some(value) => super::json::set(to, name, value.clone()),
        None => drop(super::json::take(to, name)),
    }
}

fn take_over(to: &mut Value, from: &Value, part: &str, names: &[&str]) {
    let none = Value::Null;
    let from = child(from, part).unwrap_or(&none);
    if ensure(to, part).is_none() {
        return;
    }
    if let Some(to) = child_mut(to, part) {
        names.iter().for_each(|name| put(to, from, name));
    }
}

/// Node affinity alone may change: with it an affinity may come, and go when there was no other.
fn node_affinity(to: &mut Value, from: &Value) {
    let others = |affinity: &Value| child(affinity, "podAffinity").is_some() || child(affinity, "podAntiAffinity").is_some();
    let (now, before) = (child(from, "spec.affinity"), child(to, "spec.affinity").cloned());
    let Some(spec) = child_mut(to, "spec") else { return };
    match (now, before) {
        (None, Some(affinity)) if !others(&affinity) => drop(super::json::take(spec, "affinity")),
        (Some(_), None) => super::json::set(spec, "affinity", empty()),
        _ => {}
    }
    if let (Some(now), Some(before)) = (now, child_mut(spec, "affinity")) {
        put(before, now, "nodeAffinity");
    }
}

fn check_cron_job(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let none = Value::Null;
    let spec = child(object, "spec").unwrap_or(&none);
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        errors.required(&path.child("schedule"), "");
    } else if schedule.contains("TZ") {
        errors.invalid(&path.child("schedule"), schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Err(error) = cron::parse(schedule) {
        errors.invalid(&path.child("schedule"), schedule, &error);
    }
    errors.not_negative(&path.child("startingDeadlineSeconds"), number(spec, "startingDeadlineSeconds"));
    if let Some(zone) = child(spec, "timeZone").and_then(Value::as_str) {
        time_zone(errors, &path.child("timeZone"), zone);
    }
    match text(spec, "concurrencyPolicy") {
        "Allow" | "Forbid" | "Replace" => {}
        "" => errors.required(&path.child("concurrencyPolicy"), ""),
        other => errors.not_supported(&path.child("concurrencyPolicy"), other, &["Allow", "Forbid", "Replace"]),
    }
    let job_path = path.child("jobTemplate.spec");
    let job = child(spec, "jobTemplate.spec").unwrap_or(&none);
    check_spec(errors, &job_path, job);
    if let Some(selector) = child(job, "selector") {
        errors.invalid(&job_path.child("selector"), &ShownSelector(selector), "`selector` will be auto-generated");
    }
    if flag(job, "manualSelector") {
        errors.not_supported(&job_path.child("manualSelector"), &true, &["nil", "false"]);
    }
    for name in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.not_negative(&path.child(name), number(spec, name));
    }
}

/// Zones of the IANA, by their exact names.
fn time_zone(errors: &mut Errors, path: &Path, zone: &str) {
    const PART_MAX: usize = 14;
    if zone.is_empty() {
        return errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    }
    let fine = |part: &str| {
        !part.is_empty() && part.len() <= PART_MAX && part != "." && part != ".." && !part.starts_with('-') && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+'))
    };
    if !zone.split('/').all(fine) {
        return errors.invalid(path, zone, &format!("unknown time zone {zone}"));
    }
    if zone.eq_ignore_ascii_case("local") {
        return errors.invalid(path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    }
    if !crate::time_zone::exists(zone) {
        errors.invalid(path, zone, &format!("unknown time zone {zone}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};

    #[test]
    fn a_job_selects_its_own_pods() {
        let object = json!({"metadata": {"name": "pi", "uid": "u-1"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "pi", "image": "perl:5"}]}}}});
        let (made, causes) = create("batch", "jobs", object);
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(made["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}));
        assert_eq!(
            made["spec"]["template"]["metadata"]["labels"],
            json!({"job-name": "pi", "batch.kubernetes.io/job-name": "pi", "controller-uid": "u-1", "batch.kubernetes.io/controller-uid": "u-1"})
        );
        for (name, value) in [("completions", json!(1)), ("parallelism", json!(1)), ("backoffLimit", json!(6)), ("completionMode", json!("NonIndexed")), ("suspend", json!(false)), ("podReplacementPolicy", json!("TerminatingOrFailed"))] {
            assert_eq!(made["spec"][name], value, "{name}");
        }
        let mut changed = made.clone();
        changed["spec"]["template"]["spec"]["containers"][0]["image"] = "perl:6".into();
        let (_, causes) = update("batch", "jobs", changed, &made);
        assert_eq!(causes.len(), 1);
        assert!(causes[0].message.ends_with(": field is immutable"), "{}", causes[0].message);
    }

    /// As the real validation answered these.
    #[test]
    fn exit_codes_and_indexes() {
        let base = json!({"metadata": {"name": "j"}, "spec": {"completions": 3, "completionMode": "Indexed", "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]},
            "successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        for (pointer, value, wanted) in [
            ("/spec/podFailurePolicy/rules/0/onExitCodes/values", json!([2, 1, 2, 0]), vec![
                "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[3]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1,2,0]: must be ordered",
            ]),
            ("/spec/podFailurePolicy/rules/0", json!({"action": "FailJob"}), vec!["spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"]),
            ("/spec/successPolicy/rules/0/succeededIndexes", json!("x"), vec![
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"x\": error parsing succeededIndexes: cannot convert string to integer for index: \"x\"",
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 1: must be less than or equal to 0 (the number of indexes in the specified succeededIndexes field)",
            ]),
            ("/spec/successPolicy/rules/0/succeededIndexes", json!("2-1"), vec![
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"2-1\": error parsing succeededIndexes: non-increasing order, previous: 2, current: 1",
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 1: must be less than or equal to 0 (the number of indexes in the specified succeededIndexes field)",
            ]),
            ("/spec/completionMode", json!(""), vec![
                "spec.completionMode: Unsupported value: \"\": supported values: \"NonIndexed\", \"Indexed\"",
                "spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededIndexes\":\"0-1\",\"SucceededCount\":1}]}: requires indexed completion mode",
            ]),
        ] {
            let mut object = base.clone();
            *object.pointer_mut(pointer).unwrap() = value;
            let judged: Vec<String> = lines(&create("batch", "jobs", object).1).into_iter().filter(|line| line.contains("olicy") || line.contains("Mode")).collect();
            assert_eq!(judged, wanted, "{pointer}");
        }
    }

    #[test]
    fn cron_jobs() {
        let job = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b:1"}]}}}});
        let (made, causes) = create("batch", "cronjobs", json!({"metadata": {"name": "c"}, "spec": {"schedule": "foo", "jobTemplate": job}}));
        assert_eq!(
            lines(&causes),
            [
                "spec.schedule: Invalid value: \"foo\": expected exactly 5 fields, found 1: [foo]",
                "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ]
        );
        assert_eq!(made["spec"]["successfulJobsHistoryLimit"], 3);
    }

    /// As the real server answered these.
    #[test]
    fn a_suspended_job_may_be_moved() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "pi", "image": "perl:5"}]}});
        for (suspend, path, value, told) in [
            (true, "/spec/template/spec/nodeSelector", json!({"a": "b"}), ""),
            (true, "/spec/template/metadata/finalizers", json!(["a/b"]), ""),
            (true, "/spec/template/spec/affinity", json!({"nodeAffinity": {}}), ""),
            (true, "/spec/template/spec/affinity", json!({"podAffinity": {}}), "spec.template.spec: Invalid value: {\"Volumes\":null,"),
            (true, "/spec/template/spec/containers/0/resources", json!({"limits": {"cpu": "1"}}), ""),
            (false, "/spec/template/spec/nodeSelector", json!({"a": "b"}), "spec.template: Invalid value: {\"labels\":{\"a\":\"b\","),
            (true, "/spec/podFailurePolicy", json!({}), "spec.podFailurePolicy: Invalid value: {\"Rules\":null}: field is immutable"),
            (true, "/spec/selector", json!({"matchLabels": {"x": "y"}}), "spec.selector: Invalid value: {\"matchLabels\":{\"x\":\"y\"}}: `selector` not auto-generated"),
        ] {
            let (made, causes) = create("batch", "jobs", json!({"metadata": {"name": "pi", "uid": "u-1"}, "spec": {"suspend": suspend, "template": template}}));
            assert!(causes.is_empty(), "{causes:?}");
            let (parent, field) = path.rsplit_once('/').unwrap();
            let mut changed = made.clone();
            changed.pointer_mut(parent).unwrap()[field] = value.clone();
            let found = lines(&update("batch", "jobs", changed, &made).1);
            assert!(if told.is_empty() { found.is_empty() } else { found.iter().any(|line| line.starts_with(told)) }, "{path} {value}: {found:?}");
        }
    }
}
