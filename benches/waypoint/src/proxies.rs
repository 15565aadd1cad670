//! The proxies as processes: started in their network namespace, measured through `/proc`, killed
//! with this process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::net::TcpStream;

use crate::{
    control::Control,
    envoy,
    plan::{self, Places},
    service::POD,
};

/// How long a proxy may take to listen.
const START_MAX: Duration = Duration::from_secs(20);
/// Interval of checking that.
const LOOK: Duration = Duration::from_millis(20);

/// Paths of programs and addresses.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) envoy: PathBuf,
    pub(crate) waypoint: PathBuf,
    /// Network namespace of the proxies.
    pub(crate) netns: String,
    /// Directory for files of this run.
    pub(crate) folder: PathBuf,
    pub(crate) places: Places,
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) hbone: SocketAddr,
    child: Child,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself, which the measurement has reported.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// CPU time of all its threads.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let ran = text.split_whitespace().next().context("an empty schedstat")?;
            total += ran.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(total))
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Programs {
    /// Stock Envoy with one worker.
    pub(crate) async fn envoy(&self, control: &Control, routes: usize) -> Result<Proxy> {
        self.certify_envoy(control)?;
        let files = envoy::Files { folder: &self.folder };
        let config = self.folder.join(format!("envoy-{routes}.json"));
        fs::write(&config, serde_json::to_vec(&envoy::config(&self.places, &files, routes))?)?;
        let mut command = self.command(&self.envoy);
        command.args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "error",
            "--config-path",
        ]);
        let child = command.arg(config).spawn().context("Envoy cannot be started")?;
        let (plain, hbone) = (self.places.envoy_plain(), self.places.envoy_hbone());
        listening(Proxy { name: "envoy", plain: Some(plain), hbone, child }, hbone).await
    }

    /// This program as the bare proxy.
    pub(crate) async fn bare(&self, control: &Control) -> Result<Proxy> {
        let credentials = control.credentials();
        let Places { proxies, here } = self.places;
        let mut command = self.command(&std::env::current_exe()?);
        command.args(["bare", &proxies.to_string(), &here.to_string()]);
        let child = command.args([&credentials.roots, &credentials.token]).spawn()?;
        let (plain, hbone) = (self.places.bare_plain(), self.places.bare_hbone());
        listening(Proxy { name: "bare", plain: Some(plain), hbone, child }, hbone).await
    }

    /// The waypoint as in its Deployment, with one worker. It has no port without tunnels.
    pub(crate) async fn waypoint(&self, control: &Control) -> Result<Proxy> {
        let credentials = control.credentials();
        let child = self
            .command(&self.waypoint)
            .env("GATEWAY_NAME", &*plan::waypoint().service_account)
            .env("POD_NAME", POD)
            .env("POD_NAMESPACE", &*plan::waypoint().namespace)
            .env("NODE_NAME", "node")
            .env("INSTANCE_IP", self.places.proxies.to_string())
            .env("AMBIT_OPERATOR_ADDRESS", credentials.address.to_string())
            .env("XDS_ROOT_CA", &credentials.roots)
            .env("AUTH_TOKEN", &credentials.token)
            .env("WAYPOINT_WORKER_THREADS", "1")
            .env("AMBIT_ACCESS_LOG", "All")
            .env("LOG_FORMAT", "json")
            .spawn()
            .context("the waypoint cannot be started")?;
        let proxy = Proxy { name: "waypoint", plain: None, hbone: self.places.waypoint_hbone(), child };
        let proxy = listening(proxy, self.places.waypoint_health()).await?;
        until_ready(self.places.waypoint_health()).await?;
        Ok(proxy)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).arg(program);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Envoy reads files: creates a key and has it certified by the same authority.
    fn certify_envoy(&self, control: &Control) -> Result<()> {
        let identity = plan::waypoint();
        let (key, csr) = (self.folder.join("key.pem"), self.folder.join("request.pem"));
        let name = format!("subjectAltName=URI:{identity}");
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"], &key, &[])?;
        openssl(
            &["req", "-new", "-subj", "/", "-addext", &name, "-key"],
            &key,
            &["-out".as_ref(), csr.as_ref()],
        )?;
        let chain = control.sign(&fs::read_to_string(csr)?, &identity)?;
        let (_roots, chain) = chain.split_last().context("no certificate")?;
        fs::write(self.folder.join("cert-chain.pem"), chain.concat())?;
        Ok(())
    }
}

fn openssl(before: &[&str], file: &Path, after: &[&std::ffi::OsStr]) -> Result<()> {
    let output = Command::new("openssl").args(before).arg(file).args(after).output().context("openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn listening(mut proxy: Proxy, address: SocketAddr) -> Result<Proxy> {
    let begun = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        if let Some(status) = proxy.child.try_wait()? {
            bail!("{} ended at once: {status}", proxy.name);
        }
        ensure!(begun.elapsed() < START_MAX, "{} does not listen on {address}", proxy.name);
        tokio::time::sleep(LOOK).await;
    }
    Ok(proxy)
}

/// Requests `/healthz/ready` until the response is 200.
async fn until_ready(address: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    loop {
        let target = crate::load::Target { address, tunnel: None, http: crate::load::Http::One };
        let shape = crate::load::Shape { connections: 1, tunnels: 1, streams: 1 };
        let mut senders = crate::load::connect(&target, shape).await?;
        let sender = senders.first_mut().context("no connection")?;
        if sender.ask("/healthz/ready").await.is_ok_and(|status| status == hyper::StatusCode::OK) {
            return Ok(());
        }
        ensure!(begun.elapsed() < START_MAX, "the waypoint is not ready");
        tokio::time::sleep(LOOK).await;
    }
}
