//! `EncryptionConfiguration` (apiserver.config.k8s.io/v1): which resources are sealed, with which keys.
//!
//! Mirrors apiserver/pkg/apis/apiserver/validation/validation_encryption.go and server/options/encryptionconfig, words included. Pure.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::ciphers::Algorithm;
use super::kms::KmsConfig;
use crate::duration::go_duration;
use crate::registry::text;

/// What stands before every sealed value.
pub const SEALED: &str = "k8s:enc:";

#[derive(Clone)]
pub struct Key {
    pub name: String,
    pub secret: Vec<u8>,
}

#[derive(Clone)]
pub enum Provider {
    Identity,
    /// The first key seals.
    Keyed(Algorithm, Vec<Key>),
    /// A plugin keeps the keys.
    Kms(KmsConfig),
}

/// A group and a resource, either of which may be `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupResource {
    pub group: String,
    pub resource: String,
}

impl GroupResource {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.` for the core group, `*.*`.
    pub fn parse(text: &str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self { group: group.to_owned(), resource: resource.to_owned() }
    }

    fn is_everything(&self) -> bool {
        self.group == "*" && self.resource == "*"
    }
}

#[derive(Clone)]
pub struct Rule {
    pub resources: Vec<GroupResource>,
    /// The first one seals, any of them unseals.
    pub providers: Vec<Provider>,
}

#[derive(Clone, Default)]
pub struct Rules(Vec<Rule>);

fn array<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl Rules {
    pub fn of(config: &Value) -> Result<Self, String> {
        if text(config, "/apiVersion") != "apiserver.config.k8s.io/v1" || text(config, "/kind") != "EncryptionConfiguration" {
            return Err(format!("no kind {:?} is registered for version {:?} in an encryption provider config", text(config, "/kind"), text(config, "/apiVersion")));
        }
        let mut errors = Vec::new();
        let mut rules: Vec<Rule> = Vec::new();
        if array(config, "resources").is_empty() {
            errors.push("resources: Required value: at least one resources is required".to_owned());
        }
        for (index, rule) in array(config, "resources").iter().enumerate() {
            let path = format!("resources[{index}]");
            let names: Vec<&str> = array(rule, "resources").iter().filter_map(Value::as_str).collect();
            check_names(&names, &format!("{path}.resources"), &mut errors);
            if array(rule, "providers").is_empty() {
                errors.push(format!("{path}.providers: Required value: at least one {path}.providers is required"));
            }
            let providers = array(rule, "providers").iter().enumerate().filter_map(|(at, given)| provider(given, &format!("{path}.providers[{at}]"), &mut errors)).collect();
            let resources: Vec<GroupResource> = names.iter().map(|name| GroupResource::parse(name)).collect();
            for resource in &resources {
                masked(resource, &rules, &mut errors);
            }
            rules.push(Rule { resources, providers });
        }
        let mut names: Vec<&str> = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            for (at, provider) in rule.providers.iter().enumerate() {
                let Provider::Kms(config) = provider else { continue };
                if names.contains(&config.name.as_str()) {
                    let name = &config.name;
                    errors.push(format!("resources[{index}].providers[{at}].kms.name: Invalid value: {name:?}: duplicate KMS provider name {name}, names must be unique"));
                }
                names.push(&config.name);
            }
        }
        match errors.as_slice() {
            [] => Ok(Self(rules)),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    /// The services that are named.
    pub fn kms(&self) -> impl Iterator<Item = &KmsConfig> {
        self.0.iter().flat_map(|rule| &rule.providers).filter_map(|provider| if let Provider::Kms(config) = provider { Some(config) } else { None })
    }

    /// Who seals a resource: its own rule, else its group's, else everything's; of equals the first.
    pub fn providers(&self, group: &str, resource: &str) -> Option<&[Provider]> {
        let find = |wanted_group: &str, wanted: &str| self.0.iter().find(|rule| rule.resources.iter().any(|known| known.group == wanted_group && known.resource == wanted));
        find(group, resource).or_else(|| find(group, "*")).or_else(|| find("*", "*")).map(|rule| rule.providers.as_slice())
    }
}

/// A rule that an earlier one leaves nothing to.
fn masked(resource: &GroupResource, earlier: &[Rule], errors: &mut Vec<String>) {
    let shown = |resource: &GroupResource| if resource.group.is_empty() && resource.resource != "*" { resource.resource.clone() } else { format!("{}.{}", resource.resource, resource.group) };
    for known in earlier.iter().flat_map(|rule| &rule.resources) {
        if known.is_everything() || known.group == resource.group && known.resource == "*" && known != resource {
            errors.push(format!("resource {:?} is masked by earlier rule {:?}", shown(resource), shown(known)));
            return;
        }
    }
}

fn check_names(names: &[&str], path: &str, errors: &mut Vec<String>) {
    if names.is_empty() {
        errors.push(format!("{path}: Required value: at least one {path} is required"));
    }
    let parsed: Vec<GroupResource> = names.iter().map(|name| GroupResource::parse(name)).collect();
    let pairs = || parsed.iter().enumerate().flat_map(|(at, one)| parsed.iter().skip(at + 1).map(move |other| (one, other)));
    let all = Value::from(names);
    if pairs().any(|(one, other)| one == other) {
        errors.push(format!("{path}: Invalid value: {all}: the same resource cannot be specified multiple times"));
    }
    let overlap = |one: &GroupResource, other: &GroupResource| one != other && (one.is_everything() || other.is_everything() || one.group == other.group && (one.resource == "*" || other.resource == "*"));
    if pairs().any(|(one, other)| overlap(one, other)) {
        errors.push(format!("{path}: Invalid value: {all}: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"));
    }
    for (at, (name, parsed)) in names.iter().zip(&parsed).enumerate() {
        let why = match () {
            () if name.chars().any(char::is_uppercase) => "resource name should not contain capital letters",
            () if *name == "*" => "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
            () if matches!(*name, "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") => "resources which do not have REST API/s cannot be encrypted",
            () if parsed.group == "events.k8s.io" => "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
            () if parsed.group == "extensions" => "'extensions' group has been removed and cannot be used for encryption",
            () if parsed.group == "*" && parsed.resource != "*" => "encrypting the same resource across groups is not supported",
            () => continue,
        };
        errors.push(format!("{path}[{at}]: Invalid value: {name:?}: {why}"));
    }
}

fn provider(given: &Value, path: &str, errors: &mut Vec<String>) -> Option<Provider> {
    const FIELDS: [&str; 5] = ["kms", "aesgcm", "aescbc", "secretbox", "identity"];
    let named: Vec<&str> = FIELDS.into_iter().filter(|field| given.get(*field).is_some_and(|value| !value.is_null())).collect();
    match named.as_slice() {
        [] => errors.push(format!("{path}: Invalid value: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity")),
        ["identity"] => return Some(Provider::Identity),
        ["kms"] => return kms(&given["kms"], &format!("{path}.kms"), errors).map(Provider::Kms),
        [field] => {
            let algorithm = [Algorithm::Cbc, Algorithm::Gcm, Algorithm::Secretbox].into_iter().find(|algorithm| algorithm.field() == *field)?;
            return Some(Provider::Keyed(algorithm, keys(&given[*field], algorithm, &format!("{path}.{field}.keys"), errors)));
        }
        _ => errors.push(format!("{path}: Invalid value: more than one provider specified in a single element, should split into different list elements")),
    }
    None
}

/// What a KMS may take, when nobody says.
const KMS_TIMEOUT: Duration = Duration::from_secs(3);

fn kms(given: &Value, path: &str, errors: &mut Vec<String>) -> Option<KmsConfig> {
    let before = errors.len();
    let (name, endpoint) = (text(given, "/name"), text(given, "/endpoint"));
    if name.is_empty() {
        errors.push(format!("{path}.name: Required value: name is a mandatory field for a provider"));
    }
    if name.contains(':') {
        errors.push(format!("{path}.name: Invalid value: {name:?}: invalid KMS provider name {name}, must not contain ':'"));
    }
    let timeout = match text(given, "/timeout") {
        "" => Some(KMS_TIMEOUT),
        given => go_duration(given).filter(|timeout| !timeout.is_zero()),
    };
    if timeout.is_none() {
        errors.push(format!("{path}.timeout: Invalid value: {:?}: timeout should be a positive value", text(given, "/timeout")));
    }
    let socket = match endpoint.split_once("://") {
        _ if endpoint.is_empty() => {
            errors.push(format!("{path}.endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms"));
            None
        }
        Some(("unix", socket)) => Some(socket),
        other => {
            let scheme = other.map_or("", |(scheme, _)| scheme);
            errors.push(format!("{path}.endpoint: Invalid value: {endpoint:?}: unsupported scheme {scheme:?} for KMS provider, only unix is supported"));
            None
        }
    };
    match text(given, "/apiVersion") {
        "v2" => {}
        // Refused rather than passed over: what is meant to be sealed must not lie open.
        "v1" | "" => errors.push(format!("{path}.apiVersion: Forbidden: version v1 of KMS plugins is not supported here; use v2")),
        other => errors.push(format!("{path}.apiVersion: Invalid value: {other:?}: unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported")),
    }
    if let Some(size) = given.get("cachesize").filter(|size| !size.is_null()) {
        errors.push(format!("{path}.cachesize: Invalid value: {size}: cachesize is not supported in v2"));
    }
    match (socket, timeout) {
        // An abstract socket is written with an @.
        (Some(socket), Some(timeout)) if errors.len() == before => Some(KmsConfig { name: name.to_owned(), socket: socket.into(), timeout }),
        _ => None,
    }
}

fn keys(given: &Value, algorithm: Algorithm, path: &str, errors: &mut Vec<String>) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    if array(given, "keys").is_empty() {
        errors.push(format!("{path}: Required value: at least one keys is required"));
    }
    for (at, key) in array(given, "keys").iter().enumerate() {
        let (name, secret) = (text(key, "/name"), text(key, "/secret"));
        if name.is_empty() {
            errors.push(format!("{path}[{at}].name: Required value: name is a mandatory field for a key"));
        }
        if secret.is_empty() {
            errors.push(format!("{path}[{at}].secret: Required value: secret is a mandatory field for a key"));
            continue;
        }
        // What the secret is, is never told.
        match STANDARD.decode(secret) {
            Err(_) => errors.push(format!("{path}[{at}].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded")),
            Ok(secret) if !algorithm.key_sizes().contains(&secret.len()) => {
                let sizes = algorithm.key_sizes().iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
                errors.push(format!("{path}[{at}].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got {}, expected one of [{sizes}]", secret.len()));
            }
            Ok(secret) => keys.push(Key { name: name.to_owned(), secret }),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(resources: Value) -> Result<Rules, String> {
        Rules::of(&json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": resources}))
    }

    fn of(resources: &[&str]) -> Value {
        json!({"resources": resources, "providers": [{"identity": {}}]})
    }

    #[test]
    fn what_is_wrong_is_told_as_upstream() {
        let key = |secret: &str| json!([{"resources": ["secrets"], "providers": [{"aescbc": {"keys": [{"name": "a", "secret": secret}]}}]}]);
        let table = [
            (json!([]), "resources: Required value: at least one resources is required"),
            (json!([{"resources": ["secrets"]}]), "resources[0].providers: Required value: at least one resources[0].providers is required"),
            (json!([{"resources": [], "providers": [{"identity": {}}]}]), "resources[0].resources: Required value: at least one resources[0].resources is required"),
            (json!([of(&["Secrets"])]), "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters"),
            (json!([of(&["*"])]), "resources[0].resources[0]: Invalid value: \"*\": use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"),
            (json!([of(&["secrets", "secrets"])]), "resources[0].resources: Invalid value: [\"secrets\",\"secrets\"]: the same resource cannot be specified multiple times"),
            (json!([of(&["secrets", "*."])]), "resources[0].resources: Invalid value: [\"secrets\",\"*.\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"),
            (json!([of(&["pods.*"])]), "resources[0].resources[0]: Invalid value: \"pods.*\": encrypting the same resource across groups is not supported"),
            (json!([of(&["*.*"]), of(&["secrets"])]), "resource \"secrets\" is masked by earlier rule \"*.*\""),
            (json!([{"resources": ["secrets"], "providers": [{"identity": {}, "aesgcm": {}}]}]), "resources[0].providers[0]: Invalid value: more than one provider specified in a single element, should split into different list elements"),
            (json!([{"resources": ["secrets"], "providers": [{"kms": {"name": "k", "apiVersion": "v2"}}]}]), "resources[0].providers[0].kms.endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms"),
            (json!([{"resources": ["secrets"], "providers": [{"kms": {"name": "k:", "apiVersion": "v2", "endpoint": "tcp://x"}}]}]), "[resources[0].providers[0].kms.name: Invalid value: \"k:\": invalid KMS provider name k:, must not contain ':', resources[0].providers[0].kms.endpoint: Invalid value: \"tcp://x\": unsupported scheme \"tcp\" for KMS provider, only unix is supported]"),
            (json!([{"resources": ["secrets"], "providers": [{"kms": {"name": "k", "apiVersion": "v2", "endpoint": "unix:///x"}}, {"kms": {"name": "k", "apiVersion": "v2", "endpoint": "unix:///y"}}]}]), "resources[0].providers[1].kms.name: Invalid value: \"k\": duplicate KMS provider name k, names must be unique"),
            (json!([{"resources": ["secrets"], "providers": [{"secretbox": {"keys": []}}]}]), "resources[0].providers[0].secretbox.keys: Required value: at least one keys is required"),
            (key("*"), "resources[0].providers[0].aescbc.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded"),
            (key("c2hvcnQ="), "resources[0].providers[0].aescbc.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, expected one of [16 24 32]"),
        ];
        for (resources, expected) in table {
            assert_eq!(rules(resources.clone()).err().as_deref(), Some(expected), "{resources}");
        }
        assert!(Rules::of(&json!({"kind": "EncryptionConfig"})).is_err());
    }

    #[test]
    fn the_nearest_rule_counts() {
        let rules = rules(json!([
            {"resources": ["secrets"], "providers": [{"identity": {}}]},
            {"resources": ["*.apps"], "providers": [{"identity": {}}, {"identity": {}}]},
            {"resources": ["*.*"], "providers": [{"identity": {}}, {"identity": {}}, {"identity": {}}]},
        ]))
        .unwrap();
        for (group, resource, expected) in [("", "secrets", 1), ("apps", "deployments", 2), ("", "pods", 3), ("example.com", "things", 3)] {
            assert_eq!(rules.providers(group, resource).map(<[Provider]>::len), Some(expected), "{resource}.{group}");
        }
        assert!(Rules::default().providers("", "secrets").is_none());
    }
}
