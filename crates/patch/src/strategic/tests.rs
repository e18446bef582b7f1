//! Strategic merge patches: every directive, and upstream's words for those that are wrong.

use api::schema;
use serde_json::json;

use super::*;

const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const CONTAINER: &str = "io.k8s.api.core.v1.Container";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const SERVICE: &str = "io.k8s.api.core.v1.Service";

fn patched(ty: &str, doc: Value, patch: Value) -> Result<Value, PatchError> {
    let mut doc = doc;
    strategic(&mut doc, &patch, Some(schema::of(ty).unwrap())).map(|()| doc)
}

#[test]
fn merges_lists_by_key() {
    for (ty, doc, patch, wanted) in [
        // Items merge by name; new ones come first, for nothing says where the server's belong.
        (POD_SPEC, json!({"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b"}]}), json!({"containers": [{"name": "a", "image": "y"}]}),
            json!({"containers": [{"name": "a", "image": "y", "args": ["1"]}, {"name": "b"}]})),
        (POD_SPEC, json!({"containers": [{"name": "a"}]}), json!({"containers": [{"name": "b"}]}), json!({"containers": [{"name": "b"}, {"name": "a"}]})),
        // Lists without a strategy are replaced.
        (CONTAINER, json!({"args": ["1", "2"]}), json!({"args": ["3"]}), json!({"args": ["3"]})),
        // Null takes a field away; a null for nothing is nothing.
        (CONTAINER, json!({"image": "x", "name": "a"}), json!({"image": null, "command": null}), json!({"name": "a"})),
        // Directives.
        (POD_SPEC, json!({"containers": [{"name": "a"}, {"name": "b"}]}), json!({"containers": [{"name": "a", "$patch": "delete"}]}), json!({"containers": [{"name": "b"}]})),
        (POD_SPEC, json!({"containers": [{"name": "a"}, {"name": "b"}]}), json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}), json!({"containers": [{"name": "c"}]})),
        (POD_SPEC, json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}), json!({"securityContext": {"runAsUser": 3, "$patch": "replace"}}), json!({"securityContext": {"runAsUser": 3}})),
        (POD_SPEC, json!({"securityContext": {"runAsUser": 1}}), json!({"securityContext": {"$patch": "delete"}}), json!({"securityContext": {}})),
        // A directive for what is not there leaves nothing behind.
        (POD_SPEC, json!({}), json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "b"}]}), json!({"containers": [{"name": "b"}]})),
        // Volumes retain keys: the old source goes.
        (POD_SPEC, json!({"volumes": [{"name": "v", "emptyDir": {}}]}), json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}, "$retainKeys": ["name", "hostPath"]}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]})),
        (DEPLOYMENT, json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}), json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}})),
        // Plain values merge and are deleted by a parallel list.
        (SERVICE, json!({"metadata": {"finalizers": ["a", "b"]}}), json!({"metadata": {"finalizers": ["c", "a"]}}), json!({"metadata": {"finalizers": ["c", "a", "b"]}})),
        (SERVICE, json!({"metadata": {"finalizers": ["a", "b"]}}), json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}), json!({"metadata": {"finalizers": ["b"]}})),
        // A Service's ports merge by port alone here.
        (SERVICE, json!({"spec": {"ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]}}), json!({"spec": {"ports": [{"port": 53, "targetPort": 5353}]}}),
            json!({"spec": {"ports": [{"port": 53, "protocol": "UDP", "name": "dns", "targetPort": 5353}]}})),
        // Order.
        (POD_SPEC, json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}), json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}]})),
        (POD_SPEC, json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "n"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "n", "image": "i"}, {"name": "b", "image": "j"}]}),
            json!({"containers": [{"name": "n", "image": "i"}, {"name": "b", "image": "j"}, {"name": "a"}]})),
        // Maps are data.
        (SERVICE, json!({"metadata": {"labels": {"a": "1", "b": "2"}}}), json!({"metadata": {"labels": {"a": null, "c": "3"}}}), json!({"metadata": {"labels": {"b": "2", "c": "3"}}})),
    ] {
        assert_eq!(patched(ty, doc, patch.clone()).unwrap(), wanted, "{patch}");
    }
}

/// A budget's selector is one thing: a new one takes its place.
#[test]
fn some_objects_are_replaced() {
    const BUDGET: &str = "io.k8s.api.policy.v1.PodDisruptionBudgetSpec";
    let (before, after) = (json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}), json!({"minAvailable": 1, "selector": {"matchLabels": {"x": "y"}}}));
    let patch = json!({"selector": {"matchLabels": {"x": "y"}}});
    assert_eq!(patched(BUDGET, before.clone(), patch.clone()).unwrap(), after);
    assert_eq!(two_way(&before, &after, schema::of(BUDGET)).unwrap(), patch);
}

#[test]
fn refuses_in_upstreams_words() {
    for (ty, doc, patch, wanted) in [
        (POD_SPEC, json!({"containers": [{"name": "a"}]}), json!({"containers": [{"image": "x"}]}), "map: map[image:x] does not contain declared merge key: name"),
        (POD_SPEC, json!({}), json!({"$patch": "nonsense"}), "unknown patch type: nonsense in map: map[$patch:nonsense]"),
        (POD_SPEC, json!({"volumes": [{"name": "v"}]}), json!({"volumes": [{"name": "v", "hostPath": {}, "$retainKeys": ["name"]}]}), "invalid patch format of retainKeys"),
        (POD_SPEC, json!({}), json!({"$setElementOrder": []}), "invalid patch format of setElementOrder list"),
        (POD_SPEC, json!({}), json!({"$deleteFromPrimitiveList": []}), "invalid patch format of primitive list"),
    ] {
        assert_eq!(patched(ty, doc, patch).unwrap_err().to_string(), wanted);
    }
    assert_eq!(strategic(&mut json!({}), &json!([]), None).unwrap_err().to_string(), "json: cannot unmarshal array into Go value of type map[string]interface {}");
}

#[test]
fn without_schema_lists_are_replaced() {
    let mut doc = json!({"a": {"b": 1, "c": [1]}});
    strategic(&mut doc, &json!({"a": {"c": [2], "d": {}}}), None).unwrap();
    assert_eq!(doc, json!({"a": {"b": 1, "c": [2], "d": {}}}));
}

#[test]
fn a_two_way_diff_leads_there() {
    let ty = schema::of(POD_SPEC).unwrap();
    let cases = [
        (json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}]}), json!({"containers": [{"name": "c"}, {"name": "a", "image": "y"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "y"}, {"name": "b", "$patch": "delete"}], "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]})),
        (json!({"volumes": [{"name": "v", "emptyDir": {}}]}), json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            json!({"volumes": [{"name": "v", "emptyDir": null, "hostPath": {"path": "/"}, "$retainKeys": ["hostPath", "name"]}], "$setElementOrder/volumes": [{"name": "v"}]})),
        (json!({"nodeName": "a", "hostNetwork": true}), json!({"nodeName": "a"}), json!({"hostNetwork": null})),
        (json!({"nodeName": "a"}), json!({"nodeName": "a"}), json!({})),
    ];
    for (from, to, wanted) in cases {
        let patch = two_way(&from, &to, Some(ty)).unwrap();
        assert_eq!(patch, wanted);
        let mut doc = from;
        strategic(&mut doc, &patch, Some(ty)).unwrap();
        assert_eq!(doc, to);
    }
}

#[test]
fn a_two_way_diff_of_finalizers() {
    let ty = schema::of(SERVICE).unwrap();
    let (from, to) = (json!({"metadata": {"finalizers": ["a", "b"]}}), json!({"metadata": {"finalizers": ["c", "b"]}}));
    let patch = two_way(&from, &to, Some(ty)).unwrap();
    assert_eq!(patch, json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"]}}));
    let mut doc = from;
    strategic(&mut doc, &patch, Some(ty)).unwrap();
    assert_eq!(doc, to);
}

#[test]
fn three_ways_keep_what_others_wrote() {
    let ty = Some(schema::of(DEPLOYMENT).unwrap());
    let spec = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let original = json!({"metadata": {"labels": {"a": "1", "old": "x"}}, "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "gone"}]}}}});
    let modified = json!({"metadata": {"labels": {"a": "2"}}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "y"}]}}}});
    let current = json!({
        "metadata": {"labels": {"a": "1", "old": "x", "theirs": "t"}},
        "spec": {"replicas": 5, "template": {"spec": {"containers": [{"name": "a", "image": "x", "imagePullPolicy": "Always"}, {"name": "gone"}, {"name": "injected"}]}}},
    });
    let patch = three_way(&original, &modified, &current, ty, true).unwrap();
    assert_eq!(patch, json!({
        "metadata": {"labels": {"a": "2", "old": null}},
        "spec": {"replicas": null, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "image": "y"}, {"name": "gone", "$patch": "delete"}],
        }}},
    }));
    let mut doc = current.clone();
    strategic(&mut doc, &patch, ty).unwrap();
    assert_eq!(doc["spec"]["template"], spec(json!([{"name": "a", "image": "y", "imagePullPolicy": "Always"}, {"name": "injected"}]))["spec"]["template"]);
    assert_eq!(doc["metadata"]["labels"], json!({"a": "2", "theirs": "t"}));
    // Nothing to do makes an empty patch; a list that others added to is put in order once more, as upstream has it.
    assert_eq!(three_way(&modified, &modified, &modified, ty, true).unwrap(), json!({}));
    assert_eq!(three_way(&modified, &modified, &doc, ty, true).unwrap(), json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "a"}]}}}}));
    // Someone else scaled what we scale too.
    let conflict = three_way(&json!({"spec": {"replicas": 1}}), &json!({"spec": {"replicas": 2}}), &json!({"spec": {"replicas": 3}}), ty, false);
    assert!(matches!(conflict, Err(PatchError::Conflict { .. })));
}

/// As long as a request may be: each item is looked up, not looked for. Lists that were compared item by item took minutes.
#[test]
fn long_lists_are_merged_in_a_moment() {
    const ITEMS: usize = 20_000;
    let names = |from: usize| -> Vec<Value> { (from..from + ITEMS).map(|number| format!("example.com/{number}").into()).collect() };
    let ports = |from: usize| -> Vec<Value> { (from..from + ITEMS).map(|number| json!({"port": number, "name": format!("p{number}")})).collect() };
    let service = schema::of("io.k8s.api.core.v1.Service");
    let mut doc = json!({"metadata": {"finalizers": names(0)}, "spec": {"ports": ports(0)}});
    strategic(&mut doc, &json!({"metadata": {"finalizers": names(ITEMS / 2)}, "spec": {"ports": ports(ITEMS / 2)}}), service).unwrap();
    assert_eq!((doc["metadata"]["finalizers"].as_array().unwrap().len(), doc["spec"]["ports"].as_array().unwrap().len()), (ITEMS * 3 / 2, ITEMS * 3 / 2));
    let gone: Vec<Value> = (0..ITEMS).map(|number| json!({"$patch": "delete", "port": number})).collect();
    strategic(&mut doc, &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": names(0)}, "spec": {"ports": gone}}), service).unwrap();
    assert_eq!((doc["metadata"]["finalizers"].as_array().unwrap().len(), doc["spec"]["ports"].as_array().unwrap().len()), (ITEMS / 2, ITEMS / 2));
}
