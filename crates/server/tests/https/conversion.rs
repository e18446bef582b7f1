//! Versions of a custom kind that a webhook converts: a real HTTPS server with a certificate of its own authority, in the test's process.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use pki::{Authority, Pki};

use crate::custom::{definition, establish};
use crate::harness::{Reply, Server};

const V1: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
const V2: &str = "/apis/stable.example.com/v2/namespaces/default/crontabs";

/// From now on the webhook refuses what is called late.
static DOWN: AtomicBool = AtomicBool::new(false);

/// v1's `spec.hostPort` is v2's `spec.host` and `spec.port`.
fn converted(mut object: Value, target: &str) -> Value {
    object["apiVersion"] = target.into();
    let Some(spec) = object["spec"].as_object_mut() else { return object };
    if target.ends_with("v2") {
        if let Some((host, port)) = spec.remove("hostPort").and_then(|both| both.as_str().and_then(|both| both.split_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())))) {
            spec.insert("host".into(), host.into());
            spec.insert("port".into(), port.into());
        }
    } else if let (Some(host), Some(port)) = (spec.remove("host"), spec.remove("port")) {
        spec.insert("hostPort".into(), format!("{}:{}", host.as_str().unwrap(), port.as_str().unwrap()).into());
    }
    object
}

async fn answer(request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let target = review["request"]["desiredAPIVersion"].as_str().unwrap();
    let objects: Vec<Value> = review["request"]["objects"].as_array().unwrap().iter().map(|object| converted(object.clone(), target)).collect();
    let late = DOWN.load(Ordering::SeqCst);
    let refused = objects.iter().any(|object| object["metadata"]["name"] == "refused" || late && object["metadata"]["name"] == "late");
    let result = if refused { json!({"status": "Failed", "message": "this one is not for conversion"}) } else { json!({"status": "Success"}) };
    let response = json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": {"uid": review["request"]["uid"], "result": result, "convertedObjects": if refused { json!([]) } else { json!(objects) }}});
    Ok(http::Response::new(Full::new(response.to_string().into())))
}

/// The webhook's URL and its authority's PEM in base64.
async fn webhook() -> (String, String) {
    let now = jiff::Timestamp::now().as_second();
    let authority = Authority::generate("webhook", now).unwrap();
    let identity = authority.issue(&Pki::Server { name: "webhook", groups: &[], dns: &[], addresses: &[IpAddr::V4(Ipv4Addr::LOCALHOST)] }, now).unwrap();
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://127.0.0.1:{}/convert", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    // A client that goes away ends it.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                }
            });
        }
    });
    (url, base64::engine::general_purpose::STANDARD.encode(&authority.identity.certificate_pem))
}

fn two_versions(url: &str, bundle: &str) -> Value {
    let mut definition = definition();
    let fields = |names: &[&str]| -> Value {
        let fields: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}})
    };
    definition["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true, "schema": fields(&["hostPort"])},
        {"name": "v2", "served": true, "storage": false, "schema": fields(&["host", "port"]), "selectableFields": [{"jsonPath": ".spec.host"}]}
    ]);
    definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": url, "caBundle": bundle}, "conversionReviewVersions": ["v1", "v1beta1"]}});
    definition
}

fn object(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("stable.example.com/{version}"), "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_webhook_converts_both_ways() {
    let server = Server::start().await;
    let (url, bundle) = webhook().await;
    establish(&server, two_versions(&url, &bundle)).await;
    let mut events = server.watch(&format!("{V2}?watch=1")).await;
    server.post(V1, object("v1", "a", json!({"hostPort": "example.com:80"}))).await.expect(201);
    let made = server.post(V2, object("v2", "b", json!({"host": "b.example.com", "port": "81"}))).await.expect(201).json();
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("stable.example.com/v2"), &json!({"host": "b.example.com", "port": "81"})));
    let stored = server.store.get("/registry/stable.example.com/crontabs/default/b").unwrap().value().unwrap();
    assert_eq!((&stored["apiVersion"], &stored["spec"]), (&json!("stable.example.com/v1"), &json!({"hostPort": "b.example.com:81"})));
    assert_eq!(server.get(&format!("{V2}/a")).await.expect(200).json()["spec"], json!({"host": "example.com", "port": "80"}));
    let list = server.get(V2).await.expect(200).json();
    assert!(list["items"].as_array().unwrap().iter().all(|item| item["apiVersion"] == "stable.example.com/v2" && item["spec"].get("host").is_some()));
    let patched = server.patch(&format!("{V2}/a"), "merge-patch+json", json!({"spec": {"port": "8080"}})).await.expect(200).json();
    assert_eq!(patched["spec"], json!({"host": "example.com", "port": "8080"}));
    assert_eq!(server.get(&format!("{V1}/a")).await.json()["spec"], json!({"hostPort": "example.com:8080"}));
    for wanted in ["ADDED a", "ADDED b", "MODIFIED a"] {
        let event = events.next().await.unwrap();
        assert_eq!(format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap()), wanted);
        assert_eq!(event["object"]["apiVersion"], "stable.example.com/v2");
    }
    let metrics = String::from_utf8(server.get("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains(r#"apiserver_crd_conversion_webhook_duration_seconds_count{crd_name="crontabs.stable.example.com",from_version="v1",to_version="v2",succeeded="true"}"#), "{metrics}");
    let selected = server.get(&format!("{V2}?fieldSelector=spec.host=example.com")).await.expect(200).json();
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_webhook_that_fails_is_told_of() {
    let server = Server::start().await;
    let (url, bundle) = webhook().await;
    establish(&server, two_versions(&url, &bundle)).await;
    server.post(V1, object("v1", "refused", json!({"hostPort": "a:1"}))).await.expect(201);
    let reply = server.get(&format!("{V2}/refused")).await.expect(500);
    assert_eq!(reply.message(), "Internal error occurred: conversion webhook for stable.example.com/v1, Kind=CronTab failed: this one is not for conversion");
    // Nobody believes a webhook of another authority.
    let stranger = base64::engine::general_purpose::STANDARD.encode(Authority::generate("stranger", jiff::Timestamp::now().as_second()).unwrap().identity.certificate_pem);
    server.patch("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com", "json-patch+json", json!([{"op": "replace", "path": "/spec/conversion/webhook/clientConfig/caBundle", "value": stranger}])).await.expect(200);
    for _ in 0..1000 {
        let message = server.get(&format!("{V2}/refused")).await.expect(500).message();
        if message.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority") {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the new bundle is never used");
}

/// The managers of an object, each with the version it wrote and the fields of the spec it owns there.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut owners: Vec<String> = entries
        .map(|entry| {
            let fields: Vec<&str> = entry["fieldsV1"]["f:spec"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).filter(|name| *name != ".").collect();
            format!("{} {} {}", entry["manager"].as_str().unwrap(), entry["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap(), fields.join(" "))
        })
        .collect();
    owners.sort();
    owners
}

/// How often the webhook was asked.
async fn asked(server: &Server) -> u64 {
    let metrics = String::from_utf8(server.get("/metrics").await.body.to_vec()).unwrap();
    let counts = metrics.lines().filter(|line| line.starts_with("apiserver_crd_conversion_webhook_duration_seconds_count"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

async fn applied(server: &Server, version: &str, name: &str, who: &str, spec: Value) -> Reply {
    let base = if version == "v1" { V1 } else { V2 };
    server.patch(&format!("{base}/{name}?fieldManager={who}"), "apply-patch+yaml", object(version, name, spec)).await
}

#[tokio::test]
async fn fields_are_owned_in_the_version_they_were_written_in() {
    let server = Server::start().await;
    let (url, bundle) = webhook().await;
    establish(&server, two_versions(&url, &bundle)).await;
    applied(&server, "v1", "a", "one", json!({"hostPort": "a:1"})).await.expect(201);
    assert_eq!(asked(&server).await, 0);
    // What stands in the way is told in the version of whom it belongs to. Asked for what is stored, and once for that and what it would become.
    let refused = applied(&server, "v2", "a", "two", json!({"host": "b", "port": "1"})).await.expect(409);
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"one\": .spec.hostPort");
    assert_eq!(refused.json()["details"]["causes"][0]["field"], ".spec.hostPort");
    assert_eq!(asked(&server).await, 2);
    let forced = applied(&server, "v2", "a", "two&force=true", json!({"host": "b", "port": "1"})).await.expect(200).json();
    assert_eq!((&forced["spec"], owners(&forced)), (&json!({"host": "b", "port": "1"}), vec!["two v2 f:host f:port".to_owned()]));
    // Who wants what is there shares it, and keeps it from going when the other one drops it.
    let shared = applied(&server, "v1", "a", "one", json!({"hostPort": "b:1"})).await.expect(200).json();
    assert_eq!(owners(&shared), ["one v1 f:hostPort", "two v2 f:host f:port"]);
    let kept = applied(&server, "v2", "a", "two", json!({"host": "b"})).await.expect(200).json();
    assert_eq!((&kept["spec"], owners(&kept)), (&json!({"host": "b", "port": "1"}), vec!["one v1 f:hostPort".to_owned(), "two v2 f:host".to_owned()]));
    // Who just writes takes it from both.
    let before = asked(&server).await;
    let written = server.patch(&format!("{V1}/a?fieldManager=three"), "merge-patch+json", json!({"spec": {"hostPort": "c:1"}})).await.expect(200).json();
    assert_eq!((owners(&written), asked(&server).await - before), (vec!["three v1 f:hostPort".to_owned()], 1));
    // The same applier in the other version: what it applied before goes.
    applied(&server, "v1", "b", "one", json!({"hostPort": "a:1"})).await.expect(201);
    let moved = applied(&server, "v2", "b", "one", json!({})).await.expect(200).json();
    assert_eq!(moved["spec"], json!({}));
    // A version that is no more: nobody owns anything in it.
    let mut old = object("v1", "c", json!({"hostPort": "a:1"}));
    old["metadata"]["managedFields"] = json!([{"manager": "gone", "operation": "Apply", "apiVersion": "stable.example.com/v0", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:address": {}}}}]);
    let made = server.post(&format!("{V1}?fieldManager=me"), old).await.expect(201).json();
    assert_eq!(owners(&made), ["me v1 f:hostPort"]);
    // A webhook that cannot tell: nothing is applied; what is written is written, and nobody owns anything.
    applied(&server, "v2", "late", "two", json!({"host": "a", "port": "1"})).await.expect(201);
    DOWN.store(true, Ordering::SeqCst);
    let failed = applied(&server, "v1", "late", "one", json!({"hostPort": "b:1"})).await.expect(500);
    assert_eq!(failed.message(), "conversion webhook for stable.example.com/v1, Kind=CronTab failed: this one is not for conversion");
    let written = server.patch(&format!("{V1}/late"), "merge-patch+json", json!({"spec": {"hostPort": "b:1"}})).await.expect(200).json();
    assert_eq!((&written["spec"], &written["metadata"]["managedFields"]), (&json!({"hostPort": "b:1"}), &Value::Null));
}
