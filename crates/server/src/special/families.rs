//! The address families of a Service: one stack or two, asked for or inferred, and what may not be combined.
//!
//! Mirrors pkg/registry/core/service/storage/alloc.go `initIPFamilyFields`, before addresses are given out.

use std::net::IpAddr;

use ::api::{Cause, Resource, Status};
use serde_json::{Value, json};

use crate::registry::text;

fn strings(service: &Value, field: &str) -> Vec<String> {
    service.pointer(&format!("/spec/{field}")).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn family(address: &str) -> Option<&'static str> {
    address.parse::<IpAddr>().ok().map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" })
}

/// Checks and completes `ipFamilies` of a Service that has a cluster address; `known` are the cluster's families.
pub fn settle(row: &Resource, service: &mut Value, old: Option<&Value>, known: &[&str]) -> Result<(), Status> {
    let mut causes = Vec::new();
    let mut refuse = |field: String, value: &Value, why: &str| causes.push(Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {value}: {why}"), field });
    let policy = service.pointer("/spec/ipFamilyPolicy").cloned().unwrap_or(Value::Null);
    let single = policy == "SingleStack";
    for (field, released) in [("clusterIPs", "must be 'SingleStack' to release the secondary cluster IP"), ("ipFamilies", "must be 'SingleStack' to release the secondary IP family")] {
        let Some(old) = old else { continue };
        let (was, mut is) = (strings(old, field), strings(service, field));
        if single && was == is && is.len() > 1 {
            // The policy alone says that the second one is to go.
            is.truncate(1);
            service["spec"][field] = json!(is);
        } else if !single && was.len() == 2 && is.len() == 1 {
            refuse("spec.ipFamilyPolicy".into(), &policy, released);
        }
    }
    let addresses = strings(service, "clusterIPs");
    let mut families = strings(service, "ipFamilies");
    for (many, what) in [(addresses.len() == 2, "cluster IPs"), (families.len() == 2, "IP families")] {
        if single && many {
            refuse("spec.ipFamilyPolicy".into(), &policy, &format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"));
        }
    }
    for (index, address) in addresses.iter().enumerate().skip(families.len()) {
        match family(address) {
            Some(family) if known.contains(&family) => families.push(family.to_owned()),
            // With one stack the address itself is refused where it is taken, for lying outside of the range.
            Some(family) if index > 0 => refuse(format!("spec.clusterIPs[{index}]"), &json!(addresses), &format!("{family} is not configured on this cluster")),
            _ => break,
        }
    }
    if policy == "RequireDualStack" && known.len() < 2 {
        refuse("spec.ipFamilyPolicy".into(), &policy, "this cluster is not configured for dual-stack services");
    }
    for (index, family) in families.iter().enumerate().filter(|(_, family)| !known.contains(&family.as_str())) {
        refuse(format!("spec.ipFamilies[{index}]"), &json!(family), "not configured on this cluster");
    }
    if !causes.is_empty() {
        return Err(Status::invalid(&row.group, &row.kind, text(service, "/metadata/name"), causes));
    }
    if !families.is_empty() {
        service["spec"]["ipFamilies"] = json!(families);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_checked_and_inferred() {
        let row = ::api::table::table().find("", "v1", "services").unwrap();
        let settled = |spec: Value, old: Option<Value>, known: &[&str]| {
            let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
            let old = old.map(|spec| json!({"spec": spec}));
            match settle(row, &mut service, old.as_ref(), known) {
                Ok(()) => format!("{} {}", json!(strings(&service, "clusterIPs")), json!(strings(&service, "ipFamilies"))),
                Err(status) => status.message.trim_start_matches("Service \"s\" is invalid: ").to_owned(),
            }
        };
        let both = ["IPv4", "IPv6"];
        let dual = json!({"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]});
        let with = |field: &str, value: Value| {
            let mut spec = dual.clone();
            spec[field] = value;
            spec
        };
        let cases = [
            (json!({}), None, &both[..], "[] []"),
            (json!({"clusterIPs": ["fd00::1", "10.0.0.1"]}), None, &both, r#"["fd00::1","10.0.0.1"] ["IPv6","IPv4"]"#),
            (json!({"ipFamilyPolicy": "RequireDualStack"}), None, &both[..1], "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"),
            (json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": both}), None, &both, "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"),
            (json!({"ipFamilies": ["IPv6"]}), None, &both[..1], "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
            (with("ipFamilyPolicy", json!("SingleStack")), Some(dual.clone()), &both, r#"["10.0.0.1"] ["IPv4"]"#),
            (with("clusterIPs", json!(["10.0.0.1"])), Some(dual.clone()), &both, "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary cluster IP"),
        ];
        for (spec, old, known, want) in cases {
            assert_eq!(settled(spec.clone(), old, known), want, "{spec}");
        }
    }
}
