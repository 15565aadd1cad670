//! Refuses connections that wait in a listener's queue.

use std::{net::TcpListener, time::Duration};

use ambit_zds::Listener;
use socket2::SockRef;

/// Most connections refused at once; the rest is left for the next round.
const REFUSED_MAX: usize = 8192;

/// Resets all connections that wait to be accepted; returns their number. Does not block.
pub(super) fn refuse(listeners: &[Listener]) -> usize {
    listeners.iter().map(refuse_one).sum()
}

fn refuse_one(listener: &Listener) -> usize {
    let Ok(fd) = listener.fd.try_clone() else { return 0 };
    let listener = TcpListener::from(fd);
    let mut refused = 0;
    while refused < REFUSED_MAX {
        let Ok((connection, _)) = listener.accept() else { break };
        // Closing with a linger time of zero sends a reset.
        let _ = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
        refused += 1;
    }
    refused
}
