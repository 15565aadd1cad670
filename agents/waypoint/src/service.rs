//! One bound service, or the bound pods of one namespace, compiled for use.
//!
//! Invariant: compiling always succeeds; configuration that cannot be executed as written becomes a refusal. State that
//! outlives a change of configuration (endpoints, limits) is kept in [`States`].

mod rules;
mod states;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ambit_jwt::Validator;
use ambit_model::{
    Addressed, AppProtocol, Applied, BoundService, Destination, NamespacedName, Policy, PolicySet,
    bound::{Backend, ExternalCheck, HttpTable, NamedStream, PODS, Routes, WeightedBackend},
};
use ambit_route::{Table, by_server_name};

pub use rules::{Rules, retry_after_seconds};
pub use states::States;

use crate::{detect::ServerName, upstream::Upstream};

/// A compiled service.
#[derive(Debug)]
pub struct Service {
    /// As the control plane compiled it.
    pub bound: Arc<BoundService>,
    /// Validates tokens; `None` if no RequestAuthentication applies.
    pub validator: Option<Validator>,
    /// Authorization policies.
    pub policies: PolicySet,
    /// Whether a policy matches on the server name of TLS clients.
    pub asks_server_name: bool,
    /// Checks by external providers, which run before the policies.
    pub checks: Vec<Check>,
    /// Faults and rate limits of requests that no rule matches.
    pub rules: Rules,
    ports: Vec<Port>,
    /// For pods: stands for every port.
    every_port: Option<Port>,
    destinations: HashMap<Destination, Arc<Upstream>>,
}

/// A check by an external provider.
#[derive(Clone, Debug)]
pub struct Check {
    /// As the control plane compiled it.
    pub check: ExternalCheck,
    /// The provider's Service.
    pub upstream: Arc<Upstream>,
}

/// One port of a service.
#[derive(Debug)]
pub struct Port {
    /// Port number; 0 for the port that stands for every port of pods.
    pub number: u16,
    /// The protocol of clients. HTTP for a port without a declared protocol that has rules about requests: otherwise a
    /// client could evade tokens, routes and limits by sending something else.
    pub protocol: AppProtocol,
    /// The service itself as the destination; `None` for pods, whose targets have destinations of their own.
    pub own: Way,
    routes: PortRoutes,
    consumers: HashMap<Arc<str>, PortRoutes>,
}

/// The routes of a port, for all clients or for those of one namespace.
#[derive(Debug)]
pub struct PortRoutes {
    /// Routes of requests; `None` sends all to the service itself.
    pub http: Option<HttpRoutes>,
    /// Route of byte streams; `None` sends all to the service itself.
    pub stream: Option<Split>,
    /// Routes of TLS streams by server name; they take precedence over `stream`.
    pub named: Vec<Named>,
}

/// The route of TLS streams for some server names.
#[derive(Debug)]
pub struct Named {
    names: Vec<Arc<str>>,
    split: Split,
}

/// Routes of requests.
#[derive(Debug)]
pub struct HttpRoutes {
    /// Finds the rule that matches a request.
    pub table: Table,
    /// The compiled rules, in the order of the table.
    pub rules: Vec<RouteRule>,
}

/// What a rule needs besides its filters.
#[derive(Debug)]
pub struct RouteRule {
    /// Faults and rate limits of its requests.
    pub rules: Rules,
    /// The destinations of its backends, in the same order.
    pub ways: Vec<Way>,
}

/// Weighted backends, and their destinations.
#[derive(Debug)]
pub struct Split {
    /// The backends with their weights.
    pub backends: Vec<WeightedBackend>,
    /// Their destinations, in the same order.
    pub ways: Vec<Way>,
}

/// The destination of a backend; `None` for an invalid backend.
pub type Way = Option<Arc<Upstream>>;

impl Service {
    /// Compiles a service.
    pub fn compile(bound: Arc<BoundService>, states: &mut States) -> Self {
        let policies = policies(&bound, Arc::clone);
        let asks_server_name = bound.authorization.iter().any(|policy| policy.asks_server_name());
        let settings = bound.destinations.iter();
        let mut destinations: HashMap<_, _> = settings
            .map(|(destination, settings)| (destination.clone(), states.upstream(destination, settings)))
            .collect();
        for port in &bound.ports {
            let own = Destination { service: bound.key.clone(), port: port.port };
            destinations.entry(own).or_insert_with_key(|own| states.upstream(own, &Default::default()));
        }
        let providers = &bound.authentication;
        let validator = (!providers.is_empty()).then(|| Validator::new(providers));
        for (issuer, reason) in validator.iter().flat_map(Validator::unusable) {
            tracing::warn!(service = %bound.key, %issuer, %reason, "No token of an issuer can be accepted");
        }
        let checks = bound.checks.iter().map(|check| {
            let to = &check.provider.to;
            let way =
                destinations.entry(to.clone()).or_insert_with(|| states.upstream(to, &Default::default()));
            Check { check: check.clone(), upstream: way.clone() }
        });
        let checks: Vec<Check> = checks.collect();
        let rules = Rules::compile(&bound.requests, (&bound.key, ""), states);
        let asks_requests = validator.is_some() || !checks.is_empty() || !rules.is_empty();
        let ports = bound.ports.iter().map(|port| {
            let own = Destination { service: bound.key.clone(), port: port.port };
            let mut compile = |routes: &Routes| PortRoutes::compile(routes, &bound, &destinations, states);
            let routes = compile(&port.routes);
            let consumers = port.consumers.iter().map(|(key, routes)| (key.clone(), compile(routes)));
            let consumers: HashMap<_, _> = consumers.collect();
            let is_routed = routes.http.is_some() || consumers.values().any(|routes| routes.http.is_some());
            let protocol = spoken(port.protocol, asks_requests || is_routed);
            Port { number: port.port, protocol, own: destinations.get(&own).cloned(), routes, consumers }
        });
        let ports = ports.collect();
        let every_port = match bound.addressed {
            Addressed::Service => None,
            Addressed::Pods(_) => Some(Port::of_pods(asks_requests)),
        };
        Self { validator, policies, asks_server_name, checks, rules, ports, every_port, destinations, bound }
    }

    /// The placeholder for a service that could not be read: it has no port and allows nothing.
    pub fn unreadable(key: &NamespacedName, reason: &Arc<str>) -> Self {
        let bound = BoundService {
            key: key.clone(),
            addressed: Addressed::default(),
            ports: Vec::new(),
            destinations: BTreeMap::new(),
            requests: Arc::default(),
            authentication: Vec::new(),
            authorization: Vec::new(),
            checks: Vec::new(),
            unenforceable: vec![(key.clone(), reason.clone())],
        };
        Self {
            validator: None,
            policies: PolicySet::new([Applied::Unreadable(key.clone())]),
            asks_server_name: false,
            checks: Vec::new(),
            rules: Rules::default(),
            ports: Vec::new(),
            every_port: None,
            destinations: HashMap::new(),
            bound: Arc::new(bound),
        }
    }

    /// Whether it is the placeholder for a service that could not be read.
    pub fn is_unreadable(&self) -> bool {
        self.ports.is_empty() && self.every_port.is_none() && !self.bound.unenforceable.is_empty()
    }

    /// The policies for a connection with this server name.
    pub fn policies_at(&self, name: &ServerName) -> Cow<'_, PolicySet> {
        match name {
            ServerName::Known(name) if self.asks_server_name => {
                let at = |policy: &Arc<Policy>| Arc::new(policy.with_server_name(name.as_deref()));
                Cow::Owned(policies(&self.bound, at))
            }
            ServerName::Known(_) | ServerName::Unknown => Cow::Borrowed(&self.policies),
        }
    }

    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number).or(self.every_port.as_ref())
    }

    /// The hostname of the service; empty for pods.
    pub fn hostname(&self) -> &str {
        if &*self.bound.key.name == PODS { "" } else { &self.bound.key.name }
    }

    /// A destination of a route or a mirror of this service.
    pub fn destination(&self, destination: &Destination) -> Option<&Arc<Upstream>> {
        self.destinations.get(destination)
    }
}

/// The policies of a service, each transformed by `read`.
fn policies(bound: &BoundService, read: impl Fn(&Arc<Policy>) -> Arc<Policy>) -> PolicySet {
    let known = bound.authorization.iter().map(|policy| Applied::Known(read(policy)));
    let unenforceable = bound.unenforceable.iter().map(|(key, _)| Applied::Unreadable(key.clone()));
    PolicySet::new(known.chain(unenforceable))
}

/// The protocol of a port, depending on whether it has rules about requests.
fn spoken(declared: AppProtocol, has_rules: bool) -> AppProtocol {
    if has_rules && declared == AppProtocol::Detect { AppProtocol::Http } else { declared }
}

impl Port {
    /// The port that stands for every port of pods: it declares no protocol and has no routes.
    fn of_pods(asks_requests: bool) -> Self {
        let routes = PortRoutes { http: None, stream: None, named: Vec::new() };
        let protocol = spoken(AppProtocol::Detect, asks_requests);
        Self { number: 0, protocol, own: None, routes, consumers: HashMap::new() }
    }

    /// The routes for clients of a namespace.
    pub fn routes(&self, namespace: &str) -> &PortRoutes {
        self.consumers.get(namespace).unwrap_or(&self.routes)
    }
}

impl PortRoutes {
    fn compile(
        routes: &Routes,
        bound: &BoundService,
        destinations: &HashMap<Destination, Arc<Upstream>>,
        states: &mut States,
    ) -> Self {
        let ways = |backends: &[WeightedBackend]| {
            let way = |backend: &WeightedBackend| match &backend.backend {
                Backend::Service(destination) => destinations.get(destination).cloned(),
                Backend::Invalid(_) => None,
            };
            backends.iter().map(way).collect::<Vec<_>>()
        };
        let http = routes.http.as_ref().map(|table| HttpRoutes::compile(table, bound, ways, states));
        let split =
            |backends: &Vec<WeightedBackend>| Split { backends: backends.clone(), ways: ways(backends) };
        let stream = routes.stream.as_ref().map(split);
        let named = routes
            .named
            .iter()
            .map(|NamedStream { names, backends }| Named { names: names.clone(), split: split(backends) });
        Self { http, stream, named: named.collect() }
    }

    /// The route of a byte stream with this server name; `None` sends it to the service itself.
    pub fn stream_of(&self, name: &ServerName) -> Option<&Split> {
        let named = match name {
            ServerName::Known(Some(name)) => {
                by_server_name(self.named.iter().map(|named| named.names.as_slice()), name)
            }
            ServerName::Known(None) | ServerName::Unknown => None,
        };
        named.and_then(|at| self.named.get(at)).map(|named| &named.split).or(self.stream.as_ref())
    }
}

impl HttpRoutes {
    fn compile(
        table: &Arc<HttpTable>,
        bound: &BoundService,
        ways: impl Fn(&[WeightedBackend]) -> Vec<Way>,
        states: &mut States,
    ) -> Self {
        let rules = table.rules.iter().map(|rule| RouteRule {
            rules: Rules::compile_for_route(rule, bound, states),
            ways: ways(&rule.backends),
        });
        let rules = rules.collect();
        let compiled = Table::compile(table.clone());
        for (rule, invalid) in compiled.invalid() {
            tracing::warn!(service = %bound.key, rule = %rule.name, %invalid, "A rule cannot be executed; its requests are answered 500");
        }
        Self { table: compiled, rules }
    }
}
