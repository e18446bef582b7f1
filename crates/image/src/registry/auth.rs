//! Credentials, and the challenges of registries (`WWW-Authenticate`).
//!
//! Mirrors docker's config.json (`auths`) and the kubelet's matching: by host, then by the longest path prefix.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::reference::{DEFAULT_DOMAIN, Reference};

#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// A key of `auths`: `https://index.docker.io/v1/`, `registry.example:5000`, `host/team`, …
    pub registry: String,
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} for {:?})", self.username, self.registry)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("invalid docker config: {0}")]
pub struct InvalidDockerConfig(String);

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
}

impl Credentials {
    /// All credentials of a `config.json` or `.dockerconfigjson`.
    pub fn from_docker_config(bytes: &[u8]) -> Result<Vec<Credentials>, InvalidDockerConfig> {
        let config: DockerConfig = serde_json::from_slice(bytes).map_err(|e| InvalidDockerConfig(e.to_string()))?;
        let mut found = Vec::new();
        for (registry, entry) in config.auths {
            let (mut username, mut password) = (entry.username, entry.password);
            if !entry.auth.is_empty() {
                let bad = || InvalidDockerConfig(format!("auth of {registry:?} is not base64 of user:password"));
                let text = STANDARD.decode(entry.auth.trim()).map_err(|_| bad())?;
                let text = String::from_utf8(text).map_err(|_| bad())?;
                let (user, secret) = text.split_once(':').ok_or_else(bad)?;
                // Docker pads short passwords with NULs.
                (username, password) = (user.to_owned(), secret.trim_end_matches('\0').to_owned());
            }
            if !username.is_empty() {
                found.push(Credentials { registry, username, password });
            }
        }
        Ok(found)
    }

    /// How specifically this entry speaks of the reference: `None`, or the length of its path.
    fn matches(&self, reference: &Reference) -> Option<usize> {
        let key = self.registry.split_once("://").map_or(self.registry.as_str(), |(_, rest)| rest);
        let (host, path) = key.split_once('/').unwrap_or((key, ""));
        // Docker Hub's key is a URL with an API version for a path.
        let (host, path) = match host {
            "index.docker.io" | "registry-1.docker.io" => (DEFAULT_DOMAIN, ""),
            host => (host, path.trim_matches('/')),
        };
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        let host_matches = match host.strip_prefix("*.") {
            Some(suffix) => reference.domain.split_once('.').is_some_and(|(_, rest)| rest == suffix),
            None => host == reference.domain,
        };
        let below = path.is_empty() || reference.path == path || reference.path.starts_with(&format!("{path}/"));
        (host_matches && below).then_some(path.len())
    }

    /// Those that apply to a reference, the most specific first.
    pub fn for_reference<'a>(all: &'a [Credentials], reference: &Reference) -> Vec<&'a Credentials> {
        let mut found: Vec<_> = all.iter().filter_map(|c| Some((c.matches(reference)?, c))).collect();
        found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        found.into_iter().map(|(_, c)| c).collect()
    }

    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }
}

#[derive(Debug, PartialEq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// `Bearer realm="https://auth…",service="registry",scope="repository:x:pull"` (RFC 9110 §11.6.1, one challenge).
pub fn parse_challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut fields = BTreeMap::new();
    let mut rest = rest.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_lowercase();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        fields.insert(name, value.to_owned());
        rest = after.trim_start_matches([' ', ',']);
    }
    Some(Challenge::Bearer { realm: fields.remove("realm")?, service: fields.remove("service"), scope: fields.remove("scope") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_config() {
        let auth = STANDARD.encode("me:se:cret");
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"r.example:5000":{{"username":"u","password":"p"}},
            "r.example:5000/team":{{"username":"t","password":"p"}},"*.corp.io":{{"username":"c","password":"p"}},"empty":{{}}}},"credsStore":"x"}}"#
        );
        let all = Credentials::from_docker_config(text.as_bytes()).unwrap();
        let users = |name: &str| -> Vec<&str> {
            Credentials::for_reference(&all, &Reference::parse(name).unwrap()).iter().map(|c| c.username.as_str()).collect()
        };
        assert_eq!(all.iter().find(|c| c.username == "me").unwrap().password, "se:cret");
        assert_eq!(users("alpine"), ["me"]);
        assert_eq!(users("r.example:5000/x"), ["u"]);
        assert_eq!(users("r.example:5000/team/x"), ["t", "u"]);
        assert_eq!(users("r.example:5000/teamwork"), ["u"]);
        assert_eq!(users("a.corp.io/x"), ["c"]);
        assert!(users("other.io/x").is_empty());
        assert!(Credentials::from_docker_config(b"{").is_err());
        assert!(Credentials::from_docker_config(br#"{"auths":{"x":{"auth":"!"}}}"#).is_err());
        assert!(!format!("{all:?}").contains("cret"), "passwords are not printed");
    }

    #[test]
    fn challenges() {
        let parsed = parse_challenge(r#"Bearer realm="https://a/t?x=1,2",service="reg",scope="repository:a/b:pull,push""#).unwrap();
        let Challenge::Bearer { realm, service, scope } = parsed else { panic!() };
        assert_eq!(realm, "https://a/t?x=1,2");
        assert_eq!((service.as_deref(), scope.as_deref()), (Some("reg"), Some("repository:a/b:pull,push")));
        assert_eq!(parse_challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        for bad in ["Bearer", "Bearer service=x", "Digest realm=\"x\"", "Bearer realm=\"x", ""] {
            assert_eq!(parse_challenge(bad), None, "{bad}");
        }
    }
}
