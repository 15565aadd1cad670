//! All policies that apply to one workload or service, sorted once so that a single pass evaluates
//! them.
//!
//! Invariant: a set that contains an unknown or unreadable policy allows nothing.

use std::sync::Arc;

use super::{
    Action, Connection, Policy, Request, Verdict,
    evaluate::{Seen, Subject},
};
use crate::NamespacedName;

/// One policy that applies to a workload, as far as this process knows it.
#[derive(Clone, Debug)]
pub enum Applied {
    /// Received and parsed.
    Known(Arc<Policy>),
    /// Listed by the workload, but never received.
    Unknown(NamespacedName),
    /// Received, but it could not be parsed.
    Unreadable(NamespacedName),
}

/// The policies of one workload.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// When set, everything is denied, whatever the other policies say.
    refusal: Option<Verdict>,
    enforced: Lists,
    /// The same lists with dry-run policies added; `None` when there are no dry-run policies.
    rehearsed: Option<Box<Lists>>,
}

#[derive(Clone, Debug, Default)]
struct Lists {
    deny: Vec<Arc<Policy>>,
    allow: Vec<Arc<Policy>>,
    audit: Vec<Arc<Policy>>,
}

impl PolicySet {
    /// Sorts the policies that apply to a workload.
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

    /// The set of a proxy that has not received any policies yet: it allows nothing.
    pub fn not_received() -> Self {
        Self { refusal: Some(Verdict::PoliciesNotReceived), ..Self::default() }
    }

    /// Evaluates a connection without a request. A matching DENY wins, then an unknown or
    /// unreadable policy, then a matching ALLOW; without any ALLOW policy the connection is
    /// allowed.
    pub fn evaluate(&self, connection: &Connection) -> Verdict {
        self.enforced.judge(self.refusal.as_ref(), Subject::new(connection, None))
    }

    /// Evaluates a request, in the same order.
    pub fn judge(&self, connection: &Connection, request: &Request<'_>) -> Verdict {
        self.enforced.judge(self.refusal.as_ref(), Subject::new(connection, Some(&Seen::new(request))))
    }

    /// The result of [`Self::evaluate`] if dry-run policies were enforced too; `None` when there
    /// are none.
    pub fn rehearse(&self, connection: &Connection) -> Option<Verdict> {
        Some(self.rehearsed.as_ref()?.judge(self.refusal.as_ref(), Subject::new(connection, None)))
    }

    /// The result of [`Self::judge`] if dry-run policies were enforced too; `None` when there are
    /// none.
    pub fn rehearse_request(&self, connection: &Connection, request: &Request<'_>) -> Option<Verdict> {
        let seen = Seen::new(request);
        let subject = Subject::new(connection, Some(&seen));
        Some(self.rehearsed.as_ref()?.judge(self.refusal.as_ref(), subject))
    }

    /// The AUDIT policies that match, whatever the verdict.
    pub fn audited_by(&self, connection: &Connection, request: Option<&Request<'_>>) -> Vec<&NamespacedName> {
        if self.enforced.audit.is_empty() {
            return Vec::new();
        }
        let seen = request.map(Seen::new);
        let subject = Subject::new(connection, seen.as_ref());
        self.enforced.audit.iter().filter(|policy| policy.holds(subject)).map(|policy| &policy.key).collect()
    }

    /// Whether the set allows everything and audits nothing, so that evaluation can be skipped.
    pub fn is_empty(&self) -> bool {
        let Self { refusal, enforced, rehearsed } = self;
        let Lists { deny, allow, audit } = enforced;
        refusal.is_none() && rehearsed.is_none() && deny.is_empty() && allow.is_empty() && audit.is_empty()
    }

    /// Whether both sets hold the same policy objects, so that a verdict of one is valid for the
    /// other.
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
            Action::Audit => self.audit.push(policy),
        }
    }

    fn judge(&self, refusal: Option<&Verdict>, subject: Subject<'_>) -> Verdict {
        let matching =
            |policies: &[Arc<Policy>]| policies.iter().find(|p| p.holds(subject)).map(|p| p.key.clone());
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
        same(&self.deny, &other.deny) && same(&self.allow, &other.allow) && same(&self.audit, &other.audit)
    }
}
