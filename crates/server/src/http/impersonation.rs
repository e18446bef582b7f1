//! Acting as somebody else: `kubectl --as`, for whom that is allowed.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>

use std::collections::BTreeMap;
use std::sync::Arc;

use ::api::Status;
use http::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::api::Api;
use crate::authentication::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};
use crate::authorization::{self, Attributes};

const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user the request is to be judged as.
pub async fn apply(api: &Api, user: Arc<User>, headers: &HeaderMap) -> Result<Arc<User>, Status> {
    let texts = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect::<Vec<_>>();
    let (name, uid, mut groups) = (texts("impersonate-user").pop().unwrap_or_default(), texts("impersonate-uid").pop().unwrap_or_default(), texts("impersonate-group"));
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let (Some(key), Ok(value)) = (header.as_str().strip_prefix(EXTRA_PREFIX), value.to_str()) {
            extra.entry(percent_decode_str(key).decode_utf8_lossy().into_owned()).or_default().push(value.to_owned());
        }
    }
    if name.is_empty() {
        if !uid.is_empty() || !groups.is_empty() || !extra.is_empty() {
            return Err(Status::bad_request("requested impersonation without impersonating a user"));
        }
        return Ok(user);
    }
    let ask = async |group: &str, resource: &str, namespace: &str, name: &str, subresource: &str| {
        let asked = Attributes { verb: "impersonate".into(), group: group.into(), resource: resource.into(), subresource: subresource.into(), namespace: namespace.into(), name: name.into(), ..Attributes::default() };
        authorization::require(api, &user, &asked).await
    };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
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
