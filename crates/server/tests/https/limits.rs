//! What a request may take: size, time, patience; and events, which come too often.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use server::EventRateLimit;

use crate::harness::{CONFIG_MAPS, Server, config_map};

#[tokio::test]
async fn a_body_that_is_too_large() {
    let server = Server::start().await;
    let body = format!("{{\"data\":{{\"k\":\"{}\"}}}}", "x".repeat(3 * 1024 * 1024));
    let refused = server.call("POST", CONFIG_MAPS, &[("content-type", "application/json")], body).await.expect(413);
    assert_eq!((refused.reason(), refused.message()), ("RequestEntityTooLarge".into(), "Request entity too large: limit is 3145728".into()));
}

#[tokio::test]
async fn a_request_that_takes_too_long() {
    let server = Server::start().await;
    let refused = server.get(&format!("{CONFIG_MAPS}?timeout=soon")).await.expect(400);
    assert_eq!(refused.message(), "invalid timeout specified in the request URL - time: invalid duration \"soon\"");
    server.get(&format!("{CONFIG_MAPS}?timeout=30s")).await.expect(200);
    // Its body never comes.
    let unfinished = server.unfinished("POST", &format!("{CONFIG_MAPS}?timeout=100ms"), &[], config_map("a").to_string()).await;
    assert_eq!(unfinished.answer().await, 504);
}

#[tokio::test]
async fn who_says_nothing_does_not_stay() {
    let server = Server::start_with(|config| config.head_timeout = Duration::from_millis(200)).await;
    assert_eq!(server.silence(b"").await, b"", "the connection is closed");
    let cut = server.silence(b"GET /version HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await;
    assert!(cut.is_empty() || cut.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&cut));
}

#[tokio::test]
async fn events_that_come_too_often() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admission.yaml");
    std::fs::write(&file, "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: EventRateLimit\n  path: events.yaml\n").unwrap();
    std::fs::write(folder.path().join("events.yaml"), "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\nlimits:\n- {type: SourceAndObject, qps: 1, burst: 2}\n").unwrap();
    let limit = EventRateLimit::open(&file).unwrap().map(Arc::new);
    assert!(limit.is_some());
    let server = Server::start_with(|config| config.event_rate_limit = limit).await;
    let event = |name: &str, about: &str| json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": about}, "source": {"component": "c"}, "reason": "r", "message": "m", "type": "Normal"});
    const EVENTS: &str = "/api/v1/namespaces/default/events";
    // One more a second is allowed: they come faster, on whatever machine.
    let mut accepted = 0;
    let refused = loop {
        let reply = server.post(EVENTS, event(&format!("e{accepted}"), "a")).await;
        if reply.code != 201 {
            break reply.expect(429);
        }
        accepted += 1;
    };
    assert!(accepted >= 2);
    assert_eq!((refused.reason(), refused.message()), ("TooManyRequests".into(), "Too many requests: limit reached on type SourceAndObject for key cPoddefaulta".into()));
    server.post(EVENTS, event("other", "b")).await.expect(201);
}
