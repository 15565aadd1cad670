//! What node proxies could not be given as written, and what the status says about that.
//!
//! Invariant: True is said only where all that was asked is enforced, or more.

use std::collections::BTreeSet;

use ambit_api::conditions::{ZTUNNEL_ACCEPTED, reason};
use ambit_model::Action;

use crate::policies::{Holds, Judgement};

/// Most fields that a status message names.
const FIELDS_NAMED_MAX: usize = 8;

/// What was found in the rules of one policy.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Fields of L7.
    pub(super) unsupported: BTreeSet<String>,
    /// Values that cannot be parsed.
    pub(super) invalid: Vec<String>,
    /// Fields and conditions that nobody here knows.
    pub(super) unknown: Vec<String>,
    /// Rules of a DENY of which nothing is left.
    pub(super) ineffective: usize,
    /// Rules of a DENY that are enforced but for what is L7 alone.
    pub(super) partly: usize,
}

impl Findings {
    /// Of a policy of which something is not known here.
    pub(super) fn refused(&self) -> Judgement {
        let message = format!("{}: everything that the policy selects is refused", named(&self.unknown));
        says(Holds::False, reason::INVALID, message)
    }

    /// Of a policy of which this many rules are enforced.
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
                "{} cannot be enforced by ztunnel: {} rule(s) deny nothing, {} rule(s) deny what else they name and \
                 nothing by these fields alone; {rules} rule(s) are enforced",
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

/// As many fields as a message holds.
pub(super) fn named(fields: &[String]) -> String {
    let shown: Vec<&str> = fields.iter().take(FIELDS_NAMED_MAX).map(String::as_str).collect();
    match fields.len().checked_sub(FIELDS_NAMED_MAX) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}
