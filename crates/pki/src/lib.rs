//! Certificates: an authority, what it signs, requests, and what is in them. See README.md.

mod authority;
mod certificate;
mod request;
mod signing;

pub use authority::{Authority, Identity, Pki, PkiError};
pub use certificate::{Certificate, CertificateError, certificates, public_key_hash};
pub use request::{Request, Subject, key_der, key_pair};
pub use signing::{Wanted, read as read_request};
