//! The connections of one worker to endpoints: opened, leased to requests, kept for the next.
//!
//! Invariant: an HTTP/1 connection carries one request at a time, an HTTP/2 connection at most [`STREAMS_MAX`].
//!
//! [`STREAMS_MAX`]: super::key::STREAMS_MAX

use std::{cell::RefCell, fmt, rc::Rc, sync::Arc};

use ambit_hbone::ConnectHeaders;
use ambit_identity::Manager;
use ambit_model::Spiffe;
use ambit_resilience::Overflow;
use tokio::sync::{Notify, oneshot};

use super::{
    ConnectFailure, Endpoint, Stream, Upstream,
    connect::Connector,
    connection_limit::{ConnectionLimit, ConnectionPermit},
    dial,
    failure::LeaseFailure,
    idle_pool::{IdleConnection, IdlePool, Lease},
    key::{ConnectionKey, HttpVersion},
};

/// All connections of a worker.
pub struct Connections {
    connector: Connector,
    pool: Rc<RefCell<IdlePool>>,
    /// Notified while requests of any worker wait below a limit that connections of this worker count against.
    evict: Arc<Notify>,
}

/// A request that waits for an HTTP/1 connection; queued while it lives.
struct Queued<'a> {
    pool: &'a RefCell<IdlePool>,
    key: &'a ConnectionKey,
    number: u64,
    handed: oneshot::Receiver<IdleConnection>,
}

/// What a request goes on with.
enum Found<C> {
    Connection(C),
    /// For a new connection.
    Permit(ConnectionPermit),
}

impl Connections {
    /// Connects as the identity `own`. Needs a [`tokio::task::LocalSet`].
    pub fn new(identities: Manager, own: Spiffe) -> Self {
        let connections =
            Self { connector: Connector::new(identities, own), pool: Rc::default(), evict: Arc::default() };
        tokio::task::spawn_local(connections.evictor());
        connections
    }

    /// A byte stream to the application of an endpoint.
    ///
    /// # Errors
    /// [`ConnectFailure`]
    pub async fn open(
        &self,
        endpoint: &Endpoint,
        headers: &ConnectHeaders,
    ) -> Result<Stream, ConnectFailure> {
        self.connector.open(endpoint, headers).await
    }

    /// The use of a connection to an endpoint, of a new one if need be. `waits` is true while other requests have to end
    /// first.
    ///
    /// # Errors
    /// [`LeaseFailure`]
    pub async fn lease(
        &self,
        (upstream, endpoint): (&Upstream, &Endpoint),
        version: HttpVersion,
        waits: &mut bool,
    ) -> Result<Lease, LeaseFailure> {
        let key = ConnectionKey::new(endpoint, version);
        let overtakes = upstream.connections.waiting() > 0;
        // The rest is boxed: rare and large, it would make every request large.
        match version {
            HttpVersion::Http1 => {
                let idle = if overtakes { None } else { self.pool.borrow_mut().take_idle(&key) };
                match idle {
                    Some(IdleConnection { sender, permit, .. }) => {
                        Ok(Lease::http1((sender, permit), key, &self.pool, true))
                    }
                    None => Box::pin(self.lease_http1((upstream, endpoint), key, waits)).await,
                }
            }
            HttpVersion::Http2 => {
                let lease = if overtakes { None } else { self.pool.borrow_mut().take_stream(&key) };
                match lease {
                    Some(lease) => Ok(lease),
                    None => Box::pin(self.lease_http2((upstream, endpoint), key, waits)).await,
                }
            }
        }
    }

    async fn lease_http1(
        &self,
        (upstream, endpoint): (&Upstream, &Endpoint),
        key: ConnectionKey,
        waits: &mut bool,
    ) -> Result<Lease, LeaseFailure> {
        let limit = &upstream.connections;
        let free = if limit.waiting() > 0 { None } else { self.acquire(limit) };
        let found = match free {
            Some(permit) => Found::Permit(permit),
            None => {
                *waits = true;
                let found = self.wait_http1(limit, &key).await?;
                *waits = false;
                found
            }
        };
        let permit = match found {
            Found::Permit(permit) => permit,
            Found::Connection(IdleConnection { mut sender, permit, .. }) => {
                // It has just carried a response, and may not be ready yet.
                if sender.ready().await.is_ok() {
                    return Ok(Lease::http1((sender, permit), key, &self.pool, true));
                }
                permit
            }
        };
        let sender = dial::http1(&self.connector, endpoint).await?;
        Ok(Lease::http1((sender, permit), key, &self.pool, false))
    }

    async fn wait_http1(
        &self,
        limit: &Arc<ConnectionLimit>,
        key: &ConnectionKey,
    ) -> Result<Found<IdleConnection>, Overflow> {
        let (number, handed) = self.pool.borrow_mut().enqueue(key);
        let mut queued = Queued { pool: &self.pool, key, number, handed };
        let attempt = || {
            let idle = self.pool.borrow_mut().take_idle(key);
            idle.map(Found::Connection).or_else(|| self.acquire(limit).map(Found::Permit))
        };
        tokio::select! {
            biased;
            Ok(idle) = &mut queued.handed => Ok(Found::Connection(idle)),
            found = limit.wait(attempt) => found,
        }
    }

    async fn lease_http2(
        &self,
        (upstream, endpoint): (&Upstream, &Endpoint),
        key: ConnectionKey,
        waits: &mut bool,
    ) -> Result<Lease, LeaseFailure> {
        let limit = &upstream.connections;
        let dialing = self.pool.borrow_mut().dialing(&key);
        let mut overtakes = limit.waiting() > 0;
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
            let lease = self.pool.borrow_mut().take_stream(&key);
            lease.map(Found::Connection).or_else(|| self.acquire(limit).map(Found::Permit))
        };
        let found = match if overtakes { None } else { attempt() } {
            Some(found) => found,
            None => {
                *waits = true;
                let found = limit.wait(attempt).await?;
                *waits = false;
                found
            }
        };
        let permit = match found {
            Found::Connection(lease) => return Ok(lease),
            Found::Permit(permit) => permit,
        };
        let sender = dial::http2(&self.connector, endpoint).await?;
        Ok(self.pool.borrow_mut().share(key, sender, permit))
    }

    fn acquire(&self, limit: &Arc<ConnectionLimit>) -> Option<ConnectionPermit> {
        let permit = self.pool.borrow_mut().acquire(limit)?;
        limit.register_worker(&self.evict);
        Some(permit)
    }

    /// Closes unused connections while requests wait below their limits, for as long as the pool lives.
    fn evictor(&self) -> impl Future<Output = ()> + use<> {
        let (pool, evict) = (Rc::downgrade(&self.pool), self.evict.clone());
        async move {
            loop {
                evict.notified().await;
                let Some(pool) = pool.upgrade() else { return };
                pool.borrow_mut().evict();
            }
        }
    }

    /// Closes connections that were not used for long.
    pub fn sweep(&self) {
        self.pool.borrow_mut().sweep();
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // Ends the evictor.
        self.evict.notify_one();
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.pool.borrow_mut().dequeue(self.key, self.number);
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("connector", &self.connector)
            .field("endpoints", &self.pool.borrow().endpoints())
            .finish_non_exhaustive()
    }
}
