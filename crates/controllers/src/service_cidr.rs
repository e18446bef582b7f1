//! Runs [`plan::service_cidr`] and [`plan::ip_address`]: the ranges of Services, and that each ClusterIP has its IPAddress.

use std::sync::Arc;

use api::Status;
use api::k8s::api::core::v1::Service;
use api::k8s::api::networking::v1::{IPAddress, ServiceCIDR};
use client::{BoxFuture, Client, ObjectKey, Queue, Target};
use jiff::Timestamp;
use plan::Plan;
use plan::ip_address::{AddressView, ServiceView, cluster_ips, service_of};
use plan::replicaset::Failure;
use plan::service_cidr::{View, neighbours, ranges};

use crate::informers::{Informers, itself};
use crate::runner::Controller;

pub struct ServiceCidrs(pub Arc<Informers>);

impl ServiceCidrs {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.service_cidrs, &queue);
        // A range that is there anew may let another one go.
        let (cidrs, inbox) = (self.0.service_cidrs.cache().clone(), queue.clone());
        self.0.service_cidrs.on_change(move |change| {
            for cidr in [&change.old, &change.new].into_iter().flatten().filter_map(|object| object.typed::<ServiceCIDR>().ok()) {
                neighbours(&cidr, &cidrs.list()).into_iter().for_each(|name| inbox.add(ObjectKey::new("", &name)));
            }
        });
        let (cidrs, inbox) = (self.0.service_cidrs.cache().clone(), queue.clone());
        self.0.ip_addresses.on_change(move |change| {
            let Ok(address) = change.key.name.parse() else { return };
            // Of a range that stays nothing changes.
            for cidr in cidrs.list().iter().filter(|cidr| plan::meta::deleting(cidr.as_ref()) && ranges(cidr).any(|range| range.offers(address))) {
                inbox.add(ObjectKey::new("", plan::meta::name(cidr.as_ref())));
            }
        });
        queue
    }
}

impl Controller for ServiceCidrs {
    type Key = ObjectKey;
    const NAME: &'static str = "service-cidr-controller";
    const QUEUE: &'static str = "ipaddresses";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move {
            let Some(cidr) = self.0.service_cidrs.cache().get("", &key.name) else { return Ok(Plan::default()) };
            let addresses = if plan::meta::deleting(cidr.as_ref()) { self.0.ip_addresses.cache().list() } else { Vec::new() };
            Ok(plan::service_cidr::plan(&View { cidr, cidrs: self.0.service_cidrs.cache().list(), addresses }, now))
        })
    }
}

/// Services whose addresses lack their IPAddress.
pub struct ServiceAddresses {
    pub informers: Arc<Informers>,
    pub client: Client,
}

impl ServiceAddresses {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.informers.services, &queue);
        let (services, inbox) = (self.informers.services.cache().clone(), queue.clone());
        self.informers.ip_addresses.on_change(move |change| {
            // Its Service looks after one that is gone or was changed.
            let Some(address) = change.old.as_ref().and_then(|object| object.typed::<IPAddress>().ok()) else { return };
            if let Some((namespace, name)) = service_of(&address)
                && services.get(namespace, name).is_some()
            {
                inbox.add(ObjectKey::new(namespace, name));
            }
        });
        queue
    }

    /// Out of the cache, or of the server: the cache may know a Service before it knows its addresses, though they are older.
    async fn address(&self, name: &str) -> Result<Option<Arc<IPAddress>>, Status> {
        if let Some(known) = self.informers.ip_addresses.cache().get("", name) {
            return Ok(Some(known));
        }
        let target = Target { group: "networking.k8s.io".into(), version: "v1".into(), plural: "ipaddresses".into(), name: Some(name.to_owned()), ..Target::default() };
        match self.client.transport().get(&target).await {
            Ok(object) => object.typed().map(Some).map_err(Status::internal),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    fn service(&self, address: &IPAddress) -> Option<Arc<Service>> {
        let (namespace, name) = service_of(address)?;
        self.informers.services.cache().get(namespace, name)
    }
}

impl Controller for ServiceAddresses {
    type Key = ObjectKey;
    const NAME: &'static str = "ipallocator-repair-controller";
    const QUEUE: &'static str = "services";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move {
            let Some(service) = self.informers.services.cache().get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
            let mut found = Vec::new();
            for ip in cluster_ips(&service) {
                found.extend(self.address(&ip.to_string()).await?);
            }
            let addresses = found.into_iter().map(|address| (address.clone(), self.service(&address).filter(|other| plan::meta::uid(other.as_ref()) != plan::meta::uid(service.as_ref())))).collect();
            Ok(plan::ip_address::plan_service(&ServiceView { service, addresses, cidrs: self.informers.service_cidrs.cache().list() }))
        })
    }
}

/// IPAddresses whose Service is gone.
pub struct LeakedAddresses(pub Arc<Informers>);

impl LeakedAddresses {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.ip_addresses, &queue);
        let (addresses, inbox) = (self.0.ip_addresses.cache().clone(), queue.clone());
        self.0.services.on_change(move |change| {
            for service in change.old.iter().filter_map(|object| object.typed::<Service>().ok()) {
                for ip in cluster_ips(&service).into_iter().map(|ip| ip.to_string()).filter(|ip| addresses.get("", ip).is_some()) {
                    inbox.add(ObjectKey::new("", &ip));
                }
            }
        });
        queue
    }
}

impl Controller for LeakedAddresses {
    type Key = ObjectKey;
    const NAME: &'static str = "ipallocator-repair-controller";
    const QUEUE: &'static str = "ipaddresses";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move {
            let Some(address) = self.0.ip_addresses.cache().get("", &key.name) else { return Ok(Plan::default()) };
            let service = service_of(&address).and_then(|(namespace, name)| self.0.services.cache().get(namespace, name));
            Ok(plan::ip_address::plan_address(&AddressView { address, service }, now))
        })
    }
}
