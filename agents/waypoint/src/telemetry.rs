//! What one worker tells about its requests and streams.
//!
//! Invariant: telling never waits and never fails.

use crate::{
    context::Local,
    http::Exchange,
    stream::{Flow, StreamError},
};

/// The books of one worker.
#[derive(Debug, Default)]
pub struct Telemetry;

impl Telemetry {
    /// A request is over.
    pub fn request(&self, exchange: &Exchange) {
        tracing::debug!(status = ?exchange.status, flags = ?exchange.flags, "Request");
    }

    /// A stream is over.
    pub fn stream(&self, _local: &Local, flow: &Flow, ended: &Result<(), StreamError>) {
        tracing::debug!(peer = %flow.peer.identity, ?ended, "Stream");
    }

    /// A peer could not prove who it is.
    pub fn handshake_failed(&self) {
        tracing::debug!("Handshake failed");
    }
}
