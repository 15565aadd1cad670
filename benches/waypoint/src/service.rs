//! The waypoint's configuration: one service with authorization, a timeout, retries and a header.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ambit_model::{
    Action, Addressed, AppProtocol, BoundPort, BoundService, Clause, Destination, GatewayAddress,
    GatewayDestination, HBONE_PORT, Match, NamespacedName, NetworkAddress, Policy, PortMapping, RequestMatch,
    Rule, Scope, Service, ServicePort, Spiffe, StringMatch, TunnelProtocol, Workload,
    bound::{
        Backend, DestinationSettings, Filter, HeaderChange, HttpMatch, HttpRule, HttpTable, PathMatch,
        RequestPolicy, RequestTimeouts, Retry, Routes, WeightedBackend,
    },
};
use ambit_wds::{Packed, pack_bound_service, pack_service, pack_workload};
use anyhow::Result;

use crate::plan::{self, PORT, Places, VIP};

/// Prefix of the denied paths.
pub(crate) const DENIED_PREFIX: &str = "/admin/";
/// Further identities that the policy permits.
pub(crate) const EXTRA_PRINCIPALS: usize = 20;
/// Request timeout.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Retries.
pub(crate) const RETRIES: u32 = 2;
/// Name of the waypoint's pod.
pub(crate) const POD: &str = "waypoint-0";

/// The path of a route.
pub(crate) fn route_path(number: usize) -> String {
    format!("/routes/{number}")
}

/// The resources of the mesh: the service, its one endpoint, the waypoint.
pub(crate) fn addresses(places: &Places) -> Vec<Packed> {
    let endpoint = Workload {
        services: BTreeMap::from([(
            key(),
            vec![PortMapping { service_port: PORT, target_port: places.backend_plain().port() }],
        )]),
        addresses: vec![places.here],
        ..workload("backend-0", &plan::backend())
    };
    let waypoint =
        Workload { addresses: vec![places.proxies], native_tunnel: true, ..workload(POD, &plan::waypoint()) };
    let service = Service {
        name: "cart".into(),
        namespace: "shop".into(),
        hostname: key().name,
        addresses: vec![address(VIP)],
        ports: vec![ServicePort { port: PORT, target_port: places.backend_plain().port() }],
        waypoint: Some(GatewayAddress {
            destination: GatewayDestination::Address(address(places.proxies)),
            hbone_mtls_port: HBONE_PORT,
        }),
        canonical: true,
        ..Service::default()
    };
    vec![pack_service(&service), pack_workload(&endpoint), pack_workload(&waypoint)]
}

/// The compiled service, with this many routes before the matching one.
pub(crate) fn bound(routes: usize) -> Result<Packed> {
    let destination = Destination { service: key(), port: PORT };
    let settings = DestinationSettings { protocol: AppProtocol::Http, ..DestinationSettings::default() };
    let exact = (0..routes).map(|number| PathMatch::Exact(route_path(number).into()));
    let matches = exact.chain([PathMatch::default()]);
    let table = HttpTable {
        matches: matches
            .enumerate()
            .map(|(index, path)| (HttpMatch { path, ..HttpMatch::default() }, index))
            .collect(),
        rules: (0..=routes).map(|index| rule(index, &destination)).collect(),
    };
    let port = BoundPort {
        port: PORT,
        protocol: AppProtocol::Http,
        routes: Routes { http: Some(Arc::new(table)), ..Routes::default() },
        consumers: BTreeMap::new(),
    };
    let deny = RequestMatch { paths: vec![format!("{DENIED_PREFIX}*").parse()?], ..RequestMatch::default() };
    let deny = Match { request: Some(Box::new(deny)), ..Match::default() };
    let principal =
        |identity: Spiffe| StringMatch::Exact(identity.to_string().trim_start_matches("spiffe://").into());
    let others = (0..EXTRA_PRINCIPALS).map(|number| principal(plan::other(number)));
    let allow = Match { principals: others.chain([principal(plan::client())]).collect(), ..Match::default() };
    Ok(pack_bound_service(&BoundService {
        key: key(),
        addressed: Addressed::Service,
        ports: vec![port],
        destinations: BTreeMap::from([(destination, settings)]),
        requests: Arc::new(RequestPolicy::default()),
        authentication: Vec::new(),
        authorization: vec![policy("no-admin", Action::Deny, deny), policy("callers", Action::Allow, allow)],
        checks: Vec::new(),
        unenforceable: Vec::new(),
    }))
}

fn rule(index: usize, destination: &Destination) -> HttpRule {
    let header =
        HeaderChange { set: vec![("x-served-by".into(), "benchmark".into())], ..HeaderChange::default() };
    let backend = Backend::Service(destination.clone());
    HttpRule {
        name: format!("HTTPRoute/shop/cart/{index}").into(),
        filters: vec![Filter::ResponseHeaders(header)],
        backends: vec![WeightedBackend { weight: 1, backend, filters: Vec::new() }],
        timeouts: RequestTimeouts { request: Some(REQUEST_TIMEOUT), backend: None },
        retry: Some(Retry { codes: vec![503], attempts: RETRIES, backoff: None }),
        ..HttpRule::default()
    }
}

fn policy(name: &str, action: Action, matching: Match) -> Arc<Policy> {
    Arc::new(Policy {
        key: NamespacedName::new("shop", name),
        scope: Scope::WorkloadSelector,
        action,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![matching] }] }],
        dry_run: false,
    })
}

fn key() -> NamespacedName {
    NamespacedName::new("shop", "cart.shop.svc.cluster.local")
}

fn address(address: std::net::IpAddr) -> NetworkAddress {
    NetworkAddress { network: "".into(), address }
}

fn workload(name: &str, identity: &Spiffe) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/shop/{name}").into(),
        name: name.into(),
        namespace: identity.namespace.clone(),
        tunnel_protocol: TunnelProtocol::Hbone,
        trust_domain: identity.trust_domain.clone(),
        service_account: identity.service_account.clone(),
        node: "node".into(),
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        workload_name: name.into(),
        cluster_id: "Kubernetes".into(),
        capacity: 1,
        ..Workload::default()
    }
}
