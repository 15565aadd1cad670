//! Sends a request to an endpoint of its destination, and to others if the first do not respond.
//!
//! Invariant: a request is tried again only while no byte of a response was sent to the client and all of its body is still
//! held; a request that was never sent may always be sent elsewhere.

mod failure;

use std::{pin::pin, sync::Arc, time::Instant};

use ambit_resilience::{
    Late, Outcome, Permit,
    retry::{Ended, Progress, pause},
};
use ambit_route::{RequestHead, session};
use failure::Failure;
use http::{Request, Response, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{sleep, timeout_at};

use super::{
    Refusal,
    exchange::Exchange,
    extended_connect, headers, hop_by_hop, mirror,
    plan::{self, Plan},
    response_body::{Held, ResponseBody},
    upgrade::{self, Client, SwitchingRequest},
};
use crate::{
    body::{ClientBody, Held as HeldBody, RequestBody, is_unsized},
    trace::{Trace, Tried},
    upstream::{Chosen, HttpVersion, Lease, LeaseFailure, Selection, Unanswered},
};

/// Endpoints that are tried, also without a retry policy, because earlier ones could not be reached.
const CONNECT_TRIES_MAX: u32 = 3;
/// Kept connections that one try may find closed.
const STALE_CONNECTIONS_MAX: u32 = 3;

/// A try that got a response.
struct Answered {
    response: Response<Incoming>,
    chosen: Chosen,
    lease: Lease,
}

/// The body, for one try or for several.
enum Body {
    Once(Option<RequestBody>),
    Again(HeldBody),
}

/// The state of a request while it is tried.
struct Attempts<'a> {
    plan: Plan<'a>,
    exchange: Box<Exchange>,
    parts: Option<Parts>,
    body: Body,
    version: HttpVersion,
    tried: Vec<Arc<str>>,
    /// Whether the try waits below the limit of connections.
    waits: bool,
    belongs: Option<session::Session>,
}

/// Tries until there is a response. On failure it returns the exchange, for a response of the waypoint.
pub(super) async fn run(
    mut plan: Plan<'_>,
    (mut parts, body, client): (Parts, ClientBody, Client),
    mut exchange: Box<Exchange>,
) -> Result<Response<ResponseBody>, (Refusal, Box<Exchange>)> {
    let permit = match plan.upstream.breaker.request() {
        Ok(permit) => permit,
        Err(overflow) => {
            exchange.session.local.telemetry.overflowed(overflow);
            exchange.detail = Some(overflow.to_string());
            return Err((Refusal::Overflow, exchange));
        }
    };
    let switch = (client, plan.switching.take());
    let version = plan::version(plan.upstream.protocol(), &parts);
    headers::with_length(&mut parts.headers, &body.size_hint());
    let (bytes, is_unsized) = (exchange.request_bytes.clone(), is_unsized(&body));
    mirror::send(&exchange.session.local, &plan.mirrors, &parts, (&body, &bytes));
    let body = match plan.retry {
        Some(_) => Body::Again(HeldBody::new(body, bytes)),
        None => Body::Once(Some(RequestBody::once(body, bytes))),
    };
    match version {
        HttpVersion::Http1 => headers::for_http1(&mut parts, is_unsized),
        HttpVersion::Http2 => {
            headers::for_http2(&mut parts);
            extended_connect::write(&mut parts);
        }
    }
    let parts = Some(parts);
    let tried = Vec::new();
    let mut attempts = Attempts { plan, exchange, parts, body, version, tried, waits: false, belongs: None };
    let (outcome, deadline) = attempts.run().await;
    match outcome {
        Ok(answered) => Ok(attempts.answer(answered, permit, (switch, deadline))),
        Err(failure) => Err(attempts.refuse(failure)),
    }
}

/// Never zero, which is an invalid span id (W3C Trace Context 3.2.2.4).
fn span_id() -> u64 {
    rand::random::<u64>().max(1)
}

impl Attempts<'_> {
    /// Runs tries until the last one; also returns the deadline of its response.
    async fn run(&mut self) -> (Result<Answered, Failure>, Option<Instant>) {
        let mut retries: Option<Permit> = None;
        let mut span = None;
        loop {
            let begun = Instant::now();
            self.exchange.tries += 1;
            let limit = self.plan.deadlines.of_try(begun);
            let outcome = self.once(begun, limit).await;
            let ended = match &outcome {
                Ok(answered) => Ended::Status(answered.response.status().as_u16()),
                Err(_) => Ended::Unanswered,
            };
            let pause = self.again(&outcome, ended, &mut retries);
            if pause.is_some() || self.exchange.tries > 1 {
                self.trace(span.take(), begun, &outcome);
            }
            match pause {
                Some(pause) => sleep(pause).await,
                None => return (outcome, limit.map(|(at, _)| at)),
            }
            span = self.trace_again();
        }
    }

    /// Records one of several tries, if the trace is sampled.
    fn trace(&mut self, span: Option<u64>, begun: Instant, outcome: &Result<Answered, Failure>) {
        if !self.exchange.trace.is_some_and(|trace| trace.is_sampled()) {
            return;
        }
        let (status, flag) = match outcome {
            Ok(answered) => (Some(answered.response.status().as_u16()), ""),
            Err(failure) => (None, failure.refusal().flag()),
        };
        let found = !matches!(outcome, Err(Failure::NoEndpoint));
        self.exchange.tried.push(Tried {
            // No header named the span of the first try.
            span: span.unwrap_or_else(span_id),
            after: begun.duration_since(self.exchange.begun),
            took: begun.elapsed(),
            endpoint: self.exchange.endpoint.clone().filter(|_| found),
            status,
            flag,
        });
    }

    /// Span id for the next try, if the trace is sampled; the endpoint's spans become its children.
    fn trace_again(&mut self) -> Option<u64> {
        let trace = self.exchange.trace.filter(Trace::is_sampled)?;
        let span = span_id();
        if let Some(parts) = &mut self.parts {
            trace.again(&mut parts.headers, span);
        }
        Some(span)
    }

    /// The pause before the next try; `None` if the outcome is final.
    fn again(
        &mut self,
        outcome: &Result<Answered, Failure>,
        ended: Ended,
        retries: &mut Option<Permit>,
    ) -> Option<std::time::Duration> {
        let now = Instant::now();
        match outcome {
            Err(failure) if failure.is_final() => return None,
            // No endpoint has seen it, and there are others.
            Err(Failure::Unreachable(_))
                if self.exchange.tries < CONNECT_TRIES_MAX
                    && self.parts.is_some()
                    && self.tried.len() < self.plan.upstream.endpoints() =>
            {
                return Some(std::time::Duration::ZERO);
            }
            Ok(_) | Err(_) => {}
        }
        let repeatable = match &self.body {
            Body::Once(body) => body.is_some(),
            Body::Again(body) => body.is_repeatable(),
        };
        let progress = Progress { tries: self.exchange.tries, answered: false, repeatable };
        let pause = pause(self.plan.retry?, progress, ended, rand::random())?;
        if !self.plan.deadlines.leave_time_for(pause, now) {
            return None;
        }
        // All tries of a request count as one retry of the destination's budget.
        if retries.is_none() {
            match self.plan.upstream.breaker.retry(now) {
                Ok(permit) => *retries = Some(permit),
                Err(overflow) => {
                    self.exchange.session.local.telemetry.overflowed(overflow);
                    self.exchange.flags.push("URX");
                    return None;
                }
            }
        }
        Some(pause)
    }

    /// One try, within its time limit.
    async fn once(&mut self, begun: Instant, limit: Option<(Instant, Late)>) -> Result<Answered, Failure> {
        self.waits = false;
        let chosen = self.choose().ok_or(Failure::NoEndpoint)?;
        self.exchange.endpoint = Some(chosen.endpoint.clone());
        let sent = {
            let mut sending = pin!(self.send(&chosen));
            match limit {
                Some((at, late)) => match timeout_at(at.into(), sending.as_mut()).await {
                    Ok(sent) => sent,
                    Err(_elapsed) => Err(Failure::Late(late)),
                },
                None => sending.await,
            }
        };
        let now = Instant::now();
        self.exchange.endpoint_took = Some(now.duration_since(begun));
        let outcome = match &sent {
            Ok((response, _)) if response.status().is_server_error() => Outcome::Bad,
            Ok(_) => Outcome::Good,
            Err(_) => Outcome::Lost,
        };
        let client = &self.exchange.request_bytes;
        match sent {
            // The endpoint is not to blame for a limit of the waypoint, or for a client that aborts or delays its body:
            // otherwise any client could have every endpoint ejected.
            Err(failure @ Failure::Overflow(_)) => Err(failure),
            Err(failure) if client.is_broken() => {
                Err(Failure::Client(failure.into_reason().unwrap_or_default()))
            }
            Ok((response, lease)) if client.is_broken() => Ok(Answered { response, chosen, lease }),
            Err(failure @ Failure::Late(_)) if client.is_awaited() => Err(failure),
            Err(failure) if self.waits => Err(failure),
            Err(failure) => {
                self.record(&chosen, outcome, now);
                self.tried.push(chosen.endpoint.workload.uid.clone());
                Err(failure)
            }
            Ok((response, lease)) => {
                self.record(&chosen, outcome, now);
                if outcome == Outcome::Bad {
                    self.tried.push(chosen.endpoint.workload.uid.clone());
                }
                Ok(Answered { response, chosen, lease })
            }
        }
    }

    fn record(&self, chosen: &Chosen, outcome: Outcome, now: Instant) {
        let ejected = chosen.under_way.record(outcome, now);
        self.exchange.session.local.telemetry.ejected(ejected);
    }

    /// On the first try the endpoint of the client's session, else any endpoint.
    fn choose(&mut self) -> Option<Chosen> {
        let head = self.parts.as_ref().map(RequestHead::from);
        let session = &self.exchange.session;
        let client = session.client_of(self.plan.upstream);
        let node = client.as_ref().map(|client| &*client.node);
        if let (Some((policy, _)), Some(head), true) = (self.plan.stay, head, self.tried.is_empty())
            && let Some((chosen, belongs)) = self.plan.upstream.stay(policy, (&head, node))
        {
            self.belongs = Some(belongs);
            return Some(chosen);
        }
        let (client, pod) = (session.peer.client.ip(), session.pod.as_ref().map(|pod| &pod.uid));
        let selection = Selection { head, client, node, pod };
        self.plan.upstream.choose(selection, &self.tried, rand::random())
    }

    async fn send(&mut self, chosen: &Chosen) -> Result<(Response<Incoming>, Lease), Failure> {
        let local = self.exchange.session.local.clone();
        let to = (&**self.plan.upstream, &*chosen.endpoint);
        let mut stale = 0;
        let mut request: Option<Request<RequestBody>> = None;
        loop {
            let leased = local.upstreams.lease(to, self.version, &mut self.waits).await;
            let mut lease = match leased {
                Ok(lease) => lease,
                Err(failure) => {
                    if let Some(request) = request {
                        self.take_back(request);
                    }
                    return Err(match failure {
                        LeaseFailure::Connect(failure) => Failure::Unreachable(failure.to_string()),
                        LeaseFailure::Overflow(overflow) => {
                            local.telemetry.overflowed(overflow);
                            Failure::Overflow(overflow.to_string())
                        }
                    });
                }
            };
            let next = request.take().or_else(|| self.request());
            let next = next.ok_or_else(|| Failure::Reset("the request cannot be repeated".to_owned()))?;
            match lease.send(next).await {
                Ok(response) => return Ok((response, lease)),
                Err(Unanswered { unsent: Some(unsent), .. })
                    if lease.reused && stale < STALE_CONNECTIONS_MAX =>
                {
                    stale += 1;
                    request = Some(unsent);
                }
                Err(Unanswered { unsent: Some(unsent), error }) => {
                    self.take_back(unsent);
                    return Err(Failure::Unreachable(error.to_string()));
                }
                Err(Unanswered { unsent: None, error }) => return Err(Failure::Reset(error.to_string())),
            }
        }
    }

    /// The request for one try: the request itself, or a copy.
    fn request(&mut self) -> Option<Request<RequestBody>> {
        let (parts, body) = match &mut self.body {
            Body::Once(body) => (self.parts.take()?, body.take()?),
            Body::Again(body) => (self.parts.clone()?, body.read()),
        };
        Some(Request::from_parts(parts, body))
    }

    /// Keeps a request of which nothing was sent.
    fn take_back(&mut self, request: Request<RequestBody>) {
        let (parts, unsent) = request.into_parts();
        self.parts = Some(parts);
        if let Body::Once(body) = &mut self.body {
            *body = Some(unsent);
        }
    }

    fn answer(
        mut self,
        Answered { response, chosen, lease }: Answered,
        permit: Permit,
        (switch, deadline): ((Client, Option<SwitchingRequest>), Option<Instant>),
    ) -> Response<ResponseBody> {
        let progress = self.exchange.session.progress.clone();
        let (mut parts, body) = response.into_parts();
        self.exchange.answered(parts.status, &parts.headers);
        let held = Held { lease: Some(lease), _under_way: chosen.under_way, _permit: permit };
        if extended_connect::is_switch(switch.0.is_extended, parts.status) {
            return upgrade::switch(Response::from_parts(parts, body), switch, (held, self.exchange));
        }
        hop_by_hop::strip(&mut parts.headers);
        if let Some((policy, matched)) = self.plan.stay {
            let endpoint = session::endpoint(&policy.route, &chosen.endpoint.workload.uid);
            let now = std::time::SystemTime::now();
            session::mark(&mut parts.headers, session::write(policy, matched, self.belongs, endpoint, now));
        }
        let mut response = Response::new(());
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response.map(|()| ResponseBody::of_endpoint((body, held), deadline, progress, self.exchange))
    }

    fn refuse(mut self, failure: Failure) -> (Refusal, Box<Exchange>) {
        let refusal = failure.refusal();
        let detail = failure.into_reason();
        tracing::debug!(service = %self.plan.service.bound.key, ?refusal, ?detail, "Request failed");
        self.exchange.detail = detail;
        (refusal, self.exchange)
    }
}
