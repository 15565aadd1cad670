//! HTTP connections to endpoints, made and kept by one worker.
//!
//! Invariant: an HTTP/1 connection carries one request at a time and is kept only after a response that was read whole;
//! an HTTP/2 connection carries at most [`STREAMS_MAX`]. Two requests share a connection only where endpoint, expected
//! identity and protocol are the same.

use std::{
    cell::RefCell,
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use ambit_model::Spiffe;
use ambit_resilience::Overflow;
use tokio::sync::{Notify, oneshot};

use super::{
    Target, Upstream, dial,
    kept::{Idle, Keep},
    lease::{Lease, LeaseFailure},
    room::{Counted, Room},
};
use crate::context::Local;

/// Requests on one HTTP/2 connection at a time.
pub(super) const STREAMS_MAX: usize = 100;

/// The HTTP that is spoken with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spoken {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What must be equal for two requests to share a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    uid: Arc<str>,
    address: SocketAddr,
    expected: Option<Arc<[Spiffe]>>,
    spoken: Spoken,
}

/// Identities are only compared: they hardly ever differ where the rest is the same.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uid.hash(state);
        self.address.hash(state);
        self.spoken.hash(state);
    }
}

impl Key {
    /// For an endpoint.
    pub fn new(target: &Target, spoken: Spoken) -> Self {
        Self {
            uid: target.workload.uid.clone(),
            address: target.address,
            expected: target.way.as_ref().map(|way| way.expected.clone()),
            spoken,
        }
    }
}

/// All connections of a worker.
#[derive(Default)]
pub struct Connections {
    keep: Rc<RefCell<Keep>>,
    /// Told when requests anywhere wait for room that connections of this worker may take.
    asked: Arc<Notify>,
}

/// A request that waits for an HTTP/1 connection; in line while it lives.
struct InLine<'a> {
    keep: &'a RefCell<Keep>,
    key: &'a Key,
    number: u64,
    handed: oneshot::Receiver<Idle>,
}

/// What a request can go on with.
enum Found {
    Connection(Idle),
    Room(Counted),
}

/// The same, where connections are shared.
enum FoundShared {
    Lease(Lease),
    Room(Counted),
}

impl Connections {
    /// A place on a connection to `target`, a new one if need be. `waits` is true while that waits for others to end.
    ///
    /// # Errors
    /// When there can be none.
    pub async fn lease(
        &self,
        local: &Rc<Local>,
        (upstream, target): (&Upstream, &Target),
        spoken: Spoken,
        waits: &mut bool,
    ) -> Result<Lease, LeaseFailure> {
        let key = Key::new(target, spoken);
        let overtakes = upstream.room.waiting() > 0;
        // The rest is boxed: rare and large, it would make every request large.
        match spoken {
            Spoken::Http1 => {
                let idle = if overtakes { None } else { self.keep.borrow_mut().take_idle(&key) };
                match idle {
                    Some(Idle { sender, counted, .. }) => {
                        Ok(Lease::http1((sender, counted), key, &self.keep, true))
                    }
                    None => Box::pin(self.lease_http1(local, (upstream, target), key, waits)).await,
                }
            }
            Spoken::Http2 => {
                let lease = if overtakes { None } else { self.keep.borrow_mut().take_shared(&key) };
                match lease {
                    Some(lease) => Ok(lease),
                    None => Box::pin(self.lease_http2(local, (upstream, target), key, waits)).await,
                }
            }
        }
    }

    async fn lease_http1(
        &self,
        local: &Rc<Local>,
        (upstream, target): (&Upstream, &Target),
        key: Key,
        waits: &mut bool,
    ) -> Result<Lease, LeaseFailure> {
        let free = if upstream.room.waiting() > 0 { None } else { self.take_room(&upstream.room) };
        let found = match free {
            Some(counted) => Found::Room(counted),
            None => {
                *waits = true;
                let found = self.wait_http1(&upstream.room, &key).await?;
                *waits = false;
                found
            }
        };
        let counted = match found {
            Found::Room(counted) => counted,
            Found::Connection(Idle { mut sender, counted, .. }) => {
                // It has just carried a response, and may not have noticed yet.
                if sender.ready().await.is_ok() {
                    return Ok(Lease::http1((sender, counted), key, &self.keep, true));
                }
                counted
            }
        };
        let sender = dial::http1(local, target).await?;
        Ok(Lease::http1((sender, counted), key, &self.keep, false))
    }

    async fn wait_http1(&self, room: &Arc<Room>, key: &Key) -> Result<Found, Overflow> {
        let (number, handed) = self.keep.borrow_mut().line_up(key);
        let mut line = InLine { keep: &self.keep, key, number, handed };
        let attempt = || {
            let idle = self.keep.borrow_mut().take_idle(key);
            idle.map(Found::Connection).or_else(|| self.take_room(room).map(Found::Room))
        };
        tokio::select! {
            biased;
            Ok(idle) = &mut line.handed => Ok(Found::Connection(idle)),
            found = room.wait(attempt) => found,
        }
    }

    async fn lease_http2(
        &self,
        local: &Rc<Local>,
        (upstream, target): (&Upstream, &Target),
        key: Key,
        waits: &mut bool,
    ) -> Result<Lease, LeaseFailure> {
        let dialing = self.keep.borrow_mut().dialing(&key);
        let mut overtakes = upstream.room.waiting() > 0;
        let _turn = match dialing.try_acquire() {
            Ok(turn) => turn,
            Err(_taken) => {
                let _waiting = upstream.breaker.pending()?;
                // Never closed, so there is always a turn to wait for.
                let turn = dialing.acquire().await;
                overtakes = false;
                turn.map_err(|_closed| Overflow(ambit_resilience::Resource::Pending))?
            }
        };
        let attempt = || {
            let lease = self.keep.borrow_mut().take_shared(&key);
            lease.map(FoundShared::Lease).or_else(|| self.take_room(&upstream.room).map(FoundShared::Room))
        };
        let found = match if overtakes { None } else { attempt() } {
            Some(found) => found,
            None => {
                *waits = true;
                let found = upstream.room.wait(attempt).await?;
                *waits = false;
                found
            }
        };
        let counted = match found {
            FoundShared::Lease(lease) => return Ok(lease),
            FoundShared::Room(counted) => counted,
        };
        let sender = dial::http2(local, target).await?;
        Ok(self.keep.borrow_mut().share(key, sender, counted))
    }

    fn take_room(&self, room: &Arc<Room>) -> Option<Counted> {
        let counted = self.keep.borrow_mut().take_room(room)?;
        room.kept_by(&self.asked);
        Some(counted)
    }

    /// Lets go of unused connections when others wait for their room, as long as there is a pool.
    pub fn shedder(&self) -> impl Future<Output = ()> + use<> {
        let (keep, asked) = (Rc::downgrade(&self.keep), self.asked.clone());
        async move {
            loop {
                asked.notified().await;
                let Some(keep) = keep.upgrade() else { return };
                keep.borrow_mut().shed();
            }
        }
    }

    /// Lets go of what was not used for long.
    pub fn tidy(&self) {
        self.keep.borrow_mut().tidy();
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.asked.notify_one();
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.keep.borrow_mut().leave(self.key, self.number);
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("endpoints", &self.keep.borrow().endpoints()).finish()
    }
}
