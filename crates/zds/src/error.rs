//! What can go wrong on the socket, and whether the connection can live on.

use std::time::Duration;

/// Everything that either end can meet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZdsError {
    /// The socket itself failed.
    #[error("the ZDS socket failed while it should {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The other end closed the connection.
    #[error("the ZDS peer closed the connection; connect again")]
    Closed,
    /// The packet is larger than the protocol allows.
    #[error("a ZDS packet is larger than {limit} bytes")]
    TooLarge {
        /// [`crate::PACKET_BYTES_MAX`].
        limit: usize,
    },
    /// The packet carries another number of descriptors than its payload asks for.
    #[error("a ZDS packet ({payload}) carries {got} file descriptors instead of {want}")]
    Descriptors {
        /// Name of the payload.
        payload: &'static str,
        /// Required number.
        want: usize,
        /// Received number.
        got: usize,
    },
    /// More descriptors than any packet may carry.
    #[error("a ZDS packet carries more than {limit} file descriptors")]
    TooManyDescriptors {
        /// [`crate::FDS_MAX`].
        limit: usize,
    },
    /// The bytes are not the protobuf message they should be.
    #[error("a ZDS packet is not a valid message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A valid message that the protocol does not allow here.
    #[error("the ZDS peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The other end answered a request with an error; the connection lives on.
    #[error("the proxy refused the request: {reason}")]
    Refused {
        /// The peer's own words.
        reason: String,
    },
    /// No answer in time.
    #[error("the ZDS peer did not answer a request ({payload}) within {limit:?}")]
    Timeout {
        /// Name of the request.
        payload: &'static str,
        /// How long it had.
        limit: Duration,
    },
}

impl ZdsError {
    /// Whether the connection must be dropped. Only a refusal leaves it usable.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }

    /// Whether the other end speaks the protocol wrongly (as opposed to being away or slow).
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
