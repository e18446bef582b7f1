//! Encodings as clients meet them: protobuf in and out, YAML, lines for people, gzip; what is refused, and in which words.

use ::api::{cbor, protobuf};
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, Server, config_map};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const WANT: (&str, &str) = ("accept", "application/vnd.kubernetes.protobuf,application/json");

fn encoded(value: Value) -> bytes::Bytes {
    protobuf::encode(value.to_string().as_bytes()).unwrap()
}

/// The raw message of an envelope: behind the magic and the type.
fn raw(envelope: &[u8]) -> &[u8] {
    let meta = usize::from(envelope[5]);
    field(&envelope[6 + meta..], 2).0
}

/// A length-delimited field and what follows it.
fn field(bytes: &[u8], tag: u8) -> (&[u8], &[u8]) {
    assert_eq!(bytes[0], tag << 3 | 2, "{bytes:?}");
    let (mut length, mut at) = (0usize, 1);
    loop {
        length |= usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if bytes[at - 1] & 0x80 == 0 {
            return bytes[at..].split_at(length);
        }
    }
}

#[tokio::test]
async fn objects_travel_as_protobuf() {
    let server = Server::start().await;
    let object = encoded(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}, "binaryData": {"b": "AQI="}}));
    let made = server.call("POST", CONFIG_MAPS, &[WANT, ("content-type", PROTOBUF)], object.clone()).await.expect(201);
    assert_eq!(made.header("content-type"), PROTOBUF);
    let made = protobuf::decode(&made.body).unwrap();
    let got = server.call("GET", &format!("{CONFIG_MAPS}/a"), &[WANT], "").await.expect(200);
    assert_eq!(protobuf::decode(&got.body).unwrap(), made);
    let plain = server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(plain.header("content-type"), "application/json");
    assert_eq!(plain.json(), made);
    // Refusals are negotiated as well.
    let refused = server.call("POST", CONFIG_MAPS, &[WANT, ("content-type", PROTOBUF)], object).await.expect(409);
    let status = protobuf::decode(&refused.body).unwrap();
    assert_eq!((&status["kind"], &status["reason"], &status["code"]), (&json!("Status"), &json!("AlreadyExists"), &json!(409)));
    let scale = "/apis/apps/v1/namespaces/default/deployments/d/scale";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.post("/apis/apps/v1/namespaces/default/deployments", json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})).await.expect(201);
    let shown = server.call("GET", scale, &[WANT], "").await.expect(200);
    assert_eq!(protobuf::decode(&shown.body).unwrap()["spec"]["replicas"], 1);
    let options = encoded(json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": "another"}}));
    let refused = server.call("DELETE", &format!("{CONFIG_MAPS}/a"), &[WANT, ("content-type", PROTOBUF)], options).await.expect(409);
    assert_eq!(protobuf::decode(&refused.body).unwrap()["reason"], "Conflict");
}

#[tokio::test]
async fn lists_and_bare_metadata_travel_as_protobuf() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        server.post(CONFIG_MAPS, config_map(name)).await.expect(201);
    }
    let list = server.call("GET", CONFIG_MAPS, &[WANT], "").await.expect(200);
    let (head, items) = field(raw(&list.body), 1);
    assert!(list.body.windows(13).any(|window| window == b"ConfigMapList"), "the envelope names the list");
    let version = server.get(CONFIG_MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    assert_eq!(field(field(head, 1).1, 2).0, version.as_bytes());
    let one = server.call("GET", &format!("{CONFIG_MAPS}/a"), &[WANT], "").await.expect(200);
    assert_eq!(field(items, 2).0, raw(&one.body), "an item is the object without its envelope");
    let bare = ("accept", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json");
    let partial = server.call("GET", &format!("{CONFIG_MAPS}/a"), &[bare], "").await.expect(200);
    assert_eq!(partial.header("content-type"), PROTOBUF);
    let partial = protobuf::decode(&partial.body).unwrap();
    assert_eq!((&partial["kind"], &partial["metadata"]["name"], partial.get("data")), (&json!("PartialObjectMetadata"), &json!("a"), None));
    let refused = server.call("GET", CONFIG_MAPS, &[("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")], "").await.expect(406);
    assert_eq!(refused.message(), "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)");
    let bare = ("accept", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let partials = protobuf::decode(&server.call("GET", CONFIG_MAPS, &[bare], "").await.expect(200).body).unwrap();
    assert_eq!((&partials["kind"], &partials["items"][1]["metadata"]["name"]), (&json!("PartialObjectMetadataList"), &json!("b")));
    // There is no protobuf of tables.
    let table = ("accept", "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json;as=Table;g=meta.k8s.io;v=v1beta1");
    let table = server.call("GET", CONFIG_MAPS, &[table], "").await.expect(200).json();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1beta1")));
}

#[tokio::test]
async fn watches_travel_in_frames() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let mut events = server.watch_with(&path, &[("accept", "application/vnd.kubernetes.protobuf;stream=watch,application/json")]).await;
    assert_eq!(events.content_type(), "application/vnd.kubernetes.protobuf;stream=watch");
    let mut next = async || {
        let frame = events.frame().await;
        let (kind, rest) = field(&frame, 1);
        let object = field(field(rest, 2).0, 1).0;
        (String::from_utf8(kind.to_vec()).unwrap(), protobuf::decode(object).unwrap())
    };
    let (kind, object) = next().await;
    assert_eq!((kind.as_str(), &object), ("ADDED", &server.get(&format!("{CONFIG_MAPS}/a")).await.json()));
    loop {
        let (kind, object) = next().await;
        if object["metadata"]["name"] == "kube-root-ca.crt" {
            continue;
        }
        assert_eq!((kind.as_str(), &object["metadata"]["annotations"]["k8s.io/initial-events-end"]), ("BOOKMARK", &json!("true")));
        break;
    }
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let (kind, object) = next().await;
    assert_eq!((kind.as_str(), &object["metadata"]["name"], &object["data"]["k"]), ("DELETED", &json!("a"), &json!("v")));
    let refused = server.call("GET", &format!("{CONFIG_MAPS}?watch=1"), &[("accept", "application/yaml")], "").await.expect(406);
    let words = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    assert!(String::from_utf8_lossy(&refused.body).contains(words), "said in YAML, which is good enough for a refusal");
}

#[tokio::test]
async fn discovery_travels_as_protobuf_and_carries_a_tag() {
    let server = Server::start().await;
    for (path, kind) in [("/api", "APIVersions"), ("/apis", "APIGroupList"), ("/apis/apps", "APIGroup"), ("/apis/apps/v1", "APIResourceList"), ("/api/v1", "APIResourceList")] {
        let reply = server.call("GET", path, &[WANT], "").await.expect(200);
        let value = protobuf::decode(&reply.body).unwrap();
        assert_eq!(value["kind"], kind, "{path}");
        let plain = server.get(path).await.expect(200);
        let mut plain = plain.json();
        // Lists of discovery never are of a kind's own version.
        let mut value = value;
        for one in [&mut plain, &mut value] {
            one.as_object_mut().unwrap().remove("apiVersion");
        }
        assert_eq!(value["resources"].as_array().map(Vec::len), plain["resources"].as_array().map(Vec::len), "{path}");
    }
    let aggregated = ("accept", "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json");
    let reply = server.call("GET", "/apis", &[aggregated], "").await.expect(200);
    assert_eq!(reply.header("content-type"), "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert_eq!(reply.header("vary"), "Accept");
    let value = protobuf::decode(&reply.body).unwrap();
    let resource = &value["items"][1]["versions"][0]["resources"][0];
    assert_eq!((&value["items"][1]["metadata"]["name"], &resource["resource"], &resource["responseKind"]["kind"]), (&json!("apps"), &json!("controllerrevisions"), &json!("ControllerRevision")));
    let tag = reply.header("etag").to_owned();
    let again = server.call("GET", "/apis", &[aggregated, ("if-none-match", &tag)], "").await.expect(304);
    assert!(again.body.is_empty());
    // What kubectl until 1.26 asks for, and what it is answered with.
    for ask in ["application/com.github.proto-openapi.spec.v2@v1.0+protobuf", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf, application/json;q=0.5"] {
        let reply = server.call("GET", "/openapi/v2", &[("accept", ask)], "").await.expect(200);
        assert_eq!(reply.header("content-type"), "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", "{ask}");
    }
    assert_eq!(server.get("/openapi/v2").await.expect(200).json()["swagger"], "2.0");
    server.call("GET", "/openapi/v2", &[("accept", "text/html")], "").await.expect(406);
}

#[tokio::test]
async fn what_is_not_taken_is_told_in_upstreams_words() {
    let server = Server::start().await;
    let all = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let reply = server.call("GET", CONFIG_MAPS, &[("accept", "application/cbor")], "").await.expect(406);
    assert_eq!(reply.header("content-type"), "application/json");
    let streams = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    assert_eq!(reply.message(), format!("406: Not Acceptable\n\nAvailable representations: {all}, {streams}"));
    assert!(reply.body.starts_with(b"{\n  \""), "nothing fits: in lines");
    for kind in ["application/cbor", "text/plain", "text/yaml", "application/json; a", "*/*"] {
        let reply = server.call("POST", CONFIG_MAPS, &[("content-type", kind)], config_map("x").to_string()).await.expect(415);
        assert_eq!(reply.message(), format!("the body of the request was in an unknown format - accepted media types include: {all}"), "{kind}");
    }
    let reply = server.call("PATCH", &format!("{CONFIG_MAPS}/x"), &[("content-type", "application/json")], "{}").await.expect(415);
    assert_eq!(reply.message(), "415: Unsupported Media Type");
    server.call("POST", CONFIG_MAPS, &[("content-type", "Application/JSON; charset=utf-8")], config_map("x").to_string()).await.expect(201);
    server.call("POST", CONFIG_MAPS, &[("content-type", "application/yaml")], "metadata:\n  name: from-yaml\n").await.expect(201);
    for (body, message) in [
        (&b"{}"[..], "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        (&b"k8s\0"[..], "empty body"),
        (&b"k8s\0\x0a\x7f"[..], "unexpected EOF"),
    ] {
        let reply = server.call("POST", CONFIG_MAPS, &[("content-type", PROTOBUF)], body).await.expect(400);
        assert!(reply.message().contains(message), "{}", reply.message());
    }
}

#[tokio::test]
async fn people_get_lines_and_yaml() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let flat = server.get(&path).await.expect(200);
    assert!(flat.body.starts_with(b"{\"apiVersion\""));
    for (query, headers) in [("?pretty=true", vec![]), ("", vec![("user-agent", "curl/8.5.0")]), ("", vec![("accept", "application/json;pretty=1")])] {
        let reply = server.call("GET", &format!("{path}{query}"), &headers, "").await.expect(200);
        assert!(reply.body.starts_with(b"{\n  \"apiVersion\": \"v1\",\n"), "{query} {headers:?}");
        assert_eq!(reply.json(), flat.json());
    }
    let reply = server.call("GET", &format!("{path}?pretty=false"), &[("user-agent", "curl/8.5.0")], "").await.expect(200);
    assert_eq!(reply.body, flat.body);
    let yaml = server.call("GET", &path, &[("accept", "application/yaml")], "").await.expect(200);
    assert_eq!(yaml.header("content-type"), "application/yaml");
    assert!(String::from_utf8_lossy(&yaml.body).contains("kind: ConfigMap\n"));
    assert!(server.get("/version").await.expect(200).body.starts_with(b"{\n  \""));
}

/// Large answers are packed over both versions of HTTP and in each encoding; small ones and streams are not.
#[tokio::test]
async fn gzip_over_both_versions_of_http() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        server.post(CONFIG_MAPS, json!({"metadata": {"name": name}, "data": {"k": "x".repeat(100_000)}})).await.expect(201);
    }
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        for accept in ["application/json", PROTOBUF, "application/yaml"] {
            let plain = server.call_over(version, CONFIG_MAPS, &[("accept", accept)]).await.expect(200);
            assert_eq!((plain.header("content-type"), plain.header("content-encoding")), (accept, ""), "{version:?}");
            let packed = server.call_over(version, CONFIG_MAPS, &[("accept", accept), ("accept-encoding", "deflate, gzip")]).await.expect(200);
            assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "Accept-Encoding"), "{version:?} {accept}");
            assert!(packed.body.len() * 10 < plain.body.len() && packed.body.starts_with(&[0x1f, 0x8b]), "{version:?} {accept}");
            let small = server.call_over(version, &format!("{CONFIG_MAPS}/a"), &[("accept", accept), ("accept-encoding", "gzip")]).await.expect(200);
            assert_eq!(small.header("content-encoding"), "", "{version:?} {accept}");
        }
    }
    let events = server.watch_with(&format!("{CONFIG_MAPS}?watch=1"), &[("accept-encoding", "gzip")]).await;
    assert_eq!(events.content_encoding(), "");
}

#[tokio::test]
async fn cbor_is_spoken_behind_its_gate() {
    let server = Server::start_with(|config| config.cbor = true).await;
    const WANT: (&str, &str) = ("accept", "application/cbor");
    let path = format!("{CONFIG_MAPS}/a");
    let made = server.call("POST", CONFIG_MAPS, &[WANT, ("content-type", "application/cbor")], cbor::encode(&config_map("a"))).await.expect(201);
    assert_eq!(made.header("content-type"), "application/cbor");
    assert!(made.body.starts_with(&cbor::SELF_DESCRIBED));
    let made = cbor::decode(&made.body).unwrap();
    assert_eq!(server.get(&path).await.expect(200).json(), made);
    let list = server.call("GET", CONFIG_MAPS, &[WANT], "").await.expect(200);
    assert!(cbor::decode(&list.body).unwrap()["items"].as_array().unwrap().iter().any(|item| item["metadata"]["name"] == "a"));
    let table = server.call("GET", &path, &[("accept", "application/cbor;as=Table;g=meta.k8s.io;v=v1")], "").await.expect(200);
    assert_eq!(cbor::decode(&table.body).unwrap()["rows"][0]["cells"][0], "a");
    let events = server.call("GET", &format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Da"), &[WANT], "").await.expect(200);
    assert_eq!(events.header("content-type"), "application/cbor-seq");
    assert_eq!(&events.body[..], cbor::event("ADDED", &cbor::encode(&made)));
    let applied = server.call("PATCH", &format!("{CONFIG_MAPS}/b?fieldManager=m"), &[WANT, ("content-type", "application/apply-patch+cbor")], cbor::encode(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"k": "v"}}))).await.expect(201);
    assert_eq!(cbor::decode(&applied.body).unwrap()["metadata"]["managedFields"][0]["operation"], "Apply");
    let refused = server.call("POST", CONFIG_MAPS, &[WANT, ("content-type", "application/cbor")], cbor::encode(&config_map("a"))).await.expect(409);
    assert_eq!(cbor::decode(&refused.body).unwrap()["reason"], "AlreadyExists");
    let refused = server.call("POST", CONFIG_MAPS, &[("content-type", "application/cbor")], &[0xa1, 0x41][..]).await.expect(400);
    assert!(refused.message().contains("cbor: unexpected EOF"), "{}", refused.message());
    let refused = server.call("PATCH", &path, &[("content-type", "x")], "").await.expect(415);
    assert_eq!(refused.message(), "415: Unsupported Media Type");
    server.call("DELETE", &path, &[WANT, ("content-type", "application/cbor")], cbor::encode(&json!({"apiVersion": "v1", "kind": "DeleteOptions"}))).await.expect(200);
}
