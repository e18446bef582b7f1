//! Users whom a proxy in front has authenticated, and tells in headers; it proves itself by a certificate of an authority of its own.
//!
//! Mirrors apiserver/pkg/authentication/request/headerrequest: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use super::User;

/// `--requestheader-…`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// PEM of who signs the proxies' certificates.
    pub authority_pem: String,
    /// Empty: any that the authority has signed.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl RequestHeader {
    /// With upstream's usual names of headers, as kubeadm sets them.
    pub fn usual(authority_pem: String, allowed_names: Vec<String>) -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self { authority_pem, allowed_names, username_headers: one("X-Remote-User"), uid_headers: one("X-Remote-Uid"), group_headers: one("X-Remote-Group"), extra_prefixes: one("X-Remote-Extra-") }
    }

    /// `proxy` is the name in the certificate of the connection.
    pub fn authenticate(&self, proxy: &str, headers: &HeaderMap) -> Option<User> {
        if !self.allowed_names.is_empty() && !self.allowed_names.iter().any(|name| name == proxy) {
            return None;
        }
        // Names may be any text.
        let text = |value: &HeaderValue| std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned);
        let texts = |name: &str| headers.get_all(name).iter().filter_map(text).collect::<Vec<_>>();
        let first = |names: &[String]| names.iter().flat_map(|name| texts(name)).find(|text| !text.is_empty());
        let name = first(&self.username_headers)?;
        let uid = first(&self.uid_headers).unwrap_or_default();
        let groups = self.group_headers.iter().flat_map(|name| texts(name)).collect();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let key = self.extra_prefixes.iter().find_map(|prefix| header.as_str().strip_prefix(prefix.to_lowercase().as_str()));
            if let (Some(key), Some(value)) = (key, text(value)) {
                extra.entry(percent_decode_str(key).decode_utf8_lossy().into_owned()).or_default().push(value);
            }
        }
        Some(User { name, uid, groups, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_in_headers() {
        let config = RequestHeader::usual(String::new(), vec!["front".into()]);
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-remote-user", "jörg"), ("x-remote-group", "dev"), ("x-remote-group", "ops"), ("x-remote-extra-scopes%2fa", "x"), ("x-remote-uid", "7")] {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let user = config.authenticate("front", &headers).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str(), user.groups.join(" ")), ("jörg", "7", "dev ops".to_owned()));
        assert_eq!(user.extra["scopes/a"], ["x"]);
        assert_eq!(config.authenticate("other", &headers), None);
        assert_eq!(config.authenticate("front", &HeaderMap::new()), None);
    }
}
