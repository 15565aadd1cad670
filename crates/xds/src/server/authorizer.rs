//! Which feeds a caller may read.

use std::{future::Future, sync::Arc};

use tokio::time::Instant;
use tonic::{Extensions, Status, metadata::MetadataMap};

use super::feed::Feed;

/// Decides what a client may read.
pub trait Authorizer: Send + Sync + 'static {
    /// Decides about a new stream by its request metadata, and by what the transport knows about
    /// its connection.
    ///
    /// # Errors
    /// The status that ends the stream.
    fn admit(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> impl Future<Output = Result<Scope, Status>> + Send;
}

/// What one stream may read.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Name of the client, for logs.
    pub client: Arc<str>,
    /// One feed per type; a type comes after those that it references. Additions are sent in this
    /// order, removals in reverse. Other types are rejected.
    pub feeds: Vec<Feed>,
    /// When the stream ends and the client must authenticate again.
    pub until: Option<Instant>,
}
