//! Why a rule cannot be executed as written.
//!
//! Invariant: each error names the value to be changed.

use std::sync::Arc;

/// Why a rule cannot be executed; its requests get 500.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The regular expression is invalid or too large.
    #[error("{expression:?} is not a regular expression this proxy takes: {reason}")]
    Expression {
        /// The expression as written.
        expression: Arc<str>,
        /// The error of the `regex` crate.
        reason: String,
    },
    /// Invalid header name.
    #[error("{0:?} is not a valid header name (RFC 9110 §5.1)")]
    HeaderName(Arc<str>),
    /// Invalid value for this header.
    #[error("the value for header {0:?} holds bytes that no header may hold (RFC 9110 §5.5)")]
    HeaderValue(Arc<str>),
    /// Invalid HTTP method.
    #[error("{0:?} is not a method (RFC 9110 §9.1)")]
    Method(Arc<str>),
    /// Invalid host.
    #[error("{0:?} is not a host (RFC 3986 §3.2.2)")]
    Host(Arc<str>),
    /// Invalid path.
    #[error("{0:?} is not a path (RFC 3986 §3.3)")]
    Path(Arc<str>),
    /// A redirect cannot use this scheme.
    #[error("a redirect leads to http or https, not to {0:?}")]
    Scheme(Arc<str>),
    /// A redirect cannot use this status.
    #[error("a redirect has status 301, 302, 303, 307 or 308, not {0}")]
    RedirectStatus(u16),
    /// Invalid origin.
    #[error("{0:?} is not an origin: write \"*\" or scheme://host[:port]")]
    Origin(Arc<str>),
    /// ReplacePrefixMatch is used, but a match of the rule has no path prefix.
    #[error("ReplacePrefixMatch needs a PathPrefix in every match of its rule")]
    PrefixNotMatched,
}
