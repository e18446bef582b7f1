//! ResourceQuotas and LimitRanges, on their own and of a namespace.

use std::collections::BTreeSet;

use api::kinds::json::{list, map, text};
use api::quantity::Quantity;
use serde_json::Value;

use super::Related;
use super::requests::{amounts, canonical};
use super::writer::{Writer, line};

fn scope_help(scope: &str) -> Option<&'static str> {
    match scope {
        "Terminating" => Some("Matches all pods that have an active deadline. These pods have a limited lifespan on a node before being actively terminated by the system."),
        "NotTerminating" => Some("Matches all pods that do not have an active deadline. These pods usually include long running pods whose container command is not expected to terminate."),
        "BestEffort" => Some("Matches all pods that do not have resource requirements set. These pods have a best effort quality of service."),
        "NotBestEffort" => Some("Matches all pods that have at least one resource requirement set. These pods have a burstable or guaranteed quality of service."),
        _ => None,
    }
}

fn scopes(quota: &Value, level: usize, bullet: &str, w: &mut Writer) {
    let mut scopes: Vec<&str> = list(quota, "spec.scopes").iter().filter_map(Value::as_str).collect();
    if scopes.is_empty() {
        return;
    }
    scopes.sort_unstable();
    line!(w, level, "Scopes:\t{}", scopes.join(", "));
    for help in scopes.iter().filter_map(|scope| scope_help(scope)) {
        line!(w, level, "{bullet} {help}");
    }
}

pub fn resource_quota(object: &Value, _: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    scopes(object, 0, " *", w);
    line!(w, 0, "Resource\tUsed\tHard");
    line!(w, 0, "--------\t----\t----");
    let used = amounts(object, "status.used");
    for (name, hard) in amounts(object, "status.hard") {
        let mut used = used.get(&name).copied().unwrap_or_default();
        if used.format() != hard.format() {
            used = Quantity::new(used.value(), hard.format());
        }
        line!(w, 0, "{name}\t{used}\t{hard}");
    }
}

pub fn quotas(quotas: &[Value], w: &mut Writer) {
    if quotas.is_empty() {
        line!(w, 0, "No resource quota.");
        return;
    }
    let mut quotas: Vec<&Value> = quotas.iter().collect();
    quotas.sort_by_key(|quota| text(quota, "metadata.name"));
    line!(w, 0, "Resource Quotas");
    for quota in quotas {
        line!(w, 1, "Name:\t{}", text(quota, "metadata.name"));
        scopes(quota, 1, "*", w);
        line!(w, 1, "Resource\tUsed\tHard");
        line!(w, 1, "--------\t---\t---");
        let used = amounts(quota, "status.used");
        for (name, hard) in amounts(quota, "status.hard") {
            line!(w, 1, "{name}\t{}\t{hard}", used.get(&name).copied().unwrap_or_default());
        }
    }
}

pub fn limit_range(object: &Value, _: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    line!(w, 0, "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    line!(w, 0, "----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
    rows(object, "", w);
}

pub fn limits(ranges: &[Value], w: &mut Writer) {
    if ranges.is_empty() {
        line!(w, 0, "No LimitRange resource.");
        return;
    }
    w.write(0, "Resource Limits\n Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio\n");
    line!(w, 0, " ----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
    for range in ranges {
        rows(range, " ", w);
    }
}

fn rows(range: &Value, indent: &str, w: &mut Writer) {
    const COLUMNS: [&str; 5] = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for item in list(range, "spec.limits") {
        let names: BTreeSet<&String> = COLUMNS.iter().filter_map(|column| map(item, column)).flat_map(|amounts| amounts.keys()).collect();
        for name in names {
            let cells: Vec<String> = COLUMNS.iter().map(|column| map(item, column).and_then(|amounts| amounts.get(name)).map_or_else(|| "-".to_owned(), canonical)).collect();
            line!(w, 0, "{indent}{}\t{name}\t{}", text(item, "type"), cells.join("\t"));
        }
    }
}
