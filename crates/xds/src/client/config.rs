//! What a client subscribes to, and as whom.

use std::{collections::BTreeMap, path::PathBuf};

/// Configuration of the client.
#[derive(Clone, Debug)]
pub struct Config {
    /// The client's node.
    pub node: Node,
    /// Types to subscribe to; a type comes after those that it references.
    pub types: Vec<&'static str>,
    /// File with the bearer token, read for every stream; `None` sends no token.
    pub token_path: Option<PathBuf>,
    /// Cluster id sent with the token (`clusterid`).
    pub cluster_id: String,
}

/// The xDS node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// `<kind>~<ip>~<pod>.<namespace>~<namespace>.svc.cluster.local`
    pub id: String,
    /// Metadata, e.g. `NODE_NAME`.
    pub metadata: BTreeMap<String, String>,
}
