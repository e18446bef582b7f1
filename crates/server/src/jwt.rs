//! JSON Web Tokens as far as they are verified here: taken apart, and held against public keys out of PEM files or key sets.
//!
//! RFC 7515 to 7518; the algorithms are those that Kubernetes lets issuers use, but for ES512, which our cryptography does not have.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

pub const ALGORITHMS: [&str; 8] = ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"];

const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;
const SHORTEST_RSA_MODULUS_BYTES: usize = 256;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwtError {
    #[error("square/go-jose: compact JWS format must have three parts")]
    Parts,
    #[error("illegal base64 data")]
    Base64,
    #[error("invalid character in the token's JSON")]
    Json,
}

/// A token taken apart; nothing about it is verified.
#[derive(Debug)]
pub struct Token<'a> {
    pub header: Value,
    pub claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    pub fn parse(token: &'a str) -> Result<Self, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Parts)?;
        let (header, claims) = signed.split_once('.').filter(|(_, claims)| !claims.contains('.')).ok_or(JwtError::Parts)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Base64);
        let json = |part: &str| decode(part).and_then(|bytes| serde_json::from_slice(&bytes).map_err(|_| JwtError::Json));
        Ok(Self { header: json(header)?, claims: json(claims)?, signed, signature: decode(signature)? })
    }

    pub fn algorithm(&self) -> &str {
        self.header["alg"].as_str().unwrap_or("")
    }

    pub fn key_id(&self) -> &str {
        self.header["kid"].as_str().unwrap_or("")
    }

    /// The issuer of any token, whether it is true or not; empty when there is none.
    pub fn issuer(&self) -> &str {
        self.claims["iss"].as_str().unwrap_or("")
    }

    /// Whether one of the keys signed it: the one it names, or any should it name none or one that is not known by that name.
    pub fn verified_by<'k>(&self, keys: impl IntoIterator<Item = &'k PublicKey>) -> bool {
        let id = self.key_id();
        let keys: Vec<&PublicKey> = keys.into_iter().collect();
        let named: Vec<&PublicKey> = keys.iter().copied().filter(|key| !id.is_empty() && key.id == id).collect();
        let candidates = if named.is_empty() { keys } else { named };
        candidates.into_iter().any(|key| key.verify(self.algorithm(), self.signed.as_bytes(), &self.signature))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub id: String,
    material: Material,
}

impl PublicKey {
    /// Of a P-256 point, uncompressed. Its id is derived from it.
    pub fn p256(point: &[u8]) -> Self {
        Self { id: URL_SAFE_NO_PAD.encode(Sha256::digest(point)), material: Material::P256(point.to_vec()) }
    }

    /// Of a SubjectPublicKeyInfo; its id is derived from it, as upstream's.
    fn of_info(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(info.raw));
        let bits = &*info.subject_public_key.data;
        let material = match info.parsed().ok()? {
            x509_parser::public_key::PublicKey::RSA(key) => {
                let trimmed = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
                Material::Rsa { modulus: trimmed(key.modulus), exponent: trimmed(key.exponent) }
            }
            x509_parser::public_key::PublicKey::EC(_) => match bits.len() {
                P256_POINT_BYTES => Material::P256(bits.to_vec()),
                P384_POINT_BYTES => Material::P384(bits.to_vec()),
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { id, material })
    }

    /// All keys of a PEM file: public keys and certificates.
    pub fn of_pem(pem: &[u8]) -> Vec<Self> {
        x509_parser::pem::Pem::iter_from_buffer(pem)
            .flatten()
            .filter_map(|block| match block.label.as_str() {
                "PUBLIC KEY" => SubjectPublicKeyInfo::from_der(&block.contents).ok().and_then(|(_, info)| Self::of_info(&info)),
                "CERTIFICATE" => X509Certificate::from_der(&block.contents).ok().and_then(|(_, certificate)| Self::of_info(certificate.public_key())),
                _ => None,
            })
            .collect()
    }

    /// Of a JSON Web Key Set; keys for other ends than signing, and those we have no algorithm for, are left out.
    pub fn of_set(set: &Value) -> Vec<Self> {
        let bytes = |key: &Value, field: &str| key[field].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok());
        let one = |key: &Value| {
            if key["use"].as_str().is_some_and(|usage| usage != "sig") {
                return None;
            }
            let material = match (key["kty"].as_str()?, key["crv"].as_str().unwrap_or("")) {
                ("RSA", _) => Material::Rsa { modulus: bytes(key, "n")?, exponent: bytes(key, "e")? },
                ("EC", curve @ ("P-256" | "P-384")) => {
                    let point = [&[4], bytes(key, "x")?.as_slice(), bytes(key, "y")?.as_slice()].concat();
                    if curve == "P-256" { Material::P256(point) } else { Material::P384(point) }
                }
                _ => return None,
            };
            Some(Self { id: key["kid"].as_str().unwrap_or("").to_owned(), material })
        };
        set["keys"].as_array().into_iter().flatten().filter_map(one).collect()
    }

    /// As a JSON Web Key.
    pub fn jwk(&self) -> Value {
        let point = |bytes: &[u8], curve: &str, algorithm: &str| {
            let (x, y) = bytes.get(1..).map(|rest| rest.split_at(rest.len() / 2)).unwrap_or_default();
            json!({"use": "sig", "kty": "EC", "kid": self.id, "alg": algorithm, "crv": curve, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
        };
        match &self.material {
            Material::Rsa { modulus, exponent } => json!({"use": "sig", "kty": "RSA", "kid": self.id, "alg": "RS256", "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent)}),
            Material::P256(bytes) => point(bytes, "P-256", "ES256"),
            Material::P384(bytes) => point(bytes, "P-384", "ES384"),
        }
    }

    /// The algorithm it signs with by default.
    pub fn algorithm(&self) -> &'static str {
        match self.material {
            Material::Rsa { .. } => "RS256",
            Material::P256(_) => "ES256",
            Material::P384(_) => "ES384",
        }
    }

    fn verify(&self, algorithm: &str, message: &[u8], given: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::P256(point), "ES256") => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, given).is_ok(),
            (Material::P384(point), "ES384") => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(message, given).is_ok(),
            (Material::Rsa { modulus, exponent }, _) => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                modulus.len() >= SHORTEST_RSA_MODULUS_BYTES && RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, given).is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_others() {
        // RFC 7515, appendix A.3: ES256.
        let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]});
        let text = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let token = Token::parse(text).unwrap();
        assert_eq!((token.issuer(), token.algorithm()), ("joe", "ES256"));
        let keys = PublicKey::of_set(&set);
        assert!(token.verified_by(&keys));
        let forged = text.replace("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJqb2Uy");
        assert!(Token::parse(&forged).map(|token| !token.verified_by(&keys)).unwrap_or(true));
        // RFC 7515, appendix A.2: RS256.
        let set = json!({"keys": [{"kty": "RSA", "kid": "r", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]});
        let rsa = PublicKey::of_set(&set);
        let text = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        let token = Token::parse(text).unwrap();
        assert!(token.verified_by(&rsa) && !token.verified_by(&keys));
        // What was published is read again.
        assert_eq!(PublicKey::of_set(&json!({"keys": [rsa[0].jwk(), keys[0].jwk()]})).len(), 2);
        for broken in ["", "a.b", "a.b.c.d", "e30.e30", "!.e30.x", "e30.bm8.x"] {
            assert!(Token::parse(broken).is_err(), "{broken}");
        }
    }
}
