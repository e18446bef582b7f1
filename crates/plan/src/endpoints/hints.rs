//! Which zones and nodes an endpoint is for: `trafficDistribution`, and the older annotation `service.kubernetes.io/topology-mode: Auto`. Pure.
//!
//! Mirrors `staging/src/k8s.io/endpointslice/{trafficdist,topologycache}`. With Auto each zone gets endpoints by its share of the CPUs; that is given up, with an
//! event that says why, when it would overload an endpoint. An endpoint that was lent to another zone stays lent there as long as that zone needs one.

use std::collections::{BTreeMap, BTreeSet};

use api::k8s::api::core::v1::{Node, Service};
use api::k8s::api::discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone};
use api::quantity::Quantity;

use crate::meta::label;

pub const ZONE: &str = "topology.kubernetes.io/zone";
const MODE: &str = "service.kubernetes.io/topology-mode";
const OLD_MODE: &str = "service.kubernetes.io/topology-aware-hints";
/// How much more than its share an endpoint may get.
const OVERLOAD: f64 = 0.2;

const NO_NODE_INFO: &str = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
const NO_ZONE: &str = "One or more endpoints do not have a zone specified";
const TOO_FEW: &str = "Insufficient number of endpoints";
const TOO_UNEVEN: &str = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
pub const ENABLED: &str = "Topology Aware Hints has been enabled";

/// What a Service asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Nothing,
    SameZone,
    SameNode,
    Auto,
}

pub fn wanted(service: &Service) -> Wanted {
    let annotation = |name: &str| service.metadata.annotations.as_ref().and_then(|all| all.get(name));
    if matches!(annotation(OLD_MODE).or_else(|| annotation(MODE)).map(String::as_str), Some("Auto" | "auto")) {
        return Wanted::Auto;
    }
    match service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref()) {
        Some("PreferClose" | "PreferSameZone") => Wanted::SameZone,
        Some("PreferSameNode") => Wanted::SameNode,
        _ => Wanted::Nothing,
    }
}

fn ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
}

fn zone(endpoint: &Endpoint) -> Option<&str> {
    endpoint.zone.as_deref().filter(|zone| !zone.is_empty())
}

fn for_zone(zone: &str) -> EndpointHints {
    EndpointHints { for_zones: Some(vec![ForZone { name: zone.to_owned() }]), for_nodes: None }
}

/// The zone an endpoint was for until now.
pub fn hinted_zone(endpoint: &Endpoint) -> Option<&str> {
    endpoint.hints.as_ref()?.for_zones.as_ref()?.first().map(|zone| zone.name.as_str())
}

/// Hints that each endpoint has by itself: where it is.
pub fn close(endpoint: &Endpoint, wanted: Wanted) -> Option<EndpointHints> {
    if !ready(endpoint) || !matches!(wanted, Wanted::SameZone | Wanted::SameNode) {
        return None;
    }
    let for_zones = endpoint.zone.as_ref().map(|zone| vec![ForZone { name: zone.clone() }]);
    let for_nodes = endpoint.node_name.as_ref().filter(|_| wanted == Wanted::SameNode).map(|node| vec![ForNode { name: node.clone() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_zones, for_nodes })
}

/// What a node adds to its zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capacity {
    /// It takes no traffic of this kind: not ready, or the control plane's.
    None,
    Unknown,
    Of { zone: String, milli_cpus: i64 },
}

pub fn capacity(node: &Node) -> Capacity {
    let excluded = label(node, "node-role.kubernetes.io/control-plane").or_else(|| label(node, "node-role.kubernetes.io/master")).is_some();
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or(&[]);
    if excluded || !conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return Capacity::None;
    }
    let cpu = status.and_then(|status| status.allocatable.as_ref()?.get("cpu")).and_then(|cpu| cpu.0.parse::<Quantity>().ok());
    match (label(node, ZONE).filter(|zone| !zone.is_empty()), cpu.map(|cpu| cpu.milli_value()).filter(|cpu| *cpu > 0)) {
        (Some(zone), Some(milli_cpus)) => Capacity::Of { zone: zone.to_owned(), milli_cpus },
        _ => Capacity::Unknown,
    }
}

/// The share each zone has in the CPUs of the nodes that take traffic; `None` when that cannot be said, or there is but one zone.
pub fn shares<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Option<BTreeMap<String, f64>> {
    let mut cpus: BTreeMap<String, i64> = BTreeMap::new();
    for node in nodes {
        match capacity(node) {
            Capacity::None => {}
            Capacity::Unknown => return None,
            Capacity::Of { zone, milli_cpus } => *cpus.entry(zone).or_default() += milli_cpus,
        }
    }
    let total: i64 = cpus.values().sum();
    (cpus.len() > 1).then(|| cpus.into_iter().map(|(zone, cpu)| (zone, cpu as f64 / total as f64)).collect())
}

/// How many endpoints each zone should have. The error is upstream's reason why not.
fn allocations(shares: Option<&BTreeMap<String, f64>>, endpoints: usize) -> Result<BTreeMap<String, f64>, String> {
    let shares = shares.ok_or_else(|| NO_NODE_INFO.to_owned())?;
    let because = |why: &str| format!("{why} ({endpoints} endpoints, {} zones)", shares.len());
    if shares.len() > endpoints {
        return Err(because(TOO_FEW));
    }
    let mut left = endpoints as f64;
    let mut wanted = BTreeMap::new();
    for (zone, share) in shares {
        let desired = share * endpoints as f64;
        let minimum = (desired / (1.0 + OVERLOAD)).ceil();
        left -= minimum;
        wanted.insert(zone.clone(), desired.max(minimum));
    }
    if left < 0.0 { Err(because(TOO_UNEVEN)) } else { Ok(wanted) }
}

fn most(zones: &BTreeMap<String, f64>) -> Option<(String, f64)> {
    zones.iter().filter(|(_, n)| **n > 0.0).max_by(|a, b| a.1.total_cmp(b.1).then_with(|| b.0.cmp(a.0))).map(|(zone, n)| (zone.clone(), *n))
}

/// How many endpoints go from which zones, and to which.
fn redistribution(wanted: &BTreeMap<String, f64>, have: &BTreeMap<String, usize>) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let difference = |sign: f64| -> BTreeMap<String, f64> {
        wanted.iter().map(|(zone, wanted)| (zone.clone(), sign * (have.get(zone).copied().unwrap_or(0) as f64 - wanted))).filter(|(_, n)| *n > 0.0).collect()
    };
    let (mut surplus, mut need) = (difference(1.0), difference(-1.0));
    let (mut giving, mut receiving) = (BTreeMap::new(), BTreeMap::new());
    while let (Some((from, many)), Some((to, few))) = (most(&surplus), most(&need)) {
        if (many < 1.0 && few < 1.0) || many < 0.5 || few < 0.5 {
            break;
        }
        *giving.entry(from.clone()).or_default() += 1;
        *receiving.entry(to.clone()).or_default() += 1;
        surplus.insert(from, many - 1.0);
        need.insert(to, few - 1.0);
    }
    (giving, receiving)
}

fn take(zones: &mut BTreeMap<String, usize>, zone: &str) -> bool {
    match zones.get_mut(zone) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    }
}

/// Writes the hints of `topology-mode: Auto` into the endpoints of one address family; without any when it fails. `before` is the zone that an endpoint was for.
pub fn auto(endpoints: &mut [&mut Endpoint], shares: Option<&BTreeMap<String, f64>>, before: impl Fn(&Endpoint) -> Option<String>) -> Result<(), String> {
    let mut ready: Vec<&mut Endpoint> = endpoints.iter_mut().map(|endpoint| &mut **endpoint).filter(|endpoint| self::ready(endpoint)).collect();
    let wanted = allocations(shares, ready.len())?;
    let mut have: BTreeMap<String, usize> = BTreeMap::new();
    for endpoint in &ready {
        *have.entry(zone(endpoint).ok_or_else(|| NO_ZONE.to_owned())?.to_owned()).or_default() += 1;
    }
    let (mut giving, mut receiving) = redistribution(&wanted, &have);
    let mut lent = BTreeSet::new();
    // First those that are lent already.
    for (i, endpoint) in ready.iter_mut().enumerate() {
        let home = zone(endpoint).unwrap_or_default().to_owned();
        let Some(to) = before(endpoint).filter(|to| *to != home) else { continue };
        if giving.get(&home).is_some_and(|n| *n > 0) && take(&mut receiving, &to) && take(&mut giving, &home) {
            endpoint.hints = Some(for_zone(&to));
            lent.insert(i);
        }
    }
    for (_, endpoint) in ready.iter_mut().enumerate().filter(|(i, _)| !lent.contains(i)) {
        let home = zone(endpoint).unwrap_or_default().to_owned();
        let needy = receiving.iter().find(|(_, n)| **n > 0).map(|(zone, _)| zone.clone());
        let to = needy.filter(|to| take(&mut giving, &home) && take(&mut receiving, to)).unwrap_or(home);
        endpoint.hints = Some(for_zone(&to));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(annotations: Value, distribution: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": {"trafficDistribution": distribution}})).unwrap()
    }

    #[test]
    fn what_is_asked_for() {
        for (annotations, distribution, expected) in [
            (json!({}), json!(null), Wanted::Nothing),
            (json!({}), json!("PreferClose"), Wanted::SameZone),
            (json!({}), json!("PreferSameZone"), Wanted::SameZone),
            (json!({}), json!("PreferSameNode"), Wanted::SameNode),
            (json!({MODE: "Auto"}), json!("PreferSameNode"), Wanted::Auto),
            (json!({OLD_MODE: "Disabled", MODE: "Auto"}), json!("PreferClose"), Wanted::SameZone),
            (json!({MODE: "other"}), json!(null), Wanted::Nothing),
        ] {
            assert_eq!(wanted(&service(annotations.clone(), distribution.clone())), expected, "{annotations} {distribution}");
        }
    }

    fn endpoint(ready: bool, zone: Option<&str>) -> Endpoint {
        serde_json::from_value(json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "nodeName": "n1", "zone": zone})).unwrap()
    }

    #[test]
    fn where_it_is() {
        let show = |endpoint: &Endpoint, wanted| close(endpoint, wanted).map(|hints| crate::op::value(&hints));
        let here = endpoint(true, Some("a"));
        assert_eq!(show(&here, Wanted::SameZone), Some(json!({"forZones": [{"name": "a"}]})));
        assert_eq!(show(&here, Wanted::SameNode), Some(json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]})));
        assert_eq!(show(&here, Wanted::Nothing), None);
        assert_eq!(show(&endpoint(true, None), Wanted::SameZone), None);
        assert_eq!(show(&endpoint(true, None), Wanted::SameNode), Some(json!({"forNodes": [{"name": "n1"}]})));
        assert_eq!(show(&endpoint(false, Some("a")), Wanted::SameZone), None, "only who is ready");
    }

    #[test]
    fn by_share() {
        let shares = |list: &[(&str, f64)]| -> BTreeMap<String, f64> { list.iter().map(|(zone, share)| ((*zone).to_owned(), *share)).collect() };
        let even = shares(&[("a", 0.5), ("b", 0.5)]);
        let three = shares(&[("a", 0.4), ("b", 0.3), ("c", 0.3)]);
        // The zones of the endpoints (`-`: not ready, `?`: no zone), then the zones they are for.
        for (what, given, before, shares, expected) in [
            ("each zone has its share", "a b", "", Some(&even), Ok("a b")),
            ("all in one zone: half are lent", "a a a a", "", Some(&even), Ok("b b a a")),
            ("who was lent stays lent", "a a a a", "a b a b", Some(&even), Ok("a b a b")),
            ("three zones", "a a a a b b b c c c", "", Some(&three), Ok("a a a a b b b c c c")),
            ("who is not ready does not count", "a b - a b", "", Some(&even), Ok("a b . a b")),
            ("half an endpoint too many is none", "a a b", "", Some(&even), Err("Unable to allocate minimum required endpoints to each zone without exceeding overload threshold (3 endpoints, 2 zones)")),
            ("fewer than zones", "a", "", Some(&even), Err("Insufficient number of endpoints (1 endpoints, 2 zones)")),
            ("nothing is known of the nodes", "a b", "", None, Err(NO_NODE_INFO)),
            ("one has no zone", "a ?", "", Some(&even), Err(NO_ZONE)),
        ] {
            let mut endpoints: Vec<Endpoint> = given.split(' ').map(|zone| endpoint(zone != "-", Some(zone).filter(|zone| *zone != "?" && *zone != "-"))).collect();
            for (i, endpoint) in endpoints.iter_mut().enumerate() {
                endpoint.hostname = before.split(' ').nth(i).filter(|zone| !zone.is_empty()).map(str::to_owned);
            }
            let result = auto(&mut endpoints.iter_mut().collect::<Vec<_>>(), shares, |endpoint| endpoint.hostname.clone());
            let shown: Vec<&str> = endpoints.iter().map(|endpoint| hinted_zone(endpoint).unwrap_or(".")).collect();
            assert_eq!(result.map(|()| shown.join(" ")), expected.map(str::to_owned).map_err(str::to_owned), "{what}");
        }
    }

    #[test]
    fn shares_of_nodes() {
        let node = |zone: Value, cpu: Value, ready: &str, labels: Value| -> Node {
            let mut labels = labels;
            labels[ZONE] = zone;
            if labels[ZONE].is_null() {
                labels.as_object_mut().unwrap().remove(ZONE);
            }
            serde_json::from_value(json!({"metadata": {"labels": labels}, "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]}})).unwrap()
        };
        let (a, b) = (node(json!("a"), json!("3"), "True", json!({})), node(json!("b"), json!("1000m"), "True", json!({})));
        let of = |nodes: &[&Node]| shares(nodes.iter().copied()).map(|shares| shares.into_iter().map(|(zone, share)| format!("{zone} {share}")).collect::<Vec<_>>().join(", "));
        assert_eq!(of(&[&a, &b]).as_deref(), Some("a 0.75, b 0.25"));
        assert_eq!(of(&[&a]), None, "one zone");
        assert_eq!(of(&[&a, &b, &node(json!(null), json!("1"), "True", json!({}))]), None, "one without a zone");
        assert_eq!(of(&[&a, &b, &node(json!(null), json!("1"), "False", json!({}))]).as_deref(), Some("a 0.75, b 0.25"), "who is not ready does not count");
        assert_eq!(of(&[&a, &node(json!("b"), json!("1"), "True", json!({"node-role.kubernetes.io/control-plane": ""}))]), None, "nor the control plane");
    }
}
