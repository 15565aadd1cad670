//! All the policies that apply to one workload or service, sorted once so that one pass judges.
//!
//! Invariant: a set with a policy that is unknown or unreadable allows nothing.

use std::sync::Arc;

use super::{
    Action, Connection, Policy, Request, Verdict,
    evaluate::{Seen, Subject},
};
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
    audit: Vec<Arc<Policy>>,
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

    /// Judges a connection of which no request is known. A DENY that matches wins, then a policy nobody could read
    /// or find, then an ALLOW that matches; without any ALLOW policy the connection is allowed.
    pub fn evaluate(&self, connection: &Connection) -> Verdict {
        self.enforced.judge(self.refusal.as_ref(), Subject::new(connection, None))
    }

    /// Judges a request, in the same order.
    pub fn judge(&self, connection: &Connection, request: &Request<'_>) -> Verdict {
        self.enforced.judge(self.refusal.as_ref(), Subject::new(connection, Some(&Seen::new(request))))
    }

    /// What [`Self::evaluate`] would say if the dry-run policies were enforced too; `None` without any.
    pub fn rehearse(&self, connection: &Connection) -> Option<Verdict> {
        Some(self.rehearsed.as_ref()?.judge(self.refusal.as_ref(), Subject::new(connection, None)))
    }

    /// What [`Self::judge`] would say if the dry-run policies were enforced too; `None` without any.
    pub fn rehearse_request(&self, connection: &Connection, request: &Request<'_>) -> Option<Verdict> {
        let seen = Seen::new(request);
        let subject = Subject::new(connection, Some(&seen));
        Some(self.rehearsed.as_ref()?.judge(self.refusal.as_ref(), subject))
    }

    /// The AUDIT policies that match, whatever the verdict is.
    pub fn audited_by(&self, connection: &Connection, request: Option<&Request<'_>>) -> Vec<&NamespacedName> {
        if self.enforced.audit.is_empty() {
            return Vec::new();
        }
        let seen = request.map(Seen::new);
        let subject = Subject::new(connection, seen.as_ref());
        self.enforced.audit.iter().filter(|policy| policy.holds(subject)).map(|policy| &policy.key).collect()
    }

    /// Whether it allows everything and notes nothing, so that nothing need be asked.
    pub fn is_empty(&self) -> bool {
        let Self { refusal, enforced, rehearsed } = self;
        let Lists { deny, allow, audit } = enforced;
        refusal.is_none() && rehearsed.is_none() && deny.is_empty() && allow.is_empty() && audit.is_empty()
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
