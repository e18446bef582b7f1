//! LimitRanger: a namespace's default requests and limits for containers, and its bounds for containers, pods and claims.
//!
//! Mirrors plugin/pkg/admission/limitranger: https://kubernetes.io/docs/concepts/policy/limit-range/

use ::api::quantity::Quantity;
use ::api::usage::{self, Amounts};
use ::api::{Resource, Status};
use serde_json::{Value, json};

use super::{is_pods, shown_name};
use crate::api::Api;
use crate::registry::text;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// `resource.MaxMilliValue`: beyond it amounts are compared in whole units.
const MAX_MILLI_VALUE: i64 = i64::MAX / 1000;

fn ranges(api: &Api, namespace: &str) -> Result<Vec<Value>, Status> {
    let page = api.store.list(&format!("/registry/limitranges/{namespace}/"), None, None, 0).map_err(Status::internal)?;
    page.items.into_iter().map(|(_, object)| object.value().map_err(Status::internal)).collect()
}

fn items<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    range.pointer("/spec/limits").and_then(Value::as_array).into_iter().flatten().filter(move |item| text(item, "/type") == kind)
}

/// Fills in what containers of a new pod leave out.
pub fn apply(api: &Api, namespace: &str, pod: &mut Value) -> Result<(), Status> {
    for range in ranges(api, namespace)? {
        fill(pod, &range);
    }
    Ok(())
}

fn fill(pod: &mut Value, range: &Value) {
    let (mut limits, mut requests) = (Amounts::new(), Amounts::new());
    for item in items(range, "Container") {
        limits.extend(usage::amounts(item, "default"));
        requests.extend(usage::amounts(item, "defaultRequest"));
    }
    let mut told = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for (kind, singular, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                let mut set = Vec::new();
                for (resource, amount) in defaults {
                    if container.pointer(&format!("/resources/{kind}")).and_then(|list| list.get(resource)).is_none() {
                        if !container.get("resources").is_some_and(Value::is_object) {
                            container["resources"] = json!({});
                        }
                        container["resources"][kind][resource.as_str()] = amount.to_string().into();
                        set.push(resource.as_str());
                    }
                }
                if !set.is_empty() {
                    told.push(format!("{} {singular} for {word} {}", set.join(", "), text(container, "/name")));
                }
            }
        }
    }
    if !told.is_empty() {
        if !pod["metadata"].get("annotations").is_some_and(Value::is_object) {
            pod["metadata"]["annotations"] = json!({});
        }
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", told.join("; ")).into();
    }
}

/// Holds a pod or claim to the bounds.
pub fn check(api: &Api, row: &Resource, namespace: &str, object: &Value) -> Result<(), Status> {
    for range in ranges(api, namespace)? {
        let complaints = if is_pods(row) { pod_complaints(object, &range) } else { claim_complaints(object, &range) };
        let why = match complaints.as_slice() {
            [] => continue,
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        return Err(Status::forbidden(&row.group, &row.plural, shown_name(object), &why));
    }
    Ok(())
}

fn resources(holder: &Value, kind: &str) -> Amounts {
    usage::amounts(holder, &format!("resources.{kind}"))
}

fn pod_complaints(pod: &Value, range: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    for item in range.pointer("/spec/limits").and_then(Value::as_array).into_iter().flatten() {
        match text(item, "/type") {
            "Container" => {
                for container in ["containers", "initContainers"].into_iter().flat_map(|list| pod["spec"].get(list).and_then(Value::as_array).into_iter().flatten()) {
                    bounds("Container", item, &resources(container, "requests"), &resources(container, "limits"), &mut complaints);
                }
            }
            "Pod" => bounds("Pod", item, &usage::total(pod, "requests"), &usage::total(pod, "limits"), &mut complaints),
            _ => {}
        }
    }
    complaints
}

fn claim_complaints(claim: &Value, range: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    let requests = claim.get("spec").map(|spec| resources(spec, "requests")).unwrap_or_default();
    for item in items(range, "PersistentVolumeClaim") {
        for (resource, edge) in usage::amounts(item, "min") {
            complaints.extend(minimum("PersistentVolumeClaim", &resource, edge, &requests, &Amounts::new()));
        }
        for (resource, edge) in usage::amounts(item, "max") {
            let head = format!("maximum {resource} usage per PersistentVolumeClaim is {edge}");
            complaints.extend(match requests.get(&resource) {
                None => Some(format!("{head}.  No request is specified")),
                Some(asked) if *asked > edge => Some(format!("{head}, but request is {asked}")),
                Some(_) => None,
            });
        }
    }
    complaints
}

fn bounds(kind: &str, item: &Value, requests: &Amounts, limits: &Amounts, complaints: &mut Vec<String>) {
    for (resource, edge) in usage::amounts(item, "min") {
        complaints.extend(minimum(kind, &resource, edge, requests, limits));
    }
    for (resource, edge) in usage::amounts(item, "max") {
        let head = format!("maximum {resource} usage per {kind} is {edge}");
        complaints.extend(match (limits.get(&resource), requests.get(&resource)) {
            (None, _) => Some(format!("{head}.  No limit is specified")),
            (Some(limit), _) if *limit > edge => Some(format!("{head}, but limit is {limit}")),
            (_, Some(request)) if *request > edge => Some(format!("{head}, but request is {request}")),
            _ => None,
        });
    }
    for (resource, edge) in usage::amounts(item, "maxLimitRequestRatio") {
        complaints.extend(ratio(kind, &resource, edge, requests.get(&resource), limits.get(&resource)));
    }
}

fn minimum(kind: &str, resource: &str, edge: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("minimum {resource} usage per {kind} is {edge}");
    match (requests.get(resource), limits.get(resource)) {
        (None, _) => Some(format!("{head}.  No request is specified")),
        (Some(request), _) if *request < edge => Some(format!("{head}, but request is {request}")),
        (_, Some(limit)) if *limit < edge => Some(format!("{head}, but limit is {limit}")),
        _ => None,
    }
}

fn ratio(kind: &str, resource: &str, edge: Quantity, request: Option<&Quantity>, limit: Option<&Quantity>) -> Option<String> {
    let head = format!("{resource} max limit to request ratio per {kind} is {edge}");
    let Some(request) = request.filter(|request| !request.is_zero()) else { return Some(format!("{head}, but no request is specified or request is 0")) };
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else { return Some(format!("{head}, but no limit is specified or limit is 0")) };
    let fine = [request, limit, &edge].into_iter().all(|quantity| quantity.value() <= MAX_MILLI_VALUE);
    let observed = if fine { limit.milli_value() as f64 / request.milli_value() as f64 } else { limit.value() as f64 / request.value() as f64 };
    let most = if edge.value() <= MAX_MILLI_VALUE { edge.milli_value() as f64 / 1000.0 } else { edge.value() as f64 };
    (observed > most).then(|| format!("{head}, but provided ratio is {observed:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(item: Value) -> Value {
        json!({"spec": {"limits": [item]}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn defaults() {
        let range = range(json!({"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}));
        let mut object = pod(json!({"requests": {"cpu": "300m"}}));
        fill(&mut object, &range);
        assert_eq!(object["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "300m"}, "limits": {"cpu": "500m", "memory": "1Gi"}}));
        assert_eq!(object["metadata"]["annotations"][ANNOTATION], "LimitRanger plugin set: cpu, memory limit for container c");
        let mut object = pod(Value::Null);
        fill(&mut object, &range);
        assert_eq!(object["metadata"]["annotations"][ANNOTATION], "LimitRanger plugin set: cpu request for container c; cpu, memory limit for container c");
    }

    #[test]
    fn pods_are_held_to_bounds() {
        let item = |kind: &str, bounds: Value| {
            let mut item = bounds;
            item["type"] = kind.into();
            range(item)
        };
        let cases = [
            (item("Container", json!({"min": {"cpu": "50m"}})), pod(json!({"requests": {"cpu": "10m"}})), "minimum cpu usage per Container is 50m, but request is 10m"),
            (item("Container", json!({"min": {"cpu": "50m"}})), pod(json!({})), "minimum cpu usage per Container is 50m.  No request is specified"),
            (item("Container", json!({"max": {"cpu": "1"}})), pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})), "maximum cpu usage per Container is 1, but limit is 2"),
            (item("Pod", json!({"max": {"memory": "1Gi"}})), pod(json!({})), "maximum memory usage per Pod is 1Gi.  No limit is specified"),
            (item("Container", json!({"maxLimitRequestRatio": {"cpu": "1500m"}})), pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})), "cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000"),
            (item("Container", json!({"maxLimitRequestRatio": {"cpu": "2"}})), pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})), ""),
            (item("PersistentVolumeClaim", json!({"min": {"storage": "1Gi"}})), pod(json!({})), ""),
        ];
        for (range, object, expected) in cases {
            assert_eq!(pod_complaints(&object, &range).join("; "), expected, "{range}");
        }
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        let claims = item("PersistentVolumeClaim", json!({"min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
        assert_eq!(claim_complaints(&claim("1Mi"), &claims), ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"]);
        assert_eq!(claim_complaints(&claim("3Gi"), &claims), ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]);
        assert!(claim_complaints(&claim("1Gi"), &claims).is_empty());
    }
}
