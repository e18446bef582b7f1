//! From any object to the pods behind it: `deploy/web` → its first pod, its containers.
//!
//! Mirrors k8s.io/kubectl/pkg/polymorphichelpers (`SelectorsForObject`, `GetFirstPod`), pkg/util/podutils and pkg/cmd/util/podcmd.

use std::cmp::Reverse;

use serde_json::Value;

use super::watching;
use crate::builder::{self, Found};
use crate::error::{Error, Result, fail};
use crate::output;
use crate::session::{Query, Session};

/// Which pod is the best one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// The one most likely to have logs.
    Logging,
    /// The one most likely to answer.
    Active,
}

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

pub fn array<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// A LabelSelector, or the plain map of a Service, as a query takes it.
pub fn selector_text(selector: &Value, plain: bool) -> String {
    let pairs = |map: &Value| -> Vec<String> { map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect() };
    if plain {
        return pairs(selector).join(",");
    }
    let mut terms = pairs(&selector["matchLabels"]);
    for expression in array(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let values: Vec<&str> = array(expression, "/values").filter_map(Value::as_str).collect();
        terms.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

/// The selector of the pods that `found` stands for.
pub fn selector_of(found: &Found) -> Result<String> {
    let selector = &found.object["spec"]["selector"];
    match found.resource.kind.as_str() {
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" => Ok(selector_text(selector, false)),
        "ReplicationController" => Ok(selector_text(selector, true)),
        "Service" => match selector.as_object() {
            Some(map) if !map.is_empty() => Ok(selector_text(selector, true)),
            _ => fail(format!("invalid service '{}': Service is defined without a selector", found.name)),
        },
        kind => fail(format!("selector for *v1.{kind} not implemented")),
    }
}

fn ready_since(pod: &Value) -> Option<&str> {
    array(pod, "/status/conditions").find(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True").map(|condition| text(condition, "/lastTransitionTime"))
}

fn restarts(pod: &Value) -> i64 {
    array(pod, "/status/containerStatuses").filter_map(|status| status["restartCount"].as_i64()).max().unwrap_or(0)
}

/// Best first.
pub fn sort(pods: &mut [Value], preference: Preference) {
    pods.sort_by_key(|pod| {
        let phase = match text(pod, "/status/phase") {
            "Pending" => 2,
            "Unknown" => 1,
            _ => 0,
        };
        let ready = ready_since(pod);
        let restarts = restarts(pod);
        (
            text(pod, "/spec/nodeName").is_empty(),
            phase,
            ready.is_none(),
            ready.unwrap_or("").to_owned(),
            // Logs: a container that restarts has more to tell. Else: it is the worse choice.
            if preference == Preference::Logging { Err(Reverse(restarts)) } else { Ok(restarts) },
            text(pod, "/metadata/creationTimestamp").to_owned(),
        )
    });
}

/// The best pod of a selector, and of how many; waits until there is one.
pub async fn first(session: &Session, namespace: &str, selector: &str, timeout: f64, preference: Preference) -> Result<(Value, usize)> {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let list = session.get(&Query::of(&path).with("labelSelector", selector).end()).await?;
    let mut pods: Vec<Value> = array(&list, "/items").cloned().collect();
    if !pods.is_empty() {
        sort(&mut pods, preference);
        let count = pods.len();
        return Ok((pods.swap_remove(0), count));
    }
    let version = text(&list, "/metadata/resourceVersion");
    let wait = async {
        let mut watch = watching::open(session, Query::of(&path).with("labelSelector", selector).with("resourceVersion", version)).await?;
        while let Some((kind, object)) = watch.next().await? {
            if kind == "ADDED" || kind == "MODIFIED" {
                return Ok(object);
            }
        }
        fail("timed out waiting for the condition")
    };
    match tokio::time::timeout(std::time::Duration::from_secs_f64(timeout.max(0.0)), wait).await {
        Ok(pod) => Ok((pod?, 1)),
        Err(_) => fail("timed out waiting for the condition"),
    }
}

/// The pod that exec, attach and port-forward mean by `found`.
pub async fn attachable(session: &Session, found: &Found, timeout: f64) -> Result<Value> {
    if found.resource.kind == "Pod" {
        return Ok(found.object.clone());
    }
    let selector = selector_of(found).map_err(|error| Error::Message(format!("cannot attach to *v1.{}: {error}", found.resource.kind)))?;
    let (pod, _) = first(session, found.namespace.as_deref().unwrap_or(""), &selector, timeout, Preference::Active).await?;
    Ok(pod)
}

/// `POD` or `TYPE/NAME`, with what old lessons stumble over told.
pub async fn one(session: &Session, word: &str, command: &str) -> Result<Found> {
    match builder::one(session, word, "pods").await {
        Err(error) if error.is_not_found() => Err(hinted(session, error, word, command).await),
        other => other,
    }
}

/// Lessons from before kubectl 1.18 address the Deployment that `kubectl run` used to make.
pub async fn hinted(session: &Session, error: Error, word: &str, command: &str) -> Error {
    let Some((kind, name)) = word.split_once('/') else { return error };
    let deployment = session.resource(kind).await.is_ok_and(|resource| resource.kind == "Deployment");
    let Ok(namespace) = session.namespace() else { return error };
    if deployment && session.get(&format!("/api/v1/namespaces/{namespace}/pods/{name}")).await.is_ok() {
        return error.hint(format!("kubectl run makes a Pod since 1.18; try: kubectl {command} pod/{name}"));
    }
    error
}

/// Every container with the list it is in.
pub fn containers(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    ["containers", "ephemeralContainers", "initContainers"].into_iter().flat_map(move |list| pod["spec"][list].as_array().into_iter().flatten().map(move |container| (list, text(container, "/name"))))
}

/// As [`container`], but whether the one asked for exists is for the server to say.
pub fn container_or(pod: &Value, asked: &str, quiet: bool) -> Result<String> {
    if asked.is_empty() { container(pod, asked, quiet) } else { Ok(asked.to_owned()) }
}

/// The container a command means: the one asked for, the annotated default, or the first, which is told if there are others.
pub fn container(pod: &Value, asked: &str, quiet: bool) -> Result<String> {
    let name = text(pod, "/metadata/name");
    let mut asked = asked;
    if asked.is_empty() {
        let annotated = text(pod, "/metadata/annotations/kubectl.kubernetes.io~1default-container");
        if containers(pod).any(|(_, container)| container == annotated) {
            asked = annotated;
        } else if !annotated.is_empty() && !quiet {
            output::complain(format!("Default container name {annotated:?} not found in pod {name}"));
        }
    }
    if !asked.is_empty() {
        return if containers(pod).any(|(_, container)| container == asked) { Ok(asked.to_owned()) } else { fail(format!("container {asked} is not valid for pod {name}")) };
    }
    let Some((_, first)) = containers(pod).next() else { return fail(format!("container {asked} is not valid for pod {name}")) };
    let all: Vec<String> = containers(pod)
        .map(|(list, container)| match list {
            "initContainers" => format!("{container} (init)"),
            "ephemeralContainers" => format!("{container} (ephem)"),
            _ => container.to_owned(),
        })
        .collect();
    if all.len() > 1 && !quiet {
        output::complain(format!("Defaulted container {first:?} out of: {}", all.join(", ")));
    }
    Ok(first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors() {
        let selector = json!({"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}, {"key": "d", "operator": "DoesNotExist"}, {"key": "e", "operator": "Exists"}]});
        assert_eq!(selector_text(&selector, false), "app=x,a in (b,c),!d,e");
        assert_eq!(selector_text(&json!({"a": "b", "c": "d"}), true), "a=b,c=d");
    }

    #[test]
    fn best_pod_first() {
        let pod = |name: &str, node: &str, phase: &str, ready: &str, restarts: u32| {
            let conditions = if ready.is_empty() { json!([]) } else { json!([{"type": "Ready", "status": "True", "lastTransitionTime": ready}]) };
            json!({"metadata": {"name": name}, "spec": {"nodeName": node}, "status": {"phase": phase, "conditions": conditions, "containerStatuses": [{"restartCount": restarts}]}})
        };
        let pods = [pod("free", "", "Pending", "", 0), pod("late", "n", "Running", "2026-01-02T00:00:00Z", 0), pod("early", "n", "Running", "2026-01-01T00:00:00Z", 0), pod("sick", "n", "Running", "", 5), pod("fresh", "n", "Running", "", 0)];
        let sorted = |preference| {
            let mut pods = pods.clone();
            sort(&mut pods, preference);
            pods.iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(sorted(Preference::Active), ["early", "late", "fresh", "sick", "free"]);
        assert_eq!(sorted(Preference::Logging), ["early", "late", "sick", "fresh", "free"]);
    }

    #[test]
    fn containers_are_chosen() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, "", true).unwrap(), "a");
        assert_eq!(container(&pod, "i", true).unwrap(), "i");
        assert_eq!(container(&pod, "x", true).unwrap_err().to_string(), "container x is not valid for pod p");
        let pod = json!({"metadata": {"name": "p", "annotations": {"kubectl.kubernetes.io/default-container": "b"}}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, "", true).unwrap(), "b");
    }
}
