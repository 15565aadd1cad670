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
    /// A user's policy, or a Service, may need another status.
    pub policy_status: bool,
    /// A route may need another status.
    pub route_status: bool,
    /// What waypoints know, by waypoint and service.
    pub bound: BTreeSet<(NamespacedName, NamespacedName)>,
    /// Waypoints that are new, gone or another, or whose pods are.
    pub waypoints: BTreeSet<NamespacedName>,
    /// Key sets are wanted from other addresses.
    pub key_set_uris: bool,
    /// A step was taken: [`crate::Index::settle`] wants the number once everybody had the time to hear of it.
    pub settling: Option<u64>,
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
        self.route_status |= other.route_status;
        self.bound.extend(other.bound);
        self.waypoints.extend(other.waypoints);
        self.key_set_uris |= other.key_set_uris;
        self.settling = self.settling.max(other.settling);
    }
}
