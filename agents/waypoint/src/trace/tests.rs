use std::time::{Duration, UNIX_EPOCH};

use ambit_proto::opentelemetry::proto::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
};

use super::*;
use crate::access_log::{End, Heard};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;

fn tracer(sampled: f64, room: usize) -> (Tracer, mpsc::Receiver<Span>) {
    let (spans, waiting) = mpsc::channel(room);
    (Tracer { sampled_per_million: per_million(sampled), spans, dropped: Counter::default() }, waiting)
}

fn headers(traceparent: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
    if !traceparent.is_empty() {
        headers.insert(context::TRACEPARENT, HeaderValue::from_static(traceparent));
    }
    headers
}

fn record() -> Record<'static> {
    Record {
        request: Some(Heard {
            method: "POST",
            path: "/pay?card=secret",
            host: Some("me:secret@cart"),
            protocol: "HTTP/2.0",
            status: Some(503),
            grpc_status: Some(14),
        }),
        flags: &["UF", "URX"],
        code_details: "",
        bytes_recv: 3,
        bytes_sent: 4,
        duration: Duration::from_millis(250),
        tries: 3,
        route: Some("HTTPRoute/shop/pay/0"),
        service: "pay.shop.svc.cluster.local",
        source: End { addr: "10.0.0.1:4000".parse().ok(), ..End::default() },
        destination: End { addr: "10.0.0.2:8080".parse().ok(), ..End::default() },
        trace_id: None,
        error: Some("connection refused"),
    }
}

#[test]
fn a_sampled_trace_goes_on_with_a_span_of_ours_between() {
    let mut headers = headers(PARENT);
    let trace = tracer(0.0, 1).0.begin(&mut headers, [1, 2, 0xabc]);
    assert_eq!(
        trace,
        Trace { id: TRACE, open: Some(OpenSpan { id: 0xabc, parent: Some(0xb7ad_6b71_6920_3331) }) }
    );
    assert_eq!(headers[context::TRACEPARENT], "00-0af7651916cd43dd8448eb211c80319c-0000000000000abc-01");
    assert_eq!(headers[TRACESTATE], "vendor=1");
}

#[test]
fn a_trace_that_its_beginner_does_not_sample_goes_on_untouched() {
    let mut headers = headers(UNSAMPLED);
    let trace = tracer(1.0, 1).0.begin(&mut headers, [1, 2, 3]);
    assert_eq!(trace, Trace { id: TRACE, open: None });
    assert_eq!(
        (&headers[context::TRACEPARENT], &headers[TRACESTATE]),
        (&UNSAMPLED.parse().unwrap(), &"vendor=1".parse().unwrap())
    );
}

#[test]
fn without_a_usable_context_a_trace_begins_and_the_state_of_another_goes() {
    for (given, sampled, flag) in [("", 1.0, "01"), ("nonsense", 1.0, "01"), ("", 0.0, "00")] {
        let mut headers = headers(given);
        let trace = tracer(sampled, 1).0.begin(&mut headers, [5, 6, 7]);
        let expected = format!("00-00000000000000050000000000000006-0000000000000007-{flag}");
        assert_eq!(headers[context::TRACEPARENT], expected.as_str());
        assert!(!headers.contains_key(TRACESTATE));
        assert_eq!((trace.id, trace.open.is_some()), (5 << 64 | 6, sampled > 0.0));
    }
}

#[test]
fn ids_are_never_zero() {
    let mut headers = HeaderMap::new();
    tracer(1.0, 1).0.begin(&mut headers, [0; 3]);
    assert!(Context::of(&headers).is_some());
}

#[test]
fn the_share_of_begun_traces_that_is_sampled_is_the_configured_one() {
    for (share, expected) in [(0.0, 0), (0.01, 100), (0.5, 5000), (1.0, 10_000), (f64::NAN, 0), (7.0, 10_000)]
    {
        let (tracer, _spans) = tracer(share, 1);
        let spread = |i: u64| i * (u64::from(u32::MAX) / 10_000);
        let sampled = (0..10_000).filter(|i| tracer.samples(spread(*i))).count();
        assert!(sampled.abs_diff(expected) <= 1, "{sampled} for {share}");
    }
}

#[test]
fn a_span_says_what_the_log_says_and_keeps_the_same_secrets() {
    let (tracer, mut spans) = tracer(1.0, 1);
    let trace = tracer.begin(&mut headers(PARENT), [1, 2, 0xabc]);
    tracer.end(&trace, &record(), &[], UNIX_EPOCH + Duration::from_secs(10));
    let span = spans.try_recv().unwrap();
    assert_eq!(span.trace_id, TRACE.to_be_bytes());
    assert_eq!((span.span_id[6], span.span_id[7], span.parent_span_id[0]), (0xa, 0xbc, 0xb7));
    assert_eq!((span.name.as_str(), span.kind), ("POST HTTPRoute/shop/pay/0", 2));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (9_750_000_000, 10_000_000_000));
    assert_eq!(
        span.status.as_ref().map(|status| (status.code, status.message.as_str())),
        Some((2, "connection refused"))
    );
    let shown: Vec<String> = span.attributes.iter().map(shown).collect();
    assert_eq!(
        shown,
        [
            "ambit.service=pay.shop.svc.cluster.local",
            "http.request.method=POST",
            "url.path=/pay",
            "network.protocol.version=2",
            "server.address=cart",
            "http.response.status_code=503",
            "rpc.grpc.status_code=14",
            "http.request.body.size=3",
            "http.response.body.size=4",
            "ambit.route=HTTPRoute/shop/pay/0",
            "response_flags=UF,URX",
            "http.request.resend_count=2",
            "client.address=10.0.0.1",
            "upstream_address=10.0.0.2:8080",
        ]
    );
}

#[test]
fn each_of_several_tries_is_a_span_below_that_of_its_request() {
    let (tracer, mut spans) = tracer(1.0, 3);
    let mut headers = headers(PARENT);
    let trace = tracer.begin(&mut headers, [1, 2, 0xabc]);
    trace.again(&mut headers, 0xdef);
    assert_eq!(headers[context::TRACEPARENT], "00-0af7651916cd43dd8448eb211c80319c-0000000000000def-01");
    assert_eq!(headers[TRACESTATE], "vendor=1");
    let (after, took) = (Duration::from_millis(100), Duration::from_millis(50));
    let first = Tried { span: 7, after: Duration::ZERO, took, endpoint: None, status: None, flag: "UF" };
    let second = Tried { span: 0xdef, after, status: Some(200), flag: "", ..first.clone() };
    tracer.end(&trace, &record(), &[first, second], UNIX_EPOCH + Duration::from_secs(10));
    let whole = spans.try_recv().unwrap();
    let told = [
        (1, &["http.request.method=POST", "response_flags=UF"][..], 9_750_000_000, true),
        (
            2,
            &["http.request.method=POST", "http.response.status_code=200", "http.request.resend_count=1"],
            9_850_000_000,
            false,
        ),
    ];
    for (nth, attributes, start, failed) in told {
        let span = spans.try_recv().unwrap();
        assert_eq!((span.trace_id, span.parent_span_id), (whole.trace_id.clone(), whole.span_id.clone()));
        assert_eq!((span.name, span.kind), (format!("try {nth}"), 3));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (start, start + 50_000_000));
        assert_eq!(span.attributes.iter().map(shown).collect::<Vec<_>>(), attributes);
        assert_eq!(span.status.is_some(), failed);
    }
}

#[test]
fn a_try_of_a_trace_that_is_not_sampled_changes_nothing() {
    let mut headers = headers(UNSAMPLED);
    tracer(1.0, 1).0.begin(&mut headers, [1, 2, 3]).again(&mut headers, 9);
    assert_eq!(headers[context::TRACEPARENT], UNSAMPLED);
}

fn shown(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => format!("{}={text}", attribute.key),
        Some(Value::IntValue(number)) => format!("{}={number}", attribute.key),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_request_is_no_error_and_one_that_is_not_sampled_no_span() {
    let (tracer, mut spans) = tracer(1.0, 1);
    let good = Record { request: Some(Heard { status: Some(404), ..record().request.unwrap() }), ..record() };
    tracer.end(&tracer.begin(&mut headers(PARENT), [1, 2, 3]), &good, &[], UNIX_EPOCH);
    assert_eq!(spans.try_recv().unwrap().status, None);
    tracer.end(&tracer.begin(&mut headers(UNSAMPLED), [1, 2, 3]), &good, &[], UNIX_EPOCH);
    assert!(spans.try_recv().is_err());
}

#[test]
fn spans_that_find_no_room_are_dropped_and_counted() {
    let (tracer, _spans) = tracer(1.0, 2);
    let trace = tracer.begin(&mut HeaderMap::new(), [1, 2, 3]);
    (0..5).for_each(|_| tracer.end(&trace, &record(), &[], UNIX_EPOCH));
    assert_eq!(tracer.dropped.get(), 3);
}

/// Hands on what it is sent.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn a_collector_gets_the_span_and_who_sent_it_before_the_process_ends() {
    let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("http://{}", incoming.local_addr().unwrap());
    let (seen, mut requests) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(seen)));
    tokio::spawn(server.serve_with_incoming(incoming));

    let origin = Origin {
        gateway: ambit_model::NamespacedName::new("shop", "waypoint"),
        pod: ambit_model::NamespacedName::new("shop", "waypoint-x"),
    };
    let counters = [Counter::default(), Counter::default()];
    let (tracer, exporter) = Tracer::start(&address, 1.0, origin, counters.clone()).unwrap();
    let trace = tracer.begin(&mut HeaderMap::new(), [1, 2, 3]);
    tracer.end(&trace, &record(), &[], SystemTime::now());
    drop(tracer);
    exporter.await;
    let sent = requests.recv().await.unwrap().resource_spans.pop().unwrap();
    let resource: Vec<_> = sent.resource.unwrap().attributes.iter().map(shown).collect();
    assert_eq!(resource[..2], ["service.name=waypoint", "service.namespace=shop"]);
    assert_eq!(sent.scope_spans[0].spans.len(), 1);
    assert_eq!(counters.map(|counter| counter.get()), [1, 0]);
}

#[tokio::test]
async fn what_is_no_address_is_refused_with_its_name() {
    let origin = Origin {
        gateway: ambit_model::NamespacedName::new("shop", "waypoint"),
        pod: ambit_model::NamespacedName::new("shop", "waypoint-x"),
    };
    let refused = Tracer::start("http://a b", 1.0, origin, Default::default());
    assert!(refused.err().unwrap().to_string().contains("\"http://a b\""));
}
