//! Validation of certificate signing requests.
//!
//! Invariant: a [`CsrFacts`] exists only for a request whose signature proves possession of the key
//! and whose names are URIs of printable bytes. The signer decides on the identity; the names in
//! the request are not binding.

use rcgen::{CertificateSigningRequestParams, PublicKeyData as _, SanType, SignatureAlgorithm};
use rustls_pki_types::CertificateSigningRequestDer;

use crate::{Error, error::RequestRefused};

/// The largest accepted request, in bytes of PEM; requests of this mesh have about 500.
pub const CSR_MAX_BYTES: usize = 16 << 10;
/// Smallest accepted encoded RSA public key, in bytes: rejects keys below 2048 bits.
const RSA_KEY_MIN_BYTES: usize = 256;
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

/// A validated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrFacts {
    /// Requested URI names, in order; often one, possibly none.
    pub uris: Vec<String>,
    pub(crate) public_key: rcgen::PublicKey,
}

/// Parses a PEM PKCS#10 request and checks its signature, names and key type.
///
/// # Errors
/// Why the request is rejected.
pub fn inspect(text: &str) -> Result<CsrFacts, Error> {
    if text.len() > CSR_MAX_BYTES {
        return Err(RequestRefused::TooLarge.into());
    }
    let block = pem::parse(text).map_err(|_| RequestRefused::Unreadable)?;
    if !matches!(block.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err(RequestRefused::Unreadable.into());
    }
    let der = CertificateSigningRequestDer::from(block.contents());
    let parsed = CertificateSigningRequestParams::from_der(&der).map_err(refused)?;
    if !is_accepted(parsed.public_key.algorithm(), parsed.public_key.der_bytes()) {
        return Err(RequestRefused::Key.into());
    }
    let uris = parsed.params.subject_alt_names.iter().map(uri).collect::<Result<_, _>>()?;
    Ok(CsrFacts { uris, public_key: parsed.public_key })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library has forty reasons, of which four matter to a requester"
)]
fn refused(error: rcgen::Error) -> RequestRefused {
    match error {
        rcgen::Error::InvalidCertificationRequestSignature => RequestRefused::Signature,
        rcgen::Error::UnsupportedExtension => RequestRefused::Extension,
        rcgen::Error::UnsupportedSignatureAlgorithm => RequestRefused::Key,
        rcgen::Error::InvalidNameType | rcgen::Error::InvalidAsn1String(_) => RequestRefused::Name,
        _ => RequestRefused::Unreadable,
    }
}

/// A control character such as NUL could truncate the name in a peer that uses C strings.
fn uri(name: &SanType) -> Result<String, RequestRefused> {
    let SanType::URI(uri) = name else { return Err(RequestRefused::Name) };
    let plain = uri.as_str().bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(uri.as_str().to_owned()) } else { Err(RequestRefused::Name) }
}

fn is_accepted(algorithm: &SignatureAlgorithm, key: &[u8]) -> bool {
    let size = key.len();
    if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
        size == P256_POINT_BYTES
    } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
        size == P384_POINT_BYTES
    } else if algorithm == &rcgen::PKCS_ED25519 {
        true
    } else {
        let rsa = [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_RSA_SHA384, &rcgen::PKCS_RSA_SHA512];
        rsa.contains(&algorithm) && size >= RSA_KEY_MIN_BYTES
    }
}

#[cfg(test)]
mod tests;
