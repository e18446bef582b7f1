//! `create service …`, `create ingress`.

use serde_json::{Map, Value, json};

use super::super::apply::WRITE;
use super::{labels, submit};
use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, list, text};
use crate::printers::OUTPUT;
use crate::session::Session;

const TCP: Flag = list("tcp", "Port pairs can be specified as '<port>:<targetPort>'.");
const NODE_PORT: Flag = text("node-port", "0", "Port used to expose the service on each node in a cluster.");
command!(CLUSTERIP, "clusterip", [], "NAME [--tcp=<port>:<targetPort>] [--dry-run=server|client|none] [options]", "Create a ClusterIP service", [&[TCP, text("clusterip", "", "Assign your own ClusterIP or set to 'None' for a 'headless' service (no loadbalancing).")], WRITE, OUTPUT], clusterip);
command!(NODEPORT, "nodeport", [], "NAME [--tcp=port:targetPort] [--dry-run=server|client|none] [options]", "Create a NodePort service", [&[TCP, NODE_PORT], WRITE, OUTPUT], nodeport);
command!(LOADBALANCER, "loadbalancer", [], "NAME [--tcp=port:targetPort] [--dry-run=server|client|none] [options]", "Create a LoadBalancer service", [&[TCP], WRITE, OUTPUT], loadbalancer);
command!(EXTERNALNAME, "externalname", [], "NAME --external-name external.name [--dry-run=server|client|none] [options]", "Create an ExternalName service", [&[TCP, text("external-name", "", "External name of service")], WRITE, OUTPUT], externalname);
command!(INGRESS, "ingress", ["ing"], "NAME --rule=host/path=service:port[,tls[=secret]]  [options]", "Create an ingress with the specified name", [INGRESS_FLAGS, WRITE, OUTPUT], ingress);
const INGRESS_FLAGS: &[Flag] = &[
    list("annotation", "Annotation to insert in the ingress object, in the format annotation=value"),
    text("class", "", "Ingress Class to be used"),
    text("default-backend", "", "Default service for backend, in format of svcname:port"),
    list("rule", "Rule in format host/path=service:port[,tls=secretname]."),
];

async fn clusterip(session: &Session, args: &Args) -> Result<()> {
    service(session, args, "ClusterIP").await
}
async fn nodeport(session: &Session, args: &Args) -> Result<()> {
    service(session, args, "NodePort").await
}
async fn loadbalancer(session: &Session, args: &Args) -> Result<()> {
    service(session, args, "LoadBalancer").await
}
async fn externalname(session: &Session, args: &Args) -> Result<()> {
    service(session, args, "ExternalName").await
}

/// A number, or the name of a port.
fn port_value(text: &str) -> Value {
    text.parse::<u16>().map_or_else(|_| text.into(), Into::into)
}

fn ports(args: &Args, node_port: i64) -> Result<Vec<Value>> {
    let mut ports = Vec::new();
    for pair in args.slice("tcp") {
        let (port, target) = pair.split_once(':').unwrap_or((&pair, &pair));
        let Ok(port) = port.parse::<u16>() else { return fail(format!("Invalid port: {pair}")) };
        let mut entry = json!({"name": pair.replace(':', "-"), "port": port, "protocol": "TCP", "targetPort": port_value(target)});
        if node_port > 0 {
            entry["nodePort"] = node_port.into();
        }
        ports.push(entry);
    }
    Ok(ports)
}

async fn service(session: &Session, args: &Args, kind: &str) -> Result<()> {
    let name = args.name()?;
    let headless = kind == "ClusterIP" && args.text("clusterip") == "None";
    if args.slice("tcp").is_empty() && !headless && kind != "ExternalName" {
        return fail(if kind == "ClusterIP" { "at least one tcp port specifier must be provided".to_owned() } else { "at least one tcp port specifier must be provided".to_owned() });
    }
    let node_port = if kind == "NodePort" { args.int("node-port")? } else { 0 };
    let mut spec = json!({"type": kind, "selector": labels(name)});
    let ports = ports(args, node_port)?;
    if !ports.is_empty() {
        spec["ports"] = ports.into();
    }
    if kind == "ClusterIP" {
        if let Some(address) = args.given("clusterip") {
            spec["clusterIP"] = address.into();
        }
    }
    if kind == "ExternalName" {
        let Some(external) = args.given("external-name") else { return fail("required flag(s) \"external-name\" not set") };
        spec["externalName"] = external.into();
    }
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels(name)}, "spec": spec, "status": {"loadBalancer": {}}});
    submit(session, args, "/api/v1", "services", true, "service", object).await
}

fn backend(text: &str) -> Result<Value> {
    let Some((service, port)) = text.rsplit_once(':') else { return fail(format!("error: {text} is not in the format service:port")) };
    let port = port.parse::<u16>().map_or_else(|_| json!({"name": port}), |number| json!({"number": number}));
    Ok(json!({"service": {"name": service, "port": port}}))
}

async fn ingress(session: &Session, args: &Args) -> Result<()> {
    let name = args.name()?;
    if args.list("rule").is_empty() && args.given("default-backend").is_none() {
        return fail("not enough information provided: every ingress has to either specify a default-backend (which catches all traffic) or a list of rules (which catch specific paths)");
    }
    let mut rules: Vec<(String, Vec<Value>)> = Vec::new();
    let mut tls: Vec<(String, Vec<String>)> = Vec::new();
    for rule in args.list("rule") {
        let (route, options) = rule.split_once(',').unwrap_or((rule, ""));
        let Some((place, target)) = route.split_once('=') else {
            return fail(format!("rule {rule} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"));
        };
        let Some((host, path)) = place.split_once('/') else {
            return fail(format!("rule {rule} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"));
        };
        let (path, kind) = match path.strip_suffix('*') {
            Some(path) => (path, "Prefix"),
            None => (path, "Exact"),
        };
        let entry = json!({"path": format!("/{path}"), "pathType": kind, "backend": backend(target)?});
        match rules.iter_mut().find(|(known, _)| known == host) {
            Some((_, paths)) => paths.push(entry),
            None => rules.push((host.to_owned(), vec![entry])),
        }
        if let Some(secret) = options.strip_prefix("tls") {
            let secret = secret.trim_start_matches('=');
            match tls.iter_mut().find(|(known, _)| known == secret) {
                Some((_, hosts)) if !hosts.contains(&host.to_owned()) => hosts.push(host.to_owned()),
                Some(_) => {}
                None => tls.push((secret.to_owned(), vec![host.to_owned()])),
            }
        }
    }
    let mut spec = Map::new();
    if let Some(class) = args.given("class") {
        spec.insert("ingressClassName".into(), class.into());
    }
    if let Some(default) = args.given("default-backend") {
        spec.insert("defaultBackend".into(), backend(default)?);
    }
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|(host, paths)| {
            let mut rule = json!({"http": {"paths": paths}});
            if !host.is_empty() {
                rule["host"] = host.into();
            }
            rule
        })
        .collect();
    if !rules.is_empty() {
        spec.insert("rules".into(), rules.into());
    }
    if !tls.is_empty() {
        let tls: Vec<Value> = tls.into_iter().map(|(secret, hosts)| if secret.is_empty() { json!({"hosts": hosts}) } else { json!({"hosts": hosts, "secretName": secret}) }).collect();
        spec.insert("tls".into(), tls.into());
    }
    let mut object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": spec, "status": {"loadBalancer": {}}});
    for pair in args.list("annotation") {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        object["metadata"]["annotations"][key] = value.into();
    }
    submit(session, args, "/apis/networking.k8s.io/v1", "ingresses", true, "ingress.networking.k8s.io", object).await
}
