//! The record of one request and its response.
//!
//! Invariant: reported exactly once, however the request ends, also if the client disconnects in between.

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request::Parts};
use http_body::Frame;

use super::{Refusal, Session};
use crate::{
    access_log::{Heard, Record},
    body::{BytesSeen, Messages},
    peer::Known,
    service::Service,
    telemetry::{Ends, FinishedRequest},
    trace::{Trace, Tried},
    upstream::{Endpoint, Upstream},
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Fields of a request as it arrived; they share memory with the request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method, such as `GET`.
    pub method: Method,
    /// Request target.
    pub uri: Uri,
    /// HTTP version of the client's connection.
    pub version: Version,
    /// `host`.
    pub host: Option<HeaderValue>,
    /// `user-agent`.
    pub user_agent: Option<HeaderValue>,
    /// `x-request-id`.
    pub request_id: Option<HeaderValue>,
    /// `x-forwarded-for`.
    pub forwarded_for: Option<HeaderValue>,
    /// Whether it is gRPC.
    pub is_grpc: bool,
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    /// The tunnel it arrived on.
    pub session: Rc<Session>,
    /// When its head was complete.
    pub begun: Instant,
    /// The request as it arrived.
    pub asked: Asked,
    /// Bytes of its body.
    pub request_bytes: BytesSeen,
    /// Name of the rule that matched.
    pub rule: Option<Arc<str>>,
    /// The destination chosen for it.
    pub upstream: Option<Arc<Upstream>>,
    /// The endpoint that responded, or was tried last.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Number of tries.
    pub tries: u32,
    /// Time from the beginning of the last try to the head of its response.
    pub endpoint_took: Option<std::time::Duration>,
    /// Status of the response; `None` if none was sent.
    pub status: Option<StatusCode>,
    /// `grpc-status` of the response's head or trailers.
    pub grpc_status: Option<u16>,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// gRPC messages of the response; `None` for other requests.
    response_messages: Option<Messages>,
    /// Response flags of Envoy and Istio.
    pub flags: Vec<&'static str>,
    /// Response code details of Envoy: why no endpoint responded, or not completely.
    pub code_details: Cow<'static, str>,
    /// Why it failed, as text for the log.
    pub detail: Option<String>,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
    /// Its tries, if there were several and the trace is sampled.
    pub tried: Vec<Tried>,
    ended: bool,
}

/// Why a response is cut off.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// The endpoint aborted it.
    #[error("the endpoint's response was cut off: {0}")]
    Endpoint(#[from] hyper::Error),
    /// A timeout of the route has passed.
    #[error("the response took too long")]
    Late,
}

impl Asked {
    fn of(parts: &Parts) -> Self {
        let field = |name: &HeaderName| parts.headers.get(name).cloned();
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            host: field(&header::HOST),
            user_agent: field(&header::USER_AGENT),
            request_id: field(&REQUEST_ID),
            forwarded_for: field(&FORWARDED_FOR),
            is_grpc: super::headers::is_grpc(&parts.headers),
        }
    }

    /// `HTTP/1.1` and so on.
    fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_11 => "HTTP/1.1",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP",
        }
    }
}

impl Exchange {
    /// Begins with a request. Boxed, because it moves through every phase.
    pub fn new(session: Rc<Session>, parts: &Parts) -> Box<Self> {
        let asked = Asked::of(parts);
        Box::new(Self {
            session,
            begun: Instant::now(),
            request_bytes: BytesSeen::new(asked.is_grpc),
            response_messages: asked.is_grpc.then(Messages::default),
            asked,
            rule: None,
            upstream: None,
            endpoint: None,
            tries: 0,
            endpoint_took: None,
            status: None,
            grpc_status: None,
            response_bytes: 0,
            flags: Vec::new(),
            code_details: Cow::Borrowed(""),
            detail: None,
            trace: None,
            tried: Vec::new(),
            ended: false,
        })
    }

    /// Notes the response of an endpoint, a filter or an authorization provider.
    pub fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        self.note_grpc(headers);
    }

    /// Notes that the waypoint answered it.
    pub fn refused(&mut self, refusal: &Refusal) {
        if !refusal.flag().is_empty() {
            self.flags.push(refusal.flag());
        }
        self.status = Some(refusal.status());
        self.code_details = refusal.details();
    }

    /// Counts a part of the response that is sent to the client.
    pub fn responded(&mut self, frame: &Frame<Bytes>) {
        if let Some(bytes) = frame.data_ref() {
            self.response_bytes = self.response_bytes.saturating_add(bytes.len() as u64);
            if let Some(messages) = &mut self.response_messages {
                messages.feed(bytes);
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.note_grpc(trailers);
        }
    }

    /// gRPC messages of the request, and of the response.
    fn messages(&self) -> (u64, u64) {
        let response = self.response_messages.map_or(0, |messages| messages.count());
        (self.request_bytes.messages(), response)
    }

    /// Notes that the response was cut off.
    pub fn broke_off(&mut self, error: &ResponseError) {
        self.ended = true;
        let (flag, details) = match error {
            ResponseError::Endpoint(_) => {
                ("UC", "upstream_reset_after_response_started{connection_termination}")
            }
            ResponseError::Late => ("UT", "response_timeout"),
        };
        self.flags.push(flag);
        self.code_details = details.into();
        self.detail = Some(error.to_string());
    }

    /// Notes that the client took the whole response.
    pub fn whole(&mut self) {
        self.ended = true;
    }

    fn finished<'a>(&'a self, client: &'a Known, service: &'a Service) -> FinishedRequest<'a> {
        let (peer, endpoint) = (&*self.session.peer, self.endpoint.as_deref());
        let ends = Ends { peer, client, service: &service.bound.key, endpoint };
        let record = Record {
            request: Some(self.heard()),
            flags: &self.flags,
            code_details: &self.code_details,
            bytes_recv: self.request_bytes.get(),
            bytes_sent: self.response_bytes,
            duration: self.begun.elapsed(),
            tries: self.tries,
            route: self.rule.as_deref(),
            service: service.hostname(),
            source: ends.source(),
            destination: ends.destination(),
            trace_id: self.trace.map(|trace| trace.id),
            error: self.detail.as_deref(),
        };
        FinishedRequest {
            ends,
            record,
            is_grpc: self.asked.is_grpc,
            messages: self.messages(),
            trace: self.trace.map(|trace| (trace, &self.tried[..])),
        }
    }

    fn heard(&self) -> Heard<'_> {
        let asked = &self.asked;
        let host = asked.host.as_ref().and_then(|host| host.to_str().ok());
        Heard {
            method: asked.method.as_str(),
            path: asked.uri.path(),
            host: asked.uri.authority().map(|authority| authority.as_str()).or(host),
            protocol: asked.protocol(),
            status: self.status.map(|status| status.as_u16()),
            grpc_status: self.grpc_status,
        }
    }

    fn note_grpc(&mut self, headers: &HeaderMap) {
        let status = headers.get(GRPC_STATUS).and_then(|value| value.to_str().ok());
        self.grpc_status = status.and_then(|status| status.parse().ok()).or(self.grpc_status);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.ended {
            self.flags.push("DC");
            self.code_details = "downstream_remote_disconnect".into();
        }
        let Session { local, peer, .. } = &*self.session;
        local.telemetry.request(&self.finished(&local.client(peer), &self.session.service()));
    }
}
