//! What a policy's status should contain.

/// The value of one status condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Condition type.
    pub condition: &'static str,
    /// Status of the condition.
    pub holds: Holds,
    /// CamelCase reason.
    pub reason: &'static str,
    /// Human-readable message.
    pub message: String,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The condition is met.
    True,
    /// The condition is not met.
    False,
}

impl Holds {
    /// The value in the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
        }
    }
}
