//! What a pod asks for in all, and its class of service; as k8s.io/component-helpers/resource and k8s.io/kubectl/pkg/util/qos.

use std::collections::BTreeMap;

use api::kinds::json::{child, list, map, text};
use api::quantity::Quantity;
use serde_json::Value;

pub type Amounts = BTreeMap<String, Quantity>;

/// A quantity in its canonical form.
pub fn canonical(amount: &Value) -> String {
    Quantity::from_json(amount).map_or_else(|_| super::writer::shown(amount), |quantity| quantity.to_string())
}

pub fn amounts(object: &Value, path: &str) -> Amounts {
    map(object, path).into_iter().flatten().filter_map(|(name, amount)| Some((name.clone(), Quantity::from_json(amount).ok()?))).collect()
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or(*amount, |have| have.plus(amount));
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        if total.get(name).is_none_or(|have| have < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

/// `field` is `requests` or `limits`. Init containers run one after another before the rest; restartable ones stay.
pub fn of_pod(pod: &Value, field: &str) -> Amounts {
    let path = format!("resources.{field}");
    let mut total = Amounts::new();
    for container in list(pod, "spec.containers") {
        add(&mut total, &amounts(container, &path));
    }
    let (mut stay, mut peak) = (Amounts::new(), Amounts::new());
    for container in list(pod, "spec.initContainers") {
        let mut needs = amounts(container, &path);
        if text(container, "restartPolicy") == "Always" {
            add(&mut total, &needs);
            add(&mut stay, &needs);
            needs = stay.clone();
        } else {
            add(&mut needs, &stay);
        }
        raise(&mut peak, &needs);
    }
    raise(&mut total, &peak);
    // What the pod itself states outweighs the sum of its containers.
    for (name, amount) in amounts(pod, &format!("spec.{path}")) {
        total.insert(name, amount);
    }
    let overhead = amounts(pod, "spec.overhead");
    if field == "requests" {
        add(&mut total, &overhead);
    } else {
        // Something unlimited stays so.
        let limited = overhead.into_iter().filter(|(name, _)| total.get(name).is_some_and(|have| !have.is_zero())).collect();
        add(&mut total, &limited);
    }
    total
}

pub fn qos_class(pod: &Value) -> &str {
    let told = text(pod, "status.qosClass");
    if !told.is_empty() {
        return told;
    }
    if map(pod, "spec.resources").is_some_and(|resources| !resources.is_empty()) {
        return class_of(child(pod, "spec.resources"));
    }
    let mut classes = list(pod, "spec.initContainers").iter().chain(list(pod, "spec.containers")).map(|container| class_of(child(container, "resources")));
    let first = classes.next().unwrap_or("BestEffort");
    if classes.all(|class| class == first) { first } else { "Burstable" }
}

fn class_of(resources: Option<&Value>) -> &'static str {
    let none = Value::Null;
    let resources = resources.unwrap_or(&none);
    let (requests, limits) = (amounts(resources, "requests"), amounts(resources, "limits"));
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let class = |name: &str| {
        let (request, limit) = (requests.get(name).copied().unwrap_or_default(), limits.get(name).copied().unwrap_or_default());
        match request == limit {
            false => "Burstable",
            true if request.is_zero() => "BestEffort",
            true => "Guaranteed",
        }
    };
    if class("cpu") == class("memory") { class("cpu") } else { "Burstable" }
}
