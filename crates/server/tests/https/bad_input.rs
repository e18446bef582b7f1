//! What a client may get wrong: upstream's code, reason and words each time, nothing half written, and the server goes on.

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};

const JSON: &str = "application/json";

/// Method, path below the namespace's ConfigMaps, content type, body, code, what the message is or contains (`~`).
type Case = (&'static str, &'static str, &'static str, &'static str, u16, &'static str);

const CASES: &[Case] = &[
    ("POST", "", JSON, "{", 400, "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({)"),
    ("POST", "", JSON, "", 400, "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
    ("POST", "", JSON, "[]", 400, r#"the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" } (5b5d)"#),
    ("POST", "", JSON, "null", 422, r#"ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required"#),
    ("POST", "", JSON, r#"{"metadata":{"name":"a"},"data":{"a":1}}"#, 400, r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#),
    ("POST", "", JSON, r#"{"kind":"Foo","apiVersion":"v1","metadata":{"name":"a"}}"#, 400, r#"Foo in version "v1" cannot be handled as a ConfigMap: no kind "Foo" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#),
    ("POST", "", JSON, r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#, 400, r#"Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion"#),
    ("POST", "", JSON, r#"{"metadata":{"name":"Bad_Name"}}"#, 422, r#"~ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain"#),
    ("POST", "", JSON, r#"{"metadata":{"name":"a","namespace":"other"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
    ("POST", "", "text/plain", "{}", 415, "~the body of the request was in an unknown format"),
    ("POST", "/a", JSON, r#"{"metadata":{"name":"a"}}"#, 405, "the server does not allow this method on the requested resource"),
    ("PUT", "", JSON, "{}", 405, "the server does not allow this method on the requested resource"),
    ("PATCH", "/a", JSON, "{}", 415, "415: Unsupported Media Type"),
    ("PUT", "/none", JSON, r#"{"metadata":{"name":"none"}}"#, 404, r#"configmaps "none" not found"#),
    ("PUT", "/kept", JSON, r#"{"data":{"a":"2"}}"#, 400, "the name of the object (kept based on URL) was undeterminable: name must be provided"),
    ("PUT", "/kept", JSON, r#"{"metadata":{"name":"other"}}"#, 400, "the name of the object (other) does not match the name on the URL (kept)"),
    ("PUT", "/kept", JSON, r#"{"metadata":{"name":"kept","namespace":"x"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
    ("PUT", "/kept", JSON, r#"{"metadata":{"name":"kept","resourceVersion":"1"}}"#, 409, r#"Operation cannot be fulfilled on configmaps "kept": the object has been modified; please apply your changes to the latest version and try again"#),
    ("PUT", "/kept", JSON, r#"{"metadata":{"name":"kept","resourceVersion":"abc"}}"#, 500, r#"strconv.ParseUint: parsing "abc": invalid syntax"#),
    ("PUT", "/kept", JSON, r#"{"metadata":{"name":"kept","resourceVersion":"99999999999999999999"}}"#, 500, r#"strconv.ParseUint: parsing "99999999999999999999": value out of range"#),
    ("PATCH", "/kept", "application/merge-patch+json", "{", 400, "~unexpected end of JSON input"),
    ("PATCH", "/kept", "application/merge-patch+json", "[]", 400, "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
    ("PATCH", "/kept", "application/merge-patch+json", r#"{"data":{"k":5}}"#, 422, r#"~json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#),
    ("PATCH", "/kept", "application/merge-patch+json", r#"{"metadata":{"uid":"x"}}"#, 422, r#"ConfigMap "kept" is invalid: metadata.uid: Invalid value: "x": field is immutable"#),
    ("PATCH", "/kept", "application/merge-patch+json", r#"{"metadata":{"namespace":"x"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
    ("PATCH", "/kept", "application/strategic-merge-patch+json", r#"{"data":{"k":5}}"#, 422, r#" "" is invalid: patch: Invalid value: "map[data:map[k:5]]": cannot convert int64 to string"#),
    ("PATCH", "/kept", "application/strategic-merge-patch+json", r#"{"data":{"$patch":"bogus"}}"#, 500, "unknown patch type: bogus in map: map[$patch:bogus]"),
    ("PATCH", "/kept", "application/json-patch+json", "{}", 400, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
    ("PATCH", "/kept?fieldValidation=Strict", "application/merge-patch+json", r#"{"data":{"k":"1"},"data":{"k":"2"}}"#, 422, r#"~strict decoding error: duplicate field "data""#),
    ("PATCH", "/kept?fieldManager=m", "application/apply-patch+yaml", "data: {}", 400, "invalid object type: /, Kind="),
    ("PATCH", "/kept?fieldManager=m", "application/apply-patch+yaml", "{apiVersion: v1, kind: Secret}", 400, "invalid object type: /v1, Kind=Secret"),
    ("PATCH", "/new?fieldManager=m", "application/apply-patch+yaml", "{apiVersion: v1, kind: ConfigMap}", 400, "the name of the object (new based on URL) was undeterminable: name must be provided"),
    ("PATCH", "/new?fieldManager=m", "application/apply-patch+yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: new, uid: x}}", 409, r#"Operation cannot be fulfilled on configmaps "new": uid mismatch: the provided object specified uid x, and no existing object was found"#),
    ("PATCH", "/kept?fieldManager=m", "application/apply-patch+yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: []}", 500, "failed to create typed patch object (/kept; /v1, Kind=ConfigMap): .data: expected map, got &{[]}"),
    ("PATCH", "/kept?fieldManager=m", "application/apply-patch+yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: null}}", 400, "the name of the object (kept based on URL) was undeterminable: name must be provided"),
    ("PATCH", "/kept?fieldManager=m", "application/apply-patch+yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {k: 5}}", 500, "failed to create typed patch object (/kept; /v1, Kind=ConfigMap): .data.k: expected string, got &value.valueUnstructured{Value:5}"),
    ("PATCH", "/kept?fieldManager=m", "application/apply-patch+yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, binaryData: {b: '!!'}}", 500, "failed to convert new object (/kept; /v1, Kind=ConfigMap) to proper version: unable to convert unstructured object to /v1, Kind=ConfigMap: error decoding from json: illegal base64 data at input byte 0"),
    ("PATCH", "/kept", "application/strategic-merge-patch+json", r#"{"kind":5}"#, 422, r#" "" is invalid: patch: Invalid value: "map[kind:5]": cannot convert int64 to string"#),
    ("PATCH", "/kept", "application/merge-patch+json", r#"{"metadata":{"generateName":"a."}}"#, 422, r#"~ConfigMap "kept" is invalid: metadata.generateName: Invalid value: "a.": a lowercase RFC 1123 subdomain"#),
    ("DELETE", "/kept", JSON, "[]", 400, "~json: cannot unmarshal array into Go value of type struct"),
    ("DELETE", "/kept", JSON, r#"{"kind":"Foo"}"#, 400, r#"no kind "Foo" is registered for version "meta.k8s.io/v1" in scheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27""#),
    ("DELETE", "/kept", JSON, r#"{"orphanDependents":true,"propagationPolicy":"Orphan"}"#, 422, "~orphanDependents and deletionPropagation cannot be both set"),
    ("PATCH", "/kept", "application/merge-patch+json", r#"{"metadata":{"name":"zz"}}"#, 400, "the name of the object (zz) does not match the name on the URL (kept)"),
    ("PATCH", "/kept", "application/json-patch+json", r#"[{"op":"test","path":"/data/k","value":"zz"}]"#, 422, "the server rejected our request due to an error in our request"),
    ("PATCH", "/kept", "application/apply-patch+yaml", "data: {}", 422, r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#),
    ("PATCH", "/kept?force=true", "application/merge-patch+json", "{}", 422, r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#),
    ("POST", "?dryRun=foo", JSON, "{}", 422, r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["foo"]: supported values: "All""#),
    ("POST", "?fieldValidation=foo", JSON, "{}", 422, r#"CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "foo": supported values: "", "Ignore", "Strict", "Warn""#),
    ("POST", "?fieldValidation=Strict", JSON, r#"{"metadata":{"name":"a"},"foo":1}"#, 400, r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "foo""#),
    ("DELETE", "/none", JSON, "", 404, r#"configmaps "none" not found"#),
    ("DELETE", "/kept?propagationPolicy=Foo", JSON, "", 422, r#"~DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Foo""#),
    ("DELETE", "/kept?gracePeriodSeconds=abc", JSON, "", 400, r#"strconv.ParseInt: parsing "abc": invalid syntax"#),
    ("DELETE", "/kept", JSON, r#"{"preconditions":{"uid":"x"}}"#, 409, "~the UID in the precondition (x) does not match the UID in record ("),
    ("GET", "?labelSelector=a=b=c", JSON, "", 400, "found '=', expected: ',' or 'end of string'"),
    ("GET", "?labelSelector=a%20b", JSON, "", 400, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
    ("GET", "?fieldSelector=abc", JSON, "", 400, "invalid selector: 'abc'; can't understand 'abc'"),
    ("GET", "?fieldSelector=spec.x=1", JSON, "", 400, r#""spec.x" is not a known field selector: only "metadata.name", "metadata.namespace""#),
    ("GET", "?limit=abc", JSON, "", 400, r#"strconv.ParseInt: parsing "abc": invalid syntax"#),
    ("GET", "?continue=xyz", JSON, "", 400, "~invalid continue token: continue key is not valid: invalid character 'Ç' looking for beginning of value"),
    ("GET", "?continue=a", JSON, "", 400, "~continue key is not valid: illegal base64 data at input byte 0"),
    ("GET", "?continue=e30", JSON, "", 400, "~invalid continue token: continue key is not valid: server does not recognize this encoded version"),
    ("GET", "?resourceVersion=abc", JSON, "", 400, r#"~resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax"#),
    ("GET", "?resourceVersion=99999999", JSON, "", 504, "~Timeout: Too large resource version: 99999999, current: "),
    ("GET", "?resourceVersionMatch=Exact", JSON, "", 422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#),
    ("GET", "?watch=1&sendInitialEvents=true", JSON, "", 422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"#),
    ("GET", "?resourceVersionMatch=Exact&resourceVersion=0", JSON, "", 422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0""#),
    ("GET", "?resourceVersionMatch=Foo&resourceVersion=1", JSON, "", 422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Unsupported value: "Foo": supported values: "Exact", "NotOlderThan", """#),
    ("GET", "?resourceVersionMatch=Exact&resourceVersion=1&continue=x", JSON, "", 422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided"#),
    ("GET", "?sendInitialEvents=false", JSON, "", 422, r#"ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"#),
    ("GET", "?watch=1&resourceVersionMatch=NotOlderThan", JSON, "", 422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"#),
    ("GET", "?watch=1&sendInitialEvents=false", JSON, "", 422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"#),
    ("GET", "/%2e%2e", JSON, "", 400, r#"Name parameter invalid: "..": may not be '..'"#),
    ("GET", "/a%25b", JSON, "", 400, r#"Name parameter invalid: "a%b": may not contain '%'"#),
    ("GET", "/a%2Fb", JSON, "", 404, "the server could not find the requested resource"),
    ("GET", "/kept/status", JSON, "", 404, "the server could not find the requested resource"),
    ("OPTIONS", "", JSON, "", 405, "the server does not allow this method on the requested resource"),
];

#[tokio::test]
async fn who_applies_is_warned_as_who_creates_is() {
    let server = Server::start().await;
    let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}], trafficDistribution: PreferClose}}";
    let reply = server.call("PATCH", "/api/v1/namespaces/default/services/s?fieldManager=m", &[("content-type", "application/apply-patch+yaml")], service).await;
    assert_eq!(reply.code, 201);
    let warning = reply.headers.get("warning").and_then(|text| text.to_str().ok()).unwrap_or_default();
    assert!(warning.contains("PreferClose"), "{warning}");
}

/// The same of subresources: method, path below the namespace, content type, body, code, what the message is or contains (`~`).
const SUBRESOURCES: &[Case] = &[
    ("PUT", "deployments/d/scale", JSON, r#"{"metadata":{"name":"d"},"spec":{"replicas":"x"}}"#, 400, r#"Scale in version "v1" cannot be handled as a Scale: json: cannot unmarshal string into Go struct field ScaleSpec.spec.replicas of type int32"#),
    ("PUT", "deployments/d/scale", JSON, "{}", 400, "the name of the object (d based on URL) was undeterminable: name must be provided"),
    ("PUT", "deployments/d/scale", JSON, r#"{"kind":"Foo","apiVersion":"v1","metadata":{"name":"d"}}"#, 400, r#"~Foo in version "v1" cannot be handled as a Scale: no kind "Foo" is registered"#),
    ("PUT", "deployments/d/scale", JSON, r#"{"metadata":{"name":"d","namespace":"x"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
    ("PUT", "deployments/d/scale", JSON, r#"{"metadata":{"name":"d","uid":"x"}}"#, 409, r#"~Operation cannot be fulfilled on deployments.apps "d": StorageError: invalid object, Code: 4, Key: "#),
    ("PUT", "deployments/d/scale", JSON, r#"{"metadata":{"name":"d"},"spec":{"replicas":-1}}"#, 422, r#"Scale.autoscaling "d" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#),
    ("PATCH", "deployments/d/scale", "application/merge-patch+json", r#"{"spec":{"replicas":"x"}}"#, 422, "~json: cannot unmarshal string into Go struct field ScaleSpec.spec.replicas of type int32"),
    ("PATCH", "deployments/d/scale", "application/strategic-merge-patch+json", r#"{"spec":{"replicas":"x"}}"#, 422, r#" "" is invalid: patch: Invalid value: "map[spec:map[replicas:x]]": unrecognized type: int32"#),
    ("PATCH", "deployments/d/scale?fieldManager=m", "application/apply-patch+yaml", "{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: d}, spec: {replicas: x}}", 500, "failed to create typed patch object (/d; autoscaling/v1, Kind=Scale): .spec.replicas: expected numeric (int or float), got string"),
    ("PATCH", "deployments/d/scale?fieldManager=m", "application/apply-patch+yaml", "{apiVersion: apps/v1, kind: Deployment}", 400, "invalid object type: apps/v1, Kind=Deployment"),
    ("PUT", "deployments/d/status", JSON, r#"{"metadata":{"name":"d"},"status":{"replicas":"x"}}"#, 400, r#"~Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string"#),
    ("POST", "pods/p/binding", JSON, r#"{"target":{"name":"n"}}"#, 400, "name in URL does not match name in Binding object"),
    ("POST", "pods/p/binding", JSON, r#"{"metadata":{"name":"p","namespace":"x"},"target":{"name":"n"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
    ("POST", "pods/p/binding", JSON, r#"{"metadata":{"name":"p"},"target":{"name":5}}"#, 400, r#"~Binding in version "v1" cannot be handled as a Binding: json: cannot unmarshal number"#),
    ("POST", "pods/p/binding", JSON, r#"{"metadata":{"name":"p"},"target":{"kind":"Foo","name":"n"}}"#, 500, r#"target.kind: Unsupported value: "Foo": supported values: "Node", "<empty>""#),
    ("POST", "pods/p/eviction", JSON, "{}", 400, "name in URL does not match name in Eviction object"),
    ("POST", "pods/p/eviction", JSON, r#"{"apiVersion":"policy/v2","kind":"Eviction","metadata":{"name":"p"}}"#, 400, r#"~Eviction in version "v2" cannot be handled as a Eviction: no kind "Eviction" is registered for version "policy/v2""#),
    ("POST", "pods/p/eviction", JSON, r#"{"metadata":{"name":"p"},"deleteOptions":{"gracePeriodSeconds":"x"}}"#, 400, "~cannot be handled as a Eviction: json: cannot unmarshal string"),
    ("POST", "pods/p/eviction?dryRun=All", JSON, r#"{"metadata":{"name":"p"},"deleteOptions":{"dryRun":["x"]}}"#, 500, "Non-matching dry-run options in request and content: [All] and [x]"),
    ("PATCH", "pods/p/resize", "application/strategic-merge-patch+json", r#"{"spec":{"containers":[{"name":"z","image":"i"}]}}"#, 422, r#"Pod "p" is invalid: spec.containers: Forbidden: containers may not be added or removed on resize"#),
    ("POST", "serviceaccounts/default/token", JSON, r#"{"spec":{"audiences":"x"}}"#, 400, r#"~TokenRequest in version "v1" cannot be handled as a TokenRequest: json: cannot unmarshal string"#),
    ("POST", "serviceaccounts/default/token", JSON, r#"{"kind":"Foo","apiVersion":"v1"}"#, 400, r#"~Foo in version "v1" cannot be handled as a TokenRequest: no kind "Foo" is registered"#),
];

#[tokio::test]
async fn subresources_take_only_what_is_theirs() {
    let server = Server::start().await;
    server.service_account("default").await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    server.post("/apis/apps/v1/namespaces/default/deployments", deployment).await.expect(201);
    server.post(PODS, json!({"metadata": {"name": "p"}, "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}})).await.expect(201);
    let before = server.store.revision();
    for (method, path, media, body, code, words) in SUBRESOURCES {
        let base = if path.starts_with("deployments") { "/apis/apps/v1/namespaces/default" } else { "/api/v1/namespaces/default" };
        let reply = server.call(method, &format!("{base}/{path}"), &[("content-type", media)], *body).await;
        let status = reply.json();
        let message = status["message"].as_str().unwrap_or_default();
        let fits = words.strip_prefix('~').map_or_else(|| message == *words, |part| message.contains(part));
        assert!(reply.code == *code && fits, "{method} {path} {body}\n got {} {message}\nwant {code} {words}", reply.code);
    }
    assert_eq!(server.store.revision(), before, "no refused request has written anything");
}

#[tokio::test]
async fn each_mistake_is_told_in_upstreams_words() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("kept")).await.expect(201);
    let before = server.store.revision();
    for (method, path, media, body, code, words) in CASES {
        let reply = server.call(method, &format!("{CONFIG_MAPS}{path}"), &[("content-type", media)], *body).await;
        let status = reply.json();
        let message = status["message"].as_str().unwrap_or_default();
        let fits = words.strip_prefix('~').map_or_else(|| message == *words, |part| message.contains(part));
        assert!(reply.code == *code && fits && status["code"] == *code && status["status"] == "Failure", "{method} {path} {body}\n got {} {message}\nwant {code} {words}", reply.code);
    }
    assert_eq!(server.store.revision(), before, "no refused request has written anything");
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/kept")).await.expect(200).json()["data"]["k"], "v");
}

#[tokio::test]
async fn paths_that_lead_nowhere() {
    let server = Server::start().await;
    for (method, path, code, words) in [
        ("POST", "/api/v1/configmaps", 405, "the server does not allow this method on the requested resource"),
        ("GET", "/api/v1/configmaps/a", 404, "the server could not find the requested resource"),
        ("POST", "/api/v1/namespaces/nope/configmaps", 404, "namespaces \"nope\" not found"),
        ("POST", "/api/v1/namespaces/default/foos", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/namespaces/default/nodes/x", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/namespaces/default/bindings/x", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/namespaces/default/bindings", 405, "the server does not allow this method on the requested resource"),
        ("GET", "/api/v1/namespaces/default/pods/x/eviction", 405, "the server does not allow this method on the requested resource"),
        ("PATCH", "/api/v1/namespaces/default/pods/x/binding", 405, "the server does not allow this method on the requested resource"),
        ("POST", "/api/v1/namespaces/default/pods/x/status", 405, "the server does not allow this method on the requested resource"),
        ("DELETE", "/api/v1/componentstatuses/etcd-0", 405, "the server does not allow this method on the requested resource"),
        ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", 422, ".authorization.k8s.io \"\" is invalid: [spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least one of user or group must be specified, metadata: Invalid value: {\"name\":\"a\"}: must be empty]"),
    ] {
        let reply = server.call(method, path, &[("content-type", JSON)], r#"{"metadata":{"name":"a"}}"#).await;
        assert_eq!((reply.code, reply.message().as_str()), (code, words), "{method} {path}");
    }
    // What upstream's plain mux serves does not look at the method; a check of health can be asked for by itself.
    for (method, path, code) in [("POST", "/", 200), ("POST", "/healthz", 200), ("GET", "/readyz/ping", 200), ("GET", "/readyz/nope", 404), ("GET", "/readyz/", 404), ("POST", "/version", 405), ("POST", "/nope", 404), ("GET", "/apis/apps/v2", 404)] {
        assert_eq!(server.call(method, path, &[], "{}").await.code, code, "{method} {path}");
    }
    // Subresources take objects only.
    let account = server.call("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", &[("content-type", JSON)], "\"x\"").await.expect(400);
    assert!(account.message().starts_with("the object provided is unrecognized (must be of type TokenRequest): couldn't get version/kind"), "{}", account.message());
    for path in ["/apis/foo/v1/bars", "/apis/foo", "/api/v9/pods", "/nope"] {
        let reply = server.get(path).await;
        assert_eq!((reply.code, &reply.body[..]), (404, &b"404 page not found\n"[..]), "{path}");
    }
}

#[tokio::test]
async fn sizes_have_limits() {
    let server = Server::start().await;
    server.service_account("default").await;
    let before = server.store.revision();
    let pod = |bytes: usize| json!({"metadata": {"name": "big"}, "spec": {"containers": [{"name": "c", "image": "x", "args": ["y".repeat(bytes)]}]}});
    // The store's limit, etcd's request size.
    let reply = server.post(PODS, pod(1_700_000)).await.expect(413);
    assert_eq!((reply.reason().as_str(), reply.message().starts_with("etcdserver: request is too large")), ("RequestEntityTooLarge", true));
    // The body's.
    let reply = server.post(PODS, pod(3 * 1024 * 1024)).await.expect(413);
    assert_eq!(reply.message(), "Request entity too large: limit is 3145728");
    let data = json!({"metadata": {"name": "big"}, "data": {"a": "x".repeat(1024 * 1024 + 1)}});
    assert!(server.post(CONFIG_MAPS, data).await.expect(422).message().contains("Too long: may not be more than 1048576 bytes"));
    let deep = format!(r#"{{"metadata":{{"name":"deep"}},"data":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    assert!(server.call("POST", CONFIG_MAPS, &[], deep).await.expect(400).message().contains("exceeded max depth"));
    for number in ["99999999999999999999", "1.5", "1e400", "\"x\""] {
        let body = format!(r#"{{"metadata":{{"name":"a"}},"spec":{{"replicas":{number}}}}}"#);
        server.call("POST", "/apis/apps/v1/namespaces/default/deployments", &[], body).await.expect(400);
    }
    assert_eq!(server.store.revision(), before);
}

#[tokio::test]
async fn bytes_that_are_no_utf8_are_read_as_go_reads_them() {
    let server = Server::start().await;
    let made = server.call("POST", CONFIG_MAPS, &[], &b"{\"metadata\":{\"name\":\"u\"},\"data\":{\"a\":\"x\xff\"}}"[..]).await.expect(201).json();
    assert_eq!(made["data"]["a"], "x\u{fffd}");
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let server = Server::start().await;
    let versioned = |name: &str, version: &str| json!({"metadata": {"name": name, "resourceVersion": version}});
    server.post(CONFIG_MAPS, versioned("v", "0")).await.expect(201);
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let before = server.store.revision();
    server.post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("b")).await.expect(201);
    server.post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("a")).await.expect(409);
    // What is in the store minds a resourceVersion, which a dry run does not reach; and what is no revision is none.
    server.post(&format!("{CONFIG_MAPS}?dryRun=All"), versioned("c", "7")).await.expect(201);
    server.post(CONFIG_MAPS, versioned("c", "7")).await.expect(400);
    let patched: Value = server.patch(&format!("{CONFIG_MAPS}/a?dryRun=All"), "merge-patch+json", json!({"data": {"k": "w"}})).await.expect(200).json();
    assert_eq!(patched["data"]["k"], "w");
    server.delete(&format!("{CONFIG_MAPS}/a?dryRun=All")).await.expect(200);
    assert_eq!(server.store.revision(), before);
}

#[tokio::test]
async fn only_what_can_be_made_is_accepted() {
    let server = Server::start().await;
    let reply = server.call("GET", CONFIG_MAPS, &[("accept", "application/xml")], "").await.expect(406);
    assert_eq!(reply.reason(), "NotAcceptable");
    server.call("GET", CONFIG_MAPS, &[("accept", "application/xml, application/json")], "").await.expect(200);
}

/// Nobody gets a token for everything because what they asked for was not understood, and nothing is evicted by what is no eviction.
#[tokio::test]
async fn what_is_posted_to_an_object_is_of_its_type() {
    let server = Server::start().await;
    server.service_account("default").await;
    server.post(PODS, pod("p")).await.expect(201);
    let token = |spec: Value| ("/api/v1/namespaces/default/serviceaccounts/default/token", json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}));
    let of_pod = |subresource: &'static str, body: Value| (if subresource == "binding" { "/api/v1/namespaces/default/pods/p/binding" } else { "/api/v1/namespaces/default/pods/p/eviction" }, body);
    for (path, body) in [
        token(json!({"audiences": "vault"})),
        token(json!({"audiences": [1]})),
        token(json!({"expirationSeconds": "600"})),
        token(json!({"boundObjectRef": "p"})),
        ("/api/v1/namespaces/default/serviceaccounts/default/token", json!({"apiVersion": "v1", "kind": "Pod", "spec": {}})),
        of_pod("binding", json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": ["n"]}})),
        of_pod("binding", json!({"metadata": {"name": "other"}, "target": {"kind": "Node", "name": "n"}})),
        of_pod("eviction", json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})),
        of_pod("eviction", json!({"metadata": {"name": "other"}})),
        of_pod("eviction", json!({"metadata": {"name": "p", "namespace": "other"}})),
        of_pod("eviction", json!({"metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": "x"}})),
    ] {
        server.post(path, body).await.expect(400);
    }
    let kept = server.get(&format!("{PODS}/p")).await.expect(200).json();
    assert_eq!((kept["metadata"].get("deletionTimestamp"), kept["spec"].get("nodeName")), (None, None));
    server.post("/api/v1/namespaces/default/pods/p/eviction", json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}})).await.expect(201);
}

/// What says wrongly how to delete deletes nothing.
#[tokio::test]
async fn a_deletion_is_taken_at_its_word() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, config_map("kept")).await.expect(201);
    let one = format!("{CONFIG_MAPS}/kept");
    for (body, code) in [
        (json!({"dryRun": "All"}), 400),
        (json!({"dryRun": ["Some"]}), 422),
        (json!({"preconditions": {"uid": 5}}), 400),
        (json!({"preconditions": "x"}), 400),
        (json!({"gracePeriodSeconds": "x"}), 400),
        (json!({"propagationPolicy": 5}), 400),
        (json!({"orphanDependents": "yes"}), 400),
    ] {
        for path in [one.as_str(), CONFIG_MAPS] {
            let reply = server.call("DELETE", path, &[("content-type", "application/json")], body.to_string()).await;
            assert_eq!(reply.code, code, "{body}");
        }
    }
    server.get(&one).await.expect(200);
    server.call("DELETE", &one, &[("content-type", "application/json")], r#"{"kind":"DeleteOptions","apiVersion":"apps/v1","dryRun":["All"],"unknown":1}"#).await.expect(200);
    server.get(&one).await.expect(200);
}
