//! Between JSON and the types of `k8s-openapi`: the one place where the code for that is made.
//!
//! serde's code for a type as large as a Pod is some hundred kilobytes, and the compiler makes it anew in every crate that decodes one through a generic
//! function. So generic code asks for [`Typed`], and what it comes to is a plain function of this crate.

use crate::k8s::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use crate::k8s::api::authentication::v1::TokenRequest;
use crate::k8s::api::batch::v1::{CronJob, Job};
use crate::k8s::api::certificates::v1::CertificateSigningRequest;
use crate::k8s::api::coordination::v1::Lease;
use crate::k8s::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount};
use crate::k8s::api::discovery::v1::EndpointSlice;
use crate::k8s::api::networking::v1::{IPAddress, ServiceCIDR};
use crate::k8s::api::policy::v1::PodDisruptionBudget;
use crate::k8s::api::node::v1::RuntimeClass;
use crate::k8s::api::storage::v1::StorageClass;
use crate::k8s::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Result, Value};

/// A type of the API that is decoded from, and encoded to, JSON here.
pub trait Typed: Sized + Send + Sync + 'static {
    fn from_json(bytes: &[u8]) -> Result<Self>;
    fn from_value(value: &Value) -> Result<Self>;
    fn to_value(&self) -> Result<Value>;
}

macro_rules! typed {
    ($($name:ident),+ $(,)?) => {$(
        impl Typed for $name {
            #[inline(never)]
            fn from_json(bytes: &[u8]) -> Result<Self> {
                serde_json::from_slice(bytes)
            }

            #[inline(never)]
            fn from_value(value: &Value) -> Result<Self> {
                // By way of bytes: a second decoder of every type would be as large as the first.
                Self::from_json(&serde_json::to_vec(value)?)
            }

            #[inline(never)]
            fn to_value(&self) -> Result<Value> {
                serde_json::to_value(self)
            }
        }
    )+};
}

typed! {
    CertificateSigningRequest, ConfigMap, ControllerRevision, CronJob, CustomResourceDefinition, DaemonSet, Deployment, EndpointSlice, Endpoints, Event, IPAddress, Job, Lease, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodDisruptionBudget, ReplicaSet, ReplicationController, ResourceQuota, RuntimeClass, Secret, Service, ServiceAccount, ServiceCIDR, StatefulSet, StorageClass, TokenRequest
}
