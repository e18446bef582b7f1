//! Tokens of OIDC issuers: verified by the keys that the issuer publishes, and mapped to users by claims or expressions.
//!
//! Mirrors apiserver/plugin/pkg/authenticator/token/oidc; errors in its words. Keys are fetched when the first token of an issuer comes, and again when a token is
//! signed by one that is not known: issuers rotate them. Claims that lie elsewhere (distributed claims) are not fetched.

mod config;
mod mapping;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::Mutex;

pub use config::{ConfigError, IssuerConfig, OidcFlags, parse};

use super::User;
use crate::jwt::{ALGORITHMS, PublicKey, Token};
use crate::outbound::{Credentials, Hook, Outbound};

const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// How far clocks of issuers may be ahead.
const NOT_BEFORE_LEEWAY: SignedDuration = SignedDuration::from_mins(5);
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// What is known of an issuer.
#[derive(Default)]
struct Known {
    /// Where its keys are; empty before discovery.
    keys_url: String,
    keys: Vec<PublicKey>,
}

pub struct Issuer {
    config: IssuerConfig,
    known: Mutex<Known>,
}

impl Issuer {
    pub fn new(config: IssuerConfig) -> Self {
        Self { config, known: Mutex::default() }
    }

    /// `Ok(None)` when the token is another issuer's.
    pub async fn authenticate(&self, outbound: &Outbound, now: Timestamp, text: &str) -> Result<Option<User>, String> {
        let Ok(token) = Token::parse(text) else { return Ok(None) };
        let issuer = if token.issuer() == "accounts.google.com" { "https://accounts.google.com" } else { token.issuer() };
        if issuer != self.config.url {
            return Ok(None);
        }
        self.verify(outbound, now, &token).await?;
        mapping::user(&self.config, &token.claims).map(Some)
    }

    async fn verify(&self, outbound: &Outbound, now: Timestamp, token: &Token<'_>) -> Result<(), String> {
        let failed = |why: String| format!("oidc: verify token: {why}");
        let claims = &token.claims;
        let theirs: Vec<&str> = match &claims["aud"] {
            Value::String(one) => vec![one],
            list => list.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        };
        if !theirs.iter().any(|audience| self.config.audiences.iter().any(|known| known == audience)) {
            let wanted = match self.config.audiences.as_slice() {
                [one] => format!("{one:?}"),
                more => format!("in {more:?}"),
            };
            return Err(failed(format!("oidc: expected audience {wanted} got {theirs:?}")));
        }
        let at = |name: &str| claims[name].as_f64().and_then(|seconds| Timestamp::from_second(seconds as i64).ok());
        let expires = at("exp").unwrap_or(Timestamp::UNIX_EPOCH);
        if expires <= now {
            return Err(failed(format!("oidc: token is expired (Token Expiry: {expires})")));
        }
        if let Some(from) = at("nbf")
            && now.checked_add(NOT_BEFORE_LEEWAY).unwrap_or(now) < from
        {
            return Err(failed(format!("oidc: current time {now} before the nbf (not before) time: {from}")));
        }
        if !ALGORITHMS.contains(&token.algorithm()) {
            return Err(failed(format!("oidc: id token signed with unsupported algorithm, expected {ALGORITHMS:?} got {:?}", token.algorithm())));
        }
        // One at a time: the others find what the first has fetched.
        let mut known = self.known.lock().await;
        if token.verified_by(&known.keys) {
            return Ok(());
        }
        if known.keys_url.is_empty() {
            known.keys_url = self.discover(outbound).await.map_err(|why| {
                tracing::warn!(why, issuer = self.config.url, "cannot learn of the issuer's keys");
                "oidc: authenticator not initialized".to_owned()
            })?;
        }
        let set = self.fetch(outbound, &known.keys_url).await.map_err(|why| failed(format!("failed to verify signature: fetching keys oidc: get keys failed: {why}")))?;
        known.keys = PublicKey::of_set(&set);
        if token.verified_by(&known.keys) { Ok(()) } else { Err(failed("failed to verify signature: failed to verify id token signature".to_owned())) }
    }

    async fn discover(&self, outbound: &Outbound) -> Result<String, String> {
        let url = if self.config.discovery_url.is_empty() { format!("{}{WELL_KNOWN}", self.config.url.trim_end_matches('/')) } else { self.config.discovery_url.clone() };
        let document = self.fetch(outbound, &url).await?;
        let issuer = document["issuer"].as_str().unwrap_or("");
        if issuer != self.config.url {
            return Err(format!("oidc: issuer did not match the issuer returned by provider, expected {:?} got {issuer:?}", self.config.url));
        }
        document["jwks_uri"].as_str().filter(|url| !url.is_empty()).map(str::to_owned).ok_or_else(|| "provider did not return JWKS URL".to_owned())
    }

    async fn fetch(&self, outbound: &Outbound, url: &str) -> Result<Value, String> {
        let hook = Hook::at(url, self.config.authority.clone(), Credentials::default()).map_err(|error| error.to_string())?;
        let reply = outbound.get(&hook, FETCH_TIMEOUT).await?;
        if reply.status != 200 {
            return Err(format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body)));
        }
        serde_json::from_slice(&reply.body).map_err(|error| format!("expected Content-Type = application/json: {error}"))
    }
}
