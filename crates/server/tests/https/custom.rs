//! Custom kinds from definition to the last object, as clients meet them.

use serde_json::{Value, json};

use crate::harness::{Events, Server};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRON_TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

pub fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cronSpec"], "properties": {
                        "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"}, "image": {"type": "string", "default": "busybox"}, "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
                        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"], "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}}
                    }},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "labelSelector": {"type": "string"}}}
                }}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.labelSelector"}},
                "selectableFields": [{"jsonPath": ".spec.image"}],
                "additionalPrinterColumns": [{"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"}, {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1}, {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
            }]
        }
    })
}

fn condition<'a>(definition: &'a Value, kind: &str) -> &'a str {
    definition["status"]["conditions"].as_array().and_then(|all| all.iter().find(|condition| condition["type"] == kind)).and_then(|condition| condition["status"].as_str()).unwrap_or("")
}

/// Creates a definition and waits, as clients do, for its Established condition.
pub async fn establish(server: &Server, definition: Value) -> Value {
    let made = server.post(DEFINITIONS, definition).await.expect(201).json();
    established(server, &made).await
}

async fn established(server: &Server, made: &Value) -> Value {
    let name = made["metadata"]["name"].as_str().unwrap().to_owned();
    let mut events: Events = server.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name={name}")).await;
    loop {
        let event = events.next().await.unwrap();
        if condition(&event["object"], "Established") == "True" {
            return event["object"].clone();
        }
    }
}

fn cron_tab(name: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name, "labels": {"app": name}}, "spec": {"cronSpec": "* * * * */5", "replicas": 2}})
}

#[tokio::test]
async fn a_definition_is_served_at_once() {
    let server = Server::start().await;
    server.get(CRON_TABS).await.expect(404);
    let made = establish(&server, definition()).await;
    assert_eq!(made["status"]["acceptedNames"], json!({"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList", "shortNames": ["ct"], "categories": ["all"]}));
    assert_eq!((condition(&made, "NamesAccepted"), &made["status"]["storedVersions"]), ("True", &json!(["v1"])));
    let created = server.post(CRON_TABS, cron_tab("a")).await.expect(201).json();
    assert_eq!((&created["spec"]["image"], &created["metadata"]["generation"]), (&json!("busybox"), &json!(1)));
    assert!(server.store.get("/registry/stable.example.com/crontabs/default/a").is_some());
    let list = server.get(CRON_TABS).await.expect(200).json();
    assert_eq!((&list["kind"], &list["apiVersion"], &list["items"][0]["kind"]), (&json!("CronTabList"), &json!("stable.example.com/v1"), &json!("CronTab")));
    server.get("/apis/stable.example.com/v1/crontabs").await.expect(200);
    let group = server.get("/apis/stable.example.com").await.expect(200).json();
    assert_eq!(group["preferredVersion"]["groupVersion"], "stable.example.com/v1");
    let resources = server.get("/apis/stable.example.com/v1").await.expect(200).json();
    let names: Vec<&str> = resources["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["crontabs", "crontabs/status", "crontabs/scale"]);
    assert_eq!((&resources["resources"][0]["shortNames"], &resources["resources"][0]["categories"]), (&json!(["ct"]), &json!(["all"])));
    let aggregated = server.call("GET", "/apis", &[("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")], "").await.json();
    assert!(aggregated["items"].as_array().unwrap().iter().any(|group| group["metadata"]["name"] == "stable.example.com"));
}

#[tokio::test]
async fn objects_are_judged_pruned_and_selected() {
    let server = Server::start().await;
    establish(&server, definition()).await;
    let mut wrong = cron_tab("a");
    wrong["spec"]["cronSpec"] = "often".into();
    wrong["spec"]["replicas"] = 11.into();
    let reply = server.post(CRON_TABS, wrong).await.expect(422);
    assert_eq!(
        reply.message(),
        "CronTab.stable.example.com \"a\" is invalid: [spec.cronSpec: Invalid value: \"often\": spec.cronSpec in body should match '^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$', spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10]"
    );
    let mut unknown = cron_tab("a");
    unknown["spec"]["foo"] = 1.into();
    unknown["metadata"]["bar"] = 1.into();
    let reply = server.post(&format!("{CRON_TABS}?fieldValidation=Strict"), unknown.clone()).await.expect(400);
    assert_eq!(reply.message(), "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"metadata.bar\", unknown field \"spec.foo\"");
    let reply = server.post(CRON_TABS, unknown).await.expect(201);
    assert_eq!(reply.warnings().len(), 2);
    assert!(reply.json()["spec"].get("foo").is_none());
    let mut other = cron_tab("b");
    other["spec"]["image"] = "nginx".into();
    server.post(CRON_TABS, other).await.expect(201);
    let names = |list: Value| -> Vec<String> { list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect() };
    assert_eq!(names(server.get(&format!("{CRON_TABS}?fieldSelector=spec.image=nginx")).await.expect(200).json()), ["b"]);
    assert_eq!(names(server.get(&format!("{CRON_TABS}?labelSelector=app=a")).await.expect(200).json()), ["a"]);
    server.get(&format!("{CRON_TABS}?fieldSelector=spec.foo=x")).await.expect(400);
    let table = server.call("GET", CRON_TABS, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await.json();
    let columns: Vec<&str> = table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!((columns.as_slice(), &table["rows"][0]["cells"][1]), (["Name", "Spec", "Replicas", "Age"].as_slice(), &json!("* * * * */5")));
    // Another kind, another version.
    let mut kind = cron_tab("c");
    kind["kind"] = "Foo".into();
    server.post(CRON_TABS, kind).await.expect(422);
    let mut version = cron_tab("c");
    version["apiVersion"] = "stable.example.com/v2".into();
    server.post(CRON_TABS, version).await.expect(400);
}

#[tokio::test]
async fn a_number_that_is_not_there_can_be_set() {
    let server = Server::start().await;
    establish(&server, definition()).await;
    let one = format!("{CRON_TABS}/a");
    server.post(CRON_TABS, cron_tab("a")).await.expect(201);
    // Where there was no number, one may be set; it just cannot be shown before.
    let unset = server.patch(&one, "json-patch+json", json!([{"op": "remove", "path": "/spec/replicas"}])).await.expect(200).json();
    assert_eq!(unset["spec"].get("replicas"), None);
    server.get(&format!("{one}/scale")).await.expect(500);
    server.patch(&format!("{one}/scale"), "merge-patch+json", json!({"metadata": {"labels": {"a": "b"}}})).await.expect(400);
    server.patch(&format!("{one}/scale"), "merge-patch+json", json!({"spec": {"replicas": 5}})).await.expect(200);
}

#[tokio::test]
async fn objects_change_by_every_way() {
    let server = Server::start().await;
    establish(&server, definition()).await;
    let one = format!("{CRON_TABS}/a");
    let created = server.post(CRON_TABS, cron_tab("a")).await.expect(201).json();
    let mut events = server.watch(&format!("{CRON_TABS}?watch=1&resourceVersion={}", created["metadata"]["resourceVersion"].as_str().unwrap())).await;
    let merged = server.patch(&one, "merge-patch+json", json!({"spec": {"replicas": 3}, "status": {"replicas": 9}})).await.expect(200).json();
    assert_eq!((&merged["metadata"]["generation"], merged.get("status")), (&json!(2), None));
    server.patch(&one, "json-patch+json", json!([{"op": "replace", "path": "/spec/replicas", "value": 4}])).await.expect(200);
    server.patch(&one, "strategic-merge-patch+json", json!({})).await.expect(415);
    let status = server.patch(&format!("{one}/status"), "merge-patch+json", json!({"status": {"replicas": 4, "labelSelector": "app=a"}, "spec": {"replicas": 1}})).await.expect(200).json();
    assert_eq!((&status["metadata"]["generation"], &status["spec"]["replicas"]), (&json!(3), &json!(4)));
    let scale = server.get(&format!("{one}/scale")).await.expect(200).json();
    assert_eq!((&scale["spec"], &scale["status"]), (&json!({"replicas": 4}), &json!({"replicas": 4, "selector": "app=a"})));
    let scaled = server.patch(&format!("{one}/scale"), "merge-patch+json", json!({"spec": {"replicas": 5}})).await.expect(200).json();
    assert_eq!(scaled["spec"]["replicas"], 5);
    let mut put = server.get(&one).await.json();
    put["spec"]["image"] = "alpine".into();
    server.put(&one, put.clone()).await.expect(200);
    server.put(&one, put.clone()).await.expect(409);
    put["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let reply = server.put(&one, put).await.expect(422);
    assert!(reply.message().contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"), "{}", reply.message());
    for _ in 0..5 {
        assert_eq!(events.line().await, "MODIFIED a");
    }
    server.delete(&one).await.expect(200);
    assert_eq!(events.line().await, "DELETED a");
    server.post(CRON_TABS, cron_tab("b")).await.expect(201);
    server.delete(CRON_TABS).await.expect(200);
    assert_eq!(server.get(CRON_TABS).await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_deleted_definition_takes_its_objects_along() {
    let server = Server::start().await;
    establish(&server, definition()).await;
    let mut held = cron_tab("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(CRON_TABS, held).await.expect(201);
    server.post(CRON_TABS, cron_tab("free")).await.expect(201);
    let mut definitions = server.watch(&format!("{DEFINITIONS}?watch=1")).await;
    let mut objects = server.watch(&format!("{CRON_TABS}?watch=1&resourceVersion={}", server.store.revision())).await;
    server.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.expect(200);
    loop {
        let event = objects.next().await.unwrap();
        if event["type"] == "DELETED" {
            assert_eq!(event["object"]["metadata"]["name"], "free");
            break;
        }
    }
    let definition = server.get(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.expect(200).json();
    assert_eq!(condition(&definition, "Terminating"), "True");
    let refused = server.post(CRON_TABS, cron_tab("late")).await.expect(405);
    assert_eq!(refused.message(), "create not allowed while custom resource definition is terminating");
    server.delete(&format!("{CRON_TABS}/held")).await.expect(200);
    server.patch(&format!("{CRON_TABS}/held"), "merge-patch+json", json!({"metadata": {"finalizers": null}})).await.expect(200);
    while definitions.next().await.unwrap()["type"] != "DELETED" {}
    server.get(CRON_TABS).await.expect(404);
}

#[tokio::test]
async fn the_second_to_want_a_name_waits() {
    let server = Server::start().await;
    establish(&server, definition()).await;
    let mut second = definition();
    second["metadata"]["name"] = "others.stable.example.com".into();
    second["spec"]["names"] = json!({"plural": "others", "kind": "CronTab"});
    server.post(DEFINITIONS, second).await.expect(201);
    let mut events = server.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name=others.stable.example.com")).await;
    let refused = loop {
        let event = events.next().await.unwrap();
        if condition(&event["object"], "NamesAccepted") == "False" {
            break event["object"].clone();
        }
    };
    assert_eq!(condition(&refused, "Established"), "False");
    server.get("/apis/stable.example.com/v1/namespaces/default/others").await.expect(404);
    server.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.expect(200);
    established(&server, &refused).await;
    server.get("/apis/stable.example.com/v1/namespaces/default/others").await.expect(200);
}

#[tokio::test]
async fn versions_without_a_converter_differ_by_name() {
    let server = Server::start().await;
    let mut two = definition();
    let mut v2 = two["spec"]["versions"][0].clone();
    v2["name"] = "v2".into();
    v2["storage"] = false.into();
    v2["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].as_object_mut().unwrap().remove("image");
    v2.as_object_mut().unwrap().remove("selectableFields");
    two["spec"]["versions"].as_array_mut().unwrap().push(v2);
    establish(&server, two).await;
    let v2_path = "/apis/stable.example.com/v2/namespaces/default/crontabs";
    server.post(CRON_TABS, cron_tab("a")).await.expect(201);
    let shown = server.get(&format!("{v2_path}/a")).await.expect(200).json();
    assert_eq!((&shown["apiVersion"], shown["spec"].get("image")), (&json!("stable.example.com/v2"), None));
    let mut second = cron_tab("b");
    second["apiVersion"] = "stable.example.com/v2".into();
    server.post(v2_path, second).await.expect(201);
    let stored = server.store.get("/registry/stable.example.com/crontabs/default/b").unwrap().value().unwrap();
    assert_eq!(stored["apiVersion"], "stable.example.com/v1");
    // Written before there was a default in it: read, it has the default.
    assert_eq!(server.get(&format!("{CRON_TABS}/b")).await.json()["apiVersion"], "stable.example.com/v1");
    let mut events = server.watch(&format!("{v2_path}?watch=1")).await;
    assert_eq!((events.next().await.unwrap()["object"]["apiVersion"].clone(), events.line().await), (json!("stable.example.com/v2"), "ADDED b".to_owned()));
}

#[tokio::test]
async fn defaults_that_come_later_show_in_what_was_stored() {
    let server = Server::start().await;
    establish(&server, definition()).await;
    server.post(CRON_TABS, cron_tab("a")).await.expect(201);
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let mut events = server.watch(&format!("{DEFINITIONS}?watch=1&resourceVersion={}", server.store.revision())).await;
    server.patch(&path, "json-patch+json", json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/late", "value": {"type": "string", "default": "x"}}])).await.expect(200);
    assert_eq!(events.line().await, "MODIFIED crontabs.stable.example.com");
    // The kind is served anew a moment after its definition has changed.
    for _ in 0..1000 {
        if server.get(&format!("{CRON_TABS}/a")).await.json()["spec"]["late"] == "x" {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the default never shows");
}

#[tokio::test]
async fn apply_knows_the_schema() {
    let server = Server::start().await;
    establish(&server, definition()).await;
    let apply = async |name: &str, manager: &str, query: &str, body: String| server.call("PATCH", &format!("{CRON_TABS}/{name}?fieldManager={manager}{query}"), &[("content-type", "application/apply-patch+yaml")], body).await;
    let head = |name: &str| format!("apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: {name}}}\n");
    let made = apply("a", "one", "&fieldValidation=Strict", format!("{}spec: {{cronSpec: '* * * * *', ports: [{{port: 80, name: http}}]}}", head("a"))).await.expect(201).json();
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:ports"], json!({"k:{\"port\":80}": {".": {}, "f:name": {}, "f:port": {}}}));
    let both = apply("a", "two", "", format!("{}spec: {{ports: [{{port: 443}}]}}", head("a"))).await.expect(200).json();
    assert_eq!(both["spec"]["ports"].as_array().unwrap().len(), 2);
    let conflict = apply("a", "two", "", format!("{}spec: {{cronSpec: '1 * * * *'}}", head("a"))).await.expect(409);
    assert_eq!(conflict.message(), "Apply failed with 1 conflict: conflict with \"one\": .spec.cronSpec");
    let unknown = apply("b", "one", "&fieldValidation=Strict", format!("{}spec: {{cronSpec: '* * * * *'}}\nunknownField: 1", head("b"))).await;
    assert!(unknown.message().contains(".unknownField: field not declared in schema"), "{}", unknown.message());
    let twice = apply("b", "one", "&fieldValidation=Strict", format!("\n{}spec:\n  cronSpec: '* * * * *'\n  image: a\n  image: b", head("b"))).await.expect(400);
    assert!(twice.message().contains("line 8: key \"image\" already set in map"), "{}", twice.message());
}

#[tokio::test]
async fn a_kind_is_explained_as_long_as_it_is_there() {
    let server = Server::start().await;
    establish(&server, definition()).await;
    let index = server.get("/openapi/v3").await.expect(200).json();
    let url = index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = server.get(&url).await.expect(200).json();
    assert_eq!(document["components"]["schemas"]["com.example.stable.v1.CronTab"]["properties"]["spec"]["properties"]["replicas"]["maximum"], 10);
    assert!(server.get("/openapi/v2").await.json()["definitions"]["com.example.stable.v1.CronTab"]["properties"]["metadata"].is_object());
    server.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.expect(200);
    for _ in 0..1000 {
        if server.get("/openapi/v3").await.json()["paths"].get("apis/stable.example.com/v1").is_none() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the kind is published for ever");
}
