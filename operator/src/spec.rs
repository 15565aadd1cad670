//! The spec of the `Mesh`: validation, settings of the index, and the authority that it selects.
//!
//! Invariant: pure functions, with the clock as an argument; used by both reconcilers.

pub(crate) mod settings;
pub(crate) mod trust;
pub(crate) mod validate;
