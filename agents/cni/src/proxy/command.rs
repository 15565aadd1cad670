//! What the handle and the task of the proxy's connections say to each other.
//!
//! Invariant: every command is answered once.

use ambit_zds::Connections;
use tokio::sync::oneshot;

use crate::Error;

/// Whether there is a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// None.
    Away,
    /// One that has its snapshot; each connection has another number.
    Ready(u64),
}

/// A request to the proxy that is connected.
#[derive(Debug)]
pub(super) enum Command {
    Add { uid: String, done: oneshot::Sender<Result<(), Error>> },
    Del { uid: String, connections: Connections, done: oneshot::Sender<Result<(), Error>> },
}
