//! What the kubelet may send: the requests of the pod's own probes, even if probes of other pods
//! use its address.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use ambit_redirect::{Probe, Sends};
use ambit_redirect_common::{LAYOUT, map};
use aya::maps::{HashMap, Map, MapData};

use crate::fixture::*;

struct Kubelet {
    world: World,
    app: TcpListener,
    cgroup: PathBuf,
    proxy: Proxy,
}

impl Kubelet {
    /// A node with one pod that has these probes.
    fn of(probes: &[Probe]) -> Self {
        let (mut world, proxy) = World::enrolled();
        let (cookie, config) = (world.attached.cookie, world.attached.config);
        world.redirector.switch(cookie, Some(config), probes).unwrap();
        let cgroup = world.cgroup("kubelet");
        world.redirector.attach_kubelet(&cgroup, &world.peer).unwrap();
        let app = serve(&world.pod, PROBED);
        Self { world, app, cgroup, proxy }
    }

    /// Connects to the pod; returns once the application has accepted.
    fn dial(&self, pod_ip: &str) -> (Held, TcpStream) {
        let probe = connect_from(&self.cgroup, &self.world.peer, socket(pod_ip, PROBED));
        (probe, accept(&self.app).stream)
    }

    /// What the application receives of these pieces, sent on one connection.
    fn arrives(&self, pod_ip: &str, pieces: &[&str]) -> String {
        let (mut probe, mut stream) = self.dial(pod_ip);
        pieces.iter().for_each(|piece| probe.send(piece));
        // Once this has arrived, everything sent before has too.
        let (mut last, mut behind) = self.dial(pod_ip);
        last.send(&get("/healthz", pod_ip));
        behind.read_exact(&mut [0]).expect("a probe of the pod's own passes");
        stream.set_nonblocking(true).unwrap();
        let mut arrived = Vec::new();
        let error = stream.read_to_end(&mut arrived).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        String::from_utf8_lossy(&arrived).into_owned()
    }
}

fn get(target: &str, pod_ip: &str) -> String {
    let host = SocketAddr::new(ip(pod_ip), PROBED);
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/1.37\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
}

fn sends(sends: Sends) -> Probe {
    Probe { port: PROBED, sends }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_request_that_no_probe_of_the_pod_makes_never_arrives() {
    let kubelet = Kubelet::of(&[own_probe()]);
    for pod_ip in POD {
        let own = get("/healthz", pod_ip);
        assert_eq!(kubelet.arrives(pod_ip, &[&own]), own);
        let foreign = [
            get("/admin/keys", pod_ip),
            get("/healthz2", pod_ip),
            get("/healthz?admin", pod_ip),
            get("/", pod_ip),
            own.replace("GET", "PUT"),
            own.replace("HTTP/1.1", "HTTP/1.0"),
            own.replace("Host: ", "Host: admin."),
            format!("\r\n{own}"),
            own.to_lowercase(),
            "GET /heal".to_owned(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "\u{16}\u{3}\u{1}".to_owned(),
        ];
        for foreign in foreign {
            assert_eq!(kubelet.arrives(pod_ip, &[&foreign]), "", "{foreign}");
        }
    }
    kubelet.proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn every_request_of_a_connection_is_compared() {
    let kubelet = Kubelet::of(&[own_probe()]);
    let (own, foreign) = (get("/healthz", POD[0]), get("/admin/keys", POD[0]));
    let twice = format!("{own}{own}");
    assert_eq!(kubelet.arrives(POD[0], &[&own, &foreign]), own);
    assert_eq!(kubelet.arrives(POD[0], &[&own, "x"]), own, "no body");
    assert_eq!(kubelet.arrives(POD[0], &[&own, &own]), twice, "a client of hooks keeps its connections");
    assert_eq!(kubelet.arrives(POD[0], &["GET /hea", "lthz HTTP/1.1\r\n"]), "", "in pieces");
}

#[test]
#[ignore = "needs root: make test-netns"]
fn each_kind_of_probe_passes_only_what_it_sends() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let hello = "\u{16}\u{3}\u{1}";
    let with = |kind| Kubelet::of(&[sends(kind), own_probe()]);
    let http2 = with(Sends::Http2);
    assert_eq!(http2.arrives(POD[0], &[preface, "frames"]), format!("{preface}frames"));
    assert_eq!(http2.arrives(POD[0], &[hello]), "");
    let tls = with(Sends::Tls);
    assert_eq!(tls.arrives(POD[0], &[hello, "records"]), format!("{hello}records"));
    assert_eq!(tls.arrives(POD[0], &[preface]), "");
    let mut tcp = Kubelet::of(&[sends(Sends::Nothing)]);
    let (mut probe, mut stream) = tcp.dial(POD[0]);
    probe.send(&get("/admin/keys", POD[0]));
    // A port whose probe sends nothing accepts connections, but no data.
    let (cookie, config) = (tcp.world.attached.cookie, tcp.world.attached.config);
    tcp.world.redirector.switch(cookie, Some(config), &[own_probe()]).unwrap();
    assert_eq!(tcp.arrives(POD[0], &[]), "");
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn probes_pass_while_the_proxy_is_away_and_foreign_ones_do_not() {
    let Kubelet { world, app, cgroup, proxy } = Kubelet::of(&[own_probe()]);
    proxy.end(&world);
    let dial = || connect_from(&cgroup, &world.peer, socket(POD[0], PROBED));
    let (mut foreign, mut silent) = (dial(), accept(&app).stream);
    foreign.send(&get("/admin/keys", POD[0]));
    let (mut own, mut served) = (dial(), accept(&app).stream);
    own.send(&get("/healthz", POD[0]));
    served.read_exact(&mut [0]).unwrap();
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_whose_plaintext_is_not_captured_is_sent_anything() {
    let mut kubelet = Kubelet::of(&[own_probe()]);
    let foreign = get("/admin/keys", POD[0]);
    let (cookie, config) = (kubelet.world.attached.cookie, kubelet.world.attached.config);
    kubelet.world.redirector.switch(cookie, Some(config.only_hbone()), &[own_probe()]).unwrap();
    assert_eq!(kubelet.arrives(POD[0], &[&foreign]), foreign);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_connection_that_has_ended_is_watched_no_more() {
    let kubelet = Kubelet::of(&[own_probe()]);
    let pin = kubelet.world.config.bpffs.join(format!("v{LAYOUT}")).join(map::PROBING);
    let watched: HashMap<_, u64, [u64; 3]> =
        Map::HashMap(MapData::from_pin(pin).unwrap()).try_into().unwrap();
    let (closes_first, app) = kubelet.dial(POD[0]);
    let (closes_last, other) = kubelet.dial(POD[1]);
    assert_eq!(watched.keys().count(), 2);
    drop(closes_first);
    drop(app);
    drop(other);
    drop(closes_last);
    eventually(|| (watched.keys().count() == 0).then_some(()));
}
