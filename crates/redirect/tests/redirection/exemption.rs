//! Exemptions from capture: proxies by their cgroup, the kubelet by its cgroup and network
//! namespace.

use ambit_redirect::cgroup;

use crate::fixture::*;

#[test]
#[ignore = "needs root: make test-netns"]
fn tasks_of_exempt_cgroups_leave_the_pod_and_others_do_not() {
    let (mut world, proxy) = World::enrolled();
    let server = serve(&world.peer, 80);
    let generations = [world.cgroup("first"), world.cgroup("second")];
    let ids = generations.clone().map(|path| cgroup::id(&path).unwrap());
    ids.iter().for_each(|id| world.redirector.exempt(*id).unwrap());
    for cgroup in &generations {
        for peer_ip in PEER {
            let _client = connect_from(cgroup, &world.pod, socket(peer_ip, 80));
            assert!(POD.map(ip).contains(&accept(&server).peer.ip()));
        }
    }
    proxy.assert_idle();
    let mut exempted = world.redirector.exempted().unwrap();
    exempted.sort_unstable();
    let mut expected = ids;
    expected.sort_unstable();
    assert_eq!(exempted, expected);
    world.redirector.unexempt(ids[0]).unwrap();
    let _client = connect_from(&generations[0], &world.pod, socket(PEER[0], 80));
    assert_eq!(accept(&proxy.outbound).local, socket(PEER[0], 80));
    let _client = connect_from(&generations[1], &world.pod, socket(PEER[0], 80));
    accept(&server);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn the_kubelets_connections_reach_the_application_and_its_neighbours_do_not() {
    let (mut world, proxy) = World::enrolled();
    let app = serve(&world.pod, 8080);
    let kubelet = world.cgroup("kubelet");
    world.redirector.attach_kubelet(&kubelet, &world.peer).unwrap();
    for (peer_ip, pod_ip) in [(PEER[0], POD[0]), (PEER[1], POD[1])] {
        let _probe = connect_from(&kubelet, &world.peer, socket(pod_ip, 8080));
        assert_eq!(accept(&app).peer.ip(), ip(peer_ip));
        let _other = connect_from(&world.cgroup("other"), &world.peer, socket(pod_ip, 8080));
        assert_eq!(accept(&proxy.plaintext).peer.ip(), ip(peer_ip));
    }
    proxy.end(&world);
    let _probe = connect_from(&kubelet, &world.peer, socket(POD[0], 8080));
    assert_eq!(accept(&app).peer.ip(), ip(PEER[0]), "also while the proxy is dead");
}

#[test]
#[ignore = "needs root: make test-netns"]
fn the_kubelet_reaches_only_the_ports_that_the_pods_own_probes_name() {
    let (mut world, proxy) = World::enrolled();
    let app = serve(&world.pod, PROBED + 1);
    let kubelet = world.cgroup("kubelet");
    world.redirector.attach_kubelet(&kubelet, &world.peer).unwrap();
    for (peer_ip, pod_ip) in [(PEER[0], POD[0]), (PEER[1], POD[1])] {
        let _probe = connect_from(&kubelet, &world.peer, socket(pod_ip, PROBED + 1));
        assert_eq!(
            accept(&proxy.plaintext).peer.ip(),
            ip(peer_ip),
            "a probe of another pod may name any host"
        );
    }
    app.set_nonblocking(true).unwrap();
    assert!(app.accept().is_err());
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_probe_is_used_up_by_its_connection() {
    let (mut world, proxy) = World::enrolled();
    let app = serve(&world.pod, PROBED);
    let kubelet = world.cgroup("kubelet");
    world.redirector.attach_kubelet(&kubelet, &world.peer).unwrap();
    for (peer_ip, pod_ip) in [(PEER[0], POD[0]), (PEER[1], POD[1])] {
        let probe = connect_from(&kubelet, &world.peer, socket(pod_ip, PROBED));
        let source = accept(&app).peer;
        drop(probe);
        // The same flow from a socket that is not the kubelet's, as masquerading could produce it.
        let open = || {
            let domain = socket2::Domain::for_address(source);
            let client = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            client.set_reuse_address(true)?;
            client.bind(&source.into())?;
            client.connect_timeout(&socket(pod_ip, PROBED).into(), PATIENCE).map(|()| client)
        };
        let _same = eventually(|| ambit_netns::run_in(&world.peer, open).unwrap().ok());
        assert_eq!(accept(&proxy.plaintext).peer, source, "{peer_ip}");
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_cgroup_that_moves_to_the_kubelet_counts_and_the_old_one_no_more() {
    let (mut world, proxy) = World::enrolled();
    let app = serve(&world.pod, 8080);
    let [before, after] = [world.cgroup("before"), world.cgroup("after")];
    world.redirector.attach_kubelet(&before, &world.peer).unwrap();
    world.redirector.attach_kubelet(&before, &world.peer).unwrap();
    world.redirector.attach_kubelet(&after, &world.peer).unwrap();
    let _probe = connect_from(&after, &world.peer, socket(POD[0], 8080));
    accept(&app);
    let _late = connect_from(&before, &world.peer, socket(POD[0], 8080));
    accept(&proxy.plaintext);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_socket_of_another_network_is_no_probe_even_in_the_kubelets_cgroup() {
    let (mut world, proxy) = World::enrolled();
    let elsewhere = ambit_netns::testing::namespace();
    let kubelet = world.cgroup("kubelet");
    world.redirector.attach_kubelet(&kubelet, &elsewhere).unwrap();
    let _client = connect_from(&kubelet, &world.peer, socket(POD[0], 8080));
    accept(&proxy.plaintext);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn the_cgroup_of_a_process_is_found() {
    let (world, proxy) = World::enrolled();
    let cgroup = world.cgroup("found");
    let child = connect_from(&cgroup, &world.pod, socket(PEER[0], 80));
    accept(&proxy.outbound);
    assert_eq!(cgroup::of_pid(child.pid(), &cgroup::root().unwrap()).unwrap(), cgroup);
    assert_eq!(cgroup::of_pid(child.pid(), &world.config.cgroup).unwrap(), cgroup, "by searching");
    assert!(cgroup::of_pid(child.pid(), &world.cgroup("elsewhere")).is_err());
    assert_eq!(cgroup::processes(&cgroup).unwrap(), [child.pid()]);
    assert!(cgroup::processes_below(&world.config.cgroup).contains(&child.pid()));
    let id = cgroup::id(&cgroup).unwrap();
    assert_eq!(cgroup::of_id(id, &world.config.cgroup), Some(cgroup));
    assert_eq!(cgroup::of_id(id, &world.cgroup("elsewhere")), None);
}
