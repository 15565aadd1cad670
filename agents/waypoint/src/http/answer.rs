//! What is answered here instead of by the service. Pure.
//!
//! Invariant: every reason has one status, one response flag as Envoy and Istio name them, and tells the client nothing
//! of what is behind the waypoint.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request is answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A token is there and not valid; the challenge says why (RFC 6750).
    Unauthenticated(HeaderValue),
    /// Policy says no.
    Denied,
    /// A rate limit is used up until then.
    RateLimited(Duration),
    /// A fault for the sake of a test.
    Fault(StatusCode),
    /// No rule takes it.
    NoRoute,
    /// The rule, or its backend, cannot be executed.
    InvalidRule,
    /// The method cannot be proxied.
    Method,
    /// The destination has no endpoint.
    NoHealthyEndpoint,
    /// A limit of the destination is reached.
    Overflow,
    /// No endpoint could be reached.
    Unreachable,
    /// The endpoint broke off before its answer.
    Reset,
    /// A limit of time passed.
    Late,
    /// The service is bound here no more, or has no such port any more.
    Gone,
}

impl Refusal {
    /// Status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Fault(status) => *status,
            Self::NoRoute | Self::Gone => StatusCode::NOT_FOUND,
            Self::InvalidRule => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoHealthyEndpoint | Self::Overflow | Self::Unreachable | Self::Reset => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Response flag; empty for none.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) | Self::Denied | Self::Method => "",
            Self::RateLimited(_) => "RL",
            Self::Fault(_) => "FI",
            Self::NoRoute | Self::InvalidRule | Self::Gone => "NR",
            Self::NoHealthyEndpoint => "UH",
            Self::Overflow => "UO",
            Self::Unreachable => "UF",
            Self::Reset => "UC",
            Self::Late => "UT",
        }
    }

    /// Body, in Envoy's words where clients may know them.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "Jwt verification fails",
            Self::Denied => "RBAC: access denied",
            Self::RateLimited(_) => "local_rate_limited",
            Self::Fault(_) => "fault filter abort",
            Self::NoRoute | Self::InvalidRule | Self::Method | Self::Gone => "",
            Self::NoHealthyEndpoint => "no healthy upstream",
            Self::Overflow => {
                "upstream connect error or disconnect/reset before headers. reset reason: overflow"
            }
            Self::Unreachable => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection failure"
            }
            Self::Reset => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
            }
            Self::Late => "upstream request timeout",
        }
    }

    /// The answer. A gRPC client gets it as gRPC has it: 200, and the status beside.
    pub fn response(&self, is_grpc: bool) -> Response<Bytes> {
        if is_grpc {
            return grpc(self.status(), self.text());
        }
        let mut response = Response::new(Bytes::from_static(self.text().as_bytes()));
        *response.status_mut() = self.status();
        if !self.text().is_empty() {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        match self {
            Self::Unauthenticated(challenge) => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.clone());
            }
            Self::RateLimited(after) => {
                let seconds = crate::service::retry_after_seconds(*after);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Self::Denied
            | Self::Fault(_)
            | Self::NoRoute
            | Self::InvalidRule
            | Self::Method
            | Self::NoHealthyEndpoint
            | Self::Overflow
            | Self::Unreachable
            | Self::Reset
            | Self::Late
            | Self::Gone => {}
        }
        response
    }
}

/// A gRPC answer without messages ("trailers only").
fn grpc(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(status)));
    if !text.is_empty() {
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(text));
    }
    response
}

/// gRPC's own table (doc/http-grpc-status-mapping.md), with 429 as Envoy has it.
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_flags_are_istios() {
        let cases = [
            (Refusal::Denied, 403, ""),
            (Refusal::RateLimited(Duration::from_millis(1200)), 429, "RL"),
            (Refusal::Fault(StatusCode::IM_A_TEAPOT), 418, "FI"),
            (Refusal::NoRoute, 404, "NR"),
            (Refusal::InvalidRule, 500, "NR"),
            (Refusal::NoHealthyEndpoint, 503, "UH"),
            (Refusal::Overflow, 503, "UO"),
            (Refusal::Unreachable, 503, "UF"),
            (Refusal::Reset, 503, "UC"),
            (Refusal::Late, 504, "UT"),
        ];
        for (refusal, status, flag) in cases {
            assert_eq!((refusal.status().as_u16(), refusal.flag()), (status, flag), "{refusal:?}");
            assert_eq!(refusal.response(false).status().as_u16(), status);
        }
    }

    #[test]
    fn a_limited_client_is_told_when_to_come_again_and_a_denied_one_nothing_more() {
        let limited = Refusal::RateLimited(Duration::from_millis(1200)).response(false);
        assert_eq!(limited.headers()[header::RETRY_AFTER], "2");
        let denied = Refusal::Denied.response(false);
        assert_eq!(&denied.body()[..], b"RBAC: access denied");
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status() {
        let denied = Refusal::Denied.response(true);
        assert_eq!(
            (denied.status(), &denied.headers()["grpc-status"]),
            (StatusCode::OK, &HeaderValue::from_static("7"))
        );
        assert_eq!(Refusal::Fault(StatusCode::NOT_FOUND).response(true).headers()["grpc-status"], "12");
    }
}
