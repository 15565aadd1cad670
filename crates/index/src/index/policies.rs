//! Applies policies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ambit_api::{
    AuthorizationPolicy, RequestAuthentication,
    conditions::{ZTUNNEL_ACCEPTED, reason},
};
use ambit_model::NamespacedName;
use kube::Resource;

use super::{Index, maps::remove_from, subject::Subject};
use crate::{
    changes::Changes,
    policies::{
        AuthorizationFacts, Holds, Judgement, PeerFacts, RequestFacts, Target,
        authorization::{self, Authorization, trust::TrustDomains},
        request_authentication,
    },
    waypoints::is_deny_name,
};

impl Index {
    pub(super) fn set_authorization(
        &mut self,
        name: NamespacedName,
        policy: Option<Box<AuthorizationPolicy>>,
        changes: &mut Changes,
    ) {
        let facts = policy.as_ref().map(|policy| authorization::read(policy, &self.settings.root_namespaces));
        keep(&mut self.kube_authorization, &name, policy);
        let facts = facts.map(|facts| if is_deny_name(&name) { reserved(facts) } else { facts });
        if self.authorization.get(&name) == facts.as_ref() {
            return;
        }
        let policy = facts.as_ref().and_then(|facts| facts.content.ztunnel());
        let policy = policy.map(|policy| self.trust().spell_out(policy));
        let old = match facts {
            Some(facts) => self.authorization.insert(name.clone(), facts),
            None => self.authorization.remove(&name),
        };
        changes.policy_status = true;
        let attached =
            |facts: Option<&AuthorizationFacts>| facts.and_then(|f| f.content.attachment().cloned());
        let (before, now) = (attached(old.as_ref()), attached(self.authorization.get(&name)));
        let custom = |facts: Option<&AuthorizationFacts>| facts.and_then(|f| f.content.custom().cloned());
        match custom(self.authorization.get(&name)) {
            Some(_) => drop(self.layer7.customs.insert(name.clone())),
            None => drop(self.layer7.customs.remove(&name)),
        }
        if before != now || custom(old.as_ref()) != custom(self.authorization.get(&name)) {
            let targets = before.into_iter().chain(now).flat_map(|attachment| attachment.targets);
            targets.for_each(|target| self.touch_target(&target));
        }
        if !is_deny_name(&name) {
            self.publish(name.clone(), policy, changes);
        }
        // Workloads name only policies with a selector. Ztunnels apply the others by namespace.
        let reach = |facts: Option<&AuthorizationFacts>| {
            facts.filter(|facts| facts.content.ztunnel().is_some()).and_then(|facts| facts.selector.clone())
        };
        let (before, now) = (reach(old.as_ref()), reach(self.authorization.get(&name)));
        if before != now {
            self.selecting.authorization.reselect(&name, before.as_ref(), now.as_ref());
            before.iter().chain(&now).for_each(|selector| self.mark_selected(&name.namespace, selector));
        }
    }

    /// Marks the pods that a policy selects: in its namespace, or in all if that is a root namespace.
    fn mark_selected(&mut self, namespace: &Arc<str>, selector: &BTreeMap<String, String>) {
        let pods = match self.settings.root_namespaces.contains(namespace) {
            true => self.labelled.selected_anywhere(selector),
            false => self.labelled.selected(namespace, selector),
        };
        self.layer7.dirty.pods.extend(pods);
    }

    /// Parses all policies again after the root namespaces changed: the meaning of policies in
    /// these namespaces, and the text of any policy's status, depend on them.
    pub(super) fn reread_policies_of(&mut self, old: &BTreeSet<Arc<str>>, changes: &mut Changes) {
        if *old == self.settings.root_namespaces {
            return;
        }
        for (name, policy) in self.kube_authorization.clone() {
            self.set_authorization(name, Some(policy), changes);
        }
        for (name, policy) in self.kube_request.clone() {
            self.set_request(name, Some(policy), changes);
        }
    }

    /// The trust domain and its aliases.
    pub(super) fn trust(&self) -> TrustDomains {
        TrustDomains::new(&self.settings.trust_domain, &self.settings.trust_aliases)
    }

    /// Updates all policies after the trust domain or its aliases changed, because policies name
    /// it.
    pub(super) fn refresh_trust(&mut self, changes: &mut Changes) {
        let trust = self.trust();
        let at_nodes = self.authorization.iter().filter(|(name, _)| !is_deny_name(name));
        let spelled: Vec<_> = at_nodes
            .filter_map(|(name, facts)| Some((name.clone(), trust.spell_out(facts.content.ztunnel()?))))
            .collect();
        for (name, policy) in spelled {
            self.publish(name, Some(policy), changes);
        }
        self.layer7.dirty.compiled.extend(self.layer7.compiled_of.keys().cloned());
    }

    pub(super) fn set_peer(&mut self, name: NamespacedName, facts: Option<PeerFacts>, changes: &mut Changes) {
        if self.peer.get(&name) == facts.as_ref() {
            return;
        }
        changes.policy_status = true;
        let level = self.level_of(&name.namespace);
        let (old, new) = (self.peer.remove(&name), facts.clone());
        self.peer.extend(facts.map(|facts| (name.clone(), facts)));
        let says = |facts: &Option<PeerFacts>| {
            facts.as_ref().map(|facts| (facts.created, facts.selector.clone(), facts.content.clone()))
        };
        if says(&old) == says(&new) {
            return;
        }
        self.layer7.dirty.derived = true;
        let is_whole =
            |facts: &Option<PeerFacts>| facts.as_ref().is_some_and(|facts| facts.selector.is_none());
        match is_whole(&new) {
            true => drop(self.whole_peers.entry(name.namespace.clone()).or_default().insert(name.clone())),
            false => remove_from(&mut self.whole_peers, &name.namespace, &name),
        }
        if level != self.level_of(&name.namespace) {
            match self.settings.root_namespaces.contains(&name.namespace) {
                true => self.layer7.dirty.pods.extend(self.pods.keys().cloned()),
                false => self.mark_pods_of(&name.namespace),
            }
        }
        let selector = |facts: Option<PeerFacts>| facts.and_then(|facts| facts.selector);
        let (before, now) = (selector(old), selector(new));
        self.selecting.peer.reselect(&name, before.as_ref(), now.as_ref());
        for selector in before.iter().chain(&now) {
            for pod in self.labelled.selected(&name.namespace, selector) {
                self.mark_openings_of(&pod);
                self.layer7.dirty.pods.insert(pod);
            }
        }
    }

    /// Marks the bindings of a pod and its Services, after the ports changed that bypass their waypoints.
    fn mark_openings_of(&mut self, pod: &NamespacedName) {
        let workload = self.pods.get(pod).and_then(|pod| pod.workload.as_ref());
        let keys = workload.into_iter().flat_map(|workload| workload.services.keys());
        let services = keys.filter_map(|key| self.services_by_key.get(key)).cloned().map(Subject::Service);
        let subjects = services.chain([Subject::Pod(pod.clone())]);
        self.layer7.dirty.bindings.extend(subjects.filter(|subject| self.layer7.bound.contains_key(subject)));
    }

    pub(super) fn set_request(
        &mut self,
        name: NamespacedName,
        policy: Option<Box<RequestAuthentication>>,
        changes: &mut Changes,
    ) {
        let roots = &self.settings.root_namespaces;
        let facts = policy.as_ref().map(|policy| request_authentication::read(policy, roots));
        keep(&mut self.kube_request, &name, policy);
        if self.request.get(&name) == facts.as_ref() {
            return;
        }
        let old = match facts.clone() {
            Some(facts) => self.request.insert(name, facts),
            None => self.request.remove(&name),
        };
        changes.policy_status = true;
        let attached = |facts: Option<RequestFacts>| facts.and_then(|facts| facts.content);
        let (before, now) = (attached(old), attached(facts));
        if before != now {
            changes.key_set_uris = true;
            let targets = before.into_iter().chain(now).flat_map(|attachment| attachment.targets);
            targets.for_each(|target| self.touch_target(&target));
        }
    }

    /// Marks the targets of policies that name a provider, after its Service changed.
    pub(super) fn touch_providers(&mut self) {
        let customs = self.layer7.customs.iter().filter_map(|name| self.authorization.get(name));
        let customs = customs.filter_map(|policy| policy.content.custom());
        let targets: Vec<Target> =
            customs.flat_map(|custom| custom.attachment.targets.iter().cloned()).collect();
        targets.iter().for_each(|target| self.touch_target(target));
    }

    /// Marks the compiled results that a target affects.
    pub(super) fn touch_target(&mut self, target: &Target) {
        let waypoints: Vec<NamespacedName> = match target {
            Target::Service(service) => {
                self.layer7.dirty.compiled.insert(service.clone());
                return;
            }
            Target::Gateway(gateway) => vec![gateway.clone()],
            Target::GatewayClass(class) => {
                let of_class = self.layer7.gateways.values().filter(|gateway| *gateway.class == **class);
                of_class.map(|gateway| gateway.name.clone()).collect()
            }
        };
        waypoints.iter().for_each(|waypoint| self.layer7.touch_known(waypoint));
    }
}

fn keep<T: Resource>(
    kept: &mut BTreeMap<NamespacedName, Box<T>>,
    name: &NamespacedName,
    object: Option<Box<T>>,
) {
    match object {
        Some(mut object) => {
            object.meta_mut().managed_fields = None;
            kept.insert(name.clone(), object);
        }
        None => drop(kept.remove(name)),
    }
}

/// A user's policy with a name reserved for closing policies: it is not enforced.
fn reserved(facts: AuthorizationFacts) -> AuthorizationFacts {
    let judgement = Judgement {
        condition: ZTUNNEL_ACCEPTED,
        holds: Holds::False,
        reason: reason::INVALID,
        message: "names that start with ambit-waypoint- are reserved for the mesh: choose another name"
            .into(),
    };
    AuthorizationFacts { content: Authorization::Ztunnel(None), judgements: vec![judgement], ..facts }
}
