//! The key that signs service-account tokens: JSON Web Tokens with ES256. What verifies them: `authentication/service_accounts.rs`.
//!
//! Claims as upstream's bound tokens (KEP-1205): https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::jwt::PublicKey;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the service-account signing key is not a P-256 PKCS#8 key: {0}")]
    Key(String),
    #[error("the token cannot be signed")]
    Signature,
}

/// Signs. The public part is what `/openid/v1/jwks` publishes.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    public: PublicKey,
}

impl TokenKey {
    /// A new key as PKCS#8 DER.
    pub fn generate() -> Result<Vec<u8>, TokenError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map(|document| document.as_ref().to_vec()).map_err(|error| TokenError::Key(error.to_string()))
    }

    pub fn from_pkcs8(der: &[u8]) -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random).map_err(|error| TokenError::Key(error.to_string()))?;
        let public = PublicKey::p256(pair.public_key().as_ref());
        Ok(Self { pair, random, public })
    }

    pub fn sign(&self, claims: &Value) -> Result<String, TokenError> {
        let header = json!({"alg": "ES256", "kid": self.public.id});
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.pair.sign(&self.random, text.as_bytes()).map_err(|_| TokenError::Signature)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What verifies.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::Token;

    #[test]
    fn a_token_verifies_only_as_it_was_signed() {
        let key = TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap();
        let token = key.sign(&json!({"sub": "system:serviceaccount:a:b"})).unwrap();
        let verified = |token: &str, key: &TokenKey| Token::parse(token).is_ok_and(|token| token.verified_by([key.public()]));
        assert!(verified(&token, &key));
        let mut forged: Vec<&str> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#);
        forged[1] = &claims;
        assert!(!verified(&forged.join("."), &key));
        let other = TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap();
        assert!(!verified(&token, &other));
    }
}
