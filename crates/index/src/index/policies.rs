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

use super::Index;
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
        if before != now || custom(old.as_ref()) != custom(self.authorization.get(&name)) {
            let targets = before.into_iter().chain(now).flat_map(|attachment| attachment.targets);
            targets.for_each(|target| self.touch_target(&target));
        }
        if !is_deny_name(&name) {
            self.publish(name.clone(), policy, changes);
        }
        let reach = |facts: Option<&AuthorizationFacts>| {
            facts.map(|f| (f.selector.clone(), f.content.ztunnel().is_some()))
        };
        if reach(old.as_ref()) != reach(self.authorization.get(&name)) {
            self.refresh_reach_of(&name.namespace, changes);
        }
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
        match facts {
            Some(facts) => self.peer.insert(name.clone(), facts),
            None => self.peer.remove(&name),
        };
        changes.policy_status = true;
        self.refresh_derived(changes);
        self.refresh_reach_of(&name.namespace, changes);
        // It may open or close ports that bypass waypoints.
        let bound = self.layer7.bound.keys().filter(|subject| subject.name().namespace == name.namespace);
        self.layer7.dirty.bindings.extend(bound.cloned());
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
        let customs = self.authorization.values().filter_map(|policy| policy.content.custom());
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

    /// Updates all pods if the namespace is a root namespace, whose policies apply to every pod.
    pub(super) fn refresh_reach_of(&mut self, namespace: &Arc<str>, changes: &mut Changes) {
        if self.settings.root_namespaces.contains(namespace) {
            self.refresh_pods(None, changes);
        } else {
            self.refresh_namespace(namespace, changes);
        }
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
