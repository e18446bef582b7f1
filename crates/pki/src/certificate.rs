//! What a certificate says, as far as anybody here asks: whose it is, how long it is good, for which names.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::signing::address;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("data does not contain any valid RSA or ECDSA certificates")]
    None,
    #[error("a certificate cannot be read: {0}")]
    Malformed(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// Common name of who signed it.
    pub issuer: String,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub is_server: bool,
}

fn each<T>(pem: &[u8], read: impl Fn(&X509Certificate<'_>) -> T) -> Result<Vec<T>, CertificateError> {
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| CertificateError::Malformed(error.to_string()))?;
        if block.label == "CERTIFICATE" {
            found.push(read(&block.parse_x509().map_err(|error| CertificateError::Malformed(error.to_string()))?));
        }
    }
    if found.is_empty() { Err(CertificateError::None) } else { Ok(found) }
}

impl Certificate {
    /// The first one in a PEM text, which may hold a key as well.
    pub fn read(pem: &[u8]) -> Result<Self, CertificateError> {
        certificates(pem).map(|mut all| all.swap_remove(0))
    }

    pub fn of_der(der: &[u8]) -> Result<Self, CertificateError> {
        X509Certificate::from_der(der).map(|(_, certificate)| Self::of(&certificate)).map_err(|error| CertificateError::Malformed(error.to_string()))
    }

    fn of(certificate: &X509Certificate<'_>) -> Self {
        let name = |name: &x509_parser::x509::X509Name<'_>| name.iter_common_name().filter_map(|part| part.as_str().ok()).last().unwrap_or_default().to_owned();
        let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
        for alternative in certificate.subject_alternative_name().ok().flatten().into_iter().flat_map(|names| &names.value.general_names) {
            match alternative {
                GeneralName::DNSName(host) => dns_names.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Self {
            common_name: name(certificate.subject()),
            organizations: certificate.subject().iter_organization().filter_map(|part| part.as_str().ok()).map(str::to_owned).collect(),
            issuer: name(certificate.issuer()),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            dns_names,
            addresses,
            is_server: certificate.extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.server_auth),
        }
    }
}

/// All in a PEM text, at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, CertificateError> {
    each(pem, Certificate::of)
}

/// `sha256:<hex>` of the public key (SPKI) of each certificate, as `--discovery-token-ca-cert-hash` names them: RFC 7469.
pub fn public_key_hash(pem: &[u8]) -> Result<Vec<String>, CertificateError> {
    each(pem, |certificate| {
        let digest = Sha256::digest(certificate.public_key().raw);
        digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Pki};

    #[test]
    fn what_is_issued_can_be_read() {
        let authority = Authority::generate("kubernetes", 1_800_000_000).unwrap();
        let (dns, addresses) = (["a".to_owned()], ["10.0.0.1".parse().unwrap()]);
        let server = authority.issue(&Pki::Server { name: "kube-apiserver", groups: &[], dns: &dns, addresses: &addresses }, 1_800_000_000).unwrap();
        let read = Certificate::read(format!("{}{}", server.key_pem, server.certificate_pem).as_bytes()).unwrap();
        assert_eq!((read.common_name.as_str(), read.issuer.as_str(), read.is_server), ("kube-apiserver", "kubernetes", true));
        assert_eq!((read.dns_names.as_slice(), read.addresses.as_slice()), (&dns[..], &addresses[..]));
        assert_eq!(read.not_after, 1_800_000_000 + 365 * 24 * 3600);
        let hashes = public_key_hash(authority.identity.certificate_pem.as_bytes()).unwrap();
        assert!(hashes.len() == 1 && hashes[0].len() == 7 + 64 && hashes[0].starts_with("sha256:"), "{hashes:?}");
        assert!(matches!(Certificate::read(b"nothing"), Err(CertificateError::None)));
        assert!(matches!(Certificate::read(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), Err(CertificateError::Malformed(_))));
    }
}
