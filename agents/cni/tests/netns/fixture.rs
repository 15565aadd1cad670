//! One node with one pod and one peer.

use std::{
    fs,
    future::Future,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use ambit_cni::{
    KernelThread, Member, Metrics, Node, Past, Progress, Proxy as Link, Reporter, Roster, Start,
    Surroundings, Tools,
    plugin::protocol::{Enrolled, Request},
};
use ambit_netns::{
    NetNs,
    diag::{abort, tcp_sockets},
    run_in,
    testing::{End, namespace, veth},
};
use ambit_proto::node::{NodeEnrollment, PodEnrollment, Wanted};
use ambit_redirect::{Config, cgroup};
use ambit_zds::{Client, Kind, ListenerOf, Request as Zds};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

pub(crate) const PEER: &str = "10.78.0.1";
pub(crate) const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(20);
const UID: &str = "b5f7c1e2-0000-4000-8000-00000000c001";

pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("in time")
}

pub(crate) fn path_of(netns: &NetNs) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) zds: PathBuf,
    pub(crate) uid: String,
    pub(crate) kernel: KernelThread,
    pub(crate) pod: NetNs,
    pod_cgroup: PathBuf,
    link: Link,
}

/// What outlives an agent.
struct Ground {
    pod: NetNs,
    _peer: NetNs,
    _server: std::net::TcpListener,
    _process: Process,
    places: Places,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Directories of the test; the process is in a cgroup of it while it lives.
struct Places {
    home: PathBuf,
    cgroup: PathBuf,
    directory: PathBuf,
}

/// Tests of this process run one at a time, because they share its cgroup.
static TURN: Mutex<()> = Mutex::new(());

impl Places {
    fn new() -> Self {
        let pid = std::process::id();
        let home = cgroup::of_pid(pid, &cgroup::root().unwrap()).unwrap();
        let cgroup = home.join(format!("ambit-cni-test-{pid}"));
        fs::create_dir_all(cgroup.join("proxy")).unwrap();
        fs::create_dir_all(cgroup.join(format!("pod{UID}"))).unwrap();
        enter(&cgroup.join("proxy"));
        let directory = std::env::temp_dir().join(format!("ambit-cni-test-{pid}"));
        fs::create_dir_all(directory.join("bpf")).unwrap();
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare: root is needed");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("bpf"), &directory.join("bpf"), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self { home, cgroup, directory }
    }
}

impl Places {
    fn pod_cgroup(&self) -> PathBuf {
        self.cgroup.join(format!("pod{UID}"))
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        enter(&self.home);
        for name in ["proxy".to_owned(), format!("pod{UID}")] {
            let _ = fs::remove_dir(self.cgroup.join(name));
        }
        let _ = fs::remove_dir(&self.cgroup);
        let _ = nix::mount::umount(&self.directory.join("bpf"));
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn enter(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

impl Ground {
    fn new() -> Self {
        let places = Places::new();
        let (pod, peer) = (namespace(), namespace());
        veth(
            End { netns: &pod, device: "eth0", addresses: &["10.78.0.2/24"] },
            End { netns: &peer, device: "eth0", addresses: &["10.78.0.1/24"] },
        );
        let server = run_in(&peer, || std::net::TcpListener::bind(("0.0.0.0", PORT))).unwrap().unwrap();
        let script = format!("echo $$ > {}/cgroup.procs; exec sleep 600", places.pod_cgroup().display());
        let process = run_in(&pod, || Command::new("bash").args(["-c", &script]).spawn()).unwrap().unwrap();
        Self { pod, _peer: peer, _server: server, _process: Process(process), places }
    }

    /// Runs an agent during `test`, and ends it as if it were killed.
    fn agent<T>(&self, test: impl AsyncFnOnce(&World) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new(self).await;
            test(&world).await
        })
    }
}

impl World {
    pub(crate) fn run(test: impl AsyncFnOnce(&World)) {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ground::new().agent(test);
    }

    /// Kills the agent between the two tests; the first returns what the proxy still holds.
    pub(crate) fn run_over_restart(
        first: impl AsyncFnOnce(&World) -> Vec<ListenerOf>,
        second: impl AsyncFnOnce(&World, Vec<ListenerOf>),
    ) {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ground = Ground::new();
        let held = ground.agent(first);
        ground.agent(async |world| second(world, held).await);
    }

    async fn new(ground: &Ground) -> Self {
        let places = &ground.places;
        let config = Config { bpffs: places.directory.join("bpf/ambit"), cgroup: places.cgroup.clone() };
        let start = Start::of(&config.bpffs, &places.directory.join("enrolled.json"));
        let kernel = KernelThread::start(config).await.unwrap();
        let attached = kernel.call(|kernel| kernel.inherited()).await.unwrap();
        let (roster, reporter, metrics) =
            (Arc::new(Roster::default()), Reporter::default(), Metrics::default());
        let around = Surroundings {
            roster: roster.clone(),
            kernel: kernel.clone(),
            reporter: reporter.clone(),
            metrics: metrics.clone(),
            proc: "/proc".into(),
        };
        let zds = places.directory.join("zds.sock");
        let proxy = Link::start(&zds, around).unwrap();
        let link = proxy.clone();
        let tools = Tools { roster, kernel: kernel.clone(), proxy, reporter, metrics, proc: "/proc".into() };
        let node = Node::new(tools, places.directory.join("enrolled.json"), Past { attached, start });
        let pod = ground.pod.try_clone().unwrap();
        Self { node, zds, uid: UID.to_owned(), kernel, pod, pod_cgroup: places.pod_cgroup(), link }
    }

    pub(crate) fn describe(&self, wanted: Wanted, ips: &[&str]) {
        self.describe_as(wanted, ips, false);
    }

    pub(crate) fn describe_as(&self, wanted: Wanted, ips: &[&str], wanted_from_start: bool) {
        let enrollment = PodEnrollment {
            wanted_from_start,
            uid: self.uid.clone(),
            namespace: "shop".into(),
            name: "cart".into(),
            service_account: "cart".into(),
            wanted: wanted.into(),
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            ..PodEnrollment::default()
        };
        self.node.describe(enrollment).unwrap();
    }

    /// The root of the cgroups, as the agent sees it.
    pub(crate) fn cgroup(&self) -> PathBuf {
        self.pod_cgroup.parent().unwrap().to_path_buf()
    }

    pub(crate) fn enroll_namespace(&self) {
        let enrolled_namespaces = vec!["shop".to_owned()];
        self.node.describe_node(NodeEnrollment { enrolled_namespaces, ..NodeEnrollment::default() });
    }

    pub(crate) fn decommission(&self) {
        self.node.describe_node(NodeEnrollment { decommission: true, ..NodeEnrollment::default() });
    }

    /// What the plugin would read while the agent is not running.
    pub(crate) fn kept(&self) -> Enrolled {
        Enrolled::read(&self.zds.with_file_name("enrolled.json"))
    }

    async fn member(&self) -> Member {
        let request = Request {
            container_id: String::new(),
            netns: String::new(),
            ifname: String::new(),
            namespace: String::new(),
            name: String::new(),
            uid: self.uid.clone(),
            ips: Vec::new(),
        };
        self.node.find(&request, PATIENCE).await.unwrap()
    }

    async fn wait(&self, what: &str, is: impl Fn(&Progress) -> bool) {
        let mut progress = self.member().await.progress;
        let arrived = timeout(PATIENCE, progress.wait_for(|progress| is(progress))).await;
        let seen = self.member().await.progress.borrow().clone();
        arrived.unwrap_or_else(|_| panic!("{what}: {seen:?}")).unwrap();
    }

    pub(crate) async fn wait_enrolled(&self) {
        self.wait("enrolled", |progress| progress.enrolled.is_some() && progress.problem.is_none()).await;
    }

    pub(crate) async fn wait_left(&self) {
        self.wait("left", |progress| progress.enrolled.is_none() && progress.problem.is_none()).await;
    }

    pub(crate) async fn wait_problem(&self, reason: &str) {
        let is =
            |progress: &Progress| progress.problem.as_ref().is_some_and(|problem| problem.reason == reason);
        self.wait(reason, is).await;
    }

    pub(crate) async fn wait_breaker(&self) {
        let mut breaker: watch::Receiver<u64> = self.link.breaker();
        let before = *breaker.borrow();
        soon(breaker.wait_for(|count| *count > before)).await.unwrap();
    }

    pub(crate) fn is_enrolled(&self) -> bool {
        let request = self.member();
        let member = futures_now(request);
        member.progress.borrow().enrolled.is_some()
    }

    /// A process of the pod connects; returns whether it succeeded.
    pub(crate) fn pod_client(&self, port: u16) -> JoinHandle<bool> {
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec timeout 10 bash -c 'exec 3<>/dev/tcp/{PEER}/{port}'",
            self.pod_cgroup.display()
        );
        let pod = self.pod.try_clone().unwrap();
        tokio::task::spawn_blocking(move || {
            let mut command = Command::new("bash");
            command.args(["-c", &script]).stderr(Stdio::null());
            let mut child = run_in(&pod, || command.spawn()).unwrap().unwrap();
            child.wait().unwrap().success()
        })
    }

    /// A process of the pod connects and keeps the connection until it ends.
    pub(crate) async fn pod_holds(&self) -> JoinHandle<()> {
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec 3<>/dev/tcp/{PEER}/{PORT}; exec timeout 30 cat <&3",
            self.pod_cgroup.display()
        );
        let mut command = Command::new("bash");
        command.args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = run_in(&self.pod, || command.spawn()).unwrap().unwrap();
        let ended = tokio::task::spawn_blocking(move || {
            child.wait().unwrap();
        });
        let open = async {
            while self.held() == 0 {
                tokio::task::yield_now().await;
            }
        };
        soon(open).await;
        ended
    }

    /// Connections of the pod to the peer.
    pub(crate) fn held(&self) -> usize {
        let peer: SocketAddr = format!("{PEER}:{PORT}").parse().unwrap();
        tcp_sockets(&self.pod).unwrap().iter().filter(|socket| socket.peer == peer).count()
    }

    /// Resets them, so that nothing waits for their processes.
    pub(crate) fn let_go(&self) {
        for socket in tcp_sockets(&self.pod).unwrap().iter().filter(|socket| !socket.listens) {
            abort(&self.pod, socket).unwrap();
        }
    }

    pub(crate) async fn pod_connects(&self, port: u16) -> bool {
        self.pod_client(port).await.unwrap()
    }
}

/// A future that is ready at once.
fn futures_now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("the pod is not known"),
    }
}

/// Stands in for ztunnel: receives pods and accepts connections.
pub(crate) struct Proxy {
    task: JoinHandle<()>,
    held: Arc<Mutex<Vec<ListenerOf>>>,
    seen: watch::Receiver<Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    snapshot: bool,
    drained: bool,
    withdrawn: bool,
}

impl Proxy {
    pub(crate) async fn connect(path: &Path, instance: &str, held: Vec<ListenerOf>) -> Self {
        let mut client = Client::connect(path, instance, &held).await.unwrap();
        let held = Arc::new(Mutex::new(held));
        let (tell, seen) = watch::channel(Seen::default());
        let shared = held.clone();
        let task = tokio::spawn(async move {
            while let Ok(request) = client.receive().await {
                match request {
                    Zds::Add(add) => {
                        let uid = &add.pod.uid;
                        let mut held = shared.lock().unwrap();
                        held.retain(|of| of.uid != *uid);
                        held.extend(
                            add.listeners
                                .into_iter()
                                .map(|listener| ListenerOf { uid: uid.clone(), listener }),
                        );
                    }
                    Zds::Del { .. } => tell.send_modify(|seen| seen.withdrawn = true),
                    Zds::SnapshotSent => tell.send_modify(|seen| seen.snapshot = true),
                    Zds::Drain => tell.send_modify(|seen| seen.drained = true),
                    Zds::Keep { .. } | Zds::Ping => {}
                }
                if client.ack(Ok(())).await.is_err() {
                    return;
                }
            }
        });
        let mut proxy = Self { task, held, seen };
        soon(proxy.seen.wait_for(|seen| seen.snapshot)).await.unwrap();
        proxy
    }

    /// Accepts the next outbound connection and resets it; returns its destination.
    pub(crate) async fn accept(&self) -> SocketAddr {
        let listener = {
            let held = self.held.lock().unwrap();
            let of = held.iter().find(|of| of.listener.kind == Kind::Outbound).expect("an outbound listener");
            std::net::TcpListener::from(of.listener.fd.try_clone().unwrap())
        };
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let local = stream.local_addr().unwrap();
        SocketAddr::new(local.ip().to_canonical(), local.port())
    }

    pub(crate) async fn drained(&self) {
        soon(self.seen.clone().wait_for(|seen| seen.drained)).await.unwrap();
    }

    pub(crate) async fn withdrawn(&self) {
        soon(self.seen.clone().wait_for(|seen| seen.withdrawn)).await.unwrap();
    }

    /// Ends the connection; returns what it held, for the next process.
    pub(crate) fn die(self) -> Vec<ListenerOf> {
        self.task.abort();
        std::mem::take(&mut self.held.lock().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
