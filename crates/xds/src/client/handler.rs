//! Resources as they arrive, and what applies them.

use bytes::Bytes;

use super::queries::Queries;

/// A received resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Name, unique within its type.
    pub name: String,
    /// Hash of the content, computed by the server.
    pub version: String,
    /// The encoded message.
    pub bytes: Bytes,
}

/// A resource that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Name, unique within its type.
    pub name: String,
    /// The error, for the resource's author.
    pub reason: String,
}

/// Receives resources. Called on the client's task, in order of arrival.
pub trait Handler {
    /// Applies changes of one type and returns the resources that it does not accept; the others
    /// stay applied. Names in `removed` may be unknown.
    fn apply(&mut self, type_url: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection>;

    /// The initial state of one type is complete. Called once per stream. Handlers that accept a
    /// partial state ignore this.
    fn complete(&mut self, _type_url: &str) {}
}

/// What a stream serves: a handler of resources, and the queries of those who need one at once.
#[derive(Debug)]
pub struct Subscriber<H> {
    /// Applies resources.
    pub handler: H,
    /// Queries to send.
    pub queries: Queries,
}
