//! The body of a response on its way to the client.
//!
//! Invariant: a request counts against its limits and holds its connection until the last byte of its response; a
//! connection is returned only after a response that was read to its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use ambit_resilience::{Permit, UnderWay};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep_until};

use super::{
    exchange::{Exchange, ResponseError},
    watched::Progress,
};
use crate::upstream::Lease;

/// The body of a response to a client.
#[derive(Debug)]
pub(super) struct ResponseBody {
    source: Source,
    progress: Progress,
    exchange: Box<Exchange>,
}

#[derive(Debug)]
enum Source {
    /// Made by the waypoint.
    Own(Option<Bytes>),
    /// From an endpoint.
    Endpoint(Box<Flow>),
}

#[derive(Debug)]
struct Flow {
    body: Incoming,
    held: Held,
    deadline: Option<Instant>,
    /// Created when the endpoint has to be waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What a request holds until its response has ended.
#[derive(Debug)]
pub(super) struct Held {
    /// The connection.
    pub lease: Option<Lease>,
    /// Counts as an open request of the endpoint.
    pub _under_way: UnderWay,
    /// Counts as an open request of the destination.
    pub _permit: Permit,
}

impl ResponseBody {
    /// Made by the waypoint.
    pub(super) fn own(bytes: Bytes, progress: Progress, exchange: Box<Exchange>) -> Self {
        Self { source: Source::Own(Some(bytes).filter(|bytes| !bytes.is_empty())), progress, exchange }
    }

    /// Of an endpoint; too late at `deadline`.
    pub(super) fn of_endpoint(
        (body, held): (Incoming, Held),
        deadline: Option<Instant>,
        progress: Progress,
        exchange: Box<Exchange>,
    ) -> Self {
        let mut flow = Flow { body, held, deadline, timer: None };
        if flow.body.is_end_stream() {
            flow.held.ended();
        }
        Self { source: Source::Endpoint(Box::new(flow)), progress, exchange }
    }
}

impl Held {
    /// The response was read to its end.
    fn ended(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if self.body.is_end_stream() {
                    self.held.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.held.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.held.ended();
                Poll::Ready(None)
            }
            Poll::Pending => match self.deadline {
                Some(deadline) => {
                    let new = || Box::pin(sleep_until(deadline.into()));
                    ready!(self.timer.get_or_insert_with(new).as_mut().poll(cx));
                    self.held.lease = None;
                    Poll::Ready(Some(Err(ResponseError::Late)))
                }
                None => Poll::Pending,
            },
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Own(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Endpoint(flow) => ready!(flow.poll(cx)),
        };
        match &frame {
            Some(Ok(frame)) => this.exchange.responded(frame),
            Some(Err(error)) => this.exchange.broke_off(error),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Endpoint(flow) => flow.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Endpoint(flow) => flow.body.size_hint(),
        }
    }
}

/// The connection is ready for the next request.
impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.progress.idle();
        if self.is_end_stream() {
            self.exchange.whole();
        }
    }
}
