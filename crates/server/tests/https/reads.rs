//! LIST and WATCH: pages, revisions, compaction, selectors, shapes, compression.

use std::io::Read;

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_are_one_list_as_of_one_revision() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.post(CONFIG_MAPS, config_map(name)).await.expect(201);
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200).json();
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a".into(), "b".into()], &json!(3)));
    // What happens between the pages is not seen by them.
    server.delete(&format!("{CONFIG_MAPS}/d")).await.expect(200);
    server.post(CONFIG_MAPS, config_map("cc")).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{CONFIG_MAPS}?limit=5&continue={token}")).await.expect(200).json();
    assert_eq!(names(&second), ["c", "d", "e"]);
    assert_eq!((&second["metadata"]["resourceVersion"], second["metadata"].get("continue")), (&first["metadata"]["resourceVersion"], None));
    // A negative limit is none.
    assert_eq!(names(&server.get(&format!("{CONFIG_MAPS}?limit=-1")).await.expect(200).json()).len(), 5);
}

#[tokio::test]
async fn after_compaction_a_list_goes_on_in_the_present() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.post(CONFIG_MAPS, config_map(name)).await.expect(201);
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200).json();
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    server.post(CONFIG_MAPS, config_map("bb")).await.expect(201);
    server.post(CONFIG_MAPS, config_map("d")).await.expect(201);
    server.store.compact(server.store.revision()).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let gone = server.get(&format!("{CONFIG_MAPS}?limit=9&continue={token}")).await.expect(410).json();
    assert_eq!(gone["reason"], "Expired");
    assert!(gone["message"].as_str().unwrap().starts_with("The provided continue parameter is too old to display a consistent list result."));
    let again = gone["metadata"]["continue"].as_str().unwrap();
    let rest = server.get(&format!("{CONFIG_MAPS}?limit=9&continue={again}")).await.expect(200).json();
    assert_eq!(names(&rest), ["b", "bb", "c", "d"]);
    let old = server.get(&format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await.expect(410);
    assert_eq!(old.reason(), "Expired");
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"], &event["object"]["reason"]), (&json!("ERROR"), &json!(410), &json!("Expired")));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn revisions_choose_what_is_read() {
    let server = Server::start().await;
    let made = server.post(CONFIG_MAPS, config_map("a")).await.expect(201).json();
    let version = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.post(CONFIG_MAPS, config_map("b")).await.expect(201);
    for (query, want) in [
        ("?resourceVersion=0".to_owned(), 2),
        (format!("?resourceVersion={version}"), 2),
        (format!("?resourceVersion={version}&resourceVersionMatch=NotOlderThan"), 2),
        (format!("?resourceVersion={version}&resourceVersionMatch=Exact"), 1),
        (format!("?resourceVersion={version}&limit=10"), 1),
    ] {
        assert_eq!(names(&server.get(&format!("{CONFIG_MAPS}{query}")).await.expect(200).json()).len(), want, "{query}");
    }
    let components = server.get("/api/v1/componentstatuses").await.expect(200).json();
    let names: Vec<&str> = components["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!((names, &components["items"][1]["conditions"]), (vec!["controller-manager", "etcd-0", "scheduler"], &json!([{"type": "Healthy", "status": "True", "message": "ok"}])));
    server.get("/api/v1/componentstatuses/scheduler").await.expect(200);
    server.get("/api/v1/componentstatuses/nobody").await.expect(404);
    let too_new = server.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await.expect(504).json();
    assert_eq!((&too_new["details"]["causes"][0]["reason"], &too_new["details"]["retryAfterSeconds"]), (&json!("ResourceVersionTooLarge"), &json!(1)));
    // A watch of what is to come begins, and says nothing that is before it.
    let future = server.store.revision() + 2;
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={future}")).await;
    for name in ["c", "d", "e"] {
        server.post(CONFIG_MAPS, config_map(name)).await.expect(201);
    }
    let first = events.next().await.unwrap();
    assert!(first["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > future, "{first}");
}

#[tokio::test]
async fn objects_that_cross_a_selector_come_and_go() {
    let server = Server::start().await;
    let version = server.post(CONFIG_MAPS, config_map("a")).await.expect(201).json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&labelSelector=x%3Dy&resourceVersion={version}")).await;
    let mut single = server.watch(&format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Db&resourceVersion={version}")).await;
    let label = |value: Value| json!({"metadata": {"labels": {"x": value}}});
    for value in [json!("y"), json!("y"), Value::Null, json!("y")] {
        server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", label(value)).await.expect(200);
        server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", json!({"data": {"at": "x"}})).await.expect(200);
    }
    server.post(CONFIG_MAPS, config_map("b")).await.expect(201);
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let mut lines = Vec::new();
    for _ in 0..5 {
        lines.push(watch.line().await);
    }
    assert_eq!(lines, ["ADDED a", "MODIFIED a", "DELETED a", "ADDED a", "DELETED a"]);
    assert_eq!(single.line().await, "ADDED b");
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up_and_streams_what_is_there() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1")).await;
    assert_eq!(watch.line().await, "ADDED a");
    let bookmark = watch.next().await.unwrap();
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(watch.line().await, "end");
    // Without them, a watch begins now.
    let mut later = server.watch(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")).await;
    server.post(CONFIG_MAPS, config_map("b")).await.expect(201);
    assert_eq!(later.line().await, "ADDED b");
}

#[tokio::test]
async fn tables_and_metadata_are_served_on_lists_and_watches() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let list = server.call("GET", CONFIG_MAPS, &table, "").await.expect(200).json();
    assert_eq!((&list["kind"], &list["columnDefinitions"][1]["name"], &list["rows"][0]["cells"][1]), (&json!("Table"), &json!("Data"), &json!(1)));
    let mut watch = server.watch_with(&format!("{CONFIG_MAPS}?watch=1"), &table).await;
    let first = watch.next().await.unwrap();
    assert_eq!((&first["object"]["kind"], first["object"]["columnDefinitions"].is_array()), (&json!("Table"), true));
    let metadata = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json")];
    let list = server.call("GET", CONFIG_MAPS, &metadata, "").await.expect(200).json();
    assert_eq!((&list["kind"], &list["items"][0]["metadata"]["name"], list["items"][0].get("data")), (&json!("PartialObjectMetadataList"), &json!("a"), None));
    server.service_account("default").await;
    server.post("/apis/apps/v1/namespaces/default/deployments", json!({"metadata": {"name": "d"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}})).await.expect(201);
    let scale = server.call("GET", "/apis/apps/v1/namespaces/default/deployments/d/scale", &table, "").await.expect(200).json();
    assert_eq!(scale["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect::<Vec<_>>(), ["Name", "Desired", "Available", "Age"]);
    assert_eq!((&scale["rows"][0]["cells"][0], &scale["rows"][0]["cells"][1]), (&json!("d"), &json!(3)));
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_takes_it() {
    let server = Server::start().await;
    let gzip = [("accept-encoding", "gzip")];
    assert_eq!(server.call("GET", CONFIG_MAPS, &gzip, "").await.expect(200).header("content-encoding"), "");
    server.post(CONFIG_MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v".repeat(300_000)}})).await.expect(201);
    let plain = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(plain.header("content-encoding"), "");
    let packed = server.call("GET", CONFIG_MAPS, &gzip, "").await.expect(200);
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "Accept-Encoding"));
    assert!(packed.body.len() < 100_000);
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.body);
}

#[tokio::test]
async fn a_head_has_no_body() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    for path in [CONFIG_MAPS, "/healthz", "/apis"] {
        let whole = server.get(path).await.expect(200);
        let head = server.call("HEAD", path, &[], "").await.expect(200);
        assert_eq!((head.body.len(), head.header("content-length").to_owned()), (0, whole.body.len().to_string()), "{path}");
    }
}

#[tokio::test]
async fn pods_are_selected_by_their_node_and_phase() {
    let server = Server::start().await;
    server.service_account("default").await;
    for name in ["a", "b"] {
        server.post(PODS, pod(name)).await.expect(201);
    }
    server.post(&format!("{PODS}/a/binding"), json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}})).await.expect(201);
    for (selector, want) in [("spec.nodeName%3Dn1", vec!["a"]), ("spec.nodeName%3D", vec!["b"]), ("status.phase%3DPending,metadata.name!%3Da", vec!["b"]), ("status.phase%3DRunning", vec![])] {
        assert_eq!(names(&server.get(&format!("/api/v1/pods?fieldSelector={selector}")).await.expect(200).json()), want, "{selector}");
    }
}

/// As lists do: who knows of a later state than this server is told, and shown nothing older.
#[tokio::test]
async fn one_object_is_no_older_than_asked_for() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let now = server.store.revision();
    for version in ["0".to_owned(), "1".to_owned(), now.to_string()] {
        server.get(&format!("{CONFIG_MAPS}/a?resourceVersion={version}")).await.expect(200);
    }
    let refused = server.get(&format!("{CONFIG_MAPS}/a?resourceVersion={}", now + 1_000_000)).await.expect(504);
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    server.get(&format!("{CONFIG_MAPS}/a?resourceVersion=x")).await.expect(400);
}

#[tokio::test]
async fn requests_are_counted_by_what_they_ask_for() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    server.get(&format!("{CONFIG_MAPS}/b")).await.expect(404);
    server.get(CONFIG_MAPS).await.expect(200);
    let text = String::from_utf8(server.get("/metrics").await.expect(200).body.to_vec()).unwrap();
    let of = |verb: &str, scope: &str| format!("verb=\"{verb}\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"{scope}\",component=\"apiserver\"");
    for (verb, scope, code) in [("POST", "resource", 201), ("GET", "resource", 200), ("GET", "resource", 404), ("LIST", "namespace", 200)] {
        let line = format!("apiserver_request_total{{{},dry_run=\"\",code=\"{code}\"}} 1", of(verb, scope));
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    let took = format!("apiserver_request_duration_seconds_count{{{},dry_run=\"\"}} 2", of("GET", "resource"));
    assert!(text.lines().any(|known| known == took), "{took}");
    for name in ["apiserver_response_sizes_sum{", "kubernetes_build_info{", "process_start_time_seconds ", "process_resident_memory_bytes ", "process_cpu_seconds_total "] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}");
    }
}

/// Of the client: whoever follows changes goes on with the next one.
#[tokio::test]
async fn a_panic_in_a_handler_costs_one_change() {
    let server = Server::start().await;
    let client = client::Client::new(std::sync::Arc::new(server::Local::new(server.api.clone(), "system:coracle")), "test");
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let informer = client::Informer::<api::k8s::api::core::v1::ConfigMap>::of(&client, Some("default")).on_change(move |change| {
        assert_ne!(&*change.key.name, "panics", "on purpose");
        told.send(change.key.name.to_string()).unwrap();
    });
    let informer = informer.start();
    for name in ["panics", "goes-on"] {
        server.post(CONFIG_MAPS, config_map(name)).await.expect(201);
    }
    while heard.recv().await.unwrap() != "goes-on" {}
    assert!(informer.cache().get("default", "panics").is_some());
}
