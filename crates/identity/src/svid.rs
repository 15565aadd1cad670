//! A workload's certificate in use: TLS on both ends of a tunnel.
//!
//! Invariant: an [`Svid`] holds a certificate of exactly the identity it says, with a chain that leads to its roots. TLS
//! configurations are made once per certificate, not per handshake. No byte of an application passes before the peer's
//! identity is known and, on the connecting side, is one of those expected.

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

/// How long a peer may take for its half of a handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate ready for use.
pub struct Svid {
    identity: Spiffe,
    not_before: SystemTime,
    not_after: SystemTime,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Svid {
    /// From a CA's answer: leaf, intermediates, and last the root or roots. Refuses a certificate of someone else, one
    /// that is not valid now, and a chain that peers with the same roots would refuse.
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
        // rustls refuses a key that is not the leaf's.
        let credentials = Credentials { chain: certificates, key: key.der() };
        Ok(Self {
            identity: expected.clone(),
            not_before: facts.not_before,
            not_after: facts.not_after,
            server: tls::mutual_server(&credentials, Arc::clone(&roots))?,
            client: tls::mutual_client(&credentials, roots)?,
        })
    }

    /// Who this is.
    pub fn identity(&self) -> &Spiffe {
        &self.identity
    }

    /// When the certificate became valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// False before and after the certificate's time.
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

/// Secures an accepted connection: the peer must prove an identity of our own trust domain, which is returned.
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

/// Secures a dialed connection: the peer must prove one of the `expected` identities, which is returned. None expected
/// means none is right.
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

/// Under which name rustls remembers a session. It is never sent (no SNI). One per set of identities, so that a ticket
/// goes back only to those who gave it.
fn session_name(expected: &[Spiffe]) -> ServerName<'static> {
    let mut text = String::new();
    for identity in expected {
        text.push_str(&identity.to_string());
        text.push('\n');
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let label: String = digest.as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect();
    // 32 hexadecimal digits are always a DNS label; the address is only there to have no other way out.
    ServerName::try_from(label).unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// Who the peer proved to be. A resumed session skips the verifier, so the certificate's time is looked at again.
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
            /// The stream beneath, e.g. to ask a socket for its addresses.
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
