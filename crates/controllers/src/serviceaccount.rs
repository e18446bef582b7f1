//! Runs [`plan::serviceaccount`], by namespace.

use std::sync::Arc;

use api::Status;
use client::{BoxFuture, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::replicaset::Failure;
use plan::serviceaccount::{ACCOUNT, ROOT_CA, View};

use crate::informers::{Informers, itself};
use crate::runner::Controller;

pub struct ServiceAccounts {
    pub informers: Arc<Informers>,
    pub certificate: Arc<str>,
}

impl ServiceAccounts {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.informers.namespaces, &queue);
        let accounts = queue.clone();
        self.informers.service_accounts.on_change(move |change| {
            if change.new.is_none() && &*change.key.name == ACCOUNT {
                accounts.add(ObjectKey::new("", &change.key.namespace));
            }
        });
        let maps = queue.clone();
        self.informers.config_maps.on_change(move |change| maps.add(ObjectKey::new("", &change.key.namespace)));
        queue
    }
}

impl Controller for ServiceAccounts {
    type Key = ObjectKey;
    const NAME: &'static str = "service-account-controller";
    const QUEUE: &'static str = "serviceaccount";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let view = self.informers.namespaces.cache().get("", &key.name).map(|namespace| View {
            namespace,
            account: self.informers.service_accounts.cache().get(&key.name, ACCOUNT),
            root_ca: self.informers.config_maps.cache().get(&key.name, ROOT_CA),
            certificate: self.certificate.clone(),
        });
        let plan = view.map(|view| plan::serviceaccount::plan(&view)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}
