//! Ingresses, IngressClasses, NetworkPolicies, IPAddresses, ServiceCIDRs. Mirrors pkg/apis/networking.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::container::{PROTOCOLS, port_number_or_name};
use super::json::{child, child_mut, default, empty, entry, list, list_mut, number, set, strings, text, default_unset};
use super::policy::{BUILT_IN, CHANGE, Generation, NEITHER, Policy};
use super::service::cidr;
use crate::names;
use crate::internal;
use crate::validation::{Errors, IMMUTABLE, Path};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const CONTROLLER_MAX: usize = 250;
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];

pub static INGRESS: Policy = Policy {
    generation: Generation::Spec,
    status: true,
    defaults: |object| default(object, "status", json!({"loadBalancer": {}})),
    on_create: |object, _| set(object, "status", json!({"loadBalancer": {}})),
    check: check_ingress,
    check_create: |errors, object| {
        let (annotation, class) = (entry(object, "metadata.annotations", CLASS_ANNOTATION), child(object, "spec.ingressClassName").and_then(Value::as_str));
        if let (Some(annotation), Some(class)) = (annotation, class)
            && annotation != class
        {
            errors.invalid(&Path::Root("annotations").child(CLASS_ANNOTATION), annotation, "must match `ingressClassName` when both are specified");
        }
    },
    check_status: |errors, new, _| {
        let path = Path::Root("status.loadBalancer.ingress");
        for (index, ingress) in list(new, "status.loadBalancer.ingress").iter().enumerate() {
            let path = path.index(index);
            let (ip, hostname) = (text(ingress, "ip"), text(ingress, "hostname"));
            if !ip.is_empty() {
                super::pod_spec::ip(errors, &path.child("ip"), ip);
            }
            if !hostname.is_empty() {
                errors.name(&path.child("hostname"), hostname, names::dns_subdomain);
                if names::sloppy_ip(hostname) {
                    errors.invalid(&path.child("hostname"), hostname, "must be a DNS name, not an IP address");
                }
            }
        }
    },
    ..BUILT_IN
};

fn host(errors: &mut Errors, path: &Path, host: &str) {
    errors.name(path, host, if host.contains('*') { names::wildcard_dns_subdomain } else { names::dns_subdomain });
}

fn check_ingress(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let rules = list(object, "spec.rules");
    let backend_value = child(object, "spec.defaultBackend");
    if rules.is_empty() && backend_value.is_none() {
        errors.invalid(&path, &Value::Null, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(value) = backend_value {
        backend(errors, &path.child("defaultBackend"), value);
    }
    let rules_path = path.child("rules");
    for (index, rule) in rules.iter().enumerate() {
        let path = rules_path.index(index);
        let name = text(rule, "host");
        if !name.is_empty() {
            if names::sloppy_ip(name) {
                errors.invalid(&path.child("host"), name, "must be a DNS name, not an IP address");
            }
            host(errors, &path.child("host"), name);
        }
        let Some(http) = child(rule, "http") else { continue };
        let paths = list(http, "paths");
        let list_path = path.child("http.paths");
        if paths.is_empty() {
            errors.required(&list_path, "");
        }
        for (at, item) in paths.iter().enumerate() {
            http_path(errors, &list_path.index(at), item);
        }
    }
    let tls_path = path.child("tls");
    for (index, tls) in list(object, "spec.tls").iter().enumerate() {
        let path = tls_path.index(index);
        let hosts = path.child("hosts");
        for (at, name) in strings(tls, "hosts").enumerate() {
            host(errors, &hosts.index(at), name);
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            errors.name(&path.child("secretName"), secret, names::dns_subdomain);
        }
    }
    if let Some(class) = child(object, "spec.ingressClassName").and_then(Value::as_str) {
        errors.name(&path.child("ingressClassName"), class, names::dns_subdomain);
    }
}

fn http_path(errors: &mut Errors, path: &Path, item: &Value) {
    let value = text(item, "path");
    let field = path.child("path");
    match child(item, "pathType").and_then(Value::as_str) {
        None => return errors.required(&path.child("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            if !value.starts_with('/') {
                errors.invalid(&field, value, "must be an absolute path");
            }
            for part in BAD_PARTS.iter().filter(|part| value.contains(**part)) {
                errors.invalid(&field, value, &format!("must not contain '{part}'"));
            }
            for end in BAD_ENDS.iter().filter(|end| value.ends_with(**end)) {
                errors.invalid(&field, value, &format!("cannot end with '{end}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.invalid(&field, value, "must be an absolute path");
            }
        }
        Some(other) => errors.not_supported(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(errors, &path.child("backend"), child(item, "backend").unwrap_or(&Value::Null));
}

fn backend(errors: &mut Errors, path: &Path, backend: &Value) {
    match (child(backend, "resource"), child(backend, "service")) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (Some(resource), None) => object_reference(errors, &path.child("resource"), resource),
        (None, Some(service)) => {
            match text(service, "name") {
                "" => errors.required(&path.child("service.name"), ""),
                name => errors.name(&path.child("service.name"), name, names::dns_label),
            }
            match (text(service, "port.name"), number(service, "port.number").unwrap_or(0)) {
                ("", 0) => errors.required(path, "port name or number is required"),
                ("", port) => errors.invalid_each(&path.child("service.port.number"), &port, names::port_number(port)),
                (name, 0) => errors.name(&path.child("service.port.name"), name, names::port_name),
                _ => errors.invalid(path, "", "cannot set both port name & port number"),
            }
        }
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
    }
}

/// A group, kind and name.
fn object_reference(errors: &mut Errors, path: &Path, reference: &Value) {
    if let Some(group) = child(reference, "apiGroup").and_then(Value::as_str) {
        errors.name(&path.child("apiGroup"), group, names::dns_subdomain);
    }
    for name in ["kind", "name"] {
        match text(reference, name) {
            "" => errors.required(&path.child(name), ""),
            value => errors.name(&path.child(name), value, names::path_segment),
        }
    }
}

/// `acme.io/foo`.
pub fn domain_prefixed_path(errors: &mut Errors, path: &Path, value: &str) {
    if value.is_empty() {
        return errors.required(path, "");
    }
    match value.split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            errors.name(path, host, names::dns_subdomain);
            if !rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
                errors.invalid(path, rest, &names::regex_error("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[]));
            }
        }
        _ => errors.invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

pub static INGRESS_CLASS: Policy = Policy {
    generation: Generation::Spec,
    defaults: |object| {
        if let Some(parameters) = child_mut(object, "spec.parameters") {
            default_unset(parameters, "scope", "Cluster");
        }
    },
    check_create: check_class,
    check_update: |errors, new, old| {
        internal::immutable(errors, &Path::Root("spec"), "networking.v1.IngressClassSpec", "controller", child(new, "spec"), child(old, "spec"));
        check_class(errors, new);
    },
    ..BUILT_IN
};

fn check_class(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let controller = text(object, "spec.controller");
    if controller.len() > CONTROLLER_MAX {
        errors.too_long(&path.child("controller"), CONTROLLER_MAX);
    }
    domain_prefixed_path(errors, &path.child("controller"), controller);
    let Some(parameters) = child(object, "spec.parameters") else { return };
    let path = path.child("parameters");
    object_reference(errors, &path, parameters);
    let namespace = child(parameters, "namespace").and_then(Value::as_str);
    match (text(parameters, "scope"), namespace) {
        ("Namespace", None) => errors.required(&path.child("namespace"), "`parameters.scope` is set to 'Namespace'"),
        ("Namespace", Some(namespace)) => errors.name(&path.child("namespace"), namespace, names::dns_label),
        ("Cluster", Some(_)) => errors.forbidden(&path.child("namespace"), "`parameters.scope` is set to 'Cluster'"),
        ("Cluster", None) => {}
        (other, _) => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

pub static NETWORK_POLICY: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::Spec,
    defaults: |object| {
        for (rules, _) in [("spec.ingress", "from"), ("spec.egress", "to")] {
            for rule in list_mut(object, rules) {
                for port in list_mut(rule, "ports") {
                    default_unset(port, "protocol", "TCP");
                }
            }
        }
        let egress = !list(object, "spec.egress").is_empty();
        if let Some(spec) = child_mut(object, "spec") {
            default(spec, "podSelector", empty());
            if list(spec, "policyTypes").is_empty() {
                set(spec, "policyTypes", if egress { vec!["Ingress", "Egress"] } else { vec!["Ingress"] });
            }
        }
    },
    check: |errors, object| {
        let path = Path::Root("spec");
        errors.label_selector(&path.child("podSelector"), child(object, "spec.podSelector"));
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            let list_path = path.child(rules);
            for (index, rule) in child(object, "spec").map_or(&[][..], |spec| list(spec, rules)).iter().enumerate() {
                let path = list_path.index(index);
                let ports = path.child("ports");
                for (at, port) in list(rule, "ports").iter().enumerate() {
                    policy_port(errors, &ports.index(at), port);
                }
                let peers_path = path.child(peers);
                for (at, peer) in list(rule, peers).iter().enumerate() {
                    policy_peer(errors, &peers_path.index(at), peer);
                }
            }
        }
        let types = list(object, "spec.policyTypes");
        let types_path = path.child("policyTypes");
        if types.len() > 2 {
            errors.invalid(&types_path, &Value::Array(types.to_vec()), "may not specify more than two policyTypes");
        } else {
            for (index, kind) in strings(object, "spec.policyTypes").enumerate().filter(|(_, kind)| !matches!(*kind, "Ingress" | "Egress")) {
                errors.not_supported(&types_path.index(index), kind, &["Ingress", "Egress"]);
            }
        }
    },
    ..BUILT_IN
};

fn policy_port(errors: &mut Errors, path: &Path, port: &Value) {
    let protocol = text(port, "protocol");
    if child(port, "protocol").is_some() && !PROTOCOLS.contains(&protocol) {
        errors.not_supported(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let (value, end) = (child(port, "port"), number(port, "endPort"));
    if value.is_some() {
        port_number_or_name(errors, &path.child("port"), value);
    }
    let end_path = path.child("endPort");
    match (value, end) {
        (Some(Value::String(_)), Some(end)) => errors.invalid(&end_path, &end, "may not be specified when `port` is non-numeric"),
        (Some(start), Some(end)) => {
            let start = start.as_i64().unwrap_or(0);
            if end < start {
                errors.invalid(&end_path, &start, "must be greater than or equal to `port`");
            }
            errors.invalid_each(&end_path, &end, names::port_number(end));
        }
        (None, Some(end)) => errors.invalid(&end_path, &end, "may not be specified when `port` is not specified"),
        _ => {}
    }
}

fn policy_peer(errors: &mut Errors, path: &Path, peer: &Value) {
    let mut count = 0;
    for name in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = child(peer, name) {
            count += 1;
            errors.label_selector(&path.child(name), Some(selector));
        }
    }
    if let Some(block) = child(peer, "ipBlock") {
        ip_block(errors, &path.child("ipBlock"), block);
        if count > 0 {
            errors.forbidden(path, "may not specify both ipBlock and another peer");
        }
        count += 1;
    }
    if count == 0 {
        errors.required(path, "must specify a peer");
    }
}

/// Address as a number, and how many bits of the family's width are the network's.
fn network(text: &str) -> Option<(u128, u32, bool)> {
    let (address, bits) = text.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(v4) if bits <= 32 => Some((u128::from(u32::from(v4)) << 96, bits, false)),
        IpAddr::V6(v6) if bits <= 128 => Some((u128::from(v6), bits, true)),
        _ => None,
    }
}

fn ip_block(errors: &mut Errors, path: &Path, block: &Value) {
    let whole = text(block, "cidr");
    if whole.is_empty() {
        return errors.required(&path.child("cidr"), "");
    }
    cidr(errors, &path.child("cidr"), whole);
    let Some((base, bits, v6)) = network(whole) else { return };
    let except = path.child("except");
    for (index, hole) in strings(block, "except").enumerate() {
        cidr(errors, &except.index(index), hole);
        let Some((address, hole_bits, hole_v6)) = network(hole) else { continue };
        let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
        if v6 != hole_v6 || address & mask != base & mask || bits >= hole_bits {
            errors.invalid(&except.index(index), hole, "must be a strict subset of `cidr`");
        }
    }
}

pub static IP_ADDRESS: Policy = Policy {
    check: |errors, object| {
        let name = text(object, "metadata.name");
        errors.name(&Path::Root("metadata.name"), name, names::ip);
        let path = Path::Root("spec.parentRef");
        let Some(parent) = child(object, "spec.parentRef") else { return errors.required(&path, "") };
        for name in ["resource", "name"] {
            match text(parent, name) {
                "" => errors.required(&path.child(name), ""),
                value => errors.name(&path.child(name), value, names::path_segment),
            }
        }
        for (name, rule) in [("group", names::dns_subdomain as fn(&str) -> Vec<String>), ("namespace", names::path_segment)] {
            let value = text(parent, name);
            if !value.is_empty() {
                errors.name(&path.child(name), value, rule);
            }
        }
    },
    check_update: |errors, new, old| internal::immutable(errors, &Path::Root("spec"), "networking.v1.IPAddressSpec", "parentRef", child(new, "spec"), child(old, "spec")),
    selectable: |object, field| (field == "spec.parentRef.name").then(|| text(object, field).to_owned()),
    ..BUILT_IN
};

pub static SERVICE_CIDR: Policy = Policy {
    metadata_again: CHANGE,
    status: true,
    status_keeps_metadata: true,
    check_create: |errors, object| {
        let path = Path::Root("spec.cidrs");
        let cidrs = list(object, "spec.cidrs");
        if cidrs.is_empty() {
            errors.required(&path, "at least one CIDR required");
        } else if cidrs.len() > 2 {
            errors.invalid(&path, child(object, "spec").unwrap_or(&Value::Null), "may only hold up to 2 values");
        }
        for (index, value) in strings(object, "spec.cidrs").enumerate() {
            cidr(errors, &path.index(index), value);
        }
        if let [first, second] = cidrs
            && first.as_str().and_then(network).map(|network| network.2) == second.as_str().and_then(network).map(|network| network.2)
        {
            errors.invalid(&path, &Value::Array(cidrs.to_vec()), "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
        }
    },
    check_update: |errors, new, old| {
        let path = Path::Root("spec.cidrs");
        for (index, (now, before)) in list(new, "spec.cidrs").iter().zip(list(old, "spec.cidrs")).enumerate().filter(|(_, (now, before))| now != before) {
            let _ = before;
            errors.invalid(&path.index(index), now, IMMUTABLE);
        }
        if list(new, "spec.cidrs").len() < list(old, "spec.cidrs").len() {
            errors.invalid(&path, child(new, "spec.cidrs").unwrap_or(&Value::Null), IMMUTABLE);
        }
    },
    ..BUILT_IN
};

/// PodDisruptionBudgets.
pub static DISRUPTION_BUDGET: Policy = Policy {
    metadata_again: NEITHER,
    generation: Generation::Spec,
    status: true,
    unconditional_update: false,
    on_create: |object, _| set(object, "status", json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})),
    check: |errors, object| {
        let path = Path::Root("spec");
        let (minimum, maximum) = (child(object, "spec.minAvailable"), child(object, "spec.maxUnavailable"));
        if minimum.is_some() && maximum.is_some() {
            errors.invalid(&path, &crate::internal::Internal("policy.v1.PodDisruptionBudgetSpec", child(object, "spec")), "minAvailable and maxUnavailable cannot be both set");
        }
        for (name, value) in [("minAvailable", minimum), ("maxUnavailable", maximum)] {
            super::workload::int_or_percent(errors, &path.child(name), value);
            super::workload::at_most_all(errors, &path.child(name), value);
        }
        errors.label_selector(&path.child("selector"), child(object, "spec.selector"));
        if let Some(policy) = child(object, "spec.unhealthyPodEvictionPolicy").and_then(Value::as_str).filter(|policy| !matches!(*policy, "AlwaysAllow" | "IfHealthyBudget")) {
            errors.not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, &["AlwaysAllow", "IfHealthyBudget"]);
        }
    },
    check_status: |errors, new, _| {
        let path = Path::Root("status");
        super::conditions::check(errors, &path.child("conditions"), list(new, "status.conditions"));
        for name in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            errors.not_negative(&path.child(name), child(new, "status").and_then(|status| number(status, name)));
        }
    },
    ..BUILT_IN
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines};

    #[test]
    fn ingresses() {
        let cases = [
            (json!({}), vec!["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]),
            (
                json!({"rules": [{"host": "1.2.3.4", "http": {"paths": [{"path": "a", "pathType": "Prefix", "backend": {"service": {"name": "s"}}}, {"path": "/"}]}}]}),
                vec![
                    "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
                    "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
                    "spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(lines(&create("networking.k8s.io", "ingresses", json!({"metadata": {"name": "i"}, "spec": spec})).1), expected);
        }
    }

    #[test]
    fn network_policies() {
        let (made, causes) = create("networking.k8s.io", "networkpolicies", json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}}));
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(made["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(made["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        let bad = json!({"metadata": {"name": "n"}, "spec": {"ingress": [{"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}});
        assert_eq!(
            lines(&create("networking.k8s.io", "networkpolicies", bad).1),
            ["spec.ingress[0].from[0]: Required value: must specify a peer", "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"]
        );
    }
}
