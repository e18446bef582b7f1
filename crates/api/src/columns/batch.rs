//! Jobs and CronJobs.

use jiff::Timestamp;
use serde_json::Value;

use super::format::{NONE, UNSET, containers, name, selector};
use super::{Printer, age, human_duration, since};
use crate::kinds::json::{child, list, number, text};

const JOBS: Printer = Printer { columns: "Name|Status|Completions|Duration|Age|Containers*|Images*|Selector*", cells: job };
const CRON_JOBS: Printer = Printer { columns: "Name|Schedule|Timezone|Suspend:b|Active:i|Last Schedule|Age|Containers*|Images*|Selector*", cells: cron_job };

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    match (group, plural) {
        ("batch", "jobs") => Some(&JOBS),
        ("batch", "cronjobs") => Some(&CRON_JOBS),
        _ => None,
    }
}

fn job(job: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = number(job, "status.succeeded").unwrap_or(0);
    let completions = match (number(job, "spec.completions"), number(job, "spec.parallelism").unwrap_or(0)) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let time = |path: &str| text(job, path).parse::<Timestamp>().ok();
    let took = time("status.startTime").map_or(String::new(), |start| human_duration(time("status.completionTime").unwrap_or(now).duration_since(start).as_secs()));
    let is = |kind: &str| list(job, "status.conditions").iter().find(|condition| text(condition, "type") == kind).is_some_and(|condition| text(condition, "status") == "True");
    let status = if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if child(job, "metadata.deletionTimestamp").is_some() {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|kind| is(kind)).unwrap_or("Running")
    };
    let [names, images] = containers(job, "spec.template.spec.containers");
    vec![name(job), status.into(), completions.into(), took.into(), age(job, now).into(), names, images, selector(job, "spec.selector").into()]
}

fn cron_job(cron: &Value, now: Timestamp) -> Vec<Value> {
    let suspend = match child(cron, "spec.suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    };
    let last = match text(cron, "status.lastScheduleTime") {
        "" => NONE.to_owned(),
        at => since(at, now),
    };
    let [names, images] = containers(cron, "spec.jobTemplate.spec.template.spec.containers");
    vec![
        name(cron),
        text(cron, "spec.schedule").into(),
        child(cron, "spec.timeZone").and_then(Value::as_str).unwrap_or(NONE).into(),
        suspend.into(),
        list(cron, "status.active").len().into(),
        last.into(),
        age(cron, now).into(),
        names,
        images,
        selector(cron, "spec.jobTemplate.spec.selector").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn jobs() {
        let cases = [
            (json!({"spec": {"completions": 3}, "status": {"startTime": "2026-01-01T00:59:00Z", "succeeded": 1}}), "x|Running|1/3|60s|5m|||<none>"),
            (
                json!({"spec": {"parallelism": 2}, "status": {"startTime": "2026-01-01T00:58:00Z", "completionTime": "2026-01-01T00:58:07Z", "conditions": [{"type": "Complete", "status": "True"}]}}),
                "x|Complete|0/1 of 2|7s|5m|||<none>",
            ),
            (json!({"status": {"conditions": [{"type": "Failed", "status": "True"}]}}), "x|Failed|0/1||5m|||<none>"),
        ];
        for (object, expected) in cases {
            assert_eq!(line("batch", "v1", "jobs", object), expected);
        }
        let cron = json!({"spec": {"schedule": "* * * * *", "suspend": false}, "status": {"active": [{}], "lastScheduleTime": "2026-01-01T00:59:30Z"}});
        assert_eq!(line("batch", "v1", "cronjobs", cron), "x|* * * * *|<none>|False|1|30s|5m|||<none>");
    }
}
