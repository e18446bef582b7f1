//! TLS of what this program serves, and of what it dials: the agents of other machines.

use std::sync::Arc;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use pki::{Certificate, Identity};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use server::Fronts;
use tokio::sync::watch;

use crate::api_server::Tls;

/// What the names of nodes begin with in their certificates.
const NODE_PREFIX: &str = "system:node:";

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn pair(identity: &Identity) -> Result<Pair> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    Ok((chain, PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?))
}

fn roots(pems: &[&str]) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in pems.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())) {
        roots.add(certificate?)?;
    }
    Ok(Arc::new(roots))
}

/// The certificate that a server shows; exchanged while it serves.
#[derive(Debug)]
pub struct Shown(ArcSwap<CertifiedKey>);

impl Shown {
    pub fn new(identity: &Identity) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(identity)?))))
    }

    /// Connections from now on see this one.
    pub fn exchange(&self, identity: &Identity) -> Result<()> {
        self.0.store(Arc::new(certified(identity)?));
        Ok(())
    }
}

fn certified(identity: &Identity) -> Result<CertifiedKey> {
    let (chain, key) = pair(identity)?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).context("certificate and key do not belong together")
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Client certificates of the authorities in `clients` (PEM) are verified in the handshake.
pub fn server(shown: Arc<Shown>, tls: Tls, clients: &[&str]) -> Result<Arc<rustls::ServerConfig>> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(clients)?, tls.provider.clone()).allow_unauthenticated().build()?;
    verified_by(verifier, shown, tls)
}

/// Of the API server, which judges client certificates itself; clients are told of the authorities in `clients` (PEM).
pub fn api_server(shown: Arc<Shown>, tls: Tls, clients: &[&str]) -> Result<Arc<rustls::ServerConfig>> {
    verified_by(server::any_certificate(&tls.provider, clients), shown, tls)
}

fn verified_by(verifier: Arc<dyn ClientCertVerifier>, shown: Arc<Shown>, tls: Tls) -> Result<Arc<rustls::ServerConfig>> {
    let mut config = rustls::ServerConfig::builder_with_provider(tls.provider).with_protocol_versions(tls.versions)?.with_client_cert_verifier(verifier).with_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Proxies in front or clients prove themselves by another authority: connections from now on are judged by it. Sessions of before are not taken up again.
pub async fn follow(serving: Arc<ArcSwap<rustls::ServerConfig>>, mut fronts: watch::Receiver<Arc<Fronts>>, make: impl Fn(&Fronts) -> Result<Arc<rustls::ServerConfig>>) {
    while fronts.changed().await.is_ok() {
        let fronts = fronts.borrow_and_update().clone();
        match make(&fronts) {
            Ok(tls) => serving.store(tls),
            Err(error) => tracing::error!(%error, "connections of proxies and clients are let in as before"),
        }
    }
}

/// Who dials nodes by their names: the certificate must be that very node's. Its addresses do not matter, its name in the API does.
#[derive(Debug)]
struct NodeVerifier(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(&self, leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], name: &ServerName<'_>, ocsp: &[u8], now: UnixTime) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.0.verify_server_cert(leaf, chain, name, ocsp, now)?;
        let facts = Certificate::of_der(leaf).map_err(|error| rustls::Error::General(error.to_string()))?;
        if facts.common_name.strip_prefix(NODE_PREFIX) == Some(&*name.to_str()) {
            return Ok(verified);
        }
        Err(rustls::Error::General(format!("the certificate is that of {:?}, not of node {}", facts.common_name, name.to_str())))
    }

    fn verify_tls12_signature(&self, message: &[u8], certificate: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(&self, message: &[u8], certificate: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// For dialling nodes, as whoever `identity` is; `authority` (PEM) signed theirs.
pub fn to_nodes(identity: &Identity, authority: &str) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(&[authority])?, provider.clone()).build()?;
    let (chain, key) = pair(identity)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(Tls::default().versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NodeVerifier(verifier)))
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::{Authority, Pki};

    #[test]
    fn a_node_is_known_by_its_own_name_only() {
        let now = jiff::Timestamp::now().as_second();
        let (authority, other) = (Authority::generate("kubernetes", now).unwrap(), Authority::generate("other", now).unwrap());
        let issue = |authority: &Authority, user: &str, host: &str| {
            let identity = authority.issue(&Pki::Server { name: user, groups: &["system:nodes"], dns: &[host.to_owned()], addresses: &[] }, now).unwrap();
            pair(&identity).unwrap().0.remove(0)
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = NodeVerifier(WebPkiServerVerifier::builder_with_provider(roots(&[&authority.identity.certificate_pem]).unwrap(), provider).build().unwrap());
        let judge = |leaf: CertificateDer<'static>| verifier.verify_server_cert(&leaf, &[], &ServerName::try_from("node2").unwrap(), &[], UnixTime::now()).is_ok();
        assert!(judge(issue(&authority, "system:node:node2", "node2")));
        // Another node's, though it claims the name.
        assert!(!judge(issue(&authority, "system:node:node1", "node2")));
        assert!(!judge(issue(&authority, "system:node:node2", "node1")));
        assert!(!judge(issue(&other, "system:node:node2", "node2")));
    }
}
