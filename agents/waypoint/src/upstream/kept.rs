//! The connections that one worker keeps, and who gets one that is not used any more.
//!
//! Invariant: an unused connection goes to a request that waits for it; while others wait for room, it is not kept.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use super::{
    lease::{Lease, Place},
    pool::{Key, STREAMS_MAX},
    room::{Counted, Room},
};
use crate::body::RequestBody;

/// How long an unused connection is kept: less than servers usually keep theirs.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Unused HTTP/1 connections kept to one endpoint by one worker.
const IDLE_CONNECTIONS_MAX: usize = 100;
/// How often in a row a connection is handed to the next that waits for it, while others wait for its room.
const HANDOVERS_MAX: u32 = 16;

/// All that a worker keeps.
#[derive(Default)]
pub(super) struct Keep {
    by_key: HashMap<Key, Kept>,
    /// Numbers of those who wait.
    next: u64,
}

struct Kept {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
    /// One HTTP/2 connection is made at a time: those who wait will share it.
    dialing: Rc<Semaphore>,
    /// Requests that wait for an HTTP/1 connection, in order.
    waiters: BTreeMap<u64, oneshot::Sender<Idle>>,
}

/// An HTTP/1 connection that carries no request.
pub(super) struct Idle {
    /// To send on it.
    pub sender: http1::SendRequest<RequestBody>,
    /// Its place.
    pub counted: Counted,
    /// Unused since then.
    pub since: Instant,
}

/// An HTTP/2 connection.
pub(super) struct Shared {
    sender: http2::SendRequest<RequestBody>,
    carried: Rc<Carried>,
}

/// What an HTTP/2 connection carries. It counts until the last request on it is over.
pub(super) struct Carried {
    /// Requests now.
    pub requests: Cell<usize>,
    /// When the last one ended.
    pub used: Cell<Instant>,
    /// Its place.
    pub counted: Counted,
}

impl Keep {
    /// The connection used last: the others then fall idle and are let go.
    pub(super) fn take_idle(&mut self, key: &Key) -> Option<Idle> {
        let idle = &mut self.by_key.get_mut(key)?.idle;
        idle.retain(|idle| !idle.sender.is_closed());
        let ready = idle.iter().rposition(|idle| idle.sender.is_ready())?;
        let mut idle = idle.swap_remove(ready);
        idle.counted.handovers = 0;
        Some(idle)
    }

    pub(super) fn take_shared(&mut self, key: &Key) -> Option<Lease> {
        let shared = &mut self.by_key.get_mut(key)?.shared;
        shared.retain(|shared| !shared.sender.is_closed());
        // An endpoint that allows fewer has the others wait for their turn.
        let has_room = |shared: &&Shared| shared.carried.requests.get() < STREAMS_MAX;
        shared.iter().find(has_room).map(|shared| shared.lease(true))
    }

    /// Place for one more connection. Where all is taken by unused connections, one of them makes room.
    pub(super) fn take_room(&mut self, room: &Arc<Room>) -> Option<Counted> {
        room.take().or_else(|| {
            self.let_go(&mut |of| Arc::ptr_eq(of, room), 1);
            room.take()
        })
    }

    /// Lets go of up to `most` unused connections to the destinations that are `wanted`.
    fn let_go(&mut self, wanted: &mut dyn FnMut(&Arc<Room>) -> bool, most: usize) {
        let mut left = most;
        for kept in self.by_key.values_mut() {
            kept.idle.retain(|idle| {
                left == 0 || !wanted(idle.counted.room()) || {
                    left -= 1;
                    false
                }
            });
            kept.shared.retain(|shared| {
                let is_used = shared.carried.requests.get() > 0;
                is_used || left == 0 || !wanted(shared.carried.counted.room()) || {
                    left -= 1;
                    false
                }
            });
        }
    }

    /// Lets go of as many unused connections as requests wait for their room.
    pub(super) fn shed(&mut self) {
        let mut waiting: HashMap<usize, u32> = HashMap::new();
        let mut wanted = |room: &Arc<Room>| {
            let left = waiting.entry(Arc::as_ptr(room).addr()).or_insert_with(|| room.waiting());
            let is_wanted = *left > 0;
            *left = left.saturating_sub(1);
            is_wanted
        };
        self.let_go(&mut wanted, usize::MAX);
    }

    /// A connection that carried its request: to who waits for it, or kept.
    pub(super) fn give_back(&mut self, key: Key, idle: Idle) {
        let waiting = idle.counted.room().waiting();
        let kept = self.by_key.entry(key).or_insert_with(Kept::new);
        if waiting > 0 {
            return kept.hand_over(idle, waiting as usize);
        }
        if kept.idle.len() < IDLE_CONNECTIONS_MAX {
            kept.idle.push(idle);
        }
    }

    /// A connection that others may use as well: a place on it.
    pub(super) fn share(
        &mut self,
        key: Key,
        sender: http2::SendRequest<RequestBody>,
        counted: Counted,
    ) -> Lease {
        let (requests, used) = (Cell::new(0), Cell::new(Instant::now()));
        let shared = Shared { sender, carried: Rc::new(Carried { requests, used, counted }) };
        let lease = shared.lease(false);
        self.by_key.entry(key).or_insert_with(Kept::new).shared.push(shared);
        lease
    }

    /// From now on the next unused connection comes to the receiver. The number is for [`Self::leave`].
    pub(super) fn line_up(&mut self, key: &Key) -> (u64, oneshot::Receiver<Idle>) {
        let (sender, receiver) = oneshot::channel();
        self.next = self.next.wrapping_add(1);
        let kept = self.by_key.entry(key.clone()).or_insert_with(Kept::new);
        kept.waiters.insert(self.next, sender);
        (self.next, receiver)
    }

    /// Waits no more.
    pub(super) fn leave(&mut self, key: &Key, number: u64) {
        if let Some(kept) = self.by_key.get_mut(key) {
            kept.waiters.remove(&number);
        }
    }

    /// The turn to make an HTTP/2 connection.
    pub(super) fn dialing(&mut self, key: &Key) -> Rc<Semaphore> {
        self.by_key.entry(key.clone()).or_insert_with(Kept::new).dialing.clone()
    }

    /// Lets go of what was not used for [`IDLE_MAX`].
    pub(super) fn tidy(&mut self) {
        let now = Instant::now();
        let fresh = |since: Instant| now.duration_since(since) < IDLE_MAX;
        self.by_key.retain(|_, kept| {
            kept.idle.retain(|idle| !idle.sender.is_closed() && fresh(idle.since));
            kept.shared.retain(|shared| {
                let Carried { requests, used, .. } = &*shared.carried;
                !shared.sender.is_closed() && (requests.get() > 0 || fresh(used.get()))
            });
            let is_awaited = kept.dialing.available_permits() == 0 || !kept.waiters.is_empty();
            is_awaited || !kept.idle.is_empty() || !kept.shared.is_empty()
        });
    }

    /// How many endpoints there are connections to.
    pub(super) fn endpoints(&self) -> usize {
        self.by_key.len()
    }
}

impl Kept {
    fn new() -> Self {
        Self {
            idle: Vec::new(),
            shared: Vec::new(),
            dialing: Rc::new(Semaphore::new(1)),
            waiters: BTreeMap::new(),
        }
    }

    /// To the first that waits here, unless it is the turn of those who wait elsewhere: then it ends, which makes room.
    fn hand_over(&mut self, mut idle: Idle, waiting: usize) {
        let others_wait = waiting > self.waiters.len();
        if others_wait && idle.counted.handovers >= HANDOVERS_MAX {
            return;
        }
        idle.counted.handovers = idle.counted.handovers.saturating_add(1);
        while let Some((_, waiter)) = self.waiters.pop_first() {
            match waiter.send(idle) {
                Ok(()) => return,
                Err(back) => idle = back,
            }
        }
    }
}

impl Shared {
    fn lease(&self, reused: bool) -> Lease {
        Lease::http2(self.sender.clone(), Place::on(&self.carried), reused)
    }
}
