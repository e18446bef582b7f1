//! Endpoints and EndpointSlices.

use std::net::IpAddr;

use serde_json::Value;

use super::container;
use super::json::{child, default, list, list_mut, map, number, strings, text};
use super::pod_spec::ip;
use super::policy::{BUILT_IN, Generation, Policy, WHOLE};
use crate::names;
use crate::validation::{Errors, Path, same};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

/// `ValidateEndpointIP`: an address traffic can be sent to.
pub fn endpoint_ip(errors: &mut Errors, path: &Path, value: &str) {
    let Ok(address) = value.parse::<IpAddr>() else { return ip(errors, path, value) };
    let (link_local, local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    if address.is_unspecified() {
        errors.invalid(path, value, &format!("may not be unspecified ({value})"));
    }
    if address.is_loopback() {
        errors.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local_multicast {
        errors.invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

pub static ENDPOINTS: Policy = Policy {
    create_on_update: true,
    defaults: |object| {
        for subset in list_mut(object, "subsets") {
            for port in list_mut(subset, "ports") {
                default(port, "protocol", "TCP");
            }
        }
    },
    check: |errors, object| {
        let subsets = Path::Root("subsets");
        for (index, subset) in list(object, "subsets").iter().enumerate() {
            let path = subsets.index(index);
            if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for name in ["addresses", "notReadyAddresses"] {
                let path = path.child(name);
                for (at, address) in list(subset, name).iter().enumerate() {
                    let path = path.index(at);
                    let given = text(address, "ip");
                    endpoint_ip(errors, &path.child("ip"), given);
                    // Said twice by upstream, unless only zeros are in the way.
                    if names::ip(given).iter().any(|wrong| !wrong.contains("leading")) {
                        errors.invalid(&path.child("ip"), given, "must be a valid IP address");
                    }
                    if !text(address, "hostname").is_empty() {
                        errors.name(&path.child("hostname"), text(address, "hostname"), names::dns_label);
                    }
                    if let Some(node) = child(address, "nodeName").and_then(Value::as_str) {
                        errors.name(&path.child("nodeName"), node, names::dns_subdomain);
                    }
                }
            }
            let ports = list(subset, "ports");
            let path = path.child("ports");
            for (at, port) in ports.iter().enumerate() {
                let path = path.index(at);
                if let Some(protocol) = child(port, "appProtocol").and_then(Value::as_str) {
                    errors.name(&path.child("appProtocol"), protocol, names::qualified_name);
                }
                match text(port, "name") {
                    "" if ports.len() > 1 => errors.required(&path.child("name"), ""),
                    "" => {}
                    name => errors.name(&path.child("name"), name, names::dns_label),
                }
                let value = number(port, "port").unwrap_or(0);
                errors.invalid_each(&path.child("port"), &value, names::port_number(value));
                container::protocol(errors, &path.child("protocol"), text(port, "protocol"));
            }
        }
    },
    ..BUILT_IN
};

/// Zones or nodes an endpoint is to be used from.
const HINTS_MAX: usize = 8;

pub static ENDPOINT_SLICE: Policy = Policy {
    metadata_again: WHOLE,
    generation: Generation::Content,
    // A field of the beta that this version shows, and does not take.
    on_create: |object, _| without_topology(object),
    on_update: |new, old, _| {
        if !same(new.get("endpoints"), old.get("endpoints")) {
            without_topology(new);
        }
    },
    defaults: |object| {
        for port in list_mut(object, "ports") {
            // A nameless port is shown with the empty name.
            if child(port, "name").is_none() {
                super::json::set(port, "name", "");
            }
            super::json::default_unset(port, "protocol", "TCP");
        }
        // Upstream always writes both lists.
        for name in ["endpoints", "ports"] {
            if object.get(name).is_none() {
                super::json::set(object, name, Value::Array(Vec::new()));
            }
        }
    },
    check: |errors, object| {
        let kind = text(object, "addressType");
        if kind.is_empty() {
            errors.required(&Path::Root("addressType"), "");
        } else if !ADDRESS_TYPES.contains(&kind) {
            errors.not_supported(&Path::Root("addressType"), kind, &ADDRESS_TYPES);
        }
        let endpoints = list(object, "endpoints");
        if endpoints.len() > ENDPOINTS_MAX {
            errors.too_many(&Path::Root("endpoints"), endpoints.len(), ENDPOINTS_MAX);
        } else {
            endpoints.iter().enumerate().for_each(|(index, endpoint)| check_endpoint(errors, &Path::Root("endpoints").index(index), endpoint, kind));
        }
        check_slice_ports(errors, list(object, "ports"));
    },
    check_update: |errors, new, old| errors.immutable(&Path::Root("addressType"), new.get("addressType"), old.get("addressType")),
    ..BUILT_IN
};

fn without_topology(object: &mut Value) {
    for endpoint in list_mut(object, "endpoints") {
        super::json::take(endpoint, "deprecatedTopology");
    }
}

fn check_endpoint(errors: &mut Errors, path: &Path, endpoint: &Value, kind: &str) {
    let addresses = list(endpoint, "addresses");
    let field = path.child("addresses");
    if addresses.is_empty() {
        errors.required(&field, "must contain at least 1 address");
    } else if addresses.len() > ADDRESSES_MAX {
        errors.too_many(&field, addresses.len(), ADDRESSES_MAX);
    }
    for (index, address) in strings(endpoint, "addresses").enumerate() {
        let path = field.index(index);
        match kind {
            "IPv4" | "IPv6" => {
                match address.parse::<IpAddr>() {
                    Ok(parsed) => {
                        if parsed.is_ipv6() != (kind == "IPv6") {
                            errors.invalid(&field, address, &format!("must be an {kind} address"));
                        }
                        endpoint_ip(errors, &path, address);
                    }
                    Err(_) => super::pod_spec::ip(errors, &path, address),
                }
            }
            "FQDN" => errors.name(&path, address, names::dns_subdomain),
            _ => {}
        }
    }
    for (name, rule) in [("nodeName", names::dns_subdomain as fn(&str) -> Vec<String>), ("hostname", names::dns_label)] {
        if child(endpoint, name).is_some() {
            errors.name(&path.child(name), text(endpoint, name), rule);
        }
    }
    for field in ["hints.forZones", "hints.forNodes"] {
        let hints = path.child(field);
        let names: Vec<&str> = list(endpoint, field).iter().map(|hint| text(hint, "name")).collect();
        if names.len() > HINTS_MAX {
            errors.too_many(&hints, names.len(), HINTS_MAX);
            continue;
        }
        for (index, name) in names.iter().enumerate() {
            let path = hints.index(index);
            if names[..index].contains(name) {
                errors.duplicate(&path.child("name"), *name);
            } else if field == "hints.forZones" {
                errors.name(&path.child("name"), name, names::label_value);
            } else {
                errors.name(&path.child("name"), name, names::dns_subdomain);
            }
        }
    }
    let topology = path.child("deprecatedTopology");
    for (key, value) in map(endpoint, "deprecatedTopology").into_iter().flatten() {
        errors.name(&topology, key, names::qualified_name);
        errors.name(&topology.key(key), value.as_str().unwrap_or_default(), names::label_value);
    }
}

fn check_slice_ports(errors: &mut Errors, ports: &[Value]) {
    let list_path = Path::Root("ports");
    if ports.len() > PORTS_MAX {
        return errors.too_many(&list_path, ports.len(), PORTS_MAX);
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = list_path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.name(&path.child("name"), name, names::dns_label);
        }
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        let protocol = text(port, "protocol");
        if !container::PROTOCOLS.contains(&protocol) {
            errors.not_supported(&path.child("protocol"), protocol, &container::PROTOCOLS);
        }
        if let Some(protocol) = child(port, "appProtocol").and_then(Value::as_str) {
            errors.name(&path.child("appProtocol"), protocol, names::qualified_name);
        }
    }
}
