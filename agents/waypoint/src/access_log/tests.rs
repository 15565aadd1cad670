use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ambit_model::{Spiffe, Workload};
use ambit_proxy::access_log::{AccessLog, Line};
use ambit_runtime::{
    lines::{Logged, Sink},
    telemetry::Format,
};
use prometheus_client::metrics::counter::Counter;
use tracing::Level;

use super::*;

struct Scene {
    client: Workload,
    endpoint: Workload,
    identity: Spiffe,
}

fn scene() -> Scene {
    let workload = |name: &str| Workload {
        name: name.into(),
        namespace: "shop".into(),
        trust_domain: "cluster.local".into(),
        service_account: "front".into(),
        ..Workload::default()
    };
    let client = workload("front-7d");
    Scene { identity: client.identity(), client, endpoint: workload("cart-5c") }
}

impl Scene {
    fn request(&self) -> Record<'_> {
        Record {
            request: Some(Heard {
                method: "GET",
                path: "/cart/7",
                host: Some("cart:8080"),
                protocol: "HTTP/1.1",
                status: Some(200),
                grpc_status: None,
            }),
            flags: &[],
            code_details: "",
            bytes_recv: 3,
            bytes_sent: 512,
            duration: Duration::from_micros(12_700),
            tries: 1,
            route: Some("HTTPRoute/shop/cart/0"),
            service: "cart.shop.svc.cluster.local",
            source: End {
                addr: "10.0.0.1:40000".parse().ok(),
                workload: Some(&self.client),
                identity: Some(&self.identity),
            },
            destination: End {
                addr: "10.0.0.2:8080".parse().ok(),
                workload: Some(&self.endpoint),
                identity: None,
            },
            trace_id: Some(0xab),
            error: None,
        }
    }

    fn stream(&self) -> Record<'_> {
        Record { request: None, trace_id: None, route: None, tries: 0, ..self.request() }
    }
}

#[test]
fn a_request_is_one_line_with_every_field_in_order() {
    assert_eq!(
        Line::of(&scene().request(), Format::Text, "T"),
        "T\tinfo\taccess\trequest complete\tmethod=\"GET\" path=\"/cart/7\" host=\"cart:8080\" \
         protocol=\"HTTP/1.1\" status=200 flags=\"-\" bytes_recv=3 bytes_sent=512 duration=\"12ms\" \
         route=\"HTTPRoute/shop/cart/0\" src.addr=10.0.0.1:40000 src.workload=\"front-7d\" \
         src.namespace=\"shop\" src.identity=\"spiffe://cluster.local/ns/shop/sa/front\" \
         dst.service=\"cart.shop.svc.cluster.local\" dst.addr=10.0.0.2:8080 dst.workload=\"cart-5c\" \
         dst.namespace=\"shop\" trace_id=\"000000000000000000000000000000ab\"\n"
    );
}

#[test]
fn json_says_the_same_and_a_failure_says_why() {
    let scene = scene();
    let heard = Heard { status: Some(503), grpc_status: Some(14), ..scene.request().request.unwrap() };
    let record = Record {
        request: Some(heard),
        flags: &["DI", "UF"],
        code_details: "no_healthy_upstream",
        tries: 3,
        error: Some("a \"b\"\n"),
        ..scene.request()
    };
    assert_eq!(
        Line::of(&record, Format::Json, "T"),
        "{\"level\":\"error\",\"time\":\"T\",\"scope\":\"access\",\"message\":\"request complete\",\
         \"method\":\"GET\",\"path\":\"/cart/7\",\"host\":\"cart:8080\",\"protocol\":\"HTTP/1.1\",\"status\":503,\
         \"grpc_status\":14,\"flags\":\"DI,UF\",\"response_code_details\":\"no_healthy_upstream\",\"bytes_recv\":3,\"bytes_sent\":512,\"duration\":\"12ms\",\
         \"tries\":3,\"route\":\"HTTPRoute/shop/cart/0\",\"src.addr\":\"10.0.0.1:40000\",\
         \"src.workload\":\"front-7d\",\"src.namespace\":\"shop\",\
         \"src.identity\":\"spiffe://cluster.local/ns/shop/sa/front\",\
         \"dst.service\":\"cart.shop.svc.cluster.local\",\"dst.addr\":\"10.0.0.2:8080\",\
         \"dst.workload\":\"cart-5c\",\"dst.namespace\":\"shop\",\
         \"trace_id\":\"000000000000000000000000000000ab\",\"error\":\"a \\\"b\\\"\\n\"}\n"
    );
}

#[test]
fn a_stream_has_no_fields_of_requests() {
    assert_eq!(
        Line::of(&scene().stream(), Format::Text, "T"),
        "T\tinfo\taccess\tconnection complete\tflags=\"-\" bytes_recv=3 bytes_sent=512 duration=\"12ms\" \
         src.addr=10.0.0.1:40000 src.workload=\"front-7d\" src.namespace=\"shop\" \
         src.identity=\"spiffe://cluster.local/ns/shop/sa/front\" \
         dst.service=\"cart.shop.svc.cluster.local\" dst.addr=10.0.0.2:8080 dst.workload=\"cart-5c\" \
         dst.namespace=\"shop\"\n"
    );
}

#[test]
fn neither_query_nor_user_information_nor_endless_paths_are_written() {
    let scene = scene();
    let line = |path: &str, host: &str| {
        let heard = Heard { path, host: Some(host), ..scene.request().request.unwrap() };
        Line::of(&Record { request: Some(heard), ..scene.request() }, Format::Text, "T")
    };
    for (path, host, expected) in [
        ("/a?access_token=secret", "cart", "path=\"/a\" host=\"cart\""),
        ("/a?", "me:secret@cart", "path=\"/a\" host=\"cart\""),
        ("/a#secret", "secret@me:secret@cart:80", "path=\"/a\" host=\"cart:80\""),
        ("?secret", "cart", "path=\"\""),
        ("/\" status=200 x=\"\n", "cart", "path=\"/\\\" status=200 x=\\\"\\n\""),
    ] {
        let line = line(path, host);
        assert!(line.contains(expected) && !line.contains("secret"), "{line}");
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    }
    let long = "/ü".repeat(100_000);
    assert!(line(&long, "cart").len() < 2000);
}

/// Lines written of a good, a bad and an unanswered request, a good and a broken stream.
fn written(logged: Logged) -> usize {
    let text = Arc::new(Mutex::new(String::new()));
    let copy = text.clone();
    let sink: Sink = Box::new(move |lines| copy.lock().unwrap().push_str(lines));
    let scene = scene();
    let heard = |status| Heard { status, ..scene.request().request.unwrap() };
    let subscriber = tracing_subscriber::fmt().with_max_level(Level::TRACE).finish();
    tracing::subscriber::with_default(subscriber, || {
        let log = AccessLog::start(logged, Format::Text, Counter::default(), sink).unwrap();
        for status in [Some(200), Some(404), Some(500), None] {
            log.put(&Record { request: Some(heard(status)), ..scene.request() });
        }
        log.put(&scene.stream());
        log.put(&Record { error: Some("reset"), ..scene.stream() });
    });
    let text = text.lock().unwrap();
    text.lines().count()
}

#[test]
fn writes_what_is_wanted_before_it_is_dropped() {
    assert_eq!([Logged::Off, Logged::Errors, Logged::All].map(written), [0, 3, 6]);
}
