//! What two requests must have in common to share a connection.
//!
//! Invariant: endpoint, expected identity and HTTP version are the same.

use std::{
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use ambit_model::Spiffe;

use super::Endpoint;

/// Requests on one HTTP/2 connection at a time.
pub(super) const STREAMS_MAX: usize = 100;

/// The HTTP of a connection to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What must be equal for two requests to share a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionKey {
    uid: Arc<str>,
    address: SocketAddr,
    expected: Option<Arc<[Spiffe]>>,
    version: HttpVersion,
}

/// Identities are only compared: they hardly ever differ where the rest is the same.
impl Hash for ConnectionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uid.hash(state);
        self.address.hash(state);
        self.version.hash(state);
    }
}

impl ConnectionKey {
    /// For requests to an endpoint.
    pub(super) fn new(endpoint: &Endpoint, version: HttpVersion) -> Self {
        Self {
            uid: endpoint.workload.uid.clone(),
            address: endpoint.address,
            expected: endpoint.tunnel.as_ref().map(|tunnel| tunnel.expected.clone()),
            version,
        }
    }
}
