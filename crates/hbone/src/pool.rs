//! A pool of HBONE connections, used by one thread.
//!
//! It holds no lock and is not `Send`: each core has its own pool. A checkout reserves a stream
//! slot, which is released when its tunnel is dropped. At most one dial per key is in flight; all
//! waiters share its outcome, and it is cancelled when the last waiter leaves.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    future::Future,
    hash::Hash,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use futures::future::{FutureExt, LocalBoxFuture, Shared, WeakShared};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    Authority, ConnectError, ConnectHeaders, SendConnect, Tunnel,
    settings::CLIENT_STREAMS_MAX,
    slot::{Slot, Slots},
};

/// How long an unused connection is kept.
pub const IDLE_MAX: Duration = Duration::from_secs(5 * 60);
/// Interval of the search for idle and dead connections: an idle connection is closed at most this
/// much late.
pub const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Checkouts that may wait for the same dial.
pub const WAITERS_MAX: usize = 1024;
/// Dials that one checkout waits for before it gives up because others took every slot.
const ROUNDS_MAX: usize = WAITERS_MAX.div_ceil(CLIENT_STREAMS_MAX) * 2;

/// No stream is available.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError<E> {
    /// The dial failed; all waiters get the same error.
    #[error("HBONE dial failed: {0}")]
    Dial(Arc<E>),
    /// Too many checkouts wait for a dial to the same destination.
    #[error("more than {WAITERS_MAX} connections wait for one HBONE dial; the destination is too slow")]
    TooManyWaiters,
    /// Others took every slot of each new connection, or the peer permits no streams.
    #[error("no free stream after {ROUNDS_MAX} HBONE dials; the peer allows too few streams")]
    NoFreeStream,
}

/// A connection with a reserved stream slot.
#[derive(Debug)]
pub struct Checkout {
    send: SendConnect,
    slot: Slot,
}

impl Checkout {
    /// Like [`SendConnect::connect`]; the tunnel keeps the slot.
    ///
    /// # Errors
    /// Like [`SendConnect::connect`].
    pub async fn connect(
        self,
        authority: &Authority,
        headers: &ConnectHeaders,
    ) -> Result<Tunnel, ConnectError> {
        Ok(self.send.connect(authority, headers).await?.holding(self.slot))
    }
}

/// `K` contains everything that must be equal for streams to share a connection; `E` is the dial
/// error. Clones share the pool.
pub struct Pool<K, E> {
    inner: Rc<RefCell<Inner<K, E>>>,
}

impl<K, E> Clone for Pool<K, E> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

struct Inner<K, E> {
    routes: HashMap<K, Route<E>>,
    streams_max: usize,
    idle_max: Duration,
}

type Dial<E> = LocalBoxFuture<'static, Result<(), Arc<E>>>;

/// The connections and waiters of one key.
struct Route<E> {
    connections: Vec<Connection>,
    dial: Option<WeakShared<Dial<E>>>,
}

struct Connection {
    send: SendConnect,
    slots: Slots,
    checkouts: u64,
    /// Number of checkouts at the last sweep.
    seen: u64,
    /// Time of the first sweep after its last use.
    unused_since: Option<Instant>,
}

impl<K, E> Pool<K, E>
where
    K: Hash + Eq + Clone + 'static,
    E: 'static,
{
    /// A pool whose connections carry at most `streams_max` streams and are closed after `idle_max`
    /// without use. The mesh uses [`CLIENT_STREAMS_MAX`] and [`IDLE_MAX`].
    pub fn new(streams_max: usize, idle_max: Duration) -> Self {
        Self { inner: Rc::new(RefCell::new(Inner { routes: HashMap::new(), streams_max, idle_max })) }
    }

    /// Reserves a stream slot on a connection for `key`; `dial` opens one if all are full. `dial`
    /// must have its own timeouts, and must spawn the connection's driver.
    ///
    /// # Errors
    /// The error of the dial; [`CheckoutError::TooManyWaiters`] and [`CheckoutError::NoFreeStream`] if too
    /// many streams compete for the destination.
    pub async fn checkout<D, F>(&self, key: &K, mut dial: D) -> Result<Checkout, CheckoutError<E>>
    where
        D: FnMut() -> F,
        F: Future<Output = Result<SendConnect, E>> + 'static,
    {
        for _ in 0..ROUNDS_MAX {
            if let Some(checkout) = self.inner.borrow_mut().take(key) {
                return Ok(checkout);
            }
            self.join_dial(key, &mut dial)?.await.map_err(CheckoutError::Dial)?;
        }
        self.inner.borrow_mut().take(key).ok_or(CheckoutError::NoFreeStream)
    }

    /// Drops the connections for which `keep` returns false; their open streams continue.
    pub fn retain(&self, keep: impl Fn(&K) -> bool) {
        self.inner.borrow_mut().routes.retain(|key, _| keep(key));
    }

    /// Number of connections, for metrics.
    pub fn connections(&self) -> usize {
        self.inner.borrow().routes.values().map(|r| r.connections.len()).sum()
    }

    /// Closes idle and dead connections as long as the pool lives: spawn it once per pool.
    pub fn sweeper(&self) -> impl Future<Output = ()> + use<K, E> {
        let pool: Weak<RefCell<Inner<K, E>>> = Rc::downgrade(&self.inner);
        async move {
            let mut ticks = interval(SWEEP_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let now = ticks.tick().await;
                match pool.upgrade() {
                    Some(inner) => inner.borrow_mut().sweep(now),
                    None => return,
                }
            }
        }
    }

    /// The dial in flight, or a new one.
    fn join_dial<D, F>(&self, key: &K, dial: &mut D) -> Result<Shared<Dial<E>>, CheckoutError<E>>
    where
        D: FnMut() -> F,
        F: Future<Output = Result<SendConnect, E>> + 'static,
    {
        let running = self.inner.borrow().routes.get(key).and_then(|r| r.dial.as_ref()?.upgrade());
        if let Some(running) = running {
            if running.strong_count().is_some_and(|waiters| waiters > WAITERS_MAX) {
                return Err(CheckoutError::TooManyWaiters);
            }
            return Ok(running);
        }
        // Called without a borrow, because the caller's code may use this pool.
        let (pool, owned, dialed) = (Rc::downgrade(&self.inner), key.clone(), dial());
        let shared = async move {
            let outcome = dialed.await.map_err(Arc::new);
            if let Some(inner) = pool.upgrade() {
                inner.borrow_mut().dialed(&owned, outcome.as_ref().ok());
            }
            outcome.map(drop)
        }
        .boxed_local()
        .shared();
        let mut inner = self.inner.borrow_mut();
        inner.routes.entry(key.clone()).or_insert_with(Route::new).dial = shared.downgrade();
        Ok(shared)
    }
}

impl<K: Hash + Eq + Clone, E> Inner<K, E> {
    /// A slot on the first open connection that is not full, so that the later ones become idle and
    /// are closed.
    fn take(&mut self, key: &K) -> Option<Checkout> {
        let streams_max = self.streams_max;
        let route = self.routes.get_mut(key)?;
        let mut taken = None;
        route.connections.retain_mut(|connection| {
            if taken.is_some() {
                return true;
            }
            let open = connection.send.is_open();
            if open {
                taken = connection.take(streams_max);
            }
            open
        });
        taken
    }

    fn dialed(&mut self, key: &K, connection: Option<&SendConnect>) {
        // The key was dropped meanwhile, so the new connection is not needed.
        let Some(route) = self.routes.get_mut(key) else { return };
        route.dial = None;
        route.connections.extend(connection.cloned().map(Connection::new));
        if route.connections.is_empty() {
            self.routes.remove(key);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let idle_max = self.idle_max;
        self.routes.retain(|_, route| {
            route.connections.retain_mut(|c| c.send.is_open() && !c.is_idle(now, idle_max));
            let dialing = route.dial.as_ref().is_some_and(|d| d.upgrade().is_some());
            dialing || !route.connections.is_empty()
        });
    }
}

impl<E> Route<E> {
    fn new() -> Self {
        Self { connections: Vec::new(), dial: None }
    }
}

impl Connection {
    fn new(send: SendConnect) -> Self {
        Self { send, slots: Slots::default(), checkouts: 0, seen: 0, unused_since: None }
    }

    fn take(&mut self, streams_max: usize) -> Option<Checkout> {
        // Only this thread reserves slots; others can only release them.
        if self.slots.in_use() >= streams_max.min(self.send.peer_streams_max()) {
            return None;
        }
        self.checkouts = self.checkouts.wrapping_add(1);
        Some(Checkout { send: self.send.clone(), slot: self.slots.take() })
    }

    /// Idle time is measured in sweeps, so that streams need not read the clock.
    fn is_idle(&mut self, now: Instant, idle_max: Duration) -> bool {
        let used_since = std::mem::replace(&mut self.seen, self.checkouts) != self.checkouts;
        if self.slots.in_use() > 0 {
            self.unused_since = None;
            return false;
        }
        let since = self.unused_since.filter(|_| !used_since).unwrap_or(now);
        self.unused_since = Some(since);
        now.duration_since(since) >= idle_max
    }
}

impl<K, E> fmt::Debug for Pool<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("routes", &self.inner.borrow().routes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
