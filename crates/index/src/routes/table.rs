//! Compiles the routes of a port for a waypoint.

use std::{collections::BTreeSet, sync::Arc};

use ambit_model::{
    Destination, NamespacedName,
    bound::{
        Backend, Filter, HeaderMatch, HttpMatch, HttpRule, HttpTable, Mirror, NamedStream, PathMatch,
        Redirect, RequestPolicy, Routes, ValueMatch, WeightedBackend,
    },
};
use ambit_route::Table;

use super::{
    BackendFacts, FilterFacts, RouteFacts, RouteKey, RuleFacts, attach::Attached, precedence, resolve::World,
};

/// Compiles routes, and collects their destinations.
pub(crate) struct Compiler<'a, P> {
    pub(crate) world: World<'a>,
    /// The Service that the routes are attached to.
    pub(crate) service: &'a NamespacedName,
    /// Whether proxies in front of the waypoint are trusted to set the client's scheme.
    pub(crate) trusts_forwarded_proto: bool,
    /// Returns the policy attached to a route.
    pub(crate) policy: P,
    /// All destinations that were found.
    pub(crate) destinations: BTreeSet<Destination>,
}

impl<P: Fn(&RouteKey) -> Option<Arc<RequestPolicy>>> Compiler<'_, P> {
    /// The routes of a port for one audience.
    pub(crate) fn routes(&mut self, attached: &Attached<'_>) -> Routes {
        Routes {
            http: (!attached.http.is_empty()).then(|| Arc::new(self.table(&attached.http))),
            stream: attached
                .stream
                .iter()
                .find(|route| route.names.is_empty())
                .map(|route| self.stream(route)),
            named: self.named(&attached.stream),
        }
    }

    fn named(&mut self, routes: &[&RouteFacts]) -> Vec<NamedStream> {
        let named = routes.iter().filter(|route| !route.names.is_empty());
        named.map(|route| NamedStream { names: route.names.clone(), backends: self.stream(route) }).collect()
    }

    fn table(&mut self, routes: &[&RouteFacts]) -> HttpTable {
        let (mut matches, mut rules) = (Vec::new(), Vec::new());
        for route in routes {
            let policy = (self.policy)(&route.key);
            for rule in &route.rules {
                let at = rules.len();
                matches.extend(rule.matches.iter().map(|(rank, matched)| (*rank, matched.clone(), at)));
                rules.push(self.rule(route, rule, policy.clone()));
            }
        }
        precedence::sort(&mut matches);
        let matches = matches.into_iter().map(|(_, matched, rule)| (matched, rule)).collect();
        HttpTable { matches, rules }
    }

    fn rule(
        &mut self,
        route: &RouteFacts,
        rule: &RuleFacts,
        requests: Option<Arc<RequestPolicy>>,
    ) -> HttpRule {
        if let Some(why) = &rule.problem {
            let backend =
                WeightedBackend { weight: 1, backend: Backend::Invalid(why.clone()), filters: Vec::new() };
            let is_consumer = route.is_consumer_of(self.service);
            let name = rule.name.clone();
            return HttpRule { name, backends: vec![backend], is_consumer, ..HttpRule::default() };
        }
        HttpRule {
            name: rule.name.clone(),
            filters: self.filters(route, &rule.filters),
            backends: rule.backends.iter().map(|backend| self.backend(route, backend)).collect(),
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
            session: rule.session.clone(),
            requests,
            is_consumer: route.is_consumer_of(self.service),
        }
    }

    /// Only the first rule counts. A route without backends refuses connections, because it has no
    /// destination.
    fn stream(&mut self, route: &RouteFacts) -> Vec<WeightedBackend> {
        let Some(rule) = route.rules.first() else { return Vec::new() };
        rule.backends.iter().map(|backend| self.backend(route, backend)).collect()
    }

    fn backend(&mut self, route: &RouteFacts, backend: &BackendFacts) -> WeightedBackend {
        let found = match self.world.destination(route, &backend.reference) {
            Ok(destination) => {
                self.destinations.insert(destination.clone());
                Backend::Service(destination)
            }
            Err(unresolved) => Backend::Invalid(unresolved.message.into()),
        };
        let filters = self.filters(route, &backend.filters);
        WeightedBackend { weight: backend.weight, backend: found, filters }
    }

    /// Mirrors with an invalid destination are dropped; the request itself is not affected.
    fn filters(&mut self, route: &RouteFacts, filters: &[FilterFacts]) -> Vec<Filter> {
        let mut compiled = Vec::with_capacity(filters.len());
        for filter in filters {
            match filter {
                FilterFacts::Ready(Filter::Redirect(redirect)) => {
                    let trusts_forwarded_proto = self.trusts_forwarded_proto;
                    compiled.push(Filter::Redirect(Redirect { trusts_forwarded_proto, ..redirect.clone() }));
                }
                FilterFacts::Ready(filter) => compiled.push(filter.clone()),
                FilterFacts::Mirror { to, fraction } => {
                    if let Ok(to) = self.world.destination(route, to) {
                        self.destinations.insert(to.clone());
                        compiled.push(Filter::Mirror(Mirror { to, fraction: *fraction }));
                    }
                }
            }
        }
        compiled
    }
}

/// Records what the waypoint could not execute of a rule, with the waypoint's own error text.
pub(super) fn check(rule: &mut RuleFacts) {
    if rule.problem.is_some() {
        return;
    }
    let ready = |filters: &[FilterFacts]| {
        let filters = filters.iter().filter_map(|filter| match filter {
            FilterFacts::Ready(filter) => Some(filter.clone()),
            FilterFacts::Mirror { .. } => None,
        });
        filters.collect::<Vec<_>>()
    };
    let backend = |backend: &BackendFacts| WeightedBackend {
        weight: backend.weight,
        backend: Backend::Invalid("".into()),
        filters: ready(&backend.filters),
    };
    let compiled = HttpRule {
        filters: ready(&rule.filters),
        backends: rule.backends.iter().map(backend).collect(),
        ..HttpRule::default()
    };
    let matches = rule.matches.iter().map(|(_, matched)| (matched.clone(), 0)).collect();
    rule.problem = problem(HttpTable { matches, rules: vec![compiled] }).map(Arc::from);
}

/// Why waypoints do not accept this regular expression.
pub(crate) fn expression_problem(text: &str) -> Option<String> {
    let header = HeaderMatch { name: "x".into(), value: ValueMatch::Regex(text.into()) };
    let matched = HttpMatch { path: PathMatch::default(), headers: vec![header], ..HttpMatch::default() };
    problem(HttpTable { matches: vec![(matched, 0)], rules: vec![HttpRule::default()] })
}

fn problem(table: HttpTable) -> Option<String> {
    let table = Table::compile(Arc::new(table));
    table.invalid().next().map(|(_, invalid)| invalid.to_string())
}
