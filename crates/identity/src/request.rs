//! Generating a key and a certificate signing request for it.
//!
//! A private key never leaves the process: it can be used and compared, not printed or exported.

use std::fmt;

use ambit_model::Spiffe;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Error;

/// An ECDSA P-256 key.
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// Generates a key with the system's random number generator.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        Ok(Self(key.map_err(|source| Error::Crypto { doing: "making a key", source })?))
    }

    pub(crate) fn der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// A PEM PKCS#10 request for one identity: empty subject, one URI name.
///
/// # Errors
/// If the identity cannot be written as a URI name, or the request cannot be signed.
pub fn csr(key: &PrivateKey, identity: &Spiffe) -> Result<String, Error> {
    let failed = |source| Error::Crypto { doing: "writing a certificate request", source };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().map_err(failed)?)];
    params.serialize_request(key.pair()).and_then(|request| request.pem()).map_err(failed)
}
