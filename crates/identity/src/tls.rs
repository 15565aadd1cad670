//! TLS settings of the mesh: version 1.3, AES-GCM, HTTP/2, only the mesh's roots.
//!
//! Invariant: every configuration verifies its peer's chain, except that of the operator's server,
//! whose clients authenticate by token.

use std::sync::{Arc, LazyLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{Ticketer, cipher_suite, default_provider, kx_group},
        verify_tls13_signature,
    },
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::Error;

/// The ALPN protocol of HBONE and of gRPC.
const H2: &[u8] = b"h2";
/// The ALPN protocol of HTTP/1.1.
const HTTP1: &[u8] = b"http/1.1";
/// Session tickets per handshake: pooled connections rarely need a second one.
const TICKETS: usize = 1;
/// Peers whose sessions a client caches.
const SESSIONS_MAX: usize = 1024;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1, kx_group::X25519MLKEM768],
        ..default_provider()
    })
});

/// A certificate, its intermediates, and its key.
pub(crate) struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

pub(crate) fn root_store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|e| Error::Tls(e.to_string()))?;
    }
    if store.is_empty() {
        return Err(Error::Tls("the bundle holds no root".to_owned()));
    }
    Ok(Arc::new(store))
}

/// Verifies that a client certificate leads to a root, is valid now and permits client
/// authentication.
pub(crate) fn client_verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&PROVIDER))
        // Peers know their mesh; the hint would only cost bytes in each handshake.
        .clear_root_hint_subjects()
        .build()
        .map_err(|e| Error::Tls(e.to_string()))
}

/// Server side between workloads. Tickets are valid only with this configuration, and so only with
/// its roots.
pub(crate) fn mutual_server(
    credentials: &Credentials,
    roots: Arc<RootCertStore>,
) -> Result<Arc<ServerConfig>, Error> {
    let failed = |e: rustls::Error| Error::Tls(e.to_string());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(client_verifier(roots)?)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(failed)?;
    config.alpn_protocols = vec![H2.to_vec()];
    config.ticketer = Ticketer::new().map_err(failed)?;
    config.send_tls13_tickets = TICKETS;
    Ok(Arc::new(config))
}

/// Client side between workloads. The expected identity differs per connection and is checked after
/// the handshake.
pub(crate) fn mutual_client(
    credentials: &Credentials,
    roots: Arc<RootCertStore>,
) -> Result<Arc<ClientConfig>, Error> {
    let failed = |e: rustls::Error| Error::Tls(e.to_string());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ChainVerifier { roots }))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(failed)?;
    config.alpn_protocols = vec![H2.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(Arc::new(config))
}

/// The operator's server: no client certificates.
pub(crate) fn plain_server(credentials: &Credentials) -> Result<Arc<ServerConfig>, Error> {
    let failed = |e: rustls::Error| Error::Tls(e.to_string());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(failed)?;
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(Arc::new(config))
}

/// Clients of the operator: the server certificate must contain the dialed DNS name.
pub(crate) fn plain_client(roots: Arc<RootCertStore>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| Error::Tls(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Clients of servers outside of the mesh: public roots, and the dialed DNS name.
pub(crate) fn web_client() -> Result<Arc<ClientConfig>, Error> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Tls(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Verifies chain, validity and usage of a server certificate, but not its name.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
