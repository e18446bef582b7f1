//! The CA at work on other people's requests (PKCS#10 in PEM): what they ask for, and a certificate for their key.
//!
//! Subject, key and alternative names are the request's; usages and dates are the signer's. Mirrors `pkg/controller/certificates/authority`.

use std::net::IpAddr;

use base64::Engine as _;
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SigningKey as _};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest};

use crate::authority::{Authority, time_of};

/// Clocks may lag behind by so much.
const BACKDATE_SECONDS: i64 = 300;
/// A certificate that lives shorter is not cut short at its end by the backdating.
const SHORT_SECONDS: i64 = 8 * 3600;

/// The subject and the kinds of alternative names of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: usize,
    pub uris: usize,
}

fn der(request: &[u8]) -> Result<Vec<u8>, String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(request).map_err(|error| format!("the request is not PEM: {error}"))?;
    Ok(pem.contents)
}

/// Four bytes, or sixteen.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// What a request asks for.
pub fn read(request: &[u8]) -> Result<Wanted, String> {
    let der = der(request)?;
    let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
    let subject = &parsed.certification_request_info.subject;
    let mut wanted = Wanted {
        common_name: subject.iter_common_name().filter_map(|name| name.as_str().ok()).last().unwrap_or("").to_owned(),
        organizations: subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect(),
        ..Wanted::default()
    };
    for extension in parsed.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => wanted.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => wanted.addresses.push(address(bytes).ok_or("an IP subjectAltName is neither IPv4 nor IPv6")?),
                GeneralName::RFC822Name(_) => wanted.emails += 1,
                GeneralName::URI(_) => wanted.uris += 1,
                _ => {}
            }
        }
    }
    Ok(wanted)
}

fn purposes(usages: &[String]) -> Result<(Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>), String> {
    let (mut plain, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match usage.as_str() {
            "signing" | "digital signature" => plain.push(KeyUsagePurpose::DigitalSignature),
            "content commitment" => plain.push(KeyUsagePurpose::ContentCommitment),
            "key encipherment" => plain.push(KeyUsagePurpose::KeyEncipherment),
            "key agreement" => plain.push(KeyUsagePurpose::KeyAgreement),
            "data encipherment" => plain.push(KeyUsagePurpose::DataEncipherment),
            "cert sign" => plain.push(KeyUsagePurpose::KeyCertSign),
            "crl sign" => plain.push(KeyUsagePurpose::CrlSign),
            "encipher only" => plain.push(KeyUsagePurpose::EncipherOnly),
            "decipher only" => plain.push(KeyUsagePurpose::DecipherOnly),
            "any" => extended.push(ExtendedKeyUsagePurpose::Any),
            "server auth" => extended.push(ExtendedKeyUsagePurpose::ServerAuth),
            "client auth" => extended.push(ExtendedKeyUsagePurpose::ClientAuth),
            "code signing" => extended.push(ExtendedKeyUsagePurpose::CodeSigning),
            "email protection" | "s/mime" => extended.push(ExtendedKeyUsagePurpose::EmailProtection),
            "timestamping" => extended.push(ExtendedKeyUsagePurpose::TimeStamping),
            "ocsp signing" => extended.push(ExtendedKeyUsagePurpose::OcspSigning),
            other => return Err(format!("unrecognized usage values: [{other:?}]")),
        }
    }
    Ok((plain, extended))
}

impl Authority {
    /// A certificate for the request's key, valid for so many seconds from `now_seconds` on, but no longer than the CA's makers meant any certificate to be.
    pub fn sign_request(&self, request: &[u8], usages: &[String], seconds: i64, now_seconds: i64) -> Result<String, String> {
        let request = der(request)?;
        let (_, parsed) = X509CertificationRequest::from_der(&request).map_err(|error| error.to_string())?;
        let mut params = CertificateSigningRequestParams::from_der(&request.as_slice().into()).map_err(|error| error.to_string())?;
        let (plain, extended) = purposes(usages)?;
        params.params.key_usages = plain;
        params.params.extended_key_usages = extended;
        params.params.is_ca = IsCa::ExplicitNoCa;
        let end = if seconds < SHORT_SECONDS { now_seconds + seconds } else { now_seconds + seconds - BACKDATE_SECONDS };
        params.params.not_before = time_of(now_seconds - BACKDATE_SECONDS);
        params.params.not_after = time_of(end);
        let certificate = params.signed_by(self.issuer()).map_err(|error| error.to_string())?;
        // The library we build certificates with keeps one name of a kind; a request may be of several groups.
        let certificate = with_subject(certificate.der(), parsed.certification_request_info.subject.as_raw(), |tbs| self.issuer().key().sign(tbs).map_err(|error| error.to_string()))?;
        Ok(pem(&certificate))
    }
}

/// Where the contents of a DER value begin.
fn header_length(value: &[u8]) -> Option<usize> {
    match *value.get(1)? {
        short if short < 0x80 => Some(2),
        long => Some(2 + usize::from(long & 0x7f)),
    }
}

/// A whole DER value at the beginning of `bytes`.
fn first_value(bytes: &[u8]) -> Option<&[u8]> {
    let header = header_length(bytes)?;
    let length = if header == 2 { usize::from(bytes[1]) } else { bytes.get(2..header)?.iter().try_fold(0usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))? };
    bytes.get(..header.checked_add(length)?)
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        out.push(0x80 | bytes.len() as u8);
        out.extend(bytes);
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const UTF8: u8 = 0x0c;
/// Of the kinds of names under `2.5.4`.
const COMMON_NAME: u8 = 3;
const ORGANIZATION: u8 = 10;

/// A subject of several groups, which the library we build certificates with cannot write.
pub(crate) fn subject(user: &str, groups: &[&str]) -> Vec<u8> {
    let name = |kind: u8, text: &str| value(SET, &[&value(SEQUENCE, &[&[OBJECT_ID, 3, 0x55, 4, kind], &value(UTF8, &[text.as_bytes()])])]);
    let names: Vec<Vec<u8>> = groups.iter().map(|group| name(ORGANIZATION, group)).chain([name(COMMON_NAME, user)]).collect();
    value(SEQUENCE, &names.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// The same certificate for another subject, signed again.
pub(crate) fn with_subject(certificate: &[u8], subject: &[u8], sign: impl Fn(&[u8]) -> Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
    let broken = || "the certificate cannot be taken apart".to_owned();
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let (tbs, old) = (parsed.tbs_certificate.as_ref(), parsed.tbs_certificate.subject.as_raw());
    // Both are slices of `certificate`.
    let at = (old.as_ptr() as usize).checked_sub(tbs.as_ptr() as usize).filter(|at| tbs.get(*at..*at + old.len()) == Some(old)).ok_or_else(broken)?;
    let start = header_length(tbs).ok_or_else(broken)?;
    let tbs_at = header_length(certificate).ok_or_else(broken)?;
    let algorithm = certificate.get(tbs_at + tbs.len()..).and_then(first_value).ok_or_else(broken)?;
    let tbs = value(SEQUENCE, &[tbs.get(start..at).ok_or_else(broken)?, subject, &tbs[at + old.len()..]]);
    let signature = value(BIT_STRING, &[&[0], &sign(&tbs)?]);
    Ok(value(SEQUENCE, &[&tbs, algorithm, &signature]))
}

pub(crate) fn pem(der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(LINE) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    #[test]
    fn requests_are_signed() {
        let authority = Authority::generate("ca", 1_800_000_000).unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "jane");
        subject.push(DnType::OrganizationName, "dev");
        params.distinguished_name = subject;
        let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        assert_eq!(read(request.as_bytes()).unwrap(), Wanted { common_name: "jane".into(), organizations: vec!["dev".into()], dns_names: vec!["a.example".into()], ..Wanted::default() });
        let certificate = authority.sign_request(request.as_bytes(), &["client auth".to_owned(), "digital signature".to_owned()], 3600, 1_800_000_000).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
        let parsed = pem.parse_x509().unwrap();
        assert_eq!(parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp(), 3600 + BACKDATE_SECONDS);
        assert_eq!(parsed.subject().to_string(), "CN=jane, O=dev");
        assert!(parsed.extended_key_usage().unwrap().unwrap().value.client_auth);
        assert!(authority.sign_request(b"nonsense", &[], 3600, 0).is_err());
        assert!(authority.sign_request(request.as_bytes(), &["world domination".to_owned()], 3600, 1_800_000_000).is_err());
    }

    #[test]
    fn requests_of_several_groups_keep_them_all() {
        let authority = Authority::generate("ca", 1_800_000_000).unwrap();
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "jane");
        params.distinguished_name = subject;
        let key = KeyPair::generate().unwrap();
        let one = params.serialize_request(&key).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(one.der()).unwrap();
        let tbs = parsed.certification_request_info.raw;
        let old = parsed.certification_request_info.subject.as_raw();
        // A request that our library cannot write either.
        let subject = super::subject("jane", &["dev", "ops"]);
        let (start, at) = (header_length(tbs).unwrap(), old.as_ptr() as usize - tbs.as_ptr() as usize);
        let info = value(SEQUENCE, &[&tbs[start..at], &subject, &tbs[at + old.len()..]]);
        let rest = &one.der()[header_length(one.der()).unwrap() + tbs.len()..];
        let signature = value(BIT_STRING, &[&[0], &key.sign(&info).unwrap()]);
        let request = value(SEQUENCE, &[&info, first_value(rest).unwrap(), &signature]);
        let request = pem(&request).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        assert_eq!(read(request.as_bytes()).unwrap().organizations, ["dev", "ops"]);
        let certificate = authority.sign_request(request.as_bytes(), &["client auth".to_owned()], 86400, 1_800_000_000).unwrap();
        let (_, issued) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
        let read = crate::Certificate::read(certificate.as_bytes()).unwrap();
        assert_eq!((read.common_name.as_str(), read.organizations.join(" ")), ("jane", "dev ops".to_owned()));
        // The signature is good: whoever trusts the authority trusts it.
        let (_, ca) = x509_parser::pem::parse_x509_pem(authority.identity.certificate_pem.as_bytes()).unwrap();
        let tls = rustls::server::WebPkiClientVerifier::builder_with_provider(
            {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(ca.contents.into()).unwrap();
                roots.into()
            },
            rustls::crypto::ring::default_provider().into(),
        )
        .build()
        .unwrap();
        let at = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_100));
        tls.verify_client_cert(&issued.contents.into(), &[], at).unwrap();
    }
}
