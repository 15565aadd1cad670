//! State that outlives a change of configuration: endpoints with their health, circuit breakers, rate-limit buckets.
//!
//! Invariant: owned by the one task that follows the store; requests hold references to what they use.

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

/// State by destination, and by service and rule.
#[derive(Debug)]
pub struct States {
    clock: Instant,
    upstreams: HashMap<Destination, Followed>,
    limits: HashMap<(NamespacedName, Arc<str>), Arc<RateLimits>>,
}

/// A destination, and its endpoints as of the last update.
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
    /// The destination, configured with `settings` from now on.
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

    /// The buckets of a service or of one of its rules; they are kept while the limits do not change.
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

    /// Updates the endpoints of every destination, as seen from `own`, the waypoint's pod.
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

    /// Drops state that no service uses.
    pub fn sweep(&mut self) {
        self.upstreams.retain(|_, followed| Arc::strong_count(&followed.upstream) > 1);
        self.limits.retain(|_, limits| Arc::strong_count(limits) > 1);
    }
}

/// The endpoints that serve the port. Pods of other namespaces that only waypoints may reach are left out: they rely on this
/// waypoint to enforce the policies of their own services, which do not apply to requests for a foreign service.
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
