//! Validation of what Dynamic Resource Allocation asks for and offers: claims, their templates, device classes and slices. Mirrors
//! k8s.io/kubernetes/pkg/apis/resource/validation; whether a selector compiles is judged by the server, which has CEL.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::affinity::node_selector;
use super::json::{child, flag, list, map, number, strings, text};
use super::volume_sources::driver_name;
use crate::names;
use crate::internal::Internal;
use crate::validation::{Errors, Path};

const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIG_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const SUBREQUESTS_MAX: usize = 8;
const PARAMETERS_MAX: usize = 10 * 1024;
const IDENTIFIER_MAX: usize = 32;
const KEY_SHOWN_MAX: usize = 63 + 1 + IDENTIFIER_MAX;
const VALUE_MAX: usize = 64;
const POOL_NAME_MAX: usize = 253;
const DEVICES_MAX: usize = 128;
/// When devices have taints, counters or lists.
const RICH_DEVICES_MAX: usize = 64;
const ATTRIBUTES_MAX: usize = 32;
const ATTRIBUTE_VALUES_MAX: usize = 48;
const TAINTS_MAX: usize = 16;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMPTIONS_MAX: usize = 2;
const CONDITIONS_MAX: usize = 4;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const OF_ONE_NODE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

/// `spec.devices` of a claim.
pub fn claim(errors: &mut Errors, path: &Path, devices: Option<&Value>) {
    let Some(devices) = devices else { return };
    let requests = list(devices, "requests");
    let known: BTreeSet<String> = requests.iter().flat_map(request_names).collect();
    let (field, mut seen) = (path.child("requests"), BTreeSet::new());
    if within(errors, &field, requests.len(), REQUESTS_MAX) {
        for (index, one) in requests.iter().enumerate() {
            request(errors, &field.index(index), one);
        }
        for (index, one) in requests.iter().enumerate().filter(|(_, one)| !seen.insert(text(one, "name"))) {
            errors.duplicate(&field.index(index), text(one, "name"));
        }
    }
    let (field, constraints) = (path.child("constraints"), list(devices, "constraints"));
    if within(errors, &field, constraints.len(), CONSTRAINTS_MAX) {
        for (index, constraint) in constraints.iter().enumerate() {
            let path = field.index(index);
            references(errors, &path.child("requests"), constraint, &known);
            let attribute = ["matchAttribute", "distinctAttribute"].into_iter().find_map(|name| Some((name, child(constraint, name)?.as_str()?)));
            match attribute {
                Some((name, attribute)) => fully_qualified(errors, &path.child(name), attribute),
                None => errors.required(&path, "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set"),
            }
        }
    }
    let (field, configs) = (path.child("config"), list(devices, "config"));
    if within(errors, &field, configs.len(), CONFIG_MAX) {
        for (index, config) in configs.iter().enumerate() {
            references(errors, &field.index(index).child("requests"), config, &known);
            configuration(errors, &field.index(index), config);
        }
    }
}

pub(super) fn within(errors: &mut Errors, path: &Path, count: usize, max: usize) -> bool {
    if count > max {
        errors.too_many(path, count, max);
    }
    count <= max
}

/// The names a request can be spoken of by: its own, and with a slash those of what would do as well.
pub(super) fn request_names(request: &Value) -> Vec<String> {
    let name = text(request, "name");
    let first = list(request, "firstAvailable").iter().map(|one| format!("{name}/{}", text(one, "name")));
    std::iter::once(name.to_owned()).chain(first).collect()
}

pub(super) fn references(errors: &mut Errors, path: &Path, owner: &Value, known: &BTreeSet<String>) {
    let names: Vec<&str> = list(owner, "requests").iter().map(|name| name.as_str().unwrap_or_default()).collect();
    if !within(errors, path, names.len(), REQUESTS_MAX) {
        return;
    }
    for (index, name) in names.iter().enumerate() {
        reference(errors, &path.index(index), name, known);
    }
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate().filter(|(_, name)| !seen.insert(**name)) {
        errors.duplicate(&path.index(index), *name);
    }
}

/// One request that something is for.
pub(super) fn reference(errors: &mut Errors, path: &Path, name: &str, known: &BTreeSet<String>) {
    const WHY: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    if name.split('/').count() > 2 {
        return errors.invalid(path, name, WHY);
    }
    name.split('/').for_each(|part| errors.name(path, part, names::dns_label));
    if !known.contains(name) {
        errors.invalid(path, name, WHY);
    }
}

fn request(errors: &mut Errors, path: &Path, request: &Value) {
    errors.name(&path.child("name"), text(request, "name"), names::dns_label);
    let first = list(request, "firstAvailable");
    match (child(request, "exactly"), first.is_empty()) {
        (Some(_), false) => errors.invalid(path, &Value::Null, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"),
        // In v1beta1 the request itself has the fields.
        (None, true) if child(request, "deviceClassName").is_none() => errors.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (None, true) => wanted(errors, path, request),
        (Some(exactly), true) => wanted(errors, &path.child("exactly"), exactly),
        (None, false) => {
            let field = path.child("firstAvailable");
            if !within(errors, &field, first.len(), SUBREQUESTS_MAX) {
                return;
            }
            for (index, one) in first.iter().enumerate() {
                errors.name(&field.index(index).child("name"), text(one, "name"), names::dns_label);
                wanted(errors, &field.index(index), one);
            }
            let mut seen = BTreeSet::new();
            for (index, one) in first.iter().enumerate().filter(|(_, one)| !seen.insert(text(one, "name"))) {
                errors.duplicate(&field.index(index), text(one, "name"));
            }
        }
    }
}

fn wanted(errors: &mut Errors, path: &Path, request: &Value) {
    match text(request, "deviceClassName") {
        "" => errors.required(&path.child("deviceClassName"), ""),
        name => errors.name(&path.child("deviceClassName"), name, names::dns_subdomain),
    }
    selectors(errors, &path.child("selectors"), list(request, "selectors"));
    let count = number(request, "count").unwrap_or(0);
    match text(request, "allocationMode") {
        "All" if count != 0 => errors.invalid(&path.child("count"), &count, "must not be specified when allocationMode is 'All'"),
        "ExactCount" if count <= 0 => errors.invalid(&path.child("count"), &count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    let field = path.child("tolerations");
    for (index, one) in list(request, "tolerations").iter().enumerate() {
        toleration(errors, &field.index(index), one);
    }
}

fn selectors(errors: &mut Errors, path: &Path, selectors: &[Value]) {
    if within(errors, path, selectors.len(), SELECTORS_MAX) {
        for (index, _) in selectors.iter().enumerate().filter(|(_, selector)| child(selector, "cel").is_none()) {
            errors.required(&path.index(index).child("cel"), "");
        }
    }
}

fn toleration(errors: &mut Errors, path: &Path, toleration: &Value) {
    let (key, value) = (text(toleration, "key"), text(toleration, "value"));
    if !key.is_empty() {
        errors.name(&path.child("key"), key, names::qualified_name);
    }
    match text(toleration, "operator") {
        "Exists" if !value.is_empty() => errors.invalid(&path.child("value"), value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => errors.name(&path.child("value"), value, names::label_value),
        "" => errors.required(&path.child("operator"), ""),
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    let effect = text(toleration, "effect");
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.not_supported(&path.child("effect"), effect, &EFFECTS);
    }
}

pub(super) fn configuration(errors: &mut Errors, path: &Path, config: &Value) {
    let path = path.child("opaque");
    let Some(opaque) = child(config, "opaque") else { return errors.required(&path, "") };
    driver_name(errors, &path.child("driver"), text(opaque, "driver"));
    let path = path.child("parameters");
    match child(opaque, "parameters") {
        None => errors.required(&path, ""),
        Some(value) if value.to_string().len() > PARAMETERS_MAX => errors.too_long(&path, PARAMETERS_MAX),
        Some(Value::Object(_)) => {}
        Some(_) => errors.invalid(&path, "<value omitted>", "must be a valid JSON object"),
    }
}

/// `spec.metadata` of a template: labels and annotations, nothing else.
pub fn template_meta(errors: &mut Errors, path: &Path, meta: Option<&Value>) {
    let Some(meta) = meta else { return };
    errors.annotations(&path.child("annotations"), child(meta, "annotations"));
    errors.labels(&path.child("labels"), child(meta, "labels"));
    for name in [
        "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers",
        "managedFields",
    ] {
        let given = child(meta, name).is_some_and(|value| !crate::validation::is_empty(Some(value)) && value.as_i64() != Some(0));
        if given {
            errors.forbidden(&path.child(name), "cannot be set");
        }
    }
}

pub fn class(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    selectors(errors, &path.child("selectors"), list(object, "spec.selectors"));
    let (field, configs) = (path.child("config"), list(object, "spec.config"));
    if within(errors, &field, configs.len(), CONFIG_MAX) {
        for (index, config) in configs.iter().enumerate() {
            configuration(errors, &field.index(index), config);
        }
    }
    if let Some(name) = child(object, "spec.extendedResourceName").and_then(Value::as_str).filter(|name| !is_extended(name)) {
        errors.invalid(&path.child("extendedResourceName"), name, "must be a valid extended resource name");
    }
}

/// `IsExtendedResourceName`: with a domain that is not Kubernetes' own, and fit to be asked for in a quota.
fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// A CSI driver's name and an identifier, or an identifier alone. More than one slash is let pass, as upstream does.
fn qualified(errors: &mut Errors, path: &Path, name: &str) {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [name] => identifier(errors, path, name),
        [domain, name] => {
            match *domain {
                "" => errors.invalid(path, "", "the domain must not be empty"),
                domain => driver_name(errors, path, domain),
            }
            match *name {
                "" => errors.invalid(path, "", "the name must not be empty"),
                name => identifier(errors, path, name),
            }
        }
        _ => {}
    }
}

fn fully_qualified(errors: &mut Errors, path: &Path, name: &str) {
    qualified(errors, path, name);
    if !name.contains('/') {
        errors.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

fn identifier(errors: &mut Errors, path: &Path, name: &str) {
    if name.len() > IDENTIFIER_MAX {
        errors.too_long(path, IDENTIFIER_MAX);
    }
    if !name.starts_with(|ch: char| ch.is_ascii_alphabetic() || ch == '_') || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
        errors.invalid(path, name, &names::regex_error(why, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"]));
    }
}

/// A key as it is shown: the middle of a long one is left out.
fn shortened(key: &str, max: usize) -> String {
    if key.len() <= max {
        return key.to_owned();
    }
    let rest = max - 3;
    format!("{}...{}", key.get(..rest.div_ceil(2)).unwrap_or_default(), key.get(key.len() - rest / 2..).unwrap_or_default())
}

pub fn slice(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let none = Value::Null;
    let spec = child(object, "spec").unwrap_or(&none);
    driver_name(errors, &path.child("driver"), text(spec, "driver"));
    pool(errors, &path.child("pool"), child(spec, "pool").unwrap_or(&none));
    let (placed, _) = placement(errors, &path, spec, true);
    match placed.as_slice() {
        [] => errors.required(&path, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"),
        [_] => {}
        many => errors.invalid(
            &path,
            &format!("{{{}}}", many.join(", ")),
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
        ),
    }
    if child(spec, "sharedCounters").is_some() && child(spec, "devices").is_some() {
        errors.invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let (devices, field) = (list(spec, "devices"), path.child("devices"));
    let rich = devices.iter().any(|device| {
        !list(device, "taints").is_empty()
            || !list(device, "consumesCounters").is_empty()
            || map(device, "attributes").into_iter().flat_map(Map::values).any(|attribute| ["bools", "ints", "strings", "versions"].iter().any(|name| !list(attribute, name).is_empty()))
    });
    if within(errors, &field, devices.len(), if rich { RICH_DEVICES_MAX } else { DEVICES_MAX }) {
        for (index, one) in devices.iter().enumerate() {
            device(errors, &field.index(index), one, flag(spec, "perDeviceNodeSelection"));
        }
        let mut seen = BTreeSet::new();
        for (index, one) in devices.iter().enumerate().filter(|(_, one)| !seen.insert(text(one, "name"))) {
            errors.duplicate(&field.index(index), text(one, "name"));
        }
    }
    let (sets, field) = (list(spec, "sharedCounters"), path.child("sharedCounters"));
    if within(errors, &field, sets.len(), COUNTER_SETS_MAX) {
        counter_sets(errors, &field, sets, "name");
    }
}

pub(super) fn pool_name(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > POOL_NAME_MAX {
        errors.too_long(path, POOL_NAME_MAX);
    }
    name.split('/').for_each(|part| errors.name(path, part, names::dns_subdomain));
}

fn pool(errors: &mut Errors, path: &Path, pool: &Value) {
    pool_name(errors, &path.child("name"), text(pool, "name"));
    let count = number(pool, "resourceSliceCount").unwrap_or(0);
    if count <= 0 {
        errors.invalid(&path.child("resourceSliceCount"), &count, "must be greater than zero");
    }
    if let Some(generation) = number(pool, "generation").filter(|generation| *generation < 0) {
        errors.invalid(&path.child("generation"), &generation, "must be greater than or equal to zero");
    }
}

/// Where the devices of a slice are, or one device: the ways that are named, and whether any field is there at all.
fn placement(errors: &mut Errors, path: &Path, value: &Value, of_slice: bool) -> (Vec<&'static str>, bool) {
    let mut placed = Vec::new();
    let mut there = false;
    if let Some(name) = child(value, "nodeName").and_then(Value::as_str) {
        there = true;
        if name.is_empty() {
            errors.invalid(&path.child("nodeName"), name, if of_slice { "must be either unset or set to a non-empty string" } else { "must not be empty" });
        } else {
            placed.push("`nodeName`");
            errors.name(&path.child("nodeName"), name, names::dns_subdomain);
        }
    }
    if let Some(selector) = child(value, "nodeSelector") {
        there = true;
        placed.push("`nodeSelector`");
        node_selector(errors, &path.child("nodeSelector"), selector);
        let terms = list(selector, "nodeSelectorTerms");
        if of_slice && terms.len() != 1 {
            errors.invalid(&path.child("nodeSelector.nodeSelectorTerms"), &Internal("[]core.v1.NodeSelectorTerm", child(selector, "nodeSelectorTerms").filter(|_| !terms.is_empty())), "must have exactly one node selector term");
        }
    }
    for (name, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match child(value, name).and_then(Value::as_bool) {
            None => continue,
            Some(true) => placed.push(shown),
            Some(false) => errors.invalid(&path.child(name), &false, "must be either unset or set to true"),
        }
        there = true;
    }
    (placed, there)
}

fn device(errors: &mut Errors, path: &Path, device: &Value, placed_itself: bool) {
    errors.name(&path.child("name"), text(device, "name"), names::dns_label);
    let nothing = Map::new();
    let (attributes, capacity) = (map(device, "attributes").unwrap_or(&nothing), map(device, "capacity").unwrap_or(&nothing));
    let both = attributes.len() + capacity.len();
    if both > ATTRIBUTES_MAX {
        errors.invalid(path, &both, &format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}"));
    }
    let values: usize = attributes.values().map(|attribute| ["bools", "ints", "strings", "versions"].iter().map(|name| list(attribute, name).len()).sum::<usize>().max(1)).sum();
    if values > ATTRIBUTE_VALUES_MAX {
        errors.invalid(path, &values, &format!("the total number of attribute values must not exceed {ATTRIBUTE_VALUES_MAX}"));
    }
    let field = path.child("attributes");
    for (name, value) in attributes {
        qualified(errors, &field, name);
        attribute(errors, &field.key(&shortened(name, KEY_SHOWN_MAX)), value);
    }
    let field = path.child("capacity");
    capacity.keys().for_each(|name| qualified(errors, &field, name));
    let (field, taints) = (path.child("taints"), list(device, "taints"));
    if within(errors, &field, taints.len(), TAINTS_MAX) {
        for (index, one) in taints.iter().enumerate() {
            taint(errors, &field.index(index), one);
        }
    }
    let (field, consumed) = (path.child("consumesCounters"), list(device, "consumesCounters"));
    if within(errors, &field, consumed.len(), CONSUMPTIONS_MAX) {
        counter_sets(errors, &field, consumed, "counterSet");
    }
    if placed_itself {
        let (placed, _) = placement(errors, path, device, false);
        match placed.as_slice() {
            [] => errors.required(path, OF_ONE_NODE),
            [_] => {}
            many => errors.invalid(path, &format!("{{{}}}", many.join(", ")), OF_ONE_NODE),
        }
    } else if ["nodeName", "nodeSelector", "allNodes"].iter().any(|name| child(device, name).is_some()) {
        errors.invalid(path, &Value::Null, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec");
    }
    binding_conditions(errors, path, device);
}

fn attribute(errors: &mut Errors, path: &Path, attribute: &Value) {
    let mut given = 0;
    for name in ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"] {
        let Some(value) = child(attribute, name) else { continue };
        given += 1;
        let field = path.child(name);
        let Some(items) = value.as_array() else {
            attribute_value(errors, &field, name, value);
            continue;
        };
        if items.is_empty() {
            errors.invalid(&field, value, "must not be empty if specified");
        }
        for (index, item) in items.iter().enumerate() {
            attribute_value(errors, &field.index(index), name, item);
        }
    }
    match given {
        0 => errors.invalid(path, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(path, attribute, "exactly one value must be specified"),
    }
}

fn attribute_value(errors: &mut Errors, path: &Path, kind: &str, value: &Value) {
    let Some(value) = value.as_str() else { return };
    if kind.starts_with("version") && !is_semantic_version(value) {
        errors.invalid(path, value, "must be a string compatible with semver.org spec 2.0.0");
    }
    if value.len() > VALUE_MAX {
        errors.too_long(path, VALUE_MAX);
    }
}

fn is_semantic_version(version: &str) -> bool {
    let (version, build) = version.split_once('+').map_or((version, None), |(version, build)| (version, Some(build)));
    let (core, before) = version.split_once('-').map_or((version, None), |(core, before)| (core, Some(before)));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    let of_release = |part: &str| word(part) && (number(part) || part.bytes().any(|byte| !byte.is_ascii_digit()));
    core.split('.').count() == 3 && core.split('.').all(number) && before.is_none_or(|before| before.split('.').all(of_release)) && build.is_none_or(|build| build.split('.').all(word))
}

pub fn taint(errors: &mut Errors, path: &Path, taint: &Value) {
    errors.name(&path.child("key"), text(taint, "key"), names::qualified_name);
    let value = text(taint, "value");
    if !value.is_empty() {
        errors.name(&path.child("value"), value, names::label_value);
    }
    match text(taint, "effect") {
        "" => errors.required(&path.child("effect"), ""),
        effect if !EFFECTS.contains(&effect) => errors.not_supported(&path.child("effect"), effect, &EFFECTS),
        _ => {}
    }
}

/// Sets of counters that are there, or that are used up: `name` is the field that names the set.
fn counter_sets(errors: &mut Errors, path: &Path, sets: &[Value], name: &str) {
    let mut seen = BTreeSet::new();
    for (index, set) in sets.iter().enumerate() {
        let path = path.index(index);
        match text(set, name) {
            "" => errors.required(&path.child(name), ""),
            given => errors.name(&path.child(name), given, names::dns_label),
        }
        let (field, counters) = (path.child("counters"), map(set, "counters").filter(|counters| !counters.is_empty()));
        match counters {
            None => errors.required(&field, ""),
            Some(counters) if counters.len() > COUNTERS_MAX => errors.too_many(&field, counters.len(), COUNTERS_MAX),
            Some(counters) => counters.keys().for_each(|counter| errors.name(&field, counter, names::dns_label)),
        }
    }
    for (index, set) in sets.iter().enumerate().filter(|(_, set)| !seen.insert(text(set, name))) {
        errors.duplicate(&path.index(index), text(set, name));
    }
}

/// What has to hold before a device is used, and what would spoil it: both or none, and nothing twice.
pub(super) fn binding_conditions(errors: &mut Errors, path: &Path, device: &Value) {
    let (needed, spoiling): (Vec<&str>, Vec<&str>) = (strings(device, "bindingConditions").collect(), strings(device, "bindingFailureConditions").collect());
    let fields = [path.child("bindingConditions"), path.child("bindingFailureConditions")];
    for (field, conditions) in fields.iter().zip([&needed, &spoiling]) {
        if within(errors, field, conditions.len(), CONDITIONS_MAX) {
            for (index, condition) in conditions.iter().enumerate() {
                errors.name(&field.index(index), condition, names::qualified_name);
            }
        }
    }
    for (at, (field, conditions)) in fields.iter().zip([&needed, &spoiling]).enumerate() {
        let mut seen = BTreeSet::new();
        for (index, condition) in conditions.iter().enumerate() {
            if !seen.insert(*condition) {
                errors.duplicate(&field.index(index), *condition);
            }
            if at == 1 && needed.contains(condition) {
                errors.invalid(&field.index(index), *condition, "bindingFailureConditions must not overlap with bindingConditions");
            }
        }
    }
    match (needed.is_empty(), spoiling.is_empty()) {
        (true, false) => errors.invalid(&fields[0], &Value::Null, "bindingConditions are required to use bindingFailureConditions"),
        (false, true) => errors.invalid(&fields[1], &Value::Null, "bindingFailureConditions are required to use bindingConditions"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{create, lines};

    fn claimed(devices: Value) -> Vec<String> {
        lines(&create("resource.k8s.io", "resourceclaims", json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"devices": devices}})).1)
    }

    #[test]
    fn what_is_claimed() {
        let one = json!({"name": "r", "exactly": {"deviceClassName": "c"}});
        for (devices, expected) in [
            (json!({"requests": [one]}), vec![]),
            (json!({"requests": [one, one]}), vec!["spec.devices.requests[1]: Duplicate value: \"r\""]),
            (json!({"requests": [one], "constraints": [{}]}), vec!["spec.devices.constraints[0]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set"]),
            (json!({"requests": [one], "constraints": [{"requests": ["q"], "matchAttribute": "a.b/c"}]}), vec!["spec.devices.constraints[0].requests[0]: Invalid value: \"q\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"]),
            (json!({"requests": [one], "config": [{"opaque": {"driver": "D.X", "parameters": 5}}]}), vec!["spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object"]),
            (json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "c", "tolerations": [{"operator": "Exists", "value": "v"}]}}]}), vec!["spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`"]),
        ] {
            assert_eq!(claimed(devices), expected);
        }
    }

    #[test]
    fn what_is_offered() {
        let slice = |change: &dyn Fn(&mut Value)| {
            let mut slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d.x", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1}, "devices": [{"name": "d"}]}});
            change(&mut slice["spec"]);
            lines(&create("resource.k8s.io", "resourceslices", slice).1)
        };
        assert!(slice(&|_| {}).is_empty());
        assert_eq!(slice(&|spec| spec["allNodes"] = json!(true)), ["spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"]);
        assert_eq!(slice(&|spec| spec["devices"][0]["attributes"] = json!({"v": {"version": "1.02.3"}})), ["spec.devices[0].attributes[v].version: Invalid value: \"1.02.3\": must be a string compatible with semver.org spec 2.0.0"]);
        assert_eq!(slice(&|spec| spec["devices"][0]["allNodes"] = json!(true)), ["spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"]);
        assert_eq!(slice(&|spec| spec["devices"][0]["taints"] = json!([{"key": "k"}])), ["spec.devices[0].taints[0].effect: Required value"]);
        assert_eq!(slice(&|spec| spec["devices"][0]["bindingConditions"] = json!(["a"])), ["spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions"]);
    }

    #[test]
    fn classes() {
        let class = |spec: Value| lines(&create("resource.k8s.io", "deviceclasses", json!({"metadata": {"name": "c"}, "spec": spec})).1);
        assert_eq!(class(json!({"extendedResourceName": "cpu"})), ["spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name"]);
        assert_eq!(class(json!({"selectors": [{}]})), ["spec.selectors[0].cel: Required value"]);
        assert!(class(json!({"extendedResourceName": "example.com/gpu"})).is_empty());
    }
}
