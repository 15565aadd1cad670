//! Consumer routes: what they replace, and what applies to their clients all the same.

use std::{sync::Arc, time::Duration};

use ambit_model::{
    AppProtocol, Destination, NamespacedName, NetworkAddress, PortMapping, Service, ServicePort,
    TunnelProtocol, Workload,
    bound::{
        Backend, DestinationSettings, Fault, FaultAbort, Fraction, HeaderMatch, HttpRule, RateLimit,
        RateLimitScope, RequestPolicy, ValueMatch, WeightedBackend,
    },
};
use ambit_store::AddressUpdate;
use http::Request;
use http_body_util::Full;

use super::{
    endpoint::{echo, http1},
    fixture::{Mesh, PORT, bound, identity, key, pod, routed, rule, table, to},
};

#[tokio::test]
async fn a_consumers_policy_adds_to_the_services_limits_and_faults_and_lifts_none() {
    let all = Fraction { numerator: 1, denominator: 1 };
    let fault = Fault {
        headers: vec![HeaderMatch { name: "x-fault".into(), value: ValueMatch::Exact("1".into()) }],
        delay: None,
        abort: Some(FaultAbort { status: 418, fraction: all }),
    };
    let limit = |requests| RateLimit {
        scope: RateLimitScope::Service,
        requests,
        interval: Duration::from_secs(3600),
        burst: requests,
    };
    let mut cart = routed(vec![rule(vec![to("cart", 1)])], &["cart"]);
    cart.requests = Arc::new(RequestPolicy { faults: vec![fault], rate_limits: vec![limit(3)] });
    let mut theirs = HttpRule { is_consumer: true, ..rule(vec![to("cart", 1)]) };
    let wide = RequestPolicy { faults: Vec::new(), rate_limits: vec![limit(1_000_000)] };
    theirs.requests = Some(Arc::new(wide.clone()));
    cart.ports[0].consumers.insert("shop".into(), table(vec![theirs.clone()]));
    let mesh = Mesh::with_cart(cart.clone(), http1(echo("cart"))).await;
    let faulty = Request::get("/").header("host", "cart").header("x-fault", "1").body(Full::default());
    let answer = mesh.http1().await.send_request(faulty.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 418, "the owner's fault holds for the consumer's route");
    assert_eq!((mesh.get("/").await.0, mesh.get("/").await.0), (200, 200));
    assert_eq!(mesh.get("/").await.0, 429, "and so does the owner's limit");
    // The consumer's own policy applies only to its clients, and does not use up the limits of
    // others.
    cart.requests = Arc::new(RequestPolicy { faults: Vec::new(), rate_limits: vec![limit(2)] });
    theirs.requests = Some(Arc::new(RequestPolicy { rate_limits: vec![limit(1)], ..wide }));
    cart.ports[0].consumers.insert("shop".into(), table(vec![theirs]));
    mesh.bind(cart).await;
    assert_eq!(mesh.get("/").await.0, 200);
    for _ in 0..4 {
        assert_eq!(mesh.get("/").await.0, 429);
    }
    let mut other = mesh.http1_of(&identity("bank", "till")).await;
    let request = Request::get("/").header("host", "cart").body(Full::default()).unwrap();
    assert_eq!(other.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_consumers_backend_leads_to_no_guarded_pod_of_another_namespace() {
    let mut mesh = Mesh::with_cart(bound(AppProtocol::Http), http1(echo("cart"))).await;
    let evil = NamespacedName::new("pay", "evil.pay.svc.cluster.local");
    let address = "10.0.0.9".parse().unwrap();
    let service = Service {
        name: "evil".into(),
        namespace: "pay".into(),
        hostname: evil.name.clone(),
        addresses: vec![NetworkAddress { network: "".into(), address }],
        ports: vec![ServicePort { port: PORT, target_port: 8080 }],
        ..Service::default()
    };
    mesh.shared.store.apply_addresses(vec![AddressUpdate::Service(service)], &[]);
    mesh.endpoint("vault", http1(echo("vault"))).await;
    let ports = vec![PortMapping { service_port: PORT, target_port: 8080 }];
    let mut vault = Workload {
        service_account: "vault".into(),
        services: [(key("vault"), ports.clone()), (evil.clone(), ports)].into(),
        ..pod("vault-0", mesh.last_pod().ip(), TunnelProtocol::Hbone)
    };
    let to_evil = Destination { service: evil, port: PORT };
    let backend = Backend::Service(to_evil.clone());
    let theirs = rule(vec![WeightedBackend { weight: 1, backend, filters: Vec::new() }]);
    let mut cart = bound(AppProtocol::Http);
    cart.destinations.insert(to_evil, DestinationSettings::default());
    cart.ports[0].consumers.insert("shop".into(), table(vec![theirs]));
    for (policies, expected) in [
        (vec![NamespacedName::new("shop", "other")], 200),
        (vec![NamespacedName::new("shop", "ambit-waypoint-vault")], 503),
    ] {
        vault.authorization_policies = policies;
        mesh.shared.store.apply_addresses(vec![AddressUpdate::Workload(vault.clone())], &[]);
        cart.ports[0].protocol = if expected == 200 { AppProtocol::Http } else { AppProtocol::Detect };
        mesh.bind(cart.clone()).await;
        assert_eq!(mesh.get("/").await.0, expected, "{:?}", vault.authorization_policies);
    }
}
