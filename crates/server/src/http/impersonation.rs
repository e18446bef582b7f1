//! Acting as somebody else: `kubectl --as`, for whom that is allowed.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>

use std::collections::BTreeMap;
use std::sync::Arc;

use ::api::Status;
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
        return Err(Status::bad_request("requested impersonation without impersonating a user"));
    }
    Ok(Some(asked))
}

/// The user the request is to be judged as.
pub async fn apply(api: &Api, user: Arc<User>, headers: &HeaderMap) -> Result<Arc<User>, Status> {
    let Some(Asked { name, uid, mut groups, extra }) = asked(headers)? else { return Ok(user) };
    let ask = async |group: &str, resource: &str, namespace: &str, name: &str, subresource: &str| {
        let asked = Attributes { verb: "impersonate".into(), group: group.into(), resource: resource.into(), subresource: subresource.into(), namespace: namespace.into(), name: name.into(), ..Attributes::default() };
        authorization::require(api, &user, &asked).await
    };
    // What only looks like an account's name is any user's: by it nobody gets the groups of accounts.
    let is_name = |(namespace, account): &(&str, &str)| ::api::names::dns_label(namespace).is_empty() && ::api::names::dns_subdomain(account).is_empty();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')).filter(is_name);
    match account {
        Some((namespace, account)) => ask("", "serviceaccounts", namespace, account, "").await?,
        None => ask("", "users", "", &name, "").await?,
    }
    for group in &groups {
        ask("", "groups", "", group, "").await?;
    }
    if !uid.is_empty() {
        ask("authentication.k8s.io", "uids", "", &uid, "").await?;
    }
    for (key, values) in &extra {
        for value in values {
            ask("authentication.k8s.io", "userextras", "", value, key).await?;
        }
    }
    if let Some((namespace, _)) = account.filter(|_| groups.is_empty()) {
        groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let own = if name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(own.into());
    }
    Ok(Arc::new(User { name, uid, groups, extra }))
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
