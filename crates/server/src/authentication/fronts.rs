//! Which authority a client's certificate is of: the one of clients, or the one of proxies in front, which the TLS layer lets in alike.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{Presented, User};
use crate::api::Api;

type Verifier = Arc<dyn ClientCertVerifier>;

/// Judges certificates that the TLS layer has accepted.
pub struct Fronts {
    /// Of clients, and of proxies; none when there are no proxies: then all are clients.
    verifiers: Option<(Option<Verifier>, Verifier)>,
}

fn verifier(pem: &str) -> Option<Verifier> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
        // One that cannot be read takes nothing from the others.
        let _ = roots.add(certificate);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()
}

fn accepts(verifier: &Verifier, chain: &[CertificateDer<'_>]) -> bool {
    chain.split_first().is_some_and(|(leaf, rest)| verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok())
}

impl Fronts {
    pub fn of(api: &Api) -> Self {
        let front = api.config.authentication.request_header.as_ref().and_then(|front| verifier(&front.authority_pem));
        Self { verifiers: front.map(|front| (verifier(&api.config.ca_pem), front)) }
    }

    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Presented {
        let user = chain.first().and_then(|leaf| User::of_certificate(leaf));
        let Some((clients, front)) = &self.verifiers else { return Presented { user: user.map(Arc::new), proxy: None } };
        let proxy = user.as_ref().filter(|_| accepts(front, chain)).map(|user| user.name.clone());
        Presented { user: user.filter(|_| proxy.is_none() || clients.as_ref().is_some_and(|clients| accepts(clients, chain))).map(Arc::new), proxy }
    }
}
