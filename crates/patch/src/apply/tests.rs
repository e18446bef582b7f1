//! Server-side apply as tables: who owns what, what conflicts, what goes.

use api::schema::{self, TypeInfo};
use serde_json::json;

use super::*;

const NOW: &str = "2026-11-23T00:00:00Z";
const LATER: &str = "2026-11-23T00:01:00Z";

fn deployment() -> Option<&'static TypeInfo> {
    schema::of("io.k8s.api.apps.v1.Deployment")
}

fn by<'a>(manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer { manager, api_version: "apps/v1", subresource: "", now, reset: &["status"], versions: None }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn containers(containers: Value) -> Value {
    config(json!({"template": {"spec": {"containers": containers}}}))
}

fn owned(object: &Value, manager: &str) -> Option<Value> {
    object["metadata"]["managedFields"].as_array().into_iter().flatten().find(|entry| entry["manager"] == manager).map(|entry| entry["fieldsV1"].clone())
}

#[test]
fn a_first_apply_creates_and_owns() {
    let object = apply(None, &config(json!({"replicas": 3, "template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}})), deployment(), &by("me", NOW), false).unwrap();
    assert_eq!(object["spec"]["replicas"], 3);
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}},
        }])
    );
}

#[test]
fn what_is_no_longer_applied_goes() {
    let first = apply(None, &containers(json!([{"name": "a", "image": "x", "command": ["c"]}, {"name": "b"}])), deployment(), &by("me", NOW), false).unwrap();
    let second = apply(Some(&first), &containers(json!([{"name": "a", "image": "y"}])), deployment(), &by("me", LATER), false).unwrap();
    assert_eq!(second["spec"]["template"]["spec"]["containers"], json!([{"name": "a", "image": "y"}]));
    assert_eq!(second["metadata"]["managedFields"][0]["time"], LATER);
    // The same again changes nothing, not even the time.
    assert_eq!(apply(Some(&second), &containers(json!([{"name": "a", "image": "y"}])), deployment(), &by("me", "2026-11-23T00:02:00Z"), false).unwrap(), second);
}

#[test]
fn conflicts_name_the_manager_and_the_field() {
    let first = apply(None, &config(json!({"replicas": 3, "paused": true})), deployment(), &by("me", NOW), false).unwrap();
    let theirs = config(json!({"replicas": 5}));
    let error = apply(Some(&first), &theirs, deployment(), &by("them", LATER), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
    assert_eq!(error.status().details.causes[0].field, ".spec.replicas");
    let both = config(json!({"replicas": 5, "paused": false}));
    let error = apply(Some(&first), &both, deployment(), &by("them", LATER), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 2 conflicts: conflicts with \"me\":\n- .spec.paused\n- .spec.replicas");
    // Force takes the field over.
    let forced = apply(Some(&first), &theirs, deployment(), &by("them", LATER), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 5);
    assert_eq!(owned(&forced, "me").unwrap(), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(owned(&forced, "them").unwrap(), json!({"f:spec": {"f:replicas": {}}}));
    // The same value is shared, not fought over.
    let shared = apply(Some(&first), &config(json!({"replicas": 3})), deployment(), &by("them", LATER), false).unwrap();
    assert_eq!(owned(&shared, "me").unwrap(), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
    // What one of two owners drops stays.
    let dropped = apply(Some(&shared), &config(json!({"paused": true})), deployment(), &by("me", LATER), false).unwrap();
    assert_eq!(dropped["spec"]["replicas"], 3);
}

#[test]
fn updates_are_tracked() {
    let mut object = containers(json!([{"name": "a", "image": "x"}]));
    object["spec"]["replicas"] = json!(1);
    track(None, &mut object, deployment(), &by("kubectl", NOW));
    assert_eq!(
        owned(&object, "kubectl").unwrap(),
        json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}})
    );
    let mut scaled = object.clone();
    scaled["spec"]["replicas"] = json!(4);
    track(Some(&object), &mut scaled, deployment(), &by("autoscaler", LATER));
    assert_eq!(owned(&scaled, "autoscaler").unwrap(), json!({"f:spec": {"f:replicas": {}}}));
    assert!(owned(&scaled, "kubectl").unwrap()["f:spec"].get("f:replicas").is_none());
    // An update without a change leaves everything as it is.
    let mut same = scaled.clone();
    track(Some(&scaled), &mut same, deployment(), &by("noone", "2026-11-23T00:03:00Z"));
    assert_eq!(same, scaled);
    // An updater conflicts with an applier, and is named with its version.
    let error = apply(Some(&scaled), &config(json!({"replicas": 9})), deployment(), &by("me", LATER), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"autoscaler\" using apps/v1: .spec.replicas");
    // Clients may forget the managers.
    let mut forgotten = scaled.clone();
    forgotten["metadata"]["managedFields"] = json!([{}]);
    track(Some(&scaled), &mut forgotten, deployment(), &by("noone", LATER));
    assert!(forgotten["metadata"].get("managedFields").is_none());
}

#[test]
fn status_belongs_to_its_subresource() {
    let mut object = config(json!({"replicas": 1}));
    object["status"] = json!({"replicas": 1});
    track(None, &mut object, deployment(), &by("kubectl", NOW));
    assert!(owned(&object, "kubectl").unwrap().get("f:status").is_none());
    let mut reported = object.clone();
    reported["status"]["readyReplicas"] = json!(1);
    track(Some(&object), &mut reported, deployment(), &Writer { subresource: "status", reset: &["spec", "metadata"], ..by("controller", LATER) });
    let entry = reported["metadata"]["managedFields"].as_array().unwrap().iter().find(|entry| entry["manager"] == "controller").unwrap().clone();
    assert_eq!((entry["subresource"].as_str().unwrap(), &entry["fieldsV1"]), ("status", &json!({"f:status": {"f:readyReplicas": {}}})));
}

#[test]
fn an_unmanaged_object_is_adopted() {
    let live = config(json!({"replicas": 1, "paused": true}));
    let object = apply(Some(&live), &config(json!({"replicas": 1})), deployment(), &by("me", NOW), false).unwrap();
    assert_eq!(owned(&object, "before-first-apply").unwrap(), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
    assert_eq!(object["spec"], json!({"replicas": 1, "paused": true}));
}

#[test]
fn list_keys_have_defaults_and_order_holds() {
    let ports = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let service = schema::of("io.k8s.api.core.v1.Service");
    let writer = Writer { api_version: "v1", ..by("me", NOW) };
    let live = apply(None, &ports(json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}])), service, &writer, false).unwrap();
    let other = Writer { manager: "other", ..writer };
    let object = apply(Some(&live), &ports(json!([{"port": 53, "protocol": "TCP"}, {"port": 80, "name": "web"}])), service, &other, false).unwrap();
    assert_eq!(object["spec"]["ports"], json!([{"port": 53, "protocol": "TCP"}, {"port": 80, "protocol": "TCP", "name": "web"}, {"port": 53, "protocol": "UDP"}]));
}

#[test]
fn refuses_what_does_not_fit() {
    for (value, wanted) in [
        (config(json!({"foo": 1})), "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema"),
        (containers(json!([{"name": "a"}, {"name": "a"}])), "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name=\"a\"]"),
        (containers(json!([{"image": "a"}])), "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)"),
        (json!({"metadata": {"managedFields": []}}), "metadata.managedFields must be nil"),
    ] {
        assert_eq!(apply(None, &value, deployment(), &by("me", NOW), false).unwrap_err().to_string(), wanted);
    }
}

#[test]
fn the_oldest_updaters_are_lumped_together() {
    let mut object = config(json!({"replicas": 0}));
    track(None, &mut object, deployment(), &by("manager-0", NOW));
    for number in 1..14 {
        let mut next = object.clone();
        next["metadata"]["labels"][format!("l{number}")] = json!("x");
        track(Some(&object), &mut next, deployment(), &by(&format!("manager-{number}"), &format!("2026-11-23T01:{number:02}:00Z")));
        object = next;
    }
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert_eq!(owned(&object, "ancient-changes").unwrap()["f:spec"], json!({"f:replicas": {}}));
}

#[test]
fn without_schema_lists_are_whole() {
    let custom = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": spec});
    let writer = Writer { api_version: "example.com/v1", ..by("me", NOW) };
    let live = apply(None, &custom(json!({"list": [1, 2], "map": {"a": 1}})), None, &writer, false).unwrap();
    let object = apply(Some(&live), &custom(json!({"list": [3], "map": {"b": 1}})), None, &Writer { now: LATER, ..writer }, false).unwrap();
    assert_eq!(object["spec"], json!({"list": [3], "map": {"b": 1}}));
}

#[test]
fn custom_kinds_merge_by_their_schema() {
    let schema = api::structural::Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"], "items": {"type": "object", "properties": {
            "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}));
    let writer = |manager: &'static str| Writer { manager, api_version: "example.com/v1", subresource: "", now: "2026-01-01T00:00:00Z", reset: &[], versions: None };
    let config = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": spec});
    let facts = Facts::Custom(&schema);
    let first = apply(None, &config(json!({"ports": [{"port": 80, "name": "http"}], "tags": ["a"], "whole": {"x": "1"}, "free": {"deep": {"er": 1}}})), facts, &writer("one"), false).unwrap();
    let both = apply(Some(&first), &config(json!({"ports": [{"port": 443, "name": "https"}], "tags": ["b"]})), facts, &writer("two"), false).unwrap();
    assert_eq!(both["spec"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(both["spec"]["tags"], json!(["a", "b"]));
    let fields = &both["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert_eq!(fields["f:ports"], json!({"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}));
    assert_eq!((&fields["f:whole"], &fields["f:free"]), (&json!({}), &json!({"f:deep": {".": {}, "f:er": {}}})));
    let conflict = apply(Some(&both), &config(json!({"whole": {"x": "2"}})), facts, &writer("two"), false).unwrap_err();
    assert_eq!(conflict.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.whole");
    let unknown = apply(None, &config(json!({"nope": 1})), facts, &writer("one"), false).unwrap_err();
    assert!(unknown.to_string().ends_with(".spec.nope: field not declared in schema"));
    let gone = apply(Some(&both), &config(json!({})), facts, &writer("one"), false).unwrap();
    assert_eq!(gone["spec"], json!({"ports": [{"port": 443, "name": "https"}], "tags": ["b"]}));
}

/// v1's `spec.size` is v2's `spec.length`; v0 is gone; v9 is known to a webhook only.
#[derive(Debug)]
struct Sizes;

impl Versions for Sizes {
    fn form(&self, object: &Value, api_version: &str) -> Form<'_> {
        let (from, to) = match api_version {
            "example.com/v1" => ("length", "size"),
            "example.com/v2" => ("size", "length"),
            "example.com/v0" => return Form::Gone,
            _ => return Form::Untold,
        };
        let mut object = object.clone();
        object["apiVersion"] = api_version.into();
        if let Some(spec) = object["spec"].as_object_mut()
            && let Some(value) = spec.remove(from)
        {
            spec.insert(to.to_owned(), value);
        }
        Form::Known(object, Facts::None)
    }
}

#[test]
fn managers_of_other_versions_are_told_in_their_terms() {
    let writer = |manager: &'static str, api_version: &'static str| Writer { manager, api_version, subresource: "", now: NOW, reset: &[], versions: Some(&Sizes) };
    let object = |version: &str, spec: Value| json!({"apiVersion": format!("example.com/{version}"), "kind": "Foo", "metadata": {"name": "a"}, "spec": spec});
    let first = apply(None, &object("v1", json!({"size": 1, "keep": "x"})), None, &writer("one", "example.com/v1"), false).unwrap();
    let Form::Known(mut seen, _) = Sizes.form(&first, "example.com/v2") else { panic!("v2 is known") };
    // Another manager meets the first one's field under its new name …
    let refused = apply(Some(&seen), &object("v2", json!({"length": 2})), None, &writer("two", "example.com/v2"), false).unwrap_err();
    assert_eq!(refused.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.size");
    // … and takes it, as does who just writes.
    let forced = apply(Some(&seen), &object("v2", json!({"length": 2})), None, &writer("two", "example.com/v2"), true).unwrap();
    let kept = json!({"f:spec": {".": {}, "f:keep": {}}});
    assert_eq!(owned(&forced, "one").unwrap(), kept);
    let before = seen.clone();
    seen["spec"]["length"] = 3.into();
    track(Some(&before), &mut seen, None, &writer("three", "example.com/v2"));
    assert_eq!((owned(&seen, "one").unwrap(), owned(&seen, "three").unwrap()), (kept, json!({"f:spec": {"f:length": {}}})));
    // The same applier in the other version drops what it applied under the old name.
    let dropped = apply(Some(&before), &object("v2", json!({"keep": "x"})), None, &writer("one", "example.com/v2"), false).unwrap();
    assert_eq!(dropped["spec"], json!({"keep": "x"}));
    // Owners in a version that is gone are forgotten, in one that cannot be told they stay.
    let mut old = before.clone();
    let entry = |manager: &str, version: &str| json!({"manager": manager, "operation": "Update", "apiVersion": format!("example.com/{version}"), "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:keep": {}}}});
    old["metadata"]["managedFields"] = json!([entry("gone", "v0"), entry("far", "v9")]);
    let mut new = old.clone();
    new["spec"]["keep"] = "y".into();
    track(Some(&old), &mut new, None, &writer("me", "example.com/v2"));
    assert_eq!((owned(&new, "gone"), owned(&new, "far")), (None, Some(json!({"f:spec": {"f:keep": {}}}))));
}

/// As long as a request may be: items that were compared with one another took minutes.
#[test]
fn long_lists_are_applied_in_a_moment() {
    const ITEMS: usize = 20_000;
    let document = |from: usize| {
        let mut document = containers((from..from + ITEMS).map(|number| json!({"name": format!("c{number}")})).collect());
        document["metadata"]["finalizers"] = (from..from + ITEMS).map(|number| json!(format!("example.com/{number}"))).collect();
        document
    };
    let first = apply(None, &document(0), deployment(), &by("me", NOW), false).unwrap();
    let second = apply(Some(&first), &document(ITEMS / 2), deployment(), &by("me", LATER), false).unwrap();
    assert_eq!((second["metadata"]["finalizers"].as_array().unwrap().len(), second["spec"]["template"]["spec"]["containers"].as_array().unwrap().len()), (ITEMS, ITEMS));
}
