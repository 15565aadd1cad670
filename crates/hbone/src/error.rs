//! Why a tunnel failed.
//!
//! A refusal (the peer answered with an error status), a reset stream and a lost connection are
//! separate errors, because callers log and retry them differently.

use std::io;

/// A connection could not be established, or did not end in an orderly way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP/2 preface or settings failed: the peer does not speak HBONE.
    #[error("HTTP/2 handshake failed; is the peer an HBONE port?: {0}")]
    Handshake(#[source] h2::Error),
    /// The connection was lost.
    #[error("HBONE connection lost: {0}")]
    Connection(#[source] h2::Error),
    /// The peer did not answer a PING in time.
    #[error("HBONE peer did not answer PING; the connection was dropped")]
    PingTimeout,
    /// The response to a CONNECT could not be sent, because the peer is gone.
    #[error("CONNECT could not be answered: {0}")]
    Respond(#[source] h2::Error),
}

/// A CONNECT did not open a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The peer answered with a status other than 200.
    #[error("http status: {0}")]
    Status(u16),
    /// The connection accepts no further stream, because it was lost or the peer sent GOAWAY. Dial
    /// again.
    #[error("HBONE connection accepts no further stream: {0}")]
    Closed(#[source] h2::Error),
    /// The stream was reset, or the connection lost, before the response.
    #[error("CONNECT was not answered: {0}")]
    Stream(#[source] h2::Error),
    /// The value is not valid as `:authority`.
    #[error("{authority:?} is not a valid :authority")]
    Authority {
        /// The invalid value.
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
    /// The peer reset the stream, or its connection was lost.
    #[error("tunnel was reset: {0}")]
    Reset(#[source] h2::Error),
}
