//! HTTP/2 PING keepalive, for both ends.

use std::future::pending;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::settings::Keepalive;

/// Resolves when the peer left a PING unanswered, and never otherwise: the driver reports a lost
/// connection.
pub(crate) async fn peer_is_gone(pings: Option<PingPong>, keepalive: Keepalive) {
    let Some(mut pings) = pings else { return pending().await };
    sleep(keepalive.first).await;
    loop {
        match timeout(keepalive.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_pong)) => sleep(keepalive.interval).await,
            Ok(Err(_connection_lost)) => return pending().await,
            Err(_elapsed) => return,
        }
    }
}
