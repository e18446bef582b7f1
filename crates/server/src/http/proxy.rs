//! Logs, exec, attach, port-forward: streams between the client and the node's agent.
//!
//! The request goes on to the agent's own HTTP server (the kubelet API); an upgrade is passed through byte for byte.

use std::convert::Infallible;
use std::sync::Arc;

use ::api::{Cause, Status};
use http::header::{CONNECTION, UPGRADE};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::answer::Answer;
use crate::api::Api;
use crate::path::{Query, ResourcePath};
use crate::registry::text;

pub async fn handle(api: Arc<Api>, target: ResourcePath, query: Query, parts: Parts, body: &mut Option<Incoming>) -> Result<Answer, Status> {
    let name = target.name.clone().unwrap_or_default();
    let subresource = target.subresource.clone().unwrap_or_default();
    match (&*target.plural, &*subresource) {
        ("pods", "log" | "exec" | "attach" | "portforward") => {
            let namespace = target.namespace.clone().unwrap_or_default();
            let row = api.serving.rows().find("", "v1", "pods").ok_or_else(Status::no_route)?;
            let pod = api.stored(&row, Some(&namespace), &name)?.value().map_err(Status::internal)?;
            let node = text(&pod, "/spec/nodeName").to_owned();
            if node.is_empty() {
                if subresource == "log" {
                    // Upstream answers an empty log for a pod that nobody has taken yet.
                    return Ok(super::answer::text(200, String::new()));
                }
                return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
            }
            let path = agent_path(&subresource, &namespace, &name, &pod, &query)?;
            forward(api, &node, &path, parts, body).await
        }
        ("nodes", "proxy") => {
            let row = api.serving.rows().find("", "v1", "nodes").ok_or_else(Status::no_route)?;
            api.stored(&row, None, &name)?;
            let rest = parts.uri.query().map(|query| format!("/{}?{query}", target.rest)).unwrap_or_else(|| format!("/{}", target.rest));
            forward(api, &name, &rest, parts, body).await
        }
        _ => Err(Status::failure(501, ::api::Reason::Unknown, format!("{}/{subresource} is not served by Coracle yet", target.plural))),
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

/// An agent that breaks off ends the body early; a log reader sees the end of the stream.
fn until_broken(body: Incoming) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    futures_util::stream::unfold(body, |mut body| async move {
        match body.frame().await? {
            Ok(frame) => Some((Ok(frame), body)),
            Err(error) => {
                tracing::debug!(%error, "the node's agent broke off");
                None
            }
        }
    })
}

/// Headers of one hop only; an upgrade's are put back by hand.
const HOP_HEADERS: [&str; 5] = ["host", "keep-alive", "te", "trailer", "authorization"];

async fn forward(api: Arc<Api>, node: &str, path: &str, parts: Parts, body: &mut Option<Incoming>) -> Result<Answer, Status> {
    let stream = api.nodes.dial(node).await?;
    let failed = |error: hyper::Error| Status::internal(format!("error dialing backend: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the node's agent ended");
        }
    });
    let Some(body) = body.take() else { return Err(Status::internal("the request's body was read before")) };
    let upgrade = parts.headers.get(UPGRADE).cloned();
    let mut request = Request::from_parts(parts, body);
    let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut outgoing = Request::builder().method(parts.method.clone()).uri(path);
    for (name, value) in &parts.headers {
        if !HOP_HEADERS.contains(&name.as_str()) {
            outgoing = outgoing.header(name, value);
        }
    }
    outgoing = outgoing.header("host", node);
    let outgoing = outgoing.body(body).map_err(Status::internal)?;
    let mut response = sender.send_request(outgoing).await.map_err(failed)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client_side) = client_side
    {
        let node_side = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            match tokio::join!(client_side, node_side) {
                (Ok(client), Ok(node)) => {
                    // Either side's end ends the session; errors say no more than that.
                    let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(node)).await;
                }
                (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "upgrade failed"),
            }
        });
    } else {
        // The connection lives as long as the body is read; the sender may go.
        response.headers_mut().remove(HeaderName::from_static("keep-alive"));
        response.headers_mut().remove(CONNECTION);
    }
    let (parts, body) = response.into_parts();
    Ok(http::Response::from_parts(parts, StreamBody::new(until_broken(body)).boxed_unsync()))
}
