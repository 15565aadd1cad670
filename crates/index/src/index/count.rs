//! Counts the endpoints of Services, and keeps the totals of those that use a waypoint.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use ambit_model::{NamespacedName, Workload};

use super::{
    Index,
    around::open,
    maps::remove_from,
    subject::Subject,
    tally::{Member, Tally},
};
use crate::{enrollment::Wanted, services::ServiceFacts};

impl Index {
    /// The kept tally of a Service, else one that is counted now.
    pub(super) fn tally(&self, service: &ServiceFacts) -> Cow<'_, Tally> {
        match self.layer7.tallies.get(&service.name) {
            Some(tally) => Cow::Borrowed(tally),
            None => Cow::Owned(self.count(service)),
        }
    }

    fn count(&self, service: &ServiceFacts) -> Tally {
        let key = service.model.key();
        let mut tally = Tally::default();
        for uid in self.layer7.workloads_by_service.get(&key).into_iter().flatten() {
            tally.set(uid, self.member(uid, &key));
        }
        tally
    }

    /// Keeps a tally exactly for Services that use a waypoint.
    pub(super) fn keep_tally(&mut self, subject: &Subject) {
        let Subject::Service(name) = subject else { return };
        if !self.layer7.bound.contains_key(subject) {
            self.layer7.tallies.remove(name);
        } else if !self.layer7.tallies.contains_key(name)
            && let Some(service) = self.services.get(name)
        {
            let tally = self.count(service);
            self.layer7.tallies.insert(name.clone(), tally);
        }
    }

    /// Updates the tallies after a workload, or the enrollment or open ports of its pod, changed.
    pub(super) fn note_endpoint(&mut self, old: Option<&Arc<Workload>>, new: Option<&Arc<Workload>>) {
        let served = |workload: &'_ Arc<Workload>| {
            let uid = workload.uid.clone();
            workload.services.keys().map(move |key| (uid.clone(), key.clone())).collect::<BTreeSet<_>>()
        };
        let (before, now) = (old.map(served).unwrap_or_default(), new.map(served).unwrap_or_default());
        for (uid, key) in before.difference(&now) {
            remove_from(&mut self.layer7.workloads_by_service, key, uid);
        }
        for (uid, key) in now.difference(&before) {
            self.layer7.workloads_by_service.entry(key.clone()).or_default().insert(uid.clone());
        }
        if self.layer7.tallies.is_empty() {
            return;
        }
        for (uid, key) in before.union(&now) {
            let Some(name) = self.services_by_key.get(key) else { continue };
            if !self.layer7.tallies.contains_key(name) {
                continue;
            }
            let (name, member) = (name.clone(), self.member(uid, key));
            if self.layer7.tallies.get_mut(&name).is_some_and(|tally| tally.set(uid, member)) {
                self.layer7.dirty.bindings.insert(Subject::Service(name));
            }
        }
    }

    /// What a workload adds to the Service with this key; none if it does not serve it.
    fn member(&self, uid: &Arc<str>, key: &NamespacedName) -> Option<Member> {
        let workload = self.workload(uid).filter(|workload| workload.uid == *uid)?;
        let ports = workload.services.get(key)?.iter().map(|port| port.target_port).collect();
        let pod = self.pod_of_workload(uid);
        let enrollment = pod.and_then(|pod| pod.enrollment.as_ref());
        let is_wanted = enrollment.is_some_and(|enrollment| enrollment.wanted == Wanted::L4);
        let addresses = || workload.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Some(Member {
            is_wanted,
            is_enrolled: is_wanted && enrollment.is_some_and(|enrollment| enrollment.redirected),
            ports,
            opening: pod.and_then(|pod| self.opening(&pod.facts)),
            open: match pod {
                Some(pod) => open(pod),
                None => Some(format!("{} (no pod of this namespace)", addresses())),
            },
            serves: workload.services.keys().cloned().collect(),
        })
    }

    /// Whether every kept tally equals one that is counted now.
    #[cfg(test)]
    pub(super) fn is_tallied(&self) -> bool {
        let services = self.layer7.tallies.iter().map(|(name, tally)| (self.services.get(name), tally));
        services.clone().all(|(service, tally)| service.is_some_and(|service| self.count(service) == *tally))
    }
}
