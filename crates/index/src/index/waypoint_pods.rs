//! Keeps which pods each waypoint serves up to date.

use ambit_model::NamespacedName;

use super::{Index, known::KnownPod, subject::Subject};

impl Index {
    /// Updates the entry of a pod after its binding or its workload changed.
    pub(super) fn note_known(&mut self, name: &NamespacedName) {
        let subject = Subject::Pod(name.clone());
        let known = self.known_pod(name, &subject);
        if self.layer7.known_pods.set(name, known) {
            self.layer7.dirty.compiled.insert(subject.compiled());
        }
    }

    fn known_pod(&self, name: &NamespacedName, subject: &Subject) -> KnownPod {
        let Some(bound) = self.layer7.bound.get(subject) else { return KnownPod::default() };
        let to: Vec<_> = bound.stage.served_by().into_iter().cloned().collect();
        let is_told = !to.is_empty() && bound.stage.is_on_its_way();
        let workload = self.pods.get(name).and_then(|pod| pod.workload.as_ref());
        KnownPod { to, on_its_way: workload.filter(|_| is_told).map(|workload| workload.uid.clone()) }
    }

    /// Whether the kept state equals one that is built from all bindings.
    #[cfg(test)]
    pub(super) fn is_known(&self) -> bool {
        let mut known = super::known::KnownPods::default();
        for subject in self.layer7.bound.keys().filter(|subject| matches!(subject, Subject::Pod(_))) {
            let _ = known.set(subject.name(), self.known_pod(subject.name(), subject));
        }
        known == self.layer7.known_pods
    }
}
