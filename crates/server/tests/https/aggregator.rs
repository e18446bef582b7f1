//! APIServices: what is served here shown as such, and other servers' groups under this one's door.

use serde_json::{Value, json};
use pki::{Authority, Pki};
use server::FrontProxy;

use crate::custom::{definition, establish};
use crate::harness::{Events, SERVICES, Server};
use crate::listener::Listener;

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "/apis/wardle.example.com";
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn answer(path: &str) -> Value {
    match path {
        "/apis/wardle.example.com/v1alpha1" => {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1", "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}]})
        }
        "/openapi/v3" => json!({"paths": {"apis/wardle.example.com/v1alpha1": {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=X"}}}),
        "/openapi/v2" => json!({"swagger": "2.0", "paths": {"/apis/wardle.example.com/v1alpha1/flunders": {}, "/version": {}}, "definitions": {"com.example.Flunder": {"type": "object"}}}),
        _ => json!({"kind": "FlunderList", "items": []}),
    }
}

async fn until(events: &mut Events, name: &str, status: &str) -> Value {
    loop {
        let event = events.next().await.unwrap();
        let condition = &event["object"]["status"]["conditions"][0];
        if event["type"] != "DELETED" && event["object"]["metadata"]["name"] == name && condition["status"] == status {
            return condition.clone();
        }
    }
}

fn service(version: &str, name: &str, bundle: &str) -> Value {
    json!({"metadata": {"name": format!("{version}.wardle.example.com")}, "spec": {"group": "wardle.example.com", "version": version, "groupPriorityMinimum": 2000, "versionPriority": 200, "caBundle": bundle,
        "service": {"namespace": "default", "name": name, "port": 7443}}})
}

#[tokio::test]
async fn requests_go_on_to_whom_they_belong() {
    let now = jiff::Timestamp::now().as_second();
    let authority = Authority::generate("front-proxy-ca", now).unwrap();
    let identity = authority.issue(&Pki::Client { user: "front-proxy-client", groups: &[] }, now).unwrap();
    let front = FrontProxy { authority_pem: authority.identity.certificate_pem.clone(), identity };
    let server = Server::start_with(|config| config.front_proxy = Some(front.clone())).await;
    let listener = Listener::start(|path, _| Some(answer(path))).await;
    let mut events = server.watch(&format!("{API_SERVICES}?watch=1")).await;
    server.post(API_SERVICES, service("v1alpha1", "hook", &listener.bundle)).await.expect(201);
    let condition = until(&mut events, "v1alpha1.wardle.example.com", "False").await;
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("ServiceNotFound"), &json!("service/hook in \"default\" is not present")));
    let refused = server.get(&format!("{GROUP}/v1alpha1/namespaces/default/flunders")).await.expect(503);
    assert_eq!((&refused.body[..], refused.header("content-type")), (&b"service unavailable\n"[..], "text/plain; charset=utf-8"));
    server.post(SERVICES, json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 7443}]}})).await.expect(201);
    // A loopback address is none an endpoint may have: what the store holds is believed.
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "hook-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "https", "port": listener.port}]});
    server.store.commit(store::Write { key: "/registry/endpointslices/default/hook-1".into(), precondition: store::Precondition::Absent, object: Some(slice.to_string().into()) }).await.unwrap();
    let condition = until(&mut events, "v1alpha1.wardle.example.com", "True").await;
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("Passed"), &json!("all checks passed")));
    let list = server.call("GET", &format!("{GROUP}/v1alpha1/namespaces/default/flunders?limit=5"), &[("x-remote-user", "forged")], "").await.expect(200);
    assert_eq!(list.json()["kind"], "FlunderList");
    let heads = listener.heads.lock().clone();
    let users: Vec<&str> = heads.last().unwrap().get_all("x-remote-user").iter().map(|value| value.to_str().unwrap()).collect();
    let groups: Vec<&str> = heads.last().unwrap().get_all("x-remote-group").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!((users, groups), (vec!["kubernetes-admin"], vec!["system:masters", "system:authenticated"]));
    // Discovery and OpenAPI, ours and theirs.
    let groups = server.get("/apis").await.json();
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "wardle.example.com" && group["preferredVersion"]["version"] == "v1alpha1"));
    assert_eq!(server.get(GROUP).await.expect(200).json()["versions"], json!([{"groupVersion": "wardle.example.com/v1alpha1", "version": "v1alpha1"}]));
    assert_eq!(server.get(&format!("{GROUP}/v1alpha1")).await.expect(200).json()["resources"][0]["name"], "flunders");
    let aggregated = server.call("GET", "/apis", &[("accept", DISCOVERY)], "").await.json();
    let found = aggregated["items"].as_array().unwrap().iter().find(|group| group["metadata"]["name"] == "wardle.example.com").unwrap().clone();
    assert_eq!((&found["versions"][0]["freshness"], &found["versions"][0]["resources"][0]["resource"]), (&json!("Current"), &json!("flunders")));
    assert_eq!(server.get("/openapi/v3").await.json()["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"], "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=X");
    let document = server.get("/openapi/v2").await.json();
    assert!(document["definitions"]["com.example.Flunder"].is_object() && document["paths"]["/apis/wardle.example.com/v1alpha1/flunders"].is_object() && document["paths"].get("/version").is_none());
    let published = server.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await.expect(200).json();
    assert_eq!((&published["data"]["requestheader-client-ca-file"], &published["data"]["requestheader-allowed-names"]), (&json!(front.authority_pem), &json!("[\"front-proxy-client\"]")));
    server.delete(&format!("{API_SERVICES}/v1alpha1.wardle.example.com")).await.expect(200);
    server.get(&format!("{GROUP}/v1alpha1")).await.expect(404);
}

#[tokio::test]
async fn what_is_served_here_has_services_too() {
    let server = Server::start().await;
    let mut events = server.watch(&format!("{API_SERVICES}?watch=1")).await;
    establish(&server, definition()).await;
    let mut seen = std::collections::BTreeMap::new();
    while !(seen.contains_key("v1.") && seen.contains_key("v1.apps") && seen.contains_key("v2.autoscaling") && seen.contains_key("v1.stable.example.com")) {
        let object = events.next().await.unwrap()["object"].clone();
        seen.insert(object["metadata"]["name"].as_str().unwrap().to_owned(), object);
    }
    let apps = &seen["v1.apps"];
    assert_eq!((&apps["spec"]["groupPriorityMinimum"], &apps["spec"]["versionPriority"], &apps["status"]["conditions"][0]["reason"]), (&json!(17800), &json!(15), &json!("Local")));
    assert_eq!(seen["v1.stable.example.com"]["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "true"}));
    server.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com").await.expect(200);
    loop {
        let event = events.next().await.unwrap();
        if event["type"] == "DELETED" {
            assert_eq!(event["object"]["metadata"]["name"], "v1.stable.example.com");
            return;
        }
    }
}
