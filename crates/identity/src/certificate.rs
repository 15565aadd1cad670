//! Parsing the parts of a certificate that the mesh uses.
//!
//! This does not verify the certificate; the TLS verifier does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_model::Spiffe;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    asn1_rs::Tag,
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    time::ASN1Time,
};

use crate::Error;

/// `uniformResourceIdentifier [6]` (RFC 5280 4.2.1.6).
const URI_TAG: Tag = Tag(6);

/// The parsed parts of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// URI names, in the order of the certificate.
    pub(crate) uris: Vec<String>,
    /// Whether it may sign certificates.
    pub(crate) signs: bool,
    /// The public key, without its algorithm identifier.
    pub(crate) public_key: Vec<u8>,
}

impl Facts {
    pub(crate) fn of(what: &'static str, certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let (rest, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|e| Error::Certificate { what, reason: e.to_string() })?;
        if !rest.is_empty() {
            return Err(Error::Certificate { what, reason: "bytes after its end".to_owned() });
        }
        Ok(Self {
            not_before: time(parsed.validity().not_before),
            not_after: time(parsed.validity().not_after),
            uris: uris(&parsed),
            signs: signs(&parsed),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
        })
    }

    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// The single URI name, if it is a mesh identity. A certificate with several URI names is
    /// rejected (X509-SVID section 2): otherwise a CA could have a certificate for one identity
    /// read as another.
    pub(crate) fn identity(&self) -> Option<Spiffe> {
        match self.uris.as_slice() {
            [uri] => uri.parse().ok(),
            [] | [_, _, ..] => None,
        }
    }
}

/// All certificates in a PEM text; an error if any of them is malformed.
pub(crate) fn parse_pem(what: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|_| Error::Pem { what })
}

pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode_config(
        &pem::Pem::new("CERTIFICATE", certificate.as_ref()),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let uri = |name: &GeneralName<'_>| {
        // A name that is not text still counts as a name.
        let broken = matches!(name, GeneralName::Invalid(URI_TAG, _)).then(String::new);
        if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { broken }
    };
    names.iter().flat_map(|names| names.value.general_names.iter().filter_map(uri)).collect()
}

fn signs(certificate: &X509Certificate<'_>) -> bool {
    let forbids = |extension: &ParsedExtension<'_>| matches!(extension, ParsedExtension::KeyUsage(usage) if !usage.key_cert_sign());
    let usage_allows = !certificate.extensions().iter().any(|e| forbids(e.parsed_extension()));
    certificate.is_ca() && usage_allows
}

/// Times before 1970 are treated as 1970.
fn time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}
