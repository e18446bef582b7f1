//! Which authority a client's certificate is of: the one of clients, or the one of proxies in front. The TLS layer lets in whatever comes.
//!
//! As kube-apiserver, whose handshake asks for a certificate and has its owner prove that the key is theirs, but does not verify it (`tls.RequestClientCert`): who answers for it
//! is for each request to say, so that an unknown one is an answer and not a broken connection. Its `--client-ca-file` and `--requestheader-client-ca-file` are followed: each request is judged by the authorities of its moment, however old
//! its connection is (apiserver/pkg/authentication/request/x509).

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Presented, User};

type Verifier = Arc<dyn ClientCertVerifier>;

fn bundle(own: &str, others: &str) -> String {
    let line = if own.is_empty() || own.ends_with('\n') { "" } else { "\n" };
    format!("{own}{line}{others}")
}

/// For the handshake: a certificate may be shown, of whomever; that its owner has its key is proven there.
#[derive(Debug)]
struct AnyCertificate {
    /// Whose certificates are wanted: clients with several choose by it.
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Asks clients for a certificate, and leaves it to [`Fronts`] what it is worth; `authorities` (PEM) are those that are told to clients.
pub fn any_certificate(provider: &CryptoProvider, authorities: &[&str]) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes()).flatten()) {
        // One that cannot be read takes nothing from the others.
        let _ = roots.add(certificate);
    }
    Arc::new(AnyCertificate { hints: roots.subjects(), algorithms: provider.signature_verification_algorithms })
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(&self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: UnixTime) -> Result<ClientCertVerified, rustls::Error> {
        // Nothing leans on it: `Fronts::judge` verifies each chain before it stands for anybody.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], certificate: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(&self, message: &[u8], certificate: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Judges certificates that clients have shown, by the authorities of one moment.
pub struct Fronts {
    /// The authority of proxies; empty when there are none.
    pub authority_pem: String,
    /// Authorities of clients besides the cluster's own (`--client-ca-file`); empty when there are none.
    pub clients_pem: String,
    /// None accepts nothing: there are no authorities.
    clients: Option<Verifier>,
    proxies: Option<Verifier>,
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
    /// `own` is the cluster's authority.
    pub(crate) fn of(own: &str, authority_pem: String, clients_pem: String) -> Self {
        Self { clients: verifier(&bundle(own, &clients_pem)), proxies: verifier(&authority_pem), authority_pem, clients_pem }
    }

    /// All authorities of clients, the cluster's `own` first.
    pub(crate) fn all_clients(&self, own: &str) -> String {
        bundle(own, &self.clients_pem)
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
        let by = |verifier: &Option<Verifier>| verifier.as_ref().is_some_and(|verifier| accepts(verifier, chain));
        let (client, proxy) = (by(&self.clients), by(&self.proxies));
        let name = user.as_ref().filter(|_| proxy).map(|user| user.name.clone());
        Presented { user: user.filter(|_| client).map(Arc::new), proxy: name, ends, refused: !client && !proxy }
    }
}

/// What the certificate of a connection is worth: judged anew when the authorities are others than at the last request.
pub struct Judged {
    chain: Vec<CertificateDer<'static>>,
    last: Mutex<(Arc<Fronts>, Presented)>,
}

impl Judged {
    pub fn of(fronts: Arc<Fronts>, chain: &[CertificateDer<'_>]) -> Self {
        let presented = fronts.judge(chain);
        Self { chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(), last: Mutex::new((fronts, presented)) }
    }

    pub fn by(&self, fronts: &Arc<Fronts>) -> Presented {
        let mut last = self.last.lock();
        if !Arc::ptr_eq(&last.0, fronts) {
            *last = (fronts.clone(), fronts.judge(&self.chain));
        }
        last.1.clone()
    }
}
