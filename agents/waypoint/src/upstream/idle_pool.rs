//! The HTTP connections that one worker keeps, and the leases of requests on them.
//!
//! Invariant: a connection is returned only after a response that was read to its end. An unused connection goes to a
//! request that waits for it; while requests wait for other connections to its destination, it is closed instead.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    fmt,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use super::{
    connection_limit::{ConnectionLimit, ConnectionPermit},
    key::{ConnectionKey, STREAMS_MAX},
};
use crate::body::RequestBody;

/// How long an unused connection is kept: less than servers usually keep theirs.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Unused HTTP/1 connections kept to one endpoint by one worker.
const IDLE_CONNECTIONS_MAX: usize = 100;
/// How often in a row a connection is handed to the next request for its endpoint while requests wait for other
/// connections to its destination.
const HANDOVERS_MAX: u32 = 16;

/// All connections of a worker.
#[derive(Default)]
pub(super) struct IdlePool {
    by_key: HashMap<ConnectionKey, EndpointPool>,
    /// Number of the last request that queued.
    last: u64,
}

/// The connections to one endpoint.
struct EndpointPool {
    idle: Vec<IdleConnection>,
    shared: Vec<SharedConnection>,
    /// One HTTP/2 connection is made at a time: the requests that wait for it will share it.
    dialing: Rc<Semaphore>,
    /// Requests that wait for an HTTP/1 connection, in order.
    queue: BTreeMap<u64, oneshot::Sender<IdleConnection>>,
}

/// An HTTP/1 connection that carries no request.
pub(super) struct IdleConnection {
    pub sender: http1::SendRequest<RequestBody>,
    pub permit: ConnectionPermit,
    /// When its last request ended.
    pub since: Instant,
}

/// An HTTP/2 connection.
struct SharedConnection {
    sender: http2::SendRequest<RequestBody>,
    streams: Rc<OpenStreams>,
}

/// The streams of an HTTP/2 connection. It counts against its limit until the last of them has ended.
struct OpenStreams {
    count: Cell<usize>,
    /// When the last one ended.
    used: Cell<Instant>,
    permit: ConnectionPermit,
}

/// Counts as one stream of an HTTP/2 connection while it lives.
struct StreamSlot(Rc<OpenStreams>);

/// The use of a connection for one request.
pub struct Lease {
    connection: Leased,
    /// Whether the connection has carried requests before.
    pub reused: bool,
}

enum Leased {
    Http1 {
        sender: http1::SendRequest<RequestBody>,
        permit: ConnectionPermit,
        key: ConnectionKey,
        pool: Weak<RefCell<IdlePool>>,
    },
    Http2 {
        sender: http2::SendRequest<RequestBody>,
        _slot: StreamSlot,
    },
}

/// A request that got no response.
pub struct Unanswered {
    /// Error of the connection.
    pub error: hyper::Error,
    /// The request, if nothing of it was sent.
    pub unsent: Option<Request<RequestBody>>,
}

impl IdlePool {
    /// An unused connection: the one used last, so that the others reach [`IDLE_MAX`] and are closed.
    pub(super) fn take_idle(&mut self, key: &ConnectionKey) -> Option<IdleConnection> {
        let idle = &mut self.by_key.get_mut(key)?.idle;
        idle.retain(|idle| !idle.sender.is_closed());
        let ready = idle.iter().rposition(|idle| idle.sender.is_ready())?;
        let mut idle = idle.swap_remove(ready);
        idle.permit.handovers = 0;
        Some(idle)
    }

    /// A stream on an HTTP/2 connection that has one free.
    pub(super) fn take_stream(&mut self, key: &ConnectionKey) -> Option<Lease> {
        let shared = &mut self.by_key.get_mut(key)?.shared;
        shared.retain(|shared| !shared.sender.is_closed());
        // An endpoint that allows fewer lets the others wait.
        let has_room = |shared: &&SharedConnection| shared.streams.count.get() < STREAMS_MAX;
        shared.iter().find(has_room).map(|shared| shared.lease(true))
    }

    /// A permit for a new connection. If unused connections take up the limit, one of them is closed for it.
    pub(super) fn acquire(&mut self, limit: &Arc<ConnectionLimit>) -> Option<ConnectionPermit> {
        limit.try_acquire().or_else(|| {
            self.close_unused(&mut |of| Arc::ptr_eq(of, limit), 1);
            limit.try_acquire()
        })
    }

    /// Closes up to `most` unused connections whose destinations are `wanted`.
    fn close_unused(&mut self, wanted: &mut dyn FnMut(&Arc<ConnectionLimit>) -> bool, most: usize) {
        let mut left = most;
        for endpoint in self.by_key.values_mut() {
            endpoint.idle.retain(|idle| {
                left == 0 || !wanted(idle.permit.limit()) || {
                    left -= 1;
                    false
                }
            });
            endpoint.shared.retain(|shared| {
                let is_used = shared.streams.count.get() > 0;
                is_used || left == 0 || !wanted(shared.streams.permit.limit()) || {
                    left -= 1;
                    false
                }
            });
        }
    }

    /// Closes as many unused connections to each destination as requests wait below its limit.
    pub(super) fn evict(&mut self) {
        let mut waiting: HashMap<usize, u32> = HashMap::new();
        let mut wanted = |limit: &Arc<ConnectionLimit>| {
            let left = waiting.entry(Arc::as_ptr(limit).addr()).or_insert_with(|| limit.waiting());
            let is_wanted = *left > 0;
            *left = left.saturating_sub(1);
            is_wanted
        };
        self.close_unused(&mut wanted, usize::MAX);
    }

    /// Takes back a connection after its request: it goes to a request that waits for it, or is kept.
    fn put_back(&mut self, key: ConnectionKey, idle: IdleConnection) {
        let waiting = idle.permit.limit().waiting();
        let endpoint = self.by_key.entry(key).or_insert_with(EndpointPool::new);
        if waiting > 0 {
            return endpoint.hand_over(idle, waiting as usize);
        }
        if endpoint.idle.len() < IDLE_CONNECTIONS_MAX {
            endpoint.idle.push(idle);
        }
    }

    /// Adds a new HTTP/2 connection, and takes its first stream.
    pub(super) fn share(
        &mut self,
        key: ConnectionKey,
        sender: http2::SendRequest<RequestBody>,
        permit: ConnectionPermit,
    ) -> Lease {
        let (count, used) = (Cell::new(0), Cell::new(Instant::now()));
        let shared = SharedConnection { sender, streams: Rc::new(OpenStreams { count, used, permit }) };
        let lease = shared.lease(false);
        self.by_key.entry(key).or_insert_with(EndpointPool::new).shared.push(shared);
        lease
    }

    /// Queues a request: the receiver gets an unused connection in its turn. The number is for [`Self::dequeue`].
    pub(super) fn enqueue(&mut self, key: &ConnectionKey) -> (u64, oneshot::Receiver<IdleConnection>) {
        let (sender, receiver) = oneshot::channel();
        self.last = self.last.wrapping_add(1);
        let endpoint = self.by_key.entry(key.clone()).or_insert_with(EndpointPool::new);
        endpoint.queue.insert(self.last, sender);
        (self.last, receiver)
    }

    /// Removes a request from the queue.
    pub(super) fn dequeue(&mut self, key: &ConnectionKey, number: u64) {
        if let Some(endpoint) = self.by_key.get_mut(key) {
            endpoint.queue.remove(&number);
        }
    }

    /// Acquired by the request that makes an HTTP/2 connection.
    pub(super) fn dialing(&mut self, key: &ConnectionKey) -> Rc<Semaphore> {
        self.by_key.entry(key.clone()).or_insert_with(EndpointPool::new).dialing.clone()
    }

    /// Closes connections that were not used for [`IDLE_MAX`].
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        let fresh = |since: Instant| now.duration_since(since) < IDLE_MAX;
        self.by_key.retain(|_, endpoint| {
            endpoint.idle.retain(|idle| !idle.sender.is_closed() && fresh(idle.since));
            endpoint.shared.retain(|shared| {
                let OpenStreams { count, used, .. } = &*shared.streams;
                !shared.sender.is_closed() && (count.get() > 0 || fresh(used.get()))
            });
            let is_awaited = endpoint.dialing.available_permits() == 0 || !endpoint.queue.is_empty();
            is_awaited || !endpoint.idle.is_empty() || !endpoint.shared.is_empty()
        });
    }

    /// Number of endpoints with connections.
    pub(super) fn endpoints(&self) -> usize {
        self.by_key.len()
    }
}

impl EndpointPool {
    fn new() -> Self {
        Self {
            idle: Vec::new(),
            shared: Vec::new(),
            dialing: Rc::new(Semaphore::new(1)),
            queue: BTreeMap::new(),
        }
    }

    /// To the first request of the queue, unless it is the turn of requests for other endpoints: then the connection
    /// ends, and its permit goes to one of them.
    fn hand_over(&mut self, mut idle: IdleConnection, waiting: usize) {
        let others_wait = waiting > self.queue.len();
        if others_wait && idle.permit.handovers >= HANDOVERS_MAX {
            return;
        }
        idle.permit.handovers = idle.permit.handovers.saturating_add(1);
        while let Some((_, request)) = self.queue.pop_first() {
            match request.send(idle) {
                Ok(()) => return,
                Err(back) => idle = back,
            }
        }
    }
}

impl SharedConnection {
    fn lease(&self, reused: bool) -> Lease {
        let (sender, slot) = (self.sender.clone(), StreamSlot::of(&self.streams));
        Lease { connection: Leased::Http2 { sender, _slot: slot }, reused }
    }
}

impl StreamSlot {
    fn of(streams: &Rc<OpenStreams>) -> Self {
        streams.count.set(streams.count.get() + 1);
        Self(streams.clone())
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let OpenStreams { count, used, permit } = &*self.0;
        count.set(count.get() - 1);
        used.set(Instant::now());
        if count.get() == 0 && permit.limit().waiting() > 0 {
            permit.limit().evict_unused();
        }
    }
}

impl Lease {
    /// All of an HTTP/1 connection, which goes back to `pool` afterwards.
    pub(super) fn http1(
        (sender, permit): (http1::SendRequest<RequestBody>, ConnectionPermit),
        key: ConnectionKey,
        pool: &Rc<RefCell<IdlePool>>,
        reused: bool,
    ) -> Self {
        Self { connection: Leased::Http1 { sender, permit, key, pool: Rc::downgrade(pool) }, reused }
    }

    /// Sends a request and waits for the head of the response.
    ///
    /// # Errors
    /// [`Unanswered`], with the request if it may be sent elsewhere.
    pub async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, Unanswered> {
        let sent = match &mut self.connection {
            Leased::Http1 { sender, .. } => sender.try_send_request(request).await,
            Leased::Http2 { sender, .. } => sender.try_send_request(request).await,
        };
        sent.map_err(|mut failed| {
            let unsent = failed.take_message();
            Unanswered { error: failed.into_error(), unsent }
        })
    }

    /// Returns the connection after the response was read to its end.
    pub fn give_back(self) {
        let Leased::Http1 { sender, permit, key, pool } = self.connection else { return };
        let Some(pool) = pool.upgrade().filter(|_| !sender.is_closed()) else { return };
        pool.borrow_mut().put_back(key, IdleConnection { sender, permit, since: Instant::now() });
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("reused", &self.reused).finish_non_exhaustive()
    }
}
