//! Logs, exec, attach, port-forward: streams between the client and the node's agent.
//!
//! The request goes on to the agent's own HTTP server (the kubelet API), which speaks all the protocols there are; an upgrade is passed through byte for byte.
//! Mirrors pkg/registry/core/pod/rest.

use std::sync::Arc;

use ::api::{Cause, Status};
use http::Method;
use http::request::Parts;
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::answer::{self, Answer};
use super::backend;
use super::relay::{self, Onward};
use crate::api::Api;
use crate::authentication::User;
use crate::authorization::{self, Attributes};
use crate::path::{Query, ResourcePath};
use crate::registry::text;

pub async fn handle(api: Arc<Api>, user: &User, target: ResourcePath, query: Query, parts: Parts, body: &mut Option<Incoming>) -> Result<Answer, Status> {
    let name = target.name.clone().unwrap_or_default();
    let subresource = target.subresource.clone().unwrap_or_default();
    match (&*target.plural, &*subresource) {
        ("pods", "log" | "exec" | "attach" | "portforward") => {
            let streams = subresource != "log";
            match parts.method {
                Method::GET => {}
                Method::HEAD if !streams => {}
                Method::POST if streams => {}
                _ => return Err(answer::method_not_allowed()),
            }
            let namespace = target.namespace.clone().unwrap_or_default();
            if streams && parts.method == Method::GET {
                // A browser cannot POST; but to read a pod is not to run something in it.
                let asked = Attributes { verb: "create".into(), version: "v1".into(), resource: target.plural.clone(), subresource: subresource.clone(), namespace: namespace.clone(), name: name.clone(), ..Attributes::default() };
                authorization::require(&api, user, &asked).await?;
            }
            let row = api.serving.rows().find("", "v1", "pods").ok_or_else(Status::no_route)?;
            let pod = api.stored(&row, Some(&namespace), &name)?.value().map_err(Status::internal)?;
            let path = agent_path(&subresource, &namespace, &name, &pod, &query)?;
            let node = text(&pod, "/spec/nodeName").to_owned();
            if node.is_empty() {
                if !streams {
                    // Upstream answers an empty log for a pod that nobody has taken yet.
                    return Ok(answer::text(200, String::new()));
                }
                return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
            }
            if streams && !relay::is_upgrade(&parts.headers) {
                return Err(Status::bad_request("Upgrade request required"));
            }
            let stream = api.nodes.dial(&node).await?;
            relay::relay(stream, Onward { uri: path, host: node, prefix: None }, parts, body).await
        }
        ("pods" | "services" | "nodes", "proxy") => backend::proxy(api, target, parts, body).await,
        _ => Err(Status::no_route()),
    }
}

fn containers(pod: &Value) -> Vec<&str> {
    ["containers", "initContainers", "ephemeralContainers"].iter().flat_map(|list| pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array).into_iter().flatten()).map(|container| text(container, "/name")).collect()
}

/// The kubelet's path for what was asked of the API server.
fn agent_path(subresource: &str, namespace: &str, name: &str, pod: &Value, query: &Query) -> Result<String, Status> {
    let encode = |value: &str| utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
    if subresource == "portforward" {
        let ports: Vec<String> = query.all("ports").into_iter().map(|ports| format!("port={}", encode(ports))).collect();
        return Ok(format!("/portForward/{namespace}/{name}?{}", ports.join("&")));
    }
    let known = containers(pod);
    let container = match query.get("container").filter(|container| !container.is_empty()) {
        Some(given) if known.contains(&given) => given.to_owned(),
        Some(given) => return Err(Status::bad_request(format!("container {given} is not valid for pod {name}"))),
        None => {
            let main: Vec<&str> = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten().map(|container| text(container, "/name")).collect();
            match main.as_slice() {
                [only] => (*only).to_owned(),
                many => return Err(Status::bad_request(format!("a container name must be specified for pod {name}, choose one of: [{}]{}", many.join(" "), init_note(pod)))),
            }
        }
    };
    let mut path = match subresource {
        "log" => format!("/containerLogs/{namespace}/{name}/{container}?"),
        other => format!("/{other}/{namespace}/{name}/{container}?"),
    };
    if subresource == "log" {
        check_log_options(name, query)?;
        for option in ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"] {
            if let Some(value) = query.get(option) {
                path.push_str(&format!("{option}={}&", encode(value)));
            }
        }
    } else {
        for command in query.all("command") {
            path.push_str(&format!("command={}&", encode(command)));
        }
        for (given, wanted) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
            if query.flag(given) {
                path.push_str(&format!("{wanted}=1&"));
            }
        }
    }
    path.pop();
    Ok(path)
}

fn init_note(pod: &Value) -> String {
    let names: Vec<&str> = pod.pointer("/spec/initContainers").and_then(Value::as_array).into_iter().flatten().map(|container| text(container, "/name")).collect();
    if names.is_empty() { String::new() } else { format!(" or one of the init containers: [{}]", names.join(" ")) }
}

fn check_log_options(name: &str, query: &Query) -> Result<(), Status> {
    let invalid = |field: &str, message: String| Status::invalid("", "PodLogOptions", name, vec![Cause { reason: "FieldValueInvalid".into(), message, field: field.into() }]);
    for (field, least) in [("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1)] {
        if let Some(given) = query.get(field) {
            match given.parse::<i64>() {
                Ok(value) if value >= least => {}
                Ok(value) => return Err(invalid(field, format!("Invalid value: {value}: must be greater than {}", if least == 0 { "or equal to 0" } else { "0" }))),
                Err(_) => return Err(Status::bad_request(format!("strconv.ParseInt: parsing {given:?}: invalid syntax"))),
            }
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        return Err(Status::invalid("", "PodLogOptions", name, vec![Cause { reason: "FieldValueForbidden".into(), message: "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".into(), field: "sinceSeconds".into() }]));
    }
    Ok(())
}
