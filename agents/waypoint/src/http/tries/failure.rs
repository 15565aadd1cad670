//! How one try failed. Pure.
//!
//! Invariant: every failure has one response, and a failure that another try cannot change is final.

use ambit_resilience::Late;

use crate::http::Refusal;

/// Why a try got no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The destination has no healthy endpoint.
    NoEndpoint,
    /// A circuit breaker of the destination is open.
    Overflow(String),
    /// Nothing was sent.
    Unreachable(String),
    /// It was sent, and the endpoint did not respond.
    Reset(String),
    /// The client's request body is malformed or was cut off.
    Client(String),
    /// A timeout of the route has passed.
    Late(Late),
}

impl Failure {
    /// The response to the client.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::NoEndpoint => Refusal::NoHealthyEndpoint,
            Self::Overflow(_) => Refusal::Overflow,
            Self::Unreachable(_) => Refusal::Unreachable,
            Self::Reset(_) => Refusal::Reset,
            Self::Client(_) => Refusal::BrokenBody,
            Self::Late(_) => Refusal::Late,
        }
    }

    /// Whether no other try is made, whatever the retry policy.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::NoEndpoint | Self::Overflow(_) | Self::Client(_) | Self::Late(Late::Request) => true,
            Self::Unreachable(_) | Self::Reset(_) | Self::Late(Late::Try) => false,
        }
    }

    /// The reason as text, if there is more to say than its kind.
    pub(super) fn into_reason(self) -> Option<String> {
        match self {
            Self::NoEndpoint | Self::Late(_) => None,
            Self::Overflow(reason)
            | Self::Unreachable(reason)
            | Self::Reset(reason)
            | Self::Client(reason) => Some(reason),
        }
    }
}
