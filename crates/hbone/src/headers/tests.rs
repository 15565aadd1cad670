//! Encoded headers as Istio writes them, and round trips.

use proptest::prelude::*;

use super::*;

fn cart() -> Baggage {
    Baggage {
        cluster: Some("Kubernetes".into()),
        namespace: Some("shop".into()),
        workload: Some(("deployment".into(), "cart".into())),
        service: Some("cart".into()),
        revision: Some("v1".into()),
        region: None,
        zone: Some("z1".into()),
    }
}

#[test]
fn baggage_is_written_in_istios_order_without_empty_members() {
    assert_eq!(
        cart().encode(),
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart,service.name=cart,\
         service.version=v1,cloud.availability_zone=z1"
    );
    assert_eq!(Baggage::default().encode(), "");
}

#[test]
fn baggage_is_read_from_several_lines_and_the_last_member_wins() {
    let mut map = HeaderMap::new();
    map.append(BAGGAGE, HeaderValue::from_static("k8s.namespace.name=a, service.name=x;meta=1"));
    map.append(
        BAGGAGE,
        HeaderValue::from_static("k8s.namespace.name=b,k8s.job.name=j,unknown=1,=,k8s.node.name=n"),
    );
    let read = Baggage::from_headers(&map).unwrap();
    assert_eq!(read.namespace.as_deref(), Some("b"));
    assert_eq!(read.service.as_deref(), Some("x"));
    assert_eq!(read.workload, Some(("job".into(), "j".into())));
}

#[test]
fn forwarded_is_written_as_istio_writes_it_and_read_leniently() {
    let client = "10.0.0.1:1234".parse().unwrap();
    let given = Forwarded { client: Some(client), host: Some("cart.shop.svc.cluster.local".into()) };
    assert_eq!(given.encode(), "for=\"10.0.0.1:1234\";host=cart.shop.svc.cluster.local");
    assert_eq!(Forwarded::parse(&given.encode()), given);
    assert_eq!(Forwarded::parse("Host=\"a.b\", host=c").host.as_deref(), Some("a.b"));
    assert_eq!(Forwarded::parse("for=_hidden;by=x"), Forwarded { client: None, host: None });
    let v6 = Forwarded { client: Some("[fd00::1]:1".parse().unwrap()), host: None };
    assert_eq!(Forwarded::parse(&v6.encode()), v6);
}

#[test]
fn traceparent_refuses_other_versions_lengths_and_zero_ids() {
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    assert_eq!(TraceParent::parse(good).unwrap().encode(), good);
    for bad in [
        "",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "00-00000000000000000000000000000000-b7ad6b7169203331-00",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-x",
        "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    ] {
        assert_eq!(TraceParent::parse(bad), None, "{bad}");
    }
}

#[test]
fn what_a_header_cannot_carry_is_left_out() {
    let bad = Baggage { namespace: Some("a\nb".into()), service: Some("a,b".into()), ..Baggage::default() };
    let headers = ConnectHeaders { baggage: Some(bad), ..ConnectHeaders::default() };
    assert!(headers.encode().is_empty());
}

proptest! {
    #[test]
    fn connect_headers_survive_a_round_trip(
        namespace in "[a-z0-9-]{1,20}", name in "[a-z0-9-]{1,20}", kind in 0..KINDS.len(),
        client: Option<SocketAddr>, trace_id in 1..=u128::MAX, span_id in 1..=u64::MAX, flags: u8,
    ) {
        // The header does not carry a scope id.
        let client = client.map(|c| SocketAddr::new(c.ip(), c.port()));
        let headers = ConnectHeaders {
            baggage: Some(Baggage {
                namespace: Some(namespace),
                workload: Some((KINDS[kind].to_owned(), name.clone())),
                ..Baggage::default()
            }),
            forwarded: Some(Forwarded { client, host: Some(name) }),
            traceparent: Some(TraceParent { trace_id, span_id, flags }),
        };
        prop_assert_eq!(ConnectHeaders::parse(&headers.encode()), headers);
    }

    #[test]
    fn no_header_panics(text in "[ -~]{0,80}") {
        let mut map = HeaderMap::new();
        for name in [BAGGAGE, FORWARDED, TRACEPARENT] {
            map.insert(name, HeaderValue::try_from(&text).unwrap());
        }
        ConnectHeaders::parse(&map);
    }
}
