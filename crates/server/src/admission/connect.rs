//! CONNECT: exec, attach, port-forward and proxy are asked about before anything is connected.
//!
//! The object is the subresource's options (PodExecOptions, NodeProxyOptions …) as the query gives them. Mirrors endpoints/handlers/rest.go `ConnectResource`.

use std::sync::Arc;

use ::api::{Resource, Status};
use serde_json::{Value, json};

use super::{Asked, Operation, admit, asks};
use crate::api::{Api, Context};
use crate::authentication::User;
use crate::path::{Query, ResourcePath};

pub async fn connect(api: &Api, row: &Resource, target: &ResourcePath, query: &Query, user: &Arc<User>) -> Result<Vec<String>, Status> {
    let subresource = target.subresource.as_deref().unwrap_or_default();
    let cx = Context::of(user.clone());
    if subresource == "log" || !asks(api, row, &cx) {
        return Ok(Vec::new());
    }
    let asked = Asked::new(Operation::Connect, row, subresource, target.namespace.as_deref(), target.name.as_deref().unwrap_or_default(), &cx);
    let (group, version, kind) = asked.kind(row);
    let mut options = options(subresource, target, query);
    options["kind"] = kind.into();
    options["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
    admit(api, &asked, &mut options, None).await?;
    Ok(cx.take_warnings())
}

fn options(subresource: &str, target: &ResourcePath, query: &Query) -> Value {
    match subresource {
        "exec" | "attach" => {
            let mut options = json!({});
            for name in ["stdin", "stdout", "stderr", "tty"] {
                if query.flag(name) {
                    options[name] = true.into();
                }
            }
            if let Some(container) = query.get("container") {
                options["container"] = container.into();
            }
            if subresource == "exec" {
                options["command"] = query.all("command").collect::<Vec<_>>().into();
            }
            options
        }
        "portforward" => {
            let ports: Vec<u16> = query.all("ports").flat_map(|ports| ports.split(',')).filter_map(|port| port.parse().ok()).collect();
            if ports.is_empty() { json!({}) } else { json!({"ports": ports}) }
        }
        _ => json!({"path": format!("/{}", target.rest)}),
    }
}
