//! Why a tunnel failed.
//!
//! A refusal (the peer said no), a reset (the stream broke) and a lost connection are told apart, because callers log
//! and retry them differently.

use std::io;

/// A connection could not be set up, or ended other than by agreement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP/2 preface or settings failed: the peer is not an HBONE peer.
    #[error("HTTP/2 handshake failed; is the peer an HBONE port?: {0}")]
    Handshake(#[source] h2::Error),
    /// The connection broke.
    #[error("HBONE connection lost: {0}")]
    Connection(#[source] h2::Error),
    /// The peer did not answer a PING in time.
    #[error("HBONE peer did not answer PING; the connection was dropped")]
    PingTimeout,
    /// The answer to a CONNECT could not be sent: the peer has left.
    #[error("CONNECT could not be answered: {0}")]
    Respond(#[source] h2::Error),
}

/// A CONNECT did not lead to a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The peer answered with another status than 200.
    #[error("http status: {0}")]
    Status(u16),
    /// The connection takes no further stream: lost, or told to go away. Dial again.
    #[error("HBONE connection takes no further stream: {0}")]
    Closed(#[source] h2::Error),
    /// The stream was reset, or the connection lost, before an answer came.
    #[error("CONNECT was not answered: {0}")]
    Stream(#[source] h2::Error),
    /// The authority cannot be written as one of HTTP.
    #[error("{authority:?} cannot be an :authority")]
    Authority {
        /// What was asked for.
        authority: String,
    },
}

/// Copying between a tunnel and a TCP stream failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The local TCP stream could not be read.
    #[error("local stream could not be read: {0}")]
    Read(#[source] io::Error),
    /// The local TCP stream could not be written.
    #[error("local stream could not be written: {0}")]
    Write(#[source] io::Error),
    /// The peer reset the stream, or the connection beneath it was lost.
    #[error("tunnel was reset: {0}")]
    Reset(#[source] h2::Error),
}
