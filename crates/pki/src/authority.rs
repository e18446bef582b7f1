//! The cluster's certificates: one CA, and what it signs.
//!
//! Names follow kubeadm's: CN is the user, O the groups (https://kubernetes.io/docs/setup/best-practices/certificates/).

use std::net::IpAddr;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SigningKey as _};

use crate::signing::{pem, subject as subject_of, with_subject};

const YEAR_SECONDS: i64 = 365 * 24 * 3600;
const CA_SECONDS: i64 = 10 * YEAR_SECONDS;
const LEAF_SECONDS: i64 = YEAR_SECONDS;
/// Clocks of clients may lag behind by this much.
const BACKDATE_SECONDS: i64 = 3600;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot make a certificate for {subject}: {message}")]
    Certificate { subject: String, message: String },
    #[error("the CA certificate or key does not parse: {0}")]
    Authority(String),
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// What signs.
pub struct Authority {
    pub identity: Identity,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
pub enum Pki<'a> {
    /// A client: user and groups.
    Client { user: &'a str, groups: &'a [&'a str] },
    /// A server, and a client under the same name (as the kubelet).
    Server { name: &'a str, groups: &'a [&'a str], dns: &'a [String], addresses: &'a [IpAddr] },
}

fn failed(subject: &str) -> impl FnOnce(rcgen::Error) -> PkiError {
    let subject = subject.to_owned();
    move |error| PkiError::Certificate { subject, message: error.to_string() }
}

fn period(params: &mut CertificateParams, now_seconds: i64, seconds: i64) {
    params.not_before = time_of(now_seconds - BACKDATE_SECONDS);
    params.not_after = time_of(now_seconds.saturating_add(seconds));
}

pub(crate) fn time_of(seconds: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

impl Authority {
    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub fn generate(name: &str, now_seconds: i64) -> Result<Self, PkiError> {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        params.distinguished_name = subject;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().map_err(failed(name))?)];
        period(&mut params, now_seconds, CA_SECONDS);
        let key = KeyPair::generate().map_err(failed(name))?;
        let certificate = params.self_signed(&key).map_err(failed(name))?;
        Self::load(&certificate.pem(), &key.serialize_pem())
    }

    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(|error| PkiError::Authority(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(|error| PkiError::Authority(error.to_string()))?;
        Ok(Self { identity: Identity { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() }, issuer })
    }

    pub fn issue(&self, what: &Pki<'_>, now_seconds: i64) -> Result<Identity, PkiError> {
        self.issue_for(what, now_seconds, LEAF_SECONDS)
    }

    /// Good for so many seconds from now on.
    pub fn issue_for(&self, what: &Pki<'_>, now_seconds: i64, seconds: i64) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::default();
        let (name, groups) = match what {
            Pki::Client { user, groups } => (*user, *groups),
            Pki::Server { name, groups, .. } => (*name, *groups),
        };
        let mut subject = DistinguishedName::new();
        for group in groups {
            subject.push(DnType::OrganizationName, *group);
        }
        subject.push(DnType::CommonName, name);
        params.distinguished_name = subject;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Pki::Server { dns, addresses, .. } = what {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            for host in *dns {
                params.subject_alt_names.push(SanType::DnsName(host.as_str().try_into().map_err(failed(name))?));
            }
            params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        }
        period(&mut params, now_seconds, seconds);
        let key = KeyPair::generate().map_err(failed(name))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed(name))?;
        if groups.len() > 1 {
            let message = |message: String| PkiError::Certificate { subject: name.to_owned(), message };
            let certificate = with_subject(certificate.der(), &subject_of(name, groups), |tbs| self.issuer.key().sign(tbs).map_err(|error| error.to_string())).map_err(message)?;
            return Ok(Identity { certificate_pem: pem(&certificate), key_pem: key.serialize_pem() });
        }
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}
