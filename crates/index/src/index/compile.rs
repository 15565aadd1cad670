//! Compiles what each waypoint needs for each service, and for pods.
//!
//! Invariant: everything that a service, its waypoint or a route references is in the result, or is
//! replaced by a refusal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ambit_model::{
    Addressed, BoundPort, BoundService, Destination, NamespacedName, Policy,
    bound::{
        Balancer, CheckProvider, DestinationPolicy, DestinationSettings, ExternalCheck, HashKey, JwtProvider,
        PODS, RequestPolicy,
    },
};

use super::{Index, maps::of_namespace};
use crate::{
    changes::Changes,
    policies::{Attachment, Target},
    providers::Directory,
    routes::{
        RouteFacts, RouteKey,
        attach::{Attached, contest},
        resolve::World,
        table::Compiler,
    },
    services::{PortFacts, ServiceFacts},
    settings::Settings,
    traffic::{Effects, TrafficFacts, TrafficTo},
};

/// The policies that one waypoint enforces for one service, or for pods.
#[derive(Debug, Default)]
struct Attachments {
    authorization: Vec<Arc<Policy>>,
    authentication: Vec<JwtProvider>,
    checks: Vec<ExternalCheck>,
    unenforceable: Vec<(NamespacedName, Arc<str>)>,
}

impl Index {
    pub(super) fn refresh_compiled(&mut self, name: &NamespacedName, changes: &mut Changes) {
        let compiled = match &*name.name {
            PODS => self.compile_pods(&name.namespace),
            _ => self.compile_service(name),
        };
        let compiled: BTreeMap<_, _> = compiled
            .into_iter()
            .map(|(waypoint, bound)| ((waypoint.clone(), bound.key.clone()), bound))
            .collect();
        let old = self.layer7.compiled_of.remove(name).unwrap_or_default();
        for gone in old.into_iter().filter(|key| !compiled.contains_key(key)) {
            self.layer7.compiled.remove(&gone);
            changes.bound.insert(gone);
        }
        if compiled.is_empty() {
            return;
        }
        self.layer7.compiled_of.insert(name.clone(), compiled.keys().cloned().collect());
        for (key, bound) in compiled {
            if self.layer7.compiled.get(&key).map(Arc::as_ref) != Some(&bound) {
                self.layer7.compiled.insert(key.clone(), Arc::new(bound));
                changes.bound.insert(key);
            }
        }
        changes.route_status |= self.layer7.routes_by_parent.contains_key(name);
    }

    fn compile_service(&self, name: &NamespacedName) -> Vec<(&NamespacedName, BoundService)> {
        let (Some(service), Some(bound)) = (self.services.get(name), self.layer7.service(name)) else {
            return Vec::new();
        };
        let known_to = bound.stage.served_by();
        known_to.into_iter().map(|waypoint| (waypoint, self.compile(service, waypoint))).collect()
    }

    /// One result for all pods of a namespace, however many there are. Waypoints recognize most of
    /// them by their workloads.
    fn compile_pods(&self, namespace: &Arc<str>) -> Vec<(&NamespacedName, BoundService)> {
        let bound = self.layer7.known_pods.of(namespace).map(|(waypoint, known)| {
            let Attachments { authorization, authentication, checks, unenforceable } =
                self.attachments(namespace, None, waypoint);
            let bound = BoundService {
                key: NamespacedName::new(namespace.clone(), PODS),
                addressed: Addressed::Pods(known.on_their_way.clone()),
                ports: Vec::new(),
                destinations: self.asked_by(&checks),
                requests: Arc::default(),
                authentication,
                authorization,
                checks,
                unenforceable,
            };
            (waypoint, bound)
        });
        bound.collect()
    }

    /// Everything that backend references of routes may lead to.
    pub(super) fn world(&self) -> World<'_> {
        World { services: &self.services, grants: &self.layer7.grants }
    }

    fn compile(&self, service: &ServiceFacts, waypoint: &NamespacedName) -> BoundService {
        let mut compiler = Compiler {
            world: self.world(),
            service: &service.name,
            trusts_forwarded_proto: self.trusted_proxies(waypoint).is_some(),
            policy: |key: &RouteKey| self.requests_of_route(key),
            destinations: BTreeSet::new(),
        };
        let mut ports = Vec::with_capacity(service.ports.len());
        for port in &service.ports {
            let mut routes =
                |audience: Option<&Arc<str>>| compiler.routes(&self.attached(service, port, audience));
            let own = routes(None);
            let consumers = self.consumers(service).into_iter().map(|namespace| {
                let mut theirs = routes(Some(&namespace));
                // Where the consumer's routes define nothing, the producer's apply.
                theirs.http = theirs.http.or_else(|| own.http.clone());
                if theirs.stream.is_none() && theirs.named.is_empty() {
                    (theirs.stream, theirs.named) = (own.stream.clone(), own.named.clone());
                }
                (namespace, theirs)
            });
            let consumers = consumers.filter(|(_, theirs)| *theirs != own).collect();
            ports.push(BoundPort { port: port.port, protocol: port.protocol, routes: own, consumers });
        }
        let key = service.model.key();
        let own = service.ports.iter().map(|port| Destination { service: key.clone(), port: port.port });
        let destinations = compiler.destinations.into_iter().chain(own);
        let Attachments { authorization, authentication, checks, unenforceable } =
            self.attachments(&service.name.namespace, Some(&service.name), waypoint);
        BoundService {
            addressed: Addressed::Service,
            ports,
            destinations: destinations
                .map(|to| (to.clone(), self.settings_of(&to)))
                .chain(self.asked_by(&checks))
                .collect(),
            requests: self.effects(&TrafficTo::Service(service.name.clone())).requests,
            authentication,
            authorization,
            checks,
            unenforceable,
            key,
        }
    }

    /// The routes of a port: the producer's, or those of one consumer namespace.
    pub(super) fn attached(
        &self,
        service: &ServiceFacts,
        port: &PortFacts,
        consumer: Option<&Arc<str>>,
    ) -> Attached<'_> {
        let applies = |route: &&RouteFacts| match consumer {
            None => !route.is_consumer_of(&service.name),
            Some(namespace) => route.key.name.namespace == *namespace,
        };
        if consumer.is_some() && self.denies_consumers(&service.name) {
            return Attached::denied();
        }
        contest(self.layer7.attached_to(&service.name).filter(applies), service, port)
    }

    fn consumers(&self, service: &ServiceFacts) -> BTreeSet<Arc<str>> {
        if self.denies_consumers(&service.name) {
            return BTreeSet::new();
        }
        let routes = self.layer7.attached_to(&service.name);
        let theirs = routes.filter(|route| route.is_consumer_of(&service.name));
        theirs.map(|route| route.key.name.namespace.clone()).collect()
    }

    /// The destinations of external authorization providers.
    fn asked_by(&self, checks: &[ExternalCheck]) -> BTreeMap<Destination, DestinationSettings> {
        let to = checks.iter().map(|check| &check.provider.to);
        to.map(|to| (to.clone(), self.settings_of(to))).collect()
    }

    /// The provider with this name, compiled for waypoints.
    pub(super) fn provider(&self, name: &str) -> Result<CheckProvider, String> {
        let Settings { extension_providers, cluster_domain, .. } = &self.settings;
        Directory { providers: extension_providers, services: &self.services, cluster_domain }.provider(name)
    }

    fn settings_of(&self, to: &Destination) -> DestinationSettings {
        let service = self.services_by_key.get(&to.service).and_then(|name| self.services.get(name));
        let Some(service) = service else { return DestinationSettings::default() };
        let port = service.ports.iter().find(|port| port.port == to.port);
        DestinationSettings {
            protocol: port.map(|port| port.protocol).unwrap_or_default(),
            policy: self.policy_of(service),
        }
    }

    /// The settings of a service as a destination. Client affinity comes from the Service, unless a
    /// TrafficPolicy sets an algorithm.
    fn policy_of(&self, service: &ServiceFacts) -> Arc<DestinationPolicy> {
        let Effects { mut destination, balances, .. } =
            self.effects(&TrafficTo::Service(service.name.clone()));
        if service.balancing.by_client && !balances {
            Arc::make_mut(&mut destination).balancer = Balancer::ConsistentHash(HashKey::SourceIp);
        }
        destination
    }

    /// The effects of the oldest TrafficPolicy of a target.
    fn effects(&self, to: &TrafficTo) -> Effects {
        let content = self.traffic_of(to).map(|policy| policy.content.content.clone());
        content.and_then(Result::ok).unwrap_or_default()
    }

    fn requests_of_route(&self, key: &RouteKey) -> Option<Arc<RequestPolicy>> {
        let policy = self.traffic_of(&TrafficTo::Route(key.clone()))?;
        Some(policy.content.content.as_ref().ok()?.requests.clone())
    }

    /// Whether the owner of a service rejects consumer routes.
    pub(super) fn denies_consumers(&self, service: &NamespacedName) -> bool {
        let target = TrafficTo::Service(service.clone());
        let mut policies = of_namespace(&self.layer7.traffic, &service.namespace);
        policies
            .any(|(_, policy)| policy.content.denies_consumers && policy.content.targets.contains(&target))
    }

    /// The oldest TrafficPolicy of a target.
    pub(super) fn traffic_of(&self, to: &TrafficTo) -> Option<&TrafficFacts> {
        let namespace = match to {
            TrafficTo::Service(name) => &name.namespace,
            TrafficTo::Route(key) => &key.name.namespace,
        };
        let attached = of_namespace(&self.layer7.traffic, namespace)
            .map(|(_, policy)| policy)
            .filter(|policy| policy.content.targets.contains(to));
        attached.min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)))
    }

    /// Number of trusted proxies in front of a waypoint's peers, if configured.
    pub(super) fn trusted_proxies(&self, waypoint: &NamespacedName) -> Option<u32> {
        let own = self.layer7.gateways.get(waypoint).and_then(|gateway| gateway.trusted_proxies);
        own.or(self.settings.trusted_proxies)
    }

    /// The policies for a service, or for the pods of a namespace: those that target their waypoint
    /// or its class.
    fn attachments(
        &self,
        namespace: &Arc<str>,
        service: Option<&NamespacedName>,
        waypoint: &NamespacedName,
    ) -> Attachments {
        let class = self.layer7.gateways.get(waypoint).map(|gateway| &gateway.class);
        let is_meant = |target: &Target| match target {
            Target::Service(name) => Some(name) == service,
            Target::Gateway(name) => name == waypoint,
            Target::GatewayClass(name) => class.is_some_and(|class| **class == **name),
        };
        let own = [namespace, &waypoint.namespace];
        let namespaces: BTreeSet<_> = own.into_iter().chain(&self.settings.root_namespaces).collect();
        let trust = self.trust();
        let trusted_proxies = self.trusted_proxies(waypoint);
        let mut found = Attachments::default();
        for namespace in namespaces {
            for (name, policy) in of_namespace(&self.authorization, namespace) {
                if let Some(attachment) = policy.content.attachment().filter(|a| reaches(a, is_meant)) {
                    match (&attachment.content, policy.content.custom()) {
                        (_, Some(custom)) if custom.dry_run => {}
                        (Ok(policy), None) => {
                            found.authorization.push(behind(trust.spell_out(policy), trusted_proxies))
                        }
                        (Ok(policy), Some(custom)) => match self.provider(&custom.provider) {
                            Ok(provider) => {
                                let policy = behind(trust.spell_out(policy), trusted_proxies);
                                let provider = Arc::new(provider);
                                found.checks.push(ExternalCheck { policy, provider });
                            }
                            Err(why) => found.unenforceable.push((name.clone(), why.into())),
                        },
                        (Err(why), _) => found.unenforceable.push((name.clone(), why.as_str().into())),
                    }
                }
            }
            for (name, policy) in of_namespace(&self.request, namespace) {
                if let Some(attachment) = policy.content.as_ref().filter(|a| reaches(a, is_meant)) {
                    match &attachment.content {
                        Ok(providers) => {
                            found.authentication.extend(providers.compile(&self.layer7.key_sets));
                        }
                        Err(why) => found.unenforceable.push((name.clone(), why.as_str().into())),
                    }
                }
            }
        }
        found
    }
}

/// The policy, evaluated behind this number of trusted proxies.
fn behind(mut policy: Arc<Policy>, trusted_proxies: Option<u32>) -> Arc<Policy> {
    if trusted_proxies.is_some() && policy.asks_remote_ip() {
        Arc::make_mut(&mut policy).trust_proxies(trusted_proxies);
    }
    policy
}

fn reaches<T>(attachment: &Attachment<T>, is_meant: impl Fn(&Target) -> bool) -> bool {
    attachment.targets.iter().any(is_meant)
}
