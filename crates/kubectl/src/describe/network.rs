//! Services, Endpoints, EndpointSlices, Ingresses and their classes, ServiceCIDRs, IPAddresses.

use std::collections::BTreeSet;

use api::kinds::json::{child, list, text};
use serde_json::Value;

use super::config::transitions;
use super::writer::{Writer, format_labels, has, integer, joined, line, or, shown_or};
use super::{Related, events};

/// More endpoints than this are counted, not shown.
const SHOWN_ENDPOINTS: usize = 3;

pub fn service(object: &Value, related: &Related, w: &mut Writer) {
    w.head(object);
    line!(w, 0, "Selector:\t{}", format_labels(object, "spec.selector"));
    line!(w, 0, "Type:\t{}", text(object, "spec.type"));
    given(object, &[("IP Family Policy", "spec.ipFamilyPolicy")], w);
    line!(w, 0, "IP Families:\t{}", or(&joined(object, "spec.ipFamilies", ","), "<none>"));
    line!(w, 0, "IP:\t{}", text(object, "spec.clusterIP"));
    line!(w, 0, "IPs:\t{}", or(&joined(object, "spec.clusterIPs", ","), "<none>"));
    let external = joined(object, "spec.externalIPs", ",");
    if !external.is_empty() {
        line!(w, 0, "External IPs:\t{external}");
    }
    given(object, &[("Desired LoadBalancer IP", "spec.loadBalancerIP"), ("External Name", "spec.externalName")], w);
    let ingress: Vec<String> = list(object, "status.loadBalancer.ingress").iter().map(ingress_point).collect();
    if !ingress.is_empty() {
        line!(w, 0, "LoadBalancer Ingress:\t{}", ingress.join(", "));
    }
    for port in list(object, "spec.ports") {
        let (name, protocol) = (or(text(port, "name"), "<unset>"), text(port, "protocol"));
        line!(w, 0, "Port:\t{name}\t{}/{protocol}", integer(port, "port"));
        line!(w, 0, "TargetPort:\t{}/{protocol}", shown_or(port, "targetPort", "0"));
        given(port, &[("AppProtocol", "appProtocol")], w);
        if integer(port, "nodePort") != 0 {
            line!(w, 0, "NodePort:\t{name}\t{}/{protocol}", integer(port, "nodePort"));
        }
        line!(w, 0, "Endpoints:\t{}", endpoints_of(related.endpoint_slices.iter(), text(port, "name")));
    }
    line!(w, 0, "Session Affinity:\t{}", text(object, "spec.sessionAffinity"));
    given(object, &[("External Traffic Policy", "spec.externalTrafficPolicy"), ("Internal Traffic Policy", "spec.internalTrafficPolicy")], w);
    if integer(object, "spec.healthCheckNodePort") != 0 {
        line!(w, 0, "HealthCheck NodePort:\t{}", integer(object, "spec.healthCheckNodePort"));
    }
    let ranges = joined(object, "spec.loadBalancerSourceRanges", ",");
    if !ranges.is_empty() {
        line!(w, 0, "LoadBalancer Source Ranges:\t{ranges}");
    }
    given(object, &[("Traffic Distribution", "spec.trafficDistribution")], w);
    events::events(related, w);
}

fn given(object: &Value, lines: &[(&str, &str)], w: &mut Writer) {
    for (label, path) in lines {
        if !text(object, path).is_empty() {
            line!(w, 0, "{label}:\t{}", text(object, path));
        }
    }
}

fn ingress_point(point: &Value) -> String {
    match (text(point, "ip"), text(point, "ipMode")) {
        ("", _) => text(point, "hostname").to_owned(),
        (ip, "") => ip.to_owned(),
        (ip, mode) => format!("{ip} ({mode})"),
    }
}

/// The ready endpoints behind one port of a service; slices without ports count whatever the port.
fn endpoints_of<'a>(slices: impl Iterator<Item = &'a Value>, port_name: &str) -> String {
    let mut any = false;
    let mut all: Vec<String> = Vec::new();
    for slice in slices {
        any = true;
        let ready = || list(slice, "endpoints").iter().filter(|endpoint| child(endpoint, "conditions.ready").and_then(Value::as_bool) != Some(false));
        let address = |endpoint: &Value| list(endpoint, "addresses").first().and_then(Value::as_str).unwrap_or("").to_owned();
        if list(slice, "ports").is_empty() {
            all.extend(ready().map(address));
        }
        for port in list(slice, "ports").iter().filter(|port| text(port, "name") == port_name) {
            all.extend(ready().map(|endpoint| {
                let (address, number) = (address(endpoint), integer(port, "port"));
                if address.contains(':') { format!("[{address}]:{number}") } else { format!("{address}:{number}") }
            }));
        }
    }
    if !any {
        return "<none>".to_owned();
    }
    let shown = all[..all.len().min(SHOWN_ENDPOINTS)].join(",");
    if all.len() > SHOWN_ENDPOINTS { format!("{shown} + {} more...", all.len() - SHOWN_ENDPOINTS) } else { shown }
}

pub fn endpoints(object: &Value, related: &Related, w: &mut Writer) {
    w.head(object);
    line!(w, 0, "Subsets:");
    for subset in list(object, "subsets") {
        let addresses = |field| list(subset, field).iter().map(|address| text(address, "ip")).collect::<Vec<_>>().join(",");
        line!(w, 1, "Addresses:\t{}", or(&addresses("addresses"), "<none>"));
        line!(w, 1, "NotReadyAddresses:\t{}", or(&addresses("notReadyAddresses"), "<none>"));
        let ports = list(subset, "ports");
        if !ports.is_empty() {
            line!(w, 1, "Ports:");
            line!(w, 2, "Name\tPort\tProtocol");
            line!(w, 2, "----\t----\t--------");
        }
        for port in ports {
            line!(w, 2, "{}\t{}\t{}", or(text(port, "name"), "<unset>"), integer(port, "port"), text(port, "protocol"));
        }
        w.write(0, "\n");
    }
    events::events(related, w);
}

pub fn endpoint_slice(object: &Value, related: &Related, w: &mut Writer) {
    w.head(object);
    line!(w, 0, "AddressType:\t{}", text(object, "addressType"));
    let ports = list(object, "ports");
    if ports.is_empty() {
        line!(w, 0, "Ports: <unset>");
    } else {
        line!(w, 0, "Ports:");
        line!(w, 1, "Name\tPort\tProtocol");
        line!(w, 1, "----\t----\t--------");
    }
    for port in ports {
        line!(w, 1, "{}\t{}\t{}", or(text(port, "name"), "<unset>"), shown_or(port, "port", "<unset>"), text(port, "protocol"));
    }
    let endpoints = list(object, "endpoints");
    line!(w, 0, "Endpoints:{}", if endpoints.is_empty() { " <none>" } else { "" });
    for endpoint in endpoints {
        line!(w, 1, "- Addresses:\t{}", or(&joined(endpoint, "addresses", ", "), "<none>"));
        line!(w, 2, "Conditions:");
        line!(w, 3, "Ready:\t{}", shown_or(endpoint, "conditions.ready", "<unset>"));
        line!(w, 2, "Hostname:\t{}", shown_or(endpoint, "hostname", "<unset>"));
        if let Some(target) = child(endpoint, "targetRef") {
            line!(w, 2, "TargetRef:\t{}/{}", text(target, "kind"), text(target, "name"));
        }
        line!(w, 2, "NodeName:\t{}", shown_or(endpoint, "nodeName", "<unset>"));
        line!(w, 2, "Zone:\t{}", shown_or(endpoint, "zone", "<unset>"));
    }
    events::events(related, w);
}

pub fn ingress(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    w.labels(object);
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    let addresses: BTreeSet<&str> = list(object, "status.loadBalancer.ingress").iter().map(|point| or(text(point, "ip"), text(point, "hostname"))).filter(|address| !address.is_empty()).collect();
    line!(w, 0, "Address:\t{}", addresses.into_iter().collect::<Vec<_>>().join(","));
    line!(w, 0, "Ingress Class:\t{}", shown_or(object, "spec.ingressClassName", "<none>"));
    let default = child(object, "spec.defaultBackend").map_or_else(|| "<default>".to_owned(), |given| backend(given, related));
    line!(w, 0, "Default backend:\t{default}");
    if !list(object, "spec.tls").is_empty() {
        line!(w, 0, "TLS:");
    }
    for tls in list(object, "spec.tls") {
        match text(tls, "secretName") {
            "" => line!(w, 1, "SNI routes {}", joined(tls, "hosts", ",")),
            secret => line!(w, 1, "{secret} terminates {}", joined(tls, "hosts", ",")),
        }
    }
    w.write(0, "Rules:\n  Host\tPath\tBackends\n");
    line!(w, 1, "----\t----\t--------");
    let mut any = false;
    for rule in list(object, "spec.rules").iter().filter(|rule| has(rule, "http")) {
        any = true;
        line!(w, 1, "{}\t", or(text(rule, "host"), "*"));
        for path in list(rule, "http.paths") {
            let backend = child(path, "backend").map(|given| backend(given, related)).unwrap_or_default();
            line!(w, 2, "\t{} \t{backend}", text(path, "path"));
        }
    }
    if !any {
        line!(w, 1, "*\t*\t{default}");
    }
    w.annotations(object);
    events::events(related, w);
}

fn backend(backend: &Value, related: &Related) -> String {
    if let Some(service) = child(backend, "service") {
        let name = text(service, "name");
        let (number, port_name) = (integer(service, "port.number"), text(service, "port.name"));
        let port = if number != 0 { number.to_string() } else { port_name.to_owned() };
        let Some(found) = related.services.iter().find(|found| text(found, "metadata.name") == name) else {
            return format!("{name}:{port} (<error: services {name:?} not found>)");
        };
        let matching = list(found, "spec.ports").iter().filter(|port| if number != 0 { integer(port, "port") == number } else { !port_name.is_empty() && text(port, "name") == port_name });
        let service_port = matching.last().map_or("", |port| text(port, "name"));
        let slices = related.endpoint_slices.iter().filter(|slice| api::kinds::json::entry(slice, "metadata.labels", "kubernetes.io/service-name") == Some(name));
        return format!("{name}:{port} ({})", endpoints_of(slices, service_port));
    }
    child(backend, "resource")
        .map(|resource| format!("APIGroup: {}, Kind: {}, Name: {}", shown_or(resource, "apiGroup", "<none>"), text(resource, "kind"), text(resource, "name")))
        .unwrap_or_default()
}

pub fn ingress_class(object: &Value, related: &Related, w: &mut Writer) {
    w.cluster_head(object);
    line!(w, 0, "Controller:\t{}", text(object, "spec.controller"));
    if let Some(parameters) = child(object, "spec.parameters") {
        line!(w, 0, "Parameters:");
        if has(parameters, "apiGroup") {
            line!(w, 1, "APIGroup:\t{}", text(parameters, "apiGroup"));
        }
        line!(w, 1, "Kind:\t{}", text(parameters, "kind"));
        line!(w, 1, "Name:\t{}", text(parameters, "name"));
    }
    events::events(related, w);
}

pub fn service_cidr(object: &Value, related: &Related, w: &mut Writer) {
    w.cluster_head(object);
    line!(w, 0, "CIDRs:\t{}", joined(object, "spec.cidrs", ", "));
    if !list(object, "status.conditions").is_empty() {
        line!(w, 0, "Status:");
    }
    transitions(object, w);
    events::events(related, w);
}

pub fn ip_address(object: &Value, related: &Related, w: &mut Writer) {
    w.cluster_head(object);
    if let Some(parent) = child(object, "spec.parentRef") {
        line!(w, 0, "Parent Reference:");
        for (label, field) in [("Group", "group"), ("Resource", "resource"), ("Namespace", "namespace"), ("Name", "name")] {
            line!(w, 1, "{label}:\t{}", text(parent, field));
        }
    }
    events::events(related, w);
}
