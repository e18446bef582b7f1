//! Token Secrets (`kubernetes.io/service-account-token`): the older way to a ServiceAccount's token, still asked for by some tools.
//!
//! Watches: those Secrets and ServiceAccounts. Writes: the Secret's data and uid annotation; deletes it when its account is gone.
//! The token itself is asked of the API server (TokenRequest), bound to the Secret: deleting the Secret revokes it. Mirrors `pkg/controller/serviceaccount/tokens_controller.go`.

use std::sync::Arc;

use api::k8s::ByteString;
use api::k8s::api::core::v1::{Secret, ServiceAccount};

use crate::meta::{annotation, deleting, name, namespace, uid};
use crate::op::{Op, Plan};

pub const TYPE: &str = "kubernetes.io/service-account-token";
pub const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

pub struct View {
    pub secret: Arc<Secret>,
    /// The account it names, as the server has it.
    pub account: Option<Arc<ServiceAccount>>,
    /// A fresh token, if `needs_token` said so.
    pub token: Option<String>,
    pub certificate: Arc<str>,
}

fn has(secret: &Secret, key: &str) -> bool {
    secret.data.as_ref().and_then(|data| data.get(key)).is_some_and(|value| !value.0.is_empty())
}

/// Whether a token must be made for it.
pub fn needs_token(secret: &Secret) -> bool {
    !deleting(secret) && !has(secret, "token")
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let secret = view.secret.as_ref();
    if deleting(secret) {
        return plan;
    }
    let wanted_uid = annotation(secret, ACCOUNT_UID).filter(|uid| !uid.is_empty());
    let account = view.account.as_deref().filter(|account| wanted_uid.is_none_or(|wanted| wanted == uid(*account)));
    let Some(account) = account else {
        // Its account is gone (or another by now): the token is worth nothing.
        plan.push(Op::delete(secret));
        return plan;
    };
    let mut new = secret.clone();
    new.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.to_owned(), uid(account).to_owned());
    let data = new.data.get_or_insert_default();
    data.insert("ca.crt".to_owned(), ByteString(view.certificate.as_bytes().to_vec()));
    data.entry("namespace".to_owned()).or_insert_with(|| ByteString(namespace(secret).as_bytes().to_vec()));
    if let (false, Some(token)) = (has(secret, "token"), &view.token) {
        data.insert("token".to_owned(), ByteString(token.as_bytes().to_vec()));
    }
    if new != *secret {
        plan.push(Op::replace(&new));
    }
    plan
}

/// The account a Secret is for.
pub fn account_of(secret: &Secret) -> Option<&str> {
    annotation(secret, ACCOUNT_NAME).filter(|account| !account.is_empty() && !name(secret).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn filled_kept_and_removed() {
        let secret = |uid: &str, token: &str| -> Arc<Secret> {
            Arc::new(serde_json::from_value(json!({"metadata": {"name": "t", "namespace": "ns", "annotations": {ACCOUNT_NAME: "a", ACCOUNT_UID: uid}}, "type": TYPE, "data": {"token": token}})).unwrap())
        };
        let account: Arc<ServiceAccount> =
            Arc::new(serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "ns", "uid": "1"}})).unwrap());
        let view = |secret: Arc<Secret>, account: Option<Arc<ServiceAccount>>| View {
            secret,
            account,
            token: Some("TOKEN".into()),
            certificate: "CA".into(),
        };
        let plan_of = |view: &View| plan(view);
        let filled = plan_of(&view(secret("", ""), Some(account.clone())));
        let Op::Replace { object, .. } = &filled.ops[0] else { panic!("{filled}") };
        assert_eq!(object["data"], json!({"ca.crt": "Q0E=", "namespace": "bnM=", "token": "VE9LRU4="}));
        let again: Arc<Secret> = Arc::new(serde_json::from_value(object.clone()).unwrap());
        assert!(!needs_token(&again) && plan_of(&view(again, Some(account.clone()))).ops.is_empty());
        assert_eq!(plan_of(&view(secret("2", ""), Some(account))).to_string(), "delete Secret ns/t\n");
        assert_eq!(plan_of(&view(secret("", ""), None)).to_string(), "delete Secret ns/t\n");
    }
}
