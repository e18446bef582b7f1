//! NetworkPolicies.

use api::kinds::json::{child, list, text};
use serde_json::Value;

use super::Related;
use super::writer::{Writer, format_selector, has, integer, joined, line, or, shown_or, zoned};

const INDENT: &str = "    ";

pub fn network_policy(object: &Value, _: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    let created = zoned(w.now, text(object, "metadata.creationTimestamp")).map_or_else(|| "<nil>".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string());
    line!(w, 0, "Created on:\t{created}");
    w.labels(object);
    w.annotations(object);
    line!(w, 0, "Spec:");
    w.write(1, "PodSelector: ");
    match format_selector(object, "spec.podSelector").as_str() {
        "<none>" => line!(w, 2, "<none> (Allowing the specific traffic to all pods in this namespace)"),
        selector => line!(w, 2, "{selector}"),
    }
    let types = list(object, "spec.policyTypes");
    for (kind, way, field) in [("Ingress", Way { port: "To Port", peer: "From", end: "source", word: "ingress" }, "from"), ("Egress", Way { port: "To Port", peer: "To", end: "destination", word: "egress" }, "to")] {
        if types.iter().any(|given| given == kind) {
            line!(w, 1, "Allowing {} traffic:", way.word);
            rules(list(object, &format!("spec.{}", way.word)), &way, field, w);
        } else {
            line!(w, 1, "Not affecting {} traffic", way.word);
        }
    }
    line!(w, 1, "Policy Types: {}", or(&joined(object, "spec.policyTypes", ", "), "<none>"));
}

struct Way {
    port: &'static str,
    peer: &'static str,
    end: &'static str,
    word: &'static str,
}

fn rules(rules: &[Value], way: &Way, field: &str, w: &mut Writer) {
    if rules.is_empty() {
        line!(w, 0, "{INDENT}<none> (Selected pods are isolated for {} connectivity)", way.word);
    }
    for (at, rule) in rules.iter().enumerate() {
        let ports = list(rule, "ports");
        if ports.is_empty() {
            line!(w, 0, "{INDENT}{}: <any> (traffic allowed to all ports)", way.port);
        }
        for port in ports {
            let (number, protocol) = (shown_or(port, "port", "<nil>"), or(text(port, "protocol"), "TCP"));
            match integer(port, "endPort") {
                0 => line!(w, 0, "{INDENT}{}: {number}/{protocol}", way.port),
                end => line!(w, 0, "{INDENT}{} Range: {number}-{end}/{protocol}", way.port),
            }
        }
        let peers = list(rule, field);
        if peers.is_empty() {
            line!(w, 0, "{INDENT}{}: <any> (traffic not restricted by {})", way.peer, way.end);
        }
        for given in peers {
            line!(w, 0, "{INDENT}{}:", way.peer);
            peer(given, w);
        }
        if at + 1 < rules.len() {
            line!(w, 0, "{INDENT}----------");
        }
    }
}

fn peer(peer: &Value, w: &mut Writer) {
    for (label, field) in [("NamespaceSelector", "namespaceSelector"), ("PodSelector", "podSelector")] {
        if has(peer, field) {
            line!(w, 1, "{INDENT}{label}: {}", format_selector(peer, field));
        }
    }
    if let (Some(block), false) = (child(peer, "ipBlock"), has(peer, "podSelector") || has(peer, "namespaceSelector")) {
        line!(w, 1, "{INDENT}IPBlock:");
        line!(w, 2, "{INDENT}CIDR: {}", text(block, "cidr"));
        line!(w, 2, "{INDENT}Except: {}", joined(block, "except", ", "));
    }
}
