//! What was decided about a request before it is sent.
//!
//! Invariant: it is decided once, and holds for every try.

use std::{sync::Arc, time::Instant};

use ambit_model::{
    AppProtocol,
    bound::{HttpRule, PathMatch, Retry, SessionPersistence},
};
use ambit_resilience::Deadlines;
use ambit_route::Filters;
use http::{Version, request::Parts};

use super::{headers, upgrade::Judged};
use crate::{
    service::Service,
    upstream::{HttpVersion, Upstream},
};

/// What was decided about a request.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// The service that was asked for.
    pub(super) service: &'a Service,
    /// Where it goes.
    pub(super) upstream: &'a Arc<Upstream>,
    /// When it is tried again.
    pub(super) retry: Option<&'a Retry>,
    /// Sessions, and the path that was matched.
    pub(super) stay: Option<(&'a SessionPersistence, &'a PathMatch)>,
    /// When it is late.
    pub(super) deadlines: Deadlines,
    /// Who gets a copy.
    pub(super) mirrors: Vec<&'a Arc<Upstream>>,
    /// The request as it was judged, where its connection may outlive it.
    pub(super) judged: Option<Judged>,
}

impl<'a> Plan<'a> {
    /// To the service itself.
    pub(super) fn to_service(service: &'a Service, upstream: &'a Arc<Upstream>) -> Self {
        let deadlines = Deadlines::new(&Default::default(), Instant::now());
        Self { service, upstream, retry: None, stay: None, deadlines, mirrors: Vec::new(), judged: None }
    }

    /// As a rule has it.
    pub(super) fn of_rule(
        (service, rule, matched): (&'a Service, &'a HttpRule, &'a PathMatch),
        upstream: &'a Arc<Upstream>,
        (filters, begun): (&[&'a Filters], Instant),
    ) -> Self {
        let mirrors = filters.iter().flat_map(|filters| filters.mirrors(rand::random));
        Self {
            mirrors: mirrors.filter_map(|mirror| service.destination(&mirror.to)).collect(),
            service,
            upstream,
            retry: rule.retry.as_ref().filter(|retry| retry.attempts > 0),
            stay: rule.session.as_ref().map(|session| (session, matched)),
            deadlines: Deadlines::new(&rule.timeouts, begun),
            judged: None,
        }
    }
}

/// HTTP/1.1 unless the destination says HTTP/2, or the request cannot do without.
pub(super) fn version(destination: AppProtocol, parts: &Parts) -> HttpVersion {
    match destination {
        AppProtocol::Http2 => HttpVersion::Http2,
        AppProtocol::Detect | AppProtocol::Http | AppProtocol::Tcp | AppProtocol::Tls => {
            let is_grpc = parts.version == Version::HTTP_2 && headers::is_grpc(&parts.headers);
            if is_grpc { HttpVersion::Http2 } else { HttpVersion::Http1 }
        }
    }
}
