//! Policy for pods.

use std::time::{Duration, Instant};

use ambit_model::{Match, NamespacedName, Scope};
use ambit_store::AddressUpdate;

use crate::fixture::*;

#[test]
#[ignore = "needs root: make test-netns"]
fn a_deny_of_a_principal_refuses_it_and_the_log_names_the_policy() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    world.apply(deny("no-front", from_front()));
    assert_refused(&world.front.netns, socket(CART[0], 8080));
    assert_idle(&app);
    world.front.ztunnel.log.line(&["error=\"http status: 401\""]);
    world.cart.ztunnel.log.line(&["explicitly denied by shop/no-front", "sa/front"]);
    assert!(world.cart.ztunnel.metrics().contains("response_flags=\"DENY\""));
    // The client has no identity, so it does not match the DENY for front.
    let plain = connect(&world.outside, socket(CART[0], 8080)).unwrap();
    talk(&plain, &accept(&app).0);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn strict_refuses_plaintext_and_takes_tunnels() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    world.apply(strict());
    assert_refused(&world.outside, socket(CART[0], 8080));
    assert_idle(&app);
    let client = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    talk(&client, &accept(&app).0);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_policy_change_cuts_the_live_connections_it_denies_within_a_second() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let tunnelled = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    let (inner, _) = accept(&app);
    talk(&tunnelled, &inner);
    let plain = connect(&world.outside, socket(CART[0], 8080)).unwrap();
    let (outer, _) = accept(&app);
    talk(&plain, &outer);

    let changed = Instant::now();
    world.apply(deny("no-front", from_front()));
    assert_reset(&tunnelled);
    assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());
    assert_reset(&inner);
    talk(&plain, &outer);
    world.cart.ztunnel.log.line(&["connection closed due to policy change", "shop/no-front"]);

    world.apply(strict());
    assert_reset(&plain);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_workload_that_names_a_policy_nobody_knows_is_closed() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let live = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    let (inner, _) = accept(&app);
    talk(&live, &inner);
    let mut cart = workload("cart", CART);
    cart.authorization_policies = vec![NamespacedName::new("shop", "later")];
    world.store.apply_addresses(vec![AddressUpdate::Workload(cart)], &[]);
    assert_reset(&live);
    assert_refused(&world.front.netns, socket(CART[0], 8080));
    // Once it is received, it applies.
    let mut later = deny("later", Match { destination_ports: vec![81], ..Match::default() });
    later.scope = Scope::WorkloadSelector;
    world.apply(later);
    let open = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    talk(&open, &accept(&app).0);
}
