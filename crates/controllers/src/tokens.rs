//! Runs [`plan::serviceaccount::tokens`].

use std::sync::Arc;

use api::Status;
use api::k8s::api::core::v1::{Secret, ServiceAccount};
use client::{BoxFuture, Client, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::meta;
use plan::replicaset::Failure;
use plan::serviceaccount::tokens::{View, account_of, needs_token, plan};
use serde_json::json;

use crate::informers::{Informers, itself};
use crate::runner::Controller;

/// How long such a token lasts: in practice until the Secret is deleted.
const SECONDS: i64 = 10 * 365 * 24 * 3600;

pub struct Tokens {
    pub informers: Arc<Informers>,
    pub client: Client,
    pub certificate: Arc<str>,
}

impl Tokens {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.informers.token_secrets, &queue);
        let (secrets, accounts) = (self.informers.token_secrets.cache().clone(), queue.clone());
        self.informers.service_accounts.on_change(move |change| {
            if change.old.is_some() && change.new.is_some() {
                return;
            }
            for secret in secrets.list_in(&change.key.namespace) {
                if account_of(&secret) == Some(&*change.key.name) {
                    accounts.add(ObjectKey::new(&change.key.namespace, meta::name(secret.as_ref())));
                }
            }
        });
        queue
    }

    async fn load(&self, key: &ObjectKey) -> Result<Option<View>, Status> {
        let Some(secret) = self.informers.token_secrets.cache().get(&key.namespace, &key.name) else { return Ok(None) };
        let Some(account_name) = account_of(&secret).map(str::to_owned) else { return Ok(None) };
        let accounts = self.client.of::<ServiceAccount>(Some(&key.namespace));
        // Asked of the server: a late cache must not cost a Secret.
        let account = match accounts.get(&account_name).await {
            Ok(account) => Some(account),
            Err(status) if status.is_not_found() => None,
            Err(status) => return Err(status),
        };
        let mut token = None;
        if account.is_some() && needs_token(&secret) {
            let request = json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [],
                    "expirationSeconds": SECONDS,
                    "boundObjectRef": {"apiVersion": "v1", "kind": <Secret as api::k8s::Resource>::KIND, "name": &*key.name, "uid": meta::uid(secret.as_ref())},
                },
            });
            let answer = accounts.create_subresource(&account_name, "token", &request).await?.value().map_err(Status::internal)?;
            token = answer.pointer("/status/token").and_then(serde_json::Value::as_str).map(str::to_owned);
        }
        Ok(Some(View { secret, account, token, certificate: self.certificate.clone() }))
    }
}

impl Controller for Tokens {
    type Key = ObjectKey;
    const NAME: &'static str = "serviceaccount-token-controller";
    const QUEUE: &'static str = "serviceaccount_tokens_service";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move { Ok(self.load(key).await?.map(|view| plan(&view)).unwrap_or_default()) })
    }
}
