//! ConfigMaps, Secrets, ServiceAccounts, ResourceQuotas, PriorityClasses, RuntimeClasses.

use serde_json::Value;

use super::format::{count, name, quantity};
use super::{Printer, age};
use crate::kinds::json::{flag, map, text};

fn entries(object: &Value, path: &str) -> usize {
    map(object, path).map_or(0, serde_json::Map::len)
}

const CONFIG_MAPS: Printer = Printer { columns: "Name|Data|Age", cells: |object, now| vec![name(object), (entries(object, "data") + entries(object, "binaryData")).into(), age(object, now).into()] };

const SECRETS: Printer = Printer { columns: "Name|Type|Data|Age", cells: |object, now| vec![name(object), text(object, "type").into(), entries(object, "data").into(), age(object, now).into()] };

const SERVICE_ACCOUNTS: Printer = Printer { columns: "Name|Age", cells: |object, now| vec![name(object), age(object, now).into()] };

const RESOURCE_QUOTAS: Printer = Printer {
    columns: "Name|Request|Limit|Age",
    cells: |object, now| {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in map(object, "status.hard").into_iter().flatten() {
            let used = map(object, "status.used").and_then(|used| used.get(resource));
            let shown = format!("{resource}: {}/{}", quantity(used), quantity(Some(hard)));
            if resource.starts_with("limits.") { limits.push(shown) } else { requests.push(shown) }
        }
        vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now).into()]
    },
};

const PRIORITY_CLASSES: Printer = Printer {
    columns: "Name|Value:i|Global-Default:b|Age|PreemptionPolicy",
    cells: |object, now| vec![name(object), count(object, "value"), flag(object, "globalDefault").into(), age(object, now).into(), text(object, "preemptionPolicy").into()],
};

const RUNTIME_CLASSES: Printer = Printer { columns: "Name|Handler|Age", cells: |object, now| vec![name(object), text(object, "handler").into(), age(object, now).into()] };

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    Some(match (group, plural) {
        ("", "configmaps") => &CONFIG_MAPS,
        ("", "secrets") => &SECRETS,
        ("", "serviceaccounts") => &SERVICE_ACCOUNTS,
        ("", "resourcequotas") => &RESOURCE_QUOTAS,
        ("scheduling.k8s.io", "priorityclasses") => &PRIORITY_CLASSES,
        ("node.k8s.io", "runtimeclasses") => &RUNTIME_CLASSES,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn configuration() {
        let cases = [
            ("", "configmaps", json!({"data": {"a": "1"}, "binaryData": {"b": ""}}), "x|2|5m"),
            ("", "secrets", json!({"type": "Opaque", "data": {"a": "MQ=="}}), "x|Opaque|1|5m"),
            ("", "serviceaccounts", json!({}), "x|5m"),
            (
                "",
                "resourcequotas",
                json!({"status": {"hard": {"cpu": "1", "limits.cpu": "2", "pods": "10"}, "used": {"cpu": "500m", "pods": "3"}}}),
                "x|cpu: 500m/1, pods: 3/10|limits.cpu: 0/2|5m",
            ),
            ("scheduling.k8s.io", "priorityclasses", json!({"value": 7}), "x|7|false|5m|"),
        ];
        for (group, plural, object, expected) in cases {
            assert_eq!(line(group, "v1", plural, object), expected);
        }
    }
}
