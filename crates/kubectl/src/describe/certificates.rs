//! CertificateSigningRequests, with the request read.

use api::columns::human_duration;
use api::kinds::json::{child, list, text};
use base64::Engine;
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::writer::{Writer, format_labels, integer, line};
use super::{Related, events};

pub fn request(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Labels:\t{}", format_labels(object, "metadata.labels"));
    line!(w, 0, "Annotations:\t{}", format_labels(object, "metadata.annotations"));
    line!(w, 0, "CreationTimestamp:\t{}", w.time(object, "metadata.creationTimestamp"));
    line!(w, 0, "Requesting User:\t{}", text(object, "spec.username"));
    let signer = text(object, "spec.signerName");
    if !signer.is_empty() {
        line!(w, 0, "Signer:\t{signer}");
    }
    if child(object, "spec.expirationSeconds").is_some() {
        line!(w, 0, "Requested Duration:\t{}", human_duration(integer(object, "spec.expirationSeconds")));
    }
    line!(w, 0, "Status:\t{}", status(object));
    subject(text(object, "spec.request"), w);
    events::events(related, w);
}

fn status(object: &Value) -> String {
    let is = |kind: &str| list(object, "status.conditions").iter().any(|condition| text(condition, "type") == kind);
    let mut status = if is("Denied") {
        "Denied"
    } else if is("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if is("Failed") {
        status.push_str(",Failed");
    }
    if !text(object, "status.certificate").is_empty() {
        status.push_str(",Issued");
    }
    status
}

/// A request that cannot be read shows no subject: upstream shows nothing at all then.
fn subject(request: &str, w: &mut Writer) {
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(request) else { return };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else { return };
    let name = &request.certification_request_info.subject;
    line!(w, 0, "Subject:");
    line!(w, 0, "\tCommon Name:\t{}", attributes(name, "2.5.4.3").last().map_or("", String::as_str));
    line!(w, 0, "\tSerial Number:\t{}", attributes(name, "2.5.4.5").last().map_or("", String::as_str));
    for (label, oid) in [
        ("Organization", "2.5.4.10"), ("Organizational Unit", "2.5.4.11"), ("Country", "2.5.4.6"), ("Locality", "2.5.4.7"), ("Province", "2.5.4.8"), ("StreetAddress", "2.5.4.9"),
        ("PostalCode", "2.5.4.17"),
    ] {
        values(label, &attributes(name, oid), w);
    }
    let (mut dns, mut emails, mut uris, mut addresses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => emails.push((*name).to_owned()),
                GeneralName::URI(name) => uris.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
    }
    if [&dns, &emails, &uris, &addresses].iter().any(|names| !names.is_empty()) {
        line!(w, 0, "Subject Alternative Names:");
        values("DNS Names", &dns, w);
        values("Email Addresses", &emails, w);
        values("URIs", &uris, w);
        values("IP Addresses", &addresses, w);
    }
}

fn attributes(name: &X509Name<'_>, oid: &str) -> Vec<String> {
    name.iter_attributes().filter(|attribute| attribute.attr_type().to_id_string() == oid).filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    <[u8; 4]>::try_from(bytes).map(|four| Ipv4Addr::from(four).to_string()).or_else(|_| <[u8; 16]>::try_from(bytes).map(|sixteen| Ipv6Addr::from(sixteen).to_string())).ok()
}

fn values(label: &str, values: &[String], w: &mut Writer) {
    if !values.is_empty() {
        line!(w, 0, "\t{label}:\t{}", values.join("\n\t\t"));
    }
}
