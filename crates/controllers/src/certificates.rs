//! Runs [`plan::certificates`]; who reads and signs requests comes from outside, for this crate holds no keys.

use std::sync::Arc;

use api::Status;
use api::k8s::api::certificates::v1::CertificateSigningRequest;
use client::{Body, BoxFuture, Client, ObjectKey, Queue, Target, WriteOptions};
use jiff::Timestamp;
use plan::Plan;
use plan::certificates::{Facts, View, rights, signable};
use plan::replicaset::Failure;
use serde_json::json;

use crate::informers::{Informers, itself};
use crate::runner::Controller;

/// The cluster's CA, as far as signing requests are concerned. Requests are PEM.
pub trait Signer: Send + Sync {
    fn read(&self, request: &[u8]) -> Result<Facts, String>;
    /// For how many seconds its certificates are good at most, and where nothing else is wished.
    fn longest_seconds(&self) -> i64;
    /// The certificate in PEM, with exactly these usages.
    fn sign(&self, request: &[u8], usages: &[String], seconds: i64, now: Timestamp) -> Result<String, String>;
}

pub struct Certificates {
    pub informers: Arc<Informers>,
    pub client: Client,
    pub signer: Arc<dyn Signer>,
}

impl Certificates {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.informers.signing_requests, &queue);
        queue
    }

    /// Whether the requester may create such requests (`certificatesigningrequests/nodeclient`).
    async fn may(&self, request: &CertificateSigningRequest, right: &str) -> Result<bool, Status> {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": {
            "user": request.spec.username, "uid": request.spec.uid, "groups": request.spec.groups, "extra": request.spec.extra,
            "resourceAttributes": {"group": "certificates.k8s.io", "version": "*", "resource": "certificatesigningrequests", "subresource": right, "verb": "create"},
        }});
        let target = Target { group: "authorization.k8s.io".into(), version: "v1".into(), plural: "subjectaccessreviews".into(), ..Target::default() };
        let answer = self.client.transport().create(&target, Body::Value(review), &WriteOptions::default()).await?;
        Ok(answer.value().map_err(Status::internal)?.pointer("/status/allowed").and_then(|allowed| allowed.as_bool()) == Some(true))
    }

    async fn load(&self, name: &str, now: Timestamp) -> Result<Option<View>, Status> {
        let Some(request) = self.informers.signing_requests.cache().get("", name) else { return Ok(None) };
        let facts = self.signer.read(&request.spec.request.0);
        let (mut right, mut certificate) = (None, None);
        if let Ok(facts) = &facts {
            for candidate in rights(&request, facts) {
                if self.may(&request, candidate).await? {
                    right = Some(candidate);
                    break;
                }
            }
            certificate = signable(&request, facts, self.signer.longest_seconds()).map(|seconds| self.signer.sign(&request.spec.request.0, request.spec.usages.as_deref().unwrap_or(&[]), seconds, now));
        }
        Ok(Some(View { request, facts, right, certificate }))
    }
}

impl Controller for Certificates {
    type Key = ObjectKey;
    const NAME: &'static str = "certificate-controller";
    const QUEUE: &'static str = "certificate";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move { Ok(self.load(&key.name, now).await?.map(|view| plan::certificates::plan(&view, now)).unwrap_or_default()) })
    }
}
