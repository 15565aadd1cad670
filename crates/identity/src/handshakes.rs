//! A limit on concurrent handshakes, so that peers that never finish one take no resources from
//! established connections.
//!
//! Invariant: a new handshake always starts. When full, the oldest handshake of the address with
//! the most handshakes is cancelled.

use std::{
    future::Future,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    HandshakeError,
    pending_peers::{Limits, PendingPeers},
};

/// The handshakes in progress at one server.
#[derive(Debug)]
pub struct Handshakes(Mutex<PendingPeers>);

/// Removes its entry when dropped.
struct Entered<'a>(&'a Handshakes, u64);

impl Handshakes {
    /// Limits in total and per address.
    pub fn new(total_max: usize, per_address_max: usize) -> Self {
        Self(Mutex::new(PendingPeers::new(Limits { total_max, per_address_max })))
    }

    /// Runs a handshake within the limits.
    ///
    /// # Errors
    /// Those of the handshake, or [`HandshakeError::Evicted`] when it was cancelled.
    pub async fn within<T, E: From<HandshakeError>>(
        &self,
        client: IpAddr,
        secured: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let entered = self.lock().enter(client.to_canonical(), |_| false);
        let Some((id, taken)) = entered else { return Err(HandshakeError::Evicted.into()) };
        let _entered = Entered(self, id);
        tokio::select! {
            secured = secured => secured,
            _taken = taken => Err(HandshakeError::Evicted.into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PendingPeers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.lock().leave(self.1);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use super::*;

    type Secured = Result<&'static str, HandshakeError>;

    #[tokio::test]
    async fn handshakes_that_never_end_are_given_up_for_newer_ones_and_leave_nothing_behind() {
        let handshakes = Arc::new(Handshakes::new(4, 2));
        let mut silent = Vec::new();
        for last in [1, 1, 2, 3] {
            let handshakes = handshakes.clone();
            silent.push(tokio::spawn(async move {
                handshakes.within([10, 0, 0, last].into(), pending::<Secured>()).await
            }));
            tokio::task::yield_now().await;
        }
        let done = handshakes.within([10, 0, 0, 9].into(), async { Secured::Ok("secured") });
        assert_eq!(done.await.unwrap(), "secured");
        let first = silent.remove(0).await.unwrap();
        assert!(matches!(first, Err(HandshakeError::Evicted)), "{first:?}");
        assert!(silent.iter().all(|other| !other.is_finished()));
        assert_eq!(handshakes.lock().len(), 3);
        silent.iter().for_each(tokio::task::JoinHandle::abort);
        for other in silent {
            assert!(other.await.unwrap_err().is_cancelled());
        }
        assert_eq!(handshakes.lock().len(), 0);
    }
}
