//! Service-account tokens: signature, time, audience, and that the account and whatever the token is bound to still live.
//!
//! Mirrors pkg/serviceaccount (jwt.go, claims.go), errors word for word.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use store::Store;

use super::{AUTHENTICATED, Authenticated, AuthenticationConfig, User};
use crate::api::Config;
use crate::jwt::{PublicKey, Token};

/// Clocks differ, and what is deleted is believed for as long.
const LEEWAY_SECONDS: i64 = 60;

const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// The issuers whose tokens are believed; the first signs.
pub fn issuers(config: &Config) -> impl Iterator<Item = &str> {
    std::iter::once(config.service_account_issuer.as_str()).chain(config.authentication.other_issuers.iter().map(String::as_str))
}

/// Who the tokens for this API server are for.
pub fn api_audiences(config: &Config) -> Vec<String> {
    let AuthenticationConfig { api_audiences, .. } = &config.authentication;
    if api_audiences.is_empty() { issuers(config).map(str::to_owned).collect() } else { api_audiences.clone() }
}

/// All keys that verify.
pub fn keys(config: &Config) -> Vec<&PublicKey> {
    std::iter::once(config.token_key.public()).chain(&config.authentication.other_keys).collect()
}

/// `Ok(None)` when it is no token of ours at all.
pub fn authenticate(store: &dyn Store, config: &Config, now: Timestamp, text: &str, audiences: &[String]) -> Result<Option<Authenticated>, String> {
    let Ok(token) = Token::parse(text) else { return Ok(None) };
    if !issuers(config).any(|issuer| issuer == token.issuer()) {
        return Ok(None);
    }
    if !token.verified_by(keys(config)) {
        return Err("invalid signature".to_owned());
    }
    let claims = &token.claims;
    let theirs: Vec<String> = match &claims["aud"] {
        Value::String(one) => vec![one.clone()],
        list => list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    let accepted: Vec<String> = theirs.iter().filter(|audience| audiences.contains(audience)).cloned().collect();
    if accepted.is_empty() {
        return Err(format!("token audiences {theirs:?} is invalid for the target audiences {audiences:?}").replace(", ", " "));
    }
    times(claims, now)?;
    bound(store, claims, now).map(|user| Some(Authenticated { user, audiences: accepted }))
}

fn times(claims: &Value, now: Timestamp) -> Result<(), String> {
    let (now, at) = (now.as_second(), |name: &str| claims[name].as_f64().map(|seconds| seconds as i64));
    if at("nbf").is_some_and(|from| now + LEEWAY_SECONDS < from) {
        return Err("service account token is not valid yet".to_owned());
    }
    if at("exp").is_some_and(|until| now - LEEWAY_SECONDS > until) {
        return Err("service account token has expired".to_owned());
    }
    if at("iat").is_some_and(|issued| now + LEEWAY_SECONDS < issued) {
        return Err("service account token is issued in the future".to_owned());
    }
    Ok(())
}

fn bound(store: &dyn Store, claims: &Value, now: Timestamp) -> Result<User, String> {
    const INVALIDATED: &str = "service account token has been invalidated";
    let deleted = |object: &::api::Object| {
        let before = now.checked_sub(SignedDuration::from_secs(LEEWAY_SECONDS)).unwrap_or(now);
        object.meta().deletion_timestamp.as_deref().and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at < before)
    };
    let ours = &claims["kubernetes.io"];
    let reference = |field: &str| {
        let reference = ours.get(field)?;
        Some((reference["name"].as_str().unwrap_or(""), reference["uid"].as_str().unwrap_or("")))
    };
    let namespace = ours["namespace"].as_str().unwrap_or("");
    let (account, uid) = reference("serviceaccount").unwrap_or_default();
    let found = store.get(&format!("/registry/serviceaccounts/{namespace}/{account}")).ok_or_else(|| format!("serviceaccounts {account:?} not found"))?;
    if found.meta().uid != uid {
        return Err(format!("service account UID ({}) does not match claim ({uid})", found.meta().uid));
    }
    if deleted(&found) {
        return Err(format!("service account {namespace}/{account} has been deleted"));
    }
    let alive = |key: String, uid: &str, kind: &str, claim: &str| {
        let found = store.get(&key).ok_or(INVALIDATED)?;
        if found.meta().uid != uid {
            return Err(format!("{kind} UID ({}) does not match service account {claim} ref claim ({uid})", found.meta().uid));
        }
        if deleted(&found) { Err(INVALIDATED.to_owned()) } else { Ok(()) }
    };
    if let Some((name, uid)) = reference("secret") {
        let key = format!("/registry/secrets/{namespace}/{name}");
        alive(key.clone(), uid, "secret", "secret")?;
        // How an administrator takes a Secret's token back without deleting it.
        if store.get(&key).is_some_and(|secret| secret.meta().labels.get(INVALID_SINCE).is_some_and(|since| !since.is_empty())) {
            return Err(format!(
                "the token in secret {namespace}/{name} for service account {namespace}/{account} has been marked invalid. Use tokens from the TokenRequest API or manually created \
                 secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            ));
        }
    }
    let mut extra = BTreeMap::new();
    let mut note = |key: &str, value: String| drop(extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]));
    if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
        note("credential-id", format!("JTI={id}"));
    }
    if let Some((name, uid)) = reference("pod") {
        alive(format!("/registry/pods/{namespace}/{name}"), uid, "pod", "pod")?;
        note("pod-name", name.to_owned());
        note("pod-uid", uid.to_owned());
    }
    if let Some((name, uid)) = reference("node") {
        // Of a pod's token it only tells where the pod was; the node may go before the pod.
        if reference("pod").is_none() {
            alive(format!("/registry/minions/{name}"), uid, "node", "node")?;
        }
        note("node-name", name.to_owned());
        if !uid.is_empty() {
            note("node-uid", uid.to_owned());
        }
    }
    Ok(service_account_user(namespace, account, uid, extra))
}

pub fn service_account_user(namespace: &str, account: &str, uid: &str, extra: BTreeMap<String, Vec<String>>) -> User {
    User {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid: uid.to_owned(),
        groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}"), AUTHENTICATED.into()],
        extra,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lives() {
        let now = Timestamp::from_second(10_000).unwrap();
        let cases = [
            (json!({"exp": 10_001, "nbf": 9_999, "iat": 9_999}), Ok(())),
            (json!({"exp": 9_941}), Ok(())),
            (json!({"exp": 9_939}), Err("service account token has expired")),
            (json!({"nbf": 10_061}), Err("service account token is not valid yet")),
            (json!({"iat": 10_061}), Err("service account token is issued in the future")),
        ];
        for (claims, want) in cases {
            assert_eq!(times(&claims, now), want.map_err(str::to_owned), "{claims}");
        }
    }
}
