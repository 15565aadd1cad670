//! Orders for workers.
//!
//! Invariant: an order has been executed when its sender is notified.

use std::{net::TcpListener, sync::Arc, time::Duration};

use ambit_zds::{Connections, Kind};
use tokio::sync::oneshot;

use crate::pods::Pod;

/// A listening socket, and what for.
pub(crate) type Listeners = Vec<(Kind, TcpListener)>;

/// An order for a worker.
pub(super) enum Order {
    Serve { pod: Arc<Pod>, listeners: Listeners },
    Leave { uid: Arc<str>, connections: Connections },
    HandOver,
    Drain { deadline: Duration },
}

/// An order, and the channel that signals its execution.
pub(super) struct Command {
    pub(super) order: Order,
    pub(super) done: oneshot::Sender<()>,
}
