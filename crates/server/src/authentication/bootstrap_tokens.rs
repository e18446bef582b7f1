//! Bootstrap tokens: `<id>.<secret>`, kept in Secrets `kube-system/bootstrap-token-<id>`, by which machines join.
//!
//! Mirrors plugin/pkg/auth/authenticator/token/bootstrap: https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::Store;

use super::{AUTHENTICATED, User};
use crate::registry::text;

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const SECRETS: &str = "/registry/secrets/kube-system/bootstrap-token-";
const DEFAULT_GROUP: &str = "system:bootstrappers";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

fn plain(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// Id and secret, if the token has that form.
fn parse(token: &str) -> Option<(&str, &str)> {
    token.split_once('.').filter(|(id, secret)| plain(id, ID_LENGTH) && plain(secret, SECRET_LENGTH))
}

/// `\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`
fn valid_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let last = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    rest.len() <= 256 && rest.bytes().last().is_some_and(last) && rest.bytes().all(|byte| last(byte) || byte == b':' || byte == b'-')
}

/// Whoever the token is of, should it be a good one. Nobody is told why it is not.
pub fn authenticate(store: &dyn Store, now: Timestamp, token: &str) -> Option<User> {
    let (id, key) = parse(token)?;
    let secret = store.get(&format!("{SECRETS}{id}"))?;
    if secret.meta().deletion_timestamp.is_some() {
        return None;
    }
    judge(&secret.value().ok()?, id, key, now)
}

/// Secrets are compared by their digests: how long that takes tells nothing of them.
fn judge(secret: &Value, id: &str, key: &str, now: Timestamp) -> Option<User> {
    let datum = |name: &str| {
        let text = secret.get("data")?.get(name)?.as_str()?;
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
    };
    let datum = |name: &str| datum(name).unwrap_or_default();
    let expiration = datum("expiration");
    let good = text(secret, "/type") == SECRET_TYPE
        && Sha256::digest(datum("token-secret")) == Sha256::digest(key)
        && datum("token-id") == id
        && (expiration.is_empty() || expiration.parse::<Timestamp>().is_ok_and(|at| at > now))
        && datum("usage-bootstrap-authentication") == "true";
    if !good {
        return None;
    }
    let mut groups = vec![DEFAULT_GROUP.to_owned()];
    let extra = datum("auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !valid_group(group) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    groups.push(AUTHENTICATED.to_owned());
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for bad in ["", "abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef.x", "a.b.c"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_good_secrets_open() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let ask = |change: &[(&str, &str)], kind: &str| {
            let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
            let mut secret = json!({"type": kind, "data": {"token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"), "usage-bootstrap-authentication": encode("true")}});
            for (key, value) in change {
                secret["data"][*key] = encode(value).into();
            }
            judge(&secret, "abcdef", "0123456789abcdef", now).map(|user| format!("{} {}", user.name, user.groups.join(" ")))
        };
        assert_eq!(ask(&[], SECRET_TYPE).as_deref(), Some("system:bootstrap:abcdef system:bootstrappers system:authenticated"));
        assert_eq!(
            ask(&[("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token,system:bootstrappers:a"), ("expiration", "2026-01-01T00:00:01Z")], SECRET_TYPE).as_deref(),
            Some("system:bootstrap:abcdef system:bootstrappers system:bootstrappers:a system:bootstrappers:kubeadm:default-node-token system:authenticated")
        );
        assert_eq!(ask(&[], "Opaque"), None);
        for bad in [("token-id", "fedcba"), ("token-secret", "0123456789abcdeg"), ("usage-bootstrap-authentication", "false"), ("expiration", "2026-01-01T00:00:00Z"), ("expiration", "soon"), ("auth-extra-groups", "system:masters"), ("auth-extra-groups", "system:bootstrappers:a-")] {
            assert_eq!(ask(&[bad], SECRET_TYPE), None, "{bad:?}");
        }
    }
}
