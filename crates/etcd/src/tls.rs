//! TLS to etcd: its own authority, and our certificate by which it knows us (`--etcd-cafile`, `--etcd-certfile`, `--etcd-keyfile`).

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// All in PEM.
pub fn tls(authority: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Arc<ClientConfig>, Error> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| Error::Config(format!("etcd's {what}: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        let added = certificate.map_err(|error| error.to_string()).and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| wrong("authority", &error))?;
    }
    if roots.is_empty() {
        return Err(wrong("authority", &"no certificate in it"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| wrong("protocol", &error))?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(|error| wrong("client certificate", &error))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("client key", &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong("client certificate", &error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
