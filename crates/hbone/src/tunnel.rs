//! One accepted CONNECT: a byte stream inside an HBONE connection.
//!
//! Dropping a tunnel resets its stream with CANCEL and releases its pool slot;
//! [`copy`](crate::copy()) ends it in an orderly way.

use std::fmt;

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use crate::slot::Slot;

/// Both directions of a CONNECT that was answered with 200.
pub struct Tunnel {
    pub(crate) send: SendStream<Bytes>,
    pub(crate) recv: RecvStream,
    /// Never read: dropping it releases the pool slot.
    _slot: Option<Slot>,
}

impl Tunnel {
    pub(crate) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, _slot: None }
    }

    pub(crate) fn holding(self, slot: Slot) -> Self {
        Self { _slot: Some(slot), ..self }
    }

    /// Ends both directions like a TCP reset (RFC 9113 8.5), so that the peer's application sees an
    /// error instead of an orderly end.
    pub fn reset(mut self) {
        self.send.send_reset(h2::Reason::CONNECT_ERROR);
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("stream", &self.send.stream_id()).finish_non_exhaustive()
    }
}
