//! Round trips of anything that a control plane may compile, and one rejection per field.

mod arbitrary;

use ambit_model::bound::{HttpMatch, HttpRule, HttpTable};
use ambit_proto::security;
use proptest::{collection::vec, prelude::*};

use super::*;

fn minimal() -> BoundService {
    BoundService {
        key: NamespacedName::new("shop", "cart.shop.svc.cluster.local"),
        addressed: Addressed::Service,
        ports: Vec::new(),
        destinations: BTreeMap::new(),
        requests: Arc::default(),
        authentication: Vec::new(),
        authorization: Vec::new(),
        checks: Vec::new(),
        unenforceable: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_bound_service_survives_the_wire_and_equal_ones_have_equal_bytes(service in arbitrary::bound_service()) {
        let packed = pack_bound_service(&service);
        let unpacked = unpack_bound_service(&packed.name, &packed.body).unwrap();
        prop_assert_eq!(&unpacked, &service);
        prop_assert_eq!(pack_bound_service(&unpacked), packed);
    }

    #[test]
    fn no_bytes_make_decoding_fail_otherwise_than_by_an_error(bytes in vec(any::<u8>(), 0..200)) {
        let _ = unpack_bound_service("n", &bytes);
    }

    #[test]
    fn a_broken_bound_service_is_an_error_or_another_service(
        service in arbitrary::bound_service(), at in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let packed = pack_bound_service(&service);
        let mut body = packed.body.to_vec();
        *at.get_mut(&mut body) ^= with;
        if let Ok(read) = unpack_bound_service(&packed.name, &body) {
            prop_assert_eq!(read.key, service.key);
        }
    }
}

#[test]
fn the_bytes_are_those_that_the_proto_file_says() {
    let service = BoundService {
        ports: vec![BoundPort {
            port: 80,
            protocol: AppProtocol::Http,
            routes: Routes::default(),
            consumers: BTreeMap::new(),
        }],
        ..BoundService { key: NamespacedName::new("a", "b"), ..minimal() }
    };
    let packed = pack_bound_service(&service);
    let golden: &[u8] = &[
        0x0a, 1, b'a', // namespace
        0x12, 1, b'b', // hostname
        0x1a, 6, 0x08, 80, 0x10, 1, 0x1a, 0, // port: number, protocol, empty routes
        0x2a, 0, // no request policy
    ];
    assert_eq!((&*packed.name, &*packed.body), ("a/b", golden));
}

#[test]
fn pods_are_no_service_and_name_those_on_their_way() {
    let (uid, pods) = (Arc::from("Kubernetes//Pod/shop/cart-1"), NamespacedName::new("shop", PODS));
    let bound =
        BoundService { addressed: Addressed::Pods([uid].into()), ..BoundService { key: pods, ..minimal() } };
    let packed = pack_bound_service(&bound);
    assert_eq!(&*packed.name, "shop/*");
    assert_eq!(unpack_bound_service(&packed.name, &packed.body).unwrap(), bound);
    let nameless = |m: &mut wire::Service| m.pods.as_mut().unwrap().on_their_way.push(String::new());
    let mut message = encode(&bound);
    nameless(&mut message);
    assert_eq!(decode(message).unwrap_err().of("shop/*").field, "pods.on_their_way");
}

#[test]
fn a_service_under_a_foreign_name_is_refused_because_it_could_not_be_removed() {
    let packed = pack_bound_service(&minimal());
    assert_eq!(unpack_bound_service("shop/other", &packed.body).unwrap_err().field, "resource");
    assert_eq!(unpack_bound_service("shop/other", &[0xff]).unwrap_err().field, "resource");
}

/// A service that uses every field with a validity rule.
fn full() -> wire::Service {
    let table = HttpTable {
        matches: vec![(HttpMatch::default(), 0)],
        rules: vec![HttpRule { name: "r".into(), ..HttpRule::default() }],
    };
    let key = Destination { service: minimal().key, port: 80 };
    encode(&BoundService {
        ports: vec![BoundPort {
            port: 80,
            protocol: AppProtocol::Http,
            routes: Routes { http: Some(Arc::new(table)), stream: None, named: Vec::new() },
            consumers: BTreeMap::new(),
        }],
        destinations: BTreeMap::from([(key, DestinationSettings::default())]),
        ..minimal()
    })
}

fn port(m: &mut wire::Service) -> &mut wire::Port {
    &mut m.ports[0]
}

fn table(m: &mut wire::Service) -> &mut wire::HttpTable {
    port(m).routes.as_mut().unwrap().http.as_mut().unwrap()
}

fn rule(m: &mut wire::Service) -> &mut wire::HttpRule {
    &mut table(m).rules[0]
}

fn matched(m: &mut wire::Service) -> &mut wire::HttpMatch {
    table(m).matches[0].r#match.as_mut().unwrap()
}

fn requests(m: &mut wire::Service) -> &mut wire::RequestPolicy {
    m.requests.as_mut().unwrap()
}

fn policy(m: &mut wire::Service) -> &mut wire::DestinationPolicy {
    m.destinations[0].policy.as_mut().unwrap()
}

type Spoil = fn(&mut wire::Service);

fn assert_refused(cases: &[(&str, Spoil)]) {
    for (field, spoil) in cases {
        let mut message = full();
        assert!(decode(message.clone()).is_ok());
        spoil(&mut message);
        let error = decode(message).map_err(|invalid| invalid.of("shop/cart")).unwrap_err();
        assert_eq!(error.field, *field, "{error}");
    }
}

#[test]
fn what_is_missing_or_not_known_refuses_the_whole_service() {
    assert_refused(&[
        ("namespace", |m| m.namespace.clear()),
        ("hostname", |m| m.hostname.clear()),
        ("requests", |m| m.requests = None),
        ("pods", |m| m.hostname = PODS.into()),
        ("pods", |m| m.pods = Some(wire::Pods::default())),
        ("pods", |m| (m.hostname, m.pods) = (PODS.into(), Some(wire::Pods::default()))),
        ("unenforceable", |m| m.unenforceable = vec![wire::Unenforceable::default()]),
        ("ports.port", |m| port(m).port = 65_536),
        ("ports.protocol", |m| port(m).protocol = 9),
        ("ports.routes", |m| port(m).routes = None),
        ("consumers", |m| drop(port(m).consumers.insert(String::new(), wire::Routes::default()))),
        ("destinations.destination", |m| m.destinations[0].destination = None),
        ("destinations.policy", |m| m.destinations[0].policy = None),
        ("destinations.protocol", |m| m.destinations[0].protocol = 9),
        ("destinations", |m| m.destinations.push(m.destinations[0].clone())),
        ("balancer", |m| policy(m).balancer = None),
        ("balancer", |m| policy(m).balancer = Some(wire::Balancer::default())),
        ("breaker", |m| policy(m).breaker = None),
        ("matches.rule", |m| table(m).matches[0].rule = 1),
        ("matches.match", |m| table(m).matches[0].r#match = None),
        ("matches.path", |m| matched(m).path = Some(wire::PathMatch::default())),
        ("matches.method", |m| matched(m).method = Some(String::new())),
        ("matches.headers", |m| matched(m).headers.push(named("a"))),
        ("matches.query", |m| matched(m).query.push(named("a"))),
        ("filters", |m| rule(m).filters.push(wire::Filter::default())),
        ("backends.backend", |m| rule(m).backends.push(wire::WeightedBackend::default())),
        ("session.name", |m| rule(m).session = Some(wire::SessionPersistence::default())),
    ]);
}

/// A match with a value of an unknown kind.
fn named(name: &str) -> wire::NamedMatch {
    wire::NamedMatch { name: name.to_owned(), value: None }
}

#[test]
fn what_nobody_could_compute_with_is_refused() {
    fn fault(m: &mut wire::Service) -> &mut wire::Fault {
        requests(m).faults.push(wire::Fault::default());
        requests(m).faults.last_mut().unwrap()
    }
    fn redirect(m: &mut wire::Service, redirect: wire::Redirect) {
        rule(m).filters.push(wire::Filter { kind: Some(wire::filter::Kind::Redirect(redirect)) });
    }
    fn change(m: &mut wire::Service, name: &str) {
        let change = wire::HeaderChange { remove: vec![name.to_owned()], ..wire::HeaderChange::default() };
        rule(m).filters.push(wire::Filter { kind: Some(wire::filter::Kind::RequestHeaders(change)) });
    }
    let share = |numerator, denominator| Some(wire::Fraction { numerator, denominator });
    assert_eq!(matching::decode_fraction("f", share(1, 1)).unwrap().numerator, 1);
    for odd in [share(0, 0), share(2, 1), None] {
        assert!(matching::decode_fraction("f", odd).is_err(), "{odd:?}");
    }
    assert_refused(&[
        ("faults.delay", |m| fault(m).delay = Some(wire::FaultDelay { duration_ms: -1, fraction: None })),
        ("faults.abort", |m| fault(m).abort = Some(wire::FaultAbort { status: 600, fraction: None })),
        ("faults.headers", |m| fault(m).headers.push(named("X"))),
        ("rate_limits.burst", |m| requests(m).rate_limits.push(wire::RateLimit::default())),
        ("rate_limits.interval_ms", |m| {
            requests(m).rate_limits.push(wire::RateLimit { burst: 1, ..wire::RateLimit::default() });
        }),
        ("outliers.interval_ms", |m| policy(m).outliers = Some(wire::OutlierDetection::default())),
        ("outliers.max_ejected_percent", |m| {
            let outliers = wire::OutlierDetection { max_ejected_percent: 101, ..Default::default() };
            policy(m).outliers = Some(outliers);
        }),
        ("request_timeout_ms", |m| rule(m).request_timeout_ms = Some(-1)),
        ("retry.codes", |m| {
            rule(m).retry = Some(wire::Retry { codes: vec![20], ..wire::Retry::default() });
        }),
        ("redirect.status", |m| redirect(m, wire::Redirect { status: 200, ..wire::Redirect::default() })),
        ("redirect.scheme", |m| {
            redirect(m, wire::Redirect { status: 301, scheme: Some("ftp".into()), ..Default::default() });
        }),
        ("redirect.port", |m| {
            redirect(m, wire::Redirect { status: 301, port: Some(0), ..Default::default() });
        }),
        ("request_headers", |m| change(m, "X-Upper")),
    ]);
}

#[test]
fn a_check_that_could_not_be_made_refuses_the_service() {
    fn sound() -> wire::CheckProvider {
        let service = wire::Name { namespace: "auth".into(), name: "opa.auth.svc.cluster.local".into() };
        wire::CheckProvider {
            name: "opa".into(),
            to: Some(wire::Destination { service: Some(service), port: 9191 }),
            timeout_ms: 1,
            status_on_error: 403,
            protocol: Some(wire::check_provider::Protocol::Grpc(wire::Empty {})),
            ..wire::CheckProvider::default()
        }
    }
    fn asks_provider(m: &mut wire::Service, provider: Option<wire::CheckProvider>) {
        m.authorization.push(wire::Policy {
            name: Some(wire::Name { namespace: "shop".into(), name: "p".into() }),
            action: wire::policy::Action::Custom.into(),
            provider,
            ..wire::Policy::default()
        });
    }
    assert_refused(&[
        ("authorization.provider", |m| asks_provider(m, None)),
        ("provider.name", |m| asks_provider(m, Some(wire::CheckProvider { name: String::new(), ..sound() }))),
        ("provider.to", |m| asks_provider(m, Some(wire::CheckProvider { to: None, ..sound() }))),
        ("provider.timeout_ms", |m| asks_provider(m, Some(wire::CheckProvider { timeout_ms: 0, ..sound() }))),
        ("provider.status_on_error", |m| {
            asks_provider(m, Some(wire::CheckProvider { status_on_error: 0, ..sound() }));
        }),
        ("provider.protocol", |m| asks_provider(m, Some(wire::CheckProvider { protocol: None, ..sound() }))),
        ("provider.body.max_bytes", |m| {
            let body = Some(wire::CheckBody::default());
            asks_provider(m, Some(wire::CheckProvider { body, ..sound() }));
        }),
    ]);
}

#[test]
fn a_policy_or_provider_that_is_not_understood_refuses_the_service() {
    fn asks(m: &mut wire::Service, request: wire::RequestMatch) {
        let asked = wire::Match { connection: Some(security::Match::default()), request: Some(request) };
        judges(m, asked);
    }
    fn judges(m: &mut wire::Service, asked: wire::Match) {
        m.authorization.push(wire::Policy {
            name: Some(wire::Name { namespace: "shop".into(), name: "p".into() }),
            rules: vec![wire::Rule { clauses: vec![wire::Clause { matches: vec![asked] }] }],
            ..wire::Policy::default()
        });
    }
    fn provides(m: &mut wire::Service, provider: wire::JwtProvider) {
        m.authentication.push(wire::JwtProvider { issuer: "i".into(), ..provider });
    }
    assert_refused(&[
        ("authorization.name", |m| m.authorization.push(wire::Policy::default())),
        ("authorization.action", |m| {
            judges(m, wire::Match::default());
            m.authorization[0].action = 9;
        }),
        ("match.connection", |m| judges(m, wire::Match::default())),
        ("match.extensions", |m| {
            let extensions = vec![security::Extension::default()];
            let connection = security::Match { extensions, ..security::Match::default() };
            judges(m, wire::Match { connection: Some(connection), request: None });
        }),
        ("request.paths", |m| {
            asks(m, wire::RequestMatch { paths: vec![wire::PathPattern::default()], ..Default::default() });
        }),
        ("request.not_paths", |m| {
            let template = wire::path_pattern::Kind::Template("/a/{b}".into());
            let not_paths = vec![wire::PathPattern { kind: Some(template) }];
            asks(m, wire::RequestMatch { not_paths, ..Default::default() });
        }),
        ("request.attributes", |m| {
            let attributes = vec![wire::AttributeMatch::default()];
            asks(m, wire::RequestMatch { attributes, ..Default::default() });
        }),
        ("request.attributes.claim", |m| {
            let claim = wire::attribute_match::Attribute::Claim(wire::Claim::default());
            let attributes = vec![wire::AttributeMatch { attribute: Some(claim), ..Default::default() }];
            asks(m, wire::RequestMatch { attributes, ..Default::default() });
        }),
        ("issuer", |m| m.authentication.push(wire::JwtProvider::default())),
        ("locations", |m| {
            let locations = vec![wire::TokenLocation::default()];
            provides(m, wire::JwtProvider { locations, ..Default::default() });
        }),
        ("payload_header", |m| {
            provides(m, wire::JwtProvider { payload_header: Some("X-P".into()), ..Default::default() });
        }),
    ]);
}
