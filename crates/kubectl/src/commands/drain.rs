//! `kubectl drain`: a node without its pods, which budgets (PodDisruptionBudget) may delay.
//!
//! Mirrors k8s.io/kubectl/pkg/drain: filters, then evictions, then waiting until the pods are gone.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::apply::{DryRun, WRITE, dry_run};
use super::cordon;
use super::pods::{array, text as at};
use super::watching;
use crate::builder::{self, Found};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::printers::{OUTPUT, done};
use crate::session::{Query, Session};

const FLAGS: &[Flag] = &[
    text("chunk-size", "500", "Return large lists in chunks rather than all at once. Pass 0 to disable."),
    switch("delete-emptydir-data", "Continue even if there are pods using emptyDir (local data that will be deleted when the node is drained)."),
    switch("disable-eviction", "Force drain to use delete, even if eviction is supported. This will bypass checking PodDisruptionBudgets, use with caution."),
    switch("force", "Continue even if there are pods that do not declare a controller."),
    text("grace-period", "-1", "Period of time in seconds given to each pod to terminate gracefully. If negative, the default value specified in the pod will be used."),
    switch("ignore-daemonsets", "Ignore DaemonSet-managed pods."),
    text("pod-selector", "", "Label selector to filter pods on the node"),
    text("selector", "", "Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.").short('l'),
    text("skip-wait-for-delete-timeout", "0", "If pod DeletionTimestamp older than N seconds, skip waiting for the pod."),
    text("timeout", "0s", "The length of time to wait before giving up, zero means infinite"),
];

command!(DRAIN, "drain", [], "NODE [options]", "Drain node in preparation for maintenance", [FLAGS, WRITE, OUTPUT], run);

/// Between two tries of an eviction that a budget forbade: only the budget's controller knows when it may work.
const EVICTION_RETRY: Duration = Duration::from_secs(5);
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

/// What is to happen with a node's pods.
#[derive(Debug, Default)]
struct Plan<'a> {
    evict: Vec<&'a Value>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rules {
    force: bool,
    ignore_daemonsets: bool,
    delete_emptydir: bool,
}

fn full_name(pod: &Value) -> String {
    format!("{}/{}", at(pod, "/metadata/namespace"), at(pod, "/metadata/name"))
}

fn plan<'a>(pods: &'a [Value], rules: Rules) -> Plan<'a> {
    const DAEMON_FATAL: &str = "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)";
    const DAEMON_WARNING: &str = "ignoring DaemonSet-managed Pods";
    const LOCAL_FATAL: &str = "cannot delete Pods with local storage (use --delete-emptydir-data to override)";
    const LOCAL_WARNING: &str = "deleting Pods with local storage";
    const UNMANAGED_FATAL: &str = "cannot delete Pods that declare no controller (use --force to override)";
    const UNMANAGED_WARNING: &str = "deleting Pods that declare no controller";
    let mut told: Vec<(&str, bool, Vec<String>)> = Vec::new();
    let mut tell = |text: &'static str, fatal: bool, pod: &Value| match told.iter_mut().find(|(known, ..)| *known == text) {
        Some((_, _, names)) => names.push(full_name(pod)),
        None => told.push((text, fatal, vec![full_name(pod)])),
    };
    let mut evict = Vec::new();
    for pod in pods {
        let finished = matches!(at(pod, "/status/phase"), "Succeeded" | "Failed");
        let controller = array(pod, "/metadata/ownerReferences").find(|owner| owner["controller"] == true).map(|owner| at(owner, "/kind"));
        if pod.pointer(MIRROR).is_some() {
            continue;
        }
        let mut keep = true;
        if controller == Some("DaemonSet") && !finished {
            keep = false;
            tell(if rules.ignore_daemonsets { DAEMON_WARNING } else { DAEMON_FATAL }, !rules.ignore_daemonsets, pod);
        } else {
            if !finished && array(pod, "/spec/volumes").any(|volume| volume["emptyDir"].is_object()) {
                keep &= rules.delete_emptydir;
                tell(if rules.delete_emptydir { LOCAL_WARNING } else { LOCAL_FATAL }, !rules.delete_emptydir, pod);
            }
            if !finished && controller.is_none() {
                keep &= rules.force;
                tell(if rules.force { UNMANAGED_WARNING } else { UNMANAGED_FATAL }, !rules.force, pod);
            }
        }
        if keep {
            evict.push(pod);
        }
    }
    let lines = |fatal: bool| told.iter().filter(|(_, is_fatal, _)| *is_fatal == fatal).map(|(text, _, names)| format!("{text}: {}", names.join(", "))).collect();
    Plan { evict, warnings: lines(false), errors: lines(true) }
}

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    let (mut nodes, mut errors) = (Vec::new(), Vec::new());
    for found in cordon::nodes(session, args).await? {
        match found {
            Ok(found) => nodes.push(found),
            Err(error) => errors.push(error),
        }
    }
    builder::gather(errors)?;
    for node in &nodes {
        cordon::mark(session, args, node, true).await?;
    }
    let (mut failed, mut pending) = (Vec::new(), Vec::new());
    for node in &nodes {
        match empty(session, args, node).await {
            Ok(()) => done(args, &node.object, &node.label(), "drained")?,
            Err(error) => {
                output::complain(format!("error: unable to drain node {:?} due to error: {error}, continuing command...", node.name));
                pending.push(node.name.clone());
                failed.push(error.to_string());
            }
        }
    }
    if pending.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = pending.iter().map(|name| format!(" {name}")).collect();
    output::complain(format!("There are pending nodes to be drained:\n{}", names.join("\n")));
    output::complain(failed.iter().map(|text| format!("error: {text}")).collect::<Vec<_>>().join("\n"));
    Err(Error::Silent(1))
}

async fn empty(session: &Session, args: &Args, node: &Found) -> Result<()> {
    let query = Query::of("/api/v1/pods").with("fieldSelector", &format!("spec.nodeName={}", node.name)).with("labelSelector", args.text("pod-selector"));
    let list = session.get(&query.end()).await?;
    let pods: Vec<Value> = array(&list, "/items").cloned().collect();
    let plan = plan(&pods, Rules { force: args.on("force"), ignore_daemonsets: args.on("ignore-daemonsets"), delete_emptydir: args.on("delete-emptydir-data") });
    match &plan.errors[..] {
        [] => {}
        [one] => return fail(one.clone()),
        many => return fail(format!("[{}]", many.join(", "))),
    }
    if !plan.warnings.is_empty() {
        output::complain(format!("Warning: {}", plan.warnings.join("; ")));
    }
    let timeout = args.duration("timeout")?;
    let gone = futures_util::future::try_join_all(plan.evict.iter().map(|pod| remove(session, args, pod)));
    if timeout <= 0.0 {
        return gone.await.map(drop);
    }
    match tokio::time::timeout_at(Instant::now() + Duration::from_secs_f64(timeout), gone).await {
        Ok(outcome) => outcome.map(drop),
        Err(_) => fail(format!("global timeout reached: {}", args.text("timeout"))),
    }
}

async fn remove(session: &Session, args: &Args, pod: &Value) -> Result<()> {
    let (namespace, name, uid) = (at(pod, "/metadata/namespace"), at(pod, "/metadata/name"), at(pod, "/metadata/uid"));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let deletes = args.on("disable-eviction");
    let verb = if deletes { "deleting" } else { "evicting" };
    let mut options = serde_json::Map::new();
    if args.int("grace-period")? >= 0 {
        options.insert("gracePeriodSeconds".to_owned(), args.int("grace-period")?.into());
    }
    let dry = dry_run(args)?;
    if dry == DryRun::Client {
        return Ok(());
    }
    if dry == DryRun::Server {
        options.insert("dryRun".to_owned(), json!(["All"]));
    }
    if at(pod, "/metadata/deletionTimestamp").is_empty() {
        loop {
            output::complain(format!("{verb} pod {namespace}/{name}"));
            let outcome = match deletes {
                true => session.delete(&path, &Value::Object(options.clone())).await,
                false => {
                    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}, "deleteOptions": options});
                    session.post(&format!("{path}/eviction"), &body).await
                }
            };
            match outcome {
                Ok(_) => break,
                Err(error) if error.is_not_found() => break,
                Err(error) if error.status().is_some_and(|status| status.code == 429) => {
                    output::complain(format!("error when evicting pods/{name:?} -n {namespace:?} (will retry after 5s): {error}"));
                    sleep(EVICTION_RETRY).await;
                }
                Err(error) => return fail(format!("error when {verb} pods/{name:?} -n {namespace:?}: {error}")),
            }
        }
    }
    if dry == DryRun::None {
        ended(session, &path, namespace, name, uid).await?;
    }
    output::line(format!("pod/{name} {}", if deletes { "deleted" } else { "evicted" }));
    Ok(())
}

/// Until this very pod, not one of the same name, is gone.
async fn ended(session: &Session, path: &str, namespace: &str, name: &str, uid: &str) -> Result<()> {
    loop {
        let pod = match session.get(path).await {
            Ok(pod) => pod,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        if at(&pod, "/metadata/uid") != uid {
            return Ok(());
        }
        let query = Query::of(format!("/api/v1/namespaces/{namespace}/pods")).with("fieldSelector", &format!("metadata.name={name}")).with("resourceVersion", at(&pod, "/metadata/resourceVersion"));
        let mut watch = watching::open(session, query).await?;
        loop {
            match watch.next().await {
                Ok(Some((kind, object))) if kind == "DELETED" && at(&object, "/metadata/uid") == uid => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if watching::expired(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays() {
        let pods = [
            json!({"metadata": {"namespace": "a", "name": "daemon", "ownerReferences": [{"controller": true, "kind": "DaemonSet"}]}}),
            json!({"metadata": {"namespace": "a", "name": "bare"}}),
            json!({"metadata": {"namespace": "a", "name": "done"}, "status": {"phase": "Succeeded"}}),
            json!({"metadata": {"namespace": "a", "name": "static", "annotations": {"kubernetes.io/config.mirror": "x"}}}),
            json!({"metadata": {"namespace": "a", "name": "data", "ownerReferences": [{"controller": true, "kind": "ReplicaSet"}]}, "spec": {"volumes": [{"emptyDir": {}}]}}),
        ];
        let strict = plan(&pods, Rules::default());
        assert_eq!(
            strict.errors,
            [
                "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): a/daemon",
                "cannot delete Pods that declare no controller (use --force to override): a/bare",
                "cannot delete Pods with local storage (use --delete-emptydir-data to override): a/data",
            ]
        );
        let free = plan(&pods, Rules { force: true, ignore_daemonsets: true, delete_emptydir: true });
        assert!(free.errors.is_empty());
        assert_eq!(free.evict.iter().map(|pod| full_name(pod)).collect::<Vec<_>>(), ["a/bare", "a/done", "a/data"]);
    }
}
