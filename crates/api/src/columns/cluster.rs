//! APIServices and the dynamic resource allocation and gang scheduling kinds.

use serde_json::Value;

use super::format::{NONE, name};
use super::{Printer, age, since};
use crate::kinds::json::{child, list, number, text};

const API_SERVICES: Printer = Printer {
    columns: "Name|Service|Available|Age",
    cells: |object, now| {
        let service = child(object, "spec.service").map_or("Local".to_owned(), |service| format!("{}/{}", text(service, "namespace"), text(service, "name")));
        let available = list(object, "status.conditions").iter().find(|condition| text(condition, "type") == "Available");
        let available = available.map_or("Unknown".to_owned(), |condition| match (text(condition, "status"), text(condition, "reason")) {
            ("True", _) => "True".to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        });
        vec![name(object), service.into(), available.into(), age(object, now).into()]
    },
};

const NAME_AGE: Printer = Printer { columns: "Name|Age", cells: |object, now| vec![name(object), age(object, now).into()] };

const RESOURCE_CLAIMS: Printer = Printer {
    columns: "Name|State|Age",
    cells: |object, now| {
        let deleted = child(object, "metadata.deletionTimestamp").is_some();
        let mut states = Vec::new();
        if deleted {
            states.push("deleted");
        }
        if child(object, "status.allocation").is_some() {
            states.push("allocated");
            if !list(object, "status.reservedFor").is_empty() {
                states.push("reserved");
            }
        } else if !deleted {
            states.push("pending");
        }
        vec![name(object), states.join(",").into(), age(object, now).into()]
    },
};

const RESOURCE_SLICES: Printer = Printer {
    columns: "Name|Node|Driver|Pool|Age",
    cells: |object, now| vec![name(object), text(object, "spec.nodeName").into(), text(object, "spec.driver").into(), text(object, "spec.pool.name").into(), age(object, now).into()],
};

const DEVICE_TAINTS: Printer = Printer {
    columns: "Name|Key|Value|Effect|TimeAdded|Age",
    cells: |object, now| {
        let added = match text(object, "spec.taint.timeAdded") {
            "" => String::new(),
            at => since(at, now),
        };
        let of = |path: &str| Value::from(text(object, path));
        vec![name(object), of("spec.taint.key"), of("spec.taint.value"), of("spec.taint.effect"), added.into(), age(object, now).into()]
    },
};

const POOL_REQUESTS: Printer = Printer {
    columns: "Name|Driver|Total|Available|Allocated|Unavailable|Errors|Pools:i|Status|Completed",
    cells: |object, now| {
        let done = list(object, "status.conditions").iter().find(|condition| text(condition, "status") == "True" && matches!(text(condition, "type"), "Complete" | "Failed"));
        let pools = list(object, "status.pools");
        let pool_count = number(object, "status.poolCount").unwrap_or(0);
        let word = done.map_or("Pending", |condition| text(condition, "type"));
        let shown = child(object, "status").is_some() && word != "Failed";
        let sum = |field: &str| if shown { pools.iter().filter_map(|pool| number(pool, field)).sum::<i64>().to_string() } else { "-".to_owned() };
        let errors = if shown { pools.iter().filter(|pool| child(pool, "validationError").is_some()).count().to_string() } else { "-".to_owned() };
        let partial = word == "Complete" && pool_count > pools.len() as i64;
        let status = if partial { format!("Complete ({}/{pool_count} pools)", pools.len()) } else { word.to_owned() };
        let completed = done.filter(|_| word == "Complete").map_or(NONE.to_owned(), |condition| since(text(condition, "lastTransitionTime"), now));
        vec![
            name(object),
            text(object, "spec.driver").into(),
            sum("totalDevices").into(),
            sum("availableDevices").into(),
            sum("allocatedDevices").into(),
            sum("unavailableDevices").into(),
            errors.into(),
            pool_count.into(),
            status.into(),
            completed.into(),
        ]
    },
};

const POD_GROUPS: Printer = Printer {
    columns: "Name|Policy|Workload|Status|Age",
    cells: |object, now| {
        let condition = |kind: &str| list(object, "status.conditions").iter().rfind(|condition| text(condition, "type") == kind);
        let scheduled = condition("PodGroupScheduled").map_or("Pending", |condition| if text(condition, "status") == "True" { "Scheduled" } else { "Unschedulable" });
        let status = condition("DisruptionTarget").map_or(scheduled, |condition| text(condition, "reason"));
        let policy = if child(object, "spec.schedulingPolicy.gang").is_some() { "Gang" } else { "Basic" };
        let workload = child(object, "spec.podGroupTemplateRef").map_or(NONE, |reference| text(reference, "workload.workloadName"));
        vec![name(object), policy.into(), workload.into(), status.into(), age(object, now).into()]
    },
};

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    Some(match (group, plural) {
        ("apiregistration.k8s.io", "apiservices") => &API_SERVICES,
        ("resource.k8s.io", "deviceclasses" | "resourceclaimtemplates") | ("scheduling.k8s.io", "workloads") => &NAME_AGE,
        ("resource.k8s.io", "resourceclaims") => &RESOURCE_CLAIMS,
        ("resource.k8s.io", "resourceslices") => &RESOURCE_SLICES,
        ("resource.k8s.io", "devicetaintrules") => &DEVICE_TAINTS,
        ("resource.k8s.io", "resourcepoolstatusrequests") => &POOL_REQUESTS,
        ("scheduling.k8s.io", "podgroups") => &POD_GROUPS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn cluster_kinds() {
        let service = json!({"spec": {"service": {"namespace": "n", "name": "s"}}, "status": {"conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]}});
        assert_eq!(line("apiregistration.k8s.io", "v1", "apiservices", service), "x|n/s|False (MissingEndpoints)|5m");
        assert_eq!(line("apiregistration.k8s.io", "v1", "apiservices", json!({"spec": {}})), "x|Local|Unknown|5m");
        assert_eq!(line("resource.k8s.io", "v1", "resourceclaims", json!({"status": {"allocation": {}, "reservedFor": [{}]}})), "x|allocated,reserved|5m");
    }
}
