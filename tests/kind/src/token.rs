//! JSON Web Tokens (RFC 7519) of a test issuer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Lifetime of a token.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Bytes of a P-256 coordinate; an uncompressed point has one more byte in front.
const COORDINATE_BYTES: usize = 32;

/// A token issuer.
#[derive(Debug)]
pub struct Issuer {
    /// Value of `iss`.
    pub name: &'static str,
    key: EcdsaKeyPair,
}

impl Issuer {
    /// Creates an issuer with a new key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(name: &'static str) -> Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Ok(Self { name, key: key.map_err(|_| anyhow!("no key could be made"))? })
    }

    /// Its key set (RFC 7517).
    pub fn key_set(&self) -> String {
        let point = self.key.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(COORDINATE_BYTES);
        format!(
            r#"{{"keys":[{{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"one","x":"{}","y":"{}"}}]}}"#,
            URL_SAFE_NO_PAD.encode(x),
            URL_SAFE_NO_PAD.encode(y)
        )
    }

    /// A token for `subject`.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn token(&self, subject: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let (issued, ends) = (now.as_secs(), (now + LIFETIME).as_secs());
        let claims = format!(r#"{{"iss":"{}","sub":"{subject}","iat":{issued},"exp":{ends}}}"#, self.name);
        let header = r#"{"alg":"ES256","typ":"JWT","kid":"one"}"#;
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.as_bytes()),
            URL_SAFE_NO_PAD.encode(claims.as_bytes())
        );
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| anyhow!("the token could not be signed"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts_and_the_key_set_one_key() {
        let issuer = Issuer::new("https://issuer.test").unwrap();
        assert_eq!(issuer.token("me").unwrap().split('.').count(), 3);
        let keys: serde_json::Value = serde_json::from_str(&issuer.key_set()).unwrap();
        assert_eq!(keys.pointer("/keys/0/x").unwrap().as_str().unwrap().len(), 43);
    }
}
