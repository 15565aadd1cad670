//! Round trips, and one rejection per field.

use std::{net::IpAddr, sync::Arc};

use ambit_model::{
    Action, Clause, GatewayAddress, GatewayDestination, Health, HealthPolicy, LoadBalancing,
    LoadBalancingMode, LoadBalancingScope, Locality, Match, NamespacedName, NetworkAddress, NetworkMode,
    PortMapping, Rule, ServicePort, StringMatch, TunnelProtocol, WorkloadKind, authorization::RequestMatch,
};
use ambit_proto::{security as policy_wire, workload as wire};
use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*};

use super::*;

fn text() -> impl Strategy<Value = Arc<str>> {
    proptest::sample::select(vec!["", "a", "shop", "web-0", "10.x"]).prop_map(Arc::from)
}

fn word() -> impl Strategy<Value = Arc<str>> {
    proptest::sample::select(vec!["a", "shop", "web-0", "cluster.local", "x.y.svc.cluster.local"])
        .prop_map(Arc::from)
}

fn name() -> impl Strategy<Value = NamespacedName> {
    (text(), word()).prop_map(|(namespace, name)| NamespacedName { namespace, name })
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|bytes| IpAddr::from(bytes).to_canonical()),
    ]
}

fn network_address() -> impl Strategy<Value = NetworkAddress> {
    (text(), ip()).prop_map(|(network, address)| NetworkAddress { network, address })
}

fn gateway() -> impl Strategy<Value = GatewayAddress> {
    let destination = prop_oneof![
        name().prop_map(GatewayDestination::Hostname),
        network_address().prop_map(GatewayDestination::Address),
    ];
    (destination, 1..=u16::MAX)
        .prop_map(|(destination, hbone_mtls_port)| GatewayAddress { destination, hbone_mtls_port })
}

fn mapping() -> impl Strategy<Value = PortMapping> {
    (1..=u16::MAX, 1..=u16::MAX)
        .prop_map(|(service_port, target_port)| PortMapping { service_port, target_port })
}

prop_compose! {
    fn workload()(
        names in (word(), text(), word(), word(), word(), text(), text()),
        addresses in vec(ip(), 0..3),
        tunnel_protocol in proptest::sample::select(vec![TunnelProtocol::None, TunnelProtocol::Hbone]),
        kind in proptest::sample::select(vec![
            WorkloadKind::Deployment, WorkloadKind::CronJob, WorkloadKind::Pod, WorkloadKind::Job,
        ]),
        waypoint in option::of(gateway()),
        services in proptest::collection::btree_map(name(), vec(mapping(), 0..3), 0..4),
        authorization_policies in vec(name(), 0..3),
        locality in (text(), text(), text()),
        flags in any::<[bool; 3]>(),
        capacity in any::<u32>(),
    ) -> Workload {
        let (uid, name, namespace, trust_domain, service_account, node, network) = names;
        let (region, zone, subzone) = locality;
        Workload {
            uid, name, namespace, addresses, network, tunnel_protocol, trust_domain, service_account, waypoint,
            canonical_name: node.clone(),
            canonical_revision: region.clone(),
            kind,
            workload_name: zone.clone(),
            node,
            native_tunnel: flags[0],
            services,
            authorization_policies,
            health: if flags[1] { Health::Healthy } else { Health::Unhealthy },
            cluster_id: "Kubernetes".into(),
            locality: Locality { region, zone, subzone },
            network_mode: if flags[2] { NetworkMode::Standard } else { NetworkMode::HostNetwork },
            capacity,
        }
    }
}

prop_compose! {
    fn service()(
        names in (text(), word(), word()),
        addresses in vec(network_address(), 0..3),
        ports in vec((1..=u16::MAX, any::<u16>()).prop_map(|(port, target_port)| ServicePort { port, target_port }), 0..3),
        subjects in vec(proptest::sample::select(vec!["spiffe://a/ns/b/sa/c", "spiffe://x.y/ns/z/sa/w"]), 0..2),
        waypoint in option::of(gateway()),
        routing_preference in vec(proptest::sample::select(vec![
            LoadBalancingScope::Region, LoadBalancingScope::Zone, LoadBalancingScope::Subzone,
            LoadBalancingScope::Node, LoadBalancingScope::Cluster, LoadBalancingScope::Network,
        ]), 0..4),
        mode in proptest::sample::select(vec![
            LoadBalancingMode::Standard, LoadBalancingMode::Strict, LoadBalancingMode::Failover,
            LoadBalancingMode::Passthrough,
        ]),
        health_policy in proptest::sample::select(vec![HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll]),
        canonical in any::<bool>(),
        by_client in any::<bool>(),
    ) -> Service {
        let (name, namespace, hostname) = names;
        Service {
            name, namespace, hostname, addresses, ports,
            subject_alt_names: subjects.into_iter().map(Arc::from).collect(),
            waypoint,
            load_balancing: LoadBalancing { routing_preference, mode, health_policy, by_client },
            canonical,
        }
    }
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        word().prop_map(StringMatch::Exact),
        word().prop_map(StringMatch::Prefix),
        word().prop_map(StringMatch::Suffix),
        Just(StringMatch::Presence),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (ip(), 0..=128_u8)
        .prop_map(|(ip, length)| IpNet::new(ip, length.min(if ip.is_ipv4() { 32 } else { 128 })).unwrap())
}

fn account() -> impl Strategy<Value = NamespacedName> {
    (word(), word()).prop_map(|(namespace, name)| NamespacedName { namespace, name })
}

prop_compose! {
    fn a_match()(
        strings in proptest::array::uniform6(vec(string_match(), 0..3)),
        nets in proptest::array::uniform4(vec(net(), 0..2)),
        ports in proptest::array::uniform2(vec(1..=u16::MAX, 0..3)),
        accounts in proptest::array::uniform2(vec(account(), 0..2)),
    ) -> Match {
        let [namespaces, not_namespaces, principals, not_principals, trust_domains, not_trust_domains] =
            strings;
        let [source_ips, not_source_ips, destination_ips, not_destination_ips] = nets;
        let [destination_ports, not_destination_ports] = ports;
        let [service_accounts, not_service_accounts] = accounts;
        Match {
            namespaces, not_namespaces, principals, not_principals, trust_domains, not_trust_domains,
            source_ips, not_source_ips, destination_ips, not_destination_ips, destination_ports, not_destination_ports, service_accounts, not_service_accounts,
            request: None,
        }
    }
}

prop_compose! {
    fn policy()(
        key in name(),
        scope in proptest::sample::select(vec![Scope::Global, Scope::Namespace, Scope::WorkloadSelector]),
        action in proptest::sample::select(vec![Action::Allow, Action::Deny]),
        rules in vec(vec(vec(a_match(), 0..3), 0..3), 0..3),
        dry_run in any::<bool>(),
    ) -> Policy {
        let clauses = |clauses: Vec<Vec<Match>>| clauses.into_iter().map(|matches| Clause { matches }).collect();
        let rules = rules.into_iter().map(|rule| Rule { clauses: clauses(rule) }).collect();
        Policy { key, scope, action, rules, dry_run }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_workload_survives_the_wire(workload in workload()) {
        let packed = pack_workload(&workload);
        prop_assert_eq!(pack_workload(&workload), packed.clone());
        prop_assert_eq!(unpack_address(&packed.name, &packed.body), Ok(Decoded::Workload(workload)));
    }

    #[test]
    fn a_service_survives_the_wire(service in service()) {
        let packed = pack_service(&service);
        prop_assert_eq!(unpack_address(&packed.name, &packed.body), Ok(Decoded::Service(service)));
    }

    #[test]
    fn a_policy_survives_the_wire(policy in policy()) {
        let packed = pack_policy(&policy);
        prop_assert_eq!(unpack_policy(&packed.name, &packed.body), Ok(policy));
    }

    #[test]
    fn no_bytes_make_decoding_fail_otherwise_than_by_an_error(bytes in vec(any::<u8>(), 0..200)) {
        let _ = unpack_address("n", &bytes);
        let _ = unpack_policy("n", &bytes);
    }
}

fn plain_workload() -> wire::Workload {
    wire::Workload { uid: "u".into(), namespace: "ns".into(), ..Default::default() }
}

#[test]
fn fills_in_what_the_wire_leaves_out() {
    let workload = decode_workload(plain_workload()).unwrap();
    assert_eq!(workload.identity().to_string(), "spiffe://cluster.local/ns/ns/sa/default");
    assert_eq!((workload.capacity, &*workload.cluster_id), (1, "Kubernetes"));
    let none = decode_workload(wire::Workload { capacity: Some(0), ..plain_workload() }).unwrap();
    assert_eq!(none.capacity, 0);
}

#[test]
fn refuses_a_workload_it_does_not_understand_by_the_name_of_the_field() {
    let list = |service_port, target_port| wire::PortList {
        ports: vec![wire::Port { service_port, target_port, app_protocol: 0 }],
    };
    let services = |key: &str, list| [(key.to_owned(), list)].into_iter().collect();
    let w = plain_workload;
    let table = [
        ("uid", wire::Workload { uid: String::new(), ..w() }),
        ("addresses", wire::Workload { addresses: vec![vec![1, 2, 3]], ..w() }),
        ("tunnel_protocol", wire::Workload { tunnel_protocol: 2, ..w() }),
        ("tunnel_protocol", wire::Workload { tunnel_protocol: 9, ..w() }),
        ("workload_type", wire::Workload { workload_type: 9, ..w() }),
        ("status", wire::Workload { status: 9, ..w() }),
        ("network_mode", wire::Workload { network_mode: 9, ..w() }),
        ("services", wire::Workload { services: services("ns/h", list(80, 65_536)), ..w() }),
        ("services", wire::Workload { services: services("ns/h", list(0, 80)), ..w() }),
        ("services", wire::Workload { services: services("h", list(80, 80)), ..w() }),
        ("authorization_policies", wire::Workload { authorization_policies: vec!["p".into()], ..w() }),
        ("service_account", wire::Workload { service_account: "a/sa/b".into(), ..w() }),
        ("service_account", wire::Workload { trust_domain: "td\0".into(), ..w() }),
        ("waypoint", wire::Workload { waypoint: Some(wire::GatewayAddress::default()), ..w() }),
        (
            "application_tunnel",
            wire::Workload {
                application_tunnel: Some(wire::ApplicationTunnel { protocol: 1, port: 0 }),
                ..w()
            },
        ),
    ];
    for (field, message) in table {
        assert_eq!(decode_workload(message).unwrap_err().field, field);
    }
}

#[test]
fn refuses_a_service_it_does_not_understand_by_the_name_of_the_field() {
    let s = || wire::Service { namespace: "ns".into(), hostname: "h".into(), ..Default::default() };
    let range = wire::NetworkAddress { network: String::new(), address: vec![10, 0, 0, 0], length: Some(8) };
    let balancing =
        |scope, mode| wire::LoadBalancing { routing_preference: vec![scope], mode, health_policy: 0 };
    let port = |service_port, target_port| wire::Port { service_port, target_port, app_protocol: 0 };
    let table = [
        ("hostname", wire::Service { hostname: String::new(), ..s() }),
        ("namespace", wire::Service { namespace: String::new(), ..s() }),
        ("addresses", wire::Service { addresses: vec![range], ..s() }),
        ("ports", wire::Service { ports: vec![port(70_000, 80)], ..s() }),
        ("ports", wire::Service { ports: vec![port(80, 70_000)], ..s() }),
        ("subject_alt_names", wire::Service { subject_alt_names: vec!["web".into()], ..s() }),
        ("routing_preference", wire::Service { load_balancing: Some(balancing(0, 1)), ..s() }),
        ("routing_preference", wire::Service { load_balancing: Some(balancing(7, 1)), ..s() }),
        ("mode", wire::Service { load_balancing: Some(balancing(1, 9)), ..s() }),
    ];
    for (field, message) in table {
        let error = decode_service(message).unwrap_err();
        assert_eq!(error.field, field);
    }
}

fn authorization(action: i32, m: policy_wire::Match) -> policy_wire::Authorization {
    policy_wire::Authorization {
        name: "p".into(),
        namespace: "ns".into(),
        scope: 1,
        action,
        rules: vec![policy_wire::Rule { clauses: vec![policy_wire::Clause { matches: vec![m] }] }],
        dry_run: false,
        extensions: vec![],
    }
}

#[test]
fn refuses_a_policy_that_it_would_enforce_weaker_than_written() {
    const ALLOW: i32 = 0;
    const DENY: i32 = 1;
    let m = policy_wire::Match::default;
    let net = |address: &[u8], length| vec![policy_wire::Address { address: address.to_vec(), length }];
    let extension = || vec![policy_wire::Extension { name: "l7".into(), config: None }];
    let account = policy_wire::ServiceAccountMatch { namespace: "ns".into(), service_account: String::new() };
    let empty = policy_wire::StringMatch { match_type: Some(MatchType::Prefix(String::new())) };
    use policy_wire::string_match::MatchType;
    let table = [
        ("source_ips", DENY, policy_wire::Match { source_ips: net(&[10, 0, 0, 0], 33), ..m() }),
        ("not_source_ips", ALLOW, policy_wire::Match { not_source_ips: net(&[10], 8), ..m() }),
        ("destination_ports", DENY, policy_wire::Match { destination_ports: vec![65_616], ..m() }),
        ("not_destination_ports", DENY, policy_wire::Match { not_destination_ports: vec![0], ..m() }),
        ("principals", DENY, policy_wire::Match { principals: vec![Default::default()], ..m() }),
        ("namespaces", ALLOW, policy_wire::Match { namespaces: vec![empty], ..m() }),
        ("service_accounts", DENY, policy_wire::Match { service_accounts: vec![account], ..m() }),
        ("match.extensions", DENY, policy_wire::Match { extensions: extension(), ..m() }),
        (
            "match.extensions",
            ALLOW,
            policy_wire::Match { extensions: extension(), destination_ports: vec![80], ..m() },
        ),
    ];
    for (field, action, m) in table {
        let body = authorization(action, m).encode_to_vec();
        let unreadable = unpack_policy("ns/p", &body).unwrap_err();
        assert_eq!((unreadable.error.field, unreadable.scope), (field, Scope::Namespace));
        assert!(unreadable.to_string().starts_with("ns/p: "), "{unreadable}");
    }
    let stricter = authorization(
        DENY,
        policy_wire::Match { extensions: extension(), destination_ports: vec![80], ..m() },
    );
    assert!(decode_policy(stricter).is_ok(), "a condition less only makes a DENY stricter");
}

#[test]
fn what_a_policy_asks_of_requests_never_makes_its_message_weaker() {
    let request = Some(Box::new(RequestMatch {
        methods: vec![StringMatch::Exact("GET".into())],
        ..RequestMatch::default()
    }));
    let about = |m: Match| Rule { clauses: vec![Clause { matches: vec![m] }] };
    let rules = || {
        vec![
            about(Match { request: request.clone(), ..Match::default() }),
            about(Match { destination_ports: vec![80], request: request.clone(), ..Match::default() }),
        ]
    };
    let policy = |action| Policy {
        key: NamespacedName::new("ns", "p"),
        scope: Scope::Namespace,
        action,
        rules: rules(),
        dry_run: false,
    };
    let sent = |action| {
        let packed = pack_policy(&policy(action));
        unpack_policy(&packed.name, &packed.body).unwrap()
    };
    assert_eq!(sent(Action::Allow), Policy { rules: vec![], ..policy(Action::Allow) });
    let port = about(Match { destination_ports: vec![80], ..Match::default() });
    assert_eq!(sent(Action::Deny).rules, [Rule { clauses: vec![] }, port]);
    assert_eq!(sent(Action::Audit), Policy { action: Action::Deny, rules: vec![], ..policy(Action::Audit) });
}

#[test]
fn a_policy_whose_scope_cannot_be_read_may_apply_anywhere() {
    let odd_scope = policy_wire::Authorization { scope: 9, ..authorization(1, Default::default()) };
    for body in [odd_scope.encode_to_vec(), vec![0xff]] {
        assert_eq!(unpack_policy("ns/p", &body).unwrap_err().scope, Scope::Global);
    }
}

#[test]
fn a_resource_under_a_foreign_name_is_refused_because_it_could_not_be_removed() {
    let policy = authorization(1, Default::default()).encode_to_vec();
    assert_eq!(unpack_policy("ns/q", &policy).unwrap_err().error.field, "resource");
    let body = Address { r#type: Some(address::Type::Workload(plain_workload())) }.encode_to_vec();
    assert_eq!(unpack_address("v", &body).unwrap_err().field, "resource");
    assert_eq!(unpack_address("v", &[]).unwrap_err().field, "type");
}

#[test]
fn an_ipv4_network_in_ipv6_form_is_the_ipv4_network() {
    let mut address = vec![0; 10];
    address.extend([0xff, 0xff, 10, 0, 0, 0]);
    let mapped = policy_wire::Address { address, length: 104 };
    let message = authorization(1, policy_wire::Match { source_ips: vec![mapped], ..Default::default() });
    let policy = decode_policy(message).unwrap();
    assert_eq!(policy.rules[0].clauses[0].matches[0].source_ips, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
}

#[test]
fn an_address_is_asked_for_by_network_and_ip_and_a_nodes_own_is_nobodys() {
    let addresses =
        vec!["10.0.0.1".parse().unwrap(), "::ffff:10.0.0.2".parse().unwrap(), "fd00::1".parse().unwrap()];
    let pod = Workload { uid: "u".into(), network: "n".into(), addresses, ..Workload::default() };
    assert_eq!(aliases(&pack_workload(&pod).body), ["n/10.0.0.1", "n/10.0.0.2", "n/fd00::1"]);
    let on_node = Workload { network_mode: NetworkMode::HostNetwork, ..pod };
    assert!(aliases(&pack_workload(&on_node).body).is_empty());
    let vip = NetworkAddress { network: "".into(), address: "10.96.0.1".parse().unwrap() };
    let service = Service { addresses: vec![vip], ..Service::default() };
    assert_eq!(aliases(&pack_service(&service).body), ["/10.96.0.1"]);
    assert!(aliases(b"\xff").is_empty());
}

/// A proxy that does not know the extension rejects an ALLOW with it, and never decodes a wider
/// policy.
#[test]
fn trust_domains_are_an_extension_that_older_proxies_refuse() {
    let exact = |text: &str| StringMatch::Exact(text.into());
    let found =
        Match { namespaces: vec![exact("a")], not_trust_domains: vec![exact("td")], ..Match::default() };
    let rules = vec![Rule { clauses: vec![Clause { matches: vec![found] }] }];
    let key = NamespacedName::new("shop", "p");
    let policy = Policy { key, scope: Scope::Namespace, action: Action::Allow, rules, dry_run: false };
    let mut message = encode_policy(&policy);
    assert_eq!(decode_policy(message.clone()).unwrap(), policy);
    let extension = &mut message.rules[0].clauses[0].matches[0].extensions[0];
    assert_eq!(extension.name, "ambit.dev/trust-domains");
    extension.name = "ambit.dev/newer".into();
    decode_policy(message.clone()).unwrap_err();
    let extension = &mut message.rules[0].clauses[0].matches[0].extensions[0];
    extension.name = "ambit.dev/trust-domains".into();
    extension.config = None;
    decode_policy(message).unwrap_err();
}
