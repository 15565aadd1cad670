//! A workload's certificate in use: TLS on both ends of a tunnel.
//!
//! Invariant: an [`Svid`] holds a certificate for exactly its identity, with a chain to its roots.
//! TLS configurations are built once per certificate, not per handshake. No application byte passes
//! before the peer's identity is known and, on the connecting side, is one of those expected.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ambit_model::Spiffe;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::{
    Error, HandshakeError, PrivateKey,
    certificate::{Facts, parse_pem},
    forward::forward_write,
    tls::{self, Credentials},
};

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate with its TLS configurations.
pub struct Svid {
    identity: Spiffe,
    not_before: SystemTime,
    not_after: SystemTime,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Svid {
    /// Builds an SVID from a CA's response: leaf, intermediates, and last the root or roots.
    /// Rejects a certificate for another identity, one that is not valid now, and a chain that
    /// peers with the same roots would reject.
    ///
    /// # Errors
    /// Why the certificate cannot be used.
    pub fn new(
        key: &PrivateKey,
        chain: &[String],
        expected: &Spiffe,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let what = "the CA's answer";
        let (roots, chain) = chain.split_last().ok_or(Error::Pem { what })?;
        let roots = tls::root_store(&parse_pem(what, roots)?)?;
        let mut certificates = Vec::new();
        for text in chain {
            certificates.extend(parse_pem(what, text)?);
        }
        let (leaf, intermediates) = certificates.split_first().ok_or(Error::Pem { what })?;
        let facts = Facts::of(what, leaf)?;
        if facts.uris != [expected.to_string()] {
            return Err(Error::WrongSubject { expected: expected.clone(), got: facts.uris.join(", ") });
        }
        if !facts.is_valid_at(now) {
            return Err(Error::SvidNotValidNow(expected.clone()));
        }
        let at = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        tls::client_verifier(Arc::clone(&roots))?
            .verify_client_cert(leaf, intermediates, at)
            .map_err(|e| Error::ChainWithoutRoot(e.to_string()))?;
        // rustls rejects a key that does not match the leaf.
        let credentials = Credentials { chain: certificates, key: key.der() };
        Ok(Self {
            identity: expected.clone(),
            not_before: facts.not_before,
            not_after: facts.not_after,
            server: tls::mutual_server(&credentials, Arc::clone(&roots))?,
            client: tls::mutual_client(&credentials, roots)?,
        })
    }

    /// The identity it certifies.
    pub fn identity(&self) -> &Spiffe {
        &self.identity
    }

    /// Start of its validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of its validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether the certificate is valid at `now`.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("identity", &self.identity)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The accepting end of a secured connection.
#[derive(Debug)]
pub struct ServerStream<IO>(server::TlsStream<IO>);

/// The connecting end of a secured connection.
#[derive(Debug)]
pub struct ClientStream<IO>(client::TlsStream<IO>);

/// Secures an accepted connection. Returns the peer's identity, which must be of our own trust
/// domain.
///
/// # Errors
/// If the TLS handshake fails or takes too long, or the peer has no identity of our trust domain.
pub async fn accept<IO>(svid: &Svid, io: IO) -> Result<(ServerStream<IO>, Spiffe), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(Arc::clone(&svid.server)).accept(io);
    let stream = within_time(handshake).await?;
    let peer = peer(stream.get_ref().1.peer_certificates(), SystemTime::now())?;
    if peer.trust_domain != svid.identity.trust_domain {
        let expected = format!("an identity of trust domain {}", svid.identity.trust_domain);
        return Err(HandshakeError::WrongIdentity { got: peer, expected });
    }
    Ok((ServerStream(stream), peer))
}

/// Secures a dialed connection. Returns the peer's identity, which must be one of `expected`; if
/// `expected` is empty, every peer is rejected.
///
/// # Errors
/// If the TLS handshake fails or takes too long, or the peer is none of `expected`.
pub async fn connect<IO>(
    svid: &Svid,
    expected: &[Spiffe],
    io: IO,
) -> Result<(ClientStream<IO>, Spiffe), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = session_name(expected);
    let handshake = TlsConnector::from(Arc::clone(&svid.client)).connect(name, io);
    let stream = within_time(handshake).await?;
    let peer = peer(stream.get_ref().1.peer_certificates(), SystemTime::now())?;
    if !expected.contains(&peer) {
        let names: Vec<String> = expected.iter().map(Spiffe::to_string).collect();
        return Err(HandshakeError::WrongIdentity { got: peer, expected: names.join(" or ") });
    }
    Ok((ClientStream(stream), peer))
}

async fn within_time<T>(handshake: impl Future<Output = io::Result<T>>) -> Result<T, HandshakeError> {
    match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(done) => done.map_err(HandshakeError::Tls),
        Err(_elapsed) => Err(HandshakeError::Timeout),
    }
}

/// The key of rustls' session cache, never sent (SNI is disabled). One per set of identities, so
/// that a ticket returns only to the peers that issued it.
fn session_name(expected: &[Spiffe]) -> ServerName<'static> {
    let mut text = String::new();
    for identity in expected {
        text.push_str(&identity.to_string());
        text.push('\n');
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let label: String = digest.as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect();
    // 32 hexadecimal digits are always a valid DNS label; the address only avoids a panic.
    ServerName::try_from(label).unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// The identity that the peer proved. A resumed session skips the verifier, so the certificate's
/// validity is checked again.
fn peer(certificates: Option<&[CertificateDer<'static>]>, now: SystemTime) -> Result<Spiffe, HandshakeError> {
    let leaf = certificates.and_then(<[_]>::first).ok_or(HandshakeError::NoIdentity)?;
    let facts = Facts::of("the peer's certificate", leaf).map_err(|_| HandshakeError::NoIdentity)?;
    let identity = facts.identity().ok_or(HandshakeError::NoIdentity)?;
    if !facts.is_valid_at(now) {
        return Err(HandshakeError::Expired(identity));
    }
    Ok(identity)
}

macro_rules! forward_io {
    ($stream:ident) => {
        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for $stream<IO> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_read(cx, buf)
            }
        }

        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for $stream<IO> {
            forward_write!(0);
        }

        impl<IO> $stream<IO> {
            /// The underlying stream, e.g. to query a socket's addresses.
            pub fn get_ref(&self) -> &IO {
                self.0.get_ref().0
            }
        }
    };
}

forward_io!(ServerStream);
forward_io!(ClientStream);

#[cfg(test)]
mod tests;
