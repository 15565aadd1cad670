//! The result of asking about an address.

/// The result of looking up an unknown address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupResult {
    /// The operator knows it.
    Described,
    /// The operator does not know it either, so it is external.
    Unknown,
    /// The operator does not answer now, but did not know it when it was last queried.
    UnknownBefore,
    /// The operator does not answer.
    Unanswered,
}

impl LookupResult {
    /// The label value in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Described => "described",
            Self::Unknown => "unknown",
            Self::UnknownBefore => "unknown_before",
            Self::Unanswered => "unanswered",
        }
    }
}
