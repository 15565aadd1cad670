//! External authorization: the provider of a policy of action CUSTOM is asked about requests that match the policy.
//!
//! Invariant: without an answer the request is refused, unless the provider is configured to fail open. Changes by a
//! provider are applied before other policies are evaluated, so that they see the request that is forwarded.

mod ask;
mod change;
mod grpc;
mod web;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ambit_model::{
    AppProtocol, Verdict,
    bound::{CheckBody, CheckProtocol, CheckProvider, ExternalCheck},
};
use ambit_route::RequestHead;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, request::Parts};
use tokio::time::timeout;

use self::{
    ask::NoAnswer,
    change::{Change, Changes, Decision, apply, status},
    grpc::Sides,
    web::Shown,
};
use super::{Exchange, Refusal, Session, answer, headers, judged::meets};
use crate::{
    body::{ClientBody, Peeked},
    service::{Check, Service},
    upstream::HttpVersion,
};

/// How long a client may take for the part of its body that a provider is sent.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A request that is not forwarded.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The response of a provider, or the one for a missing answer.
    Provider(Box<Response<Bytes>>),
    /// The client's request body cannot be read.
    Client(Refusal),
}

impl Stopped {
    fn with(status: StatusCode) -> Self {
        Self::Provider(Box::new(empty(status)))
    }
}

fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

/// Changes of the response to the client, from the providers that allowed the request.
#[derive(Debug, Default)]
pub(super) struct Granted(Vec<Change>);

/// The checks that a request passed; kept with it, because a switched connection is re-evaluated later.
#[derive(Clone, Debug)]
struct Passed(Arc<[ExternalCheck]>);

impl Granted {
    /// Applies them to the headers of a response.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        apply(&self.0, headers);
    }
}

/// Asks the providers of all CUSTOM policies that a request matches as it arrived; each provider once.
pub(super) async fn check(
    service: &Service,
    session: &Session,
    (parts, body): (&mut Parts, &mut ClientBody),
    exchange: &mut Exchange,
) -> Result<Granted, Stopped> {
    let met: Vec<&Check> =
        service.checks.iter().filter(|one| meets(&one.check.policy, &session.connection, parts)).collect();
    let mut granted = Vec::new();
    for (at, one) in met.iter().enumerate() {
        let provider = &one.check.provider;
        if met.iter().take(at).any(|earlier| earlier.check.provider == *provider) {
            continue;
        }
        let body = peek(provider.body, body)
            .await
            .inspect_err(|_| exchange.code_details = "ext_authz_error".into())?;
        let host = RequestHead::from(&*parts).authority().unwrap_or_default().to_owned();
        let decision = put(one, session, parts, &Shown { host, body }).await;
        session.local.telemetry.checked(result(&decision));
        let changes = weigh(provider, decision, (service, &parts.headers), exchange)?;
        changes.removed.iter().for_each(|name| _ = parts.headers.remove(name));
        apply(&changes.request, &mut parts.headers);
        granted.extend(changes.response);
    }
    if !met.is_empty() {
        parts.extensions.insert(Passed(met.iter().map(|one| one.check.clone()).collect()));
    }
    Ok(Granted(granted))
}

/// The result of a check as it is counted.
fn result(decision: &Result<Decision, NoAnswer>) -> &'static str {
    match decision {
        Ok(Decision::Admit(_)) => "allowed",
        Ok(Decision::Refuse(_)) => "denied",
        Err(NoAnswer::Late) => "timeout",
        Err(NoAnswer::Unreachable(_) | NoAnswer::BrokenOff(_) | NoAnswer::Unusable(_)) => "error",
    }
}

/// The consequence of an answer, or of a missing one.
fn weigh(
    provider: &CheckProvider,
    decision: Result<Decision, NoAnswer>,
    (service, headers): (&Service, &HeaderMap),
    exchange: &mut Exchange,
) -> Result<Changes, Stopped> {
    let is_grpc = exchange.asked.is_grpc;
    let (response, details) = match decision {
        Ok(Decision::Admit(changes)) => return Ok(changes),
        Ok(Decision::Refuse(response)) => (response, "ext_authz_denied"),
        Err(error) => {
            let (name, service) = (&provider.name, &service.bound.key);
            tracing::warn!(provider = %name, %service, %error, fail_open = provider.fail_open, "A provider gave no answer");
            exchange.detail = Some(format!("provider {name}: {error}"));
            if provider.fail_open {
                exchange.session.local.telemetry.check_failed_open();
                let removed = match &provider.protocol {
                    CheckProtocol::Grpc => Vec::new(),
                    CheckProtocol::Http(http) => web::reserved(http, headers),
                };
                return Ok(Changes { removed, ..Changes::default() });
            }
            (empty(status(provider.status_on_error)), "ext_authz_error")
        }
    };
    exchange.flags.push("UAEX");
    exchange.code_details = details.into();
    Err(Stopped::Provider(Box::new(if is_grpc { answer::for_grpc(response) } else { response })))
}

/// Asks one provider, by its protocol.
async fn put(one: &Check, session: &Session, parts: &Parts, shown: &Shown) -> Result<Decision, NoAnswer> {
    let ExternalCheck { provider, .. } = &one.check;
    let (local, upstream) = (&session.local, &*one.upstream);
    let deadline = Instant::now() + provider.timeout;
    match &provider.protocol {
        CheckProtocol::Grpc => {
            let sides = Sides {
                source: (session.peer.client, session.peer.identity.to_string()),
                destination: (session.destination, local.shared.identity.to_string()),
            };
            let as_bytes = provider.body.is_some_and(|body| body.pack_as_bytes);
            let message = grpc::message(parts, &sides, shown, as_bytes);
            let authority = format!("{}:{}", provider.to.service.name, provider.to.port);
            let call = || grpc::request(&message, &authority, provider.timeout.as_millis());
            grpc::read(ask::ask(local, upstream, HttpVersion::Http2, (deadline, &call)).await?)
        }
        CheckProtocol::Http(http) => {
            let is_http2 = upstream.protocol() == AppProtocol::Http2;
            let version = if is_http2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
            let question = || {
                let request = web::request(http, parts, shown);
                let (mut head, body) = request.into_parts();
                if is_http2 {
                    headers::for_http2(&mut head);
                }
                http::Request::from_parts(head, body)
            };
            let answered = ask::ask(local, upstream, version, (deadline, &question)).await?;
            web::read(http, answered, &parts.headers)
        }
    }
}

/// The part of the body that the provider is sent.
async fn peek(wanted: Option<CheckBody>, body: &mut ClientBody) -> Result<Bytes, Stopped> {
    let Some(wanted) = wanted else { return Ok(Bytes::new()) };
    let most = usize::try_from(wanted.max_bytes).unwrap_or(usize::MAX);
    match timeout(BODY_TIMEOUT, body.peek(most)).await {
        Ok(Ok(Peeked { is_whole: false, .. })) if !wanted.allow_partial => {
            Err(Stopped::with(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Ok(Ok(peeked)) => Ok(peeked.bytes),
        Ok(Err(_broken)) => Err(Stopped::Client(Refusal::BrokenBody)),
        Err(_elapsed) => Err(Stopped::with(StatusCode::REQUEST_TIMEOUT)),
    }
}

/// Whether the checks that a request passed are still all that it has to pass.
///
/// # Errors
/// Denied by a policy whose provider was not asked.
pub(super) fn stands(
    service: &Service,
    connection: &ambit_model::Connection,
    parts: &Parts,
) -> Result<(), Verdict> {
    let passed = parts.extensions.get::<Passed>();
    let has_passed = |check: &ExternalCheck| {
        passed.is_some_and(|passed| {
            let mut passed = passed.0.iter();
            passed.any(|old| old.policy == check.policy && old.provider.name == check.provider.name)
        })
    };
    let unasked = service
        .checks
        .iter()
        .map(|one| &one.check)
        .find(|check| !has_passed(check) && meets(&check.policy, connection, parts));
    unasked.map_or(Ok(()), |check| Err(Verdict::DeniedBy(check.policy.key.clone())))
}
