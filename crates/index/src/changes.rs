//! What an object changed, by name. The index is asked for the value; no value means removed.

use std::{collections::BTreeSet, sync::Arc};

use ambit_model::NamespacedName;

/// Names of everything that differs from before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Workloads by uid.
    pub workloads: BTreeSet<Arc<str>>,
    /// Services by `namespace/hostname`.
    pub services: BTreeSet<NamespacedName>,
    /// Policies by `namespace/name`.
    pub policies: BTreeSet<NamespacedName>,
    /// Enrollments by node and pod uid.
    pub enrollments: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Nodes that are new or gone, or whose own enrollment changed.
    pub nodes: BTreeSet<Arc<str>>,
    /// A user's policy may need another status.
    pub policy_status: bool,
}

impl Changes {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another object changed.
    pub fn merge(&mut self, other: Self) {
        self.workloads.extend(other.workloads);
        self.services.extend(other.services);
        self.policies.extend(other.policies);
        self.enrollments.extend(other.enrollments);
        self.nodes.extend(other.nodes);
        self.policy_status |= other.policy_status;
    }
}
