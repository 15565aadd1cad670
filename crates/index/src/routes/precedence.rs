//! Precedence of matches.
//!
//! Invariant: the order is total and that of the Gateway API: the path (exact, then longest prefix,
//! then expression, then every path), the method, the number of headers, the number of query
//! parameters; then the oldest route, then its name, then the order of its rules.

use std::cmp::Reverse;

use ambit_model::bound::{HttpMatch, PathMatch};

/// Specificity of a match; more specific comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Kind of the path match; for gRPC, the length of the service name.
    first: usize,
    /// Length of the prefix; for gRPC, the length of the method name.
    second: usize,
    method: bool,
    headers: usize,
    query: usize,
}

impl Rank {
    /// For a match of an HTTPRoute.
    pub(crate) fn of_http(matched: &HttpMatch) -> Self {
        let (first, second) = match &matched.path {
            PathMatch::Exact(path) => (3, path.len()),
            PathMatch::Prefix(prefix) if !prefix.is_empty() => (2, prefix.len()),
            PathMatch::Regex(expression) => (1, expression.len()),
            PathMatch::Prefix(_) => (0, 0),
        };
        Self {
            first,
            second,
            method: matched.method.is_some(),
            headers: matched.headers.len(),
            query: matched.query.len(),
        }
    }

    /// For a match of a GRPCRoute.
    pub(crate) fn of_grpc(service: usize, method: usize, headers: usize) -> Self {
        Self { first: service, second: method, method: false, headers, query: 0 }
    }
}

/// Sorts matches; those of equal rank keep the order of routes and rules.
pub(crate) fn sort(matches: &mut [(Rank, HttpMatch, usize)]) {
    matches.sort_by_key(|(rank, _, _)| Reverse(*rank));
}
