//! The limit of connections to one destination, and the requests that wait below it.
//!
//! Invariant: whenever a connection ends while requests wait, one of them is woken; a wake-up whose receiver is gone
//! goes on to the next. A later request does not overtake: it tries only when it is first in line, or woken.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ambit_resilience::{Breaker, Overflow, Permit, Resource};
use tokio::{sync::Notify, time::timeout};

/// How long a request that has no deadline of its own waits.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Connections of all workers to one destination.
#[derive(Debug)]
pub struct ConnectionLimit {
    breaker: Arc<Breaker>,
    /// One wake-up for each connection that ends.
    freed: Notify,
    waiting: AtomicU32,
    /// Workers that have connections, or had some; each is notified to close those it does not use.
    workers: Mutex<Vec<Weak<Notify>>>,
}

/// Counts as one connection of its destination while it lives.
#[derive(Debug)]
pub struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    /// `None` only inside `drop`: waiting requests are woken after it is returned.
    permit: Option<Permit>,
    /// How often in a row it was handed to a waiting request.
    pub handovers: u32,
}

/// Counts as one waiting request while it lives.
struct Waiting<'a>(&'a ConnectionLimit);

impl ConnectionLimit {
    /// Limited by `breaker`.
    pub fn new(breaker: Arc<Breaker>) -> Arc<Self> {
        Arc::new(Self {
            breaker,
            freed: Notify::new(),
            waiting: AtomicU32::new(0),
            workers: Mutex::default(),
        })
    }

    /// One more connection, counted as an overflow where the limit is reached.
    ///
    /// # Errors
    /// [`Overflow`]
    pub fn acquire(self: &Arc<Self>) -> Result<ConnectionPermit, Overflow> {
        Ok(self.permit(self.breaker.connection()?))
    }

    /// One more connection, if the limit allows it.
    pub fn try_acquire(self: &Arc<Self>) -> Option<ConnectionPermit> {
        self.breaker.free_connection().map(|permit| self.permit(permit))
    }

    fn permit(self: &Arc<Self>, permit: Permit) -> ConnectionPermit {
        ConnectionPermit { limit: self.clone(), permit: Some(permit), handovers: 0 }
    }

    /// Number of waiting requests.
    pub fn waiting(&self) -> u32 {
        // A request that begins to wait at this moment asks for unused connections itself.
        self.waiting.load(Ordering::Relaxed)
    }

    /// From now on `worker` is notified when requests wait.
    pub fn register_worker(&self, worker: &Arc<Notify>) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if !workers.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(worker))) {
            workers.retain(|known| known.strong_count() > 0);
            workers.push(Arc::downgrade(worker));
        }
    }

    /// Has all workers close connections that they do not use.
    pub fn evict_unused(&self) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().filter_map(Weak::upgrade).for_each(|worker| worker.notify_one());
    }

    /// Wakes all waiting requests after the limits of the breaker have changed.
    pub fn limits_changed(&self) {
        self.freed.notify_waiters();
    }

    /// Waits until `attempt` succeeds, which is tried whenever a connection ends. Cancel safe.
    ///
    /// # Errors
    /// [`Overflow`]: too many requests wait, or this one waited for [`WAIT_MAX`].
    pub async fn wait<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Result<T, Overflow> {
        let _pending = self.breaker.pending()?;
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(self);
        let found = async {
            let (mut turn, mut asked) = (before == 0, false);
            loop {
                // Registered before the attempt, so that nothing is freed unseen in between.
                let mut freed = pin!(self.freed.notified());
                freed.as_mut().enable();
                if turn && let Some(found) = attempt() {
                    return found;
                }
                if !asked {
                    self.evict_unused();
                    asked = true;
                }
                freed.await;
                turn = true;
            }
        };
        let found = timeout(WAIT_MAX, found).await.map_err(|_elapsed| Overflow(Resource::Connection))?;
        drop(waiting);
        // There may be room for more: requests that came meanwhile have not tried yet.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
        Ok(found)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ConnectionPermit {
    /// The limit it counts against.
    pub fn limit(&self) -> &Arc<ConnectionLimit> {
        &self.limit
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.permit = None;
        self.limit.freed.notify_one();
    }
}

#[cfg(test)]
mod tests;
