//! Routing tables: requests against a small mesh.

mod waypoint;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ambit_model::{
    Health, HealthPolicy, LoadBalancing, LoadBalancingScope, Locality, NamespacedName, NetworkMode,
    PortMapping, ServicePort, TunnelProtocol, WorkloadKind,
};
use proptest::prelude::*;

use super::*;
use crate::{AddressUpdate, Store};

const VIP: &str = "10.96.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key() -> NamespacedName {
    NamespacedName::new("shop", "cart.shop.svc.cluster.local")
}

fn pod(name: &str, address: &str) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/shop/{name}").into(),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![ip(address)],
        tunnel_protocol: TunnelProtocol::Hbone,
        trust_domain: "cluster.local".into(),
        service_account: name.into(),
        node: "n1".into(),
        kind: WorkloadKind::Pod,
        capacity: 1,
        ..Workload::default()
    }
}

fn endpoint(name: &str, address: &str) -> Workload {
    Workload { services: BTreeMap::from([(key(), vec![])]), ..pod(name, address) }
}

fn plain(workload: Workload) -> Workload {
    Workload { tunnel_protocol: TunnelProtocol::None, ..workload }
}

fn cart() -> Service {
    Service {
        name: "cart".into(),
        namespace: "shop".into(),
        hostname: key().name,
        addresses: vec![NetworkAddress { network: "".into(), address: ip(VIP) }],
        ports: vec![ServicePort { port: 80, target_port: 8080 }, ServicePort { port: 81, target_port: 0 }],
        canonical: true,
        ..Service::default()
    }
}

fn client() -> Workload {
    pod("web", "10.0.0.9")
}

fn snapshot(services: Vec<Service>, workloads: Vec<Workload>) -> Arc<Snapshot> {
    let store = Store::new();
    let workloads = workloads.into_iter().chain([client()]).map(AddressUpdate::Workload);
    store.apply_addresses(services.into_iter().map(AddressUpdate::Service).chain(workloads).collect(), &[]);
    store.snapshot()
}

/// A route as short text.
fn told(route: &Route) -> String {
    match route {
        Route::Hbone { address, authority, upstream, hop: Hop::Last, .. } => {
            format!("hbone {address} for {authority} ({})", upstream.name)
        }
        Route::Hbone { address, authority, upstream, hop: Hop::Waypoint, .. } => {
            format!("hbone {address} for {authority} through {}", upstream.name)
        }
        Route::Tcp { address, upstream: Some(upstream), .. } => format!("tcp {address} ({})", upstream.name),
        Route::Tcp { address, upstream: None, .. } => format!("tcp {address}"),
        Route::Unknown(address) => format!("ask about {address}"),
        Route::Refused(refusal) => format!("refused: {refusal:?}"),
    }
}

fn from_client(snapshot: &Snapshot, destination: &str, pick: u64) -> Route {
    resolve(snapshot, OutboundRequest { source: &client(), destination: at(destination) }, pick)
}

fn assert_routes(table: Vec<(&str, Arc<Snapshot>, &str, &str)>) {
    for (name, snapshot, destination, expected) in table {
        assert_eq!(told(&from_client(&snapshot, destination, 7)), expected, "{name}");
    }
}

#[test]
fn a_pod_is_reached_as_it_takes_traffic_and_what_is_surely_outside_is_passed_through() {
    let host = Workload { network_mode: NetworkMode::HostNetwork, ..plain(pod("host", "192.168.0.1")) };
    let mapped = SocketAddr::new(ip("::ffff:10.0.0.1"), 80).to_string();
    let s = snapshot(
        vec![],
        vec![
            pod("a", "10.0.0.1"),
            plain(pod("b", "10.0.0.2")),
            host,
            Workload { health: Health::Unhealthy, ..pod("sick", "10.0.0.3") },
            Workload { network: "other".into(), ..pod("far", "10.0.0.5") },
            pod("six", "fd00::1"),
        ],
    );
    assert_routes(vec![
        ("tunnel", s.clone(), "10.0.0.1:80", "hbone 10.0.0.1:15008 for 10.0.0.1:80 (a)"),
        ("mapped", s.clone(), &mapped, "hbone 10.0.0.1:15008 for 10.0.0.1:80 (a)"),
        ("ipv6", s.clone(), "[fd00::1]:80", "hbone [fd00::1]:15008 for [fd00::1]:80 (six)"),
        ("no tunnel", s.clone(), "10.0.0.2:80", "tcp 10.0.0.2:80 (b)"),
        ("node address", s.clone(), "192.168.0.1:80", "tcp 192.168.0.1:80"),
        (
            "health is not asked of a pod address",
            s.clone(),
            "10.0.0.3:1",
            "hbone 10.0.0.3:15008 for 10.0.0.3:1 (sick)",
        ),
        ("same address of another network", s.clone(), "10.0.0.5:80", "ask about 10.0.0.5:80"),
        ("private", s.clone(), "192.168.0.2:80", "ask about 192.168.0.2:80"),
        ("outside", s.clone(), "1.1.1.1:443", "tcp 1.1.1.1:443"),
        ("itself", s, "10.0.0.9:80", "tcp 10.0.0.9:80 (web)"),
    ]);
}

#[test]
fn a_service_is_reached_on_the_port_that_serves_it() {
    let named = |ports: &[(u16, u16)]| {
        let ports = ports.iter().map(|(service_port, target_port)| PortMapping {
            service_port: *service_port,
            target_port: *target_port,
        });
        Workload { services: BTreeMap::from([(key(), ports.collect())]), ..endpoint("a", "10.0.0.1") }
    };
    let no_port =
        "refused: NoSuchPort(NamespacedName { namespace: \"shop\", name: \"cart.shop.svc.cluster.local\" }, ";
    let by_service = snapshot(vec![cart()], vec![endpoint("a", "10.0.0.1")]);
    assert_routes(vec![
        ("target port", by_service.clone(), "10.96.0.1:80", "hbone 10.0.0.1:15008 for 10.0.0.1:8080 (a)"),
        ("named, nobody says", by_service.clone(), "10.96.0.1:81", &format!("{no_port}81)")),
        ("not a port of it", by_service, "10.96.0.1:82", &format!("{no_port}82)")),
        (
            "the endpoint says",
            snapshot(vec![cart()], vec![named(&[(80, 9090)])]),
            "10.96.0.1:80",
            "hbone 10.0.0.1:15008 for 10.0.0.1:9090 (a)",
        ),
        (
            "named",
            snapshot(vec![cart()], vec![named(&[(81, 7070)])]),
            "10.96.0.1:81",
            "hbone 10.0.0.1:15008 for 10.0.0.1:7070 (a)",
        ),
        (
            "an endpoint without the named port is passed over",
            snapshot(
                vec![cart()],
                vec![named(&[(81, 7070)]), endpoint("b", "10.0.0.2"), endpoint("c", "10.0.0.3")],
            ),
            "10.96.0.1:81",
            "hbone 10.0.0.1:15008 for 10.0.0.1:7070 (a)",
        ),
        (
            "an endpoint without tunnel",
            snapshot(vec![cart()], vec![plain(endpoint("a", "10.0.0.1"))]),
            "10.96.0.1:80",
            "tcp 10.0.0.1:8080 (a)",
        ),
    ]);
}

#[test]
fn an_endpoint_takes_traffic_only_when_it_may() {
    let sick = || Workload { health: Health::Unhealthy, ..endpoint("sick", "10.0.0.1") };
    let none = || Workload { capacity: 0, ..endpoint("none", "10.0.0.2") };
    let far = || Workload { network: "other".into(), ..endpoint("far", "10.0.0.3") };
    let nowhere = || Workload { addresses: vec![], ..endpoint("nowhere", "10.0.0.4") };
    let unready = LoadBalancing { health_policy: HealthPolicy::AllowAll, ..LoadBalancing::default() };
    let refused = "refused: NoHealthyEndpoint(NamespacedName { namespace: \"shop\", name: \"cart.shop.svc.cluster.local\" })";
    let passthrough = LoadBalancing { mode: LoadBalancingMode::Passthrough, ..LoadBalancing::default() };
    assert_routes(vec![
        ("no endpoint", snapshot(vec![cart()], vec![]), "10.96.0.1:80", refused),
        (
            "none that may",
            snapshot(vec![cart()], vec![sick(), none(), far(), nowhere()]),
            "10.96.0.1:80",
            refused,
        ),
        (
            "one that may",
            snapshot(vec![cart()], vec![sick(), none(), endpoint("ok", "10.0.0.5"), far()]),
            "10.96.0.1:80",
            "hbone 10.0.0.5:15008 for 10.0.0.5:8080 (ok)",
        ),
        (
            "not ready is published",
            snapshot(vec![Service { load_balancing: unready, ..cart() }], vec![sick()]),
            "10.96.0.1:80",
            "hbone 10.0.0.1:15008 for 10.0.0.1:8080 (sick)",
        ),
        (
            "passthrough",
            snapshot(vec![Service { load_balancing: passthrough, ..cart() }], vec![]),
            "10.96.0.1:80",
            "tcp 10.96.0.1:80",
        ),
    ]);
}

#[test]
fn a_pod_that_reaches_itself_through_its_service_stays_in_its_namespace() {
    let me = Workload { services: BTreeMap::from([(key(), vec![])]), ..client() };
    let store = Store::new();
    store.apply_addresses(vec![AddressUpdate::Service(cart()), AddressUpdate::Workload(me.clone())], &[]);
    let route = resolve(&store.load(), OutboundRequest { source: &me, destination: at("10.96.0.1:80") }, 0);
    assert_eq!(told(&route), "tcp 10.0.0.9:8080 (web)");
}

#[test]
fn nothing_is_routed_before_addresses_are_known() {
    assert_eq!(
        from_client(&Snapshot::default(), "1.1.1.1:443", 0),
        Route::Refused(Refusal::AddressesNotReceived)
    );
}

#[test]
fn the_address_of_the_family_asked_for_is_preferred() {
    let both = Workload { addresses: vec![ip("fd00::1"), ip("10.0.0.1")], ..endpoint("a", "10.0.0.1") };
    let vip6 = NetworkAddress { network: "".into(), address: ip("fd96::1") };
    let service = Service { addresses: [cart().addresses, vec![vip6]].concat(), ..cart() };
    let s = snapshot(vec![service.clone()], vec![both]);
    assert_eq!(told(&from_client(&s, "10.96.0.1:80", 0)), "hbone 10.0.0.1:15008 for 10.0.0.1:8080 (a)");
    assert_eq!(told(&from_client(&s, "[fd96::1]:80", 0)), "hbone [fd00::1]:15008 for [fd00::1]:8080 (a)");
    let s = snapshot(vec![service], vec![endpoint("a", "10.0.0.1")]);
    assert_eq!(told(&from_client(&s, "[fd96::1]:80", 0)), "hbone 10.0.0.1:15008 for 10.0.0.1:8080 (a)");
}

#[test]
fn a_virtual_address_of_several_services_means_the_own_then_the_canonical_one() {
    let service = |namespace: &str, canonical| Service {
        namespace: namespace.into(),
        hostname: "h".into(),
        canonical,
        ..cart()
    };
    let table = [
        (vec![service("a", false), service("b", true), service("shop", false)], "shop"),
        (vec![service("a", false), service("b", true), service("c", true)], "b"),
        (vec![service("b", false), service("a", false)], "a"),
    ];
    let vip = NetworkAddress { network: "".into(), address: ip(VIP) };
    for (services, expected) in table {
        let s = snapshot(services, vec![]);
        assert_eq!(&*s.service_by_vip(&vip, "shop").unwrap().namespace, expected);
    }
}

#[test]
fn the_certificate_may_show_the_pod_or_what_the_service_adds() {
    let service = Service { subject_alt_names: vec!["spiffe://td/ns/x/sa/y".into()], ..cart() };
    let s = snapshot(vec![service], vec![endpoint("a", "10.0.0.1"), plain(pod("b", "10.0.0.2"))]);
    let expected = |destination| -> Vec<String> {
        from_client(&s, destination, 0).expected_identities().iter().map(ToString::to_string).collect()
    };
    assert_eq!(expected("10.96.0.1:80"), ["spiffe://cluster.local/ns/shop/sa/a", "spiffe://td/ns/x/sa/y"]);
    assert_eq!(expected("10.0.0.1:80"), ["spiffe://cluster.local/ns/shop/sa/a"]);
    assert!(expected("10.0.0.2:80").is_empty());
}

fn chosen(snapshot: &Snapshot, pick: u64) -> String {
    from_client(snapshot, "10.96.0.1:80", pick).upstream().unwrap().name.to_string()
}

#[test]
fn endpoints_are_chosen_by_weight() {
    let weighted = |name: &str, address: &str, capacity| Workload { capacity, ..endpoint(name, address) };
    let count = |snapshot: &Snapshot| {
        let mut counts = BTreeMap::new();
        (0..600).for_each(|pick| *counts.entry(chosen(snapshot, pick)).or_insert(0) += 1);
        counts.into_values().collect::<Vec<_>>()
    };
    let alike = snapshot(vec![cart()], vec![weighted("a", "10.0.0.1", 3), weighted("b", "10.0.0.2", 3)]);
    assert_eq!(count(&alike), [300, 300]);
    let unlike = snapshot(
        vec![cart()],
        vec![weighted("a", "10.0.0.1", 1), weighted("b", "10.0.0.2", 2), weighted("c", "10.0.0.3", 3)],
    );
    assert_eq!(count(&unlike), [100, 200, 300]);
}

#[test]
fn locality_prefers_or_demands_as_the_service_says() {
    use LoadBalancingScope::{Network, Node, Region, Zone};
    let place = |name: &str, address: &str, zone: &str, node: &str| Workload {
        locality: Locality { region: "r".into(), zone: zone.into(), subzone: "".into() },
        node: node.into(),
        ..endpoint(name, address)
    };
    let endpoints = || vec![place("far", "10.0.0.1", "z2", "n2"), place("near", "10.0.0.2", "z1", "n2")];
    let here = place("web", "10.0.0.9", "z1", "n1");
    let table = [
        ("failover to the zone", LoadBalancingMode::Failover, vec![Region, Zone, Node], vec!["near"]),
        ("network first", LoadBalancingMode::Failover, vec![Network, Region, Zone], vec!["near"]),
        ("no preference", LoadBalancingMode::Failover, vec![], vec!["far", "near"]),
        ("strict zone", LoadBalancingMode::Strict, vec![Zone], vec!["near"]),
        ("strict node", LoadBalancingMode::Strict, vec![Node], vec![]),
        ("standard", LoadBalancingMode::Standard, vec![Zone], vec!["far", "near"]),
    ];
    for (name, mode, routing_preference, expected) in table {
        let load_balancing = LoadBalancing { mode, routing_preference, ..LoadBalancing::default() };
        let s = snapshot(vec![Service { load_balancing, ..cart() }], endpoints());
        let request = OutboundRequest { source: &here, destination: at("10.96.0.1:80") };
        let seen: BTreeSet<String> =
            (0..8).filter_map(|pick| Some(resolve(&s, request, pick).upstream()?.name.to_string())).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected, "{name}");
        let elsewhere = place("web2", "10.0.0.8", "z2", "n2");
        let from_elsewhere = OutboundRequest { source: &elsewhere, ..request };
        if mode == LoadBalancingMode::Strict {
            let upstream = resolve(&s, from_elsewhere, 0).upstream().map(|u| u.name.to_string());
            assert_eq!(upstream.as_deref(), Some("far"), "{name}: another client sees others");
        }
    }
}

#[test]
fn alternatives_are_other_endpoints_and_later_tiers_come_last() {
    let load_balancing = LoadBalancing {
        mode: LoadBalancingMode::Failover,
        routing_preference: vec![LoadBalancingScope::Node],
        ..LoadBalancing::default()
    };
    let far = Workload { node: "n2".into(), ..endpoint("far", "10.0.0.1") };
    let s = snapshot(
        vec![Service { load_balancing, ..cart() }],
        vec![far, endpoint("x", "10.0.0.2"), endpoint("y", "10.0.0.3")],
    );
    let request =
        |destination| OutboundRequest { source: Box::leak(Box::new(client())), destination: at(destination) };
    let names = |routes: Vec<Route>| -> Vec<String> {
        routes.iter().map(|route| route.upstream().unwrap().name.to_string()).collect()
    };
    assert_eq!(chosen(&s, 1), "y");
    assert_eq!(names(alternatives(&s, request("10.96.0.1:80"), 1)), ["x", "far"]);
    assert!(alternatives(&s, request("10.0.0.1:80"), 1).is_empty(), "a pod was asked for");
    assert!(alternatives(&s, request("1.1.1.1:80"), 1).is_empty());
}

#[test]
fn the_tiers_of_endpoints_are_in_the_order_in_which_they_serve() {
    use LoadBalancingScope::{Node, Zone};
    let place = |name: &str, address: &str, zone: &str, node: &str| Workload {
        locality: Locality { zone: zone.into(), ..Locality::default() },
        node: node.into(),
        ..endpoint(name, address)
    };
    let endpoints = || {
        vec![
            place("far", "10.0.0.1", "z2", "n3"),
            place("near", "10.0.0.2", "z1", "n1"),
            place("zone-a", "10.0.0.3", "z1", "n2"),
            place("zone-b", "10.0.0.4", "z1", "n2"),
            Workload { health: Health::Unhealthy, ..place("sick", "10.0.0.5", "z1", "n1") },
        ]
    };
    let here = place("web", "10.0.0.9", "z1", "n1");
    let tiers = |mode| -> Vec<Vec<String>> {
        let load_balancing =
            LoadBalancing { mode, routing_preference: vec![Zone, Node], ..LoadBalancing::default() };
        let s = snapshot(vec![Service { load_balancing, ..cart() }], endpoints());
        let seen = s.endpoints(&key(), &here).unwrap();
        seen.tiers().map(|tier| tier.iter().map(|e| e.name.to_string()).collect()).collect()
    };
    assert_eq!(tiers(LoadBalancingMode::Failover), [vec!["near"], vec!["zone-a", "zone-b"], vec!["far"]]);
    assert_eq!(tiers(LoadBalancingMode::Strict), [["near"]]);
    assert_eq!(tiers(LoadBalancingMode::Standard), [["far", "near", "zone-a", "zone-b"]]);
    let s = snapshot(vec![], endpoints());
    assert!(s.endpoints(&key(), &here).is_none(), "nobody knows the service");
    let s = snapshot(vec![cart()], vec![]);
    assert!(s.endpoints(&key(), &here).is_some_and(|e| e.is_empty() && e.tiers().next().is_none()));
}

#[test]
fn endpoints_stay_the_same_object_exactly_as_long_as_they_are_the_same() {
    let store = Store::new();
    let add = |update| store.apply_addresses(vec![update], &[]);
    add(AddressUpdate::Service(cart()));
    add(AddressUpdate::Workload(endpoint("a", "10.0.0.1")));
    let seen = || store.snapshot().endpoints(&key(), &client()).unwrap();
    let first = seen();
    add(AddressUpdate::Workload(pod("other", "10.0.0.2")));
    add(AddressUpdate::Workload(endpoint("a", "10.0.0.1")));
    store.apply_policies(vec![], &[]);
    let elsewhere = Workload { service_account: "x".into(), ..pod("web-2", "10.0.0.8") };
    assert!(Arc::ptr_eq(&first, &store.snapshot().endpoints(&key(), &elsewhere).unwrap()), "the same place");
    assert!(Arc::ptr_eq(&first, &seen()));
    add(AddressUpdate::Workload(endpoint("b", "10.0.0.3")));
    let second = seen();
    assert!(!Arc::ptr_eq(&first, &second), "a new endpoint");
    add(AddressUpdate::Service(Service { canonical: false, ..cart() }));
    assert!(!Arc::ptr_eq(&second, &seen()), "the service changed");
}

#[test]
fn a_waypoint_chooses_among_the_endpoints_of_every_node_where_clients_are_given_their_own() {
    let of_node = LoadBalancing {
        mode: LoadBalancingMode::Strict,
        routing_preference: vec![LoadBalancingScope::Node],
        ..LoadBalancing::default()
    };
    let far = Workload { node: "n2".into(), ..endpoint("far", "10.0.0.2") };
    let service = Service { load_balancing: of_node, ..cart() };
    let s = snapshot(vec![service], vec![endpoint("near", "10.0.0.1"), far]);
    let seen = s.endpoints(&key(), &client()).unwrap();
    assert_eq!(seen.tiers().map(<[_]>::len).collect::<Vec<_>>(), [2]);
    let chosen =
        (0..9).map(|pick| from_client(&s, "10.96.0.1:80", pick).upstream().unwrap().name.to_string());
    assert_eq!(
        chosen.collect::<BTreeSet<_>>(),
        BTreeSet::from(["near".to_owned()]),
        "its own proxy does not"
    );
    assert!(Arc::ptr_eq(&s.endpoints(&key(), &client()).unwrap(), &s.endpoints(&key(), &client()).unwrap()));
}

proptest! {
    #[test]
    fn a_client_stays_with_its_endpoint_until_that_one_goes(
        client in 0..255_u8,
        picks in any::<[u64; 2]>(),
        gone in 0..8_usize,
    ) {
        let by_client = LoadBalancing { by_client: true, ..LoadBalancing::default() };
        let service = || Service { load_balancing: by_client.clone(), ..cart() };
        let all: Vec<_> = (0..8).map(|i| endpoint(&format!("e{i}"), &format!("10.1.0.{i}"))).collect();
        let some: Vec<_> = all.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, e)| e.clone()).collect();
        let source = pod("asks", &format!("10.2.0.{client}"));
        let chosen = |endpoints: &[Workload], pick| {
            let s = snapshot(vec![service()], endpoints.to_vec());
            let request = OutboundRequest { source: &source, destination: at("10.96.0.1:80") };
            let other = alternatives(&s, request, pick).first().and_then(|r| r.upstream().map(|u| u.name.clone()));
            let first = resolve(&s, request, pick).upstream().unwrap().name.clone();
            prop_assert_ne!(Some(&first), other.as_ref());
            Ok(first)
        };
        let (first, before) = (chosen(&all, picks[0])?, chosen(&some, picks[0])?);
        prop_assert_eq!(&chosen(&all, picks[1])?, &first, "whatever the random number is");
        prop_assert!(*first == *format!("e{gone}") || first == before, "the others do not move");
    }

    #[test]
    fn every_endpoint_is_offered_once_and_first_the_chosen_one(
        capacities in proptest::collection::vec(0..4_u32, 1..12),
        pick in any::<u64>(),
    ) {
        let endpoints = capacities.iter().enumerate().map(|(i, capacity)| Workload {
            capacity: *capacity,
            ..endpoint(&format!("e{i:02}"), &format!("10.1.0.{i}"))
        });
        let s = snapshot(vec![cart()], endpoints.collect());
        let entry = s.services.get(&key()).unwrap();
        let endpoints = entry.view_for(entry.service.as_ref().unwrap(), &client());
        let mut seen = HashMap::new();
        endpoints.picked_first(pick).for_each(|e| *seen.entry(e.uid.clone()).or_insert(0) += 1);
        prop_assert!(seen.values().all(|count| *count == 1));
        prop_assert_eq!(seen.len(), capacities.iter().filter(|capacity| **capacity > 0).count());
    }
}
