//! Routes to destinations behind a waypoint.

use ambit_model::{GatewayAddress, GatewayDestination};

use super::*;

const WAYPOINT_VIP: &str = "10.96.0.2";

fn waypoint_key() -> NamespacedName {
    NamespacedName::new("shop", "waypoint.shop.svc.cluster.local")
}

pub(super) fn gateway() -> Option<GatewayAddress> {
    let destination = GatewayDestination::Hostname(waypoint_key());
    Some(GatewayAddress { destination, hbone_mtls_port: 15_008 })
}

fn gateway_at(address: &str) -> Option<GatewayAddress> {
    let address = NetworkAddress { network: "".into(), address: ip(address) };
    Some(GatewayAddress { destination: GatewayDestination::Address(address), hbone_mtls_port: 15_009 })
}

/// A pod that the waypoint's service selects, but with an account of its own.
fn impostor(name: &str, address: &str) -> Workload {
    Workload { service_account: "dev".into(), ..waypoint_pod(name, address) }
}

fn waypoint_pod(name: &str, address: &str) -> Workload {
    let services = BTreeMap::from([(waypoint_key(), vec![])]);
    Workload { services, service_account: "waypoint".into(), native_tunnel: true, ..pod(name, address) }
}

fn waypoint_service() -> Service {
    Service {
        name: "waypoint".into(),
        hostname: waypoint_key().name,
        addresses: vec![NetworkAddress { network: "".into(), address: ip(WAYPOINT_VIP) }],
        ports: vec![ServicePort { port: 15_008, target_port: 15_008 }],
        subject_alt_names: vec!["spiffe://td/ns/x/sa/y".into()],
        ..cart()
    }
}

fn bound_cart() -> Service {
    Service { waypoint: gateway(), ..cart() }
}

fn mesh(bound: Service, pods: Vec<Workload>) -> Arc<Snapshot> {
    let guarded = Workload { waypoint: gateway(), ..pod("guarded", "10.0.0.4") };
    snapshot(vec![bound, waypoint_service()], [vec![endpoint("a", "10.0.0.1"), guarded], pods].concat())
}

#[test]
fn what_has_a_waypoint_is_reached_through_a_ready_pod_of_it() {
    let ready = || waypoint_pod("w1", "10.0.1.1");
    let by_address = |address| Service { waypoint: gateway_at(address), ..cart() };
    let passthrough = LoadBalancing { mode: LoadBalancingMode::Passthrough, ..LoadBalancing::default() };
    let sick = Workload { health: Health::Unhealthy, ..waypoint_pod("w0", "10.0.1.0") };
    let s = mesh(bound_cart(), vec![sick, ready()]);
    assert_routes(vec![
        ("service", s.clone(), "10.96.0.1:80", "hbone 10.0.1.1:15008 for 10.96.0.1:80 through w1"),
        (
            "the waypoint knows the ports",
            s.clone(),
            "10.96.0.1:82",
            "hbone 10.0.1.1:15008 for 10.96.0.1:82 through w1",
        ),
        ("workload", s.clone(), "10.0.0.4:80", "hbone 10.0.1.1:15008 for 10.0.0.4:80 through w1"),
        (
            "an endpoint by its address, on the port that the service leads to",
            s.clone(),
            "10.0.0.1:8080",
            "hbone 10.0.1.1:15008 for 10.0.0.1:8080 through w1",
        ),
        ("another port of it", s, "10.0.0.1:80", "hbone 10.0.0.1:15008 for 10.0.0.1:80 (a)"),
        (
            "by the virtual address of the waypoint, on its own port",
            mesh(by_address(WAYPOINT_VIP), vec![ready()]),
            "10.96.0.1:80",
            "hbone 10.0.1.1:15009 for 10.96.0.1:80 through w1",
        ),
        (
            "by the address of its pod",
            mesh(by_address("10.0.1.1"), vec![ready()]),
            "10.96.0.1:80",
            "hbone 10.0.1.1:15009 for 10.96.0.1:80 through w1",
        ),
        (
            "also where the original destination would be kept",
            mesh(Service { load_balancing: passthrough, ..bound_cart() }, vec![ready()]),
            "10.96.0.1:80",
            "hbone 10.0.1.1:15008 for 10.96.0.1:80 through w1",
        ),
    ]);
}

#[test]
fn what_has_a_waypoint_is_not_reached_without_a_ready_pod_of_it() {
    let refused = |destination: &str, waypoint: &str| {
        format!("refused: NoReadyWaypoint {{ destination: \"{destination}\", waypoint: \"{waypoint}\" }}")
    };
    let of_service = refused("shop/cart.shop.svc.cluster.local", "shop/waypoint.shop.svc.cluster.local");
    let of_pod = refused("Kubernetes//Pod/shop/guarded", "shop/waypoint.shop.svc.cluster.local");
    let sick = |name| Workload { health: Health::Unhealthy, ..waypoint_pod(name, "10.0.1.1") };
    let elsewhere = Workload { network: "other".into(), ..waypoint_pod("w", "10.0.1.1") };
    let untunnelled = plain(waypoint_pod("w", "10.0.1.1"));
    let abroad = Workload { namespace: "edge".into(), ..waypoint_pod("w", "10.0.1.1") };
    for pods in [
        vec![],
        vec![sick("w1"), sick("w2")],
        vec![elsewhere],
        vec![untunnelled],
        vec![impostor("w", "10.0.1.1")],
        vec![abroad],
    ] {
        let s = mesh(bound_cart(), pods);
        assert_routes(vec![
            ("service", s.clone(), "10.96.0.1:80", &of_service),
            ("workload", s.clone(), "10.0.0.4:80", &of_pod),
        ]);
        let source = client();
        let request = OutboundRequest { source: &source, destination: at("10.96.0.1:80") };
        assert!(alternatives(&s, request, 7).is_empty());
    }
    let unknown =
        snapshot(vec![bound_cart()], vec![endpoint("a", "10.0.0.1"), waypoint_pod("w", "10.0.1.1")]);
    let by_address = |pods| mesh(Service { waypoint: gateway_at("10.0.1.1"), ..cart() }, pods);
    let cart_at = |address| refused("shop/cart.shop.svc.cluster.local", address);
    assert_routes(vec![
        ("nobody knows the waypoint's service", unknown, "10.96.0.1:80", &of_service),
        ("nothing has its address", by_address(vec![]), "10.96.0.1:80", &cart_at("10.0.1.1")),
        ("its pod is not ready", by_address(vec![sick("w")]), "10.96.0.1:80", &cart_at("10.0.1.1")),
    ]);
}

#[test]
fn a_waypoint_goes_straight_to_what_it_guards_and_is_not_reached_through_itself() {
    let me = waypoint_pod("w1", "10.0.1.1");
    let guarded_pod = Workload { waypoint: gateway(), ..waypoint_pod("w2", "10.0.1.2") };
    let itself = Service { waypoint: gateway(), ..waypoint_service() };
    let guarded = Workload { waypoint: gateway(), ..pod("guarded", "10.0.0.4") };
    let s = snapshot(
        vec![bound_cart(), itself],
        vec![endpoint("a", "10.0.0.1"), guarded, me.clone(), guarded_pod],
    );
    let from_waypoint =
        |destination| told(&resolve(&s, OutboundRequest { source: &me, destination: at(destination) }, 0));
    assert_eq!(from_waypoint("10.96.0.1:80"), "hbone 10.0.0.1:15008 for 10.0.0.1:8080 (a)");
    assert_eq!(from_waypoint("10.0.0.4:80"), "hbone 10.0.0.4:15008 for 10.0.0.4:80 (guarded)");
    assert_routes(vec![
        ("its service", s.clone(), "10.96.0.2:15008", "hbone 10.0.1.2:15008 for 10.0.1.2:15008 (w2)"),
        ("its pod", s.clone(), "10.0.1.2:80", "hbone 10.0.1.2:15008 for 10.0.1.2:80 (w2)"),
    ]);
    // Another waypoint is a client like any other.
    let other = Workload { services: BTreeMap::new(), ..waypoint_pod("other", "10.0.1.9") };
    let route = resolve(&s, OutboundRequest { source: &other, destination: at("10.96.0.1:80") }, 0);
    assert_eq!(told(&route), "hbone 10.0.1.1:15008 for 10.96.0.1:80 through w1");
    let itself = Workload { waypoint: gateway(), ..client() };
    let s = snapshot(vec![waypoint_service()], vec![itself, me]);
    assert_eq!(told(&from_client(&s, "10.0.0.9:80", 0)), "tcp 10.0.0.9:80 (web)");
}

#[test]
fn another_pod_of_the_waypoint_is_the_alternative_and_never_the_endpoint_itself() {
    let pods = (1..=5).map(|i| waypoint_pod(&format!("w{i}"), &format!("10.0.1.{i}"))).collect();
    let s = mesh(bound_cart(), pods);
    let source = client();
    for destination in ["10.96.0.1:80", "10.0.0.4:80"] {
        let request = OutboundRequest { source: &source, destination: at(destination) };
        assert_eq!(resolve(&s, request, 1).upstream().unwrap().name.as_ref(), "w2");
        let others: Vec<String> = alternatives(&s, request, 1).iter().map(told).collect();
        let expected = ["w3", "w4"]
            .map(|name| format!("hbone 10.0.1.{}:15008 for {destination} through {name}", &name[1..]));
        assert_eq!(others, expected, "{destination}");
    }
}

#[test]
fn a_pod_with_the_labels_of_a_waypoint_and_another_account_is_passed_over_and_goes_through_it() {
    let false_one = impostor("w0", "10.0.1.0");
    let s = mesh(bound_cart(), vec![false_one.clone(), waypoint_pod("w1", "10.0.1.1")]);
    for pick in 0..4 {
        let route = from_client(&s, "10.96.0.1:80", pick);
        assert_eq!(told(&route), "hbone 10.0.1.1:15008 for 10.96.0.1:80 through w1");
        let source = client();
        let request = OutboundRequest { source: &source, destination: at("10.96.0.1:80") };
        assert!(alternatives(&s, request, pick).is_empty());
    }
    let request = OutboundRequest { source: &false_one, destination: at("10.96.0.1:80") };
    assert_eq!(told(&resolve(&s, request, 0)), "hbone 10.0.1.1:15008 for 10.96.0.1:80 through w1");
    let guarded = Workload { waypoint: gateway(), ..pod("a", "10.0.0.1") };
    assert!(!guards(&s, &false_one, &guarded));
}

#[test]
fn only_the_gateways_principal_is_taken_for_a_waypoint() {
    let bound = Service { subject_alt_names: vec!["spiffe://td/ns/x/sa/cart".into()], ..bound_cart() };
    let s = mesh(bound, vec![waypoint_pod("w", "10.0.1.1")]);
    let route = from_client(&s, "10.96.0.1:80", 0);
    let expected: Vec<String> = route.expected_identities().iter().map(ToString::to_string).collect();
    assert_eq!(expected, ["spiffe://cluster.local/ns/shop/sa/waypoint"]);
    assert_eq!(route.service().unwrap().key(), key(), "books are kept for what the client asked for");
}

#[test]
fn the_way_to_an_endpoint_that_a_waypoint_chose_leads_past_every_waypoint() {
    let bound = Arc::new(bound_cart());
    let me = Workload { services: BTreeMap::new(), ..waypoint_pod("other", "10.0.1.9") };
    let both = Workload { addresses: vec![ip("fd00::1"), ip("10.0.0.1")], ..endpoint("a", "10.0.0.1") };
    let guarded = Arc::new(Workload { waypoint: gateway(), ..both });
    let way = |endpoint, destination| {
        let request = OutboundRequest { source: &me, destination: at(destination) };
        route_to(endpoint, &bound, request).as_ref().map(told)
    };
    let direct = "hbone 10.0.0.1:15008 for 10.0.0.1:8080 (a)";
    assert_eq!(way(&guarded, "10.96.0.1:80").as_deref(), Some(direct));
    let direct = "hbone [fd00::1]:15008 for [fd00::1]:8080 (a)";
    assert_eq!(way(&guarded, "[fd96::1]:80").as_deref(), Some(direct));
    assert_eq!(way(&guarded, "10.96.0.1:81"), None, "it does not serve the port");
    let outside = Arc::new(plain(endpoint("b", "10.0.0.2")));
    assert_eq!(way(&outside, "10.96.0.1:80").as_deref(), Some("tcp 10.0.0.2:8080 (b)"));
}

#[test]
fn an_endpoint_that_is_only_reached_through_a_waypoint_is_so_whichever_service_leads_there() {
    let ready = || waypoint_pod("w1", "10.0.1.1");
    let guarded = Workload { waypoint: gateway(), ..endpoint("a", "10.0.0.1") };
    let s = snapshot(vec![cart(), waypoint_service()], vec![guarded.clone(), ready()]);
    let through = "hbone 10.0.1.1:15008 for 10.0.0.1:8080 through w1";
    assert_routes(vec![
        ("its service has no waypoint", s.clone(), "10.96.0.1:80", through),
        ("by its address", s.clone(), "10.0.0.1:8080", through),
        ("on a port of no service", s, "10.0.0.1:9", "hbone 10.0.1.1:15008 for 10.0.0.1:9 through w1"),
    ]);
    let s = snapshot(vec![cart(), waypoint_service()], vec![guarded.clone()]);
    let refused = "refused: NoReadyWaypoint { destination: \"Kubernetes//Pod/shop/a\", \
                   waypoint: \"shop/waypoint.shop.svc.cluster.local\" }";
    assert_routes(vec![("nobody is there to take it", s, "10.96.0.1:80", refused)]);
    let itself = Workload { waypoint: gateway(), ..endpoint("a", "10.0.0.1") };
    let s = snapshot(vec![cart(), waypoint_service()], vec![itself.clone(), ready()]);
    let request = OutboundRequest { source: &itself, destination: at("10.96.0.1:80") };
    assert_eq!(told(&resolve(&s, request, 0)), "tcp 10.0.0.1:8080 (a)");
}

#[test]
fn the_waypoint_of_a_service_comes_before_that_of_its_pod_on_the_services_port() {
    let other = NamespacedName::new("shop", "other.shop.svc.cluster.local");
    let of_other = || GatewayAddress {
        destination: GatewayDestination::Hostname(other.clone()),
        hbone_mtls_port: 15_008,
    };
    let guarded = Workload { waypoint: Some(of_other()), ..endpoint("a", "10.0.0.1") };
    let services = BTreeMap::from([(other.clone(), vec![])]);
    let other_pod = Workload { services, service_account: "other".into(), ..waypoint_pod("o1", "10.0.2.1") };
    let other_service = Service { name: "other".into(), hostname: other.name.clone(), ..waypoint_service() };
    let s = snapshot(
        vec![bound_cart(), waypoint_service(), other_service],
        vec![guarded, waypoint_pod("w1", "10.0.1.1"), other_pod],
    );
    assert_routes(vec![
        (
            "the port of the service",
            s.clone(),
            "10.0.0.1:8080",
            "hbone 10.0.1.1:15008 for 10.0.0.1:8080 through w1",
        ),
        ("another port", s, "10.0.0.1:9", "hbone 10.0.2.1:15008 for 10.0.0.1:9 through o1"),
    ]);
}

#[test]
fn other_endpoints_behind_a_waypoint_are_the_alternatives_each_through_another_pod_of_it() {
    let endpoints = (1..=3)
        .map(|i| Workload { waypoint: gateway(), ..endpoint(&format!("e{i}"), &format!("10.0.0.{i}")) });
    let pods = (1..=3).map(|i| waypoint_pod(&format!("w{i}"), &format!("10.0.1.{i}")));
    let s = snapshot(vec![cart(), waypoint_service()], endpoints.chain(pods).collect());
    let source = client();
    let request = OutboundRequest { source: &source, destination: at("10.96.0.1:80") };
    assert_eq!(told(&resolve(&s, request, 0)), "hbone 10.0.1.1:15008 for 10.0.0.1:8080 through w1");
    let others: Vec<String> = alternatives(&s, request, 0).iter().map(told).collect();
    let expected = [2, 3].map(|i| format!("hbone 10.0.1.{i}:15008 for 10.0.0.{i}:8080 through w{i}"));
    assert_eq!(others, expected);
}

#[test]
fn a_waypoint_tells_the_pods_it_guards_by_where_clients_are_told_to_go() {
    let (me, stranger) = (waypoint_pod("w1", "10.0.1.1"), pod("x", "10.0.1.2"));
    let s = snapshot(vec![waypoint_service()], vec![me.clone(), stranger.clone()]);
    let guarded = |waypoint| Workload { waypoint, ..pod("a", "10.0.0.1") };
    for (waypoint, expected) in
        [(gateway(), true), (gateway_at(WAYPOINT_VIP), true), (gateway_at("10.0.1.1"), true), (None, false)]
    {
        assert_eq!(guards(&s, &me, &guarded(waypoint.clone())), expected, "{waypoint:?}");
        assert!(!guards(&s, &stranger, &guarded(waypoint)));
    }
}

#[test]
fn a_pod_that_another_namespace_lists_by_its_address_is_reached_as_the_pod_is_or_not_at_all() {
    let theirs = NamespacedName::new("b", "evil.b.svc.cluster.local");
    let evil = Service {
        name: "evil".into(),
        namespace: "b".into(),
        hostname: theirs.name.clone(),
        addresses: vec![NetworkAddress { network: "".into(), address: ip("10.96.0.66") }],
        waypoint: None,
        ports: vec![ServicePort { port: 80, target_port: 8080 }],
        ..cart()
    };
    // As the control plane publishes it: the pod's identity and tunnel, under the name of the
    // slice.
    let listed = |waypoint| Workload {
        uid: "Kubernetes/discovery.k8s.io/EndpointSlice/b/evil-1/10.0.0.1".into(),
        services: BTreeMap::from([(theirs.clone(), vec![])]),
        network_mode: NetworkMode::HostNetwork,
        waypoint,
        ..pod("a", "10.0.0.1")
    };
    let me = waypoint_pod("w1", "10.0.1.1");
    let with = |listed| {
        let endpoint = endpoint("a", "10.0.0.1");
        snapshot(vec![bound_cart(), waypoint_service(), evil.clone()], vec![endpoint, listed, me.clone()])
    };
    let s = with(listed(gateway()));
    assert_routes(vec![
        ("guarded", s.clone(), "10.96.0.66:80", "hbone 10.0.1.1:15008 for 10.0.0.1:8080 through w1"),
        ("not guarded", with(listed(None)), "10.96.0.66:80", "hbone 10.0.0.1:15008 for 10.0.0.1:8080 (a)"),
    ]);
    let from_waypoint = OutboundRequest { source: &me, destination: at("10.96.0.66:80") };
    assert!(matches!(resolve(&s, from_waypoint, 0), Route::Refused(_)), "not with the waypoint's identity");
    assert_eq!(route_to(&Arc::new(listed(gateway())), &Arc::new(evil.clone()), from_waypoint), None);
}

#[test]
fn a_service_of_another_namespace_leads_nobody_who_asks_for_a_pod() {
    let theirs = NamespacedName::new("b", "evil.b.svc.cluster.local");
    let bound =
        Service { namespace: "b".into(), hostname: theirs.name.clone(), addresses: vec![], ..bound_cart() };
    let claimed = Workload { services: BTreeMap::from([(theirs, vec![])]), ..pod("a", "10.0.0.1") };
    let s = snapshot(vec![bound, waypoint_service()], vec![claimed, waypoint_pod("w1", "10.0.1.1")]);
    assert_routes(vec![("by its address", s, "10.0.0.1:8080", "hbone 10.0.0.1:15008 for 10.0.0.1:8080 (a)")]);
}
