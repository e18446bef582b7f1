//! Services: cluster addresses and node ports are given once, kept while held, given back when let go.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{SERVICES, Server};

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn many_at_once_never_share() {
    let server = Arc::new(Server::start().await);
    let makers: Vec<_> = (0..40)
        .map(|index| {
            let server = server.clone();
            tokio::spawn(async move {
                let made = server.post(SERVICES, service(&format!("s{index}"), json!({"type": "NodePort"}))).await.expect(201).json();
                (made["spec"]["clusterIP"].as_str().unwrap().to_owned(), made["spec"]["ports"][0]["nodePort"].as_u64().unwrap())
            })
        })
        .collect();
    let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
    for maker in makers {
        let (address, port) = maker.await.unwrap();
        assert!(addresses.insert(address) && ports.insert(port));
    }
}

#[tokio::test]
async fn what_is_taken_or_outside_is_refused() {
    let server = Server::start().await;
    server.post(SERVICES, service("np", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]}))).await.expect(201);
    for (spec, words) in [
        (json!({"clusterIP": "10.96.0.1"}), r#"spec.clusterIPs: Invalid value: ["10.96.0.1"]: failed to allocate IP 10.96.0.1: provided IP is already allocated"#),
        (json!({"clusterIP": "1.2.3.4"}), r#"spec.clusterIPs: Invalid value: ["1.2.3.4"]: failed to allocate IP 1.2.3.4: the provided network does not match the current range"#),
        (json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]}), "spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated"),
        (json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}), "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"),
        (json!({"ipFamilyPolicy": "RequireDualStack"}), "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"),
        (json!({"ipFamilies": ["IPv6"]}), "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
    ] {
        let refused = server.post(SERVICES, service("x", spec.clone())).await.expect(422);
        assert_eq!(refused.message(), format!("Service \"x\" is invalid: {words}"), "{spec}");
    }
}

#[tokio::test]
async fn types_change_and_what_is_let_go_is_free_again() {
    let server = Server::start().await;
    server.post(SERVICES, service("s", json!({"clusterIP": "10.96.0.77"}))).await.expect(201);
    let path = format!("{SERVICES}/s");
    let patch = async |spec: Value| server.patch(&path, "merge-patch+json", json!({"spec": spec})).await;
    let node_port = patch(json!({"type": "NodePort"})).await.expect(200).json();
    assert_eq!(node_port["spec"]["clusterIP"], "10.96.0.77");
    let port = node_port["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let plain = patch(json!({"type": "ClusterIP"})).await.expect(200).json();
    assert_eq!(plain["spec"]["ports"][0].get("nodePort"), None);
    server.post(SERVICES, service("takes-port", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}))).await.expect(201);
    let named = patch(json!({"type": "ExternalName", "externalName": "a.example"})).await.expect(200).json();
    assert_eq!(named["spec"].get("clusterIP"), None);
    server.post(SERVICES, service("takes-address", json!({"clusterIP": "10.96.0.77"}))).await.expect(201);
    let back = patch(json!({"type": "ClusterIP", "externalName": null})).await.expect(200).json();
    assert_ne!(back["spec"]["clusterIP"], "10.96.0.77");
    let refused = patch(json!({"clusterIP": "None", "clusterIPs": ["None"]})).await.expect(422);
    assert!(refused.message().contains("may not change once set"), "{}", refused.message());
    server.delete(&format!("{SERVICES}/takes-address")).await.expect(200);
    server.post(SERVICES, service("again", json!({"clusterIP": "10.96.0.77"}))).await.expect(201);
}

#[tokio::test]
async fn a_write_that_fails_neither_keeps_nor_drops() {
    let server = Server::start().await;
    server.post(SERVICES, service("s", json!({"type": "NodePort", "clusterIP": "10.96.0.88", "ports": [{"port": 80, "nodePort": 30100}]}))).await.expect(201);
    let path = format!("{SERVICES}/s");
    // Refused by validation after the new port was taken and the old one let go.
    server.patch(&path, "merge-patch+json", json!({"spec": {"ports": [{"port": 80, "nodePort": 30101}], "sessionAffinity": "nonsense"}})).await.expect(422);
    // Written nowhere, though it succeeds.
    server.patch(&format!("{path}?dryRun=All"), "merge-patch+json", json!({"spec": {"type": "ExternalName", "externalName": "a.example"}})).await.expect(200);
    for (port, code) in [(30100, 422), (30101, 201)] {
        server.post(SERVICES, service(&format!("p{port}"), json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}))).await.expect(code);
    }
    server.post(SERVICES, service("address", json!({"clusterIP": "10.96.0.88"}))).await.expect(422);
}

#[tokio::test]
async fn dual_stack_gives_one_of_each() {
    let server = Server::start_with(|config| config.service_cidrs.push(("fd00:10:96::".parse::<IpAddr>().unwrap(), 112))).await;
    let families = |made: &Value| made["spec"]["clusterIPs"].as_array().unwrap().iter().map(|address| if address.as_str().unwrap().contains(':') { 6 } else { 4 }).collect::<Vec<_>>();
    for (spec, want) in [(json!({}), vec![4]), (json!({"ipFamilyPolicy": "PreferDualStack"}), vec![4, 6]), (json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}), vec![6, 4]), (json!({"ipFamilies": ["IPv6"]}), vec![6])] {
        let made = server.post(SERVICES, service("d", spec.clone())).await.expect(201).json();
        assert_eq!(families(&made), want, "{spec}");
        server.delete(&format!("{SERVICES}/d")).await.expect(200);
    }
}

const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

#[tokio::test]
async fn an_address_is_an_object_as_long_as_its_service_is_there() {
    let server = Server::start().await;
    server.get(&format!("{ADDRESSES}/10.96.0.1")).await.expect(200);
    server.post(SERVICES, service("s", json!({"clusterIP": "10.96.0.77"}))).await.expect(201);
    let address = server.get(&format!("{ADDRESSES}/10.96.0.77")).await.expect(200).json();
    assert_eq!(address["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "s"}));
    assert_eq!(address["metadata"]["labels"], json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}));
    // An address that somebody has noted belongs to somebody.
    let noted = json!({"metadata": {"name": "10.96.0.78"}, "spec": {"parentRef": {"resource": "things", "name": "x"}}});
    server.post(ADDRESSES, noted).await.expect(201);
    server.post(SERVICES, service("t", json!({"clusterIP": "10.96.0.78"}))).await.expect(422);
    server.delete(&format!("{SERVICES}/s")).await.expect(200);
    server.get(&format!("{ADDRESSES}/10.96.0.77")).await.expect(404);
}

#[tokio::test]
async fn further_ranges_give_addresses_as_long_as_they_are_ready() {
    let server = Server::start().await;
    let outside = || service("far", json!({"clusterIP": "10.200.0.9"}));
    server.post(SERVICES, outside()).await.expect(422);
    server.post(CIDRS, json!({"metadata": {"name": "far"}, "spec": {"cidrs": ["10.200.0.0/24"]}})).await.expect(201);
    let ready = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "Test", "message": "", "lastTransitionTime": "2026-11-23T00:00:00Z"}]}});
    server.patch(&format!("{CIDRS}/far/status"), "merge-patch+json", ready("False")).await.expect(200);
    server.post(SERVICES, outside()).await.expect(422);
    server.patch(&format!("{CIDRS}/far/status"), "merge-patch+json", ready("True")).await.expect(200);
    server.post(SERVICES, outside()).await.expect(201);
    // The default range, when it is deleted, is made again.
    server.delete(&format!("{CIDRS}/kubernetes")).await.expect(200);
    let again = server.get(&format!("{CIDRS}/kubernetes")).await.expect(200).json();
    assert_eq!(again["spec"]["cidrs"], json!(["10.96.0.0/12"]));
}
