//! The endpoints of one service as seen from one client location, laid out so that selecting one
//! does not iterate over all.
//!
//! Invariant: [`Endpoints`] holds exactly the eligible endpoints, best tier first. Clients at one
//! location get the same object until the service or one of its endpoints changes, so that callers
//! can cache data derived from it.

use std::{cmp::Reverse, net::IpAddr, sync::Arc};

use ambit_model::{
    Health, HealthPolicy, LoadBalancing, LoadBalancingMode, LoadBalancingScope, Locality, Service, Workload,
};
use ambit_resilience::{hash, score};
use arc_swap::ArcSwapOption;
use imbl::OrdMap;

/// One service, or the endpoints that reference a service that is not known yet.
#[derive(Debug, Default)]
pub(crate) struct ServiceEntry {
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) endpoints: OrdMap<Arc<str>, Arc<Workload>>,
    seen: ArcSwapOption<Endpoints>,
}

/// A changed entry starts without cached views.
impl Clone for ServiceEntry {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            endpoints: self.endpoints.clone(),
            seen: ArcSwapOption::default(),
        }
    }
}

impl ServiceEntry {
    /// Before a change in location: drops the cached views.
    pub(crate) fn clear_views(&mut self) {
        self.seen = ArcSwapOption::default();
    }

    /// The endpoints as `client` sees them. One view is cached, because all clients of a node share
    /// a location.
    pub(crate) fn view_for(&self, service: &Service, client: &Workload) -> Arc<Endpoints> {
        self.view(&service.load_balancing, Location::of(client, false), client)
    }

    /// The endpoints as a waypoint sees them. It selects for clients on other nodes, so node-local
    /// services keep the endpoints of every node.
    pub(crate) fn view_for_clients_of(&self, service: &Service, waypoint: &Workload) -> Arc<Endpoints> {
        let everywhere =
            LoadBalancing { mode: LoadBalancingMode::Standard, ..service.load_balancing.clone() };
        let balancing = if service.is_node_local() { &everywhere } else { &service.load_balancing };
        self.view(balancing, Location::of(waypoint, true), waypoint)
    }

    fn view(&self, balancing: &LoadBalancing, location: Location, client: &Workload) -> Arc<Endpoints> {
        let seen = self.seen.load();
        if let Some(endpoints) = seen.as_ref().filter(|endpoints| endpoints.location == location) {
            return endpoints.clone();
        }
        let own = Arc::new(Endpoints::new(balancing, &self.endpoints, client, location));
        let before = self.seen.compare_and_swap(&seen, Some(own.clone()));
        // If another thread was faster, its view is used, so that all callers get the same object.
        match before.as_ref().filter(|other| other.location == own.location) {
            Some(other) => other.clone(),
            None => own,
        }
    }
}

/// The properties of a client that load balancing uses.
#[derive(Debug, PartialEq, Eq)]
struct Location {
    network: Arc<str>,
    cluster: Arc<str>,
    node: Arc<str>,
    locality: Locality,
    /// The client is a waypoint that selects for others.
    is_waypoint: bool,
}

impl Location {
    fn of(client: &Workload, is_waypoint: bool) -> Self {
        Self {
            network: client.network.clone(),
            cluster: client.cluster_id.clone(),
            node: client.node.clone(),
            locality: client.locality.clone(),
            is_waypoint,
        }
    }
}

/// Eligible endpoints of a service for one client location, best tier first.
#[derive(Debug)]
pub struct Endpoints {
    location: Location,
    endpoints: Vec<Arc<Workload>>,
    /// Where each tier ends. Later tiers are used only when connecting to the earlier ones failed.
    tier_ends: Vec<usize>,
    /// Running sum of the weights of the first tier; empty when all weights are equal.
    cumulative: Vec<u64>,
}

impl Endpoints {
    fn new(
        balancing: &LoadBalancing,
        endpoints: &OrdMap<Arc<str>, Arc<Workload>>,
        client: &Workload,
        location: Location,
    ) -> Self {
        let mut ranked: Vec<(usize, &Arc<Workload>)> = endpoints
            .values()
            .filter(|endpoint| takes_traffic(endpoint, balancing.health_policy, client))
            .map(|endpoint| (rank(balancing, endpoint, client), endpoint))
            .collect();
        match balancing.mode {
            LoadBalancingMode::Strict => {
                ranked.retain(|(rank, _)| *rank == balancing.routing_preference.len());
            }
            LoadBalancingMode::Failover => ranked.sort_by_key(|(rank, _)| Reverse(*rank)),
            LoadBalancingMode::Standard | LoadBalancingMode::Passthrough => {}
        }
        let tiers = ranked.chunk_by(|(a, _), (b, _)| a == b).scan(0, |end, tier| {
            *end += tier.len();
            Some(*end)
        });
        let tier_ends: Vec<usize> = tiers.collect();
        let endpoints: Vec<_> = ranked.into_iter().map(|(_, endpoint)| endpoint.clone()).collect();
        let first_tier = endpoints.iter().take(tier_ends.first().copied().unwrap_or_default());
        let cumulative = cumulative(first_tier.map(|endpoint| endpoint.capacity));
        Self { location, endpoints, tier_ends, cumulative }
    }

    /// Whether there is no eligible endpoint.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The tiers, best first, without empty ones. A later tier is used only when no endpoint of the
    /// earlier ones works.
    pub fn tiers(&self) -> impl Iterator<Item = &[Arc<Workload>]> {
        let begins = std::iter::once(0).chain(self.tier_ends.iter().copied());
        begins.zip(&self.tier_ends).filter_map(|(begin, end)| self.endpoints.get(begin..*end))
    }

    /// Every endpoint once: first the one that the random number `pick` selects by weight, then the
    /// others of its tier, then the later tiers.
    pub(crate) fn picked_first(&self, pick: u64) -> impl Iterator<Item = &Arc<Workload>> {
        self.from(self.chosen(pick))
    }

    /// The same for one client of a service: with client affinity, always the same endpoint comes
    /// first as long as it is eligible.
    pub(crate) fn for_client(
        &self,
        service: &Service,
        client: &Workload,
        pick: u64,
    ) -> impl Iterator<Item = &Arc<Workload>> {
        self.from(if service.load_balancing.by_client { self.held_by(client) } else { self.chosen(pick) })
    }

    fn from(&self, first: usize) -> impl Iterator<Item = &Arc<Workload>> {
        let (tier, rest) = self.endpoints.split_at_checked(self.first_tier()).unwrap_or_default();
        let (before, from) = tier.split_at_checked(first).unwrap_or_default();
        from.iter().chain(before).chain(rest)
    }

    /// Rendezvous hashing of the client's address: when an endpoint goes, only its clients move,
    /// and every node selects the same endpoint.
    fn held_by(&self, client: &Workload) -> usize {
        let key = match client.addresses.first().map(IpAddr::to_canonical) {
            Some(IpAddr::V4(ip)) => hash(&ip.octets()),
            Some(IpAddr::V6(ip)) => hash(&ip.octets()),
            None => hash(client.uid.as_bytes()),
        };
        let tier = self.endpoints.get(..self.first_tier()).unwrap_or_default();
        let scored = tier.iter().map(|endpoint| score(key, hash(endpoint.uid.as_bytes())));
        scored.enumerate().max_by_key(|(_, score)| *score).map_or(0, |(at, _)| at)
    }

    fn first_tier(&self) -> usize {
        self.tier_ends.first().copied().unwrap_or_default()
    }

    fn chosen(&self, pick: u64) -> usize {
        match self.cumulative.last() {
            Some(total) => {
                let point = pick % total;
                self.cumulative.partition_point(|end| *end <= point)
            }
            None => usize::try_from(pick % (self.first_tier().max(1) as u64)).unwrap_or(0),
        }
    }
}

/// Another network is only reachable through a gateway, which this mesh does not support.
pub(crate) fn takes_traffic(endpoint: &Workload, health: HealthPolicy, client: &Workload) -> bool {
    let healthy = match health {
        HealthPolicy::OnlyHealthy => endpoint.health == Health::Healthy,
        HealthPolicy::AllowAll => true,
    };
    healthy && endpoint.capacity > 0 && !endpoint.addresses.is_empty() && endpoint.network == client.network
}

/// How many of the preferred scopes the endpoint shares with the client, counted from the first.
fn rank(balancing: &LoadBalancing, endpoint: &Workload, client: &Workload) -> usize {
    let shares = |scope: &LoadBalancingScope| match scope {
        LoadBalancingScope::Region => endpoint.locality.region == client.locality.region,
        LoadBalancingScope::Zone => endpoint.locality.zone == client.locality.zone,
        LoadBalancingScope::Subzone => endpoint.locality.subzone == client.locality.subzone,
        LoadBalancingScope::Node => endpoint.node == client.node,
        LoadBalancingScope::Cluster => endpoint.cluster_id == client.cluster_id,
        LoadBalancingScope::Network => endpoint.network == client.network,
    };
    match balancing.mode {
        LoadBalancingMode::Strict | LoadBalancingMode::Failover => {
            balancing.routing_preference.iter().take_while(|scope| shares(scope)).count()
        }
        LoadBalancingMode::Standard | LoadBalancingMode::Passthrough => 0,
    }
}

/// Running sums; empty when all weights are equal and an index is enough.
fn cumulative(weights: impl Iterator<Item = u32> + Clone) -> Vec<u64> {
    let mut alike = weights.clone();
    let first = alike.next();
    if alike.all(|weight| Some(weight) == first) {
        return Vec::new();
    }
    weights
        .scan(0_u64, |sum, weight| {
            *sum += u64::from(weight);
            Some(*sum)
        })
        .collect()
}
