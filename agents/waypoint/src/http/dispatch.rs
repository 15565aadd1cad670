//! One request, phase by phase: external authorization, authentication, policy, route, rate limit, fault, filters.
//!
//! Invariant: phases run in this order and the first that answers ends the request. Nothing is forwarded before all have
//! passed.

use std::{convert::Infallible, rc::Rc, sync::Arc, time::SystemTime};

use ambit_model::{authorization::Token, bound::Backend};
use ambit_route::{
    Arrival, Filters, Found, RequestHead,
    filter::{CrossOrigin, CrossOriginRequest},
    pick,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request::Parts};
use hyper::body::Incoming;

use super::{
    Refusal, Session,
    arrival::arrive,
    exchange::Exchange,
    extended_connect,
    external::{self, Granted, Stopped},
    judged::{Judged, judge},
    plan::Plan,
    response_body::ResponseBody,
    tries,
    upgrade::Client,
};
use crate::{
    body::ClientBody,
    service::{Port, RouteRule, Rules, Service},
    upstream::Upstream,
};

/// The response to a request that is not forwarded.
enum Answer {
    Refused(Refusal),
    /// By a filter.
    Filter(Response<()>),
    /// By a provider of external authorization.
    Provider(Box<Response<Bytes>>),
}

impl From<Stopped> for Answer {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Provider(response) => Self::Provider(response),
            Stopped::Client(refusal) => Self::Refused(refusal),
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What is done to the response of a request.
#[derive(Default)]
struct ResponseEdits<'a> {
    /// Filters of the rule, then those of its backend.
    filters: Vec<&'a Filters>,
    /// Set by providers of external authorization.
    granted: Granted,
}

/// The rule that matches a request, and its compiled form.
struct Route<'a> {
    found: Found<'a>,
    rule: &'a RouteRule,
}

/// Serves one request.
pub(super) async fn handle(
    session: Rc<Session>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    session.progress.serving();
    let service = session.service();
    let (mut parts, body) = request.into_parts();
    let mut body = ClientBody::from(body);
    extended_connect::read(&mut parts, rand::random);
    let client = Client::of(&mut parts);
    let arrived = arrive(&mut parts, service.hostname(), rand::random);
    let mut exchange = Exchange::new(session.clone(), &parts);
    exchange.trace = session.local.telemetry.begin(&mut parts.headers);
    let origin = CrossOriginRequest::of(&RequestHead::from(&parts));
    // CORS: preflights carry no token, so they are answered before authentication.
    let cross_origin = origin.as_ref().and_then(|asked| under(&service, &session, &parts, asked));
    let mut edits = ResponseEdits::default();
    let prepared = match (arrived, cross_origin.and_then(|rules| rules.answer(origin.as_ref()?))) {
        (Ok(_), Some(preflight)) => Err(Answer::Filter(preflight)),
        (Ok(switches), None) => {
            let of = (&*service, &*session, switches);
            prepare(of, (&mut parts, &mut body), &mut exchange, &mut edits).await
        }
        (Err(refusal), _) => Err(refusal.into()),
    };
    let answer = match prepared {
        Ok(plan) => match tries::run(plan, (parts, body, client), exchange).await {
            Ok(response) => return Ok(edits.apply(response, origin.as_ref())),
            Err((refusal, unused)) => {
                exchange = unused;
                Answer::Refused(refusal)
            }
        },
        Err(answer) => answer,
    };
    let mut response = local(answer, &session, exchange);
    if let Some(rules) = cross_origin.filter(|_| edits.filters.is_empty()) {
        rules.mark(response.headers_mut(), origin.as_ref());
    }
    Ok(edits.apply(response, origin.as_ref()))
}

/// The cross-origin rules of the route that matches a request before authentication.
fn under<'a>(
    service: &'a Service,
    session: &Session,
    parts: &Parts,
    asked: &CrossOriginRequest,
) -> Option<&'a CrossOrigin> {
    let port = service.port(session.destination.port()).filter(|_| session.pod.is_none())?;
    let routes = port.routes(&session.peer.identity.namespace).http.as_ref()?;
    routes.table.cross_origin(&RequestHead::from(parts), asked)
}

impl ResponseEdits<'_> {
    /// Filters see a response in the reverse of the order in which they saw the request.
    fn apply(
        &self,
        mut response: Response<ResponseBody>,
        origin: Option<&CrossOriginRequest>,
    ) -> Response<ResponseBody> {
        self.granted.apply(response.headers_mut());
        for filters in self.filters.iter().rev() {
            filters.on_response(response.headers_mut(), origin);
        }
        response
    }
}

fn local(answer: Answer, session: &Session, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let response = match answer {
        Answer::Refused(refusal) => {
            exchange.refused(&refusal);
            refusal.response(exchange.asked.is_grpc)
        }
        Answer::Filter(response) => {
            exchange.answered(response.status(), response.headers());
            exchange.code_details = "direct_response".into();
            response.map(|()| Bytes::new())
        }
        Answer::Provider(response) => {
            exchange.answered(response.status(), response.headers());
            *response
        }
    };
    response.map(|bytes| ResponseBody::own(bytes, session.progress.clone(), exchange))
}

/// All phases before the first byte is sent.
async fn prepare<'a>(
    (service, session, switches): (&'a Service, &'a Session, bool),
    (parts, body): (&mut Parts, &mut ClientBody),
    exchange: &mut Exchange,
    edits: &mut ResponseEdits<'a>,
) -> Result<Plan<'a>, Answer> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::Method.into());
    }
    edits.granted = external::check(service, session, (parts, body), exchange).await?;
    let token = authenticate((service, session), parts, exchange)?;
    let judged = judge(service, &session.connection, parts, token.as_ref()).map_err(|verdict| {
        exchange.detail = Some(verdict.to_string());
        Refusal::Denied(verdict)
    })?;
    let port = service.port(session.destination.port()).ok_or(Refusal::Gone)?;
    // Routes belong to the service; they do not apply to a pod that the client addressed itself.
    let route = if session.pod.is_some() { None } else { find(port, session, parts)? };
    let rules = route.as_ref().map_or(&service.rules, |route| &route.rule.rules);
    rules.admit(&session.peer.identity, exchange.begun).map_err(|limited| {
        session.local.telemetry.rate_limited();
        Refusal::RateLimited(limited.after)
    })?;
    inject(rules, parts, exchange).await?;
    let switching = switches.then(|| Box::new((parts.clone(), token)));
    let mut plan = match route {
        Some(route) => route.plan((service, judged), parts, exchange, &mut edits.filters)?,
        // There are rules, and none matches.
        None if session.pod.is_none() && port.routes(&session.peer.identity.namespace).http.is_some() => {
            return Err(Refusal::NoRoute.into());
        }
        None => {
            let of_pod = session.pod.as_ref().and_then(|pod| pod.upstream.as_ref());
            let upstream = of_pod.or(port.own.as_ref()).ok_or(Refusal::Gone)?;
            exchange.upstream = Some(upstream.clone());
            Plan::to_service(judged, service, upstream)
        }
    };
    plan.switching = switching;
    Ok(plan)
}

fn authenticate(
    (service, session): (&Service, &Session),
    parts: &mut Parts,
    exchange: &mut Exchange,
) -> Result<Option<Token>, Refusal> {
    let Some(validator) = &service.validator else { return Ok(None) };
    let checked = validator.check(&RequestHead::from(&*parts), SystemTime::now());
    let accepted = checked.map_err(|refusal| {
        exchange.detail = Some(refusal.to_string());
        Refusal::Unauthenticated(refusal)
    })?;
    if accepted.is_endless {
        session.local.telemetry.token_without_expiry();
    }
    accepted.edits.iter().for_each(|edit| edit.apply(parts));
    Ok(accepted.token)
}

/// The rule that matches; `None` if there are no rules, or none of them matches.
fn find<'a>(port: &'a Port, session: &Session, parts: &Parts) -> Result<Option<Route<'a>>, Refusal> {
    let Some(routes) = &port.routes(&session.peer.identity.namespace).http else { return Ok(None) };
    let Some(found) = routes.table.find(&RequestHead::from(parts)) else { return Ok(None) };
    let rule = routes.rules.get(found.index).ok_or(Refusal::InvalidRule)?;
    Ok(Some(Route { found, rule }))
}

async fn inject(rules: &Rules, parts: &Parts, exchange: &mut Exchange) -> Result<(), Refusal> {
    let injection = rules.inject(&RequestHead::from(parts), rand::random);
    if let Some(delay) = injection.delay {
        exchange.flags.push("DI");
        tokio::time::sleep(delay).await;
    }
    match injection.abort {
        Some(status) => Err(Refusal::Fault(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY))),
        None => Ok(()),
    }
}

impl<'a> Route<'a> {
    /// The backend of the client's session, if it has one: weights apply to new sessions only.
    fn stays(&self, parts: &Parts, session: &Session) -> Option<usize> {
        let policy = self.found.rule.session.as_ref()?;
        let head = RequestHead::from(parts);
        let stays = |way: &Arc<Upstream>| {
            let client = session.client_of(way);
            way.stay(policy, (&head, client.as_ref().map(|client| &*client.node))).is_some()
        };
        self.rule.ways.iter().position(|way| way.as_ref().is_some_and(stays))
    }

    /// Applies the filters and chooses the backend.
    fn plan(
        self,
        (service, judged): (&'a Service, Judged),
        parts: &mut Parts,
        exchange: &mut Exchange,
        filters: &mut Vec<&'a Filters>,
    ) -> Result<Plan<'a>, Answer> {
        let Found { rule, matched, .. } = self.found;
        exchange.rule = Some(rule.name.clone());
        let actions = self.found.actions.map_err(|invalid| {
            exchange.detail = Some(invalid.to_string());
            Refusal::InvalidRule
        })?;
        let port = exchange.session.destination.port();
        let arrival = Arrival { matched: &matched.path, port };
        if let Some(response) = run(&actions.rule, parts, arrival, filters) {
            return Err(Answer::Filter(response));
        }
        let chosen = self.stays(parts, &exchange.session).or_else(|| pick(&rule.backends, rand::random()));
        let chosen = chosen.ok_or(Refusal::InvalidRule)?;
        if let Some(own) = actions.backends.get(chosen)
            && let Some(response) = run(own, parts, arrival, filters)
        {
            return Err(Answer::Filter(response));
        }
        if let Some(Backend::Invalid(reason)) = rule.backends.get(chosen).map(|backend| &backend.backend) {
            exchange.detail = Some(reason.to_string());
        }
        let upstream = self.rule.ways.get(chosen).and_then(Option::as_ref).ok_or(Refusal::InvalidRule)?;
        exchange.upstream = Some(upstream.clone());
        Ok(Plan::of_rule(judged, (service, rule, &matched.path), upstream, (filters, exchange.begun)))
    }
}

fn run<'a>(
    list: &'a Filters,
    parts: &mut Parts,
    arrival: Arrival<'_>,
    filters: &mut Vec<&'a Filters>,
) -> Option<Response<()>> {
    if list.is_empty() {
        return None;
    }
    filters.push(list);
    list.on_request(parts, arrival)
}
