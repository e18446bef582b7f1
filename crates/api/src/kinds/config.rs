//! ConfigMaps and Secrets.

use serde_json::{Map, Value};

use super::json::{default, ensure, entry, flag, map, take, text};
use super::policy::{BUILT_IN, Policy};
use crate::names;
use crate::validation::{Errors, Path, same};

const SIZE_MAX: usize = 1024 * 1024;
const SERVICE_ACCOUNT: &str = "kubernetes.io/service-account.name";
const REDACTED: &str = "<secret contents redacted>";

fn frozen(errors: &mut Errors, new: &Value, old: &Value, fields: &[&'static str]) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        errors.forbidden(&Path::Root("immutable"), WHY);
    }
    for name in fields {
        if !same(new.get(name), old.get(name)) {
            errors.forbidden(&Path::Root(name), WHY);
        }
    }
}

/// Bytes that base64 text stands for.
fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default().trim_end_matches('=');
    text.len() * 3 / 4
}

pub static CONFIG_MAP: Policy = Policy {
    check: |errors, object| {
        let mut size = 0;
        let (data, binary) = (map(object, "data"), map(object, "binaryData"));
        let path = Path::Root("data");
        for (key, value) in data.into_iter().flatten() {
            errors.name(&path.key(key), key, names::config_map_key);
            if binary.is_some_and(|binary| binary.contains_key(key)) {
                errors.invalid(&path.key(key), key, "duplicate of key present in binaryData");
            }
            size += value.as_str().map_or(0, str::len);
        }
        let path = Path::Root("binaryData");
        for (key, value) in binary.into_iter().flatten() {
            errors.name(&path.key(key), key, names::config_map_key);
            size += decoded_len(value);
        }
        if size > SIZE_MAX {
            // Upstream's path has no name, and prints so.
            errors.too_long(&Path::Root("[]"), SIZE_MAX);
        }
    },
    check_update: |errors, new, old| frozen(errors, new, old, &["data", "binaryData"]),
    ..BUILT_IN
};

pub static SECRET: Policy = Policy {
    defaults: |object| {
        default(object, "type", "Opaque");
        if let Some(Value::Object(plain)) = take(object, "stringData")
            && !plain.is_empty()
            && let Some(data) = ensure(object, "data")
        {
            for (key, value) in plain {
                data.insert(key, encode(value.as_str().unwrap_or_default().as_bytes()).into());
            }
        }
    },
    check: check_secret,
    check_update: |errors, new, old| {
        errors.immutable(&Path::Root("type"), new.get("type"), old.get("type"));
        frozen(errors, new, old, &["data"]);
    },
    warnings: |object, warnings| {
        if text(object, "type") == "kubernetes.io/tls" {
            warnings.extend(no_key_pair(object));
        }
    },
    selectable: |object, field| (field == "type").then(|| text(object, "type").to_owned()),
    ..BUILT_IN
};

/// What Go's `tls.X509KeyPair` says when there is no certificate, or no key, to be found. What is in them is not looked into.
fn no_key_pair(secret: &Value) -> Option<String> {
    for (field, what, wanted) in [("tls.crt", "certificate", "CERTIFICATE"), ("tls.key", "key", "PRIVATE KEY")] {
        let bytes = decode(super::json::entry(secret, "data", field).unwrap_or_default()).unwrap_or_default();
        let found = pem_blocks(&String::from_utf8_lossy(&bytes));
        let fits = |kind: &String| if wanted == "CERTIFICATE" { kind == wanted } else { kind.ends_with(wanted) };
        if found.iter().any(fits) {
            continue;
        }
        return Some(match found.as_slice() {
            [] => format!("tls: failed to find any PEM data in {what} input"),
            [only] if wanted == "CERTIFICATE" && only.ends_with("PRIVATE KEY") => {
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned()
            }
            [only] if wanted == "PRIVATE KEY" && only == "CERTIFICATE" => "tls: found a certificate rather than a key in the PEM for the private key".to_owned(),
            others if wanted == "CERTIFICATE" => {
                format!("tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]", others.join(" "))
            }
            others => format!("tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]", others.join(" ")),
        });
    }
    None
}

/// The types of the PEM blocks that begin and end in a text.
fn pem_blocks(text: &str) -> Vec<String> {
    let begins = text.lines().filter_map(|line| line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    begins.filter(|kind| text.contains(&format!("-----END {kind}-----"))).map(str::to_owned).collect()
}

fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (u32::from(chunk[0]) << 16) | (u32::from(*chunk.get(1).unwrap_or(&0)) << 8) | u32::from(*chunk.get(2).unwrap_or(&0));
        for at in 0..4 {
            if at <= chunk.len() {
                out.push(char::from(ALPHABET[(word >> (18 - 6 * at)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        word = (word << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    Some(out)
}

fn check_secret(errors: &mut Errors, object: &Value) {
    let path = Path::Root("data");
    let empty = Map::new();
    let data = map(object, "data").unwrap_or(&empty);
    let mut size = 0;
    for (key, value) in data {
        errors.name(&path.key(key), key, names::config_map_key);
        size += decoded_len(value);
    }
    if size > SIZE_MAX {
        errors.too_long(&path, SIZE_MAX);
    }
    let required = |errors: &mut Errors, key: &str| {
        if !data.contains_key(key) {
            errors.required(&path.key(key), "");
        }
    };
    let json = |errors: &mut Errors, key: &str| match data.get(key) {
        None => errors.required(&path.key(key), ""),
        Some(value) => {
            let bytes = decode(value.as_str().unwrap_or_default()).unwrap_or_default();
            if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
                errors.invalid(&path.key(key), REDACTED, &error.to_string());
            }
        }
    };
    match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            if entry(object, "metadata.annotations", SERVICE_ACCOUNT).unwrap_or_default().is_empty() {
                errors.required(&Path::Root("metadata.annotations").key(SERVICE_ACCOUNT), "");
            }
        }
        "kubernetes.io/dockercfg" => json(errors, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json(errors, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            required(errors, "username");
            required(errors, "password");
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_none_or(|key| decoded_len(key) == 0) => errors.required(&path.key("ssh-privatekey"), ""),
        "kubernetes.io/tls" => {
            required(errors, "tls.crt");
            required(errors, "tls.key");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};

    #[test]
    fn string_data_becomes_data() {
        let (made, causes) = create("", "secrets", json!({"metadata": {"name": "s"}, "stringData": {"a": "b", "c": "hello"}, "data": {"a": "eA=="}}));
        assert!(causes.is_empty());
        assert_eq!(made["data"], json!({"a": "Yg==", "c": "aGVsbG8="}));
        assert_eq!((made.get("stringData"), &made["type"]), (None, &json!("Opaque")));
        for bytes in [&b""[..], b"a", b"ab", b"abc", b"abcd\xff"] {
            assert_eq!(super::decode(&super::encode(bytes)).as_deref(), Some(bytes));
        }
    }

    #[test]
    fn refusals() {
        let cases = [
            ("configmaps", json!({"data": {"a b": ""}}), "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"),
            ("configmaps", json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}}), "[]: Too long: may not be more than 1048576 bytes"),
            ("secrets", json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), "data[tls.key]: Required value"),
            ("secrets", json!({"type": "kubernetes.io/dockerconfigjson"}), "data[.dockerconfigjson]: Required value"),
        ];
        for (plural, mut object, expected) in cases {
            object["metadata"] = json!({"name": "x"});
            assert_eq!(lines(&create("", plural, object).1), [expected]);
        }
    }

    #[test]
    fn immutable_ones_stay() {
        let old = json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "1"}});
        let (_, causes) = update("", "configmaps", json!({"metadata": {"name": "c"}, "data": {"a": "2"}}), &old);
        assert_eq!(lines(&causes), ["immutable: Forbidden: field is immutable when `immutable` is set", "data: Forbidden: field is immutable when `immutable` is set"]);
    }

    #[test]
    fn pairs_without_a_key_are_warned_of() {
        let block = |kind: &str| format!("-----BEGIN {kind}-----\nYQ==\n-----END {kind}-----\n");
        let (certificate, key) = (block("CERTIFICATE"), block("EC PRIVATE KEY"));
        for (crt, private, told) in [
            ("x", "y", Some("tls: failed to find any PEM data in certificate input")),
            (&*key, "", Some("tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched")),
            (&*certificate, "", Some("tls: failed to find any PEM data in key input")),
            (&*certificate, &*certificate, Some("tls: found a certificate rather than a key in the PEM for the private key")),
            (&*certificate, &*key, None),
        ] {
            let secret = serde_json::json!({"data": {"tls.crt": super::encode(crt.as_bytes()), "tls.key": super::encode(private.as_bytes())}});
            assert_eq!(super::no_key_pair(&secret).as_deref(), told);
        }
    }
}
