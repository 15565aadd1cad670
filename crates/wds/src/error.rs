//! Why a resource was refused.

use ambit_model::Scope;

/// Why a resource was rejected; the text is sent in a NACK.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {field}: {reason}")]
pub struct DecodeError {
    /// Name of the resource.
    pub name: String,
    /// Name of the field in its `.proto` file; `resource` for the whole message.
    pub field: &'static str,
    /// The error.
    pub reason: String,
}

/// A policy that was received and rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct UnreadablePolicy {
    /// The decoding error.
    #[source]
    pub error: DecodeError,
    /// Where it may apply: its scope if that could be decoded, otherwise everywhere.
    pub scope: Scope,
    /// It is a dry run, so rejecting it changes nothing.
    pub dry_run: bool,
}
