//! All the policies that apply to one workload, sorted once so that a connection is judged in one pass.
//!
//! Invariant: a set with a policy that is unknown or unreadable allows nothing.

use std::sync::Arc;

use super::{Action, Connection, Policy, Verdict};
use crate::NamespacedName;

/// One policy that applies to a workload, as far as it is known.
#[derive(Clone, Debug)]
pub enum Applied {
    /// Known.
    Known(Arc<Policy>),
    /// Named by the workload, never received.
    Unknown(NamespacedName),
    /// Received, and not understood.
    Unreadable(NamespacedName),
}

/// The policies of one workload.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// Why nothing is allowed, whatever the policies say.
    refusal: Option<Verdict>,
    enforced: Lists,
    /// The same with dry-run policies added; none when there is none.
    rehearsed: Option<Box<Lists>>,
}

#[derive(Clone, Debug, Default)]
struct Lists {
    deny: Vec<Arc<Policy>>,
    allow: Vec<Arc<Policy>>,
}

impl PolicySet {
    /// Sorts what applies to a workload.
    pub fn new(applied: impl IntoIterator<Item = Applied>) -> Self {
        let mut set = Self::default();
        let mut dry_run = Vec::new();
        for policy in applied {
            match policy {
                Applied::Known(policy) if policy.dry_run => dry_run.push(policy),
                Applied::Known(policy) => set.enforced.push(policy),
                Applied::Unknown(key) => set.refusal = set.refusal.or(Some(Verdict::UnknownPolicy(key))),
                Applied::Unreadable(key) => {
                    set.refusal = set.refusal.or(Some(Verdict::UnreadablePolicy(key)))
                }
            }
        }
        if !dry_run.is_empty() {
            let mut lists = set.enforced.clone();
            dry_run.into_iter().for_each(|policy| lists.push(policy));
            set.rehearsed = Some(Box::new(lists));
        }
        set
    }

    /// The set of a proxy that has not heard of any policy: it allows nothing.
    pub fn not_received() -> Self {
        Self { refusal: Some(Verdict::PoliciesNotReceived), ..Self::default() }
    }

    /// Judges a connection. A DENY that matches wins, then a policy nobody could read or find, then an
    /// ALLOW that matches; without any ALLOW policy the connection is allowed.
    pub fn evaluate(&self, connection: &Connection) -> Verdict {
        self.enforced.judge(self.refusal.as_ref(), connection)
    }

    /// What [`Self::evaluate`] would say if the dry-run policies were enforced too; `None` without any.
    pub fn rehearse(&self, connection: &Connection) -> Option<Verdict> {
        Some(self.rehearsed.as_ref()?.judge(self.refusal.as_ref(), connection))
    }

    /// Whether both hold the very same policies, so that a judgement by one stands for the other.
    pub fn is_same(&self, other: &Self) -> bool {
        self.refusal == other.refusal
            && self.enforced.is_same(&other.enforced)
            && match (&self.rehearsed, &other.rehearsed) {
                (None, None) => true,
                (Some(mine), Some(theirs)) => mine.is_same(theirs),
                (None, Some(_)) | (Some(_), None) => false,
            }
    }
}

impl Lists {
    fn push(&mut self, policy: Arc<Policy>) {
        match policy.action {
            Action::Deny => self.deny.push(policy),
            Action::Allow => self.allow.push(policy),
        }
    }

    fn judge(&self, refusal: Option<&Verdict>, connection: &Connection) -> Verdict {
        let matching =
            |policies: &[Arc<Policy>]| policies.iter().find(|p| p.matches(connection)).map(|p| p.key.clone());
        if let Some(key) = matching(&self.deny) {
            return Verdict::DeniedBy(key);
        }
        if let Some(refusal) = refusal {
            return refusal.clone();
        }
        if self.allow.is_empty() {
            return Verdict::AllowedByDefault;
        }
        matching(&self.allow).map_or(Verdict::NotAllowed, Verdict::AllowedBy)
    }

    fn is_same(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Policy>], b: &[Arc<Policy>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        same(&self.deny, &other.deny) && same(&self.allow, &other.allow)
    }
}
