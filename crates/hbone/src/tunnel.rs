//! One accepted CONNECT: a byte stream inside an HBONE connection.
//!
//! Dropping a tunnel resets its stream with CANCEL and gives its slot back to the pool; [`copy`](crate::copy()) ends it
//! in order.

use std::fmt;

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use crate::pool::Slot;

/// Both directions of a CONNECT that was answered with 200.
pub struct Tunnel {
    pub(crate) send: SendStream<Bytes>,
    pub(crate) recv: RecvStream,
    /// Held, not read: its drop frees the stream's place in the pool.
    _slot: Option<Slot>,
}

impl Tunnel {
    pub(crate) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, _slot: None }
    }

    pub(crate) fn holding(self, slot: Slot) -> Self {
        Self { _slot: Some(slot), ..self }
    }

    /// Ends both directions as a TCP reset would (RFC 9113 8.5), so that the peer's application sees an error and not
    /// an orderly end.
    pub fn reset(mut self) {
        self.send.send_reset(h2::Reason::CONNECT_ERROR);
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("stream", &self.send.stream_id()).finish_non_exhaustive()
    }
}
