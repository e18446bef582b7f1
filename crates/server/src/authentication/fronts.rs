//! Which authority a client's certificate is of: the one of clients, or the one of proxies in front, which the TLS layer lets in alike.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Presented, User};

type Verifier = Arc<dyn ClientCertVerifier>;

/// Judges certificates that the TLS layer has accepted.
pub struct Fronts {
    /// The authority of proxies; empty when there are none.
    pub authority_pem: String,
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
    pub(crate) fn of(clients: &str, authority_pem: String) -> Self {
        let verifiers = verifier(&authority_pem).map(|front| (verifier(clients), front));
        Self { authority_pem, verifiers }
    }

    /// That a bundle has certificates, and which authorities they are.
    pub fn parse(content: &[u8]) -> Result<String, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(content) {
            roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("data does not contain any valid RSA or ECDSA certificates".to_owned());
        }
        String::from_utf8(content.to_vec()).map_err(|error| error.to_string())
    }

    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Presented {
        let user = chain.first().and_then(|leaf| User::of_certificate(leaf));
        let ends = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok()).map(|(_, leaf)| leaf.validity().not_after.timestamp());
        let Some((clients, front)) = &self.verifiers else { return Presented { user: user.map(Arc::new), proxy: None, ends } };
        let proxy = user.as_ref().filter(|_| accepts(front, chain)).map(|user| user.name.clone());
        Presented { user: user.filter(|_| proxy.is_none() || clients.as_ref().is_some_and(|clients| accepts(clients, chain))).map(Arc::new), proxy, ends }
    }
}
