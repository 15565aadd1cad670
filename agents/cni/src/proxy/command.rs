//! What the handle and the task of the proxy's connections say to each other.
//!
//! Invariant: every command is answered once.

use ambit_zds::Connections;
use tokio::sync::oneshot;

use crate::Error;

/// Whether a proxy is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No proxy.
    Away,
    /// A proxy that has its snapshot; the number differs for each connection.
    Ready(u64),
}

/// A request to the proxy that is connected.
#[derive(Debug)]
pub(super) enum ProxyCommand {
    Add { uid: String, done: oneshot::Sender<Result<(), Error>> },
    Del { uid: String, connections: Connections, done: oneshot::Sender<Result<(), Error>> },
}
