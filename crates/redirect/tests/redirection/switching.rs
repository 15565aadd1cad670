//! Switching redirection on and off while connections are open.

use crate::fixture::*;

#[test]
#[ignore = "needs root: make test-netns"]
fn open_connections_go_on_when_redirection_is_switched_on_and_off() {
    let mut world = World::attached();
    let proxy = world.arm();
    let (app, peer_app) = (serve(&world.pod, 8080), serve(&world.peer, 80));
    let mut pairs = Vec::new();
    for (pod_ip, peer_ip) in [(POD[0], PEER[0]), (POD[1], PEER[1])] {
        pairs.push((connect(&world.pod, socket(peer_ip, 80)).unwrap(), accept(&peer_app).stream));
        pairs.push((connect(&world.peer, socket(pod_ip, 8080)).unwrap(), accept(&app).stream));
    }
    proxy.assert_idle();
    world.switch_on();
    pairs.iter().for_each(|(client, server)| talk(client, server));
    proxy.assert_idle();
    let captured = connect(&world.pod, socket(PEER[0], 80)).unwrap();
    pairs.push((captured, accept(&proxy.outbound).stream));
    let captured = connect(&world.peer, socket(POD[1], 8080)).unwrap();
    pairs.push((captured, accept(&proxy.plaintext).stream));
    world.switch_off();
    pairs.iter().for_each(|(client, server)| talk(client, server));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_on_its_way_out_serves_tunnels_only() {
    let (mut world, proxy) = World::enrolled();
    let (app, peer_app) = (serve(&world.pod, 8080), serve(&world.peer, 80));
    let leaving = world.attached.config.only_hbone();
    world.redirector.switch(world.attached.cookie, Some(leaving), &[]).unwrap();
    for (pod_ip, peer_ip) in [(POD[0], PEER[0]), (POD[1], PEER[1])] {
        let client = connect(&world.pod, socket(peer_ip, 80)).unwrap();
        talk(&client, &accept(&peer_app).stream);
        let client = connect(&world.peer, socket(pod_ip, 8080)).unwrap();
        talk(&client, &accept(&app).stream);
        let tunnel = connect(&world.peer, socket(pod_ip, 15008)).unwrap();
        talk(&tunnel, &accept(&proxy.hbone).stream);
    }
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_that_is_out_is_as_if_we_were_not_there() {
    let (mut world, proxy) = World::enrolled();
    let peer_app = serve(&world.peer, 80);
    world.switch_off();
    proxy.end(&world);
    let app = serve(&world.pod, 15008);
    for (pod_ip, peer_ip) in [(POD[0], PEER[0]), (POD[1], PEER[1])] {
        let client = connect(&world.pod, socket(peer_ip, 80)).unwrap();
        talk(&client, &accept(&peer_app).stream);
        let client = connect(&world.peer, socket(pod_ip, 15008)).unwrap();
        talk(&client, &accept(&app).stream);
    }
    assert!(world.redirector.enrolled().unwrap().is_empty());
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_that_is_switched_on_can_be_read_back() {
    let (mut world, _proxy) = World::enrolled();
    let cookie = world.attached.cookie;
    assert_eq!(world.redirector.enrolled().unwrap(), [cookie]);
    assert_eq!(world.redirector.config(cookie).unwrap(), Some(world.attached.config));
    world.redirector.forget(cookie).unwrap();
    assert_eq!(world.redirector.config(cookie).unwrap(), None);
    assert!(world.redirector.armed().unwrap().is_empty());
}
