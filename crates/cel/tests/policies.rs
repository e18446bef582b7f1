//! What admission needs: variables by name and by need, the authorizer, patches, budgets.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{
    Activation, AuthorizationRequest, AuthorizationResult, Authorizer, Budget, DeclType, Env, EvalError, ResourceAttributes, Type, UserInfo, Value,
};
use serde_json::json;

struct OnlyPods;

impl Authorizer for OnlyPods {
    fn authorize(&self, request: &AuthorizationRequest) -> AuthorizationResult {
        let allowed = request.resource == "pods" && request.verb == "get" || request.path.as_deref() == Some("/healthz");
        let error = (request.resource == "broken").then(|| "no answer".to_owned());
        AuthorizationResult { allowed, reason: format!("{} asked", request.user), error }
    }
}

fn user() -> UserInfo {
    UserInfo { name: "ann".to_owned(), uid: String::new(), groups: Vec::new(), extra: BTreeMap::new() }
}

#[test]
fn the_authorizer_is_asked() {
    let env =
        Env::new().variable("authorizer", DeclType::of(Type::AUTHORIZER)).variable("authorizer.requestResource", DeclType::of(Type::RESOURCE_CHECK));
    let attributes = ResourceAttributes { resource: "pods".to_owned(), namespace: "x".to_owned(), ..Default::default() };
    for (expression, wanted) in [
        ("authorizer.group('').resource('pods').check('get').allowed()", true),
        ("authorizer.group('').resource('pods').namespace('a').name('b').subresource('c').check('list').allowed()", false),
        ("authorizer.path('/healthz').check('get').allowed()", true),
        ("authorizer.requestResource.check('get').allowed()", true),
        ("authorizer.group('').resource('pods').check('get').reason() == 'ann asked'", true),
        ("authorizer.serviceAccount('ns', 'sa').group('').resource('pods').check('get').reason() == 'system:serviceaccount:ns:sa asked'", true),
        ("authorizer.group('').resource('broken').check('get').errored()", true),
        ("authorizer.group('').resource('broken').check('get').error() == 'no answer'", true),
        ("authorizer.group('').resource('pods').fieldSelector('a=b').labelSelector('c').check('get').allowed()", true),
    ] {
        let program = env.compile(expression).unwrap();
        let activation = Activation::new()
            .bind("authorizer", Value::authorizer(Arc::new(OnlyPods), user()))
            .bind("authorizer.requestResource", Value::resource_check(Arc::new(OnlyPods), user(), attributes.clone()));
        assert_eq!(program.evaluate(&activation, &mut Budget::new(10_000_000)).unwrap().as_bool(), Some(wanted), "{expression}");
        // Three questions are too many.
        let three = env.compile(&format!("[{expression}, {expression}, {expression}].all(x, x == {wanted})")).unwrap();
        assert_eq!(three.evaluate(&activation, &mut Budget::new(10_000_000)).unwrap_err(), EvalError::CallLimit, "{expression}");
    }
    let activation = Activation::new().bind("authorizer", Value::authorizer(Arc::new(OnlyPods), user()));
    let program = env.compile("authorizer.path(' ').check('get').allowed()").unwrap();
    assert_eq!(program.evaluate(&activation, &mut Budget::new(10_000_000)).unwrap_err().to_string(), "path must not be empty");
}

#[test]
fn variables_are_evaluated_once_and_only_if_needed() {
    let mut env = Env::new().variable("object", DeclType::dyn_());
    env.declare_set("variables");
    let replicas = env.compile("object.spec.replicas").unwrap();
    env.add_variable("variables.replicas", DeclType::of(replicas.output_type().clone()));
    let double = env.compile("variables.replicas * 2").unwrap();
    env.add_variable("variables.double", DeclType::of(double.output_type().clone()));
    let broken = env.compile("object.missing").unwrap();
    env.add_variable("variables.broken", DeclType::dyn_());

    let object = json!({"spec": {"replicas": 3}});
    let activation = Activation::new()
        .bind("object", Value::json(&object))
        .lazy("variables.replicas", &replicas)
        .lazy("variables.double", &double)
        .lazy("variables.broken", &broken);
    let mut budget = Budget::new(10_000_000);
    let program = env.compile("variables.double == 6 && variables.double + variables.replicas == 9 && has(variables.double)").unwrap();
    assert_eq!(program.evaluate(&activation, &mut budget).unwrap().as_bool(), Some(true));
    // 3 for object.spec.replicas, 3 for the doubling, and what the expression itself reads and does.
    assert_eq!(10_000_000 - budget.remaining(), 3 + 3 + 3 + 6);
    let program = env.compile("variables.broken == 1").unwrap();
    assert_eq!(program.evaluate(&activation, &mut budget).unwrap_err().to_string(), "no such key: missing");
    let error = env.compile("variables.nothing == 1").unwrap_err();
    assert_eq!(error.issues[0].message, "undefined field 'nothing'");
    assert!(env.compile("variables == 1").is_err());
}

#[test]
fn a_variable_that_is_not_bound_or_does_not_fit_is_an_error() {
    let decl = DeclType::from_schema(&json!({"type": "integer"}), false).unwrap();
    let env = Env::new().variable("self", decl.clone());
    let program = env.compile("self > 1").unwrap();
    let mut budget = Budget::new(1000);
    assert_eq!(program.evaluate(&Activation::new(), &mut budget).unwrap_err().to_string(), "no such attribute(s): self");
    let text = json!("x");
    let error = program.evaluate(&Activation::new().bind("self", Value::typed(&text, &decl)), &mut budget).unwrap_err();
    assert_eq!(error.to_string(), "invalid data, expected int");
}

#[test]
fn patches() {
    let env = Env::new().variable("object", DeclType::dyn_()).with_patch_types();
    let object = json!({"metadata": {"labels": {"a/b": "c"}}});
    let activation = Activation::new().bind("object", Value::json(&object));
    for (expression, wanted) in [
        ("Object{spec: Object.spec{replicas: 3, paused: true}}", json!({"spec": {"replicas": 3, "paused": true}})),
        ("Object{metadata: Object.metadata{?name: optional.none(), labels: {'x': 'y'}}}", json!({"metadata": {"labels": {"x": "y"}}})),
        ("Object{spec: Object.spec{list: [Object.spec.list{name: 'a'}]}}", json!({"spec": {"list": [{"name": "a"}]}})),
        (
            "[JSONPatch{op: 'test', path: '/a', value: 'x'}, JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b~c'), value: {'k': 1}}]",
            json!([{"op": "test", "path": "/a", "value": "x"}, {"op": "add", "path": "/metadata/labels/a~1b~0c", "value": {"k": 1}}]),
        ),
        ("has(object.metadata) ? [JSONPatch{op: 'remove', path: '/x'}] : []", json!([{"op": "remove", "path": "/x"}])),
    ] {
        let program = env.compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(program.evaluate(&activation, &mut Budget::new(100_000)).unwrap().to_json().unwrap(), wanted, "{expression}");
    }
    let misplaced = env.compile("Object{spec: Object.metadata{name: 'x'}}").unwrap();
    let error = misplaced.evaluate(&activation, &mut Budget::new(100_000)).unwrap().to_json().unwrap_err();
    assert_eq!(
        error.to_string(),
        "unexpected type name \"Object.metadata\", expected \"Object.spec\", which matches field name path from root Object type"
    );
    assert_eq!(env.compile("Object{}").unwrap().output_type().to_string(), "Object");
    assert_eq!(env.compile("[JSONPatch{op: 'add'}]").unwrap().output_type().to_string(), "list(JSONPatch)");
    for (wrong, message) in [
        ("JSONPatch{op: 1}", "expected type of field 'op' is 'string' but provided type is 'int'"),
        ("JSONPatch{what: 1}", "undefined field 'what'"),
        ("Nothing{}", "undeclared reference to 'Nothing' (in container '')"),
    ] {
        assert_eq!(env.compile(wrong).unwrap_err().issues[0].message, message);
    }
}

#[test]
fn budgets_end_an_evaluation() {
    let list = serde_json::Value::from((0..1000).collect::<Vec<i64>>());
    let env = Env::new().variable("l", DeclType::dyn_());
    let activation = Activation::new().bind("l", Value::json(&list));
    let quadratic = env.compile("l.all(x, l.exists(y, y == x + 0))").unwrap();
    assert_eq!(quadratic.evaluate(&activation, &mut Budget::new(10_000_000)).unwrap_err(), EvalError::CallLimit);
    let linear = env.compile("l.all(x, x >= 0)").unwrap();
    let mut budget = Budget::new(12_000);
    assert_eq!(linear.evaluate(&activation, &mut budget).unwrap().as_bool(), Some(true));
    assert_eq!(linear.evaluate(&activation, &mut budget).unwrap().as_bool(), Some(true));
    assert_eq!(linear.evaluate(&activation, &mut budget).unwrap_err(), EvalError::OutOfBudget);
    assert!(budget.exhausted());
    // No `||` looks past a limit.
    let hidden = env.compile("l.all(x, l.exists(y, y == x + 0)) || true").unwrap();
    assert_eq!(hidden.evaluate(&activation, &mut Budget::new(10_000_000)).unwrap_err(), EvalError::CallLimit);
}

#[test]
fn the_request_has_its_fields() {
    let request = cel::kubernetes::request_type();
    let namespace = cel::kubernetes::namespace_type();
    let env = Env::new().variable("request", request.clone()).variable("namespaceObject", namespace.clone());
    let data = json!({"operation": "CREATE", "namespace": "default", "userInfo": {"username": "ann", "groups": ["a"]}, "dryRun": false, "options": {"kind": "CreateOptions"}});
    let object = json!({"metadata": {"name": "default", "labels": {"env": "prod"}, "creationTimestamp": "2024-01-01T00:00:00Z"}});
    let activation = Activation::new().bind("request", Value::typed(&data, &request)).bind("namespaceObject", Value::typed(&object, &namespace));
    for expression in [
        "request.operation == 'CREATE' && request.namespace == 'default' && 'a' in request.userInfo.groups && !has(request.name)",
        "request.options.kind == 'CreateOptions' && !request.dryRun",
        "namespaceObject.metadata.labels.env == 'prod' && namespaceObject.metadata.creationTimestamp < timestamp('2025-01-01T00:00:00Z')",
        "namespaceObject.metadata.?annotations[?'x'].orValue('none') == 'none'",
    ] {
        let program = env.compile(expression).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(program.evaluate(&activation, &mut Budget::new(100_000)).unwrap().as_bool(), Some(true), "{expression}");
    }
    assert_eq!(env.compile("request.object == 1").unwrap_err().issues[0].message, "undefined field 'object'");
}
