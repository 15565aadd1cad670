//! A place on a connection, for one request.
//!
//! Invariant: it is given back in one piece or its connection ends; either way those who wait for one are told.

use std::{
    cell::RefCell,
    fmt,
    rc::{Rc, Weak},
};

use ambit_resilience::Overflow;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use tokio::time::Instant;

use super::{
    ConnectFailure,
    kept::{Carried, Idle, Keep},
    pool::Key,
    room::Counted,
};
use crate::body::RequestBody;

/// No connection for a request.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFailure {
    /// The endpoint cannot be reached.
    #[error("{0}")]
    Connect(#[from] ConnectFailure),
    /// The destination has too many connections, and too many requests wait for one.
    #[error("{0}")]
    Overflow(#[from] Overflow),
}

/// A place on a connection.
pub struct Lease {
    wire: Wire,
    /// Whether the connection has carried requests before.
    pub reused: bool,
}

enum Wire {
    Http1 { sender: http1::SendRequest<RequestBody>, counted: Counted, key: Key, home: Weak<RefCell<Keep>> },
    Http2 { sender: http2::SendRequest<RequestBody>, _place: Place },
}

/// Counts as one request of an HTTP/2 connection while it lives.
pub(super) struct Place(Rc<Carried>);

/// A request that got no answer.
pub struct Unanswered {
    /// Why.
    pub error: hyper::Error,
    /// The request, when nothing of it was sent.
    pub unsent: Option<Request<RequestBody>>,
}

impl Place {
    pub(super) fn on(carried: &Rc<Carried>) -> Self {
        carried.requests.set(carried.requests.get() + 1);
        Self(carried.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Carried { requests, used, counted } = &*self.0;
        requests.set(requests.get() - 1);
        used.set(Instant::now());
        if requests.get() == 0 && counted.room().waiting() > 0 {
            counted.room().ask();
        }
    }
}

impl Lease {
    /// All of an HTTP/1 connection, which is kept at `home` afterwards.
    pub(super) fn http1(
        (sender, counted): (http1::SendRequest<RequestBody>, Counted),
        key: Key,
        home: &Rc<RefCell<Keep>>,
        reused: bool,
    ) -> Self {
        Self { wire: Wire::Http1 { sender, counted, key, home: Rc::downgrade(home) }, reused }
    }

    /// A place beside others.
    pub(super) fn http2(sender: http2::SendRequest<RequestBody>, place: Place, reused: bool) -> Self {
        Self { wire: Wire::Http2 { sender, _place: place }, reused }
    }

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
        home.borrow_mut().give_back(key, Idle { sender, counted, since: Instant::now() });
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("reused", &self.reused).finish_non_exhaustive()
    }
}
