//! Redirection outlives the process that set it up, and is removed without residue.

use ambit_netns::testing::namespace;
use ambit_redirect::{AttachedPod, Kind, Redirector};

use crate::failure::assert_untouched;
use crate::fixture::*;

#[test]
#[ignore = "needs root: make test-netns"]
fn redirection_goes_on_without_its_maker_and_the_next_one_adopts_it() {
    let (world, proxy) = World::enrolled();
    let World { config, uid, pod, peer, attached, .. } = &world;
    let mut next = Redirector::open(config).unwrap();
    assert_eq!(next.enrolled().unwrap(), [attached.cookie]);
    let mut armed = next.armed().unwrap();
    armed.sort_unstable();
    assert_eq!(armed, Kind::ALL.map(|kind| (attached.cookie, kind)));
    let inode = Some(pod.id().inode);
    assert_eq!(next.attached().unwrap(), [AttachedPod { uid: uid.clone(), netns_inode: inode }]);
    let _client = connect(pod, socket(PEER[0], 80)).unwrap();
    assert_eq!(accept(&proxy.outbound).local, socket(PEER[0], 80));
    assert_eq!(next.attach(uid, pod, &POD.map(ip)).unwrap(), *attached, "attaching again changes nothing");
    let _client = connect(peer, socket(POD[1], 8080)).unwrap();
    assert_eq!(accept(&proxy.plaintext).local, socket(POD[1], 8080));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn connections_are_captured_while_no_redirector_is_there() {
    let (world, proxy) = World::enrolled();
    let (world, ()) = world.take_redirector(drop);
    let _client = connect(&world.pod, socket(PEER[1], 80)).unwrap();
    assert_eq!(accept(&proxy.outbound).local, socket(PEER[1], 80));
    let _client = connect(&world.peer, socket(POD[0], 8080)).unwrap();
    assert_eq!(accept(&proxy.plaintext).local, socket(POD[0], 8080));
    assert_eq!(Redirector::open(&world.config).unwrap().armed().unwrap().len(), 3);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn no_connection_slips_by_while_the_programs_are_replaced() {
    const REPLACEMENTS: usize = 20;
    let (mut world, proxy) = World::enrolled();
    let pod = world.pod.try_clone().unwrap();
    let peer = world.peer.try_clone().unwrap();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    // Nothing listens at the peer, so a connection that is not captured fails.
    let load = std::thread::spawn(move || {
        let mut connections = 0_usize;
        while is_done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let _out = connect(&pod, socket(PEER[0], 80)).unwrap();
            accept(&proxy.outbound);
            let _in = connect(&peer, socket(POD[0], 8080)).unwrap();
            accept(&proxy.plaintext);
            connections += 2;
        }
        connections
    });
    for _ in 0..REPLACEMENTS {
        world.redirector = Redirector::open(&world.config).unwrap();
        world.redirector.attach(&world.uid, &world.pod, &POD.map(ip)).unwrap();
    }
    done.send(()).unwrap();
    assert!(load.join().unwrap() > 0);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_detached_pod_is_as_it_was() {
    let (mut world, _proxy) = World::enrolled();
    // After several attaches by several processes there is still exactly one of everything.
    world.redirector.attach(&world.uid, &world.pod, &POD.map(ip)).unwrap();
    world.redirector = Redirector::open(&world.config).unwrap();
    world.redirector.attach(&world.uid, &world.pod, &POD.map(ip)).unwrap();
    for _ in 0..2 {
        world.redirector.detach(&world.uid, Some(&world.pod)).unwrap();
    }
    assert_untouched(&world.pod);
    assert!(world.redirector.attached().unwrap().is_empty());
    assert!(world.redirector.enrolled().unwrap().is_empty());
    assert!(world.redirector.armed().unwrap().is_empty());
    let (app, peer_app) = (serve(&world.pod, 8080), serve(&world.peer, 80));
    let client = connect(&world.pod, socket(PEER[0], 80)).unwrap();
    talk(&client, &accept(&peer_app).stream);
    let client = connect(&world.peer, socket(POD[1], 8080)).unwrap();
    talk(&client, &accept(&app).stream);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_link_whose_namespace_is_gone_says_so() {
    let mut world = World::attached();
    let gone = namespace();
    world.redirector.attach("gone", &gone, &[]).unwrap();
    drop(gone);
    let is_gone = |world: &World| {
        let pods = world.redirector.attached().unwrap();
        pods.iter().any(|pod| pod.uid == "gone" && pod.netns_inode.is_none())
    };
    // The kernel destroys namespaces in the background.
    eventually(|| is_gone(&world).then_some(()));
    // The name can be used for another namespace.
    world.redirector.attach("gone", &world.peer, &[]).unwrap();
    assert!(!is_gone(&world));
    world.redirector.detach("gone", None).unwrap();
    assert_eq!(world.redirector.attached().unwrap().len(), 1);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn removing_everything_leaves_no_pin_and_no_link() {
    let (mut world, _proxy) = World::enrolled();
    let kubelet = world.cgroup("kubelet");
    world.redirector.attach_kubelet(&kubelet, &world.peer).unwrap();
    world.redirector.detach(&world.uid, Some(&world.pod)).unwrap();
    // A second pod that was not detached must not keep anything alive.
    world.redirector.attach("left", &world.peer, &PEER.map(ip)).unwrap();
    let peer_app = serve(&world.peer, 80);
    let (world, ()) = world.take_redirector(|redirector| redirector.remove_everything().unwrap());
    assert!(!world.config.bpffs.exists());
    assert_untouched(&world.pod);
    let client = connect(&world.pod, socket(PEER[0], 80)).unwrap();
    talk(&client, &accept(&peer_app).stream);
    // Redirection can be set up again.
    let fresh = Redirector::open(&world.config).unwrap();
    assert!(fresh.attached().unwrap().is_empty());
    assert!(fresh.enrolled().unwrap().is_empty());
}
