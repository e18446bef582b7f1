//! DefaultStorageClass and DefaultIngressClass: who names no class gets the one that is marked as the default.
//!
//! Mirrors plugin/pkg/admission/storage/storageclass/setdefault and plugin/pkg/admission/network/defaultingressclass.

use ::api::Status;
use serde_json::Value;

use crate::api::Api;
use crate::registry::text;

const STORAGE: [&str; 2] = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(key)).and_then(Value::as_str)
}

/// The default among classes: the newest, and of two as new the first by name.
fn default<'a>(classes: &'a [Value], marks: &[&str]) -> Option<&'a str> {
    let mut marked: Vec<&Value> = classes.iter().filter(|class| marks.iter().any(|mark| annotation(class, mark) == Some("true"))).collect();
    marked.sort_by(|a, b| text(b, "/metadata/creationTimestamp").cmp(text(a, "/metadata/creationTimestamp")).then_with(|| text(a, "/metadata/name").cmp(text(b, "/metadata/name"))));
    marked.first().map(|class| text(class, "/metadata/name"))
}

fn all(api: &Api, prefix: &str) -> Result<Vec<Value>, Status> {
    let page = api.store.list(prefix, None, None, 0).map_err(Status::internal)?;
    page.items.into_iter().map(|(_, object)| object.value().map_err(Status::internal)).collect()
}

/// A new claim.
pub fn of_claim(api: &Api, claim: &mut Value) -> Result<(), Status> {
    let named = claim.pointer("/spec/storageClassName").is_some_and(Value::is_string) || annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some();
    if !named && let Some(name) = default(&all(api, "/registry/storageclasses/")?, &STORAGE) {
        claim["spec"]["storageClassName"] = name.into();
    }
    Ok(())
}

/// A new ingress.
pub fn of_ingress(api: &Api, ingress: &mut Value) -> Result<(), Status> {
    let named = ingress.pointer("/spec/ingressClassName").is_some_and(Value::is_string) || annotation(ingress, "kubernetes.io/ingress.class").is_some();
    if !named && let Some(name) = default(&all(api, "/registry/ingressclasses/")?, &INGRESS) {
        ingress["spec"]["ingressClassName"] = name.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default() {
        let class = |name: &str, mark: &str, made: &str| json!({"metadata": {"name": name, "creationTimestamp": made, "annotations": {STORAGE[0]: mark}}});
        let cases = [
            (vec![], None),
            (vec![class("a", "false", "2026-01-01T00:00:00Z")], None),
            (vec![class("a", "true", "2026-01-01T00:00:00Z"), class("b", "true", "2026-01-02T00:00:00Z")], Some("b")),
            (vec![class("b", "true", "2026-01-01T00:00:00Z"), class("a", "true", "2026-01-01T00:00:00Z")], Some("a")),
        ];
        for (classes, expected) in cases {
            assert_eq!(default(&classes, &STORAGE), expected);
        }
    }
}
