//! One question to a provider: a request to an endpoint of its Service, through the mesh as any other request.
//!
//! Invariant: the time, the endpoints that are tried and the bytes of the answer are limited. A question that was sent is
//! not sent again.

use std::{rc::Rc, time::Instant};

use ambit_resilience::Outcome;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::time::timeout_at;

use crate::{
    body::RequestBody,
    context::Local,
    upstream::{Endpoint, HttpVersion, Lease, LeaseFailure, Selection, Upstream},
};

/// Tries of one question, with other endpoints or after kept connections that turned out to be closed.
const TRIES_MAX: usize = 4;
/// Largest body of an answer.
const ANSWER_MAX_BYTES: usize = 256 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("the provider did not answer in time")]
    Late,
    #[error("the provider has no endpoint that can be reached: {0}")]
    Unreachable(String),
    #[error("the provider closed the connection: {0}")]
    BrokenOff(String),
    #[error("the provider's response is invalid: {0}")]
    Unusable(String),
}

/// An answer with its body.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) head: http::response::Parts,
    /// Bytes and trailers; an error if the body is too long or was cut off.
    pub(super) body: Result<(Bytes, HeaderMap), NoAnswer>,
}

/// Asks a provider; `request` makes the question for each try.
pub(super) async fn ask(
    local: &Rc<Local>,
    upstream: &Upstream,
    version: HttpVersion,
    (deadline, request): (Instant, &dyn Fn() -> Request<RequestBody>),
) -> Result<Answered, NoAnswer> {
    let permit = upstream.breaker.request().map_err(|overflow| {
        local.telemetry.overflowed(overflow);
        NoAnswer::Unreachable(overflow.to_string())
    })?;
    let mut tried = Vec::new();
    let mut failure = NoAnswer::Unreachable("there is none".to_owned());
    for _ in 0..TRIES_MAX {
        // The waypoint itself is the client.
        let own = local.shared.own(&local.shared.store.load());
        let client = std::net::Ipv4Addr::UNSPECIFIED.into();
        let selection = Selection { head: None, client, node: Some(&own.node), pod: None };
        let Some(chosen) = upstream.choose(selection, &tried, rand::random()) else { break };
        let (mut sent, mut waits) = (Sent::Not, false);
        let once = once(local, (upstream, &chosen.endpoint, version), request, (&mut sent, &mut waits));
        let answered = match timeout_at(deadline.into(), once).await {
            Ok(Ok((response, lease))) => Ok(whole(response, lease, deadline).await),
            Ok(Err(failure)) => Err(failure),
            Err(_elapsed) => Err(NoAnswer::Late),
        };
        let outcome = match &answered {
            Ok(answered) if answered.head.status.is_server_error() => Outcome::Bad,
            Ok(_) => Outcome::Good,
            Err(_) => Outcome::Lost,
        };
        match sent {
            // The endpoint is not to blame for a kept connection that it closed, or for a limit of the waypoint.
            Sent::Stale => continue,
            Sent::Overflowed => return answered,
            Sent::Not if waits => return answered,
            Sent::Not | Sent::Perhaps => {}
        }
        local.telemetry.ejected(chosen.under_way.record(outcome, Instant::now()));
        match answered {
            Err(unreachable) if sent == Sent::Not && !matches!(unreachable, NoAnswer::Late) => {
                failure = unreachable;
                tried.push(chosen.endpoint.workload.uid.clone());
            }
            done => return done,
        }
    }
    drop(permit);
    Err(failure)
}

/// What was sent in one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// Nothing was sent.
    Not,
    /// Nothing was sent, because a kept connection was closed.
    Stale,
    /// Nothing was sent, because a limit of the destination is reached.
    Overflowed,
    /// Something may have been sent.
    Perhaps,
}

async fn once(
    local: &Rc<Local>,
    (upstream, endpoint, version): (&Upstream, &Endpoint, HttpVersion),
    request: &dyn Fn() -> Request<RequestBody>,
    (sent, waits): (&mut Sent, &mut bool),
) -> Result<(Response<Incoming>, Lease), NoAnswer> {
    let leased = local.upstreams.lease((upstream, endpoint), version, waits).await;
    let mut lease = leased.map_err(|failure| {
        if let LeaseFailure::Overflow(overflow) = &failure {
            local.telemetry.overflowed(*overflow);
            *sent = Sent::Overflowed;
        }
        NoAnswer::Unreachable(failure.to_string())
    })?;
    // From here on it may have been sent.
    *sent = Sent::Perhaps;
    match lease.send(request()).await {
        Ok(response) => Ok((response, lease)),
        Err(unanswered) => {
            *sent = match unanswered.unsent {
                Some(_) if lease.reused => Sent::Stale,
                Some(_) => Sent::Not,
                None => Sent::Perhaps,
            };
            Err(NoAnswer::BrokenOff(unanswered.error.to_string()))
        }
    }
}

/// Reads the body. The head decides even if the body fails; the connection is returned only after an answer that was read
/// to its end.
async fn whole(response: Response<Incoming>, lease: Lease, deadline: Instant) -> Answered {
    let (head, body) = response.into_parts();
    let collecting = Limited::new(body, ANSWER_MAX_BYTES).collect();
    let body = match timeout_at(deadline.into(), collecting).await {
        Err(_elapsed) => Err(NoAnswer::Late),
        Ok(Ok(collected)) => {
            lease.give_back();
            let trailers = collected.trailers().cloned().unwrap_or_default();
            Ok((collected.to_bytes(), trailers))
        }
        Ok(Err(error)) => Err(NoAnswer::BrokenOff(error.to_string())),
    };
    Answered { head, body }
}
