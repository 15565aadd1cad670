//! Moves services and pods to and from waypoints, one step at a time, and derives what depends on
//! each step.

use std::sync::Arc;

use ambit_model::{
    GatewayAddress, GatewayDestination, HBONE_PORT, Health, NamespacedName, TunnelProtocol, Workload,
};

use super::{Index, layer7::Bound, maps::remove_from, subject::Subject};
use crate::{
    changes::Changes,
    enrollment::Wanted,
    nodes::NamespaceFacts,
    settings::Presence,
    waypoints::{
        around::Around,
        binding::{Binding, BindingInput, Candidate, Endpoints, TrafficTarget, WaypointLabel, bind},
        stage::{Goal, Stage, next},
    },
};

impl Index {
    /// Starts serving proxies: from now on changes of waypoints happen step by step. Before,
    /// everything goes directly to its target stage, so that a restarted control plane publishes
    /// the same state as before.
    pub fn serve(&mut self) {
        self.layer7.is_serving = true;
        self.follow(&mut Changes::default());
    }

    /// All proxies had time to receive the steps up to this one ([`Changes::settling`]): takes the
    /// next ones.
    pub fn settle(&mut self, step: u64) -> Changes {
        let mut changes = Changes::default();
        for (subject, bound) in &mut self.layer7.bound {
            if bound.unsettled.is_some_and(|unsettled| unsettled <= step) {
                bound.unsettled = None;
                self.layer7.dirty.bindings.insert(subject.clone());
            }
        }
        self.follow(&mut changes);
        changes
    }

    /// Marks every object related to any waypoint, after a change that affects all of them.
    pub(super) fn mark_bindings(&mut self) {
        let services = self.services.keys().map(|name| Subject::Service(name.clone()));
        let pods = self.pods.keys().map(|name| Subject::Pod(name.clone()));
        let subjects: Vec<_> = services.chain(pods).chain(self.layer7.bound.keys().cloned()).collect();
        self.layer7.dirty.compiled.extend(subjects.iter().map(Subject::compiled));
        self.layer7.dirty.bindings.extend(subjects.iter().cloned());
        self.layer7.dirty.closings.extend(subjects);
    }

    pub(super) fn refresh_binding(&mut self, subject: &Subject, changes: &mut Changes) {
        let old = self.layer7.bound.get(subject).cloned().unwrap_or_default();
        let (asks_for, binding) = self.decide(subject, &old);
        let mut new = Bound { asks_for, binding, ..old.clone() };
        self.advance(subject, &mut new, changes);
        self.layer7.dirty.closings.insert(subject.clone());
        if new != old {
            self.rebind(subject, (&old, new), changes);
            self.announce(subject, changes);
        }
        self.keep_tally(subject);
        if let Subject::Pod(name) = subject {
            let was_outdated = self.layer7.annotate.contains(name);
            changes.policy_status |= self.note_word(name) && !was_outdated;
        }
    }

    fn rebind(&mut self, subject: &Subject, (old, new): (&Bound, Bound), changes: &mut Changes) {
        for waypoint in old.waypoints() {
            remove_from(&mut self.layer7.bound_by_waypoint, waypoint, subject);
        }
        for waypoint in new.waypoints() {
            self.layer7.bound_by_waypoint.entry(waypoint.clone()).or_default().insert(subject.clone());
        }
        if old.binding != new.binding {
            // Pods have no status for this, and most of them no label.
            let is_service = matches!(subject, Subject::Service(_));
            changes.policy_status |= is_service || old.binding.judgement != new.binding.judgement;
            changes.route_status |= is_service;
        }
        // What a pod must remember is written to it together with the statuses.
        changes.policy_status |= old.enforced() != new.enforced();
        if old.stage != new.stage {
            changes.policy_status |= matches!(subject, Subject::Service(_));
            changes.waypoints.extend(old.stage.served_by().into_iter().chain(new.stage.served_by()).cloned());
            self.layer7.dirty.closings.extend(self.sharing(subject));
            if let Subject::Service(name) = subject {
                self.layer7.dirty.compiled.insert(name.clone());
            }
        }
        if new.asks_for.is_none() && new.stage == Stage::Unbound && new.unsettled.is_none() {
            self.layer7.bound.remove(subject);
        } else {
            self.layer7.bound.insert(subject.clone(), new);
        }
        if let Subject::Pod(name) = subject {
            self.note_known(name);
        }
    }

    /// Publishes the address of the waypoint on the service or workload itself.
    fn announce(&mut self, subject: &Subject, changes: &mut Changes) {
        let address = self.announced(subject);
        match subject {
            Subject::Service(name) => {
                if let Some(service) = self.services.get_mut(name).filter(|s| s.model.waypoint != address) {
                    Arc::make_mut(&mut service.model).waypoint = address;
                    changes.services.insert(service.model.key());
                    self.mark_slices_at(&self.endpoint_addresses(name));
                }
            }
            Subject::Pod(name) => {
                let workload = self.pods.get(name).and_then(|pod| pod.workload.as_ref());
                if workload.is_some_and(|workload| workload.waypoint != address) {
                    self.layer7.dirty.pods.insert(name.clone());
                }
            }
        }
    }

    fn advance(&mut self, subject: &Subject, bound: &mut Bound, changes: &mut Changes) {
        let exists = match subject {
            Subject::Service(name) => self.services.contains_key(name),
            Subject::Pod(name) => self.pods.contains_key(name),
        };
        if !exists {
            // No client can be on its way to an object that is gone.
            (bound.stage, bound.unsettled) = (Stage::Unbound, None);
            return;
        }
        if !self.is_published(subject) {
            while let Some(stage) = next(&bound.stage, &bound.binding.goal) {
                bound.stage = stage;
            }
            bound.unsettled = None;
            return;
        }
        if bound.unsettled.is_none()
            && let Some(stage) = next(&bound.stage, &bound.binding.goal)
        {
            bound.stage = stage;
            self.layer7.steps += 1;
            bound.unsettled = Some(self.layer7.steps);
        }
        changes.settling = changes.settling.max(bound.unsettled);
    }

    /// Whether clients may know the subject and be connecting to it. A pod without a workload is
    /// unknown to clients.
    fn is_published(&self, subject: &Subject) -> bool {
        self.layer7.is_serving
            && match subject {
                Subject::Service(_) => true,
                Subject::Pod(name) => self.pods.get(name).is_some_and(|pod| pod.workload.is_some()),
            }
    }

    fn decide(&self, subject: &Subject, old: &Bound) -> (Option<NamespacedName>, Binding) {
        if self.settings.presence != Presence::Present {
            return (None, Binding::default());
        }
        let unlabelled = NamespaceFacts::default();
        let namespace = self.namespaces.get(&subject.name().namespace).unwrap_or(&unlabelled);
        // Once the subject is published, its own stage counts; before that, what its status says.
        let is_serving = self.layer7.is_serving;
        let remembered = self.remembered(subject).filter(|_| !is_serving);
        let at = old.stage.announced().filter(|_| is_serving).or(remembered.as_ref());
        let Some(input) = self.input(subject, namespace, old.stage.announced().is_some() && is_serving)
        else {
            return (None, Binding::default());
        };
        let enforced = old.enforced().filter(|_| is_serving).or(remembered.as_ref());
        let around = input.waypoint().map(|_| self.around(subject)).unwrap_or_default();
        let past = around.past.clone();
        let counted = input.waypoint().and_then(|_| self.endpoints_of_service(subject));
        let endpoints = counted.unwrap_or(input.endpoints);
        let input = BindingInput { enforced, around, endpoints, ..input };
        let found = input.waypoint().and_then(|name| self.candidate(name));
        let asks_for = input.waypoint().cloned();
        let mut binding = Binding { past, ..bind(&input, found.as_ref()) };
        // While moving, it stays behind its old waypoint until the new one is ready.
        if let (Goal::Serve(_) | Goal::Close(_), Some(at)) = (&binding.goal, at)
            && asks_for.as_ref() != Some(at)
            && let Some(candidate) = self.candidate(at)
        {
            let stay = WaypointLabel::Waypoint(at.clone());
            binding.goal = bind(&BindingInput { own: &stay, ..input }, Some(&candidate)).goal;
        }
        (asks_for, binding)
    }

    /// The input of the binding decision; `None` if the subject is gone, or clients cannot connect
    /// to it.
    fn input<'a>(
        &'a self,
        subject: &'a Subject,
        namespace: &'a NamespaceFacts,
        was_announced: bool,
    ) -> Option<BindingInput<'a>> {
        let input = BindingInput {
            own: &WaypointLabel::Unset,
            inherited: &namespace.waypoint_label,
            is_waypoint: false,
            traffic: TrafficTarget::Pod,
            namespace: &subject.name().namespace,
            namespace_labels: &namespace.labels,
            endpoints: Endpoints::default(),
            was_bound: was_announced,
            enforced: None,
            around: Around::default(),
        };
        Some(match subject {
            Subject::Service(name) => {
                let service = self.services.get(name)?;
                let is_headless = service.model.addresses.is_empty();
                BindingInput {
                    own: &service.waypoint_label,
                    is_waypoint: service.is_managed,
                    traffic: if is_headless { TrafficTarget::Headless } else { TrafficTarget::Service },
                    was_bound: was_announced || self.was_said_bound(name),
                    ..input
                }
            }
            Subject::Pod(name) => {
                let entry = self.pods.get(name)?;
                let pod = &entry.facts;
                if pod.host_network || pod.terminated {
                    return None;
                }
                let enrollment = self.build_enrollment(entry);
                let wanted = enrollment.filter(|enrollment| enrollment.wanted == Wanted::L4).is_some();
                let enrolled = usize::from(wanted && pod.redirected);
                BindingInput {
                    own: &pod.waypoint_label,
                    is_waypoint: pod.is_managed,
                    endpoints: Endpoints { all: 1, wanted: wanted.into(), enrolled },
                    // It starts enrolled, or not at all.
                    was_bound: was_announced || (wanted && !self.is_published(subject)),
                    ..input
                }
            }
        })
    }

    /// The waypoint that the object's status or annotation says it was closed behind, by an earlier
    /// process.
    fn remembered(&self, subject: &Subject) -> Option<NamespacedName> {
        match subject {
            Subject::Service(name) => self.was_said_enforced(name),
            Subject::Pod(name) => self.pods.get(name)?.facts.enforced.clone(),
        }
    }

    fn candidate(&self, name: &NamespacedName) -> Option<Candidate<'_>> {
        let gateway = self.layer7.waypoint(name)?;
        let own = self.layer7.failure_policies.get(name).copied();
        Some(Candidate {
            serves: self.layer7.serves(gateway),
            has_ready_pod: self.ready_pods(name) > 0,
            failure_policy: own.unwrap_or(self.settings.failure_policy),
            gateway,
        })
    }

    pub(super) fn ready_pods(&self, waypoint: &NamespacedName) -> usize {
        let pods = self.layer7.pods_by_waypoint.get(waypoint).into_iter().flatten();
        let pods = pods.filter_map(|pod| self.pods.get(pod));
        pods.filter(|pod| pod.facts.is_endpoint() && pod.facts.health == Health::Healthy).count()
    }

    /// The number of endpoints of a Service. None for a pod, which is its own endpoint.
    fn endpoints_of_service(&self, subject: &Subject) -> Option<Endpoints> {
        let Subject::Service(name) = subject else { return None };
        self.services.get(name).map(|service| self.tally(service).endpoints())
    }

    /// The published address of the waypoint.
    pub(super) fn announced(&self, subject: &Subject) -> Option<GatewayAddress> {
        let waypoint = self.layer7.bound.get(subject)?.stage.announced()?;
        let NamespacedName { namespace, name } = waypoint;
        let host = format!("{name}.{namespace}.svc.{}", self.settings.cluster_domain);
        Some(GatewayAddress {
            destination: GatewayDestination::Hostname(NamespacedName::new(namespace.clone(), host)),
            hbone_mtls_port: HBONE_PORT,
        })
    }

    /// A waypoint's pod terminates tunnels itself, whether or not its traffic is redirected.
    pub(super) fn tunnel(waypoint: Option<&NamespacedName>, is_redirected: bool) -> (TunnelProtocol, bool) {
        match (waypoint, is_redirected) {
            (Some(_), _) => (TunnelProtocol::Hbone, true),
            (None, true) => (TunnelProtocol::Hbone, false),
            (None, false) => (TunnelProtocol::None, false),
        }
    }

    /// Updates whatever depends on a pod for its waypoint.
    pub(super) fn refresh_bound_pod(
        &mut self,
        name: &NamespacedName,
        is_elsewhere: bool,
        old: Option<&Arc<Workload>>,
        new: Option<&Arc<Workload>>,
    ) {
        let subject = Subject::Pod(name.clone());
        if is_elsewhere {
            self.layer7.dirty.bindings.insert(subject.clone());
        }
        if !self.layer7.bound.contains_key(&subject) {
            return;
        }
        self.note_known(name);
        if old.map(|workload| &workload.services) != new.map(|workload| &workload.services) {
            self.layer7.dirty.closings.insert(subject);
        }
    }
}
