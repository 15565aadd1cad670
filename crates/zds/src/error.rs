//! Errors of the socket and the protocol, and whether they end the connection.

use std::time::Duration;

/// Errors of either side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZdsError {
    /// The socket failed.
    #[error("the ZDS socket failed while it should {doing}: {source}")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The peer closed the connection.
    #[error("the ZDS peer closed the connection; connect again")]
    Closed,
    /// A packet exceeds the size limit.
    #[error("a ZDS packet is larger than {limit} bytes")]
    TooLarge {
        /// [`crate::PACKET_BYTES_MAX`].
        limit: usize,
    },
    /// The number of file descriptors does not match the payload.
    #[error("a ZDS packet ({payload}) carries {got} file descriptors instead of {want}")]
    Descriptors {
        /// Name of the payload.
        payload: &'static str,
        /// Required number.
        want: usize,
        /// Received number.
        got: usize,
    },
    /// More file descriptors than a packet may carry.
    #[error("a ZDS packet carries more than {limit} file descriptors")]
    TooManyDescriptors {
        /// [`crate::FDS_MAX`].
        limit: usize,
    },
    /// The bytes are not a valid protobuf message.
    #[error("a ZDS packet is not a valid message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A valid message that the protocol does not permit here.
    #[error("the ZDS peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The peer answered a request with an error; the connection stays usable.
    #[error("the proxy refused the request: {reason}")]
    Refused {
        /// The peer's error text.
        reason: String,
    },
    /// The peer did not answer in time.
    #[error("the ZDS peer did not answer a request ({payload}) within {limit:?}")]
    Timeout {
        /// Name of the request.
        payload: &'static str,
        /// The time limit.
        limit: Duration,
    },
}

impl ZdsError {
    /// Whether the connection must be closed. Only a refusal leaves it usable.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }

    /// Whether the peer violated the protocol, in contrast to being gone or slow.
    pub fn is_violation(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::Descriptors { .. }
                | Self::TooManyDescriptors { .. }
                | Self::Malformed(_)
                | Self::Protocol(_)
        )
    }

    pub(crate) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
