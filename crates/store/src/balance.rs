//! The endpoints of one service as seen from one place, laid out so that choosing one does not walk them.
//!
//! Invariant: [`Endpoints`] holds exactly those that may take traffic, best tier first. Who asks from one place gets
//! the same object until the service or one of its endpoints changes, so that callers may keep what they know of it.

use std::{cmp::Reverse, net::IpAddr, sync::Arc};

use ambit_model::{
    Health, HealthPolicy, LoadBalancing, LoadBalancingMode, LoadBalancingScope, Locality, Service, Workload,
};
use ambit_resilience::{hash, score};
use arc_swap::ArcSwapOption;
use imbl::OrdMap;

/// One service (or the endpoints that name one that is not known yet).
#[derive(Debug, Default)]
pub(crate) struct ServiceEntry {
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) endpoints: OrdMap<Arc<str>, Arc<Workload>>,
    seen: ArcSwapOption<Endpoints>,
}

/// A changed entry starts as one nobody looked at.
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
    /// For a change in place: what was computed from the old contents goes.
    pub(crate) fn forget_seen(&mut self) {
        self.seen = ArcSwapOption::default();
    }

    /// The endpoints as `client` sees them. All clients of a node share a place, so one view is kept.
    pub(crate) fn seen_by(&self, service: &Service, client: &Workload) -> Arc<Endpoints> {
        self.view(&service.load_balancing, Place::of(client, false), client)
    }

    /// As a waypoint sees them, which chooses for clients of other nodes: those of every node, where a client may only be
    /// given one of its own.
    pub(crate) fn seen_for_clients(&self, service: &Service, waypoint: &Workload) -> Arc<Endpoints> {
        let everywhere =
            LoadBalancing { mode: LoadBalancingMode::Standard, ..service.load_balancing.clone() };
        let balancing = if service.is_node_local() { &everywhere } else { &service.load_balancing };
        self.view(balancing, Place::of(waypoint, true), waypoint)
    }

    fn view(&self, balancing: &LoadBalancing, place: Place, client: &Workload) -> Arc<Endpoints> {
        let seen = self.seen.load();
        if let Some(endpoints) = seen.as_ref().filter(|endpoints| endpoints.place == place) {
            return endpoints.clone();
        }
        let own = Arc::new(Endpoints::new(balancing, &self.endpoints, (client, place)));
        let before = self.seen.compare_and_swap(&seen, Some(own.clone()));
        // Another thread may have been faster: then its view is the one that everybody gets.
        match before.as_ref().filter(|other| other.place == own.place) {
            Some(other) => other.clone(),
            None => own,
        }
    }
}

/// What load balancing may look at about a client.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    network: Arc<str>,
    cluster: Arc<str>,
    node: Arc<str>,
    locality: Locality,
    /// It chooses for others.
    is_waypoint: bool,
}

impl Place {
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

/// Endpoints of a service that may take traffic from one place, best tier first.
#[derive(Debug)]
pub struct Endpoints {
    place: Place,
    endpoints: Vec<Arc<Workload>>,
    /// Where each tier ends; later tiers only serve when connecting to the earlier ones failed.
    tier_ends: Vec<usize>,
    /// Running sum of the weights of the first tier; empty when they are all alike.
    cumulative: Vec<u64>,
}

impl Endpoints {
    fn new(
        balancing: &LoadBalancing,
        endpoints: &OrdMap<Arc<str>, Arc<Workload>>,
        (client, place): (&Workload, Place),
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
        Self { place, endpoints, tier_ends, cumulative }
    }

    /// Whether nobody may take traffic.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The tiers, best first, none of them empty; a later one only serves when no endpoint of the earlier ones can.
    pub fn tiers(&self) -> impl Iterator<Item = &[Arc<Workload>]> {
        let begins = std::iter::once(0).chain(self.tier_ends.iter().copied());
        begins.zip(&self.tier_ends).filter_map(|(begin, end)| self.endpoints.get(begin..*end))
    }

    /// Every endpoint once, the one that the random number `pick` chooses by weight first, then the others of
    /// its tier, then the later tiers.
    pub(crate) fn picked_first(&self, pick: u64) -> impl Iterator<Item = &Arc<Workload>> {
        self.from(self.chosen(pick))
    }

    /// The same for one client of a service: always the same one first where the service wants that, until it can take no
    /// traffic any more.
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

    /// Rendezvous hashing of the client's address: only the clients of an endpoint that goes move, and every node agrees.
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

/// Another network is only reachable through a gateway, which this mesh does not route through.
pub(crate) fn takes_traffic(endpoint: &Workload, health: HealthPolicy, client: &Workload) -> bool {
    let healthy = match health {
        HealthPolicy::OnlyHealthy => endpoint.health == Health::Healthy,
        HealthPolicy::AllowAll => true,
    };
    healthy && endpoint.capacity > 0 && !endpoint.addresses.is_empty() && endpoint.network == client.network
}

/// How many of the preferred scopes, from the first on, the endpoint shares with the client.
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

/// Running sums, or nothing when all weights are alike and an index will do.
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
