//! Draining of a ztunnel, and removal of a pod.

use std::time::Duration;

use ambit_zds::Connections;

use crate::fixture::*;

#[test]
#[ignore = "needs root: make test-netns"]
fn a_draining_ztunnel_serves_what_is_open_until_its_deadline() {
    let mut world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let live = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    let (inner, _) = accept(&app);
    talk(&live, &inner);
    let plane = world.cart.ztunnel.plane.take().unwrap();
    world.runtime.block_on(plane.drain(Duration::from_millis(200)));
    assert_reset(&live);
    world.cart.ztunnel.log.line(&["connection closed due to connection drain"]);

    // The agent owns the listeners: a new connection waits for the next process.
    let queued = connect(&world.outside, socket(CART[0], 8080)).unwrap();
    let next = Ztunnel::start(&world.runtime, "cart", &world.store, &world.ca);
    let serving = next.plane.as_ref().unwrap().serve(&world.cart.pod, &world.cart.listeners);
    world.runtime.block_on(serving).unwrap();
    world.cgroup.move_workers();
    let (late, _) = accept(&app);
    talk(&queued, &late);
    world.cart.ztunnel = next;
}

#[test]
#[ignore = "needs root: make test-netns"]
fn policy_still_cuts_while_draining() {
    let mut world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let live = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    let (inner, _) = accept(&app);
    talk(&live, &inner);
    let plane = world.cart.ztunnel.plane.take().unwrap();
    let draining = world.runtime.spawn(plane.drain(PATIENCE));
    world.apply(deny("no-front", from_front()));
    assert_reset(&live);
    world.runtime.block_on(draining).unwrap();
    world.cart.ztunnel.log.line(&["connection closed due to policy change"]);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_that_leaves_the_mesh_keeps_its_connections_and_a_pod_that_ends_does_not() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let live = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    let (inner, _) = accept(&app);
    talk(&live, &inner);
    let leave = |connections| {
        let plane = world.cart.ztunnel.plane.as_ref().unwrap();
        world.runtime.block_on(plane.leave(&world.cart.pod.uid, connections));
    };
    leave(Connections::Keep);
    talk(&live, &inner);
    leave(Connections::Close);
    assert_reset(&live);
    world.cart.ztunnel.log.line(&["connection closed because its pod is gone"]);
}
