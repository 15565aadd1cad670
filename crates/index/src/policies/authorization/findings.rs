//! Parts of a policy that node proxies cannot enforce as written, and the resulting status.
//!
//! Invariant: the status is True only if everything that was requested is enforced, or more.

use std::collections::BTreeSet;

use ambit_api::conditions::{ZTUNNEL_ACCEPTED, reason};
use ambit_model::Action;

use crate::policies::{Holds, Judgement};

/// Number of fields listed in a status message.
const FIELDS_NAMED_MAX: usize = 8;

/// Problems in the rules of one policy.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// L7 fields.
    pub(super) unsupported: BTreeSet<String>,
    /// Invalid values.
    pub(super) invalid: Vec<String>,
    /// Unknown fields and conditions.
    pub(super) unknown: Vec<String>,
    /// DENY rules of which nothing is left.
    pub(super) ineffective: usize,
    /// DENY rules that are enforced except for parts with only L7 conditions.
    pub(super) partly: usize,
}

impl Findings {
    /// The status of a policy with unknown fields.
    pub(super) fn refused(&self) -> Judgement {
        let message = format!("{}: everything that the policy selects is refused", named(&self.unknown));
        says(Holds::False, reason::INVALID, message)
    }

    /// The status of a policy with this number of enforced rules.
    pub(super) fn judge(&self, action: Action, rules: usize) -> Judgement {
        let unsupported: Vec<String> = self.unsupported.iter().cloned().collect();
        let enforced = match action {
            Action::Allow => "rules that use them allow nothing",
            Action::Deny | Action::Audit => "rules that use them deny without them",
        };
        if !self.invalid.is_empty() {
            return says(Holds::False, reason::INVALID, format!("{}; {enforced}", named(&self.invalid)));
        }
        if action == Action::Deny && rules == 0 {
            let why = match unsupported.as_slice() {
                [] => "a DENY policy without rules denies nothing".to_owned(),
                fields => format!(
                    "{} cannot be enforced by ztunnel and nothing else is left: it denies nothing",
                    named(fields)
                ),
            };
            return says(Holds::False, reason::INEFFECTIVE, why);
        }
        if self.ineffective + self.partly > 0 {
            let why = format!(
                "{} cannot be enforced by ztunnel: {} rule(s) deny nothing, {} rule(s) deny only by their other fields; {rules} rule(s) are enforced",
                named(&unsupported),
                self.ineffective,
                self.partly
            );
            return says(Holds::False, reason::UNSUPPORTED_VALUE, why);
        }
        if !unsupported.is_empty() {
            let why =
                format!("attached to ztunnel, which cannot enforce {}; {enforced}", named(&unsupported));
            return says(Holds::True, reason::UNSUPPORTED_VALUE, why);
        }
        says(Holds::True, reason::ACCEPTED, "attached to ztunnel".into())
    }
}

fn says(holds: Holds, reason: &'static str, message: String) -> Judgement {
    Judgement { condition: ZTUNNEL_ACCEPTED, holds, reason, message }
}

/// As many field names as fit into a message.
pub(super) fn named(fields: &[String]) -> String {
    let shown: Vec<&str> = fields.iter().take(FIELDS_NAMED_MAX).map(String::as_str).collect();
    match fields.len().checked_sub(FIELDS_NAMED_MAX) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}
