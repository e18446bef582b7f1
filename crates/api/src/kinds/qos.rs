//! Quality of service classes, as k8s.io/kubernetes/pkg/apis/core/helper/qos.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{child, list, map, text};
use crate::quantity::Quantity;

const COMPUTE: [&str; 2] = ["cpu", "memory"];

fn positive(resources: &Value, kind: &str, name: &str) -> Option<Quantity> {
    let quantity = Quantity::from_json(map(resources, kind)?.get(name)?).ok()?;
    (quantity.sign() > 0).then_some(quantity)
}

/// What the containers of a pod spec ask for of one resource: the sum, or the largest init container, plus sidecars.
pub fn container_requests(spec: &Value, name: &str) -> Option<Quantity> {
    let of = |container: &Value| positive(container, "resources.requests", name);
    let add = |sum: Option<Quantity>, more: Option<Quantity>| match (sum, more) {
        (Some(a), Some(b)) => Some(a.plus(&b)),
        (a, b) => a.or(b),
    };
    let (mut sidecars, mut peak) = (None, None);
    for container in list(spec, "initContainers") {
        if text(container, "restartPolicy") == "Always" {
            sidecars = add(sidecars, of(container));
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(add(sidecars, of(container)));
        }
    }
    let running = list(spec, "containers").iter().map(of).fold(sidecars, add);
    running.max(peak)
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Value) -> &'static str {
    let Some(spec) = child(pod, "spec") else { return "BestEffort" };
    let (mut requests, mut limits) = (BTreeMap::<&str, Quantity>::new(), BTreeMap::<&str, Quantity>::new());
    let mut guaranteed = true;
    let mut take = |holder: &Value| {
        for name in COMPUTE {
            if let Some(quantity) = positive(holder, "resources.requests", name) {
                let sum = requests.get(name).map_or(quantity, |have| have.plus(&quantity));
                requests.insert(name, sum);
            }
            match positive(holder, "resources.limits", name) {
                Some(quantity) => {
                    let sum = limits.get(name).map_or(quantity, |have| have.plus(&quantity));
                    limits.insert(name, sum);
                }
                None => guaranteed = false,
            }
        }
    };
    if child(spec, "resources").is_some() {
        take(spec);
    } else {
        list(spec, "containers").iter().chain(list(spec, "initContainers")).for_each(&mut take);
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        for (resources, expected) in [
            (vec![json!({})], "BestEffort"),
            (vec![full.clone()], "Guaranteed"),
            (vec![full, json!({})], "Burstable"),
            (vec![json!({"requests": {"cpu": "1m"}})], "Burstable"),
            (vec![json!({"requests": {"cpu": "0"}})], "BestEffort"),
            (vec![json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})], "Burstable"),
        ] {
            let containers: Vec<Value> = resources.into_iter().map(|resources| json!({"resources": resources})).collect();
            assert_eq!(class(&json!({"spec": {"containers": containers}})), expected);
        }
    }
}
