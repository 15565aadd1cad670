//! What requests are compared with, and fractions of requests.

use std::sync::Arc;

/// Conditions of a match; all of them must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpMatch {
    /// Path condition.
    pub path: PathMatch,
    /// Required method; `None` accepts any.
    pub method: Option<Arc<str>>,
    /// Header conditions, all of which must hold.
    pub headers: Vec<HeaderMatch>,
    /// Query conditions; only the first parameter of a name counts.
    pub query: Vec<QueryMatch>,
}

/// How a path is compared. Percent-encoding and case are significant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The path equals this text.
    Exact(Arc<str>),
    /// The path equals this text or continues it by whole segments: `/a` matches `/a` and `/a/b`,
    /// not `/ab`. Without trailing slash.
    Prefix(Arc<str>),
    /// The whole path matches this expression (syntax of the `regex` crate).
    Regex(Arc<str>),
}

impl Default for PathMatch {
    /// Matches every path.
    fn default() -> Self {
        Self::Prefix("".into())
    }
}

/// How a value is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// The value equals this text.
    Exact(Arc<str>),
    /// The whole value matches this expression (syntax of the `regex` crate).
    Regex(Arc<str>),
}

/// A condition on a header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// Header name in lower case.
    pub name: Arc<str>,
    /// At least one of its values must match.
    pub value: ValueMatch,
}

/// A condition on a query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryMatch {
    /// Parameter name, compared exactly.
    pub name: Arc<str>,
    /// Its first value must match.
    pub value: ValueMatch,
}

/// A share of traffic: `numerator` of `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fraction {
    /// At most the denominator.
    pub numerator: u32,
    /// Never zero.
    pub denominator: u32,
}
