//! The mesh's certificate authority.
//!
//! Invariant: when an [`Authority`] is created, its key matches its certificate, the certificate
//! may sign, and its chain verifiably leads to its roots; peers therefore accept what it signs. It
//! does not decide which identity a requester may have: the caller does.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use ambit_model::Spiffe;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{
    Error, PrivateKey,
    certificate::{Facts, parse_pem, to_pem},
    csr,
    tls::{self, Credentials},
};

/// How far before the time of signing certificates become valid, for peers whose clocks are behind.
pub const NOT_BEFORE_SKEW: Duration = Duration::from_secs(120);
const SERIAL_BYTES: usize = 16;

/// A CA as PEM, as Secrets hold it.
#[derive(Clone, PartialEq, Eq)]
pub struct Parts {
    /// The signing certificate (`ca-cert.pem`, `tls.crt`).
    pub cert: String,
    /// Its key, PKCS#8, PKCS#1 or SEC1 (`ca-key.pem`, `tls.key`).
    pub key: String,
    /// Certificates from the signing certificate to a root (`cert-chain.pem`). May be empty, and
    /// may include both ends.
    pub chain: String,
    /// The trusted roots (`root-cert.pem`, `ca.crt`).
    pub root: String,
}

/// Signs certificates of workloads and of the operator's own server.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The signing certificate and its intermediates, without the roots.
    intermediates: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    parts: Parts,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// A certificate for the operator's own TLS port, with its key.
pub struct ServerCertificate {
    pub(crate) credentials: Credentials,
    not_after: SystemTime,
}

impl Parts {
    /// Reads the data of a Secret in the layout of Istio's `cacerts` or of `kubernetes.io/tls`.
    ///
    /// # Errors
    /// The entry that is missing or not text.
    pub fn from_secret<V: AsRef<[u8]>>(data: &BTreeMap<String, V>) -> Result<Self, Error> {
        let text = |key: &'static str| {
            let bytes = data.get(key).ok_or(Error::MissingPart(key))?;
            String::from_utf8(bytes.as_ref().to_vec()).map_err(|_| Error::Pem { what: key })
        };
        if data.contains_key("tls.crt") {
            // tls.crt starts with the signing certificate; the rest is the chain to ca.crt.
            let cert = text("tls.crt")?;
            return Ok(Self { chain: cert.clone(), cert, key: text("tls.key")?, root: text("ca.crt")? });
        }
        let chain = if data.contains_key("cert-chain.pem") { text("cert-chain.pem")? } else { String::new() };
        Ok(Self { cert: text("ca-cert.pem")?, key: text("ca-key.pem")?, chain, root: text("root-cert.pem")? })
    }
}

impl Authority {
    /// Creates a new root that signs workload certificates directly.
    ///
    /// # Errors
    /// If no key or certificate can be made.
    pub fn self_signed(trust_domain: &str, ttl: Duration, now: SystemTime) -> Result<Self, Error> {
        let failed = |source| Error::Crypto { doing: "making a root certificate", source };
        let key = PrivateKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain);
        params.distinguished_name.push(DnType::CommonName, "Ambit root CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial()?);
        params.not_before = (now - NOT_BEFORE_SKEW).into();
        params.not_after = (now + ttl).into();
        let cert = params.self_signed(key.pair()).map_err(failed)?.pem();
        let parts = Parts { root: cert.clone(), cert, key: key.pair().serialize_pem(), chain: String::new() };
        Self::from_pem(parts, now)
    }

    /// Loads an existing CA. Rejects one whose certificates peers would not accept.
    ///
    /// # Errors
    /// What peers would not accept: a part that is not PEM, a key of another certificate, a chain that does not
    /// lead to the root, or one that is not valid now.
    pub fn from_pem(parts: Parts, now: SystemTime) -> Result<Self, Error> {
        let cert = parse_pem("the CA certificate", &parts.cert)?
            .into_iter()
            .next()
            .ok_or(Error::Pem { what: "the CA certificate" })?;
        let roots = parse_pem("the root certificate", &parts.root)?;
        let key = KeyPair::from_pem(&parts.key).map_err(|_| Error::Pem { what: "the CA key" })?;
        let facts = Facts::of("the CA certificate", &cert)?;
        if facts.public_key != key.der_bytes() {
            return Err(Error::KeyMismatch);
        }
        if !facts.signs {
            return Err(Error::NotCa);
        }
        let mut intermediates: Vec<CertificateDer<'static>> = Vec::new();
        for certificate in std::iter::once(cert.clone()).chain(parse_pem("the CA chain", &parts.chain)?) {
            if !roots.contains(&certificate) && !intermediates.contains(&certificate) {
                intermediates.push(certificate);
            }
        }
        let (not_before, not_after) = validity(&cert, &intermediates)?;
        if !(not_before..not_after).contains(&now) {
            return Err(Error::CaNotValidNow);
        }
        let issuer = Issuer::from_ca_cert_der(&cert, key)
            .map_err(|source| Error::Crypto { doing: "reading the CA certificate", source })?;
        let authority = Self { issuer, intermediates, roots, parts, not_before, not_after };
        authority.prove_chain(now)?;
        Ok(authority)
    }

    /// The CA as PEM, for a Secret.
    pub fn to_pem(&self) -> &Parts {
        &self.parts
    }

    /// All trusted roots as one PEM bundle.
    pub fn root_bundle(&self) -> String {
        self.roots.iter().map(to_pem).collect()
    }

    /// The earliest end of the signing certificate and its chain.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Certifies the public key of a request for `identity`, whatever names the request contains.
    /// The result is PEM: leaf, intermediates one by one, and last all roots in one element. `ttl`
    /// is limited to the end of the chain.
    ///
    /// # Errors
    /// If the request is rejected, or the leaf cannot be signed.
    pub fn sign(
        &self,
        csr_pem: &str,
        identity: &Spiffe,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        let request = csr::inspect(csr_pem)?;
        let leaf = self.leaf(&request.public_key, spiffe_name(identity)?, ttl, now)?;
        let chain = std::iter::once(&leaf).chain(&self.intermediates).map(to_pem);
        Ok(chain.chain(std::iter::once(self.root_bundle())).collect())
    }

    /// A certificate for a server of the mesh itself, known by a DNS name.
    ///
    /// # Errors
    /// If `dns_name` is no DNS name, or the certificate cannot be made.
    pub fn server_certificate(
        &self,
        dns_name: &str,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<ServerCertificate, Error> {
        let name = dns_name.to_owned().try_into();
        let name =
            SanType::DnsName(name.map_err(|source| Error::Crypto { doing: "naming a server", source })?);
        let key = PrivateKey::generate()?;
        let leaf = self.leaf(key.pair(), name, ttl, now)?;
        let not_after = Facts::of("the server certificate", &leaf)?.not_after;
        let chain = std::iter::once(leaf).chain(self.intermediates.iter().cloned()).collect();
        Ok(ServerCertificate { credentials: Credentials { chain, key: key.der() }, not_after })
    }

    fn leaf(
        &self,
        key: &impl PublicKeyData,
        name: SanType,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, Error> {
        if ttl.is_zero() {
            return Err(Error::ZeroTtl);
        }
        if !(self.not_before..self.not_after).contains(&now) {
            return Err(Error::CaNotValidNow);
        }
        let mut params = CertificateParams::default();
        // Without a subject the SAN extension is critical (RFC 5280 4.2.1.6), as SPIFFE requires.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![name];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        params.not_before = (now - NOT_BEFORE_SKEW).max(self.not_before).into();
        params.not_after = now.checked_add(ttl).unwrap_or(self.not_after).min(self.not_after).into();
        let signed = params.signed_by(key, &self.issuer);
        Ok(signed.map_err(|source| Error::Crypto { doing: "signing a certificate", source })?.der().clone())
    }

    /// Signs a throwaway certificate and verifies it as a peer would. This covers path length,
    /// usages, name constraints and every other reason for a chain to fail.
    fn prove_chain(&self, now: SystemTime) -> Result<(), Error> {
        let key = PrivateKey::generate()?;
        let probe = Spiffe {
            trust_domain: "probe.invalid".into(),
            namespace: "probe".into(),
            service_account: "probe".into(),
        };
        let leaf = self.leaf(key.pair(), spiffe_name(&probe)?, NOT_BEFORE_SKEW, now)?;
        let at = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| Error::CaNotValidNow)?;
        tls::client_verifier(tls::root_store(&self.roots)?)?
            .verify_client_cert(&leaf, &self.intermediates, UnixTime::since_unix_epoch(at))
            .map_err(|e| Error::ChainWithoutRoot(e.to_string()))?;
        Ok(())
    }
}

impl ServerCertificate {
    /// The end of its validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// A root that signs directly limits the validity of its certificates, as an intermediate does.
fn validity(
    cert: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'static>],
) -> Result<(SystemTime, SystemTime), Error> {
    let first = Facts::of("the CA certificate", cert)?;
    let mut range = (first.not_before, first.not_after);
    for certificate in intermediates {
        let facts = Facts::of("the CA chain", certificate)?;
        range = (range.0.max(facts.not_before), range.1.min(facts.not_after));
    }
    Ok(range)
}

fn spiffe_name(identity: &Spiffe) -> Result<SanType, Error> {
    let uri = identity.to_string().try_into();
    Ok(SanType::URI(uri.map_err(|source| Error::Crypto { doing: "naming a workload", source })?))
}

/// RFC 5280 4.1.2.2: positive, unique, at most 20 bytes.
fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0u8; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Crypto {
        doing: "drawing a serial number",
        source: rcgen::Error::RingUnspecified,
    })?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("cert", &self.cert).field("root", &self.root).finish_non_exhaustive()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
