//! Who asks: client certificates, service-account tokens, or anonymous.
//!
//! https://kubernetes.io/docs/reference/access-authn-authz/authentication/

use std::collections::BTreeMap;
use std::sync::Arc;

use ::api::Status;
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::Api;

pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
/// Members may do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";

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

    /// CN and O of a certificate that the TLS layer has verified.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let mut groups: Vec<String> = subject.iter_organization().filter_map(|part| part.as_str().ok()).map(str::to_owned).collect();
        groups.push(AUTHENTICATED.into());
        Some(Self { name, groups, ..Self::default() })
    }
}

impl Api {
    /// By the request's bearer token, else by the connection's certificate, else anonymous.
    pub fn authenticate(&self, authorization: Option<&str>, certificate: Option<&Arc<User>>) -> Result<Arc<User>, Status> {
        let token = authorization.and_then(|header| header.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        match token {
            Some("") | None => Ok(certificate.cloned().unwrap_or_else(|| Arc::new(User::anonymous()))),
            Some(token) => self.token_user(token, None).map(Arc::new).map_err(|_| Status::unauthorized()),
        }
    }

    /// The service account behind a token: signature, time, audience, and that what it is bound to still lives.
    pub fn token_user(&self, token: &str, audiences: Option<&[String]>) -> Result<User, String> {
        let claims = self.config.token_key.verify(token).map_err(|error| error.to_string())?;
        if claims["iss"].as_str() != Some(&self.config.service_account_issuer) {
            return Err("another issuer".into());
        }
        let now = self.clock.now().as_second();
        if claims["exp"].as_i64().is_none_or(|expires| expires <= now) {
            return Err("Token has expired".into());
        }
        if claims["nbf"].as_i64().is_some_and(|from| from > now) {
            return Err("the token is not valid yet".into());
        }
        let audience_ok = |wanted: &str| claims["aud"].as_array().is_some_and(|list| list.iter().any(|audience| audience == wanted));
        let accepted = match audiences {
            None | Some([]) => audience_ok(&self.config.service_account_issuer),
            Some(wanted) => wanted.iter().any(|audience| audience_ok(audience)),
        };
        if !accepted {
            return Err("token audiences do not fit".into());
        }
        let bound = &claims["kubernetes.io"];
        let namespace = bound["namespace"].as_str().unwrap_or("");
        let account = bound["serviceaccount"]["name"].as_str().unwrap_or("");
        let uid = bound["serviceaccount"]["uid"].as_str().unwrap_or("");
        let alive = |key: String, uid: &str| self.store.get(&key).is_some_and(|object| object.meta().uid == uid);
        if !alive(format!("/registry/serviceaccounts/{namespace}/{account}"), uid) {
            return Err("the service account has been deleted".into());
        }
        let mut extra = BTreeMap::new();
        if let Some(id) = claims["jti"].as_str() {
            extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
        }
        for (field, prefix, namespaced) in [("pod", "/registry/pods/", true), ("secret", "/registry/secrets/", true), ("node", "/registry/minions/", false)] {
            let Some(name) = bound[field]["name"].as_str() else { continue };
            let key = if namespaced { format!("{prefix}{namespace}/{name}") } else { format!("{prefix}{name}") };
            let uid = bound[field]["uid"].as_str().unwrap_or("");
            // A pod's token names its node too, which may be gone before the pod is.
            if field != "node" && !alive(key, uid) {
                return Err(format!("the {field} the token is bound to has been deleted"));
            }
            extra.insert(format!("authentication.kubernetes.io/{field}-name"), vec![name.to_owned()]);
            extra.insert(format!("authentication.kubernetes.io/{field}-uid"), vec![uid.to_owned()]);
        }
        Ok(service_account_user(namespace, account, uid, extra))
    }
}

pub fn service_account_user(namespace: &str, account: &str, uid: &str, extra: BTreeMap<String, Vec<String>>) -> User {
    User {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid: uid.to_owned(),
        groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}"), AUTHENTICATED.into()],
        extra,
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
