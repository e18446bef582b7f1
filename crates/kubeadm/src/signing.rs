//! A certificate from the cluster: a key of one's own, a CertificateSigningRequest for it, and the wait for somebody to approve and sign it.
//!
//! Mirrors client-go's `util/certificate/csr`.

use std::time::Duration;

use api::Status;
use base64::Engine as _;
use client::{Client, ListOptions, WatchEvent, WatchOptions};
use futures_util::StreamExt as _;
use pki::{Identity, Request, Subject};
use serde_json::{Value, json};

use crate::rest::{self, SIGNING_REQUESTS};

pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    #[error("{0}")]
    Api(#[from] Status),
    #[error("certificate signing request {name} was denied: {why}")]
    Denied { name: String, why: String },
    #[error("certificate signing request {name} was not approved within {} s: `kubectl certificate approve {name}` does it by hand", .after.as_secs())]
    Late { name: String, after: Duration },
    #[error("the watch of certificate signing request {0} ended")]
    Ended(String),
}

/// What a node wants to be certified.
#[derive(Debug, Clone)]
pub struct Wish {
    pub signer: &'static str,
    pub node_name: String,
    /// None: as long as the signer gives.
    pub seconds: Option<i32>,
    /// How long to wait.
    pub patience: Duration,
}

fn object(wish: &Wish, request: &Request) -> Value {
    let usage = if wish.signer == SERVING_SIGNER { "server auth" } else { "client auth" };
    let mut spec = json!({"signerName": wish.signer, "usages": ["digital signature", usage], "request": base64::engine::general_purpose::STANDARD.encode(&request.request_pem)});
    if let Some(seconds) = wish.seconds {
        spec["expirationSeconds"] = seconds.into();
    }
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"generateName": "csr-"}, "spec": spec})
}

/// The certificate, or that there will be none.
fn outcome(request: &Value) -> Result<Option<String>, String> {
    for condition in request.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| condition[key].as_str().unwrap_or_default();
        if matches!(text("type"), "Denied" | "Failed") && text("status") != "False" {
            return Err(format!("{}: {}", text("reason"), text("message")));
        }
    }
    let encoded = request.pointer("/status/certificate").and_then(Value::as_str).unwrap_or_default();
    let pem = base64::engine::general_purpose::STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(pem.filter(|pem| !pem.is_empty()))
}

async fn wait(client: &Client, name: &str) -> Result<String, SigningError> {
    let target = SIGNING_REQUESTS.target(None, None);
    let field_selector = format!("metadata.name={name}");
    let judge = |value: &Value| outcome(value).map_err(|why| SigningError::Denied { name: name.to_owned(), why });
    loop {
        let list = client.transport().list(&target, &ListOptions { field_selector: field_selector.clone(), ..ListOptions::default() }).await?;
        for object in &list.items {
            if let Some(pem) = judge(&object.value().map_err(Status::internal)?)? {
                return Ok(pem);
            }
        }
        let options = WatchOptions { field_selector: field_selector.clone(), resource_version: list.resource_version, ..WatchOptions::default() };
        let mut events = client.transport().watch(&target, &options).await?;
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    if let Some(pem) = judge(&object.value().map_err(Status::internal)?)? {
                        return Ok(pem);
                    }
                }
                Ok(WatchEvent::Deleted(_)) => return Err(SigningError::Ended(name.to_owned())),
                Ok(WatchEvent::Bookmark { .. }) => {}
                // Too old, or the server restarts: looked at afresh.
                Err(_) => break,
            }
        }
    }
}

/// A new key and a certificate for it.
pub async fn sign(client: &Client, wish: &Wish) -> Result<Identity, SigningError> {
    let serving = wish.signer == SERVING_SIGNER;
    let subject = Subject {
        common_name: format!("system:node:{}", wish.node_name),
        organization: Some("system:nodes".into()),
        dns_names: if serving { vec![wish.node_name.clone()] } else { Vec::new() },
        // An address proves nothing: whoever dials a node asks for its name.
        addresses: Vec::new(),
    };
    let request = Request::new(&subject)?;
    let made = rest::create(client, &SIGNING_REQUESTS, object(wish, &request)).await?;
    let name = made.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let certificate_pem = tokio::time::timeout(wish.patience, wait(client, &name)).await.map_err(|_| SigningError::Late { name, after: wish.patience })??;
    Ok(Identity { certificate_pem, key_pem: request.key_pem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        assert_eq!(outcome(&json!({})), Ok(None));
        assert_eq!(outcome(&json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}})), Ok(None));
        assert_eq!(outcome(&json!({"status": {"certificate": "UEVN"}})), Ok(Some("PEM".into())));
        assert_eq!(outcome(&json!({"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "No", "message": "never"}]}})), Err("No: never".into()));
    }
}
