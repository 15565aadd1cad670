//! How a request reached its filters.

use ambit_model::bound::PathMatch;

/// How a request reached its filters.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The path condition that matched.
    pub matched: &'a PathMatch,
    /// The port the client connected to.
    pub port: u16,
}
