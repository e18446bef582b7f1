//! The revisions of a workload: ReplicaSets of a Deployment, ControllerRevisions of the others.
//!
//! Mirrors polymorphichelpers/history.go.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::builder::Found;
use crate::commands::pods::{array, selector_of, text};
use crate::error::{Result, fail};
use crate::session::{Query, Session};
use crate::tabwriter::DESCRIBE;

const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";
const CAUSE: &str = "/metadata/annotations/kubernetes.io~1change-cause";

pub struct Revision {
    pub number: i64,
    pub cause: String,
    pub template: Value,
    /// The ReplicaSet or ControllerRevision.
    pub object: Value,
}

/// Oldest first.
pub async fn of(session: &Session, found: &Found) -> Result<Vec<Revision>> {
    let (path, deployment) = match found.resource.kind.as_str() {
        "Deployment" => ("replicasets", true),
        "DaemonSet" | "StatefulSet" => ("controllerrevisions", false),
        kind => return fail(format!("no history viewer has been implemented for {:?}", format!("{kind}.{}", found.resource.group))),
    };
    let namespace = found.namespace.as_deref().unwrap_or("");
    let query = Query::of(format!("/apis/apps/v1/namespaces/{namespace}/{path}")).with("labelSelector", &selector_of(found)?);
    let list = session.get(&query.end()).await?;
    let uid = text(&found.object, "/metadata/uid");
    let mut revisions: Vec<Revision> = array(&list, "/items")
        .filter(|item| array(item, "/metadata/ownerReferences").any(|owner| owner["controller"] == true && text(owner, "/uid") == uid))
        .filter_map(|item| {
            let (number, template) = if deployment {
                (text(item, REVISION).parse().ok()?, item["spec"]["template"].clone())
            } else {
                let mut template = item["data"]["spec"]["template"].clone();
                template.as_object_mut()?.remove("$patch");
                (item["revision"].as_i64()?, template)
            };
            Some(Revision { number, cause: text(item, CAUSE).to_owned(), template, object: item.clone() })
        })
        .collect();
    revisions.sort_by_key(|revision| revision.number);
    Ok(revisions)
}

pub fn table(revisions: &[Revision]) -> String {
    let mut rows = "REVISION\tCHANGE-CAUSE\n".to_owned();
    for revision in revisions {
        let cause = if revision.cause.is_empty() { "<none>" } else { &revision.cause };
        rows.push_str(&format!("{}\t{cause}\n", revision.number));
    }
    DESCRIBE.format(&rows)
}

/// A pod template as `describe` shows one.
pub fn template(template: &Value) -> String {
    let mut out = "Pod Template:\n".to_owned();
    let map = |out: &mut String, name: &str, map: &Value| {
        let pairs: Vec<String> = map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect();
        let _ = writeln!(out, "  {name}:\t{}", if pairs.is_empty() { "<none>".to_owned() } else { pairs.join("\n\t") });
    };
    map(&mut out, "Labels", &template["metadata"]["labels"]);
    if !template["metadata"]["annotations"].is_null() {
        map(&mut out, "Annotations", &template["metadata"]["annotations"]);
    }
    let spec = &template["spec"];
    if !text(spec, "/serviceAccountName").is_empty() {
        let _ = writeln!(out, "  Service Account:\t{}", text(spec, "/serviceAccountName"));
    }
    for (name, list) in [("Init Containers", "/initContainers"), ("Containers", "/containers")] {
        if spec.pointer(list).is_some_and(|list| list.as_array().is_some_and(|list| !list.is_empty())) {
            let _ = writeln!(out, "  {name}:");
            array(spec, list).for_each(|one| container(&mut out, one));
        }
    }
    let volumes: Vec<&str> = array(spec, "/volumes").map(|volume| text(volume, "/name")).collect();
    if volumes.is_empty() {
        out.push_str("  Volumes:\t<none>\n");
    } else {
        out.push_str("  Volumes:\n");
        for volume in array(spec, "/volumes") {
            let source = volume.as_object().into_iter().flatten().find(|(key, _)| *key != "name");
            let _ = writeln!(out, "   {}:\n    Type:\t{}", text(volume, "/name"), source.map_or("<none>", |(key, _)| key));
        }
    }
    map(&mut out, "Node-Selectors", &spec["nodeSelector"]);
    let tolerations: Vec<String> = array(spec, "/tolerations").map(toleration).collect();
    let _ = writeln!(out, "  Tolerations:\t{}", if tolerations.is_empty() { "<none>".to_owned() } else { tolerations.join("\n\t") });
    out
}

fn toleration(toleration: &Value) -> String {
    let mut said = text(toleration, "/key").to_owned();
    if !text(toleration, "/value").is_empty() {
        let _ = write!(said, "={}", text(toleration, "/value"));
    }
    if !text(toleration, "/effect").is_empty() {
        let _ = write!(said, ":{}", text(toleration, "/effect"));
    }
    if text(toleration, "/operator") == "Exists" {
        said.push_str(" op=Exists");
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        let _ = write!(said, " for {seconds}s");
    }
    said
}

fn container(out: &mut String, container: &Value) {
    let _ = writeln!(out, "   {}:\n    Image:\t{}", text(container, "/name"), text(container, "/image"));
    let ports = |key: &str| -> String {
        let ports: Vec<String> = array(container, "/ports").map(|port| format!("{}/{}", port[key].as_i64().unwrap_or(0), Some(text(port, "/protocol")).filter(|protocol| !protocol.is_empty()).unwrap_or("TCP"))).collect();
        if ports.is_empty() { "<none>".to_owned() } else { ports.join(", ") }
    };
    let plural = if array(container, "/ports").count() > 1 { "s" } else { "" };
    let _ = writeln!(out, "    Port{plural}:\t{}\n    Host Port{plural}:\t{}", ports("containerPort"), ports("hostPort"));
    for (name, list) in [("Command", "/command"), ("Args", "/args")] {
        if array(container, list).next().is_some() {
            let _ = writeln!(out, "    {name}:");
            array(container, list).for_each(|word| drop(writeln!(out, "      {}", word.as_str().unwrap_or(""))));
        }
    }
    for (name, key) in [("Limits", "limits"), ("Requests", "requests")] {
        let amounts = container["resources"][key].as_object();
        if amounts.is_some_and(|amounts| !amounts.is_empty()) {
            let _ = writeln!(out, "    {name}:");
            amounts.into_iter().flatten().for_each(|(resource, amount)| drop(writeln!(out, "      {resource}:\t{}", amount.as_str().unwrap_or(""))));
        }
    }
    let none = json!([]);
    let environment = container.get("env").unwrap_or(&none);
    if array(environment, "").next().is_none() {
        out.push_str("    Environment:\t<none>\n");
    } else {
        out.push_str("    Environment:\n");
        for variable in array(environment, "") {
            let _ = writeln!(out, "      {}:\t{}", text(variable, "/name"), if variable["valueFrom"].is_object() { "<set from a source>" } else { text(variable, "/value") });
        }
    }
    if array(container, "/volumeMounts").next().is_none() {
        out.push_str("    Mounts:\t<none>\n");
    } else {
        out.push_str("    Mounts:\n");
        for mount in array(container, "/volumeMounts") {
            let _ = writeln!(out, "      {} from {} ({})", text(mount, "/mountPath"), text(mount, "/name"), if mount["readOnly"] == true { "ro" } else { "rw" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let revision = |number, cause: &str| Revision { number, cause: cause.to_owned(), template: Value::Null, object: Value::Null };
        assert_eq!(table(&[revision(2, ""), revision(13, "kubectl set image")]), "REVISION  CHANGE-CAUSE\n2         <none>\n13        kubectl set image\n");
    }

    #[test]
    fn templates() {
        let one = json!({"metadata": {"labels": {"app": "web", "pod-template-hash": "7995b8d97d"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx"}]}});
        assert_eq!(
            template(&one),
            "Pod Template:\n  Labels:\tapp=web\n\tpod-template-hash=7995b8d97d\n  Containers:\n   nginx:\n    Image:\tnginx\n    Port:\t<none>\n    Host Port:\t<none>\n    Environment:\t<none>\n    Mounts:\t<none>\n  Volumes:\t<none>\n  Node-Selectors:\t<none>\n  Tolerations:\t<none>\n"
        );
    }
}
