//! By which authorities servers behind APIServices are to know clients, and us: ConfigMap kube-system/extension-apiserver-authentication.
//!
//! Mirrors controlplane/controller/clusterauthenticationtrust: what is there stays, ours is added, and authorities that have ended go. Several API servers, each with authorities of
//! its own, so make one list of them; it comes back when somebody takes from it.

use std::sync::Arc;

use ::api::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::{Api, Context};
use crate::authentication::{RequestHeader, User};
use crate::bootstrap;
use crate::follow::follow;
use crate::registry::{Part, metadata};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const KEY: &str = "/registry/configmaps/kube-system/extension-apiserver-authentication";
/// Whom the API server is to others.
const FRONT_PROXY: &str = "front-proxy-client";
const PEM_COLUMNS: usize = 64;

#[derive(Debug, thiserror::Error)]
enum UnionError {
    #[error("{0} has no list of names: {1}")]
    Names(&'static str, serde_json::Error),
    #[error("{0} has no certificates: {1}")]
    Certificates(&'static str, String),
}

/// What one API server knows clients and proxies by.
struct Trust {
    clients_pem: String,
    front: Option<RequestHeader>,
}

impl Trust {
    fn of(api: &Api) -> Self {
        let fronts = api.fronts.borrow();
        let front = api.config.front_proxy.as_ref().map(|own| {
            // By whom proxies are known now; who knows none tells of our own.
            let authority = if fronts.authority_pem.is_empty() { own.authority_pem.clone() } else { fronts.authority_pem.clone() };
            let known = api.config.authentication.request_header.clone();
            known.map_or_else(|| RequestHeader::usual(authority.clone(), vec![FRONT_PROXY.to_owned()]), |known| RequestHeader { authority_pem: authority.clone(), ..known })
        });
        Self { clients_pem: fronts.all_clients(&api.config.ca_pem), front }
    }

    /// `there` and this together.
    fn united(&self, there: &Map<String, Value>, now: Timestamp) -> Result<Map<String, Value>, UnionError> {
        let text = |key: &str| there.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut data = Map::new();
        let clients = bundle("client-ca-file", text("client-ca-file"), &self.clients_pem, now)?;
        if !clients.is_empty() {
            data.insert("client-ca-file".into(), clients.into());
        }
        let none = RequestHeader::default();
        let front = self.front.as_ref().unwrap_or(&none);
        let proxies = bundle("requestheader-client-ca-file", text("requestheader-client-ca-file"), &front.authority_pem, now)?;
        if proxies.is_empty() {
            return Ok(data);
        }
        data.insert("requestheader-client-ca-file".into(), proxies.into());
        for (key, own) in [
            ("requestheader-username-headers", &front.username_headers),
            ("requestheader-uid-headers", &front.uid_headers),
            ("requestheader-group-headers", &front.group_headers),
            ("requestheader-extra-headers-prefix", &front.extra_prefixes),
            ("requestheader-allowed-names", &front.allowed_names),
        ] {
            let names = names(key, text(key), own)?;
            if !names.is_empty() || key != "requestheader-uid-headers" {
                data.insert(key.into(), json!(names).to_string().into());
            }
        }
        Ok(data)
    }
}

fn names(key: &'static str, there: &str, own: &[String]) -> Result<Vec<String>, UnionError> {
    let mut all: Vec<String> = if there.is_empty() { Vec::new() } else { serde_json::from_str::<Option<Vec<String>>>(there).map_err(|error| UnionError::Names(key, error))?.unwrap_or_default() };
    all.extend_from_slice(own);
    let mut found: Vec<String> = Vec::new();
    for name in all {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Each certificate once, those that are there first, without those that have ended.
fn bundle(key: &'static str, there: &str, own: &str, now: Timestamp) -> Result<String, UnionError> {
    let mut found: Vec<CertificateDer<'_>> = Vec::new();
    for pem in [there, own] {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| UnionError::Certificates(key, error.to_string()))?;
            let (_, facts) = X509Certificate::from_der(&certificate).map_err(|error| UnionError::Certificates(key, error.to_string()))?;
            if facts.validity().not_after.timestamp() >= now.as_second() && !found.contains(&certificate) {
                found.push(certificate);
            }
        }
    }
    let mut pem = String::new();
    for certificate in found {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(&certificate);
        for line in encoded.as_bytes().chunks(PEM_COLUMNS) {
            pem.extend(line.iter().copied().map(char::from));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    Ok(pem)
}

/// Adds ours to what is published.
pub async fn publish(api: &Arc<Api>) -> Result<(), Status> {
    let trust = Trust::of(api);
    let united = |there: &Value| {
        let none = Map::new();
        trust.united(there["data"].as_object().unwrap_or(&none), api.clock.now())
    };
    let first = united(&Value::Null).map_err(Status::internal)?;
    bootstrap::ensure(api, Some(NAMESPACE), json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": first})).await?;
    let row = api.serving.rows().find("", "v1", "configmaps").ok_or_else(|| Status::internal("no row"))?;
    let cx = Context { field_manager: "kube-apiserver".into(), exempt: true, ..Context::of(Arc::new(User::component("system:apiserver"))) };
    api.change(&row, Some(NAMESPACE), NAME, Part::Main, &cx, |old| {
        let mut new = old.clone();
        metadata(&mut new).remove("resourceVersion");
        match united(old) {
            Ok(data) => new["data"] = data.into(),
            // As upstream: what cannot be read is somebody else's to mend.
            Err(error) => tracing::warn!(%error, name = NAME, "servers behind APIServices are not told whom to believe"),
        }
        Ok(new)
    })
    .await
    .map(drop)
}

/// Publishes again what others have changed. Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: Arc<Api>, shutdown: watch::Receiver<bool>) {
    let mut news = follow(&api.store, KEY, shutdown);
    while news.next().await.is_some() {
        if let Err(error) = publish(&api).await {
            tracing::warn!(%error, name = NAME, "servers behind APIServices are not told whom to believe");
        }
    }
}

#[cfg(test)]
mod tests {
    use pki::Authority;

    use super::*;

    #[test]
    fn unions() {
        let now = Timestamp::now();
        let [one, two] = ["one", "two"].map(|name| Authority::generate(name, now.as_second()).unwrap().identity.certificate_pem);
        let ended = Authority::generate("ended", now.as_second() - 200 * 366 * 24 * 3600).unwrap().identity.certificate_pem;
        let trust = |clients: &str, front: Option<RequestHeader>| Trust { clients_pem: clients.to_owned(), front };
        let none = Map::new();
        // The first one says what it knows, once.
        let first = trust(&format!("{one}{one}"), None).united(&none, now).unwrap();
        assert_eq!(Value::from(first.clone()), json!({"client-ca-file": one}));
        // The second adds to it; what has ended is left out; what is no part of it goes.
        let mut there = first;
        there.insert("client-ca-file".into(), format!("{ended}{one}").into());
        there.insert("other".into(), "x".into());
        there.insert("requestheader-allowed-names".into(), r#"["a","b"]"#.into());
        let both = trust(&two, Some(RequestHeader::usual(two.clone(), vec!["b".into(), "c".into()]))).united(&there, now).unwrap();
        let usual = |header: &str| json!([header]).to_string();
        let want = json!({
            "client-ca-file": format!("{one}{two}"), "requestheader-client-ca-file": two, "requestheader-allowed-names": r#"["a","b","c"]"#,
            "requestheader-username-headers": usual("X-Remote-User"), "requestheader-uid-headers": usual("X-Remote-Uid"), "requestheader-group-headers": usual("X-Remote-Group"),
            "requestheader-extra-headers-prefix": usual("X-Remote-Extra-"),
        });
        assert_eq!(Value::from(both.clone()), want);
        // Again, it is the same; also for one that knows no proxies.
        assert_eq!(Value::from(trust(&one, None).united(&both, now).unwrap()), want);
        for (key, broken) in [("requestheader-allowed-names", "a, b"), ("client-ca-file", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
            let mut there = both.clone();
            there.insert(key.into(), broken.into());
            assert!(trust(&one, None).united(&there, now).is_err(), "{key}");
        }
    }
}
