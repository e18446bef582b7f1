//! `kubectl expose`: a Service for what is there.

use serde_json::{Map, Value, json};

use super::apply::{DryRun, WRITE, dry_run, write_query};
use super::change::selector_of;
use crate::builder::{self, FILES, Found};
use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, text};
use crate::printers::{self, OUTPUT};
use crate::session::Session;

const FLAGS: &[Flag] = &[
    text("cluster-ip", "", "ClusterIP to be assigned to the service."),
    text("external-ip", "", "Additional external IP address (not managed by Kubernetes) to accept for the service."),
    text("labels", "", "Labels to apply to the service created by this call.").short('l'),
    text("load-balancer-ip", "", "IP to assign to the LoadBalancer."),
    text("name", "", "The name for the newly created object."),
    text("override-type", "merge", "The method used to override the generated object: json, merge, or strategic."),
    text("overrides", "", "An inline JSON override for the generated object."),
    text("port", "", "The port that the service should serve on."),
    text("protocol", "", "The network protocol for the service to be created. Default is 'TCP'."),
    text("selector", "", "A label selector to use for this service."),
    text("session-affinity", "", "If non-empty, set the session affinity for the service to this; legal values: 'None', 'ClientIP'"),
    text("target-port", "", "Name or number for the port on the container that the service should direct traffic to."),
    text("type", "", "Type for this service: ClusterIP, NodePort, LoadBalancer, or ExternalName. Default is 'ClusterIP'."),
];
command!(EXPOSE, "expose", [], "(-f FILENAME | TYPE NAME) [--port=port] [--protocol=TCP|UDP|SCTP] [--target-port=number-or-name] [--name=name] [--external-ip=external-ip-of-service] [--type=type] [options]", "Take a replication controller, service, deployment or pod and expose it as a new Kubernetes service", [FLAGS, WRITE, FILES, OUTPUT], run);

fn labels_of(text: &str) -> Result<Map<String, Value>> {
    let mut found = Map::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((key, value)) => found.insert(key.to_owned(), value.into()),
            None => return fail(format!("unexpected label spec: {part}")),
        };
    }
    Ok(found)
}

/// Port and protocol of every container port.
fn declared_ports(object: &Value) -> Vec<(i64, String)> {
    if object["kind"] == "Service" {
        return object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten().map(|port| (port["port"].as_i64().unwrap_or(0), port["protocol"].as_str().unwrap_or("TCP").to_owned())).collect();
    }
    let spec = super::change::pod_spec(object["kind"].as_str().unwrap_or(""));
    object
        .pointer(&format!("{spec}/containers"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .map(|port| (port["containerPort"].as_i64().unwrap_or(0), port["protocol"].as_str().unwrap_or("TCP").to_owned()))
        .collect()
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    for found in builder::resolve(session, args, &args.positional).await? {
        one(session, args, &found?).await?;
    }
    Ok(())
}

async fn one(session: &Session, args: &Args, found: &Found) -> Result<()> {
    let kind = found.resource.kind.as_str();
    if !matches!(kind, "Deployment" | "ReplicaSet" | "ReplicationController" | "Service" | "Pod" | "StatefulSet" | "DaemonSet") {
        return fail(format!("cannot expose a {kind}"));
    }
    let selector = match args.given("selector") {
        Some(text) => labels_of(text)?,
        None if kind == "Pod" => match found.object.pointer("/metadata/labels").and_then(Value::as_object) {
            Some(labels) if !labels.is_empty() => labels.clone(),
            _ => return fail("couldn't retrieve selectors via --selector flag or introspection: the pod has no labels and cannot be exposed"),
        },
        None => match selector_of(&found.object) {
            Some(text) => labels_of(&text)?,
            None => return fail("couldn't retrieve selectors via --selector flag or introspection: invalid deployment: no selectors, therefore cannot be exposed"),
        },
    };
    let declared = declared_ports(&found.object);
    let headless = args.text("cluster-ip") == "None";
    let ports: Vec<i64> = match args.given("port") {
        Some(text) => {
            let parsed: Result<Vec<i64>, _> = text.split(',').map(str::parse).collect();
            match parsed {
                Ok(ports) => ports,
                Err(_) => return fail(format!("strconv.Atoi: parsing {text:?}: invalid syntax")),
            }
        }
        None => declared.iter().map(|(port, _)| *port).collect(),
    };
    if ports.is_empty() && !headless {
        return fail("couldn't find port via --port flag or introspection\nSee 'kubectl expose -h' for help and examples");
    }
    let entries: Vec<Value> = ports
        .iter()
        .enumerate()
        .map(|(at, port)| {
            let protocol = args.given("protocol").map(str::to_owned).or_else(|| declared.iter().find(|(known, _)| known == port).map(|(_, protocol)| protocol.clone())).unwrap_or_else(|| "TCP".to_owned());
            let target = match args.given("target-port") {
                Some(text) => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
                None => (*port).into(),
            };
            let mut entry = json!({"port": port, "protocol": protocol, "targetPort": target});
            if ports.len() > 1 {
                entry["name"] = format!("port-{}", at + 1).into();
            }
            entry
        })
        .collect();
    let labels = match args.given("labels") {
        Some(text) => labels_of(text)?,
        None => found.object.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default(),
    };
    let name = args.given("name").unwrap_or(&found.name);
    let mut spec = json!({"selector": selector});
    if !entries.is_empty() {
        spec["ports"] = entries.into();
    }
    for (flag, field) in [("type", "type"), ("session-affinity", "sessionAffinity"), ("cluster-ip", "clusterIP"), ("load-balancer-ip", "loadBalancerIP")] {
        if let Some(value) = args.given(flag) {
            spec[field] = value.into();
        }
    }
    if let Some(address) = args.given("external-ip") {
        spec["externalIPs"] = json!([address]);
    }
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec, "status": {"loadBalancer": {}}});
    if !labels.is_empty() {
        object["metadata"]["labels"] = labels.into();
    }
    if let Some(text) = args.given("overrides") {
        patch::merge(&mut object, &crate::yaml::parse(text).map_err(crate::error::Error::Message)?);
    }
    if dry_run(args)? != DryRun::Client {
        let namespace = found.namespace.clone().unwrap_or_else(|| "default".to_owned());
        object["metadata"]["namespace"] = namespace.clone().into();
        object = session.post(&write_query(format!("/api/v1/namespaces/{namespace}/services"), args, "kubectl-expose")?, &object).await?;
    }
    printers::done(args, &object, &format!("service/{name}"), "exposed")
}
