//! The patches, each as a JSON list of what goes in: `[document, patch]`, and for server-side apply `[live, configuration]`.

use api::schema::{self, TypeInfo};
use patch::apply::Writer;
use serde_json::Value;

use super::documents::SAMPLES;
use super::texts;
use crate::engine::{Outcome, Target};

fn both(input: &[u8]) -> Option<(Value, Value)> {
    let Ok(Value::Array(both)) = serde_json::from_slice(input) else { return None };
    <[Value; 2]>::try_from(both).ok().map(|[document, patch]| (document, patch))
}

fn pairs(patches: &[&str]) -> Vec<Vec<u8>> {
    SAMPLES.iter().flat_map(|document| patches.iter().map(move |patch| format!("[{document},{patch}]").into_bytes())).collect()
}

fn types() -> [Option<&'static TypeInfo>; 4] {
    ["io.k8s.api.core.v1.Pod", "io.k8s.api.apps.v1.Deployment", "io.k8s.api.core.v1.Service", ""].map(schema::of)
}

pub const JSON_PATCH: Target = Target {
    name: "json-patch",
    about: "JSON patch (RFC 6902)",
    seeds: || {
        pairs(&[
            r#"[{"op":"add","path":"/spec/containers/-","value":{"name":"x"}},{"op":"remove","path":"/metadata/labels"},{"op":"test","path":"/kind","value":"Pod"}]"#,
            r#"[{"op":"replace","path":"/spec/containers/0/image","value":"j"},{"op":"move","from":"/spec","path":"/status/spec"},{"op":"copy","from":"","path":"/a~1b~0c"}]"#,
        ])
    },
    words: &["op", "path", "from", "value", "add", "remove", "replace", "move", "copy", "test", "/", "/-", "/0", "/-1", "/00", "/~0", "/~1", "/~2", "/18446744073709551616", "/spec", "/metadata/name", ""],
    run: |input, outcome| {
        let Some((mut document, patch)) = both(input) else { return };
        outcome.of(patch::json(&mut document, &patch));
    },
};

pub const MERGE_PATCH: Target = Target {
    name: "merge-patch",
    about: "merge patch (RFC 7386), and the making of one",
    seeds: || pairs(&[r#"{"metadata":{"labels":{"app":null,"b":"c"}},"spec":null}"#, r#"{"spec":{"containers":[]}}"#]),
    words: &["metadata", "labels", "spec", "null", "containers", "a"],
    run: |input, outcome| {
        let Some((document, patch)) = both(input) else { return };
        let mut merged = document.clone();
        patch::merge(&mut merged, &patch);
        outcome.note(patch::merge_diff(&document, &merged).to_string().len().checked_ilog2());
        outcome.of(patch::three_way_merge(&document, &patch, &merged));
    },
};

const DIRECTIVES: &[&str] = &[
    "$patch", "delete", "replace", "merge", "$retainKeys", "$setElementOrder/containers", "$setElementOrder/ports", "$setElementOrder/finalizers", "$deleteFromPrimitiveList/finalizers", "name", "containers", "ports", "containerPort", "port", "protocol",
    "spec", "metadata", "finalizers", "ownerReferences", "uid", "template", "strategy", "volumes", "tolerations", "env", "status", "labels", "c", "x",
];

pub const STRATEGIC_PATCH: Target = Target {
    name: "strategic-patch",
    about: "strategic merge patch, and the making of one",
    seeds: || {
        pairs(&[
            r#"{"spec":{"containers":[{"name":"c","image":"j"},{"name":"x","$patch":"delete"}],"$setElementOrder/containers":[{"name":"x"},{"name":"c"}],"volumes":[{"name":"v","$retainKeys":["name","secret"],"secret":{}}]}}"#,
            r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["b"],"ownerReferences":[{"uid":"u","$patch":"delete"}]},"spec":{"strategy":{"$patch":"replace","type":"Recreate"},"template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":80,"protocol":"UDP"}]}]}}}}"#,
        ])
    },
    words: DIRECTIVES,
    run: |input, outcome| {
        let Some((document, patch)) = both(input) else { return };
        for info in types() {
            let mut patched = document.clone();
            outcome.of(patch::strategic(&mut patched, &patch, info));
            outcome.of(patch::two_way(&document, &patched, info));
            outcome.of(patch::three_way(&document, &patched, &patch, info, true));
        }
    },
};

fn apply(input: &[u8], outcome: &mut Outcome) {
    let Some((live, config)) = both(input) else { return };
    let writer = |manager: &'static str| Writer { manager, api_version: "v1", subresource: "", now: "2026-01-01T00:00:00Z", reset: &["status"], versions: None };
    for info in types() {
        let mut tracked = live.clone();
        patch::apply::track(None, &mut tracked, info, &writer("before"));
        let Some(applied) = outcome.of(patch::apply::apply(Some(&tracked), &config, info, &writer("one"), true)) else { continue };
        outcome.of(patch::apply::apply(Some(&applied), &live, info, &writer("two"), false));
        // What is stored may have been written by anyone.
        outcome.of(patch::apply::apply(Some(&live), &config, info, &writer("one"), false));
    }
}

pub const APPLY: Target = Target {
    name: "apply",
    about: "server-side apply, with managers' fields of all kinds",
    seeds: || {
        let mut seeds = pairs(&[r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"n":"m"}},"spec":{"containers":[{"name":"c","image":"k"},{"name":"d"}]}}"#]);
        seeds.extend(texts(&[r#"[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","managedFields":[{"manager":"one","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","time":"2026-01-01T00:00:00Z","fieldsV1":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:name":{}}},"f:tolerations":{}},"f:metadata":{"f:finalizers":{"v:\"a\"":{}}}}}]},"spec":{"containers":[{"name":"c"}]}},{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"e"}]}}]"#]));
        seeds
    },
    words: &["managedFields", "fieldsV1", "f:spec", "f:containers", "k:{\"name\":\"c\"}", "v:\"a\"", "i:0", ".", "k:", "k:{", "v:", "f:", "Apply", "Update", "one", "before", "spec", "containers", "name", "c", "finalizers", "status"],
    run: apply,
};
