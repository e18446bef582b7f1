//! Issuers as they are configured: `jwt` of an AuthenticationConfiguration, or the `--oidc-…` flags.
//!
//! Mirrors apiserver/pkg/apis/apiserver (JWTAuthenticator) and its validation; expressions are compiled here, once.

use cel::{DeclType, Env, Program};
use serde_json::Value;

use crate::expressions_measured;
use crate::authentication::Anonymous;
use crate::decode::{self, Format};
use crate::references::list;
use crate::registry::text;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("cannot read the configuration: {0}")]
    Syntax(String),
    #[error("{field}: {why}")]
    Invalid { field: String, why: String },
}

fn invalid(field: impl Into<String>, why: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { field: field.into(), why: why.into() }
}

/// What a claim or an expression makes of a token.
pub enum Mapping {
    Claim { name: String, prefix: String },
    Expression(Program),
}

pub enum ClaimRule {
    Required { claim: String, value: String },
    Expression { program: Program, text: String, message: String },
}

pub struct UserRule {
    pub program: Program,
    pub text: String,
    pub message: String,
}

/// One issuer and what is made of its tokens.
pub struct IssuerConfig {
    pub url: String,
    /// Empty: at the well-known place below `url`.
    pub discovery_url: String,
    /// PEM; empty: the system's authorities.
    pub authority: Vec<u8>,
    pub audiences: Vec<String>,
    pub username: Mapping,
    pub groups: Option<Mapping>,
    pub uid: Option<Mapping>,
    /// Keys and expressions, with their text.
    pub extra: Vec<(String, Program, String)>,
    pub claim_rules: Vec<ClaimRule>,
    pub user_rules: Vec<UserRule>,
}

/// The type of `user`.
fn user_type() -> DeclType {
    let strings = || DeclType::list(DeclType::string(), None);
    DeclType::object("kubernetes.UserInfo", [("username", DeclType::string()), ("uid", DeclType::string()), ("groups", strings()), ("extra", DeclType::map(DeclType::string(), strings(), None))])
}

fn claims_env() -> Env {
    Env::new().variable("claims", DeclType::map(DeclType::string(), DeclType::dyn_(), None))
}

fn compile(env: &Env, expression: &str, field: &str, wanted: &[&str]) -> Result<Program, ConfigError> {
    let failed = |why: String| invalid(field, format!("Invalid value: {expression:?}: {why}"));
    let program = expressions_measured::compiled(|| env.compile(expression)).map_err(|errors| failed(format!("compilation failed: {errors}")))?;
    let output = program.output_type().to_string();
    if wanted.contains(&&*output) || output == "dyn" {
        return Ok(program);
    }
    let must = if wanted == ["bool"] { "must evaluate to bool".to_owned() } else { format!("must evaluate to one of [{}]", wanted.join(" ")) };
    Err(failed(must))
}

const TEXT: [&str; 1] = ["string"];
const TEXTS: [&str; 4] = ["string", "list(string)", "list(dyn)", "null_type"];

impl IssuerConfig {
    /// `--oidc-issuer-url` and its companions.
    pub fn of_flags(flags: &OidcFlags) -> Result<Self, ConfigError> {
        https(&flags.issuer_url, "oidc-issuer-url")?;
        if flags.client_id.is_empty() {
            return Err(invalid("oidc-client-id", "Required value: is required when oidc-issuer-url is set"));
        }
        let claim = if flags.username_claim.is_empty() { "sub" } else { &flags.username_claim };
        let prefix = match flags.username_prefix.as_str() {
            "-" => String::new(),
            // Who is told by anything but an e-mail address is told together with the issuer.
            "" if claim != "email" => format!("{}#", flags.issuer_url),
            prefix => prefix.to_owned(),
        };
        let required = flags.required_claims.iter().map(|pair| {
            let (claim, value) = pair.split_once('=').ok_or_else(|| invalid("oidc-required-claim", format!("{pair:?}: must be a key=value pair")))?;
            Ok(ClaimRule::Required { claim: claim.to_owned(), value: value.to_owned() })
        });
        Ok(Self {
            url: flags.issuer_url.clone(),
            discovery_url: String::new(),
            authority: flags.authority.clone(),
            audiences: vec![flags.client_id.clone()],
            username: Mapping::Claim { name: claim.to_owned(), prefix },
            groups: (!flags.groups_claim.is_empty()).then(|| Mapping::Claim { name: flags.groups_claim.clone(), prefix: flags.groups_prefix.clone() }),
            uid: None,
            extra: Vec::new(),
            claim_rules: required.collect::<Result<_, ConfigError>>()?,
            user_rules: Vec::new(),
        })
    }

    fn parse(jwt: &Value, field: &str) -> Result<Self, ConfigError> {
        let at = |name: &str| format!("{field}.{name}");
        let url = text(jwt, "/issuer/url").to_owned();
        if url.is_empty() {
            return Err(invalid(at("issuer.url"), "Required value: URL is required"));
        }
        https(&url, &at("issuer.url"))?;
        let discovery_url = text(jwt, "/issuer/discoveryURL").to_owned();
        if !discovery_url.is_empty() {
            https(&discovery_url, &at("issuer.discoveryURL"))?;
            if discovery_url.trim_end_matches('/') == url.trim_end_matches('/') {
                return Err(invalid(at("issuer.discoveryURL"), format!("Invalid value: {discovery_url:?}: discoveryURL must be different from URL")));
            }
        }
        let audiences: Vec<String> = list(jwt, "/issuer/audiences").filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            return Err(invalid(at("issuer.audiences"), format!("Required value: at least one {} is required", at("issuer.audiences"))));
        }
        if audiences.len() > 1 && text(jwt, "/issuer/audienceMatchPolicy") != "MatchAny" {
            return Err(invalid(at("issuer.audienceMatchPolicy"), "Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences"));
        }
        let (claims, user) = (claims_env(), Env::new().variable("user", user_type()));
        let mapping = |name: &str, wanted: &[&str], prefixed: bool| -> Result<Option<Mapping>, ConfigError> {
            let (claim, expression) = (text(jwt, &format!("/claimMappings/{name}/claim")), text(jwt, &format!("/claimMappings/{name}/expression")));
            let prefix = jwt.pointer(&format!("/claimMappings/{name}/prefix")).and_then(Value::as_str);
            let field = at(&format!("claimMappings.{name}"));
            match (claim, expression) {
                ("", "") => Ok(None),
                (claim, "") if prefixed && prefix.is_none() => Err(invalid(format!("{field}.prefix"), format!("Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing (claim {claim:?})"))),
                (claim, "") => Ok(Some(Mapping::Claim { name: claim.to_owned(), prefix: prefix.unwrap_or_default().to_owned() })),
                ("", expression) if prefix.is_none() => compile(&claims, expression, &format!("{field}.expression"), wanted).map(|program| Some(Mapping::Expression(program))),
                ("", _) => Err(invalid(format!("{field}.prefix"), "Invalid value: prefix can't be set when expression is set")),
                _ => Err(invalid(field, "Invalid value: \"\": claim and expression can't both be set")),
            }
        };
        let username = mapping("username", &TEXT, true)?.ok_or_else(|| invalid(at("claimMappings.username"), "Required value: claim or expression is required"))?;
        let extra = list(jwt, "/claimMappings/extra").enumerate().map(|(index, entry)| {
            let field = at(&format!("claimMappings.extra[{index}]"));
            let (key, expression) = (text(entry, "/key"), text(entry, "/valueExpression"));
            if !key.contains('/') || key.to_lowercase() != key || key.starts_with("kubernetes.io/") || key.contains(".kubernetes.io/") {
                return Err(invalid(format!("{field}.key"), format!("Invalid value: {key:?}: key must be a lowercase domain-prefix path (such as example.org/foo) outside of kubernetes.io")));
            }
            Ok((key.to_owned(), compile(&claims, expression, &format!("{field}.valueExpression"), &TEXTS)?, expression.to_owned()))
        });
        let claim_rules = list(jwt, "/claimValidationRules").enumerate().map(|(index, rule)| {
            let field = at(&format!("claimValidationRules[{index}]"));
            match (text(rule, "/claim"), text(rule, "/expression")) {
                ("", "") => Err(invalid(field, "Required value: claim or expression is required")),
                (claim, "") => Ok(ClaimRule::Required { claim: claim.to_owned(), value: text(rule, "/requiredValue").to_owned() }),
                ("", expression) => Ok(ClaimRule::Expression { program: compile(&claims, expression, &format!("{field}.expression"), &["bool"])?, text: expression.to_owned(), message: text(rule, "/message").to_owned() }),
                _ => Err(invalid(field, "Invalid value: claim and expression can't both be set")),
            }
        });
        let user_rules = list(jwt, "/userValidationRules").enumerate().map(|(index, rule)| {
            let expression = text(rule, "/expression");
            let program = compile(&user, expression, &at(&format!("userValidationRules[{index}].expression")), &["bool"])?;
            Ok(UserRule { program, text: expression.to_owned(), message: text(rule, "/message").to_owned() })
        });
        Ok(Self {
            url,
            discovery_url,
            authority: text(jwt, "/issuer/certificateAuthority").as_bytes().to_vec(),
            audiences,
            groups: mapping("groups", &TEXTS, true)?,
            uid: mapping("uid", &TEXT, false)?,
            extra: extra.collect::<Result<_, ConfigError>>()?,
            claim_rules: claim_rules.collect::<Result<_, ConfigError>>()?,
            user_rules: user_rules.collect::<Result<_, ConfigError>>()?,
            username,
        })
    }
}

/// `--oidc-…`
#[derive(Debug, Clone, Default)]
pub struct OidcFlags {
    pub issuer_url: String,
    pub client_id: String,
    /// PEM.
    pub authority: Vec<u8>,
    pub username_claim: String,
    pub username_prefix: String,
    pub groups_claim: String,
    pub groups_prefix: String,
    pub required_claims: Vec<String>,
}

fn https(url: &str, field: &str) -> Result<(), ConfigError> {
    let rest = url.strip_prefix("https://").ok_or_else(|| invalid(field, format!("Invalid value: {url:?}: URL scheme must be https")))?;
    if rest.contains(['?', '#', '@']) {
        return Err(invalid(field, format!("Invalid value: {url:?}: URL must not contain a username, password, query or fragment")));
    }
    Ok(())
}

const VERSIONS: [&str; 3] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

/// An AuthenticationConfiguration, in YAML or JSON: its issuers, and what it says of anonymous requests.
pub fn parse(file: &[u8]) -> Result<(Vec<IssuerConfig>, Option<Anonymous>), ConfigError> {
    let config = decode::parse(file, Format::Yaml).map_err(|status| ConfigError::Syntax(status.message))?;
    if text(&config, "/kind") != "AuthenticationConfiguration" || !VERSIONS.contains(&text(&config, "/apiVersion")) {
        return Err(ConfigError::Syntax(format!("no kind {:?} is registered for version {:?}", text(&config, "/kind"), text(&config, "/apiVersion"))));
    }
    let issuers: Vec<IssuerConfig> = list(&config, "/jwt").enumerate().map(|(index, jwt)| IssuerConfig::parse(jwt, &format!("jwt[{index}]"))).collect::<Result<_, _>>()?;
    for (index, issuer) in issuers.iter().enumerate() {
        if issuers[..index].iter().any(|other| other.url == issuer.url) {
            return Err(invalid(format!("jwt[{index}].issuer.url"), format!("Duplicate value: {:?}", issuer.url)));
        }
    }
    let anonymous = config.get("anonymous").filter(|anonymous| anonymous.is_object()).map(|anonymous| Anonymous {
        enabled: anonymous.get("enabled").and_then(Value::as_bool).unwrap_or(false),
        paths: list(anonymous, "/conditions").map(|condition| text(condition, "/path").to_owned()).collect(),
    });
    if anonymous.as_ref().is_some_and(|anonymous| !anonymous.enabled && !anonymous.paths.is_empty()) {
        return Err(invalid("anonymous.conditions", "Invalid value: enabled should be set to true when conditions are defined"));
    }
    Ok((issuers, anonymous))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(jwt: &str) -> Result<(), String> {
        parse(format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- {}", jwt.replace('\n', "\n  ")).as_bytes()).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn configurations() {
        const GOOD: &str = "issuer:\n  url: https://issuer.example\n  audiences: [a]\nclaimMappings:\n  username:\n    expression: claims.sub\n";
        assert_eq!(parsed(GOOD), Ok(()));
        for (from, to, want) in [
            ("https://", "http://", "jwt[0].issuer.url: Invalid value: \"http://issuer.example\": URL scheme must be https"),
            ("[a]", "[]", "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required"),
            ("[a]", "[a, b]", "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences"),
            ("expression: claims.sub", "claim: sub", "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing (claim \"sub\")"),
            ("claims.sub", "\"true\"", "jwt[0].claimMappings.username.expression: Invalid value: \"true\": must evaluate to one of [string]"),
        ] {
            assert_eq!(parsed(&GOOD.replace(from, to)), Err(want.to_owned()));
        }
        assert!(parsed(&GOOD.replace("claims.sub", "\"nothing.here\"")).unwrap_err().contains("compilation failed"));
        let (issuers, anonymous) = parse(b"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous:\n  enabled: true\n  conditions:\n  - path: /livez\n").unwrap();
        assert!(issuers.is_empty());
        assert_eq!(anonymous, Some(Anonymous { enabled: true, paths: vec!["/livez".into()] }));
        assert!(parse(b"kind: Other").is_err());
    }

    #[test]
    fn flags() {
        let flags = OidcFlags { issuer_url: "https://issuer.example".into(), client_id: "a".into(), required_claims: vec!["x=y".into()], ..OidcFlags::default() };
        let issuer = IssuerConfig::of_flags(&flags).unwrap();
        assert!(matches!(&issuer.username, Mapping::Claim { name, prefix } if name == "sub" && prefix == "https://issuer.example#"));
        let mail = IssuerConfig::of_flags(&OidcFlags { username_claim: "email".into(), ..flags.clone() }).unwrap();
        assert!(matches!(&mail.username, Mapping::Claim { prefix, .. } if prefix.is_empty()));
        assert!(IssuerConfig::of_flags(&OidcFlags { client_id: String::new(), ..flags.clone() }).is_err());
        assert!(IssuerConfig::of_flags(&OidcFlags { required_claims: vec!["x".into()], ..flags }).is_err());
    }
}
