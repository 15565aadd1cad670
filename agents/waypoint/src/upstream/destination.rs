//! A destination: its endpoints, load balancing, circuit breaker and open requests.
//!
//! Invariant: the health of endpoints and the counts of open requests outlive every change of configuration, which changes
//! limits and the set of endpoints only.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use ambit_model::{
    AppProtocol, Destination, NamespacedName, Workload,
    bound::{Balancer, DestinationSettings, HashKey, SessionPersistence},
};
use ambit_resilience::{Breaker, Choice, Endpoints, Member, UnderWay};
use ambit_route::{RequestHead, session};
use ambit_store::{OutboundRequest, route_to_pod};
use arc_swap::ArcSwap;

use super::{ConnectionLimit, Endpoint};

/// A destination that some bound service leads to.
#[derive(Debug)]
pub struct Upstream {
    /// Service and port it stands for.
    pub destination: Destination,
    /// Its circuit breaker, with the requests and connections that count against it.
    pub breaker: Arc<Breaker>,
    /// The breaker's limit of connections, and the requests that wait below it.
    pub connections: Arc<ConnectionLimit>,
    state: ArcSwap<State>,
}

#[derive(Debug)]
struct State {
    settings: DestinationSettings,
    members: Members,
    endpoints: Endpoints<Arc<Endpoint>>,
}

/// The endpoints of a destination.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// All of them.
    pub all: Vec<Member<Arc<Endpoint>>>,
    /// Clients only get endpoints of their own node (`internalTrafficPolicy: Local`).
    pub node_local: bool,
}

/// One endpoint for one try.
#[derive(Debug)]
pub struct Chosen {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Counts as an open request of the endpoint.
    pub under_way: UnderWay,
}

/// What of a request the choice of its endpoint depends on.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Its head; `None` for a byte stream.
    pub head: Option<RequestHead<'a>>,
    /// Address of the client.
    pub client: std::net::IpAddr,
    /// Node of the client, if known.
    pub node: Option<&'a str>,
    /// Uid of the pod, if the client addressed one.
    pub pod: Option<&'a Arc<str>>,
}

impl State {
    /// Whether a client on `node` may get an endpoint.
    fn is_for(&self, node: Option<&str>, endpoint: &Endpoint) -> bool {
        !self.members.node_local || node.is_some_and(|node| *endpoint.workload.node == *node)
    }
}

impl Upstream {
    /// A destination without endpoints yet.
    pub fn new(destination: Destination, settings: DestinationSettings, clock: Instant) -> Self {
        let breaker = Breaker::new(&settings.policy, clock);
        let endpoints = Endpoints::new(&settings.policy, Vec::new(), clock);
        let state = State { settings, members: Members::default(), endpoints };
        let connections = ConnectionLimit::new(breaker.clone());
        Self { destination, breaker, connections, state: ArcSwap::from_pointee(state) }
    }

    /// One port of one pod, for clients that address the pod itself; `None` if the pod cannot be reached.
    pub fn of_pod(pod: &Arc<Workload>, address: SocketAddr, own: &Workload) -> Option<Self> {
        let service = NamespacedName { namespace: pod.namespace.clone(), name: pod.name.clone() };
        let destination = Destination { service, port: address.port() };
        let route = route_to_pod(pod, OutboundRequest { source: own, destination: address });
        let endpoint = Arc::new(Endpoint::of_route(&route)?);
        let upstream = Self::new(destination, DestinationSettings::default(), Instant::now());
        let all = vec![Member { uid: pod.uid.clone(), weight: 1, tier: 0, target: endpoint }];
        upstream.set_members(Members { all, node_local: false });
        Some(upstream)
    }

    /// Changes the settings.
    pub fn configure(&self, settings: &DestinationSettings) {
        let state = self.state.load();
        if state.settings == *settings {
            return;
        }
        self.breaker.change(&settings.policy);
        self.connections.limits_changed();
        self.replace(settings.clone(), state.members.clone());
    }

    /// Changes the set of endpoints.
    pub fn set_members(&self, members: Members) {
        self.replace(self.state.load().settings.clone(), members);
    }

    /// Has one caller per destination: the task that follows the store, or the tunnel that the destination was made for.
    fn replace(&self, settings: DestinationSettings, members: Members) {
        let endpoints = self.state.load().endpoints.changed(&settings.policy, members.all.clone());
        self.state.store(Arc::new(State { settings, members, endpoints }));
    }

    /// The declared protocol of its endpoints.
    pub fn protocol(&self) -> AppProtocol {
        self.state.load().settings.protocol
    }

    /// Whether clients only get endpoints of their own node, so that the node of a client has to be known.
    pub fn is_node_local(&self) -> bool {
        self.state.load().members.node_local
    }

    /// Number of endpoints.
    pub fn endpoints(&self) -> usize {
        self.state.load().members.all.len()
    }

    /// An endpoint for one try; `None` if none is available. `tried` are the uids of those that failed this request.
    pub fn choose(&self, selection: Selection<'_>, tried: &[Arc<str>], random: u64) -> Option<Chosen> {
        let state = self.state.load();
        let now = Instant::now();
        if let Some(uid) = selection.pod {
            let endpoint = state.endpoints.get(uid).filter(|_| !tried.contains(uid))?;
            return Some(Chosen { endpoint: endpoint.target.clone(), under_way: endpoint.begin(now) });
        }
        let key = key(&state.settings.policy.balancer, selection);
        let choice = Choice { now, random, key, tried };
        let endpoint =
            state.endpoints.choose_among(&choice, |endpoint| state.is_for(selection.node, endpoint))?;
        Some(Chosen { endpoint: endpoint.target.clone(), under_way: endpoint.begin(now) })
    }

    /// The endpoint of the client's session, while it exists and is not ejected.
    pub fn stay(
        &self,
        policy: &SessionPersistence,
        (head, node): (&RequestHead<'_>, Option<&str>),
    ) -> Option<(Chosen, session::Session)> {
        let belongs = session::read(policy, head, SystemTime::now())?;
        let now = Instant::now();
        let state = self.state.load();
        let is_it = |uid: &str| session::endpoint(&policy.route, uid) == belongs.endpoint;
        let mut endpoints = state.endpoints.iter().filter(|endpoint| state.is_for(node, &endpoint.target));
        let endpoint = endpoints.find(|endpoint| is_it(&endpoint.uid) && !endpoint.is_ejected(now))?;
        Some((Chosen { endpoint: endpoint.target.clone(), under_way: endpoint.begin(now) }, belongs))
    }
}

/// The key of a consistent hash, if the balancer uses one and the request has the value.
fn key(balancer: &Balancer, selection: Selection<'_>) -> Option<u64> {
    let Balancer::ConsistentHash(key) = balancer else { return None };
    let hash = ambit_resilience::hash;
    match key {
        HashKey::Header(name) => Some(hash(selection.head?.headers.get(&**name)?.as_bytes())),
        HashKey::Cookie(name) => Some(hash(selection.head?.cookie(name)?.as_bytes())),
        HashKey::SourceIp => Some(match selection.client {
            std::net::IpAddr::V4(ip) => hash(&ip.octets()),
            std::net::IpAddr::V6(ip) => hash(&ip.octets()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, node: &str) -> Member<Arc<Endpoint>> {
        let workload = Workload { uid: name.into(), node: node.into(), ..Workload::default() };
        let endpoint =
            Endpoint { workload: workload.into(), address: ([10, 0, 0, 1], 80).into(), tunnel: None };
        Member { uid: name.into(), weight: 1, tier: 0, target: endpoint.into() }
    }

    #[test]
    fn a_client_of_a_node_local_service_is_only_given_endpoints_of_its_own_node() {
        let destination = Destination { service: NamespacedName::new("shop", "cart"), port: 80 };
        let upstream = Upstream::new(destination, DestinationSettings::default(), Instant::now());
        let all = vec![member("a", "n1"), member("b", "n2")];
        let chosen = |node: Option<&str>, tried: &[Arc<str>], random| {
            let selection = Selection { head: None, client: [10, 0, 0, 9].into(), node, pod: None };
            let chosen = upstream.choose(selection, tried, random)?;
            Some(chosen.endpoint.workload.uid.to_string())
        };
        for node_local in [true, false] {
            upstream.set_members(Members { all: all.clone(), node_local });
            assert_eq!(upstream.is_node_local(), node_local);
            let seen = |node: Option<&str>, tried: &[Arc<str>]| {
                let draws = (0..64_u64).map(|draw| draw << 58);
                draws
                    .filter_map(|random| chosen(node, tried, random))
                    .collect::<std::collections::BTreeSet<_>>()
            };
            let everybody = ["a", "b"].map(str::to_owned);
            let only = |name: &str| if node_local { vec![name.to_owned()] } else { everybody.to_vec() };
            assert_eq!(Vec::from_iter(seen(Some("n1"), &[])), only("a"));
            assert_eq!(Vec::from_iter(seen(Some("n2"), &[])), only("b"));
            let after_a = if node_local { vec!["a".to_owned()] } else { vec!["b".to_owned()] };
            assert_eq!(
                Vec::from_iter(seen(Some("n1"), &["a".into()])),
                after_a,
                "no other, also when it failed"
            );
            let elsewhere = if node_local { Vec::new() } else { everybody.to_vec() };
            assert_eq!(Vec::from_iter(seen(Some("n3"), &[])), elsewhere);
            assert_eq!(Vec::from_iter(seen(None, &[])), elsewhere, "a client nobody knows");
        }
    }
}
