//! The OpenAPI documents: every reference leads somewhere, and what kubectl reads of them is there.

use std::collections::HashSet;

use super::*;
use crate::table::table;

/// Every `$ref` in a document, without what is before the name.
fn references(value: &Value, found: &mut HashSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.insert(reference.rsplit('/').next().unwrap_or("").to_owned());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let v2 = v2(table().rows());
    let mut found = HashSet::new();
    references(&v2, &mut found);
    for name in &found {
        assert!(v2["definitions"].get(name).is_some(), "{name}");
    }
    let index = v3_index(table().rows());
    for row in table().rows() {
        assert!(index["paths"].get(path(&row.group, &row.version)).is_some());
        let document = v3_group(table().rows(), &row.group, &row.version).unwrap();
        let mut found = HashSet::new();
        references(&document, &mut found);
        for name in &found {
            assert!(document["components"]["schemas"].get(name).is_some(), "{} refers to {name}", row.group);
        }
    }
}

/// What `kubectl explain` does: path -> group, version and kind -> schema -> field.
#[test]
fn explain_finds_its_way() {
    let document = v3_group(table().rows(), "apps", "v1").unwrap();
    let kind = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["get"]["x-kubernetes-group-version-kind"];
    assert_eq!(*kind, json!({"group": "apps", "kind": "Deployment", "version": "v1"}));
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let schema = schemas.values().find(|schema| schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|kinds| kinds.contains(kind))).unwrap();
    assert_eq!(schema["properties"]["spec"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!(spec["required"], json!(["selector", "template"]));
    assert_eq!(spec["properties"]["replicas"]["format"], "int32");
    // The build found the dependency's sources, or the descriptions would be missing.
    assert!(spec["properties"]["replicas"]["description"].as_str().unwrap().contains("Number of desired pods"));
    assert!(schema["description"].as_str().unwrap().starts_with("Deployment enables"));
}

/// Laid out as upstream's documents are.
#[test]
fn documents_are_laid_out_as_upstreams() {
    let document = v3_group(table().rows(), "apps", "v1").unwrap();
    let schemas = &document["components"]["schemas"];
    let property = |ty: &str, field: &str| schemas[ty]["properties"][field].clone();
    // A reference with siblings is wrapped, one without is not; what Go always writes has a default.
    assert_eq!(property("io.k8s.api.apps.v1.DeploymentStatus", "conditions")["items"], json!({"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentCondition"}));
    assert!(property("io.k8s.api.apps.v1.Deployment", "metadata")["allOf"].is_array());
    assert_eq!(property("io.k8s.api.apps.v1.DeploymentCondition", "type")["default"], "");
    assert_eq!(schemas["io.k8s.api.apps.v1.DeploymentCondition"]["required"], json!(["type", "status"]));
    assert_eq!(schemas["io.k8s.api.core.v1.SeccompProfile"]["x-kubernetes-unions"], json!([{"discriminator": "type", "fields-to-discriminateBy": {"localhostProfile": "LocalhostProfile"}}]));
    assert_eq!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]["x-kubernetes-group-version-kind"][1], json!({"group": "apps", "kind": "DeleteOptions", "version": "v1"}));
    assert_eq!(schemas["io.k8s.api.core.v1.PersistentVolumeClaim"]["x-kubernetes-group-version-kind"][0]["kind"], "PersistentVolumeClaim");
    assert_eq!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry"]["properties"]["fieldsV1"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1");
    assert!(property("io.k8s.api.core.v1.Container", "imagePullPolicy")["description"].as_str().unwrap().ends_with("\n\nPossible enum values:\n - `\"Always\"`\n - `\"IfNotPresent\"`\n - `\"Never\"`"));
    assert!(document["components"]["securitySchemes"]["BearerToken"].is_object());
    // Only what the group's operations use.
    let reviews = v3_group(table().rows(), "authorization.k8s.io", "v1").unwrap();
    assert!(reviews["components"]["schemas"].get("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions").is_none());
    // v2 knows no defaults.
    assert!(v2(table().rows())["definitions"]["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"].get("default").is_none());
}

/// A client may keep a document by its hash.
#[test]
fn hashes_are_those_of_the_index() {
    let index = v3_index(table().rows());
    for path in ["apis/apps/v1", "api/v1", "version"] {
        let hash = v3_hash(table().rows(), path).unwrap();
        assert_eq!(index["paths"][path]["serverRelativeURL"], v3_url(path, &hash));
    }
    assert!(v3_hash(table().rows(), "apis/none/v1").is_none());
}

#[test]
fn patches_say_which_parameters_they_know() {
    let document = v3_group(table().rows(), "", "v1").unwrap();
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert!(patch["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == "fieldValidation"));
    let ports = &document["components"]["schemas"]["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["port", "protocol"]));
    assert!(document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["post"]["x-kubernetes-action"] == "connect");
}

/// What generated clients name their functions by, each once.
#[test]
fn operations_have_names() {
    let v2 = v2(table().rows());
    for (path, method, id) in [
        ("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces"),
        ("/api/v1/namespaces/{namespace}/pods", "get", "listCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods", "post", "createCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/configmaps", "delete", "deleteCoreV1CollectionNamespacedConfigMap"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/exec", "get", "connectCoreV1GetNamespacedPodExec"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/eviction", "post", "createCoreV1NamespacedPodEviction"),
        ("/api/v1/namespaces/{name}/finalize", "put", "replaceCoreV1NamespaceFinalize"),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}", "patch", "patchRbacAuthorizationV1ClusterRole"),
        ("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", "get", "readAppsV1NamespacedDeploymentScale"),
        ("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", "get", "listFlowcontrolApiserverV1FlowSchema"),
        ("/api/v1/watch/pods", "get", "watchCoreV1PodListForAllNamespaces"),
        ("/api/v1/watch/namespaces/{namespace}/pods", "get", "watchCoreV1NamespacedPodList"),
        ("/api/v1/watch/namespaces/{namespace}/pods/{name}", "get", "watchCoreV1NamespacedPod"),
        ("/api/v1/watch/nodes", "get", "watchCoreV1NodeList"),
        ("/api/v1/nodes/{name}/proxy", "options", "connectCoreV1OptionsNodeProxy"),
        ("/api/v1/nodes/{name}/proxy/{path}", "head", "connectCoreV1HeadNodeProxyWithPath"),
        ("/apis/apps/", "get", "getAppsAPIGroup"),
        ("/apis/rbac.authorization.k8s.io/v1/", "get", "getRbacAuthorizationV1APIResources"),
        ("/version/", "get", "getCodeVersion"),
    ] {
        assert_eq!(v2["paths"][path][method]["operationId"], id, "{path}");
    }
    assert_eq!(v2["paths"]["/apis/rbac.authorization.k8s.io/v1/clusterroles"]["get"]["tags"], json!(["rbacAuthorization_v1"]));
    let mut seen = HashSet::new();
    for operations in v2["paths"].as_object().unwrap().values() {
        for (_, operation) in operations.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
            assert!(seen.insert(operation["operationId"].as_str().unwrap().to_owned()), "{}", operation["operationId"]);
        }
    }
    let create = &v2["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(v2["paths"]["/api/v1/namespaces/{namespace}/endpoints"]["post"]["description"], "create Endpoints");
    assert_eq!((&create["consumes"], create["responses"].as_object().unwrap().len(), &create["description"]), (&json!(["*/*"]), 4, &json!("create a Pod")));
}

/// What all operations of a path take stands beside them; what only some take, with those.
#[test]
fn parameters_stand_where_they_belong() {
    let v2 = v2(table().rows());
    let names = |list: &Value| list.as_array().map(|list| list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")).unwrap_or_default();
    let pods = &v2["paths"]["/api/v1/namespaces/{namespace}/pods"];
    assert_eq!(names(&pods["parameters"]), "namespace pretty");
    assert_eq!(names(&pods["post"]["parameters"]), "dryRun fieldManager fieldValidation body");
    assert!(names(&pods["delete"]["parameters"]).contains("propagationPolicy") && !names(&pods["delete"]["parameters"]).contains("watch"));
    let exec = &v2["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"];
    assert_eq!((names(&exec["parameters"]).as_str(), exec["get"].get("parameters")), ("command container name namespace stderr stdin stdout tty", None));
    let watch = &v2["paths"]["/apis/apps/v1/watch/deployments"];
    assert_eq!(watch["get"]["responses"]["200"]["schema"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent");
    assert!(names(&watch["parameters"]).starts_with("allowWatchBookmarks continue"));
    let log = &v2["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/log"];
    assert!(names(&log["parameters"]).contains("tailLines") && log["get"]["produces"][0] == "text/plain");
    let deleted = |path: &str| v2["paths"][path]["delete"]["responses"]["200"]["schema"]["$ref"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
    assert_eq!((deleted("/api/v1/namespaces/{namespace}/pods/{name}"), deleted("/api/v1/namespaces/{namespace}/replicationcontrollers/{name}")), ("Pod".into(), "Status".into()));
}

#[test]
fn what_is_beside_the_groups_has_documents() {
    let index = v3_index(table().rows());
    for path in ["api", "apis", "apis/apps", "version", "openid/v1/jwks", ".well-known/openid-configuration"] {
        assert!(index["paths"].get(path).is_some(), "{path}");
        let document = v3_around(table().rows(), path).unwrap();
        assert!(document["paths"].get(format!("/{path}/")).is_some(), "{path}");
        let mut found = HashSet::new();
        references(&document, &mut found);
        assert!(found.iter().all(|name| document["components"]["schemas"].get(name).is_some()), "{path}");
    }
    assert!(v3_around(table().rows(), "apis/none").is_none());
    assert!(v3_group(table().rows(), "apps", "v1").unwrap()["paths"].get("/apis/apps/v1/").is_some());
}

fn custom_row(schema: Value) -> std::sync::Arc<Resource> {
    let definition = json!({"metadata": {"name": "crontabs.example.com", "uid": "u", "generation": 1}, "spec": {"group": "example.com", "scope": "Namespaced",
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}, "scale": {}}}]},
        "status": {"acceptedNames": {"plural": "crontabs", "kind": "CronTab", "listKind": "CronTabList"}, "conditions": [{"type": "Established", "status": "True"}]}});
    crate::custom::rows(&std::sync::Arc::new(crate::Object::new(definition.to_string().into(), 1)), &definition, 1).remove(0)
}

#[test]
fn a_custom_kind_is_published() {
    let row = custom_row(json!({"type": "object", "description": "A CronTab.", "properties": {
        "spec": {"type": "object", "nullable": true, "properties": {"cronSpec": {"type": "string"}}},
        "port": {"x-kubernetes-int-or-string": true},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}));
    let document = v3_group([&*row], "example.com", "v1").unwrap();
    let published = &document["components"]["schemas"]["com.example.v1.CronTab"];
    assert_eq!(published["x-kubernetes-group-version-kind"], json!([{"group": "example.com", "kind": "CronTab", "version": "v1"}]));
    assert_eq!((&published["properties"]["spec"]["nullable"], &published["properties"]["port"]["anyOf"]), (&json!(true), &json!([{"type": "integer"}, {"type": "string"}])));
    assert_eq!(published["properties"]["pod"]["required"], json!(["kind", "apiVersion"]));
    assert!(document["paths"].get("/apis/example.com/v1/namespaces/{namespace}/crontabs/{name}/scale").is_some());
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"]["requestBody"]["content"];
    assert!(patch.get("application/merge-patch+json").is_some() && patch.get("application/strategic-merge-patch+json").is_none());
    let v2 = v2([&*row]);
    let published = &v2["definitions"]["com.example.v1.CronTab"];
    assert_eq!((&published["properties"]["spec"], &published["description"]), (&json!({}), &json!("A CronTab.")));
    assert_eq!(published["properties"]["any"], json!({"x-kubernetes-preserve-unknown-fields": true}));
    assert!(published["properties"]["metadata"]["$ref"].is_string());
    assert!(v3_index([&*row])["paths"].get("apis/example.com/v1").is_some());
    // What takes anything is published without fields: kubectl would forbid all others.
    let open = custom_row(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"spec": {"type": "object"}}}));
    assert!(super::v2([&*open])["definitions"]["com.example.v1.CronTab"].get("properties").is_none());
}

/// Reads one field of a message: enough to see that the encoding can be walked.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        if key & 7 == 0 {
            varint(&mut bytes);
            continue;
        }
        assert_eq!(key & 7, 2);
        let length = varint(&mut bytes) as usize;
        found.push((key >> 3, &bytes[..length]));
        bytes = &bytes[length..];
    }
    found
}

#[test]
fn protobuf_can_be_walked() {
    let document = v2(table().rows());
    let bytes = v2_protobuf(&document);
    let top = fields(&bytes);
    assert_eq!(top.iter().find(|(tag, _)| *tag == 1).unwrap().1, b"2.0");
    let definitions = fields(top.iter().find(|(tag, _)| *tag == 9).unwrap().1);
    assert_eq!(definitions.len(), document["definitions"].as_object().unwrap().len());
    let port = definitions.iter().map(|(_, named)| fields(named)).find(|named| named[0].1 == b"io.k8s.api.core.v1.ContainerPort").unwrap();
    let properties = fields(port[1].1).into_iter().find(|(tag, _)| *tag == 25).unwrap().1;
    assert_eq!(fields(properties).len(), 5);
}
