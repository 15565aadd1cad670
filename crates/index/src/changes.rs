//! The names affected by a change of an object. The index returns their values; no value means
//! removed.

use std::{collections::BTreeSet, sync::Arc};

use ambit_model::NamespacedName;

/// Names of everything that changed.
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
    /// Nodes that were added or removed, or whose own enrollment changed.
    pub nodes: BTreeSet<Arc<str>>,
    /// The status of a user's policy, or of a Service, may have to change.
    pub policy_status: bool,
    /// The status of a route may have to change.
    pub route_status: bool,
    /// Compiled services, by waypoint and service.
    pub bound: BTreeSet<(NamespacedName, NamespacedName)>,
    /// Waypoints that were added, removed or changed, or whose pods changed.
    pub waypoints: BTreeSet<NamespacedName>,
    /// The set of URIs of key sets changed.
    pub key_set_uris: bool,
    /// A step was taken: pass the number to [`crate::Index::settle`] once all proxies had time to
    /// receive it.
    pub settling: Option<u64>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the changes of another object.
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
