//! Errors of certificates, keys, requests and handshakes.
//!
//! A peer with a wrong identity ([`HandshakeError::WrongIdentity`]) is kept apart from a connection
//! failure: the first is a security incident, the second is routine.

use std::{io, path::PathBuf, sync::Arc};

use ambit_model::Spiffe;

/// Errors of certificates, keys and requests, other than handshakes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input is not valid PEM.
    #[error("{what} is not PEM of the expected kind")]
    Pem {
        /// Name of the input, e.g. `ca-cert.pem`.
        what: &'static str,
    },
    /// The certificate cannot be parsed.
    #[error("{what} is not a certificate this mesh can read: {reason}")]
    Certificate {
        /// Name of the input.
        what: &'static str,
        /// The parser's error.
        reason: String,
    },
    /// The Secret lacks a key of its layout.
    #[error("the CA Secret has no key {0}; give the layout of cacerts or of kubernetes.io/tls with ca.crt")]
    MissingPart(&'static str),
    /// The CA's key does not match its certificate.
    #[error("the CA's private key does not belong to its certificate; replace both together")]
    KeyMismatch,
    /// The CA certificate may not sign certificates.
    #[error("the CA certificate has no CA bit or may not sign certificates")]
    NotCa,
    /// A certificate of the chain is not valid now.
    #[error("the CA chain is not valid at this time; renew it or check the clock")]
    CaNotValidNow,
    /// The chain does not lead to a given root.
    #[error("the CA chain does not lead to the given root: {0}")]
    ChainWithoutRoot(String),
    /// The certificate request was rejected.
    #[error("certificate request refused: {0}")]
    Request(#[from] RequestRefused),
    /// The requested lifetime is zero.
    #[error("the lifetime of a certificate must not be zero")]
    ZeroTtl,
    /// Generating a key or signing failed.
    #[error("{doing} failed: {source}")]
    Crypto {
        /// The operation that failed.
        doing: &'static str,
        /// The library's error.
        #[source]
        source: rcgen::Error,
    },
    /// The key and its chain cannot be used for TLS.
    #[error("TLS cannot use this certificate: {0}")]
    Tls(String),
    /// The CA returned a certificate for another identity.
    #[error("the CA answered with a certificate for {got} instead of {expected}")]
    WrongSubject {
        /// The requested identity.
        expected: Spiffe,
        /// The URI names of the certificate.
        got: String,
    },
    /// The SVID is not valid now.
    #[error("the certificate of {0} is not valid at this time; check the clocks of node and operator")]
    SvidNotValidNow(Spiffe),
    /// A required file cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file contains no usable token.
    #[error("{0} contains no usable token")]
    Token(PathBuf),
    /// The CA could not be reached, or refused.
    #[error("no certificate for {identity}: {source}")]
    Issue {
        /// The requested identity.
        identity: Spiffe,
        /// The CA's error.
        #[source]
        source: SourceError,
    },
    /// The last attempt failed; all waiters for the same identity share the cause.
    #[error("{0}")]
    Unavailable(Arc<Error>),
    /// Too many callers are waiting for the same identity.
    #[error("too many connections wait for the certificate of {0}; is the CA reachable?")]
    Busy(Spiffe),
    /// The manager's task has ended: the program is shutting down.
    #[error("the certificate manager has stopped")]
    Stopped,
}

/// Why a certificate request was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefused {
    /// Larger than [`crate::CSR_MAX_BYTES`].
    #[error("it is too large")]
    TooLarge,
    /// Not exactly one PEM block of type CERTIFICATE REQUEST, or malformed.
    #[error("it cannot be read")]
    Unreadable,
    /// It requests an extension other than names and usages.
    #[error("it requests an extension that is not supported")]
    Extension,
    /// The signature is invalid, so possession of the key is not proven.
    #[error("its signature is wrong")]
    Signature,
    /// A name is not a URI, or contains bytes that no SPIFFE id may contain.
    #[error("it contains names that are not plain URIs")]
    Name,
    /// The key's type or size is not accepted.
    #[error("its kind of key is not accepted; use ECDSA P-256")]
    Key,
}

/// Why a source returned no certificate.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// The call failed or was rejected.
    #[error("CA answered {code}: {message}")]
    Call {
        /// gRPC status code.
        code: tonic::Code,
        /// gRPC status message.
        message: String,
    },
    /// No response in time.
    #[error("CA did not answer in time")]
    Timeout,
    /// The call could not be made, e.g. because the token is missing.
    #[error("CA could not be called: {0}")]
    Local(String),
}

/// Why a connection between two workloads could not be secured.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// TLS failed: the peer does not use TLS, its chain is untrusted or expired, or the connection
    /// was lost.
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// The handshake took too long.
    #[error("TLS handshake took too long")]
    Timeout,
    /// Evicted in favour of newer handshakes.
    #[error("TLS handshake cancelled in favour of newer ones: too many are in progress")]
    Evicted,
    /// The peer's certificate does not contain exactly one URI name that is a mesh identity.
    #[error("the peer's certificate does not name exactly one SPIFFE identity")]
    NoIdentity,
    /// The session was resumed with a certificate that has expired since.
    #[error("the peer {0} resumed a session with a certificate that has expired")]
    Expired(Spiffe),
    /// The peer is trusted but has an unexpected identity.
    #[error("the peer is {got}; expected {expected}")]
    WrongIdentity {
        /// The identity that the peer proved.
        got: Spiffe,
        /// The identities that were expected.
        expected: String,
    },
}
