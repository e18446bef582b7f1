//! `kubectl rollout`: status, history, undo, restart, pause, resume.
//!
//! Mirrors k8s.io/kubectl/pkg/polymorphichelpers (rollout_status.go, history.go, rollback.go, …).

use serde_json::{Value, json};

use super::apply::WRITE;
use super::change::{save, until};
use crate::builder::{self, FILES, Found};
use crate::command::{command, family};
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, on, text};
use crate::output;
use crate::printers::OUTPUT;
use crate::session::{Query, Session};
use crate::tabwriter::DESCRIBE;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const SELECTOR: &[Flag] = &[text("selector", "", "Selector (label query) to filter on.").short('l')];

family!(ROLLOUT, "rollout", "Manage the rollout of a resource", [&HISTORY, &PAUSE, &RESTART, &RESUME, &STATUS, &UNDO]);
command!(STATUS, "status", [], "(TYPE NAME | TYPE/NAME) [flags] [options]", "Show the status of the rollout", [STATUS_FLAGS, FILES, SELECTOR], status);
const STATUS_FLAGS: &[Flag] = &[
    text("revision", "0", "Pin to a specific revision for showing its status."),
    text("timeout", "0s", "The length of time to wait before ending watch, zero means never."),
    on("watch", "Watch the status of the rollout until it's done.").short('w'),
];
command!(HISTORY, "history", [], "(TYPE NAME | TYPE/NAME) [flags] [options]", "View rollout history", [&[text("revision", "0", "See the details, including podTemplate of the revision specified")], FILES, SELECTOR, OUTPUT], history);
command!(UNDO, "undo", [], "(TYPE NAME | TYPE/NAME) [flags] [options]", "Undo a previous rollout", [&[text("to-revision", "0", "The revision to rollback to. Default to 0 (last revision).")], WRITE, FILES, SELECTOR, OUTPUT], undo);
command!(RESTART, "restart", [], "RESOURCE [options]", "Restart a resource", [WRITE, FILES, SELECTOR, OUTPUT], restart);
command!(PAUSE, "pause", [], "RESOURCE [options]", "Mark the provided resource as paused", [WRITE, FILES, SELECTOR, OUTPUT], pause);
command!(RESUME, "resume", [], "RESOURCE [options]", "Resume a paused resource", [WRITE, FILES, SELECTOR, OUTPUT], resume);

async fn targets(session: &Session, args: &Args) -> Result<Vec<Found>> {
    if args.positional.is_empty() && !builder::has_files(args) {
        return fail("required resource not specified");
    }
    builder::resolve(session, args, &args.positional).await?.into_iter().collect()
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// What to say, and whether the rollout is over.
pub fn progress(object: &Value, pinned: i64) -> Result<(String, bool)> {
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    let observed = number(object, "/metadata/generation") <= number(object, "/status/observedGeneration");
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let updated = number(object, "/status/updatedReplicas");
    Ok(match object["kind"].as_str().unwrap_or("") {
        "Deployment" => {
            if pinned > 0 {
                let revision = object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(REVISION)).and_then(Value::as_str).unwrap_or("");
                if revision != pinned.to_string() {
                    return fail(format!("desired revision ({pinned}) is different from the running revision ({revision})"));
                }
            }
            if !observed {
                return Ok(("Waiting for deployment spec update to be observed...\n".to_owned(), false));
            }
            let late = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten().any(|condition| condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded");
            if late {
                return fail(format!("deployment {name:?} exceeded its progress deadline"));
            }
            let (replicas, available) = (number(object, "/status/replicas"), number(object, "/status/availableReplicas"));
            let waiting = |what: String| (format!("Waiting for deployment {name:?} rollout to finish: {what}...\n"), false);
            if updated < wanted {
                waiting(format!("{updated} out of {wanted} new replicas have been updated"))
            } else if replicas > updated {
                waiting(format!("{} old replicas are pending termination", replicas - updated))
            } else if available < updated {
                waiting(format!("{available} of {updated} updated replicas are available"))
            } else {
                (format!("deployment {name:?} successfully rolled out\n"), true)
            }
        }
        "DaemonSet" => {
            if object.pointer("/spec/updateStrategy/type").is_some_and(|kind| kind != "RollingUpdate") {
                return fail("rollout status is only available for RollingUpdate strategy type");
            }
            if !observed {
                return Ok(("Waiting for daemon set spec update to be observed...\n".to_owned(), false));
            }
            let (updated, desired, available) = (number(object, "/status/updatedNumberScheduled"), number(object, "/status/desiredNumberScheduled"), number(object, "/status/numberAvailable"));
            let waiting = |what: String| (format!("Waiting for daemon set {name:?} rollout to finish: {what}...\n"), false);
            if updated < desired {
                waiting(format!("{updated} out of {desired} new pods have been updated"))
            } else if available < desired {
                waiting(format!("{available} of {desired} updated pods are available"))
            } else {
                (format!("daemon set {name:?} successfully rolled out\n"), true)
            }
        }
        "StatefulSet" => {
            if object.pointer("/spec/updateStrategy/type").is_some_and(|kind| kind != "RollingUpdate") {
                return fail("rollout status is only available for RollingUpdate strategy type");
            }
            let ready = number(object, "/status/readyReplicas");
            let revision = |field: &str| object.pointer(&format!("/status/{field}")).and_then(Value::as_str).unwrap_or("").to_owned();
            let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition");
            if !observed || number(object, "/status/observedGeneration") == 0 {
                ("Waiting for statefulset spec update to be observed...\n".to_owned(), false)
            } else if ready < wanted {
                (format!("Waiting for {} pods to be ready...\n", wanted - ready), false)
            } else if partition > 0 {
                if updated < wanted - partition {
                    (format!("Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...\n", wanted - partition), false)
                } else {
                    (format!("partitioned roll out complete: {updated} new pods have been updated...\n"), true)
                }
            } else if revision("updateRevision") != revision("currentRevision") {
                (format!("waiting for statefulset rolling update to complete {updated} pods at revision {}...\n", revision("updateRevision")), false)
            } else {
                (format!("statefulset rolling update complete {} pods at revision {}...\n", number(object, "/status/currentReplicas"), revision("currentRevision")), true)
            }
        }
        kind => return fail(format!("no status viewer has been implemented for {kind}")),
    })
}

async fn status(session: &Session, args: &Args) -> Result<()> {
    let pinned = args.int("revision")?;
    for found in targets(session, args).await? {
        if !args.on("watch") {
            output::write(progress(&found.object, pinned)?.0.as_bytes());
            continue;
        }
        let waiting = until(session, &found.resource, found.namespace.as_deref(), &found.name, |object| {
            let Some(object) = object else { return fail("object has been deleted") };
            let mut object = object.clone();
            object["kind"] = found.resource.kind.clone().into();
            let (text, done) = progress(&object, pinned)?;
            output::write(text.as_bytes());
            Ok(done)
        });
        let seconds = args.duration("timeout")?;
        if seconds > 0.0 {
            match tokio::time::timeout(std::time::Duration::from_secs_f64(seconds), waiting).await {
                Ok(outcome) => outcome?,
                Err(_) => return fail("timed out waiting for the condition"),
            }
        } else {
            waiting.await?;
        }
    }
    Ok(())
}

/// Revision, change cause, template or patch; oldest first.
struct Revision {
    number: i64,
    cause: String,
    /// The whole pod template (Deployment), or the stored patch (others).
    data: Value,
}

async fn revisions(session: &Session, found: &Found) -> Result<Vec<Revision>> {
    let (plural, kind) = match found.resource.kind.as_str() {
        "Deployment" => ("replicasets", "Deployment"),
        "DaemonSet" | "StatefulSet" => ("controllerrevisions", found.resource.kind.as_str()),
        other => return fail(format!("no history viewer has been implemented for \"{other}\"")),
    };
    let uid = found.object.pointer("/metadata/uid").cloned().unwrap_or_default();
    let selector = super::change::selector_of(&found.object).unwrap_or_default();
    let path = Query::of(format!("/apis/apps/v1/namespaces/{}/{plural}", found.namespace.as_deref().unwrap_or("default"))).with("labelSelector", &selector).end();
    let list = session.get(&path).await?;
    let mut revisions = Vec::new();
    for item in list["items"].as_array().into_iter().flatten() {
        if !item.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten().any(|owner| owner["uid"] == uid) {
            continue;
        }
        let annotations = &item["metadata"]["annotations"];
        let cause = annotations[CHANGE_CAUSE].as_str().unwrap_or("").to_owned();
        let (number, data) = if kind == "Deployment" {
            let Some(number) = annotations[REVISION].as_str().and_then(|text| text.parse().ok()) else { continue };
            (number, item["spec"]["template"].clone())
        } else {
            (item["revision"].as_i64().unwrap_or(0), item["data"].clone())
        };
        revisions.push(Revision { number, cause, data });
    }
    revisions.sort_by_key(|revision| revision.number);
    Ok(revisions)
}

fn template(revision: &Revision) -> Value {
    let mut template = revision.data.pointer("/spec/template").cloned().unwrap_or_else(|| revision.data.clone());
    if let Some(template) = template.as_object_mut() {
        template.remove("$patch");
    }
    template
}

async fn history(session: &Session, args: &Args) -> Result<()> {
    for found in targets(session, args).await? {
        let revisions = revisions(session, &found).await?;
        let wanted = args.int("revision")?;
        if wanted > 0 {
            let Some(revision) = revisions.iter().find(|revision| revision.number == wanted) else { return fail("unable to find the specified revision") };
            output::line(format!("{} with revision #{wanted}\n{}", found.label(), crate::describe::pod_template(&template(revision))));
            continue;
        }
        let mut text = String::from("REVISION\tCHANGE-CAUSE\n");
        for revision in &revisions {
            text.push_str(&format!("{}\t{}\n", revision.number, if revision.cause.is_empty() { "<none>" } else { &revision.cause }));
        }
        output::line(format!("{} \n{}", found.label(), DESCRIBE.format(&text)));
    }
    Ok(())
}

async fn undo(session: &Session, args: &Args) -> Result<()> {
    for found in targets(session, args).await? {
        if found.object.pointer("/spec/paused") == Some(&Value::Bool(true)) {
            return fail(format!("you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume deployment/{}' and try again", found.name));
        }
        let revisions = revisions(session, &found).await?;
        let to = args.int("to-revision")?;
        let target = if to > 0 {
            match revisions.iter().find(|revision| revision.number == to) {
                Some(revision) => revision,
                None => return fail(format!("unable to find specified revision {to} in history")),
            }
        } else {
            match revisions.len().checked_sub(2).and_then(|at| revisions.get(at)) {
                Some(revision) => revision,
                None => return fail(format!("no rollout history found for {} {:?}", found.resource.kind.to_lowercase(), found.name)),
            }
        };
        let mut wanted = template(target);
        if let Some(labels) = wanted.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove("pod-template-hash");
        }
        let mut modified = found.object.clone();
        let mut current = modified["spec"]["template"].clone();
        for template in [&mut current, &mut wanted] {
            if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("creationTimestamp");
            }
        }
        if current == wanted {
            output::line(format!("{} skipped rollback (current template already matches revision {})", found.label(), target.number));
            continue;
        }
        modified["spec"]["template"] = wanted.clone();
        let operations = json!([{"op": "replace", "path": "/spec/template", "value": wanted}]);
        let object = match super::apply::dry_run(args)? {
            super::apply::DryRun::Client => modified,
            _ => session.patch(&super::apply::write_query(found.path(), args, "kubectl-rollout")?, "application/json-patch+json", &operations).await?,
        };
        crate::printers::done(args, &object, &found.label(), "rolled back")?;
    }
    Ok(())
}

async fn restart(session: &Session, args: &Args) -> Result<()> {
    for found in targets(session, args).await? {
        if !matches!(found.resource.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
            return fail(format!("{} {:?} restarting is not supported", found.resource.qualified(), found.name));
        }
        if found.object.pointer("/spec/paused") == Some(&Value::Bool(true)) {
            return fail(format!("{} {:?} can't restart paused deployment (run rollout resume first)", found.resource.qualified(), found.name));
        }
        let mut modified = found.object.clone();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        if !modified.pointer("/spec/template/metadata").is_some_and(Value::is_object) {
            modified["spec"]["template"]["metadata"] = json!({});
        }
        modified["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = now.into();
        save(session, args, &found, &modified, "restarted", "kubectl-rollout").await?;
    }
    Ok(())
}

async fn set_paused(session: &Session, args: &Args, paused: bool) -> Result<()> {
    let (verb, already) = if paused { ("paused", "is already paused") } else { ("resumed", "is not paused") };
    for found in targets(session, args).await? {
        if found.resource.kind != "Deployment" {
            return fail(format!("{} {:?} {} is not supported", found.resource.qualified(), found.name, if paused { "pausing" } else { "resuming" }));
        }
        if (found.object.pointer("/spec/paused") == Some(&Value::Bool(true))) == paused {
            return fail(format!("{} {:?} {already}", found.resource.qualified(), found.name));
        }
        let mut modified = found.object.clone();
        modified["spec"]["paused"] = if paused { true.into() } else { Value::Null };
        if let (false, Some(spec)) = (paused, modified["spec"].as_object_mut()) {
            spec.remove("paused");
        }
        save(session, args, &found, &modified, verb, "kubectl-rollout").await?;
    }
    Ok(())
}

async fn pause(session: &Session, args: &Args) -> Result<()> {
    set_paused(session, args, true).await
}

async fn resume(session: &Session, args: &Args) -> Result<()> {
    set_paused(session, args, false).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_deployment() {
        for (status, want) in [
            (json!({"observedGeneration": 1}), "Waiting for deployment spec update to be observed...\n"),
            (json!({"observedGeneration": 2, "updatedReplicas": 1}), "Waiting for deployment \"w\" rollout to finish: 1 out of 3 new replicas have been updated...\n"),
            (json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 4}), "Waiting for deployment \"w\" rollout to finish: 1 old replicas are pending termination...\n"),
            (json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}), "Waiting for deployment \"w\" rollout to finish: 2 of 3 updated replicas are available...\n"),
            (json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}), "deployment \"w\" successfully rolled out\n"),
        ] {
            let object = json!({"kind": "Deployment", "metadata": {"name": "w", "generation": 2}, "spec": {"replicas": 3}, "status": status});
            assert_eq!(progress(&object, 0).unwrap().0, want);
        }
    }
}
