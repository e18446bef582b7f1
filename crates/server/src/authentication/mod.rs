//! Who asks: a proxy in front, a client certificate, a bearer token, or nobody in particular.
//!
//! The first who knows the user decides, in upstream's order (pkg/kubeapiserver/authenticator); tokens are of a file, of service accounts, of joining machines,
//! of OIDC issuers, or known to a webhook. https://kubernetes.io/docs/reference/access-authn-authz/authentication/

mod bootstrap_tokens;
mod fronts;
pub mod oidc;
mod request_header;
pub mod service_accounts;
mod static_tokens;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use ::api::Status;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::Value;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::Api;
use crate::jwt::PublicKey;

pub use fronts::{Fronts, Judged, any_certificate};
pub use oidc::{ConfigError, Issuer, IssuerConfig, OidcFlags};
pub use request_header::RequestHeader;
pub use webhook::TokenWebhook;
pub use static_tokens::{StaticTokens, StaticTokensError};

pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
/// Members may do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";

/// Tokens that last long of their own accord are not made shorter than upstream's `--service-account-max-token-expiration` allows.
pub const EXTENDED_TOKEN_SECONDS: i64 = 365 * 24 * 3600;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// A component of this process.
    pub fn component(name: &str) -> Self {
        Self { name: name.into(), groups: vec![MASTERS.into(), AUTHENTICATED.into()], ..Self::default() }
    }

    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }

    /// CN and O of a certificate, which is yet to be verified.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let mut groups: Vec<String> = subject.iter_organization().filter_map(|part| part.as_str().ok()).map(str::to_owned).collect();
        groups.push(AUTHENTICATED.into());
        let id = Sha256::digest(der).iter().fold("X509SHA256=".to_owned(), |id, byte| format!("{id}{byte:02x}"));
        let extra = [("authentication.kubernetes.io/credential-id".to_owned(), vec![id])].into();
        Some(Self { name, groups, extra, ..Self::default() })
    }

    /// Everybody who is somebody is in this group.
    fn authenticated(mut self) -> Self {
        if !self.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }
}

/// Who may ask without saying who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anonymous {
    pub enabled: bool,
    /// Only for these paths; empty: for all.
    pub paths: Vec<String>,
}

/// By whom users are known.
#[derive(Clone)]
pub struct AuthenticationConfig {
    pub anonymous: Anonymous,
    /// `--enable-bootstrap-token-auth`
    pub bootstrap_tokens: bool,
    /// `--token-auth-file`
    pub tokens: StaticTokens,
    /// `--client-ca-file`: authorities of clients besides the cluster's own (PEM); empty when there are none.
    pub client_ca_pem: String,
    /// `--requestheader-…`
    pub request_header: Option<RequestHeader>,
    /// `jwt` of an AuthenticationConfiguration, or `--oidc-…`.
    pub issuers: Vec<Arc<Issuer>>,
    /// `--authentication-token-webhook-config-file`
    pub webhook: Option<Arc<TokenWebhook>>,
    /// `--api-audiences`; empty: the issuers of service-account tokens.
    pub api_audiences: Vec<String>,
    /// Further issuers and keys whose service-account tokens are believed.
    pub other_issuers: Vec<String>,
    pub other_keys: Vec<PublicKey>,
    /// `--service-account-max-token-expiration`
    pub max_token_seconds: Option<i64>,
    /// `--service-account-extend-token-expiration`
    pub extend_tokens: bool,
}

impl Default for AuthenticationConfig {
    fn default() -> Self {
        Self {
            anonymous: Anonymous { enabled: true, paths: Vec::new() },
            bootstrap_tokens: true,
            tokens: StaticTokens::default(),
            client_ca_pem: String::new(),
            request_header: None,
            issuers: Vec::new(),
            webhook: None,
            api_audiences: Vec::new(),
            other_issuers: Vec::new(),
            other_keys: Vec::new(),
            max_token_seconds: None,
            extend_tokens: true,
        }
    }
}

/// Whom the certificate of a connection stands for.
#[derive(Debug, Clone, Default)]
pub struct Presented {
    pub user: Option<Arc<User>>,
    /// The name of a proxy in front.
    pub proxy: Option<String>,
    /// When the certificate ends, in seconds since 1970: a connection may last longer.
    pub ends: Option<i64>,
    /// A certificate was shown that no authority answers for.
    pub refused: bool,
}

/// A user whom a token has told, and for which of the audiences that were asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    pub user: User,
    pub audiences: Vec<String>,
}

impl Api {
    pub async fn authenticate(&self, presented: &Presented, headers: &HeaderMap, path: &str) -> Result<Arc<User>, Status> {
        let config = &self.config.authentication;
        let ended = presented.ends.is_some_and(|ends| ends < self.clock.now().as_second());
        if !ended
            && let (Some(front), Some(proxy)) = (&config.request_header, &presented.proxy)
            && let Some(user) = front.authenticate(proxy, headers)
        {
            return Ok(Arc::new(user.authenticated()));
        }
        if let Some(user) = presented.user.as_ref().filter(|_| !ended) {
            return Ok(user.clone());
        }
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|header| header.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
        if let Some(token) = token {
            return match self.authenticate_token(token, &service_accounts::api_audiences(&self.config)).await {
                Ok(Some(found)) => Ok(Arc::new(found.user)),
                Ok(None) => Err(Status::unauthorized()),
                Err(why) => {
                    tracing::debug!(why, "a token was refused");
                    Err(Status::unauthorized())
                }
            };
        }
        // Who wanted to be somebody is not taken for nobody.
        if presented.refused {
            tracing::debug!("verifying certificate failed: x509: certificate signed by unknown authority");
            return Err(Status::unauthorized());
        }
        if ended {
            tracing::debug!(ends = presented.ends, "verifying certificate failed: x509: certificate has expired or is not yet valid");
            return Err(Status::unauthorized());
        }
        let reloadable = self.reloadable.load();
        let anonymous = &reloadable.0;
        if !anonymous.enabled || !(anonymous.paths.is_empty() || anonymous.paths.iter().any(|known| known == path)) {
            return Err(Status::unauthorized());
        }
        Ok(Arc::new(User::anonymous()))
    }

    /// Whose token it is, if anybody's; `Err` is why whoever could have known it refuses it.
    pub async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<Authenticated>, String> {
        let config = &self.config.authentication;
        // Those who know nothing of audiences speak for the API server's own.
        let own: Vec<String> = service_accounts::api_audiences(&self.config).into_iter().filter(|audience| audiences.contains(audience)).collect();
        let plain = |user: User| Ok(Some(Authenticated { user: user.authenticated(), audiences: own.clone() }));
        let now = self.clock.now();
        if !own.is_empty()
            && let Some(user) = config.tokens.authenticate(token)
        {
            return plain(user);
        }
        let mut faults = Vec::new();
        match service_accounts::authenticate(&*self.store, &self.config, now, token, audiences) {
            Ok(None) => {}
            Ok(found) => {
                self.measured.service_account();
                return Ok(found);
            }
            Err(why) => faults.push(why),
        }
        if config.bootstrap_tokens
            && !own.is_empty()
            && let Some(user) = bootstrap_tokens::authenticate(&*self.store, now, token)
        {
            return plain(user);
        }
        if !own.is_empty() {
            for issuer in &self.reloadable.load_full().1 {
                match issuer.authenticate(&self.outbound, now, token).await {
                    Ok(None) => {}
                    Ok(Some(user)) => return plain(user),
                    Err(why) => faults.push(why),
                }
            }
        }
        if let Some(webhook) = &config.webhook {
            match webhook.authenticate(&self.outbound, now, token, audiences, &own).await {
                Ok(None) => {}
                Ok(Some(found)) => return Ok(Some(Authenticated { user: found.user.authenticated(), ..found })),
                Err(why) => faults.push(why),
            }
        }
        match faults.as_slice() {
            [] => Ok(None),
            [one] => Err(one.clone()),
            more => Err(format!("[{}]", more.join(", "))),
        }
    }
}

/// `authentication.k8s.io UserInfo`.
pub fn user_info(user: &User) -> Value {
    let mut info = serde_json::json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = serde_json::json!(user.extra);
    }
    info
}
