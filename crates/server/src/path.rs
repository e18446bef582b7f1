//! What a request's URL names: a resource, or one of the other paths.
//!
//! Mirrors k8s.io/apiserver/pkg/endpoints/request `RequestInfo`: `/api/v1/…` and `/apis/<group>/<version>/…`.

use std::ops::Deref;

use client::Target;
use percent_encoding::percent_decode_str;

/// A URL under `/api/<version>/` or `/apis/<group>/<version>/` that names a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourcePath {
    pub target: Target,
    /// What follows the subresource (`proxy/metrics/cadvisor` → `metrics/cadvisor`).
    pub rest: String,
    /// The deprecated `/watch/` prefix was used.
    pub watch: bool,
}

/// A target, and how it was written.
impl Deref for ResourcePath {
    type Target = Target;

    fn deref(&self) -> &Target {
        &self.target
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Resource(ResourcePath),
    /// Everything else, as `/healthz` or `/apis/apps`.
    Other,
}

/// Subresources of a namespace; any other word in their place is a resource of that namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

pub fn parse(path: &str) -> Route {
    // Decoded before it is cut, as Go's URL.Path is: an encoded slash cuts too, and no name holds one.
    let path = percent_decode_str(path).decode_utf8_lossy();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, version, mut rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => (String::new(), version.to_string(), rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (group.to_string(), version.to_string(), rest),
        _ => return Route::Other,
    };
    let watch = rest[0] == "watch" && rest.len() > 1;
    if watch {
        rest = &rest[1..];
    }
    let mut target = Target { group, version, ..Target::default() };
    if rest[0] == "namespaces" && rest.len() >= 3 && !NAMESPACE_SUBRESOURCES.contains(&rest[2]) {
        target.namespace = Some(rest[1].to_string());
        rest = &rest[2..];
    } else if rest[0] == "namespaces" && rest.len() >= 2 {
        // RBAC's view of a namespace: the object lies in itself.
        target.namespace = Some(rest[1].to_string());
    }
    target.plural = rest[0].to_string();
    target.name = rest.get(1).map(|part| part.to_string());
    target.subresource = rest.get(2).map(|part| part.to_string());
    Route::Resource(ResourcePath { target, rest: rest.get(3..).unwrap_or_default().join("/"), watch })
}

/// The decoded pairs of a query string.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        Self(
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter that may be repeated.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub fn text(&self, key: &str) -> String {
        self.get(key).unwrap_or_default().to_owned()
    }

    /// As upstream's conversion of query parameters: `?watch` and `?watch=1` and `?watch=true` are true.
    pub fn flag(&self, key: &str) -> bool {
        match self.get(key) {
            None => false,
            Some(value) => value != "0" && !value.eq_ignore_ascii_case("false"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(path: &str) -> String {
        match parse(path) {
            Route::Other => "other".into(),
            Route::Resource(r) => format!(
                "{}/{} {} ns={} name={} sub={} rest={}{}",
                r.group,
                r.version,
                r.plural,
                r.namespace.as_deref().unwrap_or("-"),
                r.name.as_deref().unwrap_or("-"),
                r.subresource.as_deref().unwrap_or("-"),
                r.rest,
                if r.watch { " watch" } else { "" }
            ),
        }
    }

    #[test]
    fn routes() {
        let cases = [
            ("/", "other"),
            ("/api", "other"),
            ("/api/v1", "other"),
            ("/apis/apps/v1", "other"),
            ("/api/v1/pods", "/v1 pods ns=- name=- sub=- rest="),
            ("/api/v1/namespaces", "/v1 namespaces ns=- name=- sub=- rest="),
            ("/api/v1/namespaces/a", "/v1 namespaces ns=a name=a sub=- rest="),
            ("/api/v1/namespaces/a/finalize", "/v1 namespaces ns=a name=a sub=finalize rest="),
            ("/api/v1/namespaces/a/pods", "/v1 pods ns=a name=- sub=- rest="),
            ("/api/v1/namespaces/a/pods/p/log", "/v1 pods ns=a name=p sub=log rest="),
            ("/api/v1/nodes/n/proxy/metrics/cadvisor", "/v1 nodes ns=- name=n sub=proxy rest=metrics/cadvisor"),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", "apps/v1 deployments ns=a name=d sub=scale rest="),
            ("/api/v1/watch/namespaces/a/pods", "/v1 pods ns=a name=- sub=- rest= watch"),
            ("/api/v1/namespaces/a/configmaps/x%2Fy", "/v1 configmaps ns=a name=x sub=y rest="),
            ("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode", "rbac.authorization.k8s.io/v1 clusterroles ns=- name=system:node sub=- rest="),
        ];
        for (path, want) in cases {
            assert_eq!(words(path), want, "{path}");
        }
    }

    #[test]
    fn queries() {
        let query = Query::parse("watch=1&labelSelector=a%3Db%2Cc&x&y=false");
        assert!(query.flag("watch") && query.flag("x") && !query.flag("y") && !query.flag("z"));
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
    }
}
