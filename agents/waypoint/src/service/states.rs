//! What outlives a change of configuration: endpoints with what is known of them, breakers, buckets.
//!
//! Invariant: owned by the one thread that follows the store; requests hold what they need of it.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use ambit_model::{
    Destination, NamespacedName, Service, Workload,
    bound::{DestinationSettings, RateLimit},
};
use ambit_resilience::{Member, RateLimits};
use ambit_store::{Endpoints, OutboundRequest, Snapshot, route_to};

use crate::upstream::{Endpoint, Members, Upstream};

/// All of it.
#[derive(Debug)]
pub struct States {
    clock: Instant,
    upstreams: HashMap<Destination, Followed>,
    limits: HashMap<(NamespacedName, Arc<str>), Arc<RateLimits>>,
}

/// A destination, and the endpoints it was given last.
#[derive(Debug)]
struct Followed {
    upstream: Arc<Upstream>,
    seen: Option<Arc<Endpoints>>,
}

impl Default for States {
    fn default() -> Self {
        Self { clock: Instant::now(), upstreams: HashMap::new(), limits: HashMap::new() }
    }
}

impl States {
    /// The destination, treated as `settings` say from now on.
    pub fn upstream(&mut self, destination: &Destination, settings: &DestinationSettings) -> Arc<Upstream> {
        match self.upstreams.get(destination) {
            Some(Followed { upstream, .. }) => {
                upstream.configure(settings);
                upstream.clone()
            }
            None => {
                let upstream = Arc::new(Upstream::new(destination.clone(), settings.clone(), self.clock));
                let followed = Followed { upstream: upstream.clone(), seen: None };
                self.upstreams.insert(destination.clone(), followed);
                upstream
            }
        }
    }

    /// The buckets of `owner`: the same as before when its limits are.
    pub fn limits(
        &mut self,
        (service, rule): (&NamespacedName, &str),
        limits: &[RateLimit],
    ) -> Arc<RateLimits> {
        let key = (service.clone(), rule.into());
        if let Some(kept) = self.limits.get(&key).filter(|kept| kept.limits() == limits) {
            return kept.clone();
        }
        let fresh = Arc::new(RateLimits::new(limits, self.clock));
        self.limits.insert(key, fresh.clone());
        fresh
    }

    /// Gives every destination the endpoints that `own`, the waypoint's pod, sees now.
    pub fn follow(&mut self, snapshot: &Snapshot, own: &Workload) {
        for (destination, followed) in &mut self.upstreams {
            let now = snapshot.endpoints(&destination.service, own);
            let same = match (&followed.seen, &now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (None, None) => true,
                (None, Some(_)) | (Some(_), None) => false,
            };
            if same {
                continue;
            }
            let service = snapshot.service(&destination.service);
            let members = now.as_deref().zip(service).map(|(now, service)| Members {
                all: members(now, service, (destination, own)),
                node_local: service.is_node_local(),
            });
            followed.upstream.set_members(members.unwrap_or_default());
            followed.seen = now;
        }
    }

    /// Forgets what no service uses any more.
    pub fn sweep(&mut self) {
        self.upstreams.retain(|_, followed| Arc::strong_count(&followed.upstream) > 1);
        self.limits.retain(|_, limits| Arc::strong_count(limits) > 1);
    }
}

/// An endpoint that does not serve the port is left out. So is a pod of another namespace that only waypoints may reach:
/// it trusts this one with what its own services' policies admit, and not with what a foreign service leads to it.
fn members(
    endpoints: &Endpoints,
    service: &Arc<Service>,
    (destination, own): (&Destination, &Workload),
) -> Vec<Member<Arc<Endpoint>>> {
    let address = service.addresses.first().map_or(Ipv4Addr::UNSPECIFIED.into(), |vip| vip.address);
    let request = OutboundRequest { source: own, destination: SocketAddr::new(address, destination.port) };
    let tiers = (0_u32..).zip(endpoints.tiers());
    let with_tier =
        tiers.flat_map(|(tier, endpoints)| endpoints.iter().map(move |endpoint| (tier, endpoint)));
    with_tier
        .filter(|(_, endpoint)| endpoint.namespace == service.namespace || !endpoint.is_guarded())
        .filter_map(|(tier, endpoint)| {
            let target = Endpoint::of_route(&route_to(endpoint, service, request)?)?;
            let (uid, weight) = (endpoint.uid.clone(), endpoint.capacity);
            Some(Member { uid, weight, tier, target: Arc::new(target) })
        })
        .collect()
}
