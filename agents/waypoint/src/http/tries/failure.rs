//! How one try failed. Pure.
//!
//! Invariant: every failure is answered with one refusal, and one that another try cannot mend is final.

use ambit_resilience::Late;

use crate::http::Refusal;

/// Why a try has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no endpoint.
    NoEndpoint,
    /// A limit of the destination.
    Overflow(String),
    /// Nothing was sent.
    Unreachable(String),
    /// Sent, and not answered.
    Reset(String),
    /// The client's body is none, or broke off.
    Client(String),
    /// Too late.
    Late(Late),
}

impl Failure {
    /// What the client is told.
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

    /// Whether no other try is made, whatever the route says.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::NoEndpoint | Self::Overflow(_) | Self::Client(_) | Self::Late(Late::Request) => true,
            Self::Unreachable(_) | Self::Reset(_) | Self::Late(Late::Try) => false,
        }
    }

    /// In words, where there are any.
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
