//! Conditions of objects with several writers. Pure.
//!
//! Invariant: conditions of others are kept, and the transition time of a condition changes only
//! with its status.

use ambit_api::policy::PolicyCondition;
use jiff::Timestamp;

/// The value of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Condition type.
    pub kind: &'static str,
    /// Whether the status is True.
    pub holds: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// Human-readable message.
    pub message: String,
}

impl Finding {
    /// A condition with status True.
    pub(crate) fn holds(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: true, reason, message: message.into() }
    }

    /// A condition with status False.
    pub(crate) fn fails(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: false, reason, message: message.into() }
    }

    fn status(&self) -> &'static str {
        if self.holds { "True" } else { "False" }
    }
}

/// All conditions, with ours replaced.
pub(crate) fn dated(
    findings: &[Finding],
    previous: &[PolicyCondition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<PolicyCondition> {
    let others = previous.iter().filter(|old| !findings.iter().any(|found| found.kind == old.kind));
    let ours = findings.iter().map(|found| {
        let old = previous.iter().find(|old| old.kind == found.kind && old.status == found.status());
        let since = old.and_then(|old| old.last_transition_time.clone());
        PolicyCondition {
            kind: found.kind.to_owned(),
            status: found.status().to_owned(),
            reason: found.reason.to_owned(),
            message: found.message.clone(),
            last_transition_time: since.or_else(|| Some(now.to_string())),
            observed_generation: generation,
        }
    });
    others.cloned().chain(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str, since: &str) -> PolicyCondition {
        PolicyCondition {
            kind: kind.into(),
            status: status.into(),
            last_transition_time: Some(since.into()),
            ..PolicyCondition::default()
        }
    }

    #[test]
    fn others_stay_and_time_stands_still_for_a_status_that_did_not_change() {
        let previous = [
            condition("Theirs", "Unknown", "t0"),
            condition("Same", "True", "t1"),
            condition("Changed", "True", "t2"),
        ];
        let findings = [
            Finding::holds("Same", "New", "why"),
            Finding::fails("Changed", "Lost", ""),
            Finding::holds("New", "A", ""),
        ];
        let now = Timestamp::UNIX_EPOCH;
        let all = dated(&findings, &previous, Some(7), now);
        let seen: Vec<(&str, &str, &str)> = all
            .iter()
            .map(|c| (c.kind.as_str(), c.status.as_str(), c.last_transition_time.as_deref().unwrap()))
            .collect();
        let epoch = now.to_string();
        assert_eq!(
            seen,
            [
                ("Theirs", "Unknown", "t0"),
                ("Same", "True", "t1"),
                ("Changed", "False", epoch.as_str()),
                ("New", "True", epoch.as_str())
            ]
        );
        assert_eq!((all[1].reason.as_str(), all[1].observed_generation), ("New", Some(7)));
    }
}
