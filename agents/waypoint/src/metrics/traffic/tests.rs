use prometheus_client::{encoding::text, registry::Registry};

use super::*;
use crate::metrics::{labels::Flags, sizes::HISTOGRAMS_MAX};

fn workload(name: &str, tunnel: TunnelProtocol) -> Arc<Workload> {
    Arc::new(Workload {
        uid: format!("Kubernetes//Pod/shop/{name}-1").into(),
        name: format!("{name}-1").into(),
        namespace: "shop".into(),
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        cluster_id: "Kubernetes".into(),
        trust_domain: "cluster.local".into(),
        service_account: name.into(),
        tunnel_protocol: tunnel,
        ..Workload::default()
    })
}

fn identity(account: &str) -> Spiffe {
    Spiffe { trust_domain: "cluster.local".into(), namespace: "shop".into(), service_account: account.into() }
}

fn service() -> NamespacedName {
    NamespacedName::new("shop", "cart.shop.svc.cluster.local")
}

fn scrape(traffic: &Traffic) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(traffic.clone()));
    let mut out = String::new();
    text::encode(&mut out, &registry).unwrap();
    out
}

/// The value of the one line that begins with `name{` and holds every part.
fn value(text: &str, name: &str, parts: &[&str]) -> String {
    let holds =
        |line: &&str| line.starts_with(&format!("{name}{{")) && parts.iter().all(|part| line.contains(part));
    let lines: Vec<_> = text.lines().filter(holds).collect();
    assert_eq!(lines.len(), 1, "{name} {parts:?} in\n{text}");
    lines[0].rsplit(' ').next().unwrap().to_owned()
}

const SIZES: Sizes = Sizes {
    duration: Duration::from_millis(7),
    request: 300,
    response: 5000,
    request_messages: 2,
    response_messages: 3,
};

#[test]
fn a_request_is_counted_under_istios_labels() {
    let traffic = Traffic::default();
    let mut cache = traffic.cache();
    let (client, service) = (workload("front", TunnelProtocol::Hbone), service());
    let source = cache.client(&identity("front"), Some(&client));
    let destination = workload("cart", TunnelProtocol::Hbone);
    let parties = Parties { source: &source, service: &service, destination: Some(&destination) };
    cache.request(&parties, Ended::request(200, Flags::default()), &SIZES);
    let labels = "reporter=\"waypoint\",source_workload=\"front\",source_canonical_service=\"front\",\
        source_canonical_revision=\"v1\",source_workload_namespace=\"shop\",\
        source_principal=\"spiffe://cluster.local/ns/shop/sa/front\",source_app=\"front\",source_version=\"v1\",\
        source_cluster=\"Kubernetes\",destination_service=\"cart.shop.svc.cluster.local\",\
        destination_service_namespace=\"shop\",destination_service_name=\"cart\",destination_workload=\"cart\",\
        destination_canonical_service=\"cart\",destination_canonical_revision=\"v1\",\
        destination_workload_namespace=\"shop\",\
        destination_principal=\"spiffe://cluster.local/ns/shop/sa/cart\",destination_app=\"cart\",\
        destination_version=\"v1\",destination_cluster=\"Kubernetes\",request_protocol=\"http\",\
        response_code=\"200\",response_flags=\"-\",connection_security_policy=\"mutual_tls\"";
    let text = scrape(&traffic);
    for line in [
        format!("istio_requests_total{{{labels}}} 1"),
        format!("istio_request_duration_milliseconds_sum{{{labels}}} 7.0"),
        format!("istio_request_duration_milliseconds_count{{{labels}}} 1"),
        format!("istio_request_duration_milliseconds_bucket{{le=\"5.0\",{labels}}} 0"),
        format!("istio_request_duration_milliseconds_bucket{{le=\"10.0\",{labels}}} 1"),
        format!("istio_request_bytes_sum{{{labels}}} 300.0"),
        format!("istio_response_bytes_bucket{{le=\"10000.0\",{labels}}} 1"),
        format!("istio_response_bytes_bucket{{le=\"1000.0\",{labels}}} 0"),
        format!("istio_response_bytes_bucket{{le=\"+Inf\",{labels}}} 1"),
    ] {
        assert!(text.contains(&line), "{line}\n is not in\n{text}");
    }
}

#[test]
fn how_it_ended_makes_series_of_its_own() {
    let traffic = Traffic::default();
    let mut cache = traffic.cache();
    let service = service();
    let source = cache.client(&identity("front"), None);
    let parties = Parties { source: &source, service: &service, destination: None };
    let cases: [(Ended, &[&str]); 7] = [
        (Ended::request(503, Flags::new(&["UH"])), &["response_code=\"503\"", "response_flags=\"UH\""]),
        (
            Ended::request(504, Flags::new(&["", "DI", "UT", "DC"])),
            &["response_code=\"504\"", "response_flags=\"DI,UT\""],
        ),
        (Ended::request(0, Flags::new(&["DC"])), &["response_code=\"0\"", "response_flags=\"DC\""]),
        (
            Ended::grpc(200, Some(14), Flags::default()),
            &["request_protocol=\"grpc\"", "grpc_response_status=\"14\""],
        ),
        (Ended::grpc(201, Some(99), Flags::default()), &["grpc_response_status=\"2\""]),
        (Ended::grpc(202, None, Flags::default()), &["grpc_response_status=\"unknown\""]),
        (Ended::request(204, Flags::default()), &["request_protocol=\"http\"", "response_code=\"204\""]),
    ];
    for (ended, _) in cases {
        cache.request(&parties, ended, &SIZES);
    }
    let text = scrape(&traffic);
    for (_, parts) in cases {
        assert_eq!(value(&text, "istio_requests_total", parts), "1");
    }
    for unknown in ["destination_workload=\"unknown\"", "destination_principal=\"unknown\""] {
        assert!(text.contains(unknown));
    }
    assert!(text.contains("source_workload_namespace=\"shop\""), "the identity names the namespace");
    assert_eq!(text.lines().filter(|line| line.contains("grpc_response_status")).count() % 3, 0);
    for (name, expected) in [("istio_request_messages_total", "2"), ("istio_response_messages_total", "3")] {
        assert_eq!(value(&text, name, &["grpc_response_status=\"14\""]), expected);
        let of_http = |line: &&str| line.starts_with(name) && line.contains("request_protocol=\"http\"");
        assert_eq!(text.lines().find(of_http), None, "only gRPC has messages");
    }
}

#[test]
fn streams_count_what_they_move_under_tcp() {
    let traffic = Traffic::default();
    let mut cache = traffic.cache();
    let service = service();
    let source = cache.client(&identity("front"), None);
    let plain = workload("cart", TunnelProtocol::None);
    let parties = Parties { source: &source, service: &service, destination: Some(&plain) };
    let stream = cache.stream(&parties, Ended::stream(Flags::default()));
    stream.opened();
    stream.moved(60, 10);
    stream.moved(10, 20);
    stream.closed();
    let text = scrape(&traffic);
    let tcp =
        ["request_protocol=\"tcp\"", "destination_workload=\"cart\"", "destination_principal=\"unknown\""];
    for (name, expected) in [
        ("istio_tcp_connections_opened_total", "1"),
        ("istio_tcp_connections_closed_total", "1"),
        ("istio_tcp_sent_bytes_total", "70"),
        ("istio_tcp_received_bytes_total", "30"),
    ] {
        assert_eq!(value(&text, name, &tcp), expected, "{name}");
    }
    assert!(!text.contains("response_code"));
}

#[test]
fn equal_labels_share_a_series_whatever_holds_them() {
    let traffic = Traffic::default();
    for _ in 0..3 {
        // Another worker, another snapshot of the mesh, another tunnel.
        let mut cache = traffic.cache();
        let (client, service) = (workload("front", TunnelProtocol::Hbone), service());
        let source = cache.client(&identity("front"), Some(&client));
        let destination = workload("cart", TunnelProtocol::Hbone);
        let parties = Parties { source: &source, service: &service, destination: Some(&destination) };
        cache.request(&parties, Ended::request(200, Flags::default()), &SIZES);
    }
    assert_eq!(traffic.requests.len(), 1);
    assert_eq!(value(&scrape(&traffic), "istio_requests_total", &[]), "3");
}

#[test]
fn a_client_is_known_again_until_the_mesh_says_something_else_of_it() {
    let mut cache = Traffic::default().cache();
    let client = workload("front", TunnelProtocol::Hbone);
    let known = cache.client(&identity("front"), Some(&client));
    assert!(Arc::ptr_eq(&known, &cache.client(&identity("front"), Some(&client))));
    let relabelled = Arc::new(Workload { canonical_revision: "v2".into(), ..(*client).clone() });
    assert_ne!(known, cache.client(&identity("front"), Some(&relabelled)));
    assert_ne!(known, cache.client(&identity("other"), Some(&client)));
}

#[test]
fn too_many_series_become_one_of_each_class() {
    let traffic = Traffic::default();
    let mut cache = traffic.cache();
    let service = service();
    for i in 0..SERIES_MAX + 6 {
        let source = cache.client(&identity(&format!("a{i}")), None);
        let parties = Parties { source: &source, service: &service, destination: None };
        let code = if i % 2 == 0 { 204 } else { 503 };
        cache.request(&parties, Ended::request(code, Flags::default()), &SIZES);
    }
    assert_eq!(traffic.requests.len(), SERIES_MAX + 2);
    let text = scrape(&traffic);
    for class in ["2xx", "5xx"] {
        let code = format!("response_code=\"{class}\"");
        let parts = ["source_workload=\"overflow\"", "destination_service=\"overflow\"", &code];
        assert_eq!(value(&text, "istio_requests_total", &parts), "3");
    }
}

/// Every kind of series at its limit, with names as long as they are in a cluster.
fn full() -> Traffic {
    let traffic = Traffic::default();
    let mut cache = traffic.cache();
    let service = NamespacedName::new("online-boutique", "recommendations.online-boutique.svc.cluster.local");
    let pod = |name: &str| {
        let pod = workload(name, TunnelProtocol::Hbone);
        Arc::new(Workload { namespace: service.namespace.clone(), ..(*pod).clone() })
    };
    let destination = pod("recommendations");
    for i in 0..SERIES_MAX * 2 {
        let client = pod(&format!("storefront-{i:04}"));
        let source = cache.client(&client.identity(), Some(&client));
        let parties = Parties { source: &source, service: &service, destination: Some(&destination) };
        cache.request(&parties, Ended::grpc(200, Some(0), Flags::default()), &SIZES);
        cache.stream(&parties, Ended::stream(Flags::default())).opened();
    }
    traffic
}

#[test]
fn a_scrape_at_every_limit_stays_small_and_misses_nothing() {
    const SCRAPE_MAX_BYTES: usize = 10_000_000;
    let text = scrape(&full());
    let of = |name: &'static str| text.lines().filter(move |line| line.starts_with(name));
    let sum = |name: &'static str| {
        let values = of(name).map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
        values.sum::<usize>()
    };
    assert_eq!(sum("istio_requests_total{"), SERIES_MAX * 2);
    assert_eq!(sum("istio_request_duration_milliseconds_count{"), SERIES_MAX * 2);
    assert_eq!(of("istio_request_duration_milliseconds_count{").count(), HISTOGRAMS_MAX + 1);
    assert_eq!(of("istio_tcp_sent_bytes_total{").count(), STREAMS_MAX + 1);
    assert!(text.len() <= SCRAPE_MAX_BYTES, "{} bytes in {} lines", text.len(), text.lines().count());
    // Nothing is shown twice.
    let mut lines: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup_by_key(|(labels, _)| *labels);
    assert_eq!(lines.len(), all);
}

#[test]
fn histograms_of_series_that_went_are_free_for_others() {
    let traffic = full();
    traffic.sweep(Duration::ZERO);
    let service = service();
    let mut cache = traffic.cache();
    let source = cache.client(&identity("front"), None);
    let parties = Parties { source: &source, service: &service, destination: None };
    cache.request(&parties, Ended::request(200, Flags::default()), &SIZES);
    let text = scrape(&traffic);
    let name = "istio_request_duration_milliseconds_count";
    assert_eq!(value(&text, name, &["response_code=\"200\""]), "1");
}

#[test]
fn unused_series_go_and_come_back() {
    let traffic = Traffic::default();
    let mut cache = traffic.cache();
    let service = service();
    let source = cache.client(&identity("front"), None);
    let parties = Parties { source: &source, service: &service, destination: None };
    let open = cache.stream(&parties, Ended::stream(Flags::default()));
    for _ in 0..2 {
        cache.request(&parties, Ended::request(200, Flags::default()), &SIZES);
        traffic.sweep(Duration::ZERO);
        assert_eq!((traffic.requests.len(), traffic.streams.len()), (0, 1));
    }
    cache.request(&parties, Ended::request(200, Flags::default()), &SIZES);
    assert_eq!(value(&scrape(&traffic), "istio_requests_total", &[]), "1");
    drop(open);
}
