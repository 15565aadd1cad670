//! What a certificate request asks for.
//!
//! Invariant: [`CsrFacts`] exist only for a request whose signature proves that the requester holds the key, and whose
//! names are URIs of printable bytes. The names are a wish: whoever signs decides on the identity.

use rcgen::{CertificateSigningRequestParams, PublicKeyData as _, SanType, SignatureAlgorithm};
use rustls_pki_types::CertificateSigningRequestDer;

use crate::{Error, error::RequestRefused};

/// The largest request read, in bytes of PEM; one of this mesh has about 500.
pub const CSR_MAX_BYTES: usize = 16 << 10;
/// RSA keys below 2048 bits are refused, in bytes of the encoded public key.
const RSA_KEY_MIN_BYTES: usize = 256;
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

/// A request that may be considered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrFacts {
    /// URI names it asks for, in order; often one, perhaps none.
    pub uris: Vec<String>,
    pub(crate) public_key: rcgen::PublicKey,
}

/// Reads a PEM PKCS#10 request and checks its signature, names and kind of key.
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

/// A NUL or another control byte would let a name end early in a peer that counts as C does.
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
