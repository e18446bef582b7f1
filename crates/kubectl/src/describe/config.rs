//! ConfigMaps, Secrets, ServiceAccounts, Namespaces.

use api::kinds::json::{list, map, text};
use base64::Engine;
use serde_json::Value;

use super::writer::{Writer, line};
use super::{Related, events, quota};

fn decoded(value: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or("")).unwrap_or_default()
}

pub fn config_map(object: &Value, related: &Related, w: &mut Writer) {
    w.head(object);
    w.write(0, "\nData\n====\n");
    for (key, value) in map(object, "data").into_iter().flatten() {
        w.write(0, &format!("{key}:\n----\n"));
        w.write(0, &format!("{}\n\n", value.as_str().unwrap_or("")));
    }
    w.write(0, "\nBinaryData\n====\n");
    for (key, value) in map(object, "binaryData").into_iter().flatten() {
        line!(w, 0, "{key}: {} bytes", decoded(value).len());
    }
    w.write(0, "\n");
    events::events(related, w);
}

pub fn secret(object: &Value, _: &Related, w: &mut Writer) {
    const TOKEN: &str = "kubernetes.io/service-account-token";
    w.head(object);
    let kind = text(object, "type");
    w.write(0, &format!("\nType:\t{kind}\n\nData\n====\n"));
    for (key, value) in map(object, "data").into_iter().flatten() {
        let value = decoded(value);
        if key == "token" && kind == TOKEN {
            line!(w, 0, "{key}:\t{}", String::from_utf8_lossy(&value));
        } else {
            line!(w, 0, "{key}:\t{} bytes", value.len());
        }
    }
}

pub fn service_account(object: &Value, related: &Related, w: &mut Writer) {
    w.head(object);
    let secrets = list(object, "imagePullSecrets");
    if secrets.is_empty() {
        line!(w, 0, "Image pull secrets:\t<none>");
    }
    for (at, secret) in secrets.iter().enumerate() {
        line!(w, 0, "{:19}\t{}", if at == 0 { "Image pull secrets:" } else { "" }, text(secret, "name"));
    }
    events::events(related, w);
}

pub fn namespace(object: &Value, related: &Related, w: &mut Writer) {
    w.cluster_head(object);
    line!(w, 0, "Status:\t{}", text(object, "status.phase"));
    transitions(object, w);
    w.write(0, "\n");
    quota::quotas(&related.resource_quotas, w);
    w.write(0, "\n");
    quota::limits(&related.limit_ranges, w);
}

/// Conditions with the time they last changed.
pub fn transitions(object: &Value, w: &mut Writer) {
    let conditions = list(object, "status.conditions");
    if conditions.is_empty() {
        return;
    }
    line!(w, 0, "Conditions:");
    line!(w, 1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
    line!(w, 1, "----\t------\t------------------\t------\t-------");
    for condition in conditions {
        let time = w.time(condition, "lastTransitionTime");
        line!(w, 1, "{}\t{}\t{time}\t{}\t{}", text(condition, "type"), text(condition, "status"), text(condition, "reason"), text(condition, "message"));
    }
}
