//! Connections to unknown addresses, and connections that loop back to the proxy.

use std::{fs, io::ErrorKind, time::Instant};

use ambit_netns::testing::ip as ip_command;
use ambit_proxy::limits;

use crate::fixture::{
    CART, OUTSIDE, World, accept, assert_idle, assert_refused, assert_reset, connect, ends, eventually,
    serve, socket, talk, workload,
};

/// Addresses of a scan.
const SCANNED: usize = 1_000;
/// File descriptors that may come and go apart from connections.
const DESCRIPTORS_SPARE: usize = 16;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn lookups(world: &World, answer: &str) -> String {
    let name = format!("ambit_ztunnel_address_lookups_total{{answer=\"{answer}\"}}");
    let metrics = world.front.ztunnel.metrics();
    let line = metrics.lines().find(|line| line.starts_with(&name));
    line.map(|line| line.replace(&name, "").trim().to_owned()).unwrap_or_default()
}

#[test]
#[ignore = "needs root: make test-netns"]
fn what_nobody_here_has_heard_of_is_dialed_as_the_operator_says_and_not_while_it_is_silent() {
    let world = World::new();
    let operator = &world.front.ztunnel.operator;
    let outside = serve(&world.outside, 80);
    let client = connect(&world.front.netns, socket(OUTSIDE[0], 80)).unwrap();
    let (server, _) = accept(&outside);
    talk(&client, &server);
    drop((client, server));
    world.front.ztunnel.log.line(&["dst.addr=10.77.0.1:80", "dst.lookup=\"unknown\""]);
    assert_eq!(operator.asked(), ["/10.77.0.1"]);

    // The pod is new: the operator knows it, but this node does not yet.
    world.store.apply_addresses(vec![], &["Kubernetes//Pod/shop/cart".into()]);
    operator.describes("/10.77.0.3", &world.store, workload("cart", CART));
    let app = serve(&world.cart.netns, 8080);
    let client = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    let (server, _) = accept(&app);
    talk(&client, &server);
    drop((client, server));
    world.front.ztunnel.log.line(&["dst.hbone_addr=10.77.0.3:8080", "dst.lookup=\"described\""]);

    operator.falls_silent();
    world.store.apply_addresses(vec![], &["Kubernetes//Pod/shop/cart".into()]);
    assert_refused(&world.front.netns, socket(CART[0], 8080));
    assert_idle(&app);
    let line = world.front.ztunnel.log.line(&["dst.addr=10.77.0.3:8080", "dst.lookup=\"unanswered\""]);
    assert!(line.contains("does not know"), "{line}");
    let counted = ["unknown", "described", "unanswered"].map(|answer| lookups(&world, answer));
    assert_eq!(counted, ["1", "1", "1"]);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_scan_of_a_thousand_addresses_while_the_operator_is_silent_holds_up_nobody_and_leaves_nothing() {
    limits::raise_open_files();
    let world = World::new();
    world.front.ztunnel.operator.falls_silent();
    let app = serve(&world.cart.netns, 8080);
    let before = descriptors();
    let begun = Instant::now();
    let mut dialed = Vec::new();
    for number in 0..SCANNED {
        let address = format!("10.88.{}.{}", number / 250, number % 250);
        match connect(&world.front.netns, socket(&address, 80)) {
            Ok(stream) => dialed.push(stream),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    assert!(!dialed.is_empty(), "some wait for an answer");
    let client = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    let (server, _) = accept(&app);
    talk(&client, &server);
    dialed.iter().for_each(assert_reset);
    drop(dialed);
    assert!(begun.elapsed() < 10 * ambit_store::ANSWER_TIME_MAX, "{:?}", begun.elapsed());
    drop((client, server));
    eventually(|| {
        let now = descriptors();
        (now < before + DESCRIPTORS_SPARE).then_some(()).ok_or(format!("{before} descriptors, now {now}"))
    });
    assert_eq!(lookups(&world, "unanswered"), SCANNED.to_string());
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_connection_to_an_address_of_the_pod_that_nobody_knows_of_ends_at_once_and_begets_no_other() {
    let world = World::new();
    let netns = &world.front.netns;
    for address in ["10.99.0.1/32", "fd99::1/128"] {
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        ip_command(netns, &[&["address", "add", address, "dev", "lo"], nodad].concat());
        let before = descriptors();
        let address = address.split('/').next().unwrap();
        let error = match connect(netns, socket(address, 8080)) {
            Ok(stream) => ends(&stream).expect_err("nobody listens there"),
            Err(error) => error,
        };
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused), "{error}");
        eventually(|| {
            let now = descriptors();
            (now < before + DESCRIPTORS_SPARE).then_some(()).ok_or(format!("{before}, now {now}"))
        });
        // Where redirection does not prevent it, there are two lines: the client's connection and
        // the one that loops back.
        let lines = world.front.ztunnel.log.count(&[address]);
        assert!(lines <= 2, "{lines} connections to {address}");
        assert!(lines == 0 || world.front.ztunnel.log.count(&[address, "recursive call"]) <= 1);
    }
}
