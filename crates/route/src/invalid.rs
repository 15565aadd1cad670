//! Why a rule cannot be executed as it is written.
//!
//! Invariant: each reason names the value that has to be changed.

use std::sync::Arc;

/// Why a rule cannot be executed; its requests are answered 500.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not a regular expression, or one that is too big.
    #[error("{expression:?} is not a regular expression this proxy takes: {reason}")]
    Expression {
        /// As written.
        expression: Arc<str>,
        /// What is wrong with it.
        reason: String,
    },
    /// Not the name of a header.
    #[error("{0:?} is not a valid header name (RFC 9110 §5.1)")]
    HeaderName(Arc<str>),
    /// Not the value of a header.
    #[error("the value for header {0:?} holds bytes that no header may hold (RFC 9110 §5.5)")]
    HeaderValue(Arc<str>),
    /// Not a method.
    #[error("{0:?} is not a method (RFC 9110 §9.1)")]
    Method(Arc<str>),
    /// Not a host.
    #[error("{0:?} is not a host (RFC 3986 §3.2.2)")]
    Host(Arc<str>),
    /// Not a path.
    #[error("{0:?} is not a path (RFC 3986 §3.3)")]
    Path(Arc<str>),
    /// Not a scheme that a redirect may lead to.
    #[error("a redirect leads to http or https, not to {0:?}")]
    Scheme(Arc<str>),
    /// Not a status of a redirect.
    #[error("a redirect has status 301, 302, 303, 307 or 308, not {0}")]
    RedirectStatus(u16),
    /// Not an origin.
    #[error("{0:?} is not an origin: write \"*\" or scheme://host[:port]")]
    Origin(Arc<str>),
    /// A prefix is to be replaced, and a match of the rule names none.
    #[error("ReplacePrefixMatch needs a PathPrefix in every match of its rule")]
    PrefixNotMatched,
}
