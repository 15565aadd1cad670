//! Why an identity could not be had, held or believed.
//!
//! A peer that is not who it should be ([`HandshakeError::WrongIdentity`]) is never mixed up with a connection that
//! failed: the first is an incident, the second is weather.

use std::{io, path::PathBuf, sync::Arc};

use ambit_model::Spiffe;

/// Anything about certificates, keys and requests that is not a handshake.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Text that should hold PEM does not.
    #[error("{what} is not PEM of the expected kind")]
    Pem {
        /// Which input, e.g. `ca-cert.pem`.
        what: &'static str,
    },
    /// A certificate that cannot be read.
    #[error("{what} is not a certificate this mesh can read: {reason}")]
    Certificate {
        /// Which input.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// A Secret without one of the keys of its layout.
    #[error("the CA Secret has no key {0}; give the layout of cacerts or of kubernetes.io/tls with ca.crt")]
    MissingPart(&'static str),
    /// The CA's key is not the one its certificate names.
    #[error("the CA's private key does not belong to its certificate; replace both together")]
    KeyMismatch,
    /// The CA certificate may not sign certificates.
    #[error("the CA certificate has no CA bit or may not sign certificates")]
    NotCa,
    /// A certificate on the way to the root is not valid now.
    #[error("the CA chain is not valid at this time; renew it or check the clock")]
    CaNotValidNow,
    /// The chain does not end at a given root.
    #[error("the CA chain does not lead to the given root: {0}")]
    ChainWithoutRoot(String),
    /// A request that is not signed, not readable, or asks for what no workload may have.
    #[error("certificate request refused: {0}")]
    Request(#[from] RequestRefused),
    /// A lifetime of zero.
    #[error("a certificate must live for longer than nothing")]
    ZeroTtl,
    /// Making a key or signing failed.
    #[error("{doing} failed: {source}")]
    Crypto {
        /// What was tried.
        doing: &'static str,
        /// From the library.
        #[source]
        source: rcgen::Error,
    },
    /// TLS could not be configured from a key and its chain.
    #[error("TLS cannot use this certificate: {0}")]
    Tls(String),
    /// The answer to a request is for someone else.
    #[error("the CA answered with a certificate for {got} instead of {expected}")]
    WrongSubject {
        /// Whom it was asked for.
        expected: Spiffe,
        /// The URI names it holds.
        got: String,
    },
    /// An SVID that is not valid now.
    #[error("the certificate of {0} is not valid at this time; check the clocks of node and operator")]
    SvidNotValidNow(Spiffe),
    /// A file that must be there cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// From the system.
        #[source]
        source: io::Error,
    },
    /// A token file without a token.
    #[error("{0} holds no usable token")]
    Token(PathBuf),
    /// The CA could not be asked, or refused.
    #[error("no certificate for {identity}: {source}")]
    Issue {
        /// For whom.
        identity: Spiffe,
        /// What the CA said.
        #[source]
        source: SourceError,
    },
    /// The last try failed; the cause is shared by all who wait for the same identity.
    #[error("{0}")]
    Unavailable(Arc<Error>),
    /// Too many wait for the same identity already.
    #[error("too many connections wait for the certificate of {0}; is the CA reachable?")]
    Busy(Spiffe),
    /// The manager's task has ended: the program is shutting down.
    #[error("the certificate manager has stopped")]
    Stopped,
}

/// What is wrong with a certificate request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefused {
    /// Larger than any request this mesh makes.
    #[error("it is too large")]
    TooLarge,
    /// Not one PEM block of the kind CERTIFICATE REQUEST, or its content cannot be read.
    #[error("it cannot be read")]
    Unreadable,
    /// It asks for an extension other than names and usages.
    #[error("it asks for an extension that is not signed here")]
    Extension,
    /// The requester does not hold the key.
    #[error("its signature is wrong")]
    Signature,
    /// A name that is not a URI, or a URI with bytes no SPIFFE id has.
    #[error("it names something other than plain URIs")]
    Name,
    /// A kind or size of key that is not signed.
    #[error("its kind of key is not accepted; use ECDSA P-256")]
    Key,
}

/// Why a source gave no certificate.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// The call failed or was refused.
    #[error("CA answered {code}: {message}")]
    Call {
        /// gRPC code.
        code: tonic::Code,
        /// The CA's words.
        message: String,
    },
    /// No answer in time.
    #[error("CA did not answer in time")]
    Timeout,
    /// This program could not even ask, e.g. for want of a token.
    #[error("CA could not be asked: {0}")]
    Local(String),
}

/// A connection between two workloads could not be secured.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// TLS failed: no TLS peer, an untrusted or expired chain, a lost connection.
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// The peer took too long.
    #[error("TLS handshake took too long")]
    Timeout,
    /// Newer ones needed its place.
    #[error("TLS handshake given up for newer ones: too many are under way")]
    Crowded,
    /// The peer's certificate has no URI name, several, or one that is no identity of a mesh.
    #[error("the peer's certificate does not name exactly one SPIFFE identity")]
    NoIdentity,
    /// A resumed session whose certificate has expired since.
    #[error("the peer {0} resumed a session with a certificate that has expired")]
    Expired(Spiffe),
    /// The peer is trusted, but is not who it must be.
    #[error("the peer is {got}; expected {expected}")]
    WrongIdentity {
        /// Whom it proved to be.
        got: Spiffe,
        /// Whom this side would talk to.
        expected: String,
    },
}
