//! Services. Cluster addresses and node ports are given out by the server; what an update keeps of them is decided here.
//! Mirrors validateService and pkg/registry/core/service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::container::port_number_or_name;
use super::json::{child, child_mut, default, empty, ensure, list, list_mut, map, number, set, strings, take, text, default_unset};
use super::pod_spec::ip;
use super::policy::{BUILT_IN, CHANGE, Generation, Policy};
use crate::names;
use crate::internal::Internal;
use crate::validation::{Errors, Path, same};

const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub static SERVICE: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::None,
    create_on_update: true,
    warnings,
    defaults,
    on_create: |object, _| {
        set(object, "status", json!({"loadBalancer": {}}));
        normalise(object, None);
    },
    on_update: |new, old, _| {
        crate::strategy::keep(new, old, "status");
        keep_allocated(new, old);
        normalise(new, Some(old));
        drop_type_dependent(new, old);
    },
    check,
    check_update,
    check_status: |errors, new, _| {
        let path = Path::Root("status.loadBalancer.ingress");
        let ingresses = list(new, "status.loadBalancer.ingress");
        if text(new, "spec.type") != "LoadBalancer" && !ingresses.is_empty() {
            return errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        for (index, ingress) in ingresses.iter().enumerate() {
            let path = path.index(index);
            let (address, hostname) = (text(ingress, "ip"), text(ingress, "hostname"));
            if !address.is_empty() {
                ip(errors, &path.child("ip"), address);
            }
            match (child(ingress, "ipMode").and_then(Value::as_str), address.is_empty()) {
                (None, false) => errors.required(&path.child("ipMode"), "must be specified when `ip` is set"),
                (Some(_), true) => errors.forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set"),
                (Some(mode), false) if !matches!(mode, "Proxy" | "VIP") => errors.not_supported(&path.child("ipMode"), mode, &["Proxy", "VIP"]),
                _ => {}
            }
            if !hostname.is_empty() {
                errors.name(&path.child("hostname"), hostname, names::dns_subdomain);
                if names::sloppy_ip(hostname) {
                    errors.invalid(&path.child("hostname"), hostname, "must be a DNS name, not an IP address");
                }
            }
        }
    },
    selectable: |object, field| matches!(field, "spec.clusterIP" | "spec.type").then(|| text(object, field).to_owned()),
    ..BUILT_IN
};

/// `GetWarningsForService`
fn warnings(service: &Value, warnings: &mut Vec<String>) {
    let spec = child(service, "spec").unwrap_or(&Value::Null);
    let mut say = |text: String| warnings.push(text);
    if super::json::entry(service, "metadata.annotations", "service.kubernetes.io/topology-aware-hints").is_some() {
        say("annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead".to_owned());
    }
    let external_name = kind(service) == "ExternalName";
    let external = !list(spec, "externalIPs").is_empty();
    if !external_name && !headless(service) {
        strings(spec, "clusterIPs").enumerate().filter_map(|(index, address)| odd_address(&format!("spec.clusterIPs[{index}]"), address)).for_each(&mut say);
    }
    if headless(service) {
        if !text(spec, "loadBalancerIP").is_empty() {
            say("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if external {
            say("spec.externalIPs is ignored for headless services".to_owned());
        }
        if text(spec, "sessionAffinity") != "None" {
            say("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    strings(spec, "externalIPs").enumerate().filter_map(|(index, address)| odd_address(&format!("spec.externalIPs[{index}]"), address)).for_each(&mut say);
    if external && !headless(service) && !external_name {
        say("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    odd_address("spec.loadBalancerIP", text(spec, "loadBalancerIP")).into_iter().for_each(&mut say);
    if external_name && external {
        say("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external_name && !text(spec, "externalName").is_empty() {
        say("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        say("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
}

/// `GetWarningsForIP`: of an address that is one, if not as one writes it.
fn odd_address(field: &str, address: &str) -> Option<String> {
    let parsed = address.parse::<IpAddr>();
    match parsed {
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => Some(format!("{field}: non-standard IP address {address:?} is invalid: use \"{v4}\"")),
            None if v6.to_string() != address => Some(format!("{field}: IPv6 address {address:?} should be in RFC 5952 canonical format (\"{v6}\")")),
            None => None,
        },
        Ok(IpAddr::V4(_)) => None,
        Err(_) if names::sloppy_ip(address) => {
            let plain: Vec<&str> = address.split('.').map(|octet| octet.trim_start_matches('0')).map(|octet| if octet.is_empty() { "0" } else { octet }).collect();
            Some(format!("{field}: non-standard IP address {address:?} is invalid: use \"{}\"", plain.join(".")))
        }
        Err(_) => None,
    }
}

fn kind(object: &Value) -> &str {
    text(object, "spec.type")
}

fn needs_node_port(object: &Value) -> bool {
    matches!(kind(object), "NodePort" | "LoadBalancer")
}

fn externally_accessible(object: &Value) -> bool {
    needs_node_port(object) || (kind(object) == "ClusterIP" && !list(object, "spec.externalIPs").is_empty())
}

fn needs_health_check(object: &Value) -> bool {
    kind(object) == "LoadBalancer" && text(object, "spec.externalTrafficPolicy") == "Local"
}

fn headless(object: &Value) -> bool {
    matches!(list(object, "spec.clusterIPs"), [only] if only.as_str() == Some("None"))
}

fn defaults(object: &mut Value) {
    let Some(spec) = child_mut(object, "spec") else { return };
    default(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => drop(take(spec, "sessionAffinityConfig")),
        "ClientIP" if number(spec, "sessionAffinityConfig.clientIP.timeoutSeconds").is_none() => set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}})),
        _ => {}
    }
    default(spec, "type", "ClusterIP");
    for port in list_mut(spec, "ports") {
        default(port, "protocol", "TCP");
        let missing = match child(port, "targetPort") {
            None => true,
            Some(Value::String(name)) => name.is_empty(),
            Some(other) => other.as_i64() == Some(0),
        };
        if missing {
            let number = number(port, "port").unwrap_or(0);
            set(port, "targetPort", number);
        }
    }
    let balanced = text(spec, "type") == "LoadBalancer";
    let typed = matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer");
    if externally_accessible(object)
        && let Some(spec) = child_mut(object, "spec")
    {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    let Some(spec) = child_mut(object, "spec") else { return };
    if typed {
        super::json::default_unset(spec, "internalTrafficPolicy", "Cluster");
    }
    if balanced {
        default(spec, "allocateLoadBalancerNodePorts", true);
        for ingress in list_mut(object, "status.loadBalancer.ingress") {
            if !text(ingress, "ip").is_empty() {
                default(ingress, "ipMode", "VIP");
            }
        }
    }
    if let Some(status) = ensure(object, "status") {
        status.entry("loadBalancer").or_insert_with(empty);
    }
}

/// `clusterIP` and `clusterIPs` say the same, and families and policy are filled in (one family here: IPv4).
fn normalise(object: &mut Value, old: Option<&Value>) {
    let (single, many) = (text(object, "spec.clusterIP").to_owned(), strings(object, "spec.clusterIPs").map(str::to_owned).collect::<Vec<_>>());
    let Some(spec) = child_mut(object, "spec") else { return };
    let old_single = old.map_or("", |old| text(old, "spec.clusterIP"));
    match old {
        // Old clients only write the single one: the list follows.
        None if many.is_empty() && !single.is_empty() => set(spec, "clusterIPs", vec![single]),
        Some(_) if single != old_single && same_list(&many, old) => {
            if single.is_empty() {
                take(spec, "clusterIPs");
            } else {
                set(spec, "clusterIPs", vec![single]);
            }
        }
        _ => {}
    }
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let selectorless = map(spec, "selector").is_none_or(serde_json::Map::is_empty);
    let is_headless = text(spec, "clusterIP") == "None";
    if is_headless && selectorless {
        default_unset(spec, "ipFamilyPolicy", "RequireDualStack");
        if text(spec, "ipFamilyPolicy") != "SingleStack" {
            match list(spec, "ipFamilies") {
                [] => set(spec, "ipFamilies", vec!["IPv4", "IPv6"]),
                [one] => {
                    let first = one.as_str().unwrap_or_default().to_owned();
                    let other = if first == "IPv4" { "IPv6" } else { "IPv4" };
                    set(spec, "ipFamilies", vec![first.as_str(), other]);
                }
                _ => {}
            }
        }
    }
    default_unset(spec, "ipFamilyPolicy", "SingleStack");
    if list(spec, "ipFamilies").is_empty() {
        let families: Vec<&str> =
            strings(spec, "clusterIPs").filter_map(|address| address.parse::<IpAddr>().ok()).map(|address| if address.is_ipv6() { "IPv6" } else { "IPv4" }).collect();
        set(spec, "ipFamilies", if families.is_empty() { vec!["IPv4"] } else { families });
    }
}

fn same_list(many: &[String], old: Option<&Value>) -> bool {
    old.is_some_and(|old| strings(old, "spec.clusterIPs").eq(many.iter().map(String::as_str)))
}

/// An update that leaves out what was given to the service keeps it (`patchAllocatedValues`).
fn keep_allocated(new: &mut Value, old: &Value) {
    if kind(new) != "ExternalName" && kind(old) != "ExternalName" && text(new, "spec.clusterIP").is_empty() && list(new, "spec.clusterIPs").is_empty() {
        let (single, many) = (child(old, "spec.clusterIP").cloned(), child(old, "spec.clusterIPs").cloned());
        if let Some(spec) = child_mut(new, "spec") {
            if let Some(single) = single {
                set(spec, "clusterIP", single);
            }
            if let Some(many) = many {
                set(spec, "clusterIPs", many);
            }
        }
    }
    if needs_node_port(new) && needs_node_port(old) {
        let key = |port: &Value| (text(port, "protocol").to_owned(), number(port, "port").unwrap_or(0));
        let mut used: BTreeSet<i64> = list(new, "spec.ports").iter().filter_map(|port| number(port, "nodePort")).filter(|port| *port != 0).collect();
        for port in list_mut(new, "spec.ports") {
            if number(port, "nodePort").unwrap_or(0) != 0 {
                continue;
            }
            let before = list(old, "spec.ports").iter().find(|before| key(before) == key(port)).and_then(|before| number(before, "nodePort")).filter(|port| *port != 0);
            if let Some(node_port) = before
                && used.insert(node_port)
            {
                set(port, "nodePort", node_port);
            }
        }
    }
    if needs_health_check(new)
        && needs_health_check(old)
        && number(new, "spec.healthCheckNodePort").unwrap_or(0) == 0
        && let (Some(port), Some(spec)) = (number(old, "spec.healthCheckNodePort"), child_mut(new, "spec"))
    {
        set(spec, "healthCheckNodePort", port);
    }
}

/// Fields that made sense for the old type and were not touched go away with it.
fn drop_type_dependent(new: &mut Value, old: &Value) {
    let unchanged = |new: &Value, name: &str| same(child(new, "spec").and_then(|spec| spec.get(name)), child(old, "spec").and_then(|spec| spec.get(name)));
    let mut gone: Vec<&str> = Vec::new();
    if kind(old) != "ExternalName" && kind(new) == "ExternalName" {
        if unchanged(new, "clusterIP") && unchanged(new, "clusterIPs") {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        gone.extend(["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"].into_iter().filter(|name| unchanged(new, name)));
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"].into_iter().filter(|name| unchanged(new, name)));
    }
    if needs_health_check(old) && !needs_health_check(new) && unchanged(new, "healthCheckNodePort") {
        gone.push("healthCheckNodePort");
    }
    if externally_accessible(old) && !externally_accessible(new) && unchanged(new, "externalTrafficPolicy") {
        gone.push("externalTrafficPolicy");
    }
    let ports = |object: &Value| list(object, "spec.ports").iter().filter_map(|port| number(port, "nodePort")).filter(|port| *port != 0).collect::<BTreeSet<_>>();
    let drop_ports = needs_node_port(old) && !needs_node_port(new) && ports(old).is_superset(&ports(new));
    let balanced = kind(new) == "LoadBalancer";
    if let Some(spec) = child_mut(new, "spec") {
        gone.into_iter().for_each(|name| drop(take(spec, name)));
        if drop_ports {
            for port in list_mut(spec, "ports") {
                take(port, "nodePort");
            }
        }
    }
    if !balanced && let Some(status) = child_mut(new, "status") {
        set(status, "loadBalancer", empty());
    }
}

fn check(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let none = Value::Null;
    let spec = child(object, "spec").unwrap_or(&none);
    let ports = list(spec, "ports");
    let service_type = kind(object);
    if ports.is_empty() && !headless(object) && service_type != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    match service_type {
        "LoadBalancer" | "NodePort" if headless(object) => {
            errors.invalid(&path.child("clusterIPs").index(0), "None", &format!("may not be set to 'None' for {service_type} services"));
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies"] {
                if !list(spec, name).is_empty() {
                    errors.forbidden(&path.child(name), "may not be set for ExternalName services");
                }
            }
            if child(spec, "ipFamilyPolicy").is_some() {
                errors.forbidden(&path.child("ipFamilyPolicy"), "may not be set for ExternalName services");
            }
            match text(spec, "externalName").strip_suffix('.').unwrap_or(text(spec, "externalName")) {
                "" => errors.required(&path.child("externalName"), ""),
                name => errors.name(&path.child("externalName"), name, names::dns_subdomain),
            }
        }
        _ => {}
    }
    check_ports(errors, &path.child("ports"), ports);
    errors.labels(&path.child("selector"), child(spec, "selector"));
    session_affinity(errors, &path, spec);
    if service_type != "ExternalName" {
        cluster_ips(errors, &path, spec, headless(object));
    }
    let external = path.child("externalIPs");
    for (index, address) in strings(spec, "externalIPs").enumerate() {
        super::endpoints::endpoint_ip(errors, &external.index(index), address);
    }
    if service_type.is_empty() {
        errors.required(&path.child("type"), "");
    } else if !TYPES.contains(&service_type) {
        errors.not_supported(&path.child("type"), service_type, &TYPES);
    }
    port_conflicts(errors, &path.child("ports"), ports, service_type);
    load_balancer(errors, &path, spec, service_type);
    traffic(errors, &path, object, spec);
}

fn check_ports(errors: &mut Errors, path: &Path, ports: &[Value]) {
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        match text(port, "name") {
            "" if ports.len() > 1 => errors.required(&path.child("name"), ""),
            "" => {}
            name => {
                errors.name(&path.child("name"), name, names::dns_label);
                if !seen.insert(name) {
                    errors.duplicate(&path.child("name"), name);
                }
            }
        }
        let value = number(port, "port").unwrap_or(0);
        errors.invalid_each(&path.child("port"), &value, names::port_number(value));
        super::container::protocol(errors, &path.child("protocol"), text(port, "protocol"));
        port_number_or_name(errors, &path.child("targetPort"), child(port, "targetPort"));
        if let Some(protocol) = child(port, "appProtocol").and_then(Value::as_str) {
            errors.name(&path.child("appProtocol"), protocol, names::qualified_name);
        }
    }
}

fn session_affinity(errors: &mut Errors, path: &Path, spec: &Value) {
    let config = path.child("sessionAffinityConfig");
    match text(spec, "sessionAffinity") {
        "" => errors.required(&path.child("sessionAffinity"), ""),
        "None" => {
            if child(spec, "sessionAffinityConfig").is_some() {
                errors.forbidden(&config, "must not be set when session affinity is None");
            }
        }
        "ClientIP" => match number(spec, "sessionAffinityConfig.clientIP.timeoutSeconds") {
            None => errors.required(&config, "when session affinity type is ClientIP"),
            Some(seconds) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                errors.invalid(&config.child("clientIP.timeoutSeconds"), &seconds, &format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"));
            }
            Some(_) => {}
        },
        other => errors.not_supported(&path.child("sessionAffinity"), other, &["ClientIP", "None"]),
    }
}

/// What has to hold before addresses are given out, too: nothing else is told then (`ValidateServiceClusterIPsRelatedFields`).
pub fn cluster_ip_faults(object: &Value) -> Vec<crate::status::Cause> {
    let mut errors = Errors::new();
    if let Some(spec) = child(object, "spec").filter(|_| kind(object) != "ExternalName") {
        cluster_ips(&mut errors, &Path::Root("spec"), spec, headless(object));
    }
    errors.into_causes()
}

fn cluster_ips(errors: &mut Errors, path: &Path, spec: &Value, headless: bool) {
    let field = path.child("clusterIPs");
    let shown = child(spec, "clusterIPs").cloned().unwrap_or(Value::Null);
    let (single, many) = (text(spec, "clusterIP"), strings(spec, "clusterIPs").collect::<Vec<_>>());
    match (single, many.first()) {
        ("", Some(_)) => errors.invalid(&field, &shown, "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => errors.required(&field, ""),
        (single, Some(first)) if *first != single => errors.invalid(&field, &shown, "first value must match `clusterIP`"),
        _ => {}
    }
    let families_path = path.child("ipFamilies");
    let mut seen = BTreeSet::new();
    let families: Vec<&str> = strings(spec, "ipFamilies").collect();
    for (index, family) in families.iter().enumerate() {
        if !matches!(*family, "IPv4" | "IPv6") {
            errors.not_supported(&families_path.index(index), *family, &["IPv4", "IPv6"]);
        }
        if !seen.insert(*family) {
            errors.duplicate(&families_path.index(index), *family);
        }
    }
    if let Some(policy) = child(spec, "ipFamilyPolicy").and_then(Value::as_str)
        && !matches!(policy, "SingleStack" | "PreferDualStack" | "RequireDualStack")
    {
        errors.not_supported(&path.child("ipFamilyPolicy"), policy, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    }
    let before = errors.len();
    for (index, address) in many.iter().enumerate() {
        if index == 0 && *address == "None" {
            if many.len() > 1 {
                errors.invalid(&field, &shown, "'None' must be the first and only value");
            }
            continue;
        }
        ip(errors, &field.index(index), address);
    }
    if many.len() > 2 {
        errors.invalid(&field, &shown, "may only hold up to 2 values");
    }
    if errors.len() > before || headless {
        return;
    }
    let is_v6 = |address: &str| address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
    if many.len() > 1 && is_v6(many[0]) == is_v6(many[1]) {
        errors.invalid(&field, &shown, "may specify no more than one IP for each IP family");
    }
    for (index, (address, family)) in many.iter().zip(&families).enumerate() {
        let actual = if is_v6(address) { "IPv6" } else { "IPv4" };
        if actual != *family && matches!(*family, "IPv4" | "IPv6") {
            errors.invalid(&field.index(index), *address, &format!("expected an {family} value as indicated by `ipFamilies[{index}]`"));
        }
    }
}

fn port_conflicts(errors: &mut Errors, path: &Path, ports: &[Value], service_type: &str) {
    let (mut node_ports, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let node_port = number(port, "nodePort").unwrap_or(0);
        let protocol = text(port, "protocol");
        if node_port != 0 && service_type == "ClusterIP" {
            errors.forbidden(&path.index(index).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        if node_port != 0 && !node_ports.insert((protocol, node_port)) {
            errors.duplicate(&path.index(index).child("nodePort"), &node_port);
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let (protocol, value) = (text(port, "protocol"), number(port, "port").unwrap_or(0));
        if !seen.insert((protocol, value)) {
            let shown = serde_json::json!({"protocol": protocol, "port": value});
            errors.duplicate(&path.index(index), &Internal("core.v1.ServicePort", Some(&shown)));
        }
    }
}

fn load_balancer(errors: &mut Errors, path: &Path, spec: &Value, service_type: &str) {
    let balanced = service_type == "LoadBalancer";
    let ranges = path.child("LoadBalancerSourceRanges");
    if !balanced && !list(spec, "loadBalancerSourceRanges").is_empty() {
        errors.forbidden(&ranges, ONLY);
    }
    for (index, range) in strings(spec, "loadBalancerSourceRanges").enumerate() {
        cidr(errors, &ranges.index(index), range.trim());
    }
    match (child(spec, "allocateLoadBalancerNodePorts").is_some(), balanced) {
        (true, false) => errors.forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY),
        (false, true) => errors.required(&Path::Root("allocateLoadBalancerNodePorts"), ""),
        _ => {}
    }
    load_balancer_class(errors, path, spec, balanced);
}

const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

fn load_balancer_class(errors: &mut Errors, path: &Path, spec: &Value, balanced: bool) {
    match child(spec, "loadBalancerClass").and_then(Value::as_str) {
        Some(class) if balanced => errors.name(&path.child("loadBalancerClass"), class, names::qualified_name),
        Some(_) => errors.forbidden(&path.child("loadBalancerClass"), ONLY),
        None => {}
    }
}

/// `10.0.0.0/8`.
pub fn cidr(errors: &mut Errors, path: &Path, value: &str) {
    let fine = value.split_once('/').is_some_and(|(address, bits)| {
        let max = address.parse::<IpAddr>().map_or(0, |address| if address.is_ipv6() { 128 } else { 32 });
        max > 0 && !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= max)
    });
    if !fine {
        errors.invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
}

fn traffic(errors: &mut Errors, path: &Path, object: &Value, spec: &Value) {
    let field = path.child("externalTrafficPolicy");
    let policy = text(spec, "externalTrafficPolicy");
    match (externally_accessible(object), policy) {
        (false, "") | (true, "Cluster" | "Local") => {}
        (false, policy) => errors.invalid(&field, policy, "may only be set for externally-accessible services"),
        (true, "") => errors.required(&field, ""),
        (true, other) => errors.not_supported(&field, other, &["Cluster", "Local"]),
    }
    let health = number(spec, "healthCheckNodePort").unwrap_or(0);
    let field = path.child("healthCheckNodePort");
    if !needs_health_check(object) {
        if health != 0 {
            errors.invalid(&field, &health, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
        }
    } else if health != 0 {
        // Zero is filled in by the server.
        errors.invalid_each(&field, &health, names::port_number(health));
    }
    let field = path.child("internalTrafficPolicy");
    match text(spec, "internalTrafficPolicy") {
        "Cluster" | "Local" => {}
        "" if child(spec, "internalTrafficPolicy").is_none() => {
            if matches!(kind(object), "ClusterIP" | "NodePort" | "LoadBalancer") {
                errors.required(&field, "");
            }
        }
        other => errors.not_supported(&field, other, &["Cluster", "Local"]),
    }
    if let Some(distribution) = child(spec, "trafficDistribution").and_then(Value::as_str)
        && !matches!(distribution, "PreferClose" | "PreferSameZone" | "PreferSameNode")
    {
        errors.not_supported(&path.child("trafficDistribution"), distribution, &["PreferClose", "PreferSameZone", "PreferSameNode"]);
    }
}

fn check_update(errors: &mut Errors, new: &Value, old: &Value) {
    if kind(new) != "ExternalName" && kind(old) != "ExternalName" {
        fixed_list(errors, new, old, "clusterIPs", headless(new) && headless(old));
        fixed_list(errors, new, old, "ipFamilies", headless(new) || headless(old));
    }
    if kind(new) == "LoadBalancer" && kind(old) == "LoadBalancer" && child(new, "spec.loadBalancerClass") != child(old, "spec.loadBalancerClass") {
        errors.invalid(&Path::Root("spec.loadBalancerClass"), child(new, "spec.loadBalancerClass").unwrap_or(&Value::Null), "may not change once set");
    }
    // Told by both of upstream's functions.
    load_balancer_class(errors, &Path::Root("spec"), child(new, "spec").unwrap_or(&Value::Null), kind(new) == "LoadBalancer");
    if needs_health_check(new) && needs_health_check(old) && number(new, "spec.healthCheckNodePort") != number(old, "spec.healthCheckNodePort") {
        errors.forbidden(&Path::Root("spec.healthCheckNodePort"), crate::validation::IMMUTABLE);
    }
}

/// The first entry stays for ever; a second may come and go.
fn fixed_list(errors: &mut Errors, new: &Value, old: &Value, name: &str, free: bool) {
    let of = |object: &Value| child(object, "spec").map(|spec| strings(spec, name).map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default();
    let (now, before) = (of(new), of(old));
    if free || before.is_empty() {
        return;
    }
    let path = Path::Root("spec");
    let field = path.child(name);
    let shown = Value::from(now.clone());
    if now.is_empty() {
        let what = if name == "clusterIPs" { "clusterIP" } else { "ipFamily" };
        return errors.invalid(&field.index(0), &shown, &format!("primary {what} can not be unset"));
    }
    for (index, (now, before)) in now.iter().zip(&before).enumerate() {
        if now != before {
            errors.invalid(&field.index(index), &shown, "may not change once set");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};

    #[test]
    fn a_service_of_kubectl_expose() {
        let (made, causes) = create("", "services", json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}));
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(
            made["spec"],
            json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "selector": {"app": "web"},
                "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]})
        );
        assert_eq!(made["status"], json!({"loadBalancer": {}}));
    }

    #[test]
    fn updates_keep_what_was_given() {
        let (mut old, _) = create("", "services", json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
        old["spec"]["clusterIP"] = "10.96.0.9".into();
        old["spec"]["clusterIPs"] = json!(["10.96.0.9"]);
        old["spec"]["ports"][0]["nodePort"] = 30001.into();
        let bare = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}]}});
        let (new, causes) = update("", "services", bare.clone(), &old);
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!((&new["spec"]["clusterIP"], &new["spec"]["ports"][0]["nodePort"]), (&json!("10.96.0.9"), &json!(30001)));
        let mut plain = new.clone();
        plain["spec"]["type"] = "ClusterIP".into();
        let (plain, causes) = update("", "services", plain, &old);
        assert!(causes.is_empty(), "{causes:?}");
        assert!(plain["spec"]["ports"][0].get("nodePort").is_none() && plain["spec"].get("externalTrafficPolicy").is_none());
        let mut moved = bare;
        moved["spec"]["clusterIP"] = "10.96.0.10".into();
        moved["spec"]["clusterIPs"] = json!(["10.96.0.10"]);
        let (_, causes) = update("", "services", moved, &old);
        assert_eq!(lines(&causes), ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set"]);
    }

    #[test]
    fn refusals() {
        let cases = [
            (json!({}), vec!["spec.ports: Required value"]),
            (json!({"ports": [{"port": 80}, {"port": 81}]}), vec!["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"]),
            (json!({"ports": [{"port": 0}]}), vec!["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive", "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive"]),
            (json!({"type": "Foo", "ports": [{"port": 80}]}), vec![
                "spec.type: Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ]),
            (json!({"ports": [{"port": 80, "nodePort": 30000}]}), vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]),
            (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value"]),
        ];
        for (spec, expected) in cases {
            assert_eq!(lines(&create("", "services", json!({"metadata": {"name": "x"}, "spec": spec})).1), expected);
        }
    }

    #[test]
    fn what_is_warned_of() {
        for (spec, told) in [
            (json!({"type": "ClusterIP", "clusterIPs": ["10.0.0.1"], "externalIPs": ["010.1.1.1"]}), vec![
                "spec.externalIPs[0]: non-standard IP address \"010.1.1.1\" is invalid: use \"10.1.1.1\"",
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            ]),
            (json!({"type": "ClusterIP", "clusterIPs": ["None"], "sessionAffinity": "ClientIP", "externalName": "x"}), vec![
                "spec.SessionAffinity is ignored for headless services",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ]),
            (json!({"type": "LoadBalancer", "loadBalancerIP": "::ffff:1.2.3.4"}), vec!["spec.loadBalancerIP: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\""]),
        ] {
            let mut warnings = Vec::new();
            super::warnings(&json!({"spec": spec}), &mut warnings);
            assert_eq!(warnings, told);
        }
    }
}
