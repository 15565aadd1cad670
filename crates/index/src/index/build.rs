//! Values derived from several objects: workloads, enrollments and derived policies.

use std::{collections::BTreeMap, sync::Arc};

use ambit_model::{Mode, NamespacedName, PortMapping, Workload};

use super::{Index, PodEntry, maps::of_namespace, subject::Subject};
use crate::{
    changes::Changes,
    enrollment::{Enrollment, Wanted, wanted},
    nodes::DataplaneMode,
    pods::PodFacts,
    policies::{
        PeerFacts,
        peer_authentication::{self, Derived, Modes},
    },
    selector::matches,
    waypoints::{Opening, deny_name},
};

impl Index {
    /// Marks every derived object, after a change that affects all of them.
    pub(super) fn mark_all(&mut self) {
        self.layer7.dirty.derived = true;
        self.layer7.dirty.node_enrollment = true;
        self.layer7.dirty.slices.extend(self.slices.by_name.keys().cloned());
        self.layer7.dirty.pods.extend(self.pods.keys().cloned());
        self.mark_bindings();
    }

    /// Marks the pods of one namespace.
    pub(super) fn mark_pods_of(&mut self, namespace: &Arc<str>) {
        let pods = of_namespace(&self.pods, namespace).map(|(name, _)| name.clone());
        self.layer7.dirty.pods.extend(pods);
    }

    pub(super) fn refresh_pod(&mut self, name: &NamespacedName, changes: &mut Changes) {
        let Some(entry) = self.pods.get(name) else { return };
        let enrollment = self.build_enrollment(entry);
        let workload = self.build_workload(&entry.facts, enrollment.as_ref().map(|e| e.wanted));
        let Some(entry) = self.pods.get_mut(name) else { return };
        let old = entry.workload.clone();
        let is_elsewhere = entry.enrollment.as_deref() != enrollment.as_ref();
        let is_new = entry.workload.as_deref() != workload.as_ref();
        if is_new {
            changes.workloads.extend(entry.workload.iter().map(|w| w.uid.clone()));
            changes.workloads.extend(workload.iter().map(|w| w.uid.clone()));
            entry.workload = workload.map(Arc::new);
        }
        let new = entry.workload.clone();
        let is_at = entry.facts.ips.clone();
        if entry.enrollment.as_deref() != enrollment.as_ref() {
            let names = entry.enrollment.as_deref().into_iter().chain(&enrollment);
            changes.enrollments.extend(names.map(|e| (e.node.clone(), e.uid.clone())));
            entry.enrollment = enrollment.map(Arc::new);
        }
        self.refresh_bound_pod(name, is_elsewhere, old.as_ref(), new.as_ref());
        self.note_endpoint(old.as_ref(), new.as_ref());
        if is_new {
            self.mark_slices_at(&is_at);
        }
    }

    /// Updates the policies derived from PeerAuthentications with port exceptions.
    pub(super) fn refresh_derived(&mut self, changes: &mut Changes) {
        let mut derived = BTreeMap::new();
        for peer in self.peer.values().filter(|peer| peer.selector.is_some()) {
            if let Derived::Own(rules) = self.derive(&peer.name.namespace, &peer.content) {
                let policy = peer_authentication::own(&peer.name, rules);
                derived.insert(policy.key.clone(), Arc::new(policy));
            }
        }
        let stale =
            self.derived.iter().filter(|name| !derived.contains_key(*name)).cloned().collect::<Vec<_>>();
        for name in stale {
            self.derived.remove(&name);
            self.publish(name, None, changes);
        }
        for (name, policy) in derived {
            self.derived.insert(name.clone());
            self.publish(name, Some(policy), changes);
        }
    }

    pub(super) fn build_enrollment(&self, entry: &PodEntry) -> Option<Enrollment> {
        let pod = &entry.facts;
        if pod.node.is_empty() {
            return None;
        }
        let namespace = self.namespaces.get(&pod.name.namespace);
        let mode = namespace.map_or(DataplaneMode::Unset, |namespace| namespace.mode);
        let (wanted, reason) = wanted(pod, mode, &self.settings);
        let is_known = entry.enrollment.as_ref().is_some_and(|known| known.wanted_from_start);
        Some(Enrollment {
            // Stays true until the pod is wanted out of the mesh; connections that it opens after
            // that are legitimate.
            wanted_from_start: wanted == Wanted::L4 && (is_known || pod.ips.is_empty()),
            uid: pod.uid.clone(),
            namespace: pod.name.namespace.clone(),
            name: pod.name.name.clone(),
            service_account: pod.service_account.clone(),
            node: pod.node.clone(),
            wanted,
            reason,
            ips: pod.ips.clone(),
            bypass_inbound: pod.bypass_inbound,
            probes: pod.probes.clone(),
            reroute_interfaces: pod.reroute_interfaces.clone(),
            redirected: pod.redirected,
        })
    }

    fn build_workload(&self, pod: &PodFacts, wanted: Option<Wanted>) -> Option<Workload> {
        if !pod.is_endpoint() {
            return None;
        }
        let settings = &self.settings;
        let is_redirected = wanted == Some(Wanted::L4) && pod.redirected;
        let (tunnel_protocol, native_tunnel) = Self::tunnel(pod.waypoint.as_ref(), is_redirected);
        let services = self.services_of(pod);
        Some(Workload {
            uid: format!("{}//Pod/{}/{}", settings.cluster_id, pod.name.namespace, pod.name.name).into(),
            name: pod.name.name.clone(),
            namespace: pod.name.namespace.clone(),
            addresses: pod.ips.clone(),
            network: "".into(),
            tunnel_protocol,
            trust_domain: settings.trust_domain.clone(),
            service_account: pod.service_account.clone(),
            waypoint: self.announced(&Subject::Pod(pod.name.clone())),
            node: pod.node.clone(),
            canonical_name: pod.canonical_name.clone(),
            canonical_revision: pod.canonical_revision.clone(),
            kind: pod.kind,
            workload_name: pod.workload_name.clone(),
            native_tunnel,
            authorization_policies: self.policies_of(pod, &services),
            services,
            health: pod.health,
            cluster_id: settings.cluster_id.clone(),
            locality: self.nodes.get(&pod.node).map(|node| node.locality.clone()).unwrap_or_default(),
            network_mode: pod.network_mode(),
            capacity: 1,
        })
    }

    fn services_of(&self, pod: &PodFacts) -> BTreeMap<NamespacedName, Vec<PortMapping>> {
        let candidates = self.selecting.services.candidates(&pod.name.namespace, &pod.labels);
        let candidates = candidates.filter_map(|name| self.services.get(&name));
        let selecting = candidates.filter(|service| matches(&service.selector, &pod.labels));
        let mut services: BTreeMap<_, _> =
            selecting.map(|service| (service.model.key(), service.mapping(&pod.named_ports))).collect();
        for slice in self.slices.of_pod(&pod.name) {
            if let Some(service) = self.services.get(&slice.service).filter(|s| s.selector.is_empty()) {
                services.entry(service.model.key()).or_insert_with(Vec::new).extend(slice.mapping(service));
            }
        }
        services
    }

    /// Names of the policies with a selector that apply to a pod, sorted.
    fn policies_of(
        &self,
        pod: &PodFacts,
        services: &BTreeMap<NamespacedName, Vec<PortMapping>>,
    ) -> Vec<NamespacedName> {
        let roots = self.settings.root_namespaces.iter().filter(|root| **root != pod.name.namespace);
        let namespaces = [&pod.name.namespace].into_iter().chain(roots);
        let candidates =
            namespaces.flat_map(|namespace| self.selecting.authorization.candidates(namespace, &pod.labels));
        let selecting = candidates.filter_map(|name| self.authorization.get(&name)).filter(|policy| {
            let selects = policy.selector.as_ref().is_some_and(|labels| matches(labels, &pod.labels));
            selects && policy.content.ztunnel().is_some()
        });
        let mut names: Vec<NamespacedName> = selecting.map(|policy| policy.name.clone()).collect();
        names.extend(self.derived_policy_of(pod));
        let served = services.keys().filter_map(|key| self.services_by_key.get(key));
        let opening = self.opening(pod);
        let closed = served.filter(|name| self.layer7.closed.contains_key(*name));
        names.extend(closed.map(|name| deny_name(name, opening.as_ref())));
        names.extend(self.layer7.closed_pods.get(&pod.name).cloned());
        names.sort();
        names
    }

    /// The PeerAuthentication that selects the pod.
    fn peer_of(&self, pod: &PodFacts) -> Option<&PeerFacts> {
        let candidates = self.selecting.peer.candidates(&pod.name.namespace, &pod.labels);
        let selecting = candidates
            .filter_map(|name| self.peer.get(&name))
            .filter(|peer| peer.selector.as_ref().is_some_and(|labels| matches(labels, &pod.labels)));
        oldest(selecting)
    }

    /// The ports of a pod at which plaintext may bypass the waypoint. Only the owner of the pod's
    /// namespace can open a port, and only by naming it.
    pub(super) fn opening(&self, pod: &PodFacts) -> Option<Opening> {
        let peer = self.peer_of(pod)?;
        let ports = peer.content.open_ports();
        (!ports.is_empty()).then(|| Opening { peer: peer.name.clone(), ports })
    }

    fn derived_policy_of(&self, pod: &PodFacts) -> Option<NamespacedName> {
        let workload = self.peer_of(pod);
        let nothing = Modes::default();
        match self.derive(&pod.name.namespace, workload.map_or(&nothing, |peer| &peer.content)) {
            Derived::Nothing => None,
            Derived::Strict => Some(peer_authentication::strict_name(&self.settings.system_namespace)),
            Derived::Own(_) => workload.map(|peer| peer_authentication::own_name(&peer.name)),
        }
    }

    fn derive(&self, namespace: &Arc<str>, workload: &Modes) -> Derived {
        let mesh = self.mode_of(self.settings.root_namespaces.iter()).unwrap_or(self.settings.mtls);
        let is_root = self.settings.root_namespaces.contains(namespace);
        let of_namespace = self.level_of(namespace).filter(|_| !is_root);
        peer_authentication::derive(Some(mesh), of_namespace, workload)
    }

    /// The mode that PeerAuthentications without selector set for a namespace, or for the mesh if it is a root namespace.
    pub(super) fn level_of(&self, namespace: &Arc<str>) -> Option<Mode> {
        let roots = &self.settings.root_namespaces;
        match roots.contains(namespace) {
            true => self.mode_of(roots.iter()),
            false => self.mode_of([namespace].into_iter()),
        }
    }

    /// The mode of the oldest PeerAuthentication without selector per namespace; of several that
    /// set one, the oldest wins.
    fn mode_of<'a>(&'a self, namespaces: impl Iterator<Item = &'a Arc<str>>) -> Option<Mode> {
        let whole = |name: &'a Arc<str>| self.whole_peers.get(name).into_iter().flatten();
        let each = namespaces.filter_map(|name| oldest(whole(name).filter_map(|peer| self.peer.get(peer))));
        oldest(each.filter(|peer| peer.content.all.is_some()))?.content.all
    }
}

fn oldest<'a>(peers: impl Iterator<Item = &'a PeerFacts>) -> Option<&'a PeerFacts> {
    peers.min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)))
}
