//! HTTP connections to endpoints, kept by one worker.
//!
//! Invariant: an HTTP/1 connection carries one request at a time and is kept only after a response that was read whole;
//! an HTTP/2 connection carries at most [`STREAMS_MAX`]. Two requests share a connection only where endpoint, expected
//! identity and protocol are the same.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use ambit_hbone::ConnectHeaders;
use ambit_model::Spiffe;
use ambit_resilience::{Breaker, Overflow, Permit};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::{sync::Semaphore, time::Instant};

use super::{ConnectFailure, Target, Upstream, open};
use crate::{
    context::Local,
    http::{LocalExecutor, RequestBody},
};

/// Requests on one HTTP/2 connection at a time.
const STREAMS_MAX: usize = 100;
/// How long an unused connection is kept: less than servers usually keep theirs.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Unused HTTP/1 connections kept to one endpoint by one worker.
const IDLE_CONNECTIONS_MAX: usize = 100;
/// Largest head of a response, and read buffer of an HTTP/1 connection.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// Receive window of an HTTP/2 response.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Receive window of an HTTP/2 connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

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

/// All connections of a worker.
#[derive(Default)]
pub struct Connections {
    kept: Rc<RefCell<HashMap<Key, Kept>>>,
}

struct Kept {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
    /// One HTTP/2 connection is made at a time: those who wait will share it.
    dialing: Rc<Semaphore>,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    counted: Counted,
    since: Instant,
}

/// Counts as one connection of its destination while it lives.
struct Counted {
    of: Arc<Breaker>,
    _permit: Permit,
}

struct Shared {
    sender: http2::SendRequest<RequestBody>,
    requests: Rc<Cell<usize>>,
    _counted: Counted,
    used: Rc<Cell<Instant>>,
}

/// No connection for a request.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFailure {
    /// The endpoint cannot be reached.
    #[error("{0}")]
    Connect(#[from] ConnectFailure),
    /// The destination has too many connections, or too many requests wait for one.
    #[error("{0}")]
    Overflow(#[from] Overflow),
}

/// A place on a connection, for one request.
pub struct Lease {
    wire: Wire,
    /// Whether the connection has carried requests before.
    pub reused: bool,
}

enum Wire {
    Http1 {
        sender: http1::SendRequest<RequestBody>,
        counted: Counted,
        key: Key,
        home: Weak<RefCell<HashMap<Key, Kept>>>,
    },
    Http2 {
        sender: http2::SendRequest<RequestBody>,
        _place: Place,
    },
}

/// Counts as one request of an HTTP/2 connection while it lives.
struct Place {
    requests: Rc<Cell<usize>>,
    used: Rc<Cell<Instant>>,
}

/// A request that got no answer.
pub struct Unanswered {
    /// Why.
    pub error: hyper::Error,
    /// The request, when nothing of it was sent.
    pub unsent: Option<Request<RequestBody>>,
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

impl Connections {
    /// A place on a connection to `target`, a new one if need be.
    ///
    /// # Errors
    /// When there can be none.
    pub async fn lease(
        &self,
        local: &Rc<Local>,
        (upstream, target): (&Upstream, &Target),
        spoken: Spoken,
    ) -> Result<Lease, LeaseFailure> {
        let key = Key::new(target, spoken);
        match spoken {
            Spoken::Http1 => match self.take_idle(&key) {
                Some(Idle { sender, counted, .. }) => Ok(self.http1(key, sender, counted, true)),
                None => {
                    let _waiting = upstream.breaker.pending()?;
                    let counted = self.count(upstream)?;
                    // Boxed, as below: rare and large, it would make every request large.
                    let sender = Box::pin(dial_http1(local, target)).await?;
                    Ok(self.http1(key, sender, counted, false))
                }
            },
            Spoken::Http2 => match self.take_shared(&key) {
                Some(lease) => Ok(lease),
                None => Box::pin(self.lease_http2(local, (upstream, target), key)).await,
            },
        }
    }

    async fn lease_http2(
        &self,
        local: &Rc<Local>,
        (upstream, target): (&Upstream, &Target),
        key: Key,
    ) -> Result<Lease, LeaseFailure> {
        let _waiting = upstream.breaker.pending()?;
        let dialing = self.kept.borrow_mut().entry(key.clone()).or_insert_with(Kept::new).dialing.clone();
        // Never closed, so there is always a turn to wait for.
        let _turn = dialing.acquire().await;
        if let Some(lease) = self.take_shared(&key) {
            return Ok(lease);
        }
        let counted = self.count(upstream)?;
        let sender = dial_http2(local, target).await?;
        let now = Rc::new(Cell::new(Instant::now()));
        let shared = Shared { sender, requests: Rc::default(), _counted: counted, used: now };
        let lease = shared.lease(false);
        self.kept.borrow_mut().entry(key).or_insert_with(Kept::new).shared.push(shared);
        Ok(lease)
    }

    /// The connection used last: the others then fall idle and are let go.
    fn take_idle(&self, key: &Key) -> Option<Idle> {
        let mut kept = self.kept.borrow_mut();
        let idle = &mut kept.get_mut(key)?.idle;
        idle.retain(|idle| !idle.sender.is_closed());
        let ready = idle.iter().rposition(|idle| idle.sender.is_ready())?;
        Some(idle.swap_remove(ready))
    }

    fn take_shared(&self, key: &Key) -> Option<Lease> {
        let mut kept = self.kept.borrow_mut();
        let shared = &mut kept.get_mut(key)?.shared;
        shared.retain(|shared| !shared.sender.is_closed());
        // An endpoint that allows fewer has the others wait for their turn.
        let has_room = |shared: &&Shared| shared.requests.get() < STREAMS_MAX;
        shared.iter().find(has_room).map(|shared| shared.lease(true))
    }

    /// A connection of the destination. Where its limit is reached by unused connections, one of them makes room.
    fn count(&self, upstream: &Upstream) -> Result<Counted, Overflow> {
        let one_more =
            || Ok(Counted { _permit: upstream.breaker.connection()?, of: upstream.breaker.clone() });
        let refused = match one_more() {
            Ok(counted) => return Ok(counted),
            Err(refused) => refused,
        };
        let mut kept = self.kept.borrow_mut();
        for kept in kept.values_mut() {
            if let Some(at) =
                kept.idle.iter().position(|idle| Arc::ptr_eq(&idle.counted.of, &upstream.breaker))
            {
                kept.idle.swap_remove(at);
                return one_more();
            }
        }
        Err(refused)
    }

    fn http1(
        &self,
        key: Key,
        sender: http1::SendRequest<RequestBody>,
        counted: Counted,
        reused: bool,
    ) -> Lease {
        Lease { wire: Wire::Http1 { sender, counted, key, home: Rc::downgrade(&self.kept) }, reused }
    }

    /// Lets go of what was not used for [`IDLE_MAX`].
    pub fn tidy(&self) {
        let now = Instant::now();
        let fresh = |since: Instant| now.duration_since(since) < IDLE_MAX;
        self.kept.borrow_mut().retain(|_, kept| {
            kept.idle.retain(|idle| !idle.sender.is_closed() && fresh(idle.since));
            kept.shared.retain(|shared| {
                !shared.sender.is_closed() && (shared.requests.get() > 0 || fresh(shared.used.get()))
            });
            !kept.idle.is_empty() || !kept.shared.is_empty() || kept.dialing.available_permits() == 0
        });
    }
}

impl Kept {
    fn new() -> Self {
        Self { idle: Vec::new(), shared: Vec::new(), dialing: Rc::new(Semaphore::new(1)) }
    }
}

impl Shared {
    fn lease(&self, reused: bool) -> Lease {
        self.requests.set(self.requests.get() + 1);
        let place = Place { requests: self.requests.clone(), used: self.used.clone() };
        Lease { wire: Wire::Http2 { sender: self.sender.clone(), _place: place }, reused }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.requests.set(self.requests.get() - 1);
        self.used.set(Instant::now());
    }
}

impl Lease {
    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Unanswered`], with the request when it may be sent elsewhere.
    pub async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, Unanswered> {
        let sent = match &mut self.wire {
            Wire::Http1 { sender, .. } => sender.try_send_request(request).await,
            Wire::Http2 { sender, .. } => sender.try_send_request(request).await,
        };
        sent.map_err(|mut failed| {
            let unsent = failed.take_message();
            Unanswered { error: failed.into_error(), unsent }
        })
    }

    /// The response was read whole: the connection may carry another request.
    pub fn give_back(self) {
        let Wire::Http1 { sender, counted, key, home } = self.wire else { return };
        let Some(home) = home.upgrade().filter(|_| !sender.is_closed()) else { return };
        let mut kept = home.borrow_mut();
        let idle = &mut kept.entry(key).or_insert_with(Kept::new).idle;
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(Idle { sender, counted, since: Instant::now() });
        }
    }
}

async fn dial_http1(
    local: &Rc<Local>,
    target: &Target,
) -> Result<http1::SendRequest<RequestBody>, ConnectFailure> {
    let stream = open(local, target, &ConnectHeaders::default()).await?;
    let handshake = http1::Builder::new()
        .max_buf_size(HEAD_MAX_BYTES)
        .max_header_size(HEAD_MAX_BYTES)
        .handshake(TokioIo::new(stream.into_io()))
        .await;
    let (sender, connection) = handshake.map_err(|source| failed(target, source))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "Connection to an endpoint ended badly");
        }
    });
    Ok(sender)
}

async fn dial_http2(
    local: &Rc<Local>,
    target: &Target,
) -> Result<http2::SendRequest<RequestBody>, ConnectFailure> {
    let stream = open(local, target, &ConnectHeaders::default()).await?;
    let handshake = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEAD_MAX_BYTES as u32)
        .initial_max_send_streams(STREAMS_MAX)
        .handshake(TokioIo::new(stream.into_io()))
        .await;
    let (sender, connection) = handshake.map_err(|source| failed(target, source))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Connection to an endpoint ended badly");
        }
    });
    Ok(sender)
}

fn failed(target: &Target, source: hyper::Error) -> ConnectFailure {
    ConnectFailure::Http { address: target.address, source }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("endpoints", &self.kept.borrow().len()).finish()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("reused", &self.reused).finish_non_exhaustive()
    }
}
