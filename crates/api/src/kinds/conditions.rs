//! `metav1.Condition`s of a status. Mirrors ValidateConditions of apimachinery's pkg/apis/meta/v1/validation.

use std::collections::BTreeSet;

use serde_json::Value;

use super::json::{child, number, text};
use crate::names;
use crate::validation::{Errors, Path};

const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32 * 1024;

/// `path` is that of the list.
pub fn check(errors: &mut Errors, path: &Path, conditions: &[Value]) {
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if !seen.insert(text(condition, "type")) {
            errors.duplicate(&path.child("type"), text(condition, "type"));
        }
        check_one(errors, &path, condition);
    }
}

fn check_one(errors: &mut Errors, path: &Path, condition: &Value) {
    errors.name(&path.child("type"), text(condition, "type"), names::qualified_name);
    let status = text(condition, "status");
    if !matches!(status, "True" | "False" | "Unknown") {
        errors.not_supported(&path.child("status"), status, &["False", "True", "Unknown"]);
    }
    if let Some(generation) = number(condition, "observedGeneration").filter(|generation| *generation < 0) {
        errors.invalid(&path.child("observedGeneration"), &generation, "must be greater than or equal to zero");
    }
    if child(condition, "lastTransitionTime").is_none() {
        errors.required(&path.child("lastTransitionTime"), "");
    }
    match text(condition, "reason") {
        "" => errors.required(&path.child("reason"), ""),
        reason => {
            if !is_reason(reason) {
                let why = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
                let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
                errors.invalid(&path.child("reason"), reason, &names::regex_error(why, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples));
            }
            if reason.len() > REASON_MAX {
                errors.too_long(&path.child("reason"), REASON_MAX);
            }
        }
    }
    if text(condition, "message").len() > MESSAGE_MAX {
        errors.too_long(&path.child("message"), MESSAGE_MAX);
    }
}

fn is_reason(reason: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',' | b':');
    reason.starts_with(|ch: char| ch.is_ascii_alphabetic()) && reason.bytes().all(inner) && !reason.ends_with([',', ':'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::lines;
    use super::*;

    #[test]
    fn what_a_condition_says() {
        let good = json!({"type": "a.b/Ready", "status": "True", "reason": "R:a", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let told = |name: &str, value: serde_json::Value| {
            let mut condition = good.clone();
            condition[name] = value;
            let mut errors = Errors::new();
            check(&mut errors, &Path::Root("c"), &[condition]);
            lines(&errors.into_causes())
        };
        assert!(told("message", json!("m")).is_empty());
        assert_eq!(told("status", json!("x")), ["c[0].status: Unsupported value: \"x\": supported values: \"False\", \"True\", \"Unknown\""]);
        assert_eq!(told("reason", json!("")), ["c[0].reason: Required value"]);
        assert_eq!(told("lastTransitionTime", json!(null)), ["c[0].lastTransitionTime: Required value"]);
        assert_eq!(told("observedGeneration", json!(-1)), ["c[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero"]);
        assert!(told("reason", json!("a:"))[0].starts_with("c[0].reason: Invalid value: \"a:\": a condition reason must start with"));
        let mut errors = Errors::new();
        check(&mut errors, &Path::Root("c"), &[good.clone(), good.clone()]);
        assert_eq!(lines(&errors.into_causes()), ["c[1].type: Duplicate value: \"a.b/Ready\""]);
    }
}
