//! Traffic that bypasses a service's waypoint, and callers that the waypoint cuts off; both appear
//! in the service's condition.
//!
//! Invariant: an endpoint that can be reached without the waypoint is named in the condition, or
//! counted.

use std::collections::BTreeSet;

use ambit_api::labels;
use ambit_model::{Health, NamespacedName, Workload};

use super::{Index, PodEntry, maps::remove_from, subject::Subject};
use crate::{
    callers::Caller, enrollment::Wanted, key::Key, object::annotation, services::ServiceFacts,
    waypoints::around::Around,
};

impl Index {
    pub(super) fn set_caller(&mut self, key: &Key, caller: Option<Caller>) {
        let services = |caller: Option<&Caller>| caller.map(Caller::services).unwrap_or_default();
        let known = self.layer7.callers.get(key);
        let moved = match (known, &caller) {
            (Some(known), Some(caller)) if known != caller => services(Some(caller)),
            (_, _) => BTreeSet::new(),
        };
        let (old, new) = (services(known), services(caller.as_ref()));
        for service in old.difference(&new) {
            remove_from(&mut self.layer7.callers_by_service, service, key);
        }
        for service in new.difference(&old) {
            self.layer7.callers_by_service.entry(service.clone()).or_default().insert(key.clone());
        }
        let touched = old.symmetric_difference(&new).cloned().chain(moved);
        self.layer7.dirty.bindings.extend(touched.map(Subject::Service));
        match caller.filter(|_| !new.is_empty()) {
            Some(caller) => self.layer7.callers.insert(key.clone(), caller),
            None => self.layer7.callers.remove(key),
        };
    }

    /// Warnings about a subject, in addition to its binding.
    pub(super) fn around(&self, subject: &Subject) -> Around {
        match subject {
            Subject::Service(name) => {
                self.services.get(name).map(|s| self.around_service(s)).unwrap_or_default()
            }
            Subject::Pod(name) => {
                let pod = self.pods.get(name).and_then(open);
                Around { open: pod.into_iter().collect(), ..Around::default() }
            }
        }
    }

    fn around_service(&self, service: &ServiceFacts) -> Around {
        let name = &service.name;
        let callers = self.layer7.callers_by_service.get(name).into_iter().flatten();
        let callers = callers.filter_map(|key| self.layer7.callers.get(key));
        let (closed, openings) = (self.closed_ports(service), self.openings(service));
        let past: BTreeSet<_> = openings
            .values()
            .flat_map(|opening| opening.ports.intersection(&closed).map(|port| (*port, &opening.peer)))
            .collect();
        let cut_off = callers.filter(|caller| !self.is_open_to(service, caller)).map(Caller::describe);
        Around {
            open: self.tally(service).open(),
            not_tcp: self.not_tcp(name),
            past: past.iter().map(|(port, peer)| format!("{port} (PeerAuthentication {peer})")).collect(),
            callers: cut_off.collect(),
            is_scraped: self.is_scraped(name),
        }
    }

    /// Whether all endpoints of a service bypass its waypoint at all ports that the API server
    /// calls.
    fn is_open_to(&self, service: &ServiceFacts, caller: &Caller) -> bool {
        let key = service.model.key();
        let is_open_at = |workload: &Workload, called: u16| {
            let target = workload.target_port(&key, called);
            let opening = self.pod_of_workload(&workload.uid).and_then(|pod| self.opening(&pod.facts));
            target.zip(opening).is_some_and(|(port, opening)| opening.ports.contains(&port))
        };
        let uids = self.layer7.workloads_by_service.get(&key).into_iter().flatten();
        let workloads: Vec<_> = uids.filter_map(|uid| self.workload(uid)).collect();
        !workloads.is_empty()
            && caller
                .ports_of(&service.name)
                .all(|called| workloads.iter().all(|workload| is_open_at(workload, called)))
    }

    /// Ports whose protocol the mesh does not handle.
    fn not_tcp(&self, name: &NamespacedName) -> Vec<String> {
        let spec = self.kube_services.get(name).and_then(|service| service.spec.as_ref());
        let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
        let other =
            ports.filter_map(|port| Some((port.port, port.protocol.as_deref().filter(|p| *p != "TCP")?)));
        other
            .map(|(port, protocol)| format!("{port}/{protocol}"))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    fn is_scraped(&self, name: &NamespacedName) -> bool {
        let service = self.kube_services.get(name);
        service
            .is_some_and(|service| annotation(&service.metadata, labels::PROMETHEUS_SCRAPE) == Some("true"))
    }
}

/// A pod that stays reachable without the waypoint, with the reason. A pod that has not started yet
/// is not reported.
pub(super) fn open(pod: &PodEntry) -> Option<String> {
    let enrollment = pod.enrollment.as_ref()?;
    let name = &enrollment.name;
    match (enrollment.wanted, enrollment.redirected) {
        (Wanted::Out, _) => Some(format!("{name} ({})", enrollment.reason)),
        (Wanted::L4, true) if enrollment.bypass_inbound => {
            Some(format!("{name} ({})", labels::BYPASS_INBOUND))
        }
        (Wanted::L4, true) => None,
        (Wanted::L4, false) if pod.facts.health == Health::Unhealthy => None,
        (Wanted::L4, false) => Some(format!("{name} (not enrolled yet)")),
    }
}
