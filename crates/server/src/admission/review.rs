//! AdmissionReview: the question to a webhook, and what is believed of its answer.
//!
//! Mirrors k8s.io/apiserver/pkg/admission/plugin/webhook/request/admissionreview.go.

use std::collections::BTreeMap;

use ::api::Status;
use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};

/// Versions of AdmissionReview; the webhook's order decides.
pub const SPOKEN: [&str; 2] = ["v1", "v1beta1"];

pub fn question(version: &str, uid: &str, mut request: Value, object: Option<&Value>, old: Option<&Value>) -> Value {
    request["uid"] = uid.into();
    request["object"] = object.cloned().unwrap_or_default();
    request["oldObject"] = old.cloned().unwrap_or_default();
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
}

pub struct Answer {
    pub allowed: bool,
    pub result: Option<Status>,
    /// Base64 of a JSON patch.
    pub patch: Option<String>,
    pub warnings: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    allowed: bool,
    status: Option<Status>,
    patch: Option<String>,
    patch_type: Option<String>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
    #[serde(default)]
    audit_annotations: Option<BTreeMap<String, String>>,
}

/// The answer, if it is one to this question (VerifyAdmissionResponse).
pub fn answer(answer: &Value, version: &str, uid: &str, mutating: bool) -> Result<Answer, String> {
    let response = answer.get("response").filter(|response| !response.is_null()).ok_or("webhook response was absent")?;
    let response: Response = serde_json::from_value(response.clone()).map_err(|error| error.to_string())?;
    let patch = response.patch.filter(|patch| !patch.is_empty());
    if version == "v1" {
        if response.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
        }
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("apiVersion") != "admission.k8s.io/v1" || text("kind") != "AdmissionReview" {
            return Err(format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}", text("apiVersion"), text("kind")));
        }
        match (mutating, &patch, &response.patch_type) {
            (false, Some(_), _) => return Err("validating webhook may not return response.patch".into()),
            (false, None, Some(_)) => return Err("validating webhook may not return response.patchType".into()),
            (true, Some(_), None) => return Err("webhook returned response.patch but not response.patchType".into()),
            (true, None, Some(_)) => return Err("webhook returned response.patchType but not response.patch".into()),
            (true, Some(_), Some(kind)) if kind.is_empty() => return Err(format!("webhook returned invalid response.patchType of {kind:?}")),
            (true, Some(_), Some(kind)) if kind != "JSONPatch" => return Err(format!("unsupported patch type {kind:?}")),
            _ => {}
        }
    }
    Ok(Answer {
        allowed: response.allowed,
        result: response.status,
        patch: patch.filter(|_| mutating),
        warnings: response.warnings.unwrap_or_default(),
        annotations: response.audit_annotations.unwrap_or_default(),
    })
}

pub fn decode_patch(patch: &str) -> Result<Value, String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(patch).map_err(|error| error.to_string())?;
    let patch: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if patch.is_array() { Ok(patch) } else { Err("json: cannot unmarshal object into Go value of type jsonpatch.Patch".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_held_to_the_question() {
        let said = |response: Value| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        let why = |value: Value, mutating: bool| answer(&value, "v1", "u", mutating).err().unwrap_or_default();
        assert_eq!(why(said(json!({"uid": "u", "allowed": true})), false), "");
        assert_eq!(why(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}), false), "webhook response was absent");
        assert_eq!(why(said(json!({"uid": "x"})), false), r#"expected response.uid="u", got "x""#);
        assert_eq!(why(json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "response": {"uid": "u"}}), true), "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview");
        assert_eq!(why(said(json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"})), false), "validating webhook may not return response.patch");
        assert_eq!(why(said(json!({"uid": "u", "patch": "W10="})), true), "webhook returned response.patch but not response.patchType");
        assert_eq!(why(said(json!({"uid": "u", "patchType": "JSONPatch"})), true), "webhook returned response.patchType but not response.patch");
        assert!(decode_patch("e30=").is_err() && decode_patch("W10=").is_ok());
        // The older review was never checked so.
        assert!(answer(&json!({"response": {"allowed": true}}), "v1beta1", "u", false).unwrap().allowed);
    }
}
