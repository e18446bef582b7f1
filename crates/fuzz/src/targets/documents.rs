//! Whole documents: JSON, YAML, protobuf and CBOR objects, schemas of custom kinds, kubeconfigs.

use std::cell::RefCell;
use std::io::Write;

use api::schema;
use api::structural::{self, Schema};
use api::validation::{Errors, Path};
use bytes::Bytes;
use client::kubeconfig::{Kubeconfig, Overrides};
use serde_json::{Value, json};
use server::BodyFormat;

use super::texts;
use crate::engine::{Outcome, Target};

const WORDS: &[&str] = &[
    "apiVersion", "kind", "metadata", "name", "namespace", "labels", "annotations", "ownerReferences", "finalizers", "managedFields", "spec", "status", "data", "items", "containers", "template", "selector", "matchLabels",
    "replicas", "ports", "env", "value", "valueFrom", "resources", "limits", "cpu", "volumes", "Pod", "v1", "apps/v1", "Deployment", "creationTimestamp",
];
pub const SAMPLES: &[&str] = &[
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"app":"x"},"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u","controller":true}]},"spec":{"containers":[{"name":"c","image":"i","env":[{"name":"A","value":"b"}],"ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"100m","memory":"1Gi"}},"livenessProbe":{"httpGet":{"path":"/","port":"http"},"periodSeconds":3}}],"volumes":[{"name":"v","emptyDir":{}}],"tolerations":[{"operator":"Exists"}]},"status":{"phase":"Running"}}"#,
    r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","annotations":{"k":"v"}},"spec":{"replicas":3,"selector":{"matchLabels":{"app":"d"}},"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":1}},"template":{"metadata":{"labels":{"app":"d"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
    r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"type":"NodePort","ports":[{"name":"http","port":80,"targetPort":"http","nodePort":30000}],"selector":{"a":"b"}}}"#,
    r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"1","b":"\u00e9\ud83d\ude00"},"binaryData":{"x":"AAEC"}}"#,
];

fn json_object(input: &[u8], outcome: &mut Outcome) {
    outcome.note(schema::duplicate_fields(input).len());
    outcome.note(schema::fields_in_order(input).len());
    if let Some(object) = outcome.of(api::Object::decode(Bytes::copy_from_slice(input))) {
        outcome.note(object.meta().labels.len());
    }
    if let Some(value) = outcome.of(server::parse_body(input, BodyFormat::Json)) {
        for name in ["io.k8s.api.core.v1.Pod", "io.k8s.api.apps.v1.Deployment", "io.k8s.api.core.v1.Service"] {
            let unknown = outcome.of(schema::check(name, "Kind", "v1", &mut value.clone()));
            outcome.note(unknown.map(|unknown| unknown.len()));
        }
    }
}

pub const JSON: Target = Target { name: "json", about: "JSON bodies, metadata, duplicate fields, types", seeds: || texts(SAMPLES), words: WORDS, run: json_object };

pub const YAML: Target = Target {
    name: "yaml",
    about: "YAML bodies",
    seeds: || {
        texts(&[
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {app: x}\nspec:\n  containers:\n  - name: c\n    image: \"i\"\n    command: ['sh', '-c', \"echo\\n\"]\n",
            "a: &x [1, 2]\nb: *x\nc:\n  <<: {d: e}\n  f: |\n    text\n    more\n  g: >-\n    folded\n",
            "- 0x1f\n- 0o17\n- 017\n- 1_000\n- yes\n- ~\n- 2026-01-01\n- .inf\n- !!str 5\n- ? k\n  : v\n---\nsecond: doc\n",
        ])
    },
    words: &["&a ", "*a", "<<: ", "---\n", "...\n", "- ", "? ", ": ", "|+\n", ">-\n", "!!binary ", "!!map", "%YAML 1.1\n", "[[", "{{", "\n  ", "# c\n", "'", "\"", "~"],
    run: |input, outcome| {
        let value = outcome.of(server::parse_body(input, BodyFormat::Yaml));
        outcome.note(value.map(|value| value.to_string().len().ilog2()));
    },
};

pub const CBOR: Target = Target {
    name: "cbor",
    about: "CBOR bodies, and back",
    seeds: || SAMPLES.iter().filter_map(|sample| api::cbor::encode_json(sample.as_bytes()).ok()).collect(),
    words: &["\x40", "\x60", "\x7f", "\x1b", "\x20", "\x38", "\u{7ff}", "kind", "metadata", "2020-01-01T00:00:00Z"],
    run: |input, outcome| {
        if let Some(value) = outcome.of(api::cbor::decode(input)) {
            // What was read is written, and read as the same.
            assert_eq!(api::cbor::decode(&api::cbor::encode(&value)).as_ref(), Ok(&value));
        }
    },
};

pub const PROTOBUF: Target = Target {
    name: "protobuf",
    about: "protobuf bodies, and back",
    seeds: || SAMPLES.iter().filter_map(|sample| Some(api::protobuf::encode(sample.as_bytes()).ok()?.to_vec())).collect(),
    words: &["k8s\0", "\x0a", "\x12", "\x1a", "\x7f", "\x0a\x00", "\x0b", "\x0c", "\x08", "\x0a\u{7f}", "v1", "Pod", "apps/v1", "Deployment", "ConfigMap", "List"],
    run: |input, outcome| {
        outcome.of(api::protobuf::decode_as(input, "v1", "Pod"));
        if let Some(value) = outcome.of(api::protobuf::decode(input)) {
            let again = outcome.of(api::protobuf::encode(value.to_string().as_bytes()));
            outcome.note(again.and_then(|bytes| api::protobuf::decode(&bytes).ok()).is_some());
        }
    },
};

pub const SCHEMA: Target = Target {
    name: "schema",
    about: "schemas of custom kinds, and objects against them: [schema, object]",
    seeds: || {
        texts(&[
            r#"[{"type":"object","properties":{"spec":{"type":"object","required":["a"],"properties":{"a":{"type":"string","pattern":"^a+$","maxLength":9,"default":"aa"},"b":{"type":"array","items":{"type":"integer","minimum":0,"multipleOf":2},"x-kubernetes-list-type":"set"},"c":{"x-kubernetes-int-or-string":true},"d":{"type":"object","additionalProperties":{"type":"number"}},"e":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}},{"spec":{"a":"aaa","b":[2,4],"c":"5%","d":{"x":1.5},"e":{"z":[]}}}]"#,
            r#"[{"type":"object","properties":{"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string","format":"date-time"},"v":{"nullable":true,"enum":["x",1]}}}},"o":{"type":"object","oneOf":[{"required":["p"]},{"not":{"required":["q"]}}],"anyOf":[{"minProperties":1}]}}},{"l":[{"k":"2026-01-01T00:00:00Z","v":null}],"o":{}}]"#,
        ])
    },
    words: &[
        "type", "properties", "items", "required", "pattern", "format", "enum", "default", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "maxLength", "minItems", "uniqueItems", "maxProperties", "additionalProperties", "allOf", "anyOf",
        "oneOf", "not", "nullable", "$ref", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-validations",
        "string", "integer", "number", "boolean", "array", "object", "int32", "date-time", "byte", "ipv4", "uri", "duration", "(a+)+$", "[", "\\p{L}", "metadata", "apiVersion", "kind",
    ],
    run: |input, outcome| {
        let Ok(Value::Array(both)) = serde_json::from_slice(input) else { return };
        let [schema, object] = both.as_slice() else { return };
        outcome.note(structural::violations::violations(&Path::Root("spec"), schema).len());
        let parsed = Schema::parse(schema);
        let mut object = object.clone();
        outcome.note(structural::prune::resource(&mut object, &parsed).len());
        structural::defaults::apply(&mut object, &parsed);
        let mut errors = Errors::new();
        structural::check::check(&mut errors, "", &object, None, &parsed);
        structural::check::check(&mut errors, "", &object, Some(&json!({})), &parsed);
        structural::lists::check(&mut errors, &Path::Root(""), &object, &parsed);
        outcome.note(errors.into_causes().len());
        outcome.note(cel::DeclType::from_schema(schema, true).is_some());
    },
};

pub const KUBECONFIG: Target = Target {
    name: "kubeconfig",
    about: "kubeconfigs, resolved to a client's configuration",
    seeds: || {
        texts(&[
            "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters:\n- name: c\n  cluster: {server: 'https://127.0.0.1:6443', certificate-authority-data: QUJD}\ncontexts:\n- name: a\n  context: {cluster: c, user: u, namespace: n}\nusers:\n- name: u\n  user: {token: t}\n",
            r#"{"current-context":"a","clusters":[{"name":"c","cluster":{"server":"http://[::1]:8080/prefix","insecure-skip-tls-verify":true,"tls-server-name":"x"}}],"contexts":[{"name":"a","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{"client-certificate-data":"QQ==","client-key-data":"QQ==","username":"a","password":"b","as":"x","as-groups":["g"]}}]}"#,
        ])
    },
    words: &["clusters", "contexts", "users", "current-context", "cluster", "user", "server", "token", "exec", "as", "namespace", "certificate-authority-data", "client-key-data", "name", "https://", "::1", "null", "[]", "{}"],
    run: |input, outcome| {
        thread_local! {
            static FILE: RefCell<Option<tempfile::NamedTempFile>> = RefCell::new(tempfile::NamedTempFile::new().ok());
        }
        FILE.with_borrow_mut(|file| {
            let Some(file) = file else { return };
            let written = file.as_file().set_len(0).and_then(|()| std::io::Seek::rewind(file.as_file_mut())).and_then(|()| file.write_all(input));
            if written.is_err() {
                return;
            }
            if let Some(config) = outcome.of(Kubeconfig::load(Some(file.path()))) {
                outcome.note(config.names("users").len());
                outcome.note(config.merged().to_string().len().ilog2());
                outcome.of(config.resolve(&Overrides::default()));
            }
        });
    },
};
