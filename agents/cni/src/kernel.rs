//! Redirection on a thread of its own: its calls block and enter other network namespaces.
//!
//! Invariant: calls run one after another in the order in which they were made.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::mpsc::{Sender, channel},
};

use ambit_netns::NetNs;
use ambit_redirect::{Config, Direction, PROBES_MAX, PodConfig, Probe, Redirector, cgroup, flag};
use ambit_zds::{Kind, Listener};
use tokio::sync::oneshot;

use crate::{Error, proc};

/// What of a pod's new connections goes to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// Everything.
    All,
    /// Everything but plaintext from outside (annotation `ambient.istio.io/bypass-inbound-capture`).
    AllButInbound,
    /// Tunnels to the pod.
    Tunnels,
}

/// Processes that an error names.
const OTHERS_NAMED_MAX: usize = 8;

type Job = Box<dyn FnOnce(&mut Kernel) + Send>;

/// Handle of the thread.
#[derive(Clone, Debug)]
pub struct KernelThread(Sender<Job>);

/// What runs on the thread.
pub struct Kernel {
    /// `None` once everything was removed.
    redirector: Option<Redirector>,
    cgroup_root: PathBuf,
    /// The kernel lacks the hooks for what pods forward, and this was said.
    is_uncovered: bool,
}

impl KernelThread {
    /// Loads the programs or adopts what an earlier agent pinned.
    ///
    /// # Errors
    /// When the kernel lacks what is needed; the error says what.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let (jobs, queue) = channel::<Job>();
        let (started, result) = oneshot::channel();
        let run = move || {
            let opened = Redirector::open(&config).map_err(Error::from);
            let (redirector, outcome) = match opened {
                Ok(redirector) => (Some(redirector), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let _ = started.send(outcome);
            let mut kernel = Kernel { redirector, cgroup_root: config.cgroup, is_uncovered: false };
            while let Ok(job) = queue.recv() {
                job(&mut kernel);
            }
        };
        std::thread::Builder::new().name("kernel".into()).spawn(run).map_err(Error::io("start a thread"))?;
        result.await.map_err(|_| Error::Stopping)??;
        Ok(Self(jobs))
    }

    /// Runs one call and returns what it returns.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Kernel) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |kernel| {
            let _ = done.send(call(kernel));
        });
        self.0.send(job).map_err(|_| Error::Stopping)?;
        result.await.map_err(|_| Error::Stopping)?
    }
}

impl Kernel {
    fn redirector(&mut self) -> Result<&mut Redirector, Error> {
        self.redirector.as_mut().ok_or(Error::Stopping)
    }

    /// Pods that an earlier agent attached and whose namespace is still there. Pins of others are removed.
    ///
    /// # Errors
    /// When the pins cannot be read.
    pub fn inherited(&mut self) -> Result<Vec<String>, Error> {
        let redirector = self.redirector()?;
        let mut inherited = Vec::new();
        for pod in redirector.attached()? {
            if pod.netns_inode.is_some() {
                inherited.push(pod.uid);
            } else {
                redirector.detach(&pod.uid, None)?;
            }
        }
        Ok(inherited)
    }

    /// Prepares a pod's namespace.
    ///
    /// # Errors
    /// Of redirection, as for all that follow.
    pub fn attach(&mut self, uid: &str, netns: &NetNs, ips: &[IpAddr]) -> Result<(), Error> {
        self.redirector()?.attach(uid, netns, ips)?;
        Ok(())
    }

    /// Covers what a pod forwards, at its devices as they are now. A kernel that cannot is left at that, and said so:
    /// the pod's own connections are protected all the same.
    ///
    /// # Errors
    /// Of redirection.
    pub fn cover(
        &mut self,
        uid: &str,
        netns: &NetNs,
        ips: &[IpAddr],
        rerouted: &[String],
    ) -> Result<(), Error> {
        match self.redirector()?.cover(uid, netns, ips, rerouted) {
            Err(error @ ambit_redirect::Error::NoTcx(_)) => {
                if !std::mem::replace(&mut self.is_uncovered, true) {
                    tracing::error!(%error, "What pods forward is neither captured nor judged on this node");
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }

    /// Packets that were dropped instead of forwarded.
    ///
    /// # Errors
    /// Of redirection.
    pub fn forwarded(&mut self) -> Result<Vec<(u64, Direction, u64)>, Error> {
        Ok(self.redirector()?.forwarded()?)
    }

    /// Puts the listeners into their slots.
    ///
    /// # Errors
    /// Also when a listener is not what it should be.
    pub fn arm(&mut self, cookie: u64, listeners: &[Listener]) -> Result<(), Error> {
        use std::os::fd::AsFd;
        for listener in listeners {
            self.redirector()?.arm(cookie, slot(listener.kind), listener.fd.as_fd())?;
        }
        Ok(())
    }

    /// Empties the slots of a namespace.
    ///
    /// # Errors
    /// Of redirection.
    pub fn disarm(&mut self, cookie: u64) -> Result<(), Error> {
        for kind in ambit_redirect::Kind::ALL {
            self.redirector()?.disarm(cookie, kind)?;
        }
        Ok(())
    }

    /// Switches what is steered.
    ///
    /// # Errors
    /// Of redirection.
    pub fn steer(
        &mut self,
        cookie: u64,
        steering: Steering,
        ips: &[IpAddr],
        probes: &[Probe],
    ) -> Result<(), Error> {
        let all = PodConfig::enrolled(ips).map_err(|source| ambit_redirect::Error::Addresses {
            uid: format!("with namespace cookie {cookie}"),
            source,
        })?;
        let config = match steering {
            Steering::All => all,
            Steering::AllButInbound => PodConfig { flags: all.flags & !flag::CAPTURE_INBOUND, ..all },
            Steering::Tunnels => all.only_hbone(),
        };
        if probes.len() > PROBES_MAX {
            tracing::warn!(cookie, limit = PROBES_MAX, "Further probes of a pod are not known to the kernel");
        }
        self.redirector()?.switch(cookie, Some(config), probes)?;
        Ok(())
    }

    /// Nothing is steered any more, then the slots are emptied.
    ///
    /// # Errors
    /// Of redirection.
    pub fn forget(&mut self, cookie: u64) -> Result<(), Error> {
        Ok(self.redirector()?.forget(cookie)?)
    }

    /// Takes everything of a pod away.
    ///
    /// # Errors
    /// Of redirection.
    pub fn detach(&mut self, uid: &str, netns: Option<&NetNs>) -> Result<(), Error> {
        Ok(self.redirector()?.detach(uid, netns)?)
    }

    /// Never captures the tasks of the cgroup that a process is in; returns the cgroup's id.
    ///
    /// # Errors
    /// When the process has no cgroup here, or shares it with processes that are not of its pod.
    pub fn exempt(&mut self, pid: u32, proc: &Path) -> Result<u64, Error> {
        let directory = cgroup::of_pid(pid, &self.cgroup_root)?;
        let pod = proc::pod_of(proc, pid);
        let others =
            cgroup::processes(&directory)?.into_iter().filter(|other| proc::pod_of(proc, *other) != pod);
        self.alone("a proxy", &directory, others)?;
        let id = cgroup::id(&directory)?;
        self.redirector()?.exempt(id)?;
        Ok(id)
    }

    /// The exempt cgroups that earlier agents left. One in which nobody is left is captured again.
    ///
    /// # Errors
    /// Of redirection.
    pub fn inherited_exemptions(&mut self) -> Result<Vec<(u64, PathBuf)>, Error> {
        let mut inherited = Vec::new();
        for id in self.redirector()?.exempted()? {
            match cgroup::of_id(id, &self.cgroup_root).filter(|directory| holds_processes(directory, id)) {
                Some(directory) => inherited.push((id, directory)),
                None => self.redirector()?.unexempt(id)?,
            }
        }
        Ok(inherited)
    }

    /// Refuses a cgroup that says too little about who is in it: the root, below which everybody is, and one with
    /// processes of somebody else.
    fn alone(
        &self,
        role: &'static str,
        directory: &Path,
        others: impl Iterator<Item = u32>,
    ) -> Result<(), Error> {
        let not_alone = |others: String| Error::NotAlone { role, cgroup: directory.to_path_buf(), others };
        if cgroup::id(directory)? == cgroup::id(&self.cgroup_root)? {
            return Err(not_alone("it is the root of the hierarchy, and all pods are below it".to_owned()));
        }
        let others: Vec<String> = others.take(OTHERS_NAMED_MAX).map(|pid| pid.to_string()).collect();
        if others.is_empty() { Ok(()) } else { Err(not_alone(format!("processes {}", others.join(", ")))) }
    }

    /// Captures the tasks of the cgroup again.
    ///
    /// # Errors
    /// Of redirection.
    pub fn unexempt(&mut self, cgroup: u64) -> Result<(), Error> {
        Ok(self.redirector()?.unexempt(cgroup)?)
    }

    /// The cgroups that are never captured.
    ///
    /// # Errors
    /// Of redirection.
    pub fn exempted(&mut self) -> Result<Vec<u64>, Error> {
        Ok(self.redirector()?.exempted()?)
    }

    /// Lets the probes of a kubelet through; returns the id of its cgroup.
    ///
    /// # Errors
    /// When the process has no cgroup here, or pods are in it or below it.
    pub fn pass_probes(&mut self, kubelet: u32, proc: &Path) -> Result<PathBuf, Error> {
        let directory = cgroup::of_pid(kubelet, &self.cgroup_root)?;
        let below = cgroup::processes_below(&directory).into_iter();
        self.alone("the kubelet", &directory, below.filter(|pid| proc::pod_of(proc, *pid).is_some()))?;
        let host = NetNs::current()?;
        self.redirector()?.attach_kubelet(&directory, &host)?;
        Ok(directory)
    }

    /// Removes every pin. Nothing works afterwards.
    ///
    /// # Errors
    /// When a pin cannot be removed; it is safe to start the agent again.
    pub fn remove_everything(&mut self) -> Result<(), Error> {
        self.redirector.take().map_or(Ok(()), |redirector| Ok(redirector.remove_everything()?))
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("cgroup_root", &self.cgroup_root).finish_non_exhaustive()
    }
}

/// Whether the directory is still that cgroup, and somebody is in it.
pub(crate) fn holds_processes(directory: &Path, id: u64) -> bool {
    cgroup::id(directory).is_ok_and(|found| found == id)
        && cgroup::processes(directory).is_ok_and(|processes| !processes.is_empty())
}

fn slot(kind: Kind) -> ambit_redirect::Kind {
    match kind {
        Kind::Outbound => ambit_redirect::Kind::Outbound,
        Kind::InboundPlaintext => ambit_redirect::Kind::InboundPlaintext,
        Kind::Hbone => ambit_redirect::Kind::Hbone,
    }
}

/// The port that a listener of this kind binds.
pub(crate) fn port(kind: Kind) -> u16 {
    slot(kind).port()
}
