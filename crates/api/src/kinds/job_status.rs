//! The status of a Job: what it may say, and how it may go on from what it said. Mirrors ValidateJobStatusUpdate of pkg/apis/batch/validation and the options that
//! pkg/registry/batch/job sets for it: most rules hold only where what they speak of changes, so that no old mistake keeps anybody from writing the rest.

use std::collections::BTreeSet;

use serde_json::Value;

use super::json::{child, flag, list, number, text};
use crate::internal::Internal;
use crate::validation::{Errors, IMMUTABLE, Path, same};

const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";
const FAILURE_TARGET: &str = "FailureTarget";
const CRITERIA_MET: &str = "SuccessCriteriaMet";

/// A job as its status has it.
struct Seen<'a> {
    status: &'a Value,
}

impl<'a> Seen<'a> {
    fn of(job: &'a Value) -> Self {
        Self { status: child(job, "status").unwrap_or(&Value::Null) }
    }

    fn condition(&self, kind: &str, status: &str) -> bool {
        list(self.status, "conditions").iter().any(|one| text(one, "type") == kind && text(one, "status") == status)
    }

    fn is(&self, kind: &str) -> bool {
        self.condition(kind, "True")
    }

    fn finished(&self) -> bool {
        self.is(COMPLETE) || self.is(FAILED)
    }

    fn count(&self, name: &str) -> i64 {
        number(self.status, name).unwrap_or(0)
    }

    fn time(&self, name: &str) -> Option<&'a Value> {
        child(self.status, name)
    }
}

/// Whether a job has that condition.
pub(super) fn is(job: &Value, kind: &str) -> bool {
    Seen::of(job).is(kind)
}

pub fn check(errors: &mut Errors, job: &Value, old_job: &Value) {
    let (new, old) = (Seen::of(job), Seen::of(old_job));
    let path = Path::Root("status");
    check_counts(errors, &path, &new);
    check_conditions(errors, &path, &new, &old);
    check_times(errors, &path, &new, &old);
    check_finished(errors, &path, job, &new, &old);
    check_indexes(errors, &path, job, &new, &old);
    check_more(errors, &path, job, &new, &old);
    check_change(errors, &path, job, &new, &old);
}

fn check_counts(errors: &mut Errors, path: &Path, new: &Seen<'_>) {
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        errors.not_negative(&path.child(name), number(new.status, name));
    }
    let path = path.child("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for name in ["succeeded", "failed"] {
        let path = path.child(name);
        let pods = child(new.status, "uncountedTerminatedPods").map_or(&[][..], |pods| list(pods, name));
        for (index, uid) in pods.iter().map(|uid| uid.as_str().unwrap_or_default()).enumerate() {
            if uid.is_empty() {
                errors.invalid(&path.index(index), uid, "must not be empty");
            } else if !seen.insert(uid) {
                errors.duplicate(&path.index(index), uid);
            }
        }
    }
}

/// What is true and what was.
fn changed(new: &Seen<'_>, old: &Seen<'_>, kind: &str) -> bool {
    new.is(kind) != old.is(kind)
}

fn check_conditions(errors: &mut Errors, path: &Path, new: &Seen<'_>, old: &Seen<'_>) {
    let path = path.child("conditions");
    let (completes, fails, aims) = (changed(new, old, COMPLETE), changed(new, old, FAILED), changed(new, old, FAILURE_TARGET));
    if (completes || fails) && new.is(COMPLETE) && new.is(FAILED) {
        errors.push_omitting(&path, "cannot set Complete=True and Failed=true conditions");
    }
    if (completes || aims) && new.is(COMPLETE) && new.is(FAILURE_TARGET) {
        errors.push_omitting(&path, "cannot set Complete=True and FailureTarget=true conditions");
    }
}

fn check_times(errors: &mut Errors, path: &Path, new: &Seen<'_>, old: &Seen<'_>) {
    let (completion, start) = (new.time("completionTime"), new.time("startTime"));
    let (completion_changed, start_changed) = (!same(completion, old.time("completionTime")), !same(start, old.time("startTime")));
    let at = path.child("completionTime");
    if changed(new, old, COMPLETE) || completion_changed {
        match completion {
            Some(time) if !new.is(COMPLETE) => errors.invalid(&at, time, "cannot set completionTime when there is no Complete=True condition"),
            None if new.is(COMPLETE) => errors.required(&at, "completionTime is required for Complete jobs"),
            _ => {}
        }
    }
    let second = |time: Option<&Value>| time.and_then(Value::as_str).and_then(|time| time.parse::<jiff::Timestamp>().ok());
    if let (Some(end), Some(begin), Some(shown)) = (second(completion), second(start), completion)
        && (completion_changed || start_changed)
        && end < begin
    {
        errors.invalid(&at, shown, "must be equal to or after `startTime`");
    }
    let path = path.child("conditions");
    if (changed(new, old, FAILED) || indexes_changed(new, old, "failedIndexes")) && new.is(FAILED) && !new.is(FAILURE_TARGET) {
        errors.push_omitting(&path, "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if (changed(new, old, COMPLETE) || changed(new, old, CRITERIA_MET)) && new.is(COMPLETE) && !new.is(CRITERIA_MET) {
        errors.push_omitting(&path, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
}

fn check_finished(errors: &mut Errors, path: &Path, job: &Value, new: &Seen<'_>, old: &Seen<'_>) {
    if !new.finished() {
        return;
    }
    let finishes = !old.finished();
    let active = new.count("active");
    if (finishes || active != old.count("active")) && active > 0 {
        errors.invalid(&path.child("active"), &active, "active>0 is invalid for finished job");
    }
    let nothing_to_do = flag(job, "spec.suspend") && number(job, "spec.completions") == Some(0);
    let start = new.time("startTime");
    if (finishes || !same(start, old.time("startTime"))) && !nothing_to_do && start.is_none() {
        errors.required(&path.child("startTime"), "startTime is required for finished job");
    }
    let uncounted = child(new.status, "uncountedTerminatedPods");
    let left = uncounted.map_or(0, |pods| list(pods, "succeeded").len() + list(pods, "failed").len());
    if (finishes || !same(uncounted, child(old.status, "uncountedTerminatedPods"))) && left > 0 {
        errors.invalid(&path.child("uncountedTerminatedPods"), &Internal("batch.v1.UncountedTerminatedPods", uncounted), "must be empty for finished job");
    }
}

fn indexes_changed(new: &Seen<'_>, old: &Seen<'_>, name: &str) -> bool {
    child(new.status, name).and_then(Value::as_str).filter(|text| !text.is_empty() || name == "failedIndexes") != child(old.status, name).and_then(Value::as_str).filter(|text| !text.is_empty() || name == "failedIndexes")
}

fn check_indexes(errors: &mut Errors, path: &Path, job: &Value, new: &Seen<'_>, old: &Seen<'_>) {
    let completions = number(job, "spec.completions");
    let per_index = child(job, "spec.backoffLimitPerIndex").is_some();
    let (completed, failed) = (text(new.status, "completedIndexes"), child(new.status, "failedIndexes").and_then(Value::as_str));
    let (completed_changed, failed_changed) = (indexes_changed(new, old, "completedIndexes"), indexes_changed(new, old, "failedIndexes"));
    let (completed_path, failed_path) = (path.child("completedIndexes"), path.child("failedIndexes"));
    if let Some(why) = completions.filter(|_| completed_changed).and_then(|completions| indexes(completed, completions).err()) {
        errors.invalid(&completed_path, completed, &format!("error parsing completedIndexes: {why}"));
    }
    if let Some(failed) = failed.filter(|_| failed_changed && per_index)
        && let Some(why) = completions.and_then(|completions| indexes(failed, completions).err())
    {
        errors.invalid(&failed_path, failed, &format!("error parsing failedIndexes: {why}"));
    }
    if completed_changed && !completed.is_empty() && text(job, "spec.completionMode") != "Indexed" {
        errors.invalid(&completed_path, completed, "cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    let Some(failed) = failed else { return };
    if failed_changed && !per_index {
        errors.invalid(&failed_path, failed, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if (failed_changed || completed_changed)
        && let Some(index) = completions.and_then(|completions| overlap(completed, failed, completions))
    {
        errors.invalid(&failed_path, failed, &format!("failedIndexes and completedIndexes overlap at index: {index}"));
    }
}

fn check_more(errors: &mut Errors, path: &Path, job: &Value, new: &Seen<'_>, old: &Seen<'_>) {
    let (terminating, ready) = (number(new.status, "terminating"), number(new.status, "ready"));
    let finishes = new.finished() != old.finished();
    if let Some(count) = terminating.filter(|count| *count > 0 && new.finished() && (finishes || terminating != number(old.status, "terminating"))) {
        errors.invalid(&path.child("terminating"), &count, "terminating>0 is invalid for finished job");
    }
    let counts_changed = ready != number(old.status, "ready") || new.count("active") != old.count("active");
    if let Some(ready) = ready.filter(|ready| counts_changed && *ready > new.count("active")) {
        errors.invalid(&path.child("ready"), &ready, "cannot set more ready pods than active");
    }
    let path = path.child("conditions");
    if new.is(CRITERIA_MET) && new.is(FAILED) {
        errors.push_omitting(&path, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if new.is(CRITERIA_MET) && new.is(FAILURE_TARGET) {
        errors.push_omitting(&path, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if child(job, "spec.successPolicy").is_some() && !new.is(CRITERIA_MET) && new.is(COMPLETE) {
        errors.push_omitting(&path, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True");
    }
}

fn check_change(errors: &mut Errors, path: &Path, job: &Value, new: &Seen<'_>, old: &Seen<'_>) {
    let conditions = path.child("conditions");
    for kind in [FAILED, COMPLETE, FAILURE_TARGET] {
        if old.is(kind) && !new.is(kind) {
            errors.push_omitting(&conditions, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    // An indexed job whose completions follow its parallelism can be scaled down.
    let elastic = text(job, "spec.completionMode") == "Indexed" && number(job, "spec.completions") == number(job, "spec.parallelism");
    for name in ["failed", "succeeded"] {
        if new.count(name) < old.count(name) && !(elastic && name == "succeeded") {
            errors.invalid(&path.child(name), &new.count(name), &format!("cannot decrease the {name} counter"));
        }
    }
    if let (Some(now), Some(before)) = (new.time("completionTime"), old.time("completionTime"))
        && now != before
    {
        errors.invalid(&path.child("completionTime"), now, IMMUTABLE);
    }
    let resumes = old.is("Suspended") && new.condition("Suspended", "False");
    let start = new.time("startTime");
    if old.time("startTime").is_some() && !same(start, old.time("startTime")) && !resumes && !flag(job, "spec.suspend") {
        errors.invalid(&path.child("startTime"), start.unwrap_or(&Value::Null), "field is immutable for unsuspended job once set");
    }
    if old.is(CRITERIA_MET) && !new.is(CRITERIA_MET) {
        errors.push_omitting(&conditions, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if old.is(COMPLETE) && !old.is(CRITERIA_MET) && new.is(CRITERIA_MET) {
        errors.push_omitting(&conditions, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}

/// The first and the last index of `0-2`, or of `5`.
fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let number = |text: &str| -> Result<i64, String> {
        let index: i64 = text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if index >= completions { Err(format!("too large index: {text:?}")) } else { Ok(index) }
    };
    match text.split('-').collect::<Vec<_>>().as_slice() {
        [only] => number(only).map(|only| (only, only)),
        [first, end] => match (number(first)?, number(end)?) {
            (first, end) if first >= end => Err(format!("non-increasing order, previous: {first}, current: {end}")),
            both => Ok(both),
        },
        _ => Err(format!("the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'")),
    }
}

/// How many indexes a text like `0-2,5` names.
pub(super) fn indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None::<i64>);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both name; what cannot be read is told elsewhere.
fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| text.split(',').filter_map(|part| interval(part, completions).ok()).collect::<Vec<_>>();
    let (completed, failed) = (read(completed), read(failed));
    let (mut completed, mut failed) = (completed.into_iter().peekable(), failed.into_iter().peekable());
    while let (Some(&(done, done_end)), Some(&(lost, lost_end))) = (completed.peek(), failed.peek()) {
        if done <= lost_end && lost <= done_end {
            return Some(done.max(lost));
        }
        if done <= lost { completed.next() } else { failed.next() };
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::lines;
    use crate::strategy::Strategy;

    fn told(spec: Value, old: Value, new: Value) -> Vec<String> {
        lines(&super::super::job::JOB.validate_status(&json!({"spec": spec, "status": new}), &json!({"spec": spec, "status": old})))
    }

    #[test]
    fn indexes_and_uncounted_pods() {
        let spec = json!({"completionMode": "Indexed", "completions": 5, "backoffLimitPerIndex": 1});
        for (status, wrong) in [
            (json!({"completedIndexes": "0-2,4", "failedIndexes": "3"}), vec![]),
            (json!({"completedIndexes": "x"}), vec!["status.completedIndexes: Invalid value: \"x\": error parsing completedIndexes: cannot convert string to integer for index: \"x\""]),
            (json!({"failedIndexes": "7"}), vec!["status.failedIndexes: Invalid value: \"7\": error parsing failedIndexes: too large index: \"7\""]),
            (json!({"completedIndexes": "0-2", "failedIndexes": "1-3"}), vec!["status.failedIndexes: Invalid value: \"1-3\": failedIndexes and completedIndexes overlap at index: 1"]),
            (json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a", ""]}}), vec![
                "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
                "status.uncountedTerminatedPods.failed[1]: Invalid value: \"\": must not be empty",
            ]),
        ] {
            assert_eq!(told(spec.clone(), json!({}), status), wrong);
        }
    }

    #[test]
    fn what_a_status_may_go_on_to() {
        let is = |kinds: &[&str]| -> Value { kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect() };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        for (old, new, wrong) in [
            (json!({}), json!({"active": 1, "ready": 1, "startTime": late}), vec![]),
            (json!({}), json!({"ready": 1}), vec!["status.ready: Invalid value: 1: cannot set more ready pods than active"]),
            // What was wrong before is nobody's concern now.
            (json!({"ready": 1}), json!({"ready": 1, "failed": 1}), vec![]),
            (json!({"startTime": early}), json!({}), vec!["status.startTime: Invalid value: null: field is immutable for unsuspended job once set"]),
            (json!({"startTime": early}), json!({"startTime": early, "completionTime": late, "conditions": is(&["SuccessCriteriaMet", "Complete"])}), vec![]),
            (json!({"startTime": late}), json!({"startTime": late, "completionTime": early, "conditions": is(&["SuccessCriteriaMet", "Complete"])}), vec!["status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": must be equal to or after `startTime`"]),
            (json!({}), json!({"active": 1, "terminating": 1, "conditions": is(&["Failed"])}), vec![
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
                "status.active: Invalid value: 1: active>0 is invalid for finished job",
                "status.startTime: Required value: startTime is required for finished job",
                "status.terminating: Invalid value: 1: terminating>0 is invalid for finished job",
            ]),
            (json!({"conditions": is(&["FailureTarget"]), "failed": 2}), json!({"failed": 1}), vec![
                "status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition",
                "status.failed: Invalid value: 1: cannot decrease the failed counter",
            ]),
            (json!({"conditions": is(&["SuccessCriteriaMet"])}), json!({"conditions": is(&["FailureTarget"])}), vec!["status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition"]),
        ] {
            assert_eq!(told(json!({}), old, new), wrong);
        }
    }
}
