//! TLS as a kubeconfig asks for it: its own authority, a client certificate, or no check at all.

use std::sync::Arc;
use std::time::Duration;

use api::Clock;
use api::world::SystemClock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::kubeconfig::Config;

/// Where distributions keep the public authorities, for servers without one of their own.
const SYSTEM_ROOTS: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// By whose time certificates are judged.
struct Time(Arc<dyn Clock>);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.now().as_second().try_into().ok()?)))
    }
}

pub fn client_config(config: &Config, protocols: &[&[u8]]) -> Result<ClientConfig, String> {
    client_config_at(config, protocols, Arc::new(SystemClock))
}

/// Certificates are judged by that clock.
pub fn client_config_at(config: &Config, protocols: &[&[u8]], clock: Arc<dyn Clock>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(Time(clock))).with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]).map_err(|error| error.to_string())?;
    let builder = if config.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        let pem = match &config.certificate_authority {
            Some(pem) => pem.clone(),
            None => SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default(),
        };
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| format!("unable to load root certificates: {error}"))?;
            // The system's bundle may hold one that we cannot read; the rest are still good.
            let _ = roots.add(certificate);
        }
        builder.with_root_certificates(roots)
    };
    let mut tls = match &config.client_identity {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(|error| format!("tls: failed to find any PEM data in certificate input: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls: failed to find any PEM data in key input: {error}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(tls)
}

/// `insecure-skip-tls-verify`: signatures are still checked, whose they are is not.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(&self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8], _: UnixTime) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], certificate: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(&self, message: &[u8], certificate: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
