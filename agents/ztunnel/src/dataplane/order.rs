//! What workers are ordered to do.
//!
//! Invariant: an order is done when its sender hears so.

use std::{net::TcpListener, sync::Arc, time::Duration};

use ambit_zds::{Connections, Kind};
use tokio::sync::oneshot;

use crate::pods::Pod;

/// A listening socket, and what for.
pub type Listeners = Vec<(Kind, TcpListener)>;

/// What a worker is to do.
pub(super) enum Order {
    Serve { pod: Arc<Pod>, listeners: Listeners },
    Leave { uid: Arc<str>, connections: Connections },
    HandOver,
    Drain { deadline: Duration },
}

/// An order, and where the worker reports that it is done.
pub(super) struct Command {
    pub(super) order: Order,
    pub(super) done: oneshot::Sender<()>,
}
