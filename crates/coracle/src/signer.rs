//! The cluster's CA as the controllers know it: it reads and signs CertificateSigningRequests.

use controllers::{Facts, Signer as Signs};
use jiff::Timestamp;
use pki::{Authority, PkiError};

pub struct Signer(Authority);

impl Signer {
    pub fn of(authority: &Authority) -> Result<Self, PkiError> {
        Authority::load(&authority.identity.certificate_pem, &authority.identity.key_pem).map(Self)
    }
}

impl Signs for Signer {
    fn read(&self, request: &[u8]) -> Result<Facts, String> {
        let wanted = pki::read_request(request)?;
        Ok(Facts { common_name: wanted.common_name, organizations: wanted.organizations, dns_names: wanted.dns_names, addresses: wanted.addresses.len(), emails: wanted.emails, uris: wanted.uris })
    }

    fn sign(&self, request: &[u8], usages: &[String], seconds: i64, now: Timestamp) -> Result<String, String> {
        self.0.sign_request(request, usages, seconds, now.as_second())
    }
}
