//! One stream: requests in, responses out, as fast as the client reads them.
//!
//! Invariant: a response is built only when the transport needs one, so changes merge while a
//! response is in flight.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ambit_proto::discovery::DeltaDiscoveryRequest;
use futures::{FutureExt, StreamExt, future, stream::BoxStream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::{Request, Status, Streaming};

use super::{
    authorizer::Authorizer,
    feed::Progress,
    session::{Heard, ServerSession},
};
use crate::wire;

/// How long a client may take until its first subscription.
pub(super) const FIRST_REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a type waits for earlier types, if a client requests them in another order.
pub(super) const GATHER_TIME: Duration = Duration::from_millis(100);
/// Requests processed between two responses.
const REQUESTS_PER_RESPONSE_MAX: usize = 16;
/// Bytes of a client's error that are logged.
const DETAIL_BYTES_MAX: usize = 2048;

/// Counters of one server.
#[derive(Debug, Default)]
pub struct Stats {
    /// Open streams.
    pub streams: AtomicU64,
    /// Responses sent.
    pub responses: AtomicU64,
    /// Responses that a client did not accept, in part or whole.
    pub nacks: AtomicU64,
    /// Streams rejected by the authorizer.
    pub refused: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Shared<A> {
    pub(super) authorizer: Arc<A>,
    pub(super) stats: Arc<Stats>,
    pub(super) stop: watch::Receiver<bool>,
}

struct Stream {
    session: ServerSession,
    requests: Streaming<DeltaDiscoveryRequest>,
    progress: Vec<watch::Receiver<Progress>>,
    stop: watch::Receiver<bool>,
    client: Arc<str>,
    opened: Instant,
    until: Option<Instant>,
    gathering_since: Option<Instant>,
    open: Open,
}

/// Counts a stream as open until dropped.
struct Open(Arc<Stats>);

impl Open {
    fn new(stats: Arc<Stats>) -> Self {
        stats.streams.fetch_add(1, Ordering::Relaxed);
        Self(stats)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why waiting ended.
#[expect(clippy::large_enum_variant, reason = "one value, alive for one turn of a loop")]
enum Woken {
    Changed,
    Gathered,
    Request(Result<Option<DeltaDiscoveryRequest>, Status>),
    Over(Status),
}

pub(super) async fn open<A: Authorizer>(
    shared: Arc<Shared<A>>,
    request: Request<Streaming<DeltaDiscoveryRequest>>,
) -> Result<BoxStream<'static, Result<wire::Response, Status>>, Status> {
    let scope =
        shared.authorizer.admit(request.metadata(), request.extensions()).await.inspect_err(|_| {
            shared.stats.refused.fetch_add(1, Ordering::Relaxed);
        })?;
    tracing::info!(xds.client = %scope.client, "Discovery stream opened");
    let stream = Stream {
        progress: scope.feeds.iter().map(super::Feed::subscribe).collect(),
        session: ServerSession::new(scope.feeds),
        requests: request.into_inner(),
        stop: shared.stop.clone(),
        client: scope.client,
        opened: Instant::now(),
        until: scope.until,
        gathering_since: None,
        open: Open::new(shared.stats.clone()),
    };
    Ok(futures::stream::unfold(Some(stream), |stream| async move { stream?.step().await }).boxed())
}

impl Stream {
    /// The next response; an error is the last one.
    async fn step(mut self) -> Option<(Result<wire::Response, Status>, Option<Self>)> {
        match self.respond().await {
            Ok(Some(response)) => {
                self.open.0.responses.fetch_add(1, Ordering::Relaxed);
                Some((Ok(response), Some(self)))
            }
            Ok(None) => {
                tracing::info!(xds.client = %self.client, "Discovery stream closed by the client");
                None
            }
            Err(status) => {
                tracing::info!(xds.client = %self.client, code = ?status.code(), reason = status.message(), "Discovery stream ended");
                Some((Err(status), None))
            }
        }
    }

    async fn respond(&mut self) -> Result<Option<wire::Response>, Status> {
        loop {
            for _ in 0..REQUESTS_PER_RESPONSE_MAX {
                match self.requests.message().now_or_never() {
                    Some(message) => match message? {
                        Some(request) => self.hear(request)?,
                        None => return Ok(None),
                    },
                    None => break,
                }
            }
            let mut closed = false;
            self.progress.iter_mut().for_each(|progress| closed |= progress.borrow_and_update().closed);
            if closed {
                return Err(Status::unavailable("the feed that this client reads was closed"));
            }
            let response = self.session.next().map_err(|_| {
                Status::aborted("the stream is too far behind: reconnect with the versions that you hold")
            })?;
            if response.is_some() {
                return Ok(response);
            }
            match self.wait().await {
                Woken::Changed => {}
                Woken::Gathered => self.session.stop_gathering(),
                Woken::Request(message) => match message? {
                    Some(request) => self.hear(request)?,
                    None => return Ok(None),
                },
                Woken::Over(status) => return Err(status),
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let first_request = (!self.session.is_subscribed()).then(|| self.opened + FIRST_REQUEST_TIME_MAX);
        let gather = self.gathering_since.filter(|_| self.session.is_gathering()).map(|at| at + GATHER_TIME);
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => Woken::Over(Status::unavailable("the server is shutting down")),
            () = at(self.until) => Woken::Over(Status::unauthenticated("the token has expired: reconnect with a fresh one")),
            message = self.requests.message() => Woken::Request(message),
            () = at(first_request) => Woken::Over(Status::deadline_exceeded("no type was subscribed to")),
            () = at(gather) => Woken::Gathered,
            () = any_changed(&mut self.progress) => Woken::Changed,
        }
    }

    fn hear(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        match self.session.request(request)? {
            Heard::Subscribed => {
                self.gathering_since.get_or_insert_with(Instant::now);
            }
            Heard::Asked | Heard::Acked => {}
            Heard::Nacked { type_url, detail } => {
                self.open.0.nacks.fetch_add(1, Ordering::Relaxed);
                let detail: String = detail.chars().take(DETAIL_BYTES_MAX).collect();
                tracing::warn!(xds.client = %self.client, xds.type_url = type_url, detail, "A client refused resources");
            }
        }
        Ok(())
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}

async fn any_changed(progress: &mut [watch::Receiver<Progress>]) {
    let changes: Vec<_> = progress.iter_mut().map(|receiver| Box::pin(receiver.changed())).collect();
    if changes.is_empty() {
        return future::pending().await;
    }
    let (result, _, _) = future::select_all(changes).await;
    if result.is_err() {
        // The feed was dropped: it will never change again, and the other feeds with it.
        future::pending().await
    }
}
