//! Requests for certificates (PKCS#10): a key of one's own, and what is wanted for it.

use std::net::IpAddr;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use crate::authority::PkiError;

/// Who a certificate is to be for. One organization at most: that is all that a node needs.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    pub common_name: String,
    pub organization: Option<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// A request with the key it is about, both in PEM.
#[derive(Clone)]
pub struct Request {
    pub request_pem: String,
    pub key_pem: String,
}

impl Request {
    /// For a new key.
    pub fn new(subject: &Subject) -> Result<Self, PkiError> {
        let failed = |error: rcgen::Error| PkiError::Certificate { subject: subject.common_name.clone(), message: error.to_string() };
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        if let Some(organization) = &subject.organization {
            name.push(DnType::OrganizationName, organization.as_str());
        }
        name.push(DnType::CommonName, subject.common_name.as_str());
        params.distinguished_name = name;
        for host in &subject.dns_names {
            params.subject_alt_names.push(SanType::DnsName(host.as_str().try_into().map_err(failed)?));
        }
        params.subject_alt_names.extend(subject.addresses.iter().map(|address| SanType::IpAddress(*address)));
        let key = KeyPair::generate().map_err(failed)?;
        let request_pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
        Ok(Self { request_pem, key_pem: key.serialize_pem() })
    }
}

/// A new key and its public half, in PEM.
pub fn key_pair() -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(|error| PkiError::Certificate { subject: "a key".to_owned(), message: error.to_string() })?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// The DER form of a key that is in PEM, or is in DER already.
pub fn key_der(bytes: Vec<u8>) -> Vec<u8> {
    match x509_parser::pem::parse_x509_pem(&bytes) {
        Ok((_, pem)) => pem.contents,
        Err(_) => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Wanted, read_request};

    #[test]
    fn a_request_says_what_was_wanted() {
        let subject = Subject { common_name: "system:node:a".into(), organization: Some("system:nodes".into()), dns_names: vec!["a".into()], addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()] };
        let request = Request::new(&subject).unwrap();
        let wanted = Wanted { common_name: subject.common_name, organizations: vec!["system:nodes".into()], dns_names: subject.dns_names, addresses: subject.addresses, ..Wanted::default() };
        assert_eq!(read_request(request.request_pem.as_bytes()), Ok(wanted));
    }
}
