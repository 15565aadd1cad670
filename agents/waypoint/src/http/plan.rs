//! How a request is sent: destination, retries, timeouts, mirrors.
//!
//! Invariant: decided once, and the same for every try.

use std::{sync::Arc, time::Instant};

use ambit_model::{
    AppProtocol,
    bound::{HttpRule, PathMatch, Retry, SessionPersistence},
};
use ambit_resilience::Deadlines;
use ambit_route::Filters;
use http::{Version, request::Parts};

use super::{headers, judged::Judged, upgrade::SwitchingRequest};
use crate::{
    service::Service,
    upstream::{HttpVersion, Upstream},
};

/// How a request is sent.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// The service that the client addressed.
    pub(super) service: &'a Service,
    /// The destination.
    pub(super) upstream: &'a Arc<Upstream>,
    /// The retry policy, if tries are to be repeated.
    pub(super) retry: Option<&'a Retry>,
    /// Session persistence, and the path match whose cookies it sets.
    pub(super) stay: Option<(&'a SessionPersistence, &'a PathMatch)>,
    /// Timeouts of the request and of each try.
    pub(super) deadlines: Deadlines,
    /// Destinations that get a copy.
    pub(super) mirrors: Vec<&'a Arc<Upstream>>,
    /// The request as policy allowed it, if it asks to switch protocols: the connection is then re-evaluated with it.
    pub(super) switching: Option<SwitchingRequest>,
    /// Policies allowed the request.
    _judged: Judged,
}

impl<'a> Plan<'a> {
    /// To the service itself, without a rule.
    pub(super) fn to_service(judged: Judged, service: &'a Service, upstream: &'a Arc<Upstream>) -> Self {
        let deadlines = Deadlines::new(&Default::default(), Instant::now());
        Self {
            service,
            upstream,
            retry: None,
            stay: None,
            deadlines,
            mirrors: Vec::new(),
            switching: None,
            _judged: judged,
        }
    }

    /// By a rule.
    pub(super) fn of_rule(
        judged: Judged,
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
            switching: None,
            _judged: judged,
        }
    }
}

/// HTTP/1.1 unless the destination is declared as HTTP/2, or the request is gRPC.
pub(super) fn version(destination: AppProtocol, parts: &Parts) -> HttpVersion {
    match destination {
        AppProtocol::Http2 => HttpVersion::Http2,
        AppProtocol::Detect | AppProtocol::Http | AppProtocol::Tcp | AppProtocol::Tls => {
            let is_grpc = parts.version == Version::HTTP_2 && headers::is_grpc(&parts.headers);
            if is_grpc { HttpVersion::Http2 } else { HttpVersion::Http1 }
        }
    }
}
