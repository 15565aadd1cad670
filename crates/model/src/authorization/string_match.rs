//! Comparison of a string.

use std::sync::Arc;

/// A pattern for one string value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// The value equals this text.
    Exact(Arc<str>),
    /// The value starts with this text.
    Prefix(Arc<str>),
    /// The value ends with this text.
    Suffix(Arc<str>),
    /// The value is not empty.
    Presence,
}
