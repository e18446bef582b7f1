//! The conversion webhook of a definition: ConversionReview out, converted objects back, and nothing believed that was not asked for.
//!
//! Mirrors apiserver/conversion/webhook_converter.go: same order and number of objects, same kind and name, metadata kept but for labels and annotations.

use std::time::{Duration, Instant};

use ::api::{Custom, Status};
use serde_json::{Map, Value, json};

use super::text;
use crate::outbound::{Hook, Outbound};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Versions of ConversionReview that are spoken; the definition's order decides.
const SPOKEN: [&str; 2] = ["v1", "v1beta1"];

/// Upstream's names of what goes wrong.
const CALL: &str = "conversion_webhook_call_failure";
const MALFORMED: &str = "conversion_webhook_malformed_response_failure";
const PARTIAL: &str = "conversion_webhook_partial_response_failure";
const INVALID: &str = "conversion_webhook_invalid_converted_object_failure";

pub async fn convert(outbound: &Outbound, custom: &Custom, target: &str, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
    let begun = Instant::now();
    let from = objects.first().map(|object| text(object, "/apiVersion").to_owned()).unwrap_or_default();
    let outcome = asked(outbound, custom, target, objects).await;
    let version = |api_version: &str| api_version.rsplit('/').next().unwrap_or("").to_owned();
    let definition = &custom.definition().meta().name;
    outbound.metrics.conversion(definition, &version(&from), &version(target), begun.elapsed(), outcome.as_ref().err().map(|(failure, _)| *failure));
    outcome.map_err(|(_, status)| status)
}

async fn asked(outbound: &Outbound, custom: &Custom, target: &str, objects: Vec<Value>) -> Result<Vec<Value>, (&'static str, Status)> {
    let definition = custom.definition().value().map_err(|error| (CALL, Status::internal(error)))?;
    let kind = text(&definition, "/spec/names/kind").to_owned();
    let from = objects.first().map(|object| text(object, "/apiVersion").to_owned()).unwrap_or_default();
    let failed = |failure: &'static str, why: String| (failure, Status::internal(format!("conversion webhook for {from}, Kind={kind} failed: {why}")));
    let none = Value::Null;
    let webhook = definition.pointer("/spec/conversion/webhook").unwrap_or(&none);
    let hook = Hook::from_json(webhook.get("clientConfig").unwrap_or(&none)).map_err(|error| failed(CALL, error.to_string()))?;
    let versions = webhook.get("conversionReviewVersions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let version = versions.into_iter().find(|version| SPOKEN.contains(version)).ok_or_else(|| failed(CALL, "does not support known ConversionReview versions".to_owned()))?;
    let uid = review_uid(&objects, outbound);
    let review = json!({
        "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "kind": "ConversionReview",
        "request": {"uid": uid, "desiredAPIVersion": target, "objects": objects},
    });
    let reply = outbound.post(&hook, &review, TIMEOUT).await.map_err(|error| failed(CALL, error.to_string()))?;
    if reply.status != 200 {
        return Err(failed(CALL, format!("the server responded with the status code {} but did not return more information", reply.status)));
    }
    let answer: Value = serde_json::from_slice(&reply.body).map_err(|error| failed(MALFORMED, format!("invalid response: {error}")))?;
    let response = checked(&answer, version, &uid).map_err(|why| failed(MALFORMED, why))?;
    let converted = response.get("convertedObjects").and_then(Value::as_array).cloned().unwrap_or_default();
    if converted.len() != objects.len() {
        return Err(failed(PARTIAL, format!("webhook returned {} objects, expected {}", converted.len(), objects.len())));
    }
    objects
        .iter()
        .zip(converted)
        .enumerate()
        .map(|(index, (original, converted))| restored(original, converted, target).map_err(|why| failed(INVALID, format!("invalid converted object at index {index}: {why}"))))
        .collect()
}

/// Tells this question from any other.
fn review_uid(objects: &[Value], outbound: &Outbound) -> String {
    let mut raw = [0u8; 16];
    if getrandom::fill(&mut raw).is_err() {
        // Only to be told apart, not to be kept secret.
        raw[..8].copy_from_slice(&(outbound as *const Outbound as u64).to_be_bytes());
        raw[8..].copy_from_slice(&(objects.as_ptr() as u64).to_be_bytes());
    }
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The response, if it is one to our question and says success.
fn checked<'a>(answer: &'a Value, version: &str, uid: &str) -> Result<&'a Value, String> {
    let wanted = format!("apiextensions.k8s.io/{version}");
    let (kind, api_version) = (text(answer, "/kind"), text(answer, "/apiVersion"));
    if kind != "ConversionReview" || api_version != wanted {
        return Err(format!("expected webhook response of {wanted}, Kind=ConversionReview, got {api_version}, Kind={kind}"));
    }
    let response = answer.get("response").filter(|response| response.is_object()).ok_or("invalid response: no response provided")?;
    if text(response, "/uid") != uid {
        return Err(format!("expected response.uid {uid:?}, got {:?}", text(response, "/uid")));
    }
    match text(response, "/result/status") {
        "Success" => Ok(response),
        "" => Err("response.result.status is '' and not 'Success'".to_owned()),
        _ => Err(match text(response, "/result/message") {
            "" => "unknown conversion error".to_owned(),
            message => message.to_owned(),
        }),
    }
}

/// The converted object with the metadata it had: a webhook changes labels and annotations only.
fn restored(original: &Value, mut converted: Value, target: &str) -> Result<Value, String> {
    for (name, wanted) in [("/apiVersion", target), ("/kind", text(original, "/kind")), ("/metadata/name", text(original, "/metadata/name")), ("/metadata/namespace", text(original, "/metadata/namespace")), ("/metadata/uid", text(original, "/metadata/uid"))] {
        let got = text(&converted, name);
        if got != wanted {
            let field = name.trim_start_matches('/').replace('/', ".");
            return Err(if name == "/apiVersion" { format!("invalid apiVersion {got:?}, expected {wanted:?}") } else { format!("{field} cannot be changed by conversion: {got:?} instead of {wanted:?}") });
        }
    }
    let empty = Map::new();
    let mut metadata = original.get("metadata").and_then(Value::as_object).unwrap_or(&empty).clone();
    for name in ["labels", "annotations"] {
        match converted.pointer(&format!("/metadata/{name}")) {
            Some(Value::Null) | None => metadata.remove(name),
            Some(map) if map.as_object().is_some_and(|map| map.values().all(Value::is_string)) => metadata.insert(name.to_owned(), map.clone()),
            Some(_) => return Err(format!("metadata.{name} in converted object is not a map of strings")),
        };
    }
    converted["metadata"] = Value::Object(metadata);
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_not_the_webhooks() {
        let original = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "uid": "u", "labels": {"x": "1"}, "finalizers": ["f"]}});
        let good = json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a", "uid": "u", "labels": {"x": "2"}, "finalizers": []}, "spec": 1});
        assert_eq!(restored(&original, good, "g/v2").unwrap(), json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a", "uid": "u", "labels": {"x": "2"}, "finalizers": ["f"]}, "spec": 1}));
        let renamed = json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "b", "uid": "u"}});
        assert!(restored(&original, renamed, "g/v2").unwrap_err().starts_with("metadata.name"));
        assert!(restored(&original, original.clone(), "g/v2").is_err());
    }

    #[test]
    fn answers_are_held_to_the_question() {
        let answer = |status: Value| json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {"uid": "u", "result": status}});
        assert!(checked(&answer(json!({"status": "Success"})), "v1", "u").is_ok());
        assert_eq!(checked(&answer(json!({"status": "Failed", "message": "no"})), "v1", "u").unwrap_err(), "no");
        assert!(checked(&answer(json!({"status": "Success"})), "v1", "other").is_err());
        assert!(checked(&json!({}), "v1", "u").is_err());
    }
}
