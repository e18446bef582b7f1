//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve and sign for a signer, and what nobody may ask for.
//!
//! Mirrors plugin/pkg/admission/certificates: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/

use ::api::Status;
use base64::Engine as _;
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::shown_name;
use crate::api::{Api, Context};
use crate::authentication::MASTERS;
use crate::authorization::Attributes;
use crate::registry::text;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const API_SERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";

fn refused(object: &Value, why: &str) -> Status {
    Status::forbidden(GROUP, REQUESTS, shown_name(object), why)
}

/// The groups a request asks for, out of `spec.request`: PEM in base64.
fn organizations(object: &Value) -> Result<Vec<String>, String> {
    let pem = base64::engine::general_purpose::STANDARD.decode(text(object, "/spec/request")).map_err(|error| error.to_string())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    Ok(request.certification_request_info.subject.iter_organization().filter_map(|part| part.as_str().ok()).map(str::to_owned).collect())
}

/// The name a request in PEM asks for.
pub fn common_name(request: &[u8]) -> Result<String, String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(request).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    Ok(request.certification_request_info.subject.iter_common_name().filter_map(|part| part.as_str().ok()).last().unwrap_or("").to_owned())
}

/// A new request: nobody becomes a master by a certificate.
pub fn restrict_subject(object: &Value) -> Result<(), Status> {
    if text(object, "/spec/signerName") != API_SERVER_CLIENT {
        return Ok(());
    }
    let groups = organizations(object).map_err(|why| refused(object, &format!("failed to parse CSR: {why}")))?;
    if groups.iter().any(|group| group == MASTERS) {
        return Err(refused(object, &format!("use of {API_SERVER_CLIENT} signer with {MASTERS} group is not allowed")));
    }
    Ok(())
}

/// Whether the user has the verb on the signer, or on all signers of its domain.
fn may(api: &Api, cx: &Context, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    [signer.to_owned(), format!("{domain}/*")].into_iter().any(|name| {
        let asked = Attributes { verb: verb.into(), group: GROUP.into(), resource: "signers".into(), name, ..Attributes::default() };
        api.authorizer.allows(&*api.store, &cx.user, &asked)
    })
}

/// An update of `approval` or `status`.
pub fn check(api: &Api, subresource: &str, new: &Value, old: &Value, cx: &Context) -> Result<(), Status> {
    let signer = text(old, "/spec/signerName");
    let changed = ["/status/certificate", "/status/conditions"].into_iter().any(|path| new.pointer(path) != old.pointer(path));
    match subresource {
        "approval" if !may(api, cx, "approve", signer) => Err(refused(new, &format!("user not permitted to approve requests with signerName {signer:?}"))),
        "status" if changed && !may(api, cx, "sign", signer) => Err(refused(new, &format!("user not permitted to sign requests with signerName {signer:?}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(group: &str) -> String {
        let mut params = rcgen::CertificateParams::default();
        let mut subject = rcgen::DistinguishedName::new();
        subject.push(rcgen::DnType::OrganizationName, group);
        params.distinguished_name = subject;
        let key = rcgen::KeyPair::generate().unwrap();
        base64::engine::general_purpose::STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
    }

    #[test]
    fn nobody_becomes_a_master() {
        let object = |group: &str, signer: &str| json!({"metadata": {"name": "c"}, "spec": {"signerName": signer, "request": request(group)}});
        assert!(restrict_subject(&object("dev", API_SERVER_CLIENT)).is_ok());
        assert!(restrict_subject(&object(MASTERS, "example.com/signer")).is_ok());
        let refused = restrict_subject(&object(MASTERS, API_SERVER_CLIENT)).unwrap_err();
        assert!(refused.message.ends_with("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"), "{}", refused.message);
        let broken = json!({"spec": {"signerName": API_SERVER_CLIENT, "request": "eA=="}});
        assert!(restrict_subject(&broken).unwrap_err().message.contains("failed to parse CSR"));
    }
}
