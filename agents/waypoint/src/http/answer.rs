//! Responses of the waypoint itself ("local replies" in Envoy). Pure.
//!
//! Invariant: every reason has one status, one response flag and one response code detail as Envoy and Istio name them, and
//! reveals nothing of the endpoints behind the waypoint.

use std::{borrow::Cow, time::Duration};

use ambit_model::Verdict;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::access_log::rbac_details;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why the waypoint answers a request itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request has an invalid token.
    Unauthenticated(ambit_jwt::Refusal),
    /// Denied by policy.
    Denied(Verdict),
    /// A rate limit is used up; the client may retry after this time.
    RateLimited(Duration),
    /// An injected fault.
    Fault(StatusCode),
    /// No rule of the routes matches.
    NoRoute,
    /// The matching rule, or its backend, is invalid.
    InvalidRule,
    /// The method cannot be forwarded.
    Method,
    /// Ambiguous: two readers could understand it differently. The response code detail says why.
    Malformed(&'static str),
    /// The destination has no endpoint.
    NoHealthyEndpoint,
    /// A circuit breaker of the destination is open.
    Overflow,
    /// No endpoint could be reached.
    Unreachable,
    /// The endpoint closed the connection before it responded.
    Reset,
    /// The client's request body is malformed or was cut off.
    BrokenBody,
    /// A timeout of the route has passed.
    Late,
    /// The service is no longer bound here, or no longer has the port.
    Gone,
}

impl Refusal {
    /// Status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Fault(status) => *status,
            Self::NoRoute | Self::Gone => StatusCode::NOT_FOUND,
            Self::InvalidRule => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BrokenBody | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoHealthyEndpoint | Self::Overflow | Self::Unreachable | Self::Reset => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Response flag of Envoy; empty where it sets none, as for denials of RBAC and JWT, which only have details.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) | Self::Denied(_) | Self::Method => "",
            Self::RateLimited(_) => "RL",
            Self::Fault(_) => "FI",
            Self::NoRoute | Self::InvalidRule | Self::Gone => "NR",
            Self::NoHealthyEndpoint => "UH",
            Self::Overflow => "UO",
            Self::Unreachable => "UF",
            Self::Reset => "UC",
            Self::BrokenBody | Self::Malformed(_) => "DPE",
            Self::Late => "UT",
        }
    }

    /// Response code details of Envoy; empty where it sets none.
    pub fn details(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Unauthenticated(refusal) => jwt_details(*refusal),
            Self::Denied(verdict) => return rbac_details(verdict).into(),
            Self::RateLimited(_) => "local_rate_limited",
            Self::Fault(_) => "fault_filter_abort",
            Self::NoRoute | Self::Gone => "route_not_found",
            Self::InvalidRule => "direct_response",
            Self::Method => "",
            Self::Malformed(why) => why,
            Self::NoHealthyEndpoint => "no_healthy_upstream",
            Self::Overflow => "upstream_reset_before_response_started{overflow}",
            Self::Unreachable => "upstream_reset_before_response_started{remote_connection_failure}",
            Self::Reset => "upstream_reset_before_response_started{connection_termination}",
            Self::BrokenBody => "codec_error",
            Self::Late => "response_timeout",
        })
    }

    /// Body of the response: Envoy's text, which clients may match on.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "Jwt verification fails",
            Self::Denied(_) => "RBAC: access denied",
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
            Self::BrokenBody | Self::Malformed(_) => "Bad Request",
            Self::Late => "upstream request timeout",
        }
    }

    /// The response. A gRPC client gets status 200 and the `grpc-status` that corresponds.
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
            Self::Unauthenticated(_) => {
                // Names the error (RFC 6750 3).
                let challenge = HeaderValue::from_static(ambit_jwt::CHALLENGE);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::RateLimited(after) => {
                let seconds = crate::service::retry_after_seconds(*after);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Self::Denied(_)
            | Self::Fault(_)
            | Self::NoRoute
            | Self::InvalidRule
            | Self::Method
            | Self::Malformed(_)
            | Self::NoHealthyEndpoint
            | Self::Overflow
            | Self::Unreachable
            | Self::Reset
            | Self::BrokenBody
            | Self::Late
            | Self::Gone => {}
        }
        response
    }
}

/// The details of Envoy's JWT filter.
fn jwt_details(refusal: ambit_jwt::Refusal) -> &'static str {
    use ambit_jwt::Refusal;
    match refusal {
        Refusal::Malformed | Refusal::TooLong | Refusal::TooManyClaims => {
            "jwt_authn_access_denied{Jwt_is_not_in_the_form_of_Header.Payload.Signature_with_two_dots_and_3_sections}"
        }
        Refusal::Algorithm => "jwt_authn_access_denied{Jwt_header_[alg]_is_not_supported}",
        Refusal::UnknownIssuer => "jwt_authn_access_denied{Jwt_issuer_is_not_configured}",
        Refusal::NoKeys => "jwt_authn_access_denied{Jwks_doesn't_have_any_valid_public_key}",
        Refusal::UnknownKey => "jwt_authn_access_denied{Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt}",
        Refusal::Expired => "jwt_authn_access_denied{Jwt_is_expired}",
        Refusal::NotYetValid => "jwt_authn_access_denied{Jwt_not_yet_valid}",
        Refusal::WrongAudience => "jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}",
        Refusal::Signature | Refusal::Critical | Refusal::SeveralTokens => {
            "jwt_authn_access_denied{Jwt_verification_fails}"
        }
    }
}

/// A gRPC response without messages (\"Trailers-Only\").
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

/// The refusal of an authorization provider, as a gRPC response.
pub(super) fn for_grpc(refusal: Response<Bytes>) -> Response<Bytes> {
    let mut response = grpc(refusal.status(), "");
    for (name, value) in refusal.headers() {
        if !response.headers().contains_key(name) {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    response
}

/// grpc/doc/http-grpc-status-mapping.md; 429 as in Envoy.
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

    fn denied() -> Refusal {
        Refusal::Denied(Verdict::DeniedBy(ambit_model::NamespacedName::new("shop", "closed")))
    }

    #[test]
    fn statuses_flags_and_details_are_istios() {
        const BEFORE: &str = "upstream_reset_before_response_started";
        let cases = [
            (denied(), 403, "", "rbac_access_denied_matched_policy[ns[shop]-policy[closed]]"),
            (Refusal::Denied(Verdict::NotAllowed), 403, "", "rbac_access_denied_matched_policy[none]"),
            (
                Refusal::Unauthenticated(ambit_jwt::Refusal::Expired),
                401,
                "",
                "jwt_authn_access_denied{Jwt_is_expired}",
            ),
            (Refusal::RateLimited(Duration::from_millis(1200)), 429, "RL", "local_rate_limited"),
            (Refusal::Fault(StatusCode::IM_A_TEAPOT), 418, "FI", "fault_filter_abort"),
            (Refusal::NoRoute, 404, "NR", "route_not_found"),
            (Refusal::InvalidRule, 500, "NR", "direct_response"),
            (Refusal::NoHealthyEndpoint, 503, "UH", "no_healthy_upstream"),
            (Refusal::Overflow, 503, "UO", &format!("{BEFORE}{{overflow}}")),
            (Refusal::Unreachable, 503, "UF", &format!("{BEFORE}{{remote_connection_failure}}")),
            (Refusal::Reset, 503, "UC", &format!("{BEFORE}{{connection_termination}}")),
            (Refusal::BrokenBody, 400, "DPE", "codec_error"),
            (Refusal::Malformed("missing_host_header"), 400, "DPE", "missing_host_header"),
            (Refusal::Late, 504, "UT", "response_timeout"),
        ];
        for (refusal, status, flag, details) in cases {
            assert_eq!((refusal.status().as_u16(), refusal.flag()), (status, flag), "{refusal:?}");
            assert_eq!(refusal.details(), details);
            // Readers of logs split them at spaces.
            assert!(!refusal.details().contains(char::is_whitespace), "{refusal:?}");
            assert_eq!(refusal.response(false).status().as_u16(), status);
        }
    }

    #[test]
    fn a_limited_client_is_told_when_to_come_again_and_a_denied_one_nothing_more() {
        let limited = Refusal::RateLimited(Duration::from_millis(1200)).response(false);
        assert_eq!(limited.headers()[header::RETRY_AFTER], "2");
        let denied = denied().response(false);
        assert_eq!(&denied.body()[..], b"RBAC: access denied");
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status() {
        let denied = denied().response(true);
        assert_eq!(
            (denied.status(), &denied.headers()["grpc-status"]),
            (StatusCode::OK, &HeaderValue::from_static("7"))
        );
        assert_eq!(Refusal::Fault(StatusCode::NOT_FOUND).response(true).headers()["grpc-status"], "12");
    }
}
