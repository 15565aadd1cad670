//! A pod, a peer, the listeners of a proxy, and a test cgroup.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ambit_netns::testing::{End, namespace, veth};
use ambit_netns::{NetNs, listener, run_in};
use ambit_redirect::{Attached, Config, Kind, Probe, Redirector, Sends, cgroup};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use socket2::SockRef;

pub(crate) const POD: [&str; 2] = ["10.77.0.2", "fd77::2"];
pub(crate) const PEER: [&str; 2] = ["10.77.0.1", "fd77::1"];
/// The port that the kubelet probes.
pub(crate) const PROBED: u16 = 8080;
/// Long enough for a slow machine; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// A refusal is immediate; a lost SYN would be sent again after one second.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(900);

pub(crate) struct World {
    pub(crate) redirector: Redirector,
    pub(crate) config: Config,
    pub(crate) uid: String,
    pub(crate) pod: NetNs,
    pub(crate) peer: NetNs,
    pub(crate) attached: Attached,
    _cgroup: TestCgroup,
}

/// The world after its redirector was taken.
pub(crate) struct Remains {
    pub(crate) config: Config,
    pub(crate) pod: NetNs,
    pub(crate) peer: NetNs,
    _cgroup: TestCgroup,
}

/// The three listeners of a proxy, armed.
pub(crate) struct Proxy {
    pub(crate) outbound: TcpListener,
    pub(crate) plaintext: TcpListener,
    pub(crate) hbone: TcpListener,
}

impl World {
    /// A pod that is attached, with redirection off and no listeners.
    pub(crate) fn attached() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = TestCgroup::enter();
        let config = Config { bpffs: private_bpffs().join("ambit"), cgroup: cgroup.path.clone() };
        let (pod, peer) = (namespace(), namespace());
        veth(
            End { netns: &pod, device: "eth0", addresses: &["10.77.0.2/24", "fd77::2/64"] },
            End { netns: &peer, device: "eth0", addresses: &["10.77.0.1/24", "fd77::1/64"] },
        );
        let uid = format!("b5f7c1e2-0000-4000-8000-{number:012}");
        let mut redirector = Redirector::open(&config).unwrap();
        let attached = redirector.attach(&uid, &pod, &POD.map(ip)).unwrap();
        Self { redirector, config, uid, pod, peer, attached, _cgroup: cgroup }
    }

    /// A pod whose every connection is redirected to the proxy.
    pub(crate) fn enrolled() -> (Self, Proxy) {
        let mut world = Self::attached();
        let proxy = world.arm();
        world.switch_on();
        (world, proxy)
    }

    pub(crate) fn arm(&mut self) -> Proxy {
        let mut open = |kind: Kind| {
            // A process forked by another test holds every descriptor until it calls `exec`.
            let listener = eventually(|| listener(&self.pod, kind.port()).ok());
            self.redirector.arm(self.attached.cookie, kind, listener.as_fd()).unwrap();
            listener
        };
        Proxy {
            outbound: open(Kind::Outbound),
            plaintext: open(Kind::InboundPlaintext),
            hbone: open(Kind::Hbone),
        }
    }

    pub(crate) fn switch_on(&mut self) {
        self.redirector.switch(self.attached.cookie, Some(self.attached.config), &[own_probe()]).unwrap();
    }

    pub(crate) fn switch_off(&mut self) {
        self.redirector.switch(self.attached.cookie, None, &[]).unwrap();
    }

    /// Passes the redirector to `take`.
    pub(crate) fn take_redirector<T>(self, take: impl FnOnce(Redirector) -> T) -> (Remains, T) {
        let Self { redirector, config, pod, peer, _cgroup, .. } = self;
        let taken = take(redirector);
        (Remains { config, pod, peer, _cgroup }, taken)
    }

    /// A cgroup beside that of the applications, below the hooks.
    pub(crate) fn cgroup(&self, name: &str) -> PathBuf {
        let path = self.config.cgroup.join(format!("{name}-{}", self.attached.cookie));
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Proxy {
    /// Closes the listeners, and waits until no process holds them.
    pub(crate) fn end(self, world: &World) {
        drop(self);
        eventually(|| world.redirector.armed().unwrap().is_empty().then_some(()));
    }

    pub(crate) fn assert_idle(&self) {
        for listener in [&self.outbound, &self.plaintext, &self.hbone] {
            listener.set_nonblocking(true).unwrap();
            let error = listener.accept().expect_err("nothing should have been redirected");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
}

/// A probe of the pod itself.
pub(crate) fn own_probe() -> Probe {
    Probe { port: PROBED, sends: Sends::Get { target: "/healthz".into(), host: String::new() } }
}

/// Retries until it succeeds.
pub(crate) fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "nothing changed within the time limit");
        std::thread::yield_now();
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn socket(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}

/// The address in its v4-mapped form.
pub(crate) fn mapped(text: &str) -> String {
    format!("::ffff:{text}")
}

pub(crate) fn connect(netns: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    connect_within(netns, to, PATIENCE)
}

pub(crate) fn connect_within(netns: &NetNs, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = run_in(netns, || TcpStream::connect_timeout(&to, limit)).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(stream)
}

/// A server on every address of a namespace.
pub(crate) fn serve(netns: &NetNs, port: u16) -> TcpListener {
    run_in(netns, || TcpListener::bind(("::", port))).unwrap().unwrap()
}

/// Takes the next connection; the addresses are not v4-mapped.
pub(crate) fn accept(listener: &TcpListener) -> Accepted {
    listener.set_nonblocking(false).unwrap();
    SockRef::from(listener).set_read_timeout(Some(PATIENCE)).unwrap();
    let (stream, peer) = listener.accept().expect("a connection within the time limit");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let local = stream.local_addr().unwrap();
    Accepted { stream, peer: canonical(peer), local: canonical(local) }
}

pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
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

/// A process in a cgroup and a namespace that connects, and then sends its standard input.
pub(crate) fn connect_from(cgroup: &Path, netns: &NetNs, to: SocketAddr) -> Held {
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec 3<>/dev/tcp/{}/{} || exit; \
         while read -r line; do printf '%b' \"$line\" | dd bs=64k iflag=fullblock status=none >&3; echo sent; done",
        cgroup.display(),
        to.ip(),
        to.port()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    Held(run_in(netns, || command.spawn()).unwrap().unwrap())
}

/// A child process that is killed when this is dropped.
pub(crate) struct Held(Child);

impl Held {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends the text in one piece, and returns when the kernel has accepted it.
    pub(crate) fn send(&mut self, text: &str) {
        let line = text.replace('\\', "\\\\").replace('\r', "\\r").replace('\n', "\\n");
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut sent = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut sent).unwrap();
        assert_eq!(sent, "sent\n");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A BPF file system mounted for the calling thread only.
pub(crate) fn private_bpffs() -> PathBuf {
    let directory = std::env::temp_dir();
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare: root is needed");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("bpf"), &directory, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
    directory
}

/// The cgroup that all tests of this process share; it is removed with the last test.
struct TestCgroup {
    home: PathBuf,
    path: PathBuf,
}

/// Number of tests using the cgroup; locked while it is created or removed.
static TESTS: Mutex<usize> = Mutex::new(0);

impl TestCgroup {
    fn enter() -> Self {
        let mut tests = TESTS.lock().unwrap();
        let root = cgroup::root().unwrap();
        let pid = std::process::id();
        let name = format!("ambit-test-{pid}");
        let here = cgroup::of_pid(pid, &root).unwrap();
        let home = if *tests == 0 { here } else { here.ancestors().nth(2).unwrap().to_path_buf() };
        let path = home.join(name);
        if *tests == 0 {
            let applications = path.join("applications");
            fs::create_dir_all(&applications).unwrap();
            move_here(&applications);
        }
        *tests += 1;
        Self { home, path }
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let mut tests = TESTS.lock().unwrap();
        *tests -= 1;
        if *tests > 0 {
            return;
        }
        move_here(&self.home);
        for entry in fs::read_dir(&self.path).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                // A task that has ended stays in its cgroup for a moment.
                eventually(|| fs::remove_dir(entry.path()).ok());
            }
        }
        eventually(|| fs::remove_dir(&self.path).ok());
    }
}

fn move_here(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}
