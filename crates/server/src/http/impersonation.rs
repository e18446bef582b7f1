//! Acting as somebody else: `kubectl --as`, for whom that is allowed.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>, with constrained impersonation (KEP 5284): apiserver's
//! endpoints/filters/impersonation, without its caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::api::Status;
use ::api::validation::go_quote;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::api::Api;
use crate::authentication::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};
use crate::authorization::{self, Attributes};

const EXTRA_PREFIX: &str = "impersonate-extra-";

/// Whom the request is to be judged as.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Names may be any text. What is none refuses the request: passed over, it would be judged as its sender, who may do more than whoever was meant.
fn text(value: &HeaderValue) -> Result<String, Status> {
    std::str::from_utf8(value.as_bytes()).map(str::to_owned).map_err(|_| Status::bad_request("a header of the impersonation is not UTF-8"))
}

fn asked(headers: &HeaderMap) -> Result<Option<Asked>, Status> {
    let first = |name: &str| headers.get(name).map_or_else(|| Ok(String::new()), text);
    let mut asked = Asked { name: first("impersonate-user")?, uid: first("impersonate-uid")?, ..Asked::default() };
    asked.groups = headers.get_all("impersonate-group").iter().map(text).collect::<Result<_, _>>()?;
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) {
            asked.extra.entry(percent_decode_str(key).decode_utf8_lossy().into_owned()).or_default().push(text(value)?);
        }
    }
    if asked == Asked::default() {
        return Ok(None);
    }
    if asked.name.is_empty() {
        // Go's `%#v`.
        let list = |list: &[String]| if list.is_empty() { "[]string(nil)".to_owned() } else { format!("[]string{{{}}}", list.iter().map(|text| go_quote(text)).collect::<Vec<_>>().join(", ")) };
        let extra: Vec<String> = asked.extra.iter().map(|(key, values)| format!("{}:{}", go_quote(key), list(values))).collect();
        let extra = if extra.is_empty() { "map[string][]string(nil)".to_owned() } else { format!("map[string][]string{{{}}}", extra.join(", ")) };
        return Err(Status::bad_request(format!("requested &user.DefaultInfo{{Name:\"\", UID:{}, Groups:{}, Extra:{extra}}} without impersonating a user name", go_quote(&asked.uid), list(&asked.groups))));
    }
    Ok(Some(asked))
}

/// Ways of acting as somebody that are granted by themselves, and only for what is done so: whoever may `impersonate-on:<mode>:<verb>` what the request is about, and
/// `impersonate:<mode>` that user. In the order in which they are tried; who is granted none of them may still be granted all of it, as ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A service account's pod as the node it runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
}

const MODES: [Mode; 4] = [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo];
const NODE_PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";
const MASTERS: &str = "system:masters";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";

fn node_of(name: &str) -> Option<&str> {
    name.strip_prefix(NODE_PREFIX).filter(|node| ::api::names::dns_subdomain(node).is_empty())
}

/// What only looks like an account's name is any user's: by it nobody gets the groups of accounts.
fn account_of(name: &str) -> Option<(&str, &str)> {
    let is_name = |(namespace, account): &(&str, &str)| ::api::names::dns_label(namespace).is_empty() && ::api::names::dns_subdomain(account).is_empty();
    name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')).filter(is_name)
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
        }
    }

    /// Whether it is for this user at all.
    fn is_for(self, asked: &Asked, requestor: &User) -> bool {
        let only_named = asked.uid.is_empty() && asked.groups.is_empty() && asked.extra.is_empty();
        let (node, account) = (node_of(&asked.name), account_of(&asked.name));
        match self {
            Self::AssociatedNode => {
                let own = requestor.extra.get(NODE_NAME).and_then(|nodes| if let [one] = nodes.as_slice() { Some(one.as_str()) } else { None });
                only_named && node.is_some() && node == own && account_of(&requestor.name).is_some()
            }
            Self::ArbitraryNode => only_named && node.is_some(),
            Self::ServiceAccount => only_named && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
        }
    }

    /// What the mode never allows.
    fn forbids(asked: &Asked) -> Option<(&'static str, String)> {
        if asked.groups.iter().any(String::is_empty) {
            return Some(("groups", "impersonating the empty string group is not allowed".into()));
        }
        if asked.groups.iter().any(|group| group == MASTERS) {
            return Some(("groups", "impersonating the system:masters group is not allowed".into()));
        }
        asked.extra.iter().find_map(|(key, values)| {
            let prefixed = key.split_once('/').is_some_and(|(domain, path)| ::api::names::dns_subdomain(domain).is_empty() && !path.is_empty() && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)));
            let why = match key.as_str() {
                "" => "impersonating the empty string key in extra is not allowed".to_owned(),
                key if !prefixed => format!("impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: must be a domain-prefixed path (such as \"acme.io/foo\")"),
                key if key.to_lowercase() != key => format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"),
                _ if values.iter().any(String::is_empty) => "impersonating the empty string value in extra is not allowed".to_owned(),
                _ => return None,
            };
            Some(("userextras", why))
        })
    }
}

fn attributes(group: &str, verb: &str, resource: &str, name: &str) -> Attributes {
    Attributes { verb: verb.into(), group: group.into(), version: "v1".into(), resource: resource.into(), name: name.into(), ..Attributes::default() }
}

/// Whether `requestor` may be `asked` by `verb`; then whom the request is judged as. Without a mode it is the way it was before there were any.
async fn checked(api: &Api, requestor: &User, asked: &Asked, mode: Option<Mode>) -> Result<User, Status> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let verb = mode.map_or_else(|| "impersonate".to_owned(), |mode| format!("impersonate:{}", mode.name()));
    let own_group = if mode.is_some() { AUTHENTICATION } else { "" };
    let ask = async |wanted: Attributes| authorization::require(api, requestor, &wanted).await;
    let mut groups = asked.groups.clone();
    let mut who = attributes(own_group, &verb, "users", &asked.name);
    if let Some(node) = node_of(&asked.name).filter(|_| mode.is_some()) {
        who.resource = "nodes".into();
        // What is granted is the node one runs on, whichever that is.
        who.name = if mode == Some(Mode::AssociatedNode) { "*" } else { node }.into();
        groups = vec![NODES.into()];
    }
    if let Some((namespace, account)) = account_of(&asked.name) {
        (who.resource, who.namespace, who.name) = ("serviceaccounts".into(), namespace.into(), account.into());
        if groups.is_empty() {
            groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
    }
    ask(who).await?;
    if !asked.uid.is_empty() {
        ask(attributes(AUTHENTICATION, &verb, "uids", &asked.uid)).await?;
    }
    if mode.is_some()
        && let Some((resource, why)) = Mode::forbids(asked)
    {
        let group = if resource == "groups" { own_group } else { AUTHENTICATION };
        return Err(authorization::refusal(requestor, &attributes(group, &verb, resource, ""), &why));
    }
    for group in &asked.groups {
        ask(attributes(own_group, &verb, "groups", group)).await?;
    }
    for (key, values) in &asked.extra {
        for value in values {
            ask(Attributes { subresource: key.clone(), ..attributes(AUTHENTICATION, &verb, "userextras", value) }).await?;
        }
    }
    let has = |wanted: &str| groups.iter().any(|group| group == wanted);
    let missing = match asked.name.as_str() {
        ANONYMOUS => (!has(UNAUTHENTICATED)).then_some(UNAUTHENTICATED),
        _ => (!has(AUTHENTICATED) && !has(UNAUTHENTICATED)).then_some(AUTHENTICATED),
    };
    groups.extend(missing.map(str::to_owned));
    Ok(User { name: asked.name.clone(), uid: asked.uid.clone(), groups, extra: asked.extra.clone() })
}

/// `on` is what the request is about.
async fn constrained(api: &Api, requestor: &User, asked: &Asked, on: &Attributes, mode: Mode) -> Result<User, Status> {
    let mut requestor = requestor.clone();
    if mode == Mode::AssociatedNode {
        // Which pod and node it is decides nothing but that they belong together.
        requestor.extra = BTreeMap::from([(NODE_KEYS.to_owned(), requestor.extra.keys().cloned().collect())]);
    }
    let on = Attributes { verb: format!("impersonate-on:{}:{}", mode.name(), on.verb), ..on.clone() };
    authorization::require(api, &requestor, &on).await?;
    checked(api, &requestor, asked, Some(mode)).await
}

/// The user the request, which is about `on`, is to be judged as; and the verb that allowed it, if it is one of a mode.
pub async fn apply(api: &Api, user: Arc<User>, headers: &HeaderMap, on: &Attributes) -> Result<(Arc<User>, Option<String>), Status> {
    let Some(asked) = asked(headers)? else { return Ok((user, None)) };
    let mut first = None;
    for mode in MODES.into_iter().filter(|mode| mode.is_for(&asked, &user)) {
        match constrained(api, &user, &asked, on, mode).await {
            Ok(judged) => return Ok((Arc::new(judged), Some(format!("impersonate:{}", mode.name())))),
            Err(status) => first = first.or(Some(status)),
        }
    }
    match checked(api, &user, &asked, None).await {
        Ok(judged) => Ok((Arc::new(judged), None)),
        Err(status) => Err(first.unwrap_or(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &[u8])]) -> Result<Option<Asked>, u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        asked(&map).map_err(|status| status.code)
    }

    #[test]
    fn nobody_is_passed_over() {
        assert_eq!(of(&[("accept", b"*/*")]), Ok(None));
        // Upstream takes the first, and any text is a name.
        let jane = of(&[("impersonate-user", "jörg".as_bytes()), ("impersonate-user", b"other"), ("impersonate-group", b"a"), ("impersonate-extra-k%2fx", b"v")]).unwrap().unwrap();
        assert_eq!((jane.name.as_str(), jane.groups.join(" ").as_str(), jane.extra["k/x"].join(" ").as_str()), ("jörg", "a", "v"));
        for strange in [&[("impersonate-user", &b"\xff"[..])][..], &[("impersonate-user", b"jane"), ("impersonate-group", b"\xff")], &[("impersonate-group", b"a")], &[("impersonate-uid", b"1")]] {
            assert_eq!(of(strange), Err(400), "{strange:?}");
        }
    }
}
