//! Resource names and amounts: requests and limits of containers and pods. Mirrors validateResourceRequirements.

use std::collections::BTreeSet;

use serde_json::Value;

use super::json::{list, map, text};
use crate::names;
use crate::quantity::Quantity;
use crate::validation::{Errors, Path, Raw};

const STANDARD_RESOURCES: [&str; 20] = [
    "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage", "pods", "resourcequotas",
    "services", "replicationcontrollers", "secrets", "configmaps", "persistentvolumeclaims", "storage", "requests.storage", "services.nodeports", "services.loadbalancers",
];
const INTEGER_RESOURCES: [&str; 9] =
    ["pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps", "persistentvolumeclaims", "services.nodeports", "services.loadbalancers"];

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A resource without a domain that is one of the API's own.
pub fn is_standard(name: &str) -> bool {
    STANDARD_RESOURCES.contains(&name) || is_huge(name) || name.starts_with("requests.hugepages-")
}

pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// `validateResourceName`. Whether it was fine.
pub fn resource_name(errors: &mut Errors, path: &Path, name: &str) -> bool {
    let before = errors.len();
    errors.name(path, name, names::qualified_name);
    if errors.len() == before && !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    errors.len() == before
}

pub fn container_resource_name(errors: &mut Errors, path: &Path, name: &str) {
    resource_name(errors, path, name);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

pub fn pod_resource_name(errors: &mut Errors, path: &Path, name: &str) {
    if resource_name(errors, path, name) && !matches!(name, "cpu" | "memory") && !is_huge(name) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// `ValidateResourceQuantityValue`: not negative, and whole where only whole makes sense.
pub fn resource_quantity(errors: &mut Errors, path: &Path, name: &str, value: &Value) {
    let Ok(quantity) = Quantity::from_json(value) else { return errors.invalid(path, value, "must be a valid resource quantity") };
    if quantity.is_negative() {
        errors.invalid(path, quantity.to_string().as_str(), "must be greater than or equal to 0");
    }
    if (INTEGER_RESOURCES.contains(&name) || is_extended(name)) && !quantity.is_integer() {
        errors.invalid(path, quantity.to_string().as_str(), "must be an integer");
    }
}

fn huge_page_value(errors: &mut Errors, path: &Path, name: &str, quantity: &Quantity) {
    let Some(size) = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok()) else { return };
    let (value, size) = (quantity.value(), size.value());
    if size <= 0 || value < 0 || value % size != 0 {
        errors.invalid(path, quantity.to_string().as_str(), &format!("{quantity} is not positive integer multiple of {name}"));
    }
}

/// `validateResourceRequirements`.
pub fn resource_requirements(errors: &mut Errors, path: &Path, resources: &Value, name_rule: fn(&mut Errors, &Path, &str), pod_claims: &BTreeSet<&str>) {
    let (limit_path, request_path) = (path.child("limits"), path.child("requests"));
    let limits = map(resources, "limits");
    let (mut huge, mut compute) = (false, false);
    let mut check = |errors: &mut Errors, path: &Path, name: &str, value: &Value| {
        name_rule(errors, path, name);
        resource_quantity(errors, path, name, value);
        if is_huge(name) {
            huge = true;
            huge_page_value(errors, path, name, &Quantity::from_json(value).unwrap_or_default());
        }
        compute |= matches!(name, "cpu" | "memory");
    };
    for (name, value) in limits.into_iter().flatten() {
        check(errors, &limit_path.key(name), name, value);
    }
    for (name, value) in map(resources, "requests").into_iter().flatten() {
        check(errors, &request_path.key(name), name, value);
        let request = Quantity::from_json(value).unwrap_or_default();
        let overcommit = is_native(name) && !is_huge(name);
        match limits.and_then(|limits| limits.get(name)).map(|limit| Quantity::from_json(limit).unwrap_or_default()) {
            Some(limit) if request != limit && !overcommit => {
                errors.invalid(&request_path, request.to_string().as_str(), &format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if request > limit => {
                errors.invalid(&request_path, request.to_string().as_str(), &format!("must be less than or equal to {name} limit of {limit}"));
            }
            None if !overcommit => errors.required(&limit_path, "Limit must be set for non overcommitable resources"),
            _ => {}
        }
    }
    if huge && !compute {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    claim_names(errors, &path.child("claims"), list(resources, "claims"), pod_claims);
}

fn claim_names(errors: &mut Errors, path: &Path, claims: &[Value], pod_claims: &BTreeSet<&str>) {
    let mut seen = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !request.is_empty() {
            errors.name(&path.child("request"), request, names::dns_label);
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        if !seen.insert(key.clone()) {
            errors.duplicate(&path, &key);
        }
        if !pod_claims.contains(name) {
            let known = if pod_claims.is_empty() { " which is empty".to_owned() } else { format!(": {}", pod_claims.iter().copied().collect::<Vec<_>>().join(", ")) };
            errors.not_found(&path, &Raw(&format!("{}: must be one of the names in pod.spec.resourceClaims{known}", crate::validation::go_quote(name))));
        }
    }
}
