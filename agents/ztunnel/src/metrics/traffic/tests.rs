use ambit_model::{NamespacedName, Spiffe};
use prometheus_client::{encoding::text, registry::Registry};

use super::*;
use crate::metrics::labels::{End, Security};

fn labels(name: &str) -> Labels {
    let end = |name: &str| ambit_proxy::labels::End {
        workload: Some(name.into()),
        canonical_service: Some(name.into()),
        canonical_revision: Some("v1".into()),
        namespace: Some("shop".into()),
        principal: Some(Spiffe {
            trust_domain: "cluster.local".into(),
            namespace: "shop".into(),
            service_account: name.into(),
        }),
        cluster: Some("Kubernetes".into()),
    };
    let end = |name: &str| End { end: end(name), ..End::default() };
    Labels {
        reporter: Reporter::Source,
        source: end(name),
        destination: end("cart"),
        service: Some(NamespacedName::new("shop", "cart.shop.svc.cluster.local")),
        flags: ResponseFlags::None,
        security: Security::MutualTls,
    }
}

fn scrape(traffic: &Traffic) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(traffic.clone()));
    let mut out = String::new();
    text::encode(&mut out, &registry).unwrap();
    out
}

#[test]
fn writes_istios_labels_in_istios_order() {
    let traffic = Traffic::default();
    let mut cache = traffic.cache();
    let series = cache.acquire(&labels("front"));
    series.opened();
    series.to_client(7);
    series.to_server(3);
    let expected = "reporter=\"source\",source_workload=\"front\",source_canonical_service=\"front\",\
        source_canonical_revision=\"v1\",source_workload_namespace=\"shop\",\
        source_principal=\"spiffe://cluster.local/ns/shop/sa/front\",source_app=\"front\",source_version=\"v1\",\
        source_cluster=\"Kubernetes\",destination_service=\"cart.shop.svc.cluster.local\",\
        destination_service_namespace=\"shop\",destination_service_name=\"cart\",destination_workload=\"cart\",\
        destination_canonical_service=\"cart\",destination_canonical_revision=\"v1\",\
        destination_workload_namespace=\"shop\",destination_principal=\"spiffe://cluster.local/ns/shop/sa/cart\",\
        destination_app=\"cart\",destination_version=\"v1\",destination_cluster=\"Kubernetes\",\
        request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"mutual_tls\",\
        source_region=\"unknown\",source_zone=\"unknown\",destination_region=\"unknown\",destination_zone=\"unknown\"";
    let text = scrape(&traffic);
    for line in [
        format!("istio_tcp_connections_opened_total{{{expected}}} 1"),
        format!("istio_tcp_connections_closed_total{{{expected}}} 0"),
        format!("istio_tcp_sent_bytes_total{{{expected}}} 7"),
        format!("istio_tcp_received_bytes_total{{{expected}}} 3"),
    ] {
        assert!(text.contains(&line), "{line}\n is not in\n{text}");
    }
}

#[test]
fn nothing_known_is_written_as_unknown_with_the_flag() {
    let traffic = Traffic::default();
    traffic.cache().failed_early(Reporter::Destination, ResponseFlags::TlsFailure);
    let text = scrape(&traffic);
    assert!(
        text.contains("source_principal=\"unknown\"") && text.contains("response_flags=\"TLS_FAILURE\""),
        "{text}"
    );
}

#[test]
fn drops_a_series_only_when_nobody_uses_it() {
    let traffic = Traffic::default();
    let mut cache = traffic.cache();
    let used = cache.acquire(&labels("a"));
    drop(cache.acquire(&labels("b")));
    traffic.sweep(Duration::ZERO);
    assert!(
        scrape(&traffic).contains("source_workload=\"a\"")
            && !scrape(&traffic).contains("source_workload=\"b\"")
    );
    drop(used);
    traffic.sweep(Duration::ZERO);
    assert!(!scrape(&traffic).contains("source_workload=\"a\""));

    // A worker that cached the removed series gets a new one.
    cache.acquire(&labels("a")).opened();
    assert!(scrape(&traffic).contains("source_workload=\"a\""));
}

#[test]
fn counts_into_one_series_once_there_are_too_many() {
    let traffic = Traffic::default();
    let mut cache = traffic.cache();
    for i in 0..SERIES_MAX + 5 {
        cache.acquire(&labels(&format!("w{i}"))).opened();
    }
    let text = scrape(&traffic);
    let overflow = text.lines().find(|line| {
        line.starts_with("istio_tcp_connections_opened_total") && line.contains("source_workload=\"other\"")
    });
    assert!(overflow.is_some_and(|line| line.ends_with(" 5")), "{overflow:?}");
    assert_eq!(traffic.0.len(), SERIES_MAX + 1);
}
