//! RuntimeClass: a pod gets what its class costs and where it may run; a class that is not there is refused.
//!
//! Mirrors plugin/pkg/admission/runtimeclass: https://kubernetes.io/docs/concepts/containers/runtime-class/

use ::api::{Status, usage};
use serde_json::{Value, json};

use super::shown_name;
use crate::api::Api;
use crate::registry::text;

fn class(api: &Api, pod: &Value) -> Result<Option<Value>, Status> {
    let Some(name) = pod.pointer("/spec/runtimeClassName").and_then(Value::as_str) else { return Ok(None) };
    match api.store.get(&format!("/registry/runtimeclasses/{name}")) {
        Some(object) => object.value().map(Some).map_err(Status::internal),
        None => Err(refused(pod, &format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn refused(pod: &Value, why: &str) -> Status {
    Status::forbidden("", "pods", shown_name(pod), why)
}

pub fn apply(api: &Api, pod: &mut Value) -> Result<(), Status> {
    match class(api, pod)? {
        Some(class) => merge(pod, &class).map_err(|why| refused(pod, &why)),
        None => Ok(()),
    }
}

pub fn check(api: &Api, pod: &Value) -> Result<(), Status> {
    overhead(pod, class(api, pod)?.as_ref()).map_err(|why| refused(pod, &why))
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn overhead(pod: &Value, class: Option<&Value>) -> Result<(), String> {
    let given = pod.pointer("/spec/overhead").filter(|overhead| !overhead.is_null());
    match (class.filter(|class| class.get("overhead").is_some_and(Value::is_object)), given) {
        (Some(class), _) if usage::amounts(class, "overhead.podFixed") != usage::amounts(pod, "spec.overhead") => Err(MISMATCH.to_owned()),
        (None, Some(_)) => Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned()),
        _ => Ok(()),
    }
}

fn merge(pod: &mut Value, class: &Value) -> Result<(), String> {
    if let Some(fixed) = class.pointer("/overhead/podFixed") {
        let given = usage::amounts(pod, "spec.overhead");
        if !given.is_empty() && given != usage::amounts(class, "overhead.podFixed") {
            return Err(MISMATCH.to_owned());
        }
        pod["spec"]["overhead"] = fixed.clone();
    }
    for (key, wanted) in class.pointer("/scheduling/nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        if !pod["spec"].get("nodeSelector").is_some_and(Value::is_object) {
            pod["spec"]["nodeSelector"] = json!({});
        }
        let slot = &mut pod["spec"]["nodeSelector"][key.as_str()];
        if !slot.is_null() && slot != wanted {
            let (wanted, given) = (wanted.as_str().unwrap_or(""), slot.as_str().unwrap_or(""));
            return Err(format!("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {given}"));
        }
        *slot = wanted.clone();
    }
    if let Some(more) = class.pointer("/scheduling/tolerations").and_then(Value::as_array) {
        let own = pod.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        pod["spec"]["tolerations"] = merged(own.into_iter().chain(more.iter().cloned()).collect()).into();
    }
    Ok(())
}

/// `MergeTolerations`: what a wider one covers is left out.
fn merged(all: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let covered = kept.iter().any(|other| covers(other, one)) || all[index + 1..].iter().any(|other| other != one && covers(other, one));
        if !covered {
            kept.push(one.clone());
        }
    }
    kept
}

fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let equal = |toleration: &Value| matches!(text(toleration, "/operator"), "" | "Equal");
    let seconds = |toleration: &Value| toleration.get("tolerationSeconds").and_then(Value::as_i64);
    if text(wide, "/key") != text(narrow, "/key") && !(text(wide, "/key").is_empty() && text(wide, "/operator") == "Exists") {
        return false;
    }
    if text(wide, "/effect") != text(narrow, "/effect") && !text(wide, "/effect").is_empty() {
        return false;
    }
    if text(wide, "/effect") == "NoExecute"
        && let Some(most) = seconds(wide)
        && seconds(narrow).is_none_or(|narrow| narrow > most)
    {
        return false;
    }
    if equal(wide) { equal(narrow) && text(wide, "/value") == text(narrow, "/value") } else { text(wide, "/operator") == "Exists" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let class = json!({"overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": {"nodeSelector": {"a": "1"}, "tolerations": [{"key": "k", "operator": "Exists"}]}});
        let mut pod = json!({"spec": {"nodeSelector": {"b": "2"}, "tolerations": [{"key": "k", "operator": "Equal", "value": "v"}, {"key": "other", "operator": "Exists"}]}});
        merge(&mut pod, &class).unwrap();
        assert_eq!(pod["spec"], json!({"overhead": {"cpu": "250m"}, "nodeSelector": {"a": "1", "b": "2"}, "tolerations": [{"key": "other", "operator": "Exists"}, {"key": "k", "operator": "Exists"}]}));
        assert_eq!(overhead(&pod, Some(&class)), Ok(()));
        assert!(overhead(&pod, None).unwrap_err().contains("without corresponding RuntimeClass"));
        assert_eq!(overhead(&json!({"spec": {}}), Some(&class)).unwrap_err(), MISMATCH);
        let mut other = json!({"spec": {"nodeSelector": {"a": "x"}}});
        assert_eq!(merge(&mut other, &class).unwrap_err(), "conflict: runtimeClass.scheduling.nodeSelector[a] = 1; pod.spec.nodeSelector[a] = x");
        let mut other = json!({"spec": {"overhead": {"cpu": "1"}}});
        assert_eq!(merge(&mut other, &class).unwrap_err(), MISMATCH);
    }
}
