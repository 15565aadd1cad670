//! Telemetry: access log, metrics and traces.

use ambit_model::{AppProtocol, NamespacedName, TunnelProtocol, bound::Retry};
use ambit_proxy::access_log::AccessLog;
use ambit_runtime::{admin, lines::Logged, telemetry::Format};
use ambit_waypoint::{
    metrics::Metrics,
    telemetry::Sinks,
    trace::{Origin, Tracer},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use super::{
    endpoint::{Count, Serve, echo, http1, http2},
    fixture::{Mesh, PATIENCE, VIP, bound, deny_all, routed, rule, text, to},
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Sinks that can be read back: access log lines, and `/metrics`.
struct Reader {
    sinks: Sinks,
    lines: mpsc::UnboundedReceiver<String>,
    shown: admin::Metrics,
}

impl Reader {
    fn new() -> Self {
        // A disabled level writes no line. Another test may have been first.
        _ = tracing_subscriber::fmt().with_writer(std::io::sink).try_init();
        let (metrics, shown) = (Metrics::default(), admin::Metrics::default());
        metrics.register(&shown);
        let (written, lines) = mpsc::unbounded_channel();
        let sink = Box::new(move |text: &str| {
            text.lines().for_each(|line| _ = written.send(line.to_owned()));
        });
        let log = AccessLog::start(Logged::All, Format::Text, metrics.log_dropped.clone(), sink).unwrap();
        Self { sinks: Sinks { metrics, log: Some(log), tracer: None }, lines, shown }
    }

    /// The next line; its request has been counted by then.
    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.lines.recv()).await.unwrap().unwrap()
    }

    /// The only line of a scrape with all of these parts.
    fn metric(&self, parts: &[&str]) -> String {
        let text = self.shown.encode();
        let mut found = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
        let line = found.next().unwrap_or_else(|| panic!("{parts:?} is not in\n{text}"));
        assert_eq!(found.next(), None);
        line.to_owned()
    }
}

async fn mesh(reader: &Reader, serve: Serve) -> Mesh {
    let mut mesh = Mesh::with_sinks(reader.sinks.clone());
    mesh.service("cart", VIP);
    mesh.endpoint("cart", serve).await;
    // The client is identified by its address.
    mesh.workload("web", "127.0.0.1".parse().unwrap(), TunnelProtocol::Hbone);
    mesh
}

fn holds(line: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} is not in {line}");
}

#[tokio::test]
async fn a_request_is_counted_and_logged_once_with_both_ends() {
    let mut reader = Reader::new();
    let mesh = mesh(&reader, http1(echo("cart"))).await;
    mesh.bind(routed(vec![rule(vec![to("cart", 1)])], &["cart"])).await;
    let request = Request::post("/pay?card=secret")
        .header("host", "cart")
        .header("authorization", "Bearer secret")
        .header("cookie", "secret")
        .body(Full::new(Bytes::from_static(b"hello")))
        .unwrap();
    let response = mesh.http1().await.send_request(request).await.unwrap();
    let body = text(response).await;
    let line = reader.line().await;
    holds(
        &line,
        &[
            "\tinfo\taccess\trequest complete\tmethod=\"POST\" path=\"/pay\" host=\"cart\" protocol=\"HTTP/1.1\" \
         status=200 flags=\"-\" bytes_recv=5 ",
            &format!("bytes_sent={} ", body.len()),
            "route=\"HTTPRoute/shop/cart/0\"",
            "src.workload=\"web-127.0.0.1\" src.namespace=\"shop\" \
         src.identity=\"spiffe://cluster.local/ns/shop/sa/web\" dst.service=\"cart.shop.svc.cluster.local\"",
            "dst.workload=\"cart-127.",
            "dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\"",
        ],
    );
    assert!(!line.contains("secret"));
    let labels = [
        "reporter=\"waypoint\"",
        "source_principal=\"spiffe://cluster.local/ns/shop/sa/web\"",
        "source_cluster=\"unknown\"",
        "destination_service_name=\"cart\"",
        "destination_principal=\"spiffe://cluster.local/ns/shop/sa/cart\"",
        "response_code=\"200\"",
    ];
    let requests = reader.metric(&[&["istio_requests_total{"], &labels[..]].concat());
    let bytes = reader.metric(&[&["istio_request_bytes_sum{"], &labels[..]].concat());
    assert!(requests.ends_with(" 1") && bytes.ends_with(" 5.0"), "{requests}\n{bytes}");
}

#[tokio::test]
async fn a_request_without_an_endpoint_is_an_error_that_says_so() {
    let mut reader = Reader::new();
    let mesh = mesh(&reader, http1(echo("cart"))).await;
    mesh.bind(routed(vec![rule(vec![to("gone", 1)])], &["gone"])).await;
    assert_eq!(mesh.get("/").await.0, 503);
    let details = "response_code_details=\"no_healthy_upstream\"";
    holds(&reader.line().await, &["\terror\taccess\t", "status=503 flags=\"UH\"", details]);
    reader.metric(&[
        "istio_requests_total{",
        "response_flags=\"UH\"",
        "destination_workload=\"unknown\"",
        " 1",
    ]);
}

#[tokio::test]
async fn a_denied_request_is_logged_with_the_policy_that_denied_it_as_envoy_writes_it() {
    let mut reader = Reader::new();
    let mesh = mesh(&reader, http1(echo("cart"))).await;
    for (protocol, name) in
        [(AppProtocol::Http, "response_code_details"), (AppProtocol::Tcp, "connection_termination_details")]
    {
        let mut closed = bound(protocol);
        closed.authorization = vec![deny_all("closed")];
        mesh.bind(closed).await;
        if protocol == AppProtocol::Http {
            assert_eq!(mesh.get("/").await.0, 403);
        } else {
            // Whether it is answered before it is aborted does not matter here.
            _ = mesh.tunnel(VIP).await;
        }
        let details = format!("{name}=\"rbac_access_denied_matched_policy[ns[shop]-policy[closed]]\"");
        holds(&reader.line().await, &["flags=\"-\" ", &details, "explicitly denied by shop/closed\""]);
    }
}

/// A tracer without a collector, which never blocks.
fn tracer() -> Tracer {
    let origin = Origin {
        gateway: NamespacedName::new("shop", "waypoint"),
        pod: NamespacedName::new("shop", "waypoint-1"),
    };
    Tracer::start("http://127.0.0.1:9", 1.0, origin, Default::default()).unwrap().0
}

#[tokio::test]
async fn a_trace_reaches_the_endpoint_and_the_log() {
    for (with_tracer, expected) in [(false, PARENT), (true, "00-0af7651916cd43dd8448eb211c80319c-")] {
        let mut reader = Reader::new();
        if with_tracer {
            reader.sinks.tracer = Some(tracer());
        }
        let mesh = mesh(&reader, http1(echo("cart"))).await;
        mesh.bind(bound(AppProtocol::Http)).await;
        let request = Request::get("/")
            .header("host", "cart")
            .header("traceparent", PARENT)
            .header("tracestate", "vendor=1")
            .body(Full::default())
            .unwrap();
        let seen = text(mesh.http1().await.send_request(request).await.unwrap()).await;
        holds(&seen, &["tracestate: vendor=1", &format!("traceparent: {expected}")]);
        assert_eq!(seen.contains(PARENT), !with_tracer, "a span of ours is the endpoint's parent: {seen}");
        holds(&reader.line().await, &["trace_id=\"0af7651916cd43dd8448eb211c80319c\""]);
    }
}

#[tokio::test]
async fn a_stream_is_counted_when_it_opens_and_logged_when_it_ends() {
    let mut reader = Reader::new();
    let mesh = mesh(&reader, http1(echo("cart"))).await;
    mesh.bind(bound(AppProtocol::Tcp)).await;
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await.unwrap();
    let mut first = [0; 1];
    tunnel.read_exact(&mut first).await.unwrap();
    let opened = reader.metric(&["istio_tcp_connections_opened_total{", "request_protocol=\"tcp\""]);
    assert!(opened.ends_with(" 1"), "{opened}");
    let closed = reader.metric(&["istio_tcp_connections_closed_total{"]);
    assert!(closed.ends_with(" 0"), "{closed}");
    tunnel.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tunnel.read_to_end(&mut rest).await.unwrap();
    let line = reader.line().await;
    let sent = format!("bytes_recv=30 bytes_sent={} ", rest.len() + 1);
    holds(&line, &["\taccess\tconnection complete\tflags=\"-\" ", &sent]);
    for (name, expected) in [("connections_closed_total", "1"), ("received_bytes_total", "30")] {
        let metric = reader.metric(&[&format!("istio_tcp_{name}{{")]);
        assert!(metric.ends_with(&format!(" {expected}")), "{metric}");
    }
}

#[tokio::test]
async fn a_stream_that_lives_on_says_how_much_it_has_moved() {
    let reader = Reader::new();
    let mesh = mesh(&reader, http1(echo("cart"))).await;
    mesh.bind(bound(AppProtocol::Tcp)).await;
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await.unwrap();
    let told = async {
        let received = || reader.metric(&["istio_tcp_received_bytes_total{"]);
        tunnel.read_exact(&mut [0; 1]).await.unwrap();
        while !received().ends_with(" 30") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, told).await.unwrap();
    assert!(reader.metric(&["istio_tcp_connections_closed_total{"]).ends_with(" 0"));
    assert!(!reader.metric(&["istio_tcp_sent_bytes_total{"]).ends_with(" 0"));
}

#[tokio::test]
async fn messages_of_grpc_are_counted_both_ways() {
    let mut reader = Reader::new();
    let answer = |_request: Request<Bytes>| Response::new("\0\0\0\0\u{2}hi\0\0\0\0\0".to_owned());
    let mesh = mesh(&reader, http2(answer)).await;
    mesh.bind(bound(AppProtocol::Http)).await;
    let request = Request::post("http://cart/shop.Cart/Add").header("content-type", "application/grpc");
    let body = Full::new(Bytes::from_static(b"\0\0\0\0\x03one\0\0\0\0\x03two\0\0\0\0\x05three"));
    let mut client = mesh.http2().await;
    text(client.send_request(request.body(body).unwrap()).await.unwrap()).await;
    reader.line().await;
    for (name, expected) in [("request", " 3"), ("response", " 2")] {
        let metric = reader.metric(&[&format!("istio_{name}_messages_total{{")]);
        assert!(metric.ends_with(expected), "{metric}");
    }
}

#[tokio::test]
async fn what_the_endpoint_of_a_second_try_does_is_below_that_try() {
    let mut reader = Reader::new();
    reader.sinks.tracer = Some(tracer());
    let (seen, mut parents) = mpsc::unbounded_channel();
    let tries = Count::default();
    let answer = move |request: Request<Bytes>| {
        let field = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        seen.send((field("traceparent"), field("tracestate"))).unwrap();
        let status = if tries.one_more() == 0 { 503 } else { 200 };
        Response::builder().status(status).body(String::new()).unwrap()
    };
    let mesh = mesh(&reader, http1(answer)).await;
    let mut again = rule(vec![to("cart", 1)]);
    again.retry = Some(Retry { codes: vec![503], attempts: 1, backoff: None });
    mesh.bind(routed(vec![again], &["cart"])).await;
    let request = Request::get("/").header("host", "cart").header("traceparent", PARENT);
    let request = request.header("tracestate", "vendor=1").body(Full::default()).unwrap();
    assert_eq!(mesh.http1().await.send_request(request).await.unwrap().status(), 200);
    let (first, second) = (parents.recv().await.unwrap(), parents.recv().await.unwrap());
    assert_ne!(first.0, second.0);
    for (parent, state) in [first, second] {
        holds(&parent, &["00-0af7651916cd43dd8448eb211c80319c-", "-01"]);
        assert_eq!((parent == PARENT, state.as_str()), (false, "vendor=1"));
    }
}
