//! CronJob: makes a Job at each time its schedule names.
//!
//! Watches: the CronJob and its Jobs. Writes: Job create and delete, the CronJob's status. Mirrors `pkg/controller/cronjob` (version 2).

pub mod schedule;

use std::sync::Arc;

use api::k8s::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use api::k8s::api::core::v1::ObjectReference;
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use api::world::rfc3339;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::meta::{controlled_by, controller_reference, created, deleting, name, namespace, plus_seconds, reference, time, uid, until};
use crate::op::{Announce, Op, Plan, Propagation};
use schedule::Schedule;

/// More missed times than this are told of; only the last is made up for.
const MANY_MISSED: usize = 100;
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

pub struct View {
    pub cron_job: Arc<CronJob>,
    /// Jobs that it manages.
    pub jobs: Vec<Arc<Job>>,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let cron_job = view.cron_job.as_ref();
    let spec = &cron_job.spec;
    if deleting(cron_job) {
        return plan;
    }
    let about = reference(cron_job);
    let mut status = cron_job.status.clone().unwrap_or_default();
    let mut jobs: Vec<&Arc<Job>> = view.jobs.iter().filter(|job| controlled_by(job.as_ref(), uid(cron_job))).collect();
    jobs.sort_by_key(|job| created(job.as_ref()));
    follow(&about, &jobs, &mut status, &mut plan);
    limit_history(spec, &jobs, &mut plan);
    if spec.suspend != Some(true) {
        run(cron_job, spec, &about, &jobs, &mut status, now, &mut plan);
    }
    if status.active.as_ref().is_some_and(Vec::is_empty) {
        status.active = None;
    }
    if Some(&status) != cron_job.status.as_ref() && !(cron_job.status.is_none() && status == CronJobStatus::default()) {
        plan.push(Op::status(&CronJob { status: Some(status), ..cron_job.clone() }));
    }
    plan
}

/// `Complete` or `Failed`, once it has ended.
fn outcome(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")
        .map(|condition| condition.type_.as_str())
}

/// Brings the list of active Jobs up to date.
fn follow(about: &ObjectReference, jobs: &[&Arc<Job>], status: &mut CronJobStatus, plan: &mut Plan) {
    let active = status.active.get_or_insert_default();
    let is_active = |active: &[ObjectReference], job: &Job| active.iter().any(|reference| reference.uid.as_deref() == Some(uid(job)));
    for job in jobs {
        match outcome(job) {
            Some(kind) => {
                if is_active(active, job) {
                    plan.push(Op::normal(about, "SawCompletedJob", format!("Saw completed job: {}, condition: {kind}", name(job.as_ref()))));
                    active.retain(|reference| reference.uid.as_deref() != Some(uid(job.as_ref())));
                }
                let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
                if kind == "Complete" && ended > status.last_successful_time {
                    status.last_successful_time = ended;
                }
            }
            // Made by us, but the status was not written then.
            None if !is_active(active, job) => active.push(reference(job.as_ref())),
            None => {}
        }
    }
    active.retain(|reference| {
        let there = jobs.iter().any(|job| reference.uid.as_deref() == Some(uid(job.as_ref())));
        if !there {
            plan.push(Op::normal(about, "MissingJob", format!("Active job went missing: {}", reference.name.as_deref().unwrap_or(""))));
        }
        there
    });
}

fn limit_history(spec: &CronJobSpec, jobs: &[&Arc<Job>], plan: &mut Plan) {
    for (kind, limit) in [("Complete", spec.successful_jobs_history_limit.unwrap_or(3)), ("Failed", spec.failed_jobs_history_limit.unwrap_or(1))] {
        let ended: Vec<_> = jobs.iter().filter(|job| outcome(job) == Some(kind) && !deleting(job.as_ref())).collect();
        let beyond = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for job in ended.into_iter().take(beyond) {
            plan.push(delete(job));
        }
    }
}

fn delete(job: &Job) -> Op {
    let mut op = Op::delete(job);
    if let Op::Delete { propagation, .. } = &mut op {
        *propagation = Propagation::Background;
    }
    op
}

fn run(
    cron_job: &CronJob,
    spec: &CronJobSpec,
    about: &ObjectReference,
    jobs: &[&Arc<Job>],
    status: &mut CronJobStatus,
    now: Timestamp,
    plan: &mut Plan,
) {
    let zone = match spec.time_zone.as_deref().filter(|zone| !zone.is_empty()) {
        None => TimeZone::UTC,
        Some(zone_name) => match TimeZone::get(zone_name).or_else(|error| api::time_zone::get(zone_name).ok_or(error)) {
            Ok(zone) => zone,
            Err(error) => return plan.push(Op::warning(about, "UnknownTimeZone", format!("invalid timeZone: {zone_name:?}: {error}"))),
        },
    };
    let schedule: Schedule = match spec.schedule.parse() {
        Ok(schedule) => schedule,
        Err(error) => return plan.push(Op::warning(about, "UnparseableSchedule", format!("unparseable schedule: {:?} : {error}", spec.schedule))),
    };
    let mut earliest = status.last_schedule_time.as_ref().map_or(created(cron_job), |time| time.0);
    if let Some(deadline) = spec.starting_deadline_seconds {
        earliest = earliest.max(plus_seconds(now, -deadline));
    }
    // The last time that has come, and the first that has not.
    let (mut due, mut missed, mut next) = (None, 0, schedule.next(earliest, &zone));
    while let Some(at) = next.filter(|at| *at <= now) {
        (due, missed) = (Some(at), missed + 1);
        if missed > MANY_MISSED {
            // No need to name them all: the last one is found from near the present.
            due = schedule.last(now, &zone).or(due);
            next = schedule.next(now, &zone);
            break;
        }
        next = schedule.next(at, &zone);
    }
    if let Some(left) = next.and_then(|at| until(at, now)) {
        plan.look_again(left);
    }
    if missed > MANY_MISSED {
        plan.push(Op::warning(
            about,
            "TooManyMissedTimes",
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew".to_owned(),
        ));
    }
    let Some(due) = due else { return };
    let job_name = format!("{}-{}", name(cron_job), due.as_second() / 60);
    if jobs.iter().any(|job| name(job.as_ref()) == job_name) {
        return;
    }
    let active = status.active.get_or_insert_default();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            return plan.push(Op::normal(
                about,
                "JobAlreadyActive",
                "Not starting job because prior execution is running and concurrency policy is Forbid".to_owned(),
            ));
        }
        Some("Replace") => {
            for job in jobs.iter().filter(|job| outcome(job).is_none()) {
                plan.push(delete(job));
            }
            active.clear();
        }
        _ => {}
    }
    let meta = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.to_owned(), rfc3339(due));
    let job = Job {
        metadata: ObjectMeta {
            name: Some(job_name),
            namespace: Some(namespace(cron_job).to_owned()),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    };
    let mut op = Op::create(&job).announced(Announce {
        about: about.clone(),
        done: Some(("SuccessfulCreate", "Created job ".to_owned())),
        failed: Some(("FailedCreate", "Error creating job: ".to_owned())),
    });
    if let Op::Create { or_exists, .. } = &mut op {
        *or_exists = true;
    }
    plan.push(op);
    status.last_schedule_time = Some(time(due));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn lines(spec: Value, last: Value, jobs: &[(&str, &str)], now: &str) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "C", "creationTimestamp": "2026-11-22T10:00:30Z"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {}}}}, "status": {"lastScheduleTime": last}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "C", "controller": true}]);
        let job = |(name, outcome): &(&str, &str)| -> Arc<Job> {
            let conditions = if outcome.is_empty() { json!([]) } else { json!([{"type": outcome, "status": "True"}]) };
            Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "ownerReferences": owner}, "status": {"conditions": conditions}})).unwrap())
        };
        let active: Vec<Value> =
            jobs.iter().filter(|(_, outcome)| outcome.is_empty()).map(|(name, _)| crate::op::value(&reference(job(&(name, "")).as_ref()))).collect();
        if !active.is_empty() {
            object["status"]["active"] = json!(active);
        }
        let view = View { cron_job: Arc::new(serde_json::from_value(object).unwrap()), jobs: jobs.iter().map(job).collect() };
        plan(&view, now.parse().unwrap()).to_string().lines().map(|line| line.split(" (").next().unwrap().to_owned()).collect()
    }

    #[test]
    fn at_its_time() {
        assert_eq!(lines(json!({}), Value::Null, &[], "2026-11-22T10:04:00Z"), ["again in 60s"]);
        let made = lines(json!({}), Value::Null, &[], "2026-11-22T10:05:00Z");
        let minute = "2026-11-22T10:05:00Z".parse::<Timestamp>().unwrap().as_second() / 60;
        assert_eq!(
            made,
            [
                format!("create Job ns/c-{minute}"),
                r#"status CronJob ns/c {"lastScheduleTime":"2026-11-22T10:05:00Z"}"#.into(),
                "again in 300s".into()
            ]
        );
        assert_eq!(lines(json!({}), json!("2026-11-22T10:05:00Z"), &[], "2026-11-22T10:06:00Z"), ["again in 240s"]);
        // Only the last of several missed ones.
        assert!(lines(json!({}), json!("2026-11-22T10:05:00Z"), &[], "2026-11-22T10:31:00Z")[1].contains("10:30:00"));
        assert_eq!(lines(json!({"suspend": true}), Value::Null, &[], "2026-11-22T10:05:00Z"), Vec::<String>::new());
        assert_eq!(lines(json!({"startingDeadlineSeconds": 10}), Value::Null, &[], "2026-11-22T10:06:00Z"), ["again in 240s"]);
    }

    #[test]
    fn when_one_still_runs() {
        let now = "2026-11-22T10:05:00Z";
        assert_eq!(
            lines(json!({"concurrencyPolicy": "Forbid"}), Value::Null, &[("j", "")], now)[0],
            "event Normal JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid"
        );
        assert_eq!(lines(json!({"concurrencyPolicy": "Replace"}), Value::Null, &[("j", "")], now)[0], "delete Job ns/j");
        assert!(lines(json!({}), Value::Null, &[("j", "")], now)[0].starts_with("create Job"));
    }

    #[test]
    fn history() {
        let jobs = [("a", "Complete"), ("b", "Complete"), ("c", "Complete"), ("d", "Complete"), ("e", "Failed"), ("f", "Failed")];
        assert_eq!(
            lines(json!({}), json!("2026-11-22T10:05:00Z"), &jobs, "2026-11-22T10:06:00Z"),
            ["delete Job ns/a", "delete Job ns/e", "again in 240s"]
        );
    }
}
