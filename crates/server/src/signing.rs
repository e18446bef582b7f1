//! The CA at work on other people's requests (PKCS#10 in PEM): what they ask for, and a certificate for their key.
//!
//! Subject, key and alternative names are the request's; usages and dates are the signer's. Mirrors `pkg/controller/certificates/authority`.

use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509CertificationRequest};

use crate::pki::Authority;

/// Clocks may lag behind by so much.
const BACKDATE_SECONDS: i64 = 300;
/// A certificate that lives shorter is not cut short at its end by the backdating.
const SHORT_SECONDS: i64 = 8 * 3600;

/// The subject and the kinds of alternative names of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: usize,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
}

fn der(request: &[u8]) -> Result<Vec<u8>, String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(request).map_err(|error| format!("the request is not PEM: {error}"))?;
    Ok(pem.contents)
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
                GeneralName::DNSName(_) => wanted.dns_names += 1,
                GeneralName::IPAddress(_) => wanted.addresses += 1,
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
        if read(request)?.organizations.len() > 1 {
            // The library we build certificates with keeps one name of a kind; dropping groups silently would be worse than refusing.
            return Err("requests for several organizations cannot be signed".to_owned());
        }
        let mut params = CertificateSigningRequestParams::from_der(&der(request)?.into()).map_err(|error| error.to_string())?;
        let (plain, extended) = purposes(usages)?;
        params.params.key_usages = plain;
        params.params.extended_key_usages = extended;
        params.params.is_ca = IsCa::ExplicitNoCa;
        let at = |seconds: i64| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
        let end = if seconds < SHORT_SECONDS { now_seconds + seconds } else { now_seconds + seconds - BACKDATE_SECONDS };
        params.params.not_before = at(now_seconds - BACKDATE_SECONDS);
        params.params.not_after = at(end);
        let certificate = params.signed_by(self.issuer()).map_err(|error| error.to_string())?;
        Ok(certificate.pem())
    }
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
        assert_eq!(read(request.as_bytes()).unwrap(), Wanted { common_name: "jane".into(), organizations: vec!["dev".into()], dns_names: 1, ..Wanted::default() });
        let certificate = authority.sign_request(request.as_bytes(), &["client auth".to_owned(), "digital signature".to_owned()], 3600, 1_800_000_000).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
        let parsed = pem.parse_x509().unwrap();
        assert_eq!(parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp(), 3600 + BACKDATE_SECONDS);
        assert_eq!(parsed.subject().to_string(), "CN=jane, O=dev");
        assert!(parsed.extended_key_usage().unwrap().unwrap().value.client_auth);
        assert!(authority.sign_request(b"nonsense", &[], 3600, 0).is_err());
        assert!(authority.sign_request(request.as_bytes(), &["world domination".to_owned()], 3600, 1_800_000_000).is_err());
    }
}
