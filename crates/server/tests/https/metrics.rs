//! `/metrics`: each kind of request changes the lines that dashboards and alerts read, by as much as it should.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{CONFIG_MAPS, Server, config_map, pod};

async fn text(server: &Server, path: &str) -> String {
    String::from_utf8(server.get(path).await.expect(200).body.to_vec()).unwrap()
}

/// The value of one series; 0 if it is not there.
async fn value(server: &Server, series: &str) -> f64 {
    text(server, "/metrics").await.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0.0)
}

const MAPS: &str = r#"group="",version="v1",resource="configmaps",subresource="""#;

#[tokio::test]
async fn a_write_is_measured_on_its_whole_way() {
    let server = Server::start().await;
    let common = format!(r#"verb="POST",{MAPS},scope="resource",component="apiserver""#);
    let series = [
        (format!(r#"apiserver_request_total{{{common},dry_run="",code="201"}}"#), 1.0),
        (format!("apiserver_request_sli_duration_seconds_count{{{common}}}"), 2.0),
        (format!(r#"apiserver_request_duration_seconds_count{{{common},dry_run="All"}}"#), 1.0),
        (r#"apiserver_request_body_size_bytes_count{resource="configmaps",group="",verb="create"}"#.to_owned(), 2.0),
        (r#"field_validation_request_duration_seconds_count{field_validation="Strict"}"#.to_owned(), 1.0),
        (r#"apiserver_admission_step_admission_duration_seconds_count{type="admit",operation="CREATE",rejected="false"}"#.to_owned(), 2.0),
        (r#"apiserver_admission_controller_admission_duration_seconds_count{name="NamespaceLifecycle",type="admit",operation="CREATE",rejected="false"}"#.to_owned(), 2.0),
        (r#"etcd_request_duration_seconds_count{operation="create",group="",resource="configmaps"}"#.to_owned(), 1.0),
        (r#"etcd_requests_total{operation="create",group="",resource="configmaps"}"#.to_owned(), 1.0),
        (r#"apiserver_resource_objects{group="",resource="configmaps"}"#.to_owned(), 1.0),
    ];
    let mut before = Vec::new();
    for (name, _) in &series {
        before.push(value(&server, name).await);
    }
    server.post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), config_map("a")).await.expect(201);
    server.post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("b")).await.expect(201);
    for ((name, more), before) in series.iter().zip(before) {
        assert_eq!(value(&server, name).await, before + more, "{name}");
    }
    let refused = r#"apiserver_admission_controller_admission_duration_seconds_count{name="NamespaceLifecycle",type="admit",operation="CREATE",rejected="true"}"#;
    assert_eq!(value(&server, refused).await, 0.0);
    server.post("/api/v1/namespaces/nowhere/configmaps", config_map("a")).await.expect(404);
    assert_eq!(value(&server, refused).await, 1.0);
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(value(&server, r#"etcd_requests_total{operation="delete",group="",resource="configmaps"}"#).await, 1.0);
}

#[tokio::test]
async fn lists_watches_and_who_asks() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    server.post(CONFIG_MAPS, config_map("b")).await.expect(201);
    let lists = |what: &str, more: &str| format!(r#"apiserver_cache_list_{what}total{{group="",resource="configmaps"{more}}}"#);
    let (count, fetched, returned) = (lists("", ",index=\"\""), lists("fetched_objects_", ",index=\"\""), lists("returned_objects_", ""));
    let before = [value(&server, &count).await, value(&server, &fetched).await, value(&server, &returned).await];
    server.get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name=a")).await.expect(200);
    assert_eq!([value(&server, &count).await, value(&server, &fetched).await, value(&server, &returned).await], [before[0] + 1.0, before[1] + 2.0, before[2] + 1.0]);

    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=0")).await;
    watch.next().await.unwrap();
    watch.next().await.unwrap();
    let kind = r#"group="",version="v1",resource="configmaps""#;
    assert_eq!(value(&server, &format!("apiserver_watch_events_total{{{kind}}}")).await, 2.0);
    assert_eq!(value(&server, &format!("apiserver_watch_events_sizes_bucket{{{kind},le=\"1024\"}}")).await, 2.0);
    let watching = format!(r#"apiserver_longrunning_requests{{verb="WATCH",{MAPS},scope="namespace",component="apiserver"}}"#);
    assert_eq!(value(&server, &watching).await, 1.0);
    drop(watch);

    let attempts = |result: &str| format!("authentication_attempts{{result=\"{result}\"}}");
    let (errors, well) = (value(&server, &attempts("error")).await, value(&server, &attempts("success")).await);
    server.call("GET", CONFIG_MAPS, &[("authorization", "Bearer nobody-knows-me")], "").await.expect(401);
    assert_eq!(value(&server, &attempts("error")).await, errors + 1.0);
    // Each question of ours is an attempt too.
    assert_eq!(value(&server, &attempts("success")).await, well + 2.0);
    assert!(value(&server, "apiserver_request_filter_duration_seconds_count{filter=\"authorization\"}").await > 0.0);
    assert_eq!(value(&server, "authorization_attempts_total{result=\"denied\"}").await, 0.0);

    server.post("/api/v1/namespaces/default/endpoints", json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "old"}})).await.expect(201);
    assert_eq!(value(&server, r#"apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"}"#).await, 1.0);
}

#[tokio::test]
async fn what_is_served_is_well_formed() {
    let server = Server::start().await;
    server.service_account("default").await;
    server.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    let scraped = server.get("/metrics").await.expect(200);
    assert_eq!(scraped.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for text in [String::from_utf8(scraped.body.to_vec()).unwrap(), text(&server, "/metrics/slis").await] {
        let (mut heads, mut series) = (BTreeSet::new(), BTreeSet::new());
        let mut name = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                name = rest.split(' ').next().unwrap().to_owned();
                assert!(heads.insert(name.clone()), "{name} twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert_eq!(rest.split(' ').next(), Some(&*name), "{line}");
            } else {
                let (which, number) = line.rsplit_once(' ').unwrap();
                assert!(number.parse::<f64>().is_ok() && which.starts_with(&*name), "{line}");
                assert!(series.insert(which.to_owned()), "{line} twice");
            }
        }
    }
    let all = text(&server, "/metrics").await;
    for name in ["apiserver_current_inqueue_requests{request_kind=\"mutating\"}", "aggregator_unavailable_apiservice{name=\"v1.apps\"} 0", "apiserver_tls_handshake_errors_total 0", "kube_apiserver_clusterip_allocator_allocated_ips{cidr=\"10.96.0.0/12\"}", "process_max_fds", "version_info{", "kubernetes_build_info{", "apiserver_cel_evaluation_duration_seconds", "pod_security_evaluations_total{decision=\"allow\",mode=\"enforce\",policy_level=\"privileged\",policy_version=\"latest\",request_operation=\"create\",resource=\"pod\",subresource=\"\"}"] {
        assert!(all.lines().any(|line| line.trim_start_matches("# HELP ").starts_with(name)), "{name}\n{all}");
    }
    assert!(text(&server, "/metrics/slis").await.contains("kubernetes_healthcheck{name=\"ping\",type=\"readyz\"} 1"));
}
