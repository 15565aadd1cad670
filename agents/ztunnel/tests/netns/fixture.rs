//! A node network with two enrolled pods, each behind its own ztunnel, and a host outside of the
//! mesh.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ambit_identity::{Manager, testing::FakeCa};
use ambit_model::{
    Action, Clause, Match, NamespacedName, NetworkAddress, Policy, PortMapping, Rule, Scope, Service,
    ServicePort, Spiffe, StringMatch, TunnelProtocol, Workload,
};
use ambit_netns::{
    NetNs, listener, run_in,
    testing::{ip as ip_command, namespace},
};
use ambit_proxy::access_log::AccessLog;
use ambit_redirect::{Config, Kind as RedirectKind, Redirector, cgroup};
use ambit_runtime::{lines::Logged, telemetry::Format};
use ambit_store::{AddressUpdate, PolicyUpdate, Store};
use ambit_zds::Kind;
use ambit_ztunnel::{DataPlane, Metrics, Pod, Shared};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use socket2::SockRef;
use tokio::runtime::Runtime;

use crate::{cgroups::TestCgroup, operator::Operator};

pub(crate) const OUTSIDE: [&str; 2] = ["10.77.0.1", "fd77::1"];
pub(crate) const FRONT: [&str; 2] = ["10.77.0.2", "fd77::2"];
pub(crate) const CART: [&str; 2] = ["10.77.0.3", "fd77::3"];
pub(crate) const VIP: &str = "10.96.0.7";
pub(crate) const CART_HOST: &str = "cart.shop.svc.cluster.local";
/// Long enough for a slow machine; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) store: Arc<Store>,
    pub(crate) ca: FakeCa,
    pub(crate) outside: NetNs,
    pub(crate) front: Enrolled,
    pub(crate) cart: Enrolled,
    _redirector: Redirector,
    pub(crate) cgroup: TestCgroup,
}

/// A pod, and the ztunnel that serves it.
pub(crate) struct Enrolled {
    pub(crate) netns: NetNs,
    pub(crate) pod: Arc<Pod>,
    pub(crate) ztunnel: Ztunnel,
    /// The listeners as the node agent holds them.
    pub(crate) listeners: Vec<(Kind, TcpListener)>,
}

pub(crate) struct Ztunnel {
    pub(crate) shared: Arc<Shared>,
    pub(crate) plane: Option<DataPlane>,
    pub(crate) log: Log,
    pub(crate) operator: Operator,
}

/// The access log so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    /// Number of lines with all of `parts` so far.
    pub(crate) fn count(&self, parts: &[&str]) -> usize {
        let text = self.0.lock().unwrap();
        text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// The first line with all of `parts`; waits until there is one.
    pub(crate) fn line(&self, parts: &[&str]) -> String {
        eventually(|| {
            let text = self.0.lock().unwrap().clone();
            text.lines()
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .map(str::to_owned)
                .ok_or_else(|| format!("no line with {parts:?} in\n{text}"))
        })
    }
}

/// Polls until there is a value; only a failing test waits long.
pub(crate) fn eventually<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(missing) if Instant::now() > end => panic!("{missing}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
}

impl World {
    /// Two enrolled pods that may connect to each other and accept any client.
    pub(crate) fn new() -> Self {
        let cgroup = TestCgroup::enter();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let ca = FakeCa::new("cluster.local").unwrap();
        let store = Arc::new(Store::new());
        let (outside, [front, cart]) = network();
        let bpffs = private_bpffs().join("ambit");
        let mut redirector = Redirector::open(&Config { bpffs, cgroup: cgroup.path.clone() }).unwrap();
        let mut enroll = |name: &str, netns: NetNs, addresses: [&str; 2]| {
            let ztunnel = Ztunnel::start(&runtime, name, &store, &ca);
            enroll(&runtime, &mut redirector, ztunnel, (name, netns, addresses))
        };
        let (front, cart) = (enroll("front", front, FRONT), enroll("cart", cart, CART));
        redirector.exempt(cgroup::id(&cgroup.proxies()).unwrap()).unwrap();
        cgroup.move_workers();
        store.apply_policies(vec![], &[]);
        store.apply_addresses(
            vec![
                AddressUpdate::Workload(workload("front", FRONT)),
                AddressUpdate::Workload(workload("cart", CART)),
                AddressUpdate::Service(cart_service()),
            ],
            &[],
        );
        Self { runtime, store, ca, outside, front, cart, _redirector: redirector, cgroup }
    }

    pub(crate) fn apply(&self, policy: Policy) {
        self.store.apply_policies(vec![PolicyUpdate::Readable(policy)], &[]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for enrolled in [&mut self.front, &mut self.cart] {
            if let Some(plane) = enrolled.ztunnel.plane.take() {
                self.runtime.block_on(plane.drain(Duration::ZERO));
            }
        }
    }
}

impl Ztunnel {
    /// A ztunnel for node `node-<name>` without pods.
    pub(crate) fn start(runtime: &Runtime, name: &str, store: &Arc<Store>, ca: &FakeCa) -> Self {
        let (identities, manage) = Manager::new(ca.clone(), Arc::new(SystemTime::now));
        runtime.spawn(manage);
        let log = Log::default();
        let lines = log.clone();
        let sink = Box::new(move |text: &str| lines.0.lock().unwrap().push_str(text));
        let metrics = Metrics::default();
        let access = AccessLog::start(Logged::All, Format::Text, metrics.log_dropped.clone(), sink).unwrap();
        // The log asks the subscriber whether its lines are enabled.
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("info").try_init();
        let node = format!("node-{name}").into();
        let (query_sender, queries) = ambit_store::queries();
        let operator = Operator::default();
        let says = operator.clone();
        runtime.spawn(queries.answered_by(move |name| says.answer(name)));
        let shared =
            Arc::new(Shared { store: store.clone(), query_sender, identities, node, metrics, log: access });
        let plane = DataPlane::start(&shared, NonZeroUsize::new(2).unwrap()).unwrap();
        Self { shared, plane: Some(plane), log, operator }
    }

    /// The output of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        let shown = ambit_runtime::admin::Metrics::default();
        self.shared.metrics.register(&shown);
        shown.encode()
    }
}

fn enroll(
    runtime: &Runtime,
    redirector: &mut Redirector,
    ztunnel: Ztunnel,
    (name, netns, addresses): (&str, NetNs, [&str; 2]),
) -> Enrolled {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let uid = format!("5e1f0c2a-0000-4000-8000-{number:012}");
    let description = zds_pod(&uid, name);
    let pod = Pod::new(&description, netns.try_clone().unwrap());
    let attached = redirector.attach(&uid, &netns, &addresses.map(ip)).unwrap();
    let listeners: Vec<_> = listeners(&netns);
    runtime.block_on(ztunnel.plane.as_ref().unwrap().serve(&pod, &listeners)).unwrap();
    for (kind, listener) in &listeners {
        redirector.arm(attached.cookie, redirect_kind(*kind), listener.as_fd()).unwrap();
    }
    redirector.switch(attached.cookie, Some(attached.config), &[]).unwrap();
    Enrolled { netns, pod, ztunnel, listeners }
}

/// The listeners that a node agent opens for a pod.
pub(crate) fn listeners(netns: &NetNs) -> Vec<(Kind, TcpListener)> {
    [Kind::Outbound, Kind::InboundPlaintext, Kind::Hbone]
        .map(|kind| (kind, listener(netns, redirect_kind(kind).port()).unwrap()))
        .into()
}

pub(crate) fn redirect_kind(kind: Kind) -> RedirectKind {
    match kind {
        Kind::Outbound => RedirectKind::Outbound,
        Kind::InboundPlaintext => RedirectKind::InboundPlaintext,
        Kind::Hbone => RedirectKind::Hbone,
    }
}

pub(crate) fn zds_pod(uid: &str, name: &str) -> ambit_zds::Pod {
    ambit_zds::Pod {
        uid: uid.to_owned(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        service_account: name.to_owned(),
    }
}

pub(crate) fn workload(name: &str, addresses: [&str; 2]) -> Workload {
    let mut services = BTreeMap::new();
    if name == "cart" {
        services.insert(
            NamespacedName::new("shop", CART_HOST),
            vec![PortMapping { service_port: 80, target_port: 8080 }],
        );
    }
    Workload {
        uid: format!("Kubernetes//Pod/shop/{name}").into(),
        name: name.into(),
        namespace: "shop".into(),
        addresses: addresses.map(ip).into(),
        tunnel_protocol: TunnelProtocol::Hbone,
        trust_domain: "cluster.local".into(),
        service_account: name.into(),
        node: format!("node-{name}").into(),
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        workload_name: name.into(),
        cluster_id: "Kubernetes".into(),
        capacity: 1,
        services,
        ..Workload::default()
    }
}

pub(crate) fn cart_service() -> Service {
    Service {
        name: "cart".into(),
        namespace: "shop".into(),
        hostname: CART_HOST.into(),
        addresses: vec![NetworkAddress { network: "".into(), address: ip(VIP) }],
        ports: vec![ServicePort { port: 80, target_port: 8080 }],
        canonical: true,
        ..Service::default()
    }
}

/// A DENY policy in namespace shop with one match.
pub(crate) fn deny(name: &str, matching: Match) -> Policy {
    Policy {
        key: NamespacedName::new("shop", name),
        scope: Scope::Namespace,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![matching] }] }],
        dry_run: false,
    }
}

/// The policy that the operator derives from a STRICT PeerAuthentication.
pub(crate) fn strict() -> Policy {
    deny("strict", Match { not_principals: vec![StringMatch::Presence], ..Match::default() })
}

pub(crate) fn from_front() -> Match {
    Match {
        principals: vec![StringMatch::Exact("cluster.local/ns/shop/sa/front".into())],
        ..Match::default()
    }
}

pub(crate) fn identity(account: &str) -> Spiffe {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
}

/// Two pods and a host on one bridge.
fn network() -> (NetNs, [NetNs; 2]) {
    let outside = namespace();
    ip_command(&outside, &["link", "add", "br0", "type", "bridge"]);
    for address in ["10.77.0.1/24", "fd77::1/64"] {
        ip_command(&outside, &["address", "add", address, "dev", "br0", "nodad"]);
    }
    ip_command(&outside, &["link", "set", "br0", "up"]);
    let pods = [("front", FRONT), ("cart", CART)].map(|(name, [v4, v6])| {
        let pod = namespace();
        let peer = format!("/proc/{}/fd/{}", std::process::id(), outside.as_fd().as_raw_fd());
        ip_command(&pod, &["link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", &peer]);
        ip_command(&outside, &["link", "set", name, "master", "br0", "up"]);
        ip_command(&pod, &["address", "add", &format!("{v4}/24"), "dev", "eth0"]);
        ip_command(&pod, &["address", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"]);
        ip_command(&pod, &["link", "set", "eth0", "up"]);
        pod
    });
    (outside, pods)
}

/// A BPF file system mounted for the calling thread only.
fn private_bpffs() -> PathBuf {
    let directory = std::env::temp_dir();
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare: root is needed");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("bpf"), &directory, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
    directory
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn socket(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}

pub(crate) fn connect(netns: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = run_in(netns, || TcpStream::connect_timeout(&to, PATIENCE)).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(stream)
}

/// A server on every address of a namespace.
pub(crate) fn serve(netns: &NetNs, port: u16) -> TcpListener {
    let listener = run_in(netns, || TcpListener::bind(("::", port))).unwrap().unwrap();
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
    listener
}

/// Accepts the next connection; the peer's address is not v4-mapped.
pub(crate) fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, peer) = listener.accept().expect("a connection within the time limit");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

/// Sends a word in each direction.
pub(crate) fn talk(mut one: &TcpStream, mut other: &TcpStream) {
    let mut buffer = [0; 4];
    one.write_all(b"ping").unwrap();
    other.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"ping");
    other.write_all(b"pong").unwrap();
    one.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"pong");
}

/// Fails unless the connection ends without a byte; returns how it ended.
pub(crate) fn ends(mut stream: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1];
    let read = stream.read(&mut buffer)?;
    assert_eq!(read, 0, "a byte came");
    Ok(())
}

/// Asserts that the connection was reset, not closed or left open.
pub(crate) fn assert_reset(stream: &TcpStream) {
    let error = ends(stream).expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

/// Asserts that a connection is reset, before or after `connect` has returned.
pub(crate) fn assert_refused(netns: &NetNs, to: SocketAddr) {
    match connect(netns, to) {
        Ok(stream) => assert_reset(&stream),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

/// Asserts that there was no connection so far.
pub(crate) fn assert_idle(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    listener.set_nonblocking(false).unwrap();
}
