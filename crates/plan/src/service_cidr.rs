//! ServiceCIDRs: ready as long as they are there, and gone only when no Service is left without a range.
//!
//! Watches: ServiceCIDRs, IPAddresses. Writes: the finalizer and the condition Ready of ServiceCIDRs. Never: lets a range go that is the only one of an address
//! in use. Mirrors `pkg/controller/servicecidrs` (KEP-1880); the API server gives addresses out of the ranges that are ready.

use std::net::IpAddr;
use std::sync::Arc;

use api::k8s::api::networking::v1::{IPAddress, ServiceCIDR};
use jiff::Timestamp;
use serde_json::json;

use crate::ip_address::managed;
use crate::meta::{deleting, has_finalizer, name, plus_seconds, time, until};
use crate::node::ipam::Cidr;
use crate::op::{At, Op, PatchKind, Plan};

pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Until every API server has seen that a range is going, one of them may still give an address out of it.
const DELETION_SECONDS: i64 = 10;
const READY: &str = "Kubernetes Service CIDR is ready";
const IN_USE: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

pub struct View {
    pub cidr: Arc<ServiceCIDR>,
    /// All there are; this one too.
    pub cidrs: Vec<Arc<ServiceCIDR>>,
    pub addresses: Vec<Arc<IPAddress>>,
}

/// The ranges of a ServiceCIDR.
pub fn ranges(cidr: &ServiceCIDR) -> impl Iterator<Item = Cidr> {
    cidr.spec.iter().flat_map(|spec| &spec.cidrs).flatten().filter_map(|text| text.parse().ok())
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let cidr = view.cidr.as_ref();
    if let Some(told) = cidr.metadata.deletion_timestamp.as_ref() {
        if !has_finalizer(cidr, FINALIZER) {
            return plan;
        }
        if in_use(view) {
            condition(cidr, "False", "Terminating", IN_USE, now, &mut plan);
        } else if let Some(left) = until(plus_seconds(told.0, DELETION_SECONDS), now) {
            plan.look_again(left);
        } else {
            plan.push(patch(cidr, None, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})));
        }
        return plan;
    }
    if !has_finalizer(cidr, FINALIZER) {
        plan.push(patch(cidr, None, json!({"metadata": {"finalizers": [FINALIZER]}})));
    }
    condition(cidr, "True", "", READY, now, &mut plan);
    plan
}

/// Whether without it an address would lie in no range.
fn in_use(view: &View) -> bool {
    let own = name(view.cidr.as_ref());
    let others: Vec<&Arc<ServiceCIDR>> = view.cidrs.iter().filter(|other| name(other.as_ref()) != own).collect();
    if ranges(&view.cidr).all(|range| others.iter().any(|other| ranges(other).any(|wider| wider.contains(range)))) {
        return false;
    }
    let offers = |cidr: &ServiceCIDR, address: IpAddr| ranges(cidr).any(|range| range.offers(address));
    let used = view.addresses.iter().filter(|address| managed(address)).filter_map(|address| name(address.as_ref()).parse().ok());
    used.filter(|address| offers(&view.cidr, *address)).any(|address| !others.iter().any(|other| offers(other, address)))
}

fn patch(cidr: &ServiceCIDR, subresource: Option<&'static str>, patch: serde_json::Value) -> Op {
    Op::Patch { at: At::object(cidr), subresource, kind: PatchKind::Strategic, patch }
}

fn condition(cidr: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp, plan: &mut Plan) {
    let known = cidr.status.iter().flat_map(|status| &status.conditions).flatten().find(|condition| condition.type_ == "Ready");
    if known.is_some_and(|known| known.status == status && known.reason == reason && known.message == message) {
        return;
    }
    let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": time(now)});
    plan.push(patch(cidr, Some("status"), json!({"status": {"conditions": [condition]}})));
}

/// Those whose fate hangs on `changed`: ranges that overlap with its own.
pub fn neighbours(changed: &ServiceCIDR, all: &[Arc<ServiceCIDR>]) -> Vec<String> {
    let touches = |other: &ServiceCIDR| ranges(other).any(|one| ranges(changed).any(|range| range.overlaps(one)));
    all.iter().filter(|other| deleting(other.as_ref()) && touches(other)).map(|other| name(other.as_ref()).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn cidr(name: &str, ranges: &[&str], gone: Option<&str>) -> Arc<ServiceCIDR> {
        let finalizers: &[&str] = if gone.is_some() { &[FINALIZER] } else { &[] };
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "deletionTimestamp": gone, "finalizers": finalizers}, "spec": {"cidrs": ranges}})).unwrap())
    }

    fn address(name: &str) -> Arc<IPAddress> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}}, "spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}})).unwrap())
    }

    fn lines(cidr: &Arc<ServiceCIDR>, others: &[Arc<ServiceCIDR>], addresses: &[&str]) -> String {
        let cidrs = others.iter().chain([cidr]).cloned().collect();
        plan(&View { cidr: cidr.clone(), cidrs, addresses: addresses.iter().map(|name| address(name)).collect() }, NOW.parse().unwrap()).to_string()
    }

    #[test]
    fn one_that_is_there_is_protected_and_ready() {
        let lines = lines(&cidr("new", &["10.200.0.0/24"], None), &[], &[]);
        assert!(lines.starts_with("patch ServiceCIDR new {\"metadata\":{\"finalizers\":[\"networking.k8s.io/service-cidr-finalizer\"]}}\npatch ServiceCIDR new/status "), "{lines}");
        assert!(lines.contains("Kubernetes Service CIDR is ready"), "{lines}");
    }

    #[test]
    fn one_that_goes_waits_for_its_addresses() {
        let going = cidr("new", &["10.200.0.0/24"], Some("2026-11-22T11:59:00Z"));
        let released = "patch ServiceCIDR new {\"metadata\":{\"$deleteFromPrimitiveList/finalizers\":[\"networking.k8s.io/service-cidr-finalizer\"]}}\n";
        let (same, wider) = (cidr("same", &["10.200.0.0/24"], None), cidr("wider", &["10.0.0.0/8"], None));
        let part = cidr("part", &["10.200.0.0/28"], None);
        assert!(lines(&going, &[], &["10.200.0.5"]).contains("\"reason\":\"Terminating\""));
        assert!(lines(&going, &[part.clone()], &["10.200.0.5", "10.200.0.99"]).contains("\"reason\":\"Terminating\""));
        assert_eq!(lines(&going, &[part], &["10.200.0.5"]), released);
        assert_eq!(lines(&going, &[], &["10.96.0.1"]), released);
        assert_eq!(lines(&going, &[same], &["10.200.0.5"]), released);
        assert_eq!(lines(&going, &[wider], &["10.200.0.5"]), released);
        assert_eq!(lines(&cidr("new", &["10.200.0.0/24"], Some("2026-11-22T11:59:55Z")), &[], &[]), "again in 5s\n");
    }

    #[test]
    fn who_is_asked_again() {
        let all = [cidr("a", &["10.200.0.0/24"], Some(NOW)), cidr("b", &["10.201.0.0/24"], Some(NOW)), cidr("c", &["10.200.0.0/16"], None)];
        assert_eq!(neighbours(&all[2], &all), ["a"]);
    }
}
