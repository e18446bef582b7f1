//! The documents of a `--config` file: which kinds and versions there are, and which fields they have. Mirrors `apis/kubeadm/v1beta3` and `v1beta4`, `util/config/common.go` and
//! `config/strict`: a field that is not known is a warning, and an error for `config validate`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::Error;

pub const GROUP: &str = "kubeadm.k8s.io";
pub const NEWEST: &str = "kubeadm.k8s.io/v1beta4";
const OLDER: &str = "kubeadm.k8s.io/v1beta3";
/// Versions that upstream no longer reads, and who could migrate them.
const TOO_OLD: [(&str, &str); 5] = [("v1alpha1", "v1.11"), ("v1alpha2", "v1.12"), ("v1alpha3", "v1.14"), ("v1beta1", "v1.15"), ("v1beta2", "v1.22")];
/// Of other groups, passed on or passed over.
pub const KUBELET: &str = "KubeletConfiguration";
pub const KUBE_PROXY: &str = "KubeProxyConfiguration";
const COMPONENTS: [(&str, &str); 2] = [("kubelet.config.k8s.io/v1beta1", KUBELET), ("kubeproxy.config.k8s.io/v1alpha1", KUBE_PROXY)];

/// The fields: `name{…}` holds an object, `name[…]` a list of objects, a name alone anything. `+`: only in v1beta4, `-`: only in v1beta3.
const FIELDS: [(&str, &str); 5] = [
    (
        "InitConfiguration",
        "bootstrapTokens[token description ttl expires usages groups] +dryRun @NODE localAPIEndpoint{advertiseAddress bindPort} certificateKey skipPhases patches{directory} @TIMEOUTS",
    ),
    (
        "ClusterConfiguration",
        "etcd{local{imageRepository imageTag dataDir @ARGS +extraEnvs serverCertSANs peerCertSANs} external{endpoints +httpEndpoints caFile certFile keyFile}} \
         networking{serviceSubnet podSubnet dnsDomain} kubernetesVersion controlPlaneEndpoint apiServer{@COMPONENT certSANs -timeoutForControlPlane} controllerManager{@COMPONENT} \
         scheduler{@COMPONENT} dns{imageRepository imageTag +disabled} +proxy{disabled} certificatesDir imageRepository featureGates clusterName +encryptionAlgorithm \
         +certificateValidityPeriod +caCertificateValidityPeriod",
    ),
    (
        "JoinConfiguration",
        "+dryRun @NODE caCertPath discovery{bootstrapToken{token apiServerEndpoint caCertHashes unsafeSkipCAVerification} file{kubeConfigPath} tlsBootstrapToken -timeout} \
         controlPlane{localAPIEndpoint{advertiseAddress bindPort} certificateKey} skipPhases patches{directory} @TIMEOUTS",
    ),
    ("ResetConfiguration", "cleanupTmpDir certificatesDir criSocket dryRun force ignorePreflightErrors skipPhases unmountFlags @TIMEOUTS"),
    ("UpgradeConfiguration", "apply diff node plan @TIMEOUTS"),
];
const SHARED: [(&str, &str); 4] = [
    ("@NODE", "nodeRegistration{name criSocket taints @KUBELETARGS ignorePreflightErrors imagePullPolicy +imagePullSerial}"),
    ("@TIMEOUTS", "+timeouts{controlPlaneComponentHealthCheck kubeletHealthCheck kubernetesAPICall etcdAPICall tlsBootstrap discovery upgradeManifests}"),
    ("@COMPONENT", "@ARGS extraVolumes[name hostPath mountPath readOnly pathType] +extraEnvs"),
    ("@ARGS", "extraArgs"),
];

#[derive(Debug, Clone)]
pub struct Document {
    pub kind: String,
    /// Of kubeadm's own kinds, as v1beta4 has it.
    pub value: Value,
}

/// What is noteworthy but no error.
#[derive(Debug, Default)]
pub struct Notes {
    /// Deprecated versions.
    pub deprecated: Vec<String>,
    /// Fields that are not known.
    pub unknown: Vec<String>,
}

impl Notes {
    pub fn warn(&self) {
        self.deprecated.iter().chain(&self.unknown).for_each(|text| eprintln!("W [config] WARNING: {text}"));
    }
}

/// The fields of an object: with their own fields, if they are objects.
#[derive(Default)]
struct Shape(Vec<(String, Option<Shape>)>);

fn expanded(fields: &str) -> String {
    let mut text = fields.replace("@KUBELETARGS", "kubeletExtraArgs");
    for (name, of) in SHARED {
        text = text.replace(name, of).replace("@KUBELETARGS", "kubeletExtraArgs");
    }
    text
}

/// `old`: of v1beta3.
fn shape(text: &mut std::str::Chars<'_>, old: bool) -> Shape {
    let mut shape = Shape::default();
    let mut name = String::new();
    fn push(shape: &mut Shape, name: &mut String, inner: Option<Shape>, old: bool) {
        let word = std::mem::take(name);
        let known = match word.chars().next() {
            None => return,
            Some('+') => !old,
            Some('-') => old,
            Some(_) => true,
        };
        if known {
            shape.0.push((word.trim_start_matches(['+', '-']).to_owned(), inner));
        }
    }
    while let Some(letter) = text.next() {
        match letter {
            ' ' => push(&mut shape, &mut name, None, old),
            '{' | '[' => {
                let inner = self::shape(text, old);
                push(&mut shape, &mut name, Some(inner), old);
            }
            '}' | ']' => break,
            letter => name.push(letter),
        }
    }
    push(&mut shape, &mut name, None, old);
    shape
}

impl Shape {
    /// Paths of what is in `value` and not among the fields.
    fn unknown(&self, value: &Value, path: &str, out: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| self.unknown(item, &format!("{}[{index}].", path.trim_end_matches('.')), out)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match self.0.iter().find(|(known, _)| known == name) {
                        None => out.push(format!("unknown field \"{path}{name}\"")),
                        Some((_, Some(inner))) => inner.unknown(value, &format!("{path}{name}."), out),
                        Some(_) => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// v1beta3 as v1beta4 has it: arguments are a list, a timeout has moved.
fn modernized(value: &mut Value) {
    value["apiVersion"] = NEWEST.into();
    let args = [
        "/nodeRegistration/kubeletExtraArgs",
        "/etcd/local/extraArgs",
        "/apiServer/extraArgs",
        "/controllerManager/extraArgs",
        "/scheduler/extraArgs",
    ];
    for path in args {
        if let Some(args) = value.pointer_mut(path)
            && let Value::Object(map) = args
        {
            *args = map.iter().map(|(name, value)| serde_json::json!({"name": name, "value": value})).collect();
        }
    }
    let moved = value.pointer_mut("/discovery").and_then(Value::as_object_mut).and_then(|discovery| discovery.remove("timeout"));
    if let Some(timeout) = moved {
        value["timeouts"] = serde_json::json!({"discovery": timeout});
    }
    if let Some(server) = value.pointer_mut("/apiServer").and_then(Value::as_object_mut) {
        server.remove("timeoutForControlPlane");
    }
}

fn document(mut value: Value, notes: &mut Notes) -> Result<Document, Error> {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Err(Error::Invalid("invalid configuration: kind and apiVersion is mandatory information that must be specified".into()));
    }
    if COMPONENTS.contains(&(api_version.as_str(), kind.as_str())) {
        return Ok(Document { kind, value });
    }
    if let Some((_, by)) = TOO_OLD.iter().find(|(version, _)| api_version == format!("{GROUP}/{version}")) {
        return Err(Error::Invalid(format!(
            "your configuration file uses an old API spec: {api_version:?} (kind: {kind:?}). Please use kubeadm {by} instead and run 'kubeadm config migrate --old-config old-config-file --new-config new-config-file', which will write the new, similar spec using a newer API version."
        )));
    }
    let old = api_version == OLDER;
    let fields = FIELDS.iter().find(|(name, _)| *name == kind).filter(|(name, _)| api_version == NEWEST || old && !matches!(*name, "ResetConfiguration" | "UpgradeConfiguration"));
    let Some((_, fields)) = fields else {
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        return Err(Error::Invalid(format!("no kind {kind:?} is registered for version {api_version:?}\nhint: there are {} of {NEWEST} and {OLDER}, not {group:?} {version:?}", FIELDS.map(|(name, _)| name).join(", "))));
    };
    if old {
        notes.deprecated.push(format!(
            "your configuration file uses a deprecated API spec: {api_version:?} (kind: {kind:?}). Please use 'kubeadm config migrate --old-config old-config-file --new-config new-config-file', which will write the new, similar spec using a newer API version."
        ));
    }
    let shape = shape(&mut format!("apiVersion kind {}", expanded(fields)).chars(), old);
    let mut unknown = Vec::new();
    shape.unknown(&value, "", &mut unknown);
    if !unknown.is_empty() {
        let version = api_version.rsplit('/').next().unwrap_or_default();
        notes.unknown.push(format!("error unmarshaling configuration schema.GroupVersionKind{{Group:{GROUP:?}, Version:{version:?}, Kind:{kind:?}}}: strict decoding error: {}", unknown.join(", ")));
    }
    if old {
        modernized(&mut value);
    }
    Ok(Document { kind, value })
}

/// The documents of a file's text; the same kind twice is an error.
pub fn parse(text: &str) -> Result<(Vec<Document>, Notes), Error> {
    let mut notes = Notes::default();
    let mut all: Vec<Document> = Vec::new();
    let mut kinds = BTreeSet::new();
    for part in split(text) {
        let value: Value = serde_saphyr::from_str(&part).map_err(|error| Error::Invalid(format!("error unmarshaling configuration: {error}")))?;
        if value.is_null() || value.as_object().is_some_and(Map::is_empty) {
            continue;
        }
        let document = document(value, &mut notes)?;
        if !kinds.insert(document.kind.clone()) {
            return Err(Error::Invalid(format!("invalid configuration: kind {:?} is specified twice in YAML file", document.kind)));
        }
        all.push(document);
    }
    Ok((all, notes))
}

fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    parts.into_iter().filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))).collect()
}

pub fn read(path: &Path) -> Result<(Vec<Document>, Notes), Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file("unable to read config from", path))?;
    parse(&text)
}

/// The one of a kind, if it is there.
pub fn of_kind<'a>(documents: &'a [Document], kind: &str) -> Option<&'a Value> {
    documents.iter().find(|document| document.kind == kind).map(|document| &document.value)
}

pub fn yaml(value: &Value) -> String {
    // Maps, lists and texts can always be written.
    serde_saphyr::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_and_versions() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert!(error("kind: InitConfiguration").contains("kind and apiVersion is mandatory"));
        assert!(error("apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration").contains("uses an old API spec: \"kubeadm.k8s.io/v1beta2\" (kind: \"InitConfiguration\"). Please use kubeadm v1.22 instead"));
        assert!(error("apiVersion: kubeadm.k8s.io/v1beta4\nkind: Pod").contains("no kind \"Pod\" is registered"));
        assert!(error("apiVersion: kubeadm.k8s.io/v1beta3\nkind: ResetConfiguration").contains("no kind"));
        assert!(error("apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration").contains("specified twice"));
        assert!(error("a: [").contains("error unmarshaling"));
        let (all, notes) = parse("# nothing\n---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 5\n---\n\n").unwrap();
        assert_eq!((all.len(), &of_kind(&all, KUBELET).unwrap()["maxPods"], notes.unknown.len()), (1, &json!(5), 0));
    }

    #[test]
    fn fields() {
        let of = |text: &str| parse(text).unwrap().1;
        let good = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\netcd:\n  external:\n    endpoints: [a]\n    caFile: b\napiServer:\n  certSANs: [x]\n  extraArgs:\n  - name: v\n    value: '2'\n  extraVolumes:\n  - name: x\n    hostPath: /x\n    mountPath: /x\nnetworking:\n  podSubnet: 10.0.0.0/8\ntimeouts: {}\n";
        assert_eq!(of(good).unknown, ["error unmarshaling configuration schema.GroupVersionKind{Group:\"kubeadm.k8s.io\", Version:\"v1beta4\", Kind:\"ClusterConfiguration\"}: strict decoding error: unknown field \"timeouts\""]);
        let bad = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration: {name: a, nam: b}\nbootstrapTokens: [{token: a}, {tok: b}]\ntimeouts: {discovery: 5m}\n";
        assert!(of(bad).unknown[0].ends_with("strict decoding error: unknown field \"bootstrapTokens[1].tok\", unknown field \"nodeRegistration.nam\""), "{:?}", of(bad).unknown);
        // What came with v1beta4 is not in v1beta3.
        let old = of("apiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\ntimeouts: {}\n");
        assert!(old.unknown[0].contains("unknown field \"timeouts\"") && old.deprecated[0].contains("deprecated API spec"));
    }

    #[test]
    fn older_ones_are_modernized() {
        let (all, notes) = parse("apiVersion: kubeadm.k8s.io/v1beta3\nkind: JoinConfiguration\nnodeRegistration:\n  kubeletExtraArgs:\n    node-ip: 10.0.0.1\ndiscovery:\n  timeout: 5m0s\n  tlsBootstrapToken: x\n").unwrap();
        assert!(notes.unknown.is_empty(), "{notes:?}");
        assert_eq!(all[0].value, json!({"apiVersion": NEWEST, "kind": "JoinConfiguration", "nodeRegistration": {"kubeletExtraArgs": [{"name": "node-ip", "value": "10.0.0.1"}]}, "discovery": {"tlsBootstrapToken": "x"}, "timeouts": {"discovery": "5m0s"}}));
    }
}
