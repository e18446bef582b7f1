//! The API server's flags, called as upstream's: how users are known, what they may do, which plugins are asked.
//!
//! https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/ . Files are read at the start; --authentication-config,
//! --authorization-config, --client-ca-file and --requestheader-client-ca-file again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args};
use jiff::SignedDuration;
use server::{AuthorizationMode, AuthorizationWebhook, Followed, Fronts, Hook, HookCredentials, Issuer, IssuerConfig, OidcFlags, Plugins, PublicKey, ReloadMetrics, Reloaded, RequestHeader, StaticTokens, TokenWebhook, WebhookConfig};

const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);
const TOKEN_TTL_SECONDS: i64 = 120;
/// Who is believed in front of the API server when nothing else is said: the identity the cluster's own proxies have.
const FRONT_PROXY: &str = "front-proxy-client";

#[derive(Args, Clone)]
#[command(next_help_heading = "Users of the API server")]
pub struct UserFlags {
    /// Who decides what users may do, in this order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny
    #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// File with an AuthorizationConfiguration, instead of --authorization-mode
    #[arg(long, value_name = "FILE", conflicts_with_all = ["authorization_mode", "authorization_webhook_config_file"])]
    authorization_config: Option<PathBuf>,
    /// Kubeconfig of the authorization webhook
    #[arg(long, value_name = "FILE")]
    authorization_webhook_config_file: Option<PathBuf>,
    /// Version of its SubjectAccessReviews
    #[arg(long, value_name = "VERSION", default_value = "v1beta1")]
    authorization_webhook_version: String,
    /// Whether requests that name no user are let in
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    anonymous_auth: bool,
    /// File with an AuthenticationConfiguration
    #[arg(long, value_name = "FILE", conflicts_with = "oidc_issuer_url")]
    authentication_config: Option<PathBuf>,
    /// File with tokens: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Whether machines may join by bootstrap tokens
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    enable_bootstrap_token_auth: bool,
    /// Kubeconfig of the webhook that knows tokens
    #[arg(long, value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of its TokenReviews
    #[arg(long, value_name = "VERSION", default_value = "v1beta1")]
    authentication_token_webhook_version: String,
    /// Seconds for which its answers are kept
    #[arg(long, value_name = "SECONDS", default_value_t = TOKEN_TTL_SECONDS)]
    authentication_token_webhook_cache_ttl: i64,
    /// URL of an OIDC issuer
    #[arg(long, value_name = "URL", default_value = "")]
    oidc_issuer_url: String,
    /// Audience that its tokens must be for
    #[arg(long, value_name = "ID", default_value = "")]
    oidc_client_id: String,
    /// File with the authority that it is believed by
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// Claim with the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// What is put before names; "-" for nothing
    #[arg(long, value_name = "PREFIX", default_value = "")]
    oidc_username_prefix: String,
    /// Claim with the user's groups
    #[arg(long, value_name = "CLAIM", default_value = "")]
    oidc_groups_claim: String,
    /// What is put before groups
    #[arg(long, value_name = "PREFIX", default_value = "")]
    oidc_groups_prefix: String,
    /// claim=value that tokens must have; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE")]
    oidc_required_claim: Vec<String>,
    /// Issuer of service-account tokens; when repeated, the first signs and all are believed
    #[arg(long, value_name = "URL")]
    service_account_issuer: Vec<String>,
    /// Further public keys that verify service-account tokens; may be repeated
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// Longest life of a service-account token, in seconds
    #[arg(long, value_name = "SECONDS")]
    service_account_max_token_expiration: Option<i64>,
    /// Whether tokens that pods get unasked live on for a year
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    service_account_extend_token_expiration: bool,
    /// Who tokens for the API server are for
    #[arg(long, value_name = "AUDIENCES", value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Authorities whose certificates tell users, besides the cluster's own; followed while it runs
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Authority of proxies that tell users in headers
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Names that such proxies' certificates may have
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = FRONT_PROXY)]
    requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', default_value = "X-Remote-User")]
    requestheader_username_headers: Vec<String>,
    /// Headers with the user's uid
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', default_value = "X-Remote-Uid")]
    requestheader_uid_headers: Vec<String>,
    /// Headers with the user's groups
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', default_value = "X-Remote-Group")]
    requestheader_group_headers: Vec<String>,
    /// How headers with more about the user begin
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', default_value = "X-Remote-Extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Admission plugins that are asked beside those that always are
    #[arg(long, value_name = "PLUGINS", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that are not asked
    #[arg(long, value_name = "PLUGINS", value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Gates of features that are not for everybody yet: CBORServingAndStorage=true|false (ALPHA - default=false)
    #[arg(long, value_name = "GATE=BOOL", value_delimiter = ',')]
    feature_gates: Vec<String>,
}

/// The one gate that opens anything here: what others of 1.36 guard is there, or it is not.
const CBOR_GATE: &str = "CBORServingAndStorage";

/// Whether CBOR is spoken; the last word counts.
fn cbor(gates: &[String]) -> Result<bool> {
    let mut open = false;
    for gate in gates {
        let (name, value) = gate.split_once('=').with_context(|| format!("missing bool value for {gate}"))?;
        if name.trim() != CBOR_GATE {
            bail!("unrecognized feature gate: {}", name.trim());
        }
        open = value.trim().parse().ok().with_context(|| format!("invalid value of {CBOR_GATE}={value}, err: it is true or false"))?;
    }
    Ok(open)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))
}

/// A webhook as a kubeconfig tells of it.
fn connect(path: &str) -> Result<Hook, String> {
    let config = client::kubeconfig::Config::load(Some(Path::new(path))).map_err(|error| error.to_string())?;
    let (certificate_pem, key_pem) = config.client_identity.unwrap_or_default();
    let credentials = HookCredentials { token: config.token.unwrap_or_default(), certificate_pem, key_pem };
    Hook::at(&config.server, config.certificate_authority.unwrap_or_default(), credentials).map_err(|error| error.to_string())
}

pub fn connect_file(path: &Path) -> Result<Hook> {
    connect(&path.to_string_lossy()).map_err(anyhow::Error::msg).with_context(|| format!("cannot use {}", path.display()))
}

/// The authorities in a file (PEM), which is followed from now on.
fn follow_authorities(config: &mut server::Config, file: &Path, reloaded: fn(String) -> Reloaded) -> Result<String> {
    let first = read(file)?;
    let pem = Fronts::parse(&first).map_err(|error| anyhow::anyhow!("cannot use {}: {error}", file.display()))?;
    let parse: server::Parse = Box::new(move |content| Fronts::parse(content).map(reloaded));
    config.followed.push(Arc::new(Followed { path: file.to_owned(), first, parse, metrics: None }));
    Ok(pem)
}

impl UserFlags {
    /// `front_authority` is the file of the cluster's own authority of proxies. Returns the authority whose certificates are let in beside the clients'.
    pub fn configure(&self, config: &mut server::Config, front_authority: &Path) -> Result<String> {
        config.plugins = Plugins::new(&self.enable_admission_plugins, &self.disable_admission_plugins)?;
        config.authorization = self.authorization()?;
        if let Some(file) = &self.authorization_config {
            let nodes_or_roles = |modes: &[AuthorizationMode]| (modes.iter().any(|mode| matches!(mode, AuthorizationMode::Node)), modes.iter().any(|mode| matches!(mode, AuthorizationMode::Rbac)));
            let (had_nodes, had_roles) = nodes_or_roles(&config.authorization);
            let parse: server::Parse = Box::new(move |content| {
                let modes = server::parse_authorization_configuration(content, &connect).map_err(|error| error.to_string())?;
                let (nodes, roles) = nodes_or_roles(&modes);
                for (name, had, has) in [("Node", had_nodes, nodes), ("RBAC", had_roles, roles)] {
                    if has && !had {
                        return Err(format!("authorizer type {name} is not allowed if it was not enabled at initial server startup"));
                    }
                }
                Ok(Reloaded::Authorization(modes))
            });
            config.followed.push(Arc::new(Followed { path: file.clone(), first: read(file)?, parse, metrics: Some(ReloadMetrics::authorization()) }));
        }
        config.cbor = cbor(&self.feature_gates)?;
        if let Some((first, others)) = self.service_account_issuer.split_first() {
            config.service_account_issuer = first.clone();
            config.authentication.other_issuers = others.to_vec();
        }
        let file = self.requestheader_client_ca_file.as_deref().unwrap_or(front_authority);
        let front = follow_authorities(config, file, Reloaded::Fronts)?;
        if let Some(file) = &self.client_ca_file {
            config.authentication.client_ca_pem = follow_authorities(config, file, Reloaded::Clients)?;
        }
        let authentication = &mut config.authentication;
        authentication.anonymous.enabled = self.anonymous_auth;
        authentication.bootstrap_tokens = self.enable_bootstrap_token_auth;
        authentication.api_audiences = self.api_audiences.clone();
        authentication.max_token_seconds = self.service_account_max_token_expiration;
        authentication.extend_tokens = self.service_account_extend_token_expiration;
        authentication.request_header = Some(RequestHeader {
            authority_pem: front.clone(),
            allowed_names: self.requestheader_allowed_names.iter().filter(|name| !name.is_empty()).cloned().collect(),
            username_headers: self.requestheader_username_headers.clone(),
            uid_headers: self.requestheader_uid_headers.clone(),
            group_headers: self.requestheader_group_headers.clone(),
            extra_prefixes: self.requestheader_extra_headers_prefix.clone(),
        });
        for file in &self.service_account_key_file {
            let keys = PublicKey::of_pem(&read(file)?);
            if keys.is_empty() {
                bail!("{} has no public key that service-account tokens can be verified with", file.display());
            }
            authentication.other_keys.extend(keys);
        }
        if let Some(file) = &self.token_auth_file {
            authentication.tokens = StaticTokens::parse(&read_text(file)?).with_context(|| format!("cannot use {}", file.display()))?;
        }
        if let Some(file) = &self.authentication_token_webhook_config_file {
            let ttl = SignedDuration::from_secs(self.authentication_token_webhook_cache_ttl);
            authentication.webhook = Some(Arc::new(TokenWebhook::new(connect_file(file)?, &self.authentication_token_webhook_version, ttl)));
        }
        let mut issuers = Vec::new();
        if let Some(file) = &self.authentication_config {
            let first = read(file)?;
            let (found, anonymous) = server::parse_authentication_configuration(&first).with_context(|| format!("cannot use {}", file.display()))?;
            issuers = found;
            let unsaid = authentication.anonymous.clone();
            if let Some(anonymous) = anonymous {
                authentication.anonymous = anonymous;
            }
            let parse: server::Parse = Box::new(move |content| {
                let (issuers, anonymous) = server::parse_authentication_configuration(content).map_err(|error| error.to_string())?;
                let issuers = issuers.into_iter().map(Issuer::new).map(Arc::new).collect();
                Ok(Reloaded::Authentication { issuers, anonymous: anonymous.unwrap_or_else(|| unsaid.clone()) })
            });
            config.followed.push(Arc::new(Followed { path: file.clone(), first, parse, metrics: Some(ReloadMetrics::authentication()) }));
        } else if !self.oidc_issuer_url.is_empty() {
            issuers.push(IssuerConfig::of_flags(&OidcFlags {
                issuer_url: self.oidc_issuer_url.clone(),
                client_id: self.oidc_client_id.clone(),
                authority: self.oidc_ca_file.as_deref().map(read).transpose()?.unwrap_or_default(),
                username_claim: self.oidc_username_claim.clone(),
                username_prefix: self.oidc_username_prefix.clone(),
                groups_claim: self.oidc_groups_claim.clone(),
                groups_prefix: self.oidc_groups_prefix.clone(),
                required_claims: self.oidc_required_claim.clone(),
            })?);
        }
        authentication.issuers = issuers.into_iter().map(Issuer::new).map(Arc::new).collect();
        Ok(front)
    }

    fn authorization(&self) -> Result<Vec<AuthorizationMode>> {
        if let Some(file) = &self.authorization_config {
            return server::parse_authorization_configuration(&read(file)?, &connect).with_context(|| format!("cannot use {}", file.display()));
        }
        let one = |name: &String| -> Result<AuthorizationMode> {
            if name != "Webhook" {
                return AuthorizationMode::named(name).with_context(|| format!("authorization-mode {name:?} is not a valid mode"));
            }
            let file = self.authorization_webhook_config_file.as_deref().context("authorization-mode Webhook's authorization config file not passed")?;
            Ok(AuthorizationMode::Webhook(Arc::new(AuthorizationWebhook::new(WebhookConfig {
                name: "default".to_owned(),
                hook: connect_file(file)?,
                version: self.authorization_webhook_version.clone(),
                timeout: WEBHOOK_TIMEOUT,
                authorized_ttl: server::AUTHORIZED_TTL,
                unauthorized_ttl: server::UNAUTHORIZED_TTL,
                fails_closed: false,
                conditions: Vec::new(),
            }))))
        };
        self.authorization_mode.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: UserFlags,
    }

    fn configure(arguments: &[&str]) -> Result<server::Config> {
        let line = Line::try_parse_from(std::iter::once("x").chain(arguments.iter().copied()))?;
        let key = server::TokenKey::from_pkcs8(&server::TokenKey::generate()?)?;
        let mut config = server::Config::new(Arc::new(key), String::new());
        let folder = tempfile::tempdir()?;
        let front = folder.path().join("front-proxy-ca.crt");
        std::fs::write(&front, pki::Authority::generate("front", 1_800_000_000)?.identity.certificate_pem)?;
        line.flags.configure(&mut config, &front)?;
        Ok(config)
    }

    #[test]
    fn flags_configure_the_server() {
        let config = configure(&[]).unwrap();
        assert!(matches!(config.authorization.as_slice(), [AuthorizationMode::Node, AuthorizationMode::Rbac]));
        assert!(config.authentication.anonymous.enabled && config.authentication.request_header.is_some_and(|front| front.authority_pem.contains("BEGIN CERTIFICATE") && front.allowed_names == [FRONT_PROXY]));
        let config = configure(&["--anonymous-auth=false", "--authorization-mode=RBAC,AlwaysDeny", "--service-account-issuer=https://a", "--service-account-issuer=https://b", "--disable-admission-plugins=LimitRanger", "--oidc-issuer-url=https://i", "--oidc-client-id=c"]).unwrap();
        assert!(!config.authentication.anonymous.enabled && config.authorization.len() == 2 && !config.plugins.on("LimitRanger"));
        assert_eq!((config.service_account_issuer.as_str(), config.authentication.other_issuers.as_slice()), ("https://a", &["https://b".to_owned()][..]));
        assert_eq!(config.authentication.issuers.len(), 1);
        assert!(!config.cbor && configure(&["--feature-gates=CBORServingAndStorage=true"]).unwrap().cbor);
        for wrong in [&["--authorization-mode=Oracle"][..], &["--enable-admission-plugins=Nothing"], &["--authorization-mode=Webhook"], &["--oidc-issuer-url=https://i"], &["--token-auth-file=/nowhere"], &["--client-ca-file=/nowhere"], &["--feature-gates=Nonsense=true"], &["--feature-gates=CBORServingAndStorage"]] {
            assert!(configure(wrong).is_err(), "{wrong:?}");
        }
    }
}
