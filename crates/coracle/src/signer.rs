//! The cluster's CA as the controllers know it: it reads and signs CertificateSigningRequests.

use controllers::{Facts, Signer as Signs};
use jiff::Timestamp;
use pki::{Authority, PkiError};

pub struct Signer {
    authority: Authority,
    /// `--cluster-signing-duration`
    longest_seconds: i64,
}

impl Signer {
    pub fn of(authority: &Authority, longest_seconds: i64) -> Result<Self, PkiError> {
        Ok(Self { authority: Authority::load(&authority.identity.certificate_pem, &authority.identity.key_pem)?, longest_seconds })
    }
}

impl Signs for Signer {
    fn read(&self, request: &[u8]) -> Result<Facts, String> {
        let wanted = pki::read_request(request)?;
        Ok(Facts { common_name: wanted.common_name, organizations: wanted.organizations, dns_names: wanted.dns_names, addresses: wanted.addresses.len(), emails: wanted.emails, uris: wanted.uris })
    }

    fn longest_seconds(&self) -> i64 {
        self.longest_seconds
    }

    fn sign(&self, request: &[u8], usages: &[String], seconds: i64, now: Timestamp) -> Result<String, String> {
        self.authority.sign_request(request, usages, seconds, now.as_second())
    }
}
