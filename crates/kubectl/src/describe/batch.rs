//! Jobs and CronJobs.

use api::columns::human_duration;
use api::kinds::json::{child, list, text};
use jiff::Timestamp;
use serde_json::Value;

use super::pod::template;
use super::writer::{Writer, capital_or_unset, controller, has, integer, line, or, selector, shown, shown_or};
use super::{Related, events};

/// Lists of indexes are cut at the first comma after this many characters.
const INDEXES: usize = 50;

pub fn job(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    line!(w, 0, "Selector:\t{}", selector(object, "spec.selector"));
    w.labels(object);
    w.annotations(object);
    if let Some(owner) = controller(object) {
        line!(w, 0, "Controlled By:\t{owner}");
    }
    if let Some(parallelism) = child(object, "spec.parallelism") {
        line!(w, 0, "Parallelism:\t{}", shown(parallelism));
    }
    line!(w, 0, "Completions:\t{}", shown_or(object, "spec.completions", "<unset>"));
    for (label, field) in [("Completion Mode", "completionMode"), ("Suspend", "suspend"), ("Backoff Limit", "backoffLimit"), ("TTL Seconds After Finished", "ttlSecondsAfterFinished")] {
        if let Some(value) = object.pointer("/spec").and_then(|spec| child(spec, field)) {
            line!(w, 0, "{label}:\t{}", shown(value));
        }
    }
    for (label, field) in [("Start Time", "status.startTime"), ("Completed At", "status.completionTime")] {
        if has(object, field) {
            line!(w, 0, "{label}:\t{}", w.time(object, field));
        }
    }
    let at = |path| text(object, path).parse::<Timestamp>().ok();
    if let (Some(start), Some(end)) = (at("status.startTime"), at("status.completionTime")) {
        line!(w, 0, "Duration:\t{}", human_duration(end.duration_since(start).as_secs()));
    }
    if has(object, "spec.activeDeadlineSeconds") {
        line!(w, 0, "Active Deadline Seconds:\t{}s", integer(object, "spec.activeDeadlineSeconds"));
    }
    let ready = child(object, "status.ready").map(|ready| format!(" ({} Ready)", shown(ready))).unwrap_or_default();
    line!(w, 0, "Pods Statuses:\t{} Active{ready} / {} Succeeded / {} Failed", integer(object, "status.active"), integer(object, "status.succeeded"), integer(object, "status.failed"));
    if text(object, "spec.completionMode") == "Indexed" {
        line!(w, 0, "Completed Indexes:\t{}", capped(text(object, "status.completedIndexes")));
    }
    template(object, "spec.template", w);
    events::events(related, w);
}

fn capped(indexes: &str) -> String {
    match indexes.char_indices().find(|(at, c)| *at >= INDEXES && *c == ',') {
        Some((at, _)) => format!("{}...", &indexes[..=at]),
        None => or(indexes, "<none>").to_owned(),
    }
}

pub fn cron_job(object: &Value, related: &Related, w: &mut Writer) {
    w.head(object);
    line!(w, 0, "Schedule:\t{}", text(object, "spec.schedule"));
    line!(w, 0, "Concurrency Policy:\t{}", text(object, "spec.concurrencyPolicy"));
    line!(w, 0, "Suspend:\t{}", capital_or_unset(object, "spec.suspend"));
    for (label, field) in [
        ("Time Zone", "timeZone"), ("Successful Job History Limit", "successfulJobsHistoryLimit"), ("Failed Job History Limit", "failedJobsHistoryLimit"),
    ] {
        line!(w, 0, "{label}:\t{}", shown_or(object, &format!("spec.{field}"), "<unset>"));
    }
    let deadline = child(object, "spec.startingDeadlineSeconds").map_or_else(|| "<unset>".to_owned(), |seconds| format!("{}s", shown(seconds)));
    line!(w, 0, "Starting Deadline Seconds:\t{deadline}");
    let job = "spec.jobTemplate.spec";
    let selector = if has(object, &format!("{job}.selector")) { selector(object, &format!("{job}.selector")) } else { "<unset>".to_owned() };
    line!(w, 0, "Selector:\t{selector}");
    for (label, field) in [("Parallelism", "parallelism"), ("Completions", "completions")] {
        line!(w, 0, "{label}:\t{}", shown_or(object, &format!("{job}.{field}"), "<unset>"));
    }
    if let Some(seconds) = child(object, &format!("{job}.activeDeadlineSeconds")) {
        line!(w, 0, "Active Deadline Seconds:\t{}s", shown(seconds));
    }
    template(object, &format!("{job}.template"), w);
    let last = if has(object, "status.lastScheduleTime") { w.time(object, "status.lastScheduleTime") } else { "<unset>".to_owned() };
    line!(w, 0, "Last Schedule Time:\t{last}");
    let active: Vec<&str> = list(object, "status.active").iter().map(|job| text(job, "name")).collect();
    line!(w, 0, "Active Jobs:\t{}", or(&active.join(", "), "<none>"));
    events::events(related, w);
}
