//! The implementation of each effect on the node.
//!
//! Invariant: every effect is idempotent, and repeating it completes what a failed run left
//! unfinished.

use std::{net::IpAddr, sync::Arc};

use ambit_netns::{NetNs, diag};
use ambit_redirect::{DeviceWatch, Probe};
use ambit_zds::Connections;

use super::{
    pod::{Inbound, Intent, Pod, Sandbox},
    stage::{Effect, Know, Position, Processes, Wanted},
    unjudged::unjudged,
};
use crate::{
    Error,
    forwarding::{Covered, Following},
    kernel::{Kernel, Steering},
    metrics::Metrics,
    proc,
    proxy::Proxy,
    reports::Reporter,
    roster::{Held, Opened, Roster},
    tools::Tools,
};

/// How often the pod's connections are listed until none has to be closed: connections that were
/// half open before capture began may be established after the first round.
const CLOSING_ROUNDS_MAX: usize = 8;

/// The effects on one pod.
#[derive(Debug)]
pub(crate) struct Effects {
    tools: Tools,
    opened: Option<Arc<Opened>>,
    sandbox: Option<Sandbox>,
    ips: Vec<IpAddr>,
    inbound: Inbound,
    probes: Vec<Probe>,
    rerouted: Vec<String>,
    /// The task that covers new devices.
    following: Option<Following>,
    /// The pod was never enrolled, so it may have connections that bypassed every policy.
    is_first: bool,
}

impl Effects {
    /// For a pod whose namespace is not open.
    pub(crate) fn new(tools: Tools) -> Self {
        Self {
            tools,
            opened: None,
            sandbox: None,
            ips: Vec::new(),
            inbound: Inbound::Captured,
            probes: Vec::new(),
            rerouted: Vec::new(),
            following: None,
            is_first: true,
        }
    }

    /// Skips closing connections: they were authorized, or opened legitimately outside the mesh.
    pub(super) fn forgo_closing(&mut self) {
        self.is_first = false;
    }

    pub(super) fn proxy(&self) -> &Proxy {
        &self.tools.proxy
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.tools.roster
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.tools.metrics
    }

    pub(super) fn reporter(&self) -> &Reporter {
        &self.tools.reporter
    }

    /// Cookie of the open namespace.
    pub(super) fn cookie(&self) -> Option<u64> {
        self.opened.as_ref().map(|opened| opened.netns.cookie())
    }

    /// Applies the descriptions of the operator and of CNI, and marks in `at` what must be
    /// repeated.
    pub(super) async fn describe(
        &mut self,
        pod: &Pod,
        sandbox: Option<&Sandbox>,
        at: &mut Position,
    ) -> Result<(), Error> {
        let is_replaced = sandbox.is_some_and(|sandbox| {
            self.opened.as_ref().is_some_and(|opened| !opened.netns.same(&sandbox.netns))
        });
        if is_replaced {
            self.drop_sandbox(&pod.uid).await?;
            *at = Position { reported: at.reported, ..Position::default() };
        }
        self.sandbox = sandbox.cloned();
        // CNI's addresses belong to this namespace; the operator's may be older or missing.
        let ips = self.sandbox.as_ref().map_or_else(|| pod.ips.clone(), |sandbox| sandbox.ips.clone());
        let (described, known) = ((&ips, pod.inbound, &pod.probes), (&self.ips, self.inbound, &self.probes));
        if described != known || pod.rerouted != self.rerouted {
            let is_first = self.ips.is_empty();
            (self.ips, self.inbound) = (ips, pod.inbound);
            self.probes.clone_from(&pod.probes);
            self.rerouted.clone_from(&pod.rerouted);
            if !is_first {
                for know in [&mut at.attached, &mut at.captured] {
                    *know = if *know == Know::No { Know::No } else { Know::Maybe };
                }
            }
        }
        Ok(())
    }

    /// Drops the old sandbox after the runtime created another one; nothing runs in the old one.
    async fn drop_sandbox(&mut self, uid: &str) -> Result<(), Error> {
        let Some(opened) = self.opened.clone() else { return Ok(()) };
        self.following = None;
        let name = uid.to_owned();
        self.tools.kernel.call(move |kernel| kernel.detach(&name, Some(&opened.netns))).await?;
        self.tools.roster.remove(uid);
        self.tools.roster.set_acked(uid, None);
        self.opened = None;
        Ok(())
    }

    pub(super) async fn processes(&self, uid: &str) -> Processes {
        let (proc, uid) = (self.tools.proc.clone(), uid.to_owned());
        let listed = tokio::task::spawn_blocking(move || proc::of_pod(&proc, &uid)).await;
        match listed {
            Ok(Ok(processes)) if processes.is_empty() => Processes::Ended,
            _ => Processes::Running,
        }
    }

    pub(super) async fn perform(&mut self, effect: Effect, intent: &Intent) -> Result<(), Error> {
        let uid = intent.pod.uid.as_str();
        match effect {
            Effect::Open => self.open(&intent.pod).await,
            Effect::Announce => self.tools.proxy.add(uid).await,
            Effect::Attach => self.attach(uid).await,
            Effect::Arm => self.arm(uid).await,
            Effect::Capture => {
                let steering = match self.inbound {
                    Inbound::Captured => Steering::All,
                    Inbound::Bypassed => Steering::AllButInbound,
                };
                self.steer(uid, steering).await?;
                self.close_unjudged(&intent.pod).await
            }
            Effect::Narrow => self.steer(uid, Steering::Tunnels).await,
            Effect::Close => self.close(uid).await,
            Effect::Detach => self.detach(uid).await,
            Effect::Withdraw => {
                let is_gone = intent.wanted == Wanted::Gone;
                let connections = if is_gone { Connections::Close } else { Connections::Keep };
                self.tools.proxy.del(uid, connections).await
            }
            Effect::Drop => {
                self.tools.roster.remove(uid);
                (self.opened, self.following) = (None, None);
                Ok(())
            }
            // The report follows from the position, see `Driver::report`.
            Effect::ReportEnrolled | Effect::ReportLeaving | Effect::ReportOut => Ok(()),
        }
    }

    async fn open(&mut self, pod: &Pod) -> Result<(), Error> {
        let netns = match &self.opened {
            Some(opened) => opened.netns.try_clone()?,
            None => self.find(&pod.uid).await?,
        };
        let (roster, uid) = (self.tools.roster.clone(), pod.uid.clone());
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => Arc::new(blocking(move || roster.open(&uid, netns)).await?),
        };
        self.opened = Some(opened.clone());
        let pod = ambit_zds::Pod {
            uid: pod.uid.clone(),
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
        };
        self.tools.roster.insert(Held { pod, opened });
        Ok(())
    }

    /// The pod's network namespace: the one CNI just created, or that of its processes.
    async fn find(&self, uid: &str) -> Result<NetNs, Error> {
        if let Some(sandbox) = &self.sandbox {
            return Ok(sandbox.netns.try_clone()?);
        }
        let (proc, uid, ips) = (self.tools.proc.clone(), uid.to_owned(), self.ips.clone());
        blocking(move || proc::netns_of_pod(&proc, &uid, &ips)).await
    }

    fn held(&self, uid: &str) -> Result<Arc<Opened>, Error> {
        self.opened.clone().ok_or_else(|| Error::NotOpen { uid: uid.to_owned() })
    }

    async fn attach(&mut self, uid: &str) -> Result<(), Error> {
        let (opened, uid, ips) = (self.held(uid)?, uid.to_owned(), self.ips.clone());
        if ips.is_empty() {
            return Err(Error::NoAddress { uid });
        }
        // Starts to watch before listing, so that no device is missed.
        let watch = DeviceWatch::open(&opened.netns)?;
        let covered = Covered { uid, opened, ips, rerouted: self.rerouted.clone() };
        let pod = covered.clone();
        let attach = move |kernel: &mut Kernel| kernel.attach(&pod.uid, &pod.opened.netns, &pod.ips);
        self.tools.kernel.call(attach).await?;
        covered.cover(&self.tools.kernel).await?;
        self.following = Some(covered.follow(watch, self.tools.kernel.clone()));
        Ok(())
    }

    async fn arm(&self, uid: &str) -> Result<(), Error> {
        let opened = self.held(uid)?;
        self.tools.kernel.call(move |kernel| kernel.arm(opened.netns.cookie(), &opened.listeners)).await
    }

    async fn steer(&self, uid: &str, steering: Steering) -> Result<(), Error> {
        let (ips, probes) = (self.ips.clone(), self.probes.clone());
        match self.namespace(uid).await? {
            Some(netns) => {
                let steer = move |kernel: &mut Kernel| kernel.steer(netns.cookie(), steering, &ips, &probes);
                self.tools.kernel.call(steer).await
            }
            // No process is left whose connections could be steered.
            None => Ok(()),
        }
    }

    /// Closes the connections that a pod opened before it was enrolled, if it was wanted in the
    /// mesh from its start. A pod that was labelled while running keeps its connections, and so
    /// does one that CNI enrolled.
    async fn close_unjudged(&mut self, pod: &Pod) -> Result<(), Error> {
        let is_late = self.is_first && pod.wanted_from_start && self.sandbox.is_none();
        if let (true, Some(opened)) = (is_late, self.opened.clone()) {
            let proxies = self.tools.kernel.call(|kernel| kernel.exempted()).await?;
            let inbound = self.inbound;
            let closed = blocking(move || close_all(&opened.netns, &proxies, inbound)).await?;
            let (namespace, name) = (&pod.namespace, &pod.name);
            tracing::warn!(
                pod.namespace = namespace,
                pod.name = name,
                connections.closed = closed,
                "A pod ran before it could be enrolled"
            );
            self.tools.metrics.unjudged_closed.inc_by(closed.into());
            self.tools.reporter.late(&pod.uid, closed);
        }
        self.is_first = false;
        Ok(())
    }

    async fn close(&self, uid: &str) -> Result<(), Error> {
        let Some(netns) = self.namespace(uid).await? else { return Ok(()) };
        self.tools.kernel.call(move |kernel| kernel.forget(netns.cookie())).await
    }

    async fn detach(&mut self, uid: &str) -> Result<(), Error> {
        self.following = None;
        let netns = self.namespace(uid).await?;
        let uid = uid.to_owned();
        self.tools.kernel.call(move |kernel| kernel.detach(&uid, netns.as_ref())).await
    }

    /// The pod's namespace, found again if it is not open (after a restart of the agent); `None`
    /// when the pod has no process left.
    async fn namespace(&self, uid: &str) -> Result<Option<NetNs>, Error> {
        if let Some(opened) = &self.opened {
            return Ok(Some(opened.netns.try_clone()?));
        }
        match self.find(uid).await {
            Ok(netns) => Ok(Some(netns)),
            Err(error) => match self.processes(uid).await {
                Processes::Ended => Ok(None),
                Processes::Running => Err(error),
            },
        }
    }
}

/// Closes all connections that bypassed policy; returns their number.
fn close_all(netns: &NetNs, proxies: &[u64], inbound: Inbound) -> Result<u32, Error> {
    let mut closed = 0;
    for _ in 0..CLOSING_ROUNDS_MAX {
        let all = diag::tcp_sockets(netns)?;
        let left = unjudged(&all, proxies, inbound);
        if left.is_empty() {
            return Ok(closed);
        }
        for socket in left {
            closed += u32::from(diag::abort(netns, socket)?);
        }
    }
    Err(Error::Unjudged { inode: netns.id().inode })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?
}
