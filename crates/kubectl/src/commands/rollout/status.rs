//! `rollout status`: one line a change, until the rollout is done.
//!
//! Mirrors polymorphichelpers/rollout_status.go.

use serde_json::Value;

use crate::builder::Found;
use crate::commands::{pods::text, watching};
use crate::error::{Result, fail};
use crate::flags::Args;
use crate::output;
use crate::session::{Query, Session};

/// What there is to say about a workload, and whether it is done.
pub fn of(kind: &str, object: &Value, revision: i64) -> Result<(String, bool)> {
    let name = text(object, "/metadata/name");
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let observed = number("/metadata/generation") <= number("/status/observedGeneration");
    let rolling = || match text(object, "/spec/updateStrategy/type") {
        "RollingUpdate" | "" => Ok(()),
        _ => fail("rollout status is only available for RollingUpdate strategy type"),
    };
    match kind {
        "Deployment" => {
            let running = text(object, "/metadata/annotations/deployment.kubernetes.io~1revision").parse().unwrap_or(0);
            if revision > 0 && revision != running {
                return fail(format!("desired revision ({revision}) is different from the running revision ({running})"));
            }
            if !observed {
                return Ok(("Waiting for deployment spec update to be observed...".to_owned(), false));
            }
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
            if conditions.into_iter().flatten().any(|condition| text(condition, "/type") == "Progressing" && text(condition, "/reason") == "ProgressDeadlineExceeded") {
                return fail(format!("deployment {name:?} exceeded its progress deadline"));
            }
            let (replicas, updated, available) = (number("/status/replicas"), number("/status/updatedReplicas"), number("/status/availableReplicas"));
            let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
            let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64);
            Ok(if let Some(wanted) = wanted.filter(|wanted| updated < *wanted) {
                (format!("{waiting} {updated} out of {wanted} new replicas have been updated..."), false)
            } else if replicas > updated {
                (format!("{waiting} {} old replicas are pending termination...", replicas - updated), false)
            } else if available < updated {
                (format!("{waiting} {available} of {updated} updated replicas are available..."), false)
            } else {
                (format!("deployment {name:?} successfully rolled out"), true)
            })
        }
        "DaemonSet" => {
            rolling()?;
            if !observed {
                return Ok(("Waiting for daemon set spec update to be observed...".to_owned(), false));
            }
            let (desired, updated, available) = (number("/status/desiredNumberScheduled"), number("/status/updatedNumberScheduled"), number("/status/numberAvailable"));
            let waiting = format!("Waiting for daemon set {name:?} rollout to finish:");
            Ok(if updated < desired {
                (format!("{waiting} {updated} out of {desired} new pods have been updated..."), false)
            } else if available < desired {
                (format!("{waiting} {available} of {desired} updated pods are available..."), false)
            } else {
                (format!("daemon set {name:?} successfully rolled out"), true)
            })
        }
        "StatefulSet" => {
            rolling()?;
            if number("/status/observedGeneration") == 0 || !observed {
                return Ok(("Waiting for statefulset spec update to be observed...".to_owned(), false));
            }
            let (replicas, ready, updated) = (number("/spec/replicas"), number("/status/readyReplicas"), number("/status/updatedReplicas"));
            let (update, current) = (text(object, "/status/updateRevision"), text(object, "/status/currentRevision"));
            if ready < replicas {
                return Ok((format!("Waiting for {} pods to be ready...", replicas - ready), false));
            }
            Ok(if object.pointer("/spec/updateStrategy/rollingUpdate").is_some_and(Value::is_object) {
                let wanted = replicas - number("/spec/updateStrategy/rollingUpdate/partition");
                if updated < wanted {
                    (format!("Waiting for partitioned roll out to finish: {updated} out of {wanted} new pods have been updated..."), false)
                } else {
                    (format!("partitioned roll out complete: {updated} new pods have been updated..."), true)
                }
            } else if update != current {
                (format!("waiting for statefulset rolling update to complete {updated} pods at revision {update}..."), false)
            } else {
                (format!("statefulset rolling update complete {} pods at revision {current}...", number("/status/currentReplicas")), true)
            })
        }
        kind => fail(format!("no status viewer has been implemented for {kind}")),
    }
}

pub async fn follow(session: &Session, args: &Args, found: &Found) -> Result<()> {
    let kind = found.resource.kind.as_str();
    let revision = args.int("revision")?;
    let (line, finished) = of(kind, &found.object, revision)?;
    output::line(line);
    if finished || !args.on("watch") {
        return Ok(());
    }
    let timeout = args.duration("timeout")?;
    let wait = until_done(session, found, revision);
    if timeout <= 0.0 {
        return wait.await;
    }
    match tokio::time::timeout(std::time::Duration::from_secs_f64(timeout), wait).await {
        Ok(outcome) => outcome,
        Err(_) => fail("timed out waiting for the condition"),
    }
}

async fn until_done(session: &Session, found: &Found, revision: i64) -> Result<()> {
    let collection = found.resource.collection(found.namespace.as_deref());
    let mut version = text(&found.object, "/metadata/resourceVersion").to_owned();
    loop {
        let query = Query::of(&collection).with("fieldSelector", &format!("metadata.name={}", found.name)).with("resourceVersion", &version);
        let mut watch = watching::open(session, query).await?;
        loop {
            let (event, object) = match watch.next().await {
                Ok(Some(event)) => event,
                // The server ends long watches: on from the last version.
                Ok(None) => break,
                Err(error) if watching::expired(&error) => {
                    let object = session.get(&found.path()).await?;
                    ("MODIFIED".to_owned(), object)
                }
                Err(error) => return Err(error),
            };
            if event == "DELETED" {
                return fail("object has been deleted");
            }
            version = text(&object, "/metadata/resourceVersion").to_owned();
            let (line, finished) = of(&found.resource.kind, &object, revision)?;
            output::line(line);
            if finished {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines() {
        let deployment = |status: Value| json!({"metadata": {"name": "w", "generation": 2, "annotations": {"deployment.kubernetes.io/revision": "3"}}, "spec": {"replicas": 10}, "status": status});
        for (status, want) in [
            (json!({"observedGeneration": 1}), "Waiting for deployment spec update to be observed..."),
            (json!({"observedGeneration": 2, "updatedReplicas": 5, "replicas": 13}), "Waiting for deployment \"w\" rollout to finish: 5 out of 10 new replicas have been updated..."),
            (json!({"observedGeneration": 2, "updatedReplicas": 10, "replicas": 12}), "Waiting for deployment \"w\" rollout to finish: 2 old replicas are pending termination..."),
            (json!({"observedGeneration": 2, "updatedReplicas": 10, "replicas": 10, "availableReplicas": 8}), "Waiting for deployment \"w\" rollout to finish: 8 of 10 updated replicas are available..."),
            (json!({"observedGeneration": 2, "updatedReplicas": 10, "replicas": 10, "availableReplicas": 10}), "deployment \"w\" successfully rolled out"),
        ] {
            assert_eq!(of("Deployment", &deployment(status), 0).unwrap().0, want);
        }
        let late = deployment(json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}));
        assert_eq!(of("Deployment", &late, 0).unwrap_err().to_string(), "deployment \"w\" exceeded its progress deadline");
        assert_eq!(of("Deployment", &late, 2).unwrap_err().to_string(), "desired revision (2) is different from the running revision (3)");
        let set = json!({"metadata": {"name": "r", "generation": 1}, "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1}});
        assert_eq!(of("DaemonSet", &set, 0).unwrap(), ("Waiting for daemon set \"r\" rollout to finish: 1 out of 2 new pods have been updated...".to_owned(), false));
    }
}
