//! The marks of derived state that must be updated, and the order of the updates.
//!
//! Invariant: a function that stores a fact only marks what depends on it; only `Index::follow` updates, until nothing
//! is marked. The binding of a pod is updated before its workload, so that a new pod is published with its waypoint. The
//! binding of a Service is updated after the workloads of its pods, so that it sees their current state.

use std::collections::BTreeSet;

use ambit_model::NamespacedName;

use super::subject::Subject;

/// Derived state that must be updated.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// The policies derived from PeerAuthentications.
    pub(super) derived: bool,
    /// The part of the enrollment that is the same for every node.
    pub(super) node_enrollment: bool,
    /// EndpointSlices whose endpoints may change.
    pub(super) slices: BTreeSet<NamespacedName>,
    /// Subjects whose binding may change.
    pub(super) bindings: BTreeSet<Subject>,
    /// Pods whose workload or enrollment may change.
    pub(super) pods: BTreeSet<NamespacedName>,
    /// Subjects whose closing policies may change.
    pub(super) closings: BTreeSet<Subject>,
    /// Keys whose compiled result may change.
    pub(super) compiled: BTreeSet<NamespacedName>,
}

/// One update.
#[derive(Debug)]
pub(super) enum Work {
    Derived,
    NodeEnrollment,
    Slice(NamespacedName),
    Binding(Subject),
    Pod(NamespacedName),
    Closing(Subject),
    Compiled(NamespacedName),
}

impl Dirty {
    /// Takes the next update. Nothing is compiled before the first publication: one compilation then is enough, instead
    /// of one for every object of the initial lists.
    pub(super) fn next(&mut self, is_serving: bool) -> Option<Work> {
        if std::mem::take(&mut self.derived) {
            return Some(Work::Derived);
        }
        if std::mem::take(&mut self.node_enrollment) {
            return Some(Work::NodeEnrollment);
        }
        let slice = self.slices.pop_first().map(Work::Slice);
        slice
            .or_else(|| self.pop_pod_binding().map(Work::Binding))
            .or_else(|| self.pods.pop_first().map(Work::Pod))
            .or_else(|| self.bindings.pop_first().map(Work::Binding))
            .or_else(|| self.closings.pop_first().map(Work::Closing))
            .or_else(|| if is_serving { self.compiled.pop_first().map(Work::Compiled) } else { None })
    }

    fn pop_pod_binding(&mut self) -> Option<Subject> {
        // Subjects of pods sort after those of Services.
        match self.bindings.last()? {
            Subject::Pod(_) => self.bindings.pop_last(),
            Subject::Service(_) => None,
        }
    }
}
