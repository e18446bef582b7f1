//! `x-kubernetes-validations`: what a definition's expressions say of its objects, and which definitions are refused for theirs.

use serde_json::{Value, json};

use crate::custom::{definition, establish};
use crate::harness::Server;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRON_TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

fn with(spec: Value) -> Value {
    let mut definition = definition();
    let version = &mut definition["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"]["properties"]["spec"] = spec;
    for name in ["selectableFields", "additionalPrinterColumns", "subresources"] {
        version.as_object_mut().unwrap().remove(name);
    }
    definition
}

fn object(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn objects_obey_the_rules() {
    let server = Server::start().await;
    establish(
        &server,
        with(json!({"type": "object", "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string", "maxLength": 10, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
            "tags": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 10}}},
            "x-kubernetes-validations": [
                {"rule": "!has(self.min) || !has(self.max) || self.min <= self.max", "messageExpression": "'min is ' + 'over max'", "fieldPath": ".min", "reason": "FieldValueForbidden"},
                {"rule": "!has(self.tags) || self.tags.all(tag, tag.startsWith('t'))"},
                {"rule": "!oldSelf.hasValue() || !has(oldSelf.value().max) || self.max >= oldSelf.value().max", "optionalOldSelf": true, "message": "max only grows"}
            ]})),
    )
    .await;
    let refused = |reply: crate::harness::Reply| reply.expect(422).json()["details"]["causes"].as_array().unwrap().iter().map(|cause| format!("{} {}: {}", cause["reason"].as_str().unwrap(), cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap())).collect::<Vec<_>>();
    assert_eq!(refused(server.post(CRON_TABS, object("a", json!({"min": 3, "max": 2, "tags": ["x"]}))).await), [
        "FieldValueForbidden spec.min: Forbidden: min is over max",
        "FieldValueInvalid spec: Invalid value: failed rule: !has(self.tags) || self.tags.all(tag, tag.startsWith('t'))",
    ]);
    // A wrong type keeps expressions from being asked.
    assert_eq!(refused(server.post(CRON_TABS, object("a", json!({"min": "x"}))).await)[1], "FieldValueInvalid <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation");
    server.post(CRON_TABS, object("a", json!({"min": 1, "max": 2, "name": "x"}))).await.expect(201);
    let one = format!("{CRON_TABS}/a");
    let patch = async |spec: Value| server.patch(&one, "merge-patch+json", json!({"spec": spec})).await;
    assert_eq!(refused(patch(json!({"name": "y", "max": 1})).await), ["FieldValueInvalid spec: Invalid value: max only grows", "FieldValueInvalid spec.name: Invalid value: \"y\": is immutable"]);
    patch(json!({"max": 5})).await.expect(200);
}

#[tokio::test]
async fn definitions_with_rules_that_cannot_be_used_are_refused() {
    let server = Server::start().await;
    for (spec, wanted) in [
        (json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.b > 1"}]}), "x-kubernetes-validations[0].rule: Invalid value"),
        (json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.a"}]}), "cel expression must evaluate to a bool"),
        (json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}}), "oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[spec].properties[a]"),
        (json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}, "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x.all(z, y.all(w, w.contains(z)))))"}]}}}), "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"),
        (json!({"type": "object", "properties": {"a": {"type": "integer", "default": 3}}, "default": {}, "x-kubernetes-validations": [{"rule": "has(self.a) && self.a > 5"}]}), "default: Invalid value: failed rule: has(self.a) && self.a > 5"),
    ] {
        let reply = server.post(DEFINITIONS, with(spec)).await.expect(422);
        assert!(reply.message().contains(wanted), "{}", reply.message());
    }
    assert!(server.post(DEFINITIONS, with(json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.a > "}]}))).await.expect(422).message().contains("compilation failed: ERROR: <input>:1:"));
}
