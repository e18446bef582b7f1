//! The status of a ResourceClaim: what was allocated, for whom it is reserved, and what drivers say of the devices. Mirrors ValidateResourceClaimStatusUpdate of
//! pkg/apis/resource/validation and dropDeallocatedStatusDevices of pkg/registry/resource/resourceclaim.

use std::collections::BTreeSet;

use serde_json::Value;

use super::affinity::node_selector;
use super::json::{child, child_mut, list, strings, text};
use super::volume_sources::driver_name;
use super::{conditions, devices};
use crate::internal;
use crate::names;
use crate::validation::{Errors, Path, Shown};

const RESERVED_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
/// Those of the class and those of the claim.
const CONFIG_MAX: usize = 64;
const CONDITIONS_MAX: usize = 8;
const DATA_MAX: usize = 10 * 1024;
const INTERFACE_NAME_MAX: usize = 256;
const HARDWARE_ADDRESS_MAX: usize = 128;
const ADDRESSES_MAX: usize = 16;

/// Which device something is said of: driver, pool, device and share.
fn device_id(of: &Value) -> [&str; 4] {
    ["driver", "pool", "device", "shareID"].map(|name| text(of, name))
}

fn allocated(claim: &Value) -> BTreeSet<[&str; 4]> {
    list(claim, "status.allocation.devices.results").iter().map(device_id).collect()
}

/// Nothing is said any more of devices that were given back.
pub fn forget_given_back(new: &mut Value, old: &Value) {
    let (before, now) = (allocated(old), allocated(new));
    let kept: Vec<Value> = list(new, "status.devices").iter().filter(|device| !before.contains(&device_id(device)) || now.contains(&device_id(device))).cloned().collect();
    let Some(status) = child_mut(new, "status").and_then(Value::as_object_mut) else { return };
    if kept.is_empty() {
        status.remove("devices");
    } else {
        status.insert("devices".to_owned(), Value::Array(kept));
    }
}

pub fn check(errors: &mut Errors, new: &Value, old: &Value) {
    let path = Path::Root("status");
    let (reserved, field) = (list(new, "status.reservedFor"), path.child("reservedFor"));
    if devices::within(errors, &field, reserved.len(), RESERVED_MAX) {
        for (index, consumer) in reserved.iter().enumerate() {
            for name in ["resource", "name", "uid"].into_iter().filter(|name| text(consumer, name).is_empty()) {
                errors.required(&field.index(index).child(name), "");
            }
        }
        unique(errors, &field, reserved.iter().map(|consumer| text(consumer, "uid")), str::to_owned);
    }
    let known = allocated(new);
    let (said, field_of_devices) = (list(new, "status.devices"), path.child("devices"));
    for (index, device) in said.iter().enumerate() {
        check_device(errors, &field_of_devices.index(index), device, &known);
    }
    unique(errors, &field_of_devices, said.iter().map(device_id), SharedDeviceId);
    let (allocation, before) = (child(new, "status.allocation"), child(old, "status.allocation"));
    if !reserved.is_empty() && allocation.is_none() {
        errors.forbidden(&field, "may not be specified when `allocated` is not set");
    } else if child(new, "metadata.deletionTimestamp").is_some() && reserved.iter().any(|consumer| !list(old, "status.reservedFor").contains(consumer)) {
        errors.forbidden(&field, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set");
    }
    match (allocation, before) {
        (Some(_), Some(_)) => internal::immutable(errors, &path, "resource.v1.ResourceClaimStatus", "allocation", child(new, "status"), child(old, "status")),
        (Some(allocation), None) => check_allocation(errors, &path.child("allocation"), allocation, new),
        (None, _) => {}
    }
}

fn unique<K: Ord + Copy, S: Shown>(errors: &mut Errors, path: &Path, keys: impl Iterator<Item = K>, shown: fn(K) -> S) {
    let mut seen = BTreeSet::new();
    for (index, key) in keys.enumerate().filter(|(_, key)| !seen.insert(*key)) {
        errors.duplicate(&path.index(index), &shown(key));
    }
}

fn check_device(errors: &mut Errors, path: &Path, device: &Value, known: &BTreeSet<[&str; 4]>) {
    driver_name(errors, &path.child("driver"), text(device, "driver"));
    devices::pool_name(errors, &path.child("pool"), text(device, "pool"));
    errors.name(&path.child("device"), text(device, "device"), names::dns_label);
    share_id(errors, &path.child("shareID"), device);
    if !known.contains(&device_id(device)) {
        errors.invalid(path, &SharedDeviceId(device_id(device)), "must be an allocated device in the claim");
    }
    let (said, field) = (list(device, "conditions"), path.child("conditions"));
    if said.len() > CONDITIONS_MAX {
        errors.too_many(&field, said.len(), CONDITIONS_MAX);
    }
    conditions::check(errors, &field, said);
    let field = path.child("data");
    match child(device, "data") {
        None | Some(Value::Object(_)) if child(device, "data").is_none_or(|data| data.to_string().len() <= DATA_MAX) => {}
        Some(Value::Object(_)) => errors.too_long(&field, DATA_MAX),
        _ => errors.invalid(&field, "<value omitted>", "must be a valid JSON object"),
    }
    if let Some(network) = child(device, "networkData") {
        check_network(errors, &path.child("networkData"), network);
    }
}

/// How messages show which device they mean.
struct SharedDeviceId<'a>([&'a str; 4]);

impl Shown for SharedDeviceId<'_> {
    fn shown(&self) -> String {
        let fields = ["Driver", "Pool", "Device", "ShareID"].iter().zip(self.0);
        let fields: Vec<String> = fields.map(|(name, value)| format!("\"{name}\":{}", value.shown())).collect();
        format!("{{{}}}", fields.join(","))
    }
}

fn check_network(errors: &mut Errors, path: &Path, network: &Value) {
    for (name, max) in [("interfaceName", INTERFACE_NAME_MAX), ("hardwareAddress", HARDWARE_ADDRESS_MAX)] {
        if text(network, name).len() > max {
            errors.too_long(&path.child(name), max);
        }
    }
    let (field, addresses) = (path.child("ips"), strings(network, "ips").collect::<Vec<_>>());
    if devices::within(errors, &field, addresses.len(), ADDRESSES_MAX) {
        for (index, address) in addresses.iter().enumerate() {
            interface_address(errors, &field.index(index), address);
        }
        unique(errors, &field, addresses.iter().copied(), str::to_owned);
    }
}

/// An address with the length of its network's prefix, in the one way it is written.
fn interface_address(errors: &mut Errors, path: &Path, address: &str) {
    let parsed = address.split_once('/').and_then(|(ip, bits)| {
        let ip: std::net::IpAddr = ip.parse().ok()?;
        let length: u8 = bits.parse().ok()?;
        (length <= if ip.is_ipv4() { 32 } else { 128 }).then(|| format!("{ip}/{length}"))
    });
    match parsed {
        None => errors.invalid(path, address, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"),
        Some(canonical) if canonical != address => errors.invalid(path, address, &format!("must be in canonical form ({canonical:?})")),
        Some(_) => {}
    }
}

/// google/uuid's Validate takes four ways of writing a UUID, Kubernetes one of them.
fn share_id(errors: &mut Errors, path: &Path, of: &Value) {
    let Some(uid) = child(of, "shareID").and_then(Value::as_str) else { return };
    let bare = match uid.len() {
        36 | 32 => Some(uid),
        45 if uid.get(..9).is_some_and(|prefix| prefix.eq_ignore_ascii_case("urn:uuid:")) => uid.get(9..),
        45 => return errors.invalid(path, uid, &format!("error validating uid: invalid urn prefix: {:?}", uid.get(..9).unwrap_or_default())),
        38 if uid.starts_with('{') && uid.ends_with('}') => uid.get(1..37),
        38 => return errors.invalid(path, uid, "error validating uid: invalid bracketed UUID format"),
        length => return errors.invalid(path, uid, &format!("error validating uid: invalid UUID length: {length}")),
    };
    let well = bare.is_some_and(|bare| bare.bytes().enumerate().all(|(at, byte)| if bare.len() == 36 && matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() }));
    if !well {
        errors.invalid(path, uid, "error validating uid: invalid UUID format");
    } else if uid.len() != 36 || uid.bytes().any(|byte| byte.is_ascii_uppercase()) {
        errors.invalid(path, uid, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters");
    }
}

/// Of a new allocation; one that is there may be older than these rules.
fn check_allocation(errors: &mut Errors, path: &Path, allocation: &Value, claim: &Value) {
    let known: BTreeSet<String> = list(claim, "spec.devices.requests").iter().flat_map(devices::request_names).collect();
    let given = path.child("devices");
    let (field, results) = (given.child("results"), list(allocation, "devices.results"));
    if devices::within(errors, &field, results.len(), RESULTS_MAX) {
        for (index, result) in results.iter().enumerate() {
            let path = field.index(index);
            devices::reference(errors, &path.child("request"), text(result, "request"), &known);
            driver_name(errors, &path.child("driver"), text(result, "driver"));
            devices::pool_name(errors, &path.child("pool"), text(result, "pool"));
            errors.name(&path.child("device"), text(result, "device"), names::dns_label);
            devices::binding_conditions(errors, &path, result);
            share_id(errors, &path.child("shareID"), result);
        }
    }
    let (field, configs) = (given.child("config"), list(allocation, "devices.config"));
    if devices::within(errors, &field, configs.len(), CONFIG_MAX) {
        for (index, config) in configs.iter().enumerate() {
            let path = field.index(index);
            match text(config, "source") {
                "FromClaim" | "FromClass" => {}
                "" => errors.required(&path.child("source"), ""),
                other => errors.not_supported(&path.child("source"), other, &["FromClaim", "FromClass"]),
            }
            devices::references(errors, &path.child("requests"), config, &known);
            devices::configuration(errors, &path, config);
        }
    }
    if let Some(selector) = child(allocation, "nodeSelector") {
        node_selector(errors, &path.child("nodeSelector"), selector);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::lines;
    use crate::strategy::Strategy;

    fn told(old: Value, new: Value) -> Vec<String> {
        let spec = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
        lines(&super::super::scheduling::RESOURCE_CLAIM.validate_status(&json!({"spec": spec, "status": new}), &json!({"spec": spec, "status": old})))
    }

    #[test]
    fn what_was_allocated() {
        let given = |result: Value| json!({"allocation": {"devices": {"results": [result]}}});
        let one = json!({"request": "r", "driver": "d.x", "pool": "p", "device": "d"});
        let consumer = json!({"resource": "pods", "name": "p", "uid": "u"});
        assert!(told(json!({}), given(one.clone())).is_empty());
        assert_eq!(told(json!({}), json!({"reservedFor": [consumer, consumer]})), ["status.reservedFor[1]: Duplicate value: \"u\"", "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]);
        let mut other = one.clone();
        other["request"] = "q".into();
        assert_eq!(told(json!({}), given(other.clone())), ["status.allocation.devices.results[0].request: Invalid value: \"q\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"]);
        let [moved] = told(given(one), given(other)).try_into().unwrap();
        assert!(moved.starts_with("status.allocation: Invalid value: {\"Devices\":{\"Results\":[{\"Request\":\"q\",") && moved.ends_with(": field is immutable"), "{moved}");
    }

    #[test]
    fn what_is_said_of_devices() {
        let status = |device: Value| json!({"allocation": {"devices": {"results": [{"request": "r", "driver": "d.x", "pool": "p", "device": "d"}]}}, "devices": [device]});
        let of = |change: Value| {
            let mut device = json!({"driver": "d.x", "pool": "p", "device": "d"});
            change.as_object().unwrap().iter().for_each(|(name, value)| device[name] = value.clone());
            told(json!({}), status(device))
        };
        assert!(of(json!({"data": {"a": 1}, "networkData": {"ips": ["10.0.0.1/8"]}})).is_empty());
        assert_eq!(of(json!({"device": "x"})), ["status.devices[0]: Invalid value: {\"Driver\":\"d.x\",\"Pool\":\"p\",\"Device\":\"x\",\"ShareID\":\"\"}: must be an allocated device in the claim"]);
        assert_eq!(of(json!({"shareID": "x"}))[0], "status.devices[0].shareID: Invalid value: \"x\": error validating uid: invalid UUID length: 1");
        assert_eq!(of(json!({"data": 5})), ["status.devices[0].data: Invalid value: \"<value omitted>\": must be a valid JSON object"]);
        assert_eq!(of(json!({"networkData": {"ips": ["10.0.0.1"]}})), ["status.devices[0].networkData.ips[0]: Invalid value: \"10.0.0.1\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"]);
    }

    #[test]
    fn devices_that_were_given_back() {
        let allocation = json!({"devices": {"results": [{"driver": "d.x", "pool": "p", "device": "d"}]}});
        let (old, mut new) = (json!({"status": {"allocation": allocation}}), json!({"status": {"devices": [{"driver": "d.x", "pool": "p", "device": "d"}]}}));
        super::forget_given_back(&mut new, &old);
        assert_eq!(new, json!({"status": {}}));
    }
}
