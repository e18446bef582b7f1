//! ValidatingAdmissionPolicies and MutatingAdmissionPolicies, and the match conditions of webhooks.

use serde_json::{Value, json};

use crate::custom::{definition, establish};
use crate::harness::{CONFIG_MAPS, Server, config_map};
use crate::listener::Listener;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn constraints(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}]})
}

async fn validating(server: &Server, spec: Value, binding: Value) {
    let mut binding = binding;
    binding["policyName"] = "p".into();
    if binding.get("validationActions").is_none() {
        binding["validationActions"] = json!(["Deny"]);
    }
    server.post(&format!("{GROUP}/validatingadmissionpolicies"), json!({"metadata": {"name": "p"}, "spec": spec})).await.expect(201);
    server.post(&format!("{GROUP}/validatingadmissionpolicybindings"), json!({"metadata": {"name": "b"}, "spec": binding})).await.expect(201);
}

async fn mutating(server: &Server, spec: Value) {
    let mut spec = spec;
    spec["reinvocationPolicy"] = "Never".into();
    server.post(&format!("{GROUP}/mutatingadmissionpolicies"), json!({"metadata": {"name": "m"}, "spec": spec})).await.expect(201);
    server.post(&format!("{GROUP}/mutatingadmissionpolicybindings"), json!({"metadata": {"name": "mb"}, "spec": {"policyName": "m"}})).await.expect(201);
}

fn deployment(replicas: i64) -> Value {
    let template = json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json!({"metadata": {"name": "d"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "d"}}, "template": template}})
}

#[tokio::test]
async fn validations_deny_in_upstreams_words() {
    let server = Server::start().await;
    let spec = json!({
        "matchConstraints": constraints("apps", "deployments"),
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}, {"name": "odd", "expression": "variables.replicas % 2 == 1"}],
        "validations": [
            {"expression": "variables.replicas > 1", "messageExpression": "'wants more than ' + string(variables.replicas)", "reason": "Forbidden"},
            {"expression": "variables.odd"},
            {"expression": "namespaceObject.metadata.name == 'default' && request.operation == 'CREATE' && authorizer.group('').resource('pods').check('create').allowed()"}
        ]
    });
    validating(&server, spec, json!({})).await;
    let reply = server.post(DEPLOYMENTS, deployment(1)).await.expect(403);
    assert_eq!(reply.message(), "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: wants more than 1");
    assert_eq!(reply.json()["details"]["causes"][0]["message"], "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: wants more than 1");
    let reply = server.post(DEPLOYMENTS, deployment(4)).await.expect(422);
    assert_eq!((reply.reason(), reply.message()), ("Invalid".into(), "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: variables.odd".into()));
    server.post(DEPLOYMENTS, deployment(3)).await.expect(201);
    // What is not named is not judged.
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
}

#[tokio::test]
async fn parameters_and_actions() {
    let server = Server::start().await;
    let spec = json!({"matchConstraints": constraints("", "configmaps"), "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "matchConditions": [{"name": "named", "expression": "object.metadata.name.startsWith('judged')"}],
        "validations": [{"expression": "object.data.k == params.data.k", "message": "not as the parameters say"}]});
    server.post(CONFIG_MAPS, config_map("params")).await.expect(201);
    let reference = json!({"paramRef": {"name": "params", "namespace": "default", "parameterNotFoundAction": "Deny"}, "validationActions": ["Warn", "Audit"]});
    validating(&server, spec, reference).await;
    let mut wrong = config_map("judged");
    wrong["data"]["k"] = "other".into();
    let reply = server.post(&format!("{CONFIG_MAPS}?dryRun=All"), wrong.clone()).await.expect(201);
    assert_eq!(reply.warnings(), [r#"299 - "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': not as the parameters say""#]);
    server.patch(&format!("{GROUP}/validatingadmissionpolicybindings/b"), "merge-patch+json", json!({"spec": {"validationActions": ["Deny"]}})).await.expect(200);
    assert!(server.post(CONFIG_MAPS, wrong.clone()).await.expect(422).message().ends_with("denied request: not as the parameters say"));
    let mut free = wrong.clone();
    free["metadata"]["name"] = "free".into();
    server.post(CONFIG_MAPS, free).await.expect(201);
    server.delete(&format!("{CONFIG_MAPS}/params")).await.expect(200);
    assert!(server.post(CONFIG_MAPS, wrong).await.expect(422).message().ends_with("denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"));
}

#[tokio::test]
async fn errors_follow_the_failure_policy() {
    let server = Server::start().await;
    let spec = |policy: &str| json!({"matchConstraints": constraints("", "configmaps"), "failurePolicy": policy, "validations": [{"expression": "object.data.missing == 'x'"}]});
    validating(&server, spec("Fail"), json!({})).await;
    let reply = server.post(CONFIG_MAPS, config_map("a")).await.expect(422);
    assert!(reply.message().ends_with("denied request: expression 'object.data.missing == 'x'' resulted in error: no such key: missing"), "{}", reply.message());
    server.patch(&format!("{GROUP}/validatingadmissionpolicies/p"), "merge-patch+json", json!({"spec": {"failurePolicy": "Ignore"}})).await.expect(200);
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let bad = json!({"metadata": {"name": "q"}, "spec": {"matchConstraints": constraints("", "configmaps"), "validations": [{"expression": "object.x >"}, {"expression": "'text'"}]}});
    let reply = server.post(&format!("{GROUP}/validatingadmissionpolicies"), bad).await.expect(422);
    let message = reply.message();
    assert!(message.contains("spec.validations[0].expression: Invalid value: \"object.x >\": compilation failed: ERROR: <input>:1:") && message.contains("spec.validations[1].expression: Invalid value: \"'text'\": must evaluate to bool"), "{message}");
}

#[tokio::test]
async fn expressions_are_checked_against_types() {
    let server = Server::start().await;
    let path = format!("{GROUP}/validatingadmissionpolicies");
    let mut events = server.watch(&format!("{path}?watch=1")).await;
    let spec = |expression: &str, message: &str| json!({"matchConstraints": constraints("apps", "deployments"), "validations": [{"expression": expression, "messageExpression": message}]});
    server.post(&path, json!({"metadata": {"name": "right"}, "spec": spec("object.spec.replicas > 1", "'x'")})).await.expect(201);
    server.post(&path, json!({"metadata": {"name": "wrong"}, "spec": spec("object.spec.replicas > '1'", "'wants replicas > 1, got ' + object.spec.replicas")})).await.expect(201);
    let mut checked = std::collections::BTreeMap::new();
    while checked.len() < 2 {
        let object = events.next().await.unwrap()["object"].clone();
        if object["status"]["typeChecking"].is_object() {
            checked.insert(object["metadata"]["name"].as_str().unwrap().to_owned(), object["status"]["typeChecking"].clone());
        }
    }
    assert_eq!(checked["right"], json!({}));
    let warnings = checked["wrong"]["expressionWarnings"].as_array().unwrap();
    let seen: Vec<&str> = warnings.iter().map(|warning| warning["fieldRef"].as_str().unwrap()).collect();
    assert_eq!(seen, ["spec.validations[0].expression", "spec.validations[0].messageExpression"]);
    let warning = warnings[0]["warning"].as_str().unwrap();
    assert!(warning.starts_with("apps/v1, Kind=Deployment: ") && warning.contains("found no matching overload for '_>_' applied to '(int, string)'"), "{warning}");
    assert!(warnings[1]["warning"].as_str().unwrap().contains("found no matching overload for '_+_' applied to '(string, int)'"));
}

#[tokio::test]
async fn mutations_apply_and_patch() {
    let server = Server::start().await;
    let apply = "Object{metadata: Object.metadata{annotations: {'by': 'policy'}}, spec: Object.spec{replicas: object.spec.replicas + 1}}";
    let patch = "[JSONPatch{op: 'test', path: '/metadata/name', value: 'd'}, JSONPatch{op: 'add', path: '/metadata/labels', value: {'patched': 'yes'}}]";
    mutating(&server, json!({"matchConstraints": constraints("apps", "deployments"), "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}}, {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]}))
    .await;
    let made = server.post(DEPLOYMENTS, deployment(1)).await.expect(201).json();
    assert_eq!((&made["spec"]["replicas"], &made["metadata"]["annotations"]["by"], &made["metadata"]["labels"]), (&json!(2), &json!("policy"), &json!({"patched": "yes"})));
    let mut other = deployment(1);
    other["metadata"]["name"] = "other".into();
    assert_eq!(server.post(DEPLOYMENTS, other).await.expect(201).json()["metadata"].get("labels"), None);
}

#[tokio::test]
async fn custom_kinds_are_mutated_and_judged() {
    let server = Server::start().await;
    establish(&server, definition()).await;
    mutating(&server, json!({"matchConstraints": constraints("stable.example.com", "crontabs"), "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{ports: [Object.spec.ports{port: 80, name: 'http'}]}}"}}]})).await;
    validating(&server, json!({"matchConstraints": constraints("stable.example.com", "crontabs"), "validations": [{"expression": "object.spec.ports.exists(port, port.port == 80) && object.spec.ports.size() == 2"}]}), json!({})).await;
    let object = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": {"cronSpec": "* * * * *", "ports": [{"port": 443}]}});
    let made = server.post("/apis/stable.example.com/v1/namespaces/default/crontabs", object).await.expect(201).json();
    assert_eq!(made["spec"]["ports"], json!([{"port": 443}, {"port": 80, "name": "http"}]));
}

#[tokio::test]
async fn match_conditions_of_webhooks() {
    let server = Server::start().await;
    let listener = Listener::start(|_, review| Some(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": review["request"]["uid"], "allowed": false}}))).await;
    let hook = |conditions: Value| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "v"}, "webhooks": [{
            "name": "v.example.com", "clientConfig": listener.client("/"), "sideEffects": "None", "admissionReviewVersions": ["v1"], "matchConditions": conditions,
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]})
    };
    let path = format!("{GROUP}/validatingwebhookconfigurations");
    let reply = server.post(&path, hook(json!([{"name": "bad", "expression": "1"}]))).await.expect(422);
    assert!(reply.message().contains("webhooks[0].matchConditions[0].expression: Invalid value: \"1\": must evaluate to bool"), "{}", reply.message());
    server.post(&path, hook(json!([{"name": "not-free", "expression": "object.metadata.name != 'free'"}, {"name": "key", "expression": "object.data.k != 'free'"}]))).await.expect(201);
    server.post(CONFIG_MAPS, config_map("free")).await.expect(201);
    server.post(CONFIG_MAPS, config_map("other")).await.expect(400);
    let reply = server.post(CONFIG_MAPS, json!({"metadata": {"name": "no-data"}})).await.expect(403);
    assert!(reply.message().contains("configmaps \"no-data\" is forbidden: expression 'object.data.k != 'free'' resulted in error: no such key: data"), "{}", reply.message());
}
