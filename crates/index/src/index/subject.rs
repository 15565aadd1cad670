//! The destinations of traffic that can use a waypoint.

use ambit_model::{NamespacedName, bound::PODS};

/// A service or pod that can be bound to a waypoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    /// Traffic addressed to a service.
    Service(NamespacedName),
    /// Traffic addressed to a pod.
    Pod(NamespacedName),
}

impl Subject {
    /// Name of the service or pod.
    pub(super) fn name(&self) -> &NamespacedName {
        match self {
            Self::Service(name) | Self::Pod(name) => name,
        }
    }

    /// Key of its compiled result; all pods of a namespace share one.
    pub(super) fn compiled(&self) -> NamespacedName {
        match self {
            Self::Service(name) => name.clone(),
            Self::Pod(name) => NamespacedName::new(name.namespace.clone(), PODS),
        }
    }
}
