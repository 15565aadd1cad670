//! Room for connections to one destination, and the requests that wait for some.
//!
//! Invariant: whenever room becomes free while a request waits for it, one that waits is woken; a wake-up whose receiver
//! is gone goes on to the next. Who comes later does not overtake: it tries only when it is first, or woken.

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

/// What one destination has room for, in all workers.
#[derive(Debug)]
pub struct Room {
    breaker: Arc<Breaker>,
    /// One wake-up for each connection that ends.
    freed: Notify,
    waiting: AtomicU32,
    /// The workers that have connections, or had: asked to, each lets go of those it does not use.
    keepers: Mutex<Vec<Weak<Notify>>>,
}

/// Counts as one connection of its destination while it lives.
#[derive(Debug)]
pub struct Counted {
    room: Arc<Room>,
    /// None only while it is dropped: those who wait are woken after it is given back.
    permit: Option<Permit>,
    /// How often in a row it was handed to a request that waited.
    pub handovers: u32,
}

/// Counts as one request that waits while it lives.
struct Waiting<'a>(&'a Room);

impl Room {
    /// Limited by `breaker`.
    pub fn new(breaker: Arc<Breaker>) -> Arc<Self> {
        Arc::new(Self {
            breaker,
            freed: Notify::new(),
            waiting: AtomicU32::new(0),
            keepers: Mutex::default(),
        })
    }

    /// One more connection, or none at all.
    ///
    /// # Errors
    /// [`Overflow`]
    pub fn connection(self: &Arc<Self>) -> Result<Counted, Overflow> {
        Ok(self.counted(self.breaker.connection()?))
    }

    /// One more connection, if there is room.
    pub fn take(self: &Arc<Self>) -> Option<Counted> {
        self.breaker.free_connection().map(|permit| self.counted(permit))
    }

    fn counted(self: &Arc<Self>, permit: Permit) -> Counted {
        Counted { room: self.clone(), permit: Some(permit), handovers: 0 }
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        // Those who miss one that begins to wait this moment are asked by it.
        self.waiting.load(Ordering::Relaxed)
    }

    /// From now on `worker` is asked for connections that it does not use.
    pub fn kept_by(&self, worker: &Arc<Notify>) {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        if !keepers.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(worker))) {
            keepers.retain(|known| known.strong_count() > 0);
            keepers.push(Arc::downgrade(worker));
        }
    }

    /// Asks all workers for connections that they do not use.
    pub fn ask(&self) {
        let keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.iter().filter_map(Weak::upgrade).for_each(|worker| worker.notify_one());
    }

    /// The limits have changed.
    pub fn changed(&self) {
        self.freed.notify_waiters();
    }

    /// Waits until `attempt` finds what it looks for, which it can when room was freed. Cancel safe.
    ///
    /// # Errors
    /// [`Overflow`]: too many wait, or this one has for [`WAIT_MAX`].
    pub async fn wait<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Result<T, Overflow> {
        let _pending = self.breaker.pending()?;
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(self);
        let found = async {
            let (mut turn, mut asked) = (before == 0, false);
            loop {
                // In line before it looks, so that nothing is freed unseen in between.
                let mut freed = pin!(self.freed.notified());
                freed.as_mut().enable();
                if turn && let Some(found) = attempt() {
                    return found;
                }
                if !asked {
                    self.ask();
                    asked = true;
                }
                freed.await;
                turn = true;
            }
        };
        let found = timeout(WAIT_MAX, found).await.map_err(|_elapsed| Overflow(Resource::Connection))?;
        drop(waiting);
        // There may be room for more: those who came meanwhile have not looked.
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

impl Counted {
    /// The room it takes.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.permit = None;
        self.room.freed.notify_one();
    }
}

#[cfg(test)]
mod tests;
