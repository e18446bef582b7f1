//! Service-account tokens: JSON Web Tokens signed with ES256, and the keys that verify them.
//!
//! Claims as upstream's bound tokens (KEP-1205): https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the service-account signing key is not a P-256 PKCS#8 key: {0}")]
    Key(String),
    #[error("not a token of this cluster: {0}")]
    Malformed(&'static str),
    #[error("the token's signature does not verify")]
    Signature,
}

/// Signs and verifies. The public part is what `/openid/v1/jwks` publishes.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    key_id: String,
}

impl TokenKey {
    /// A new key as PKCS#8 DER.
    pub fn generate() -> Result<Vec<u8>, TokenError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map(|document| document.as_ref().to_vec()).map_err(|error| TokenError::Key(error.to_string()))
    }

    pub fn from_pkcs8(der: &[u8]) -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random).map_err(|error| TokenError::Key(error.to_string()))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.public_key().as_ref()));
        Ok(Self { pair, random, key_id })
    }

    pub fn sign(&self, claims: &Value) -> Result<String, TokenError> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.pair.sign(&self.random, text.as_bytes()).map_err(|_| TokenError::Signature)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token with a good signature. Expiry and audience are the caller's to judge.
    pub fn verify(&self, token: &str) -> Result<Value, TokenError> {
        let (text, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("not three parts"))?;
        let (header, claims) = text.split_once('.').ok_or(TokenError::Malformed("not three parts"))?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("not base64url"));
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed("the header is no JSON"))?;
        if header["alg"] != "ES256" {
            return Err(TokenError::Malformed("another algorithm"));
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref()).verify(text.as_bytes(), &decode(signature)?).map_err(|_| TokenError::Signature)?;
        serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed("the claims are no JSON"))
    }

    /// The JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, x, y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).map(|rest| rest.split_at(rest.len() / 2)).unwrap_or_default();
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.key_id, "alg": "ES256", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)}]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_verifies_only_as_it_was_signed() {
        let key = TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap();
        let token = key.sign(&json!({"sub": "system:serviceaccount:a:b"})).unwrap();
        assert_eq!(key.verify(&token).unwrap()["sub"], "system:serviceaccount:a:b");
        let mut forged: Vec<&str> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#);
        forged[1] = &claims;
        assert!(matches!(key.verify(&forged.join(".")), Err(TokenError::Signature)));
        let other = TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap();
        assert!(other.verify(&token).is_err());
    }
}
