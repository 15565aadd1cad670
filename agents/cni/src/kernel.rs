//! Redirection, on a thread of its own because its calls block and enter other network namespaces.
//!
//! Invariant: calls run one after another, in the order in which they were made.

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

/// Which new connections of a pod are redirected to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// All connections.
    All,
    /// All but inbound plaintext (annotation `ambient.istio.io/bypass-inbound-capture`).
    AllButInbound,
    /// Only inbound tunnels.
    Tunnels,
}

/// Number of processes listed in an error.
const OTHERS_NAMED_MAX: usize = 8;

type Job = Box<dyn FnOnce(&mut Kernel) + Send>;

/// Handle of the thread.
#[derive(Clone, Debug)]
pub struct KernelThread(Sender<Job>);

/// The state of the thread.
pub struct Kernel {
    /// `None` once everything was removed.
    redirector: Option<Redirector>,
    cgroup_root: PathBuf,
    /// The kernel lacks the hooks for forwarded packets, and this was logged.
    is_uncovered: bool,
}

impl KernelThread {
    /// Loads the programs, or adopts those that an earlier agent pinned.
    ///
    /// # Errors
    /// When the kernel lacks a required feature; the error names it.
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

    /// Runs one call on the thread and returns its result.
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

    /// Pods that an earlier agent attached and whose namespace still exists. Pins of other pods are
    /// removed.
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
    /// Of redirection, as for all methods below.
    pub fn attach(&mut self, uid: &str, netns: &NetNs, ips: &[IpAddr]) -> Result<(), Error> {
        self.redirector()?.attach(uid, netns, ips)?;
        Ok(())
    }

    /// Covers the pod's current devices against forwarded packets. On a kernel without the hooks
    /// this is only logged, because the pod's own connections are protected all the same.
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
                    tracing::error!(%error, "Forwarded traffic of pods is neither captured nor subject to policy on this node");
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }

    /// Number of dropped forwarded packets.
    ///
    /// # Errors
    /// Of redirection.
    pub fn forwarded(&mut self) -> Result<Vec<(u64, Direction, u64)>, Error> {
        Ok(self.redirector()?.forwarded()?)
    }

    /// Puts the listeners into the kernel's map.
    ///
    /// # Errors
    /// Also when a socket is not the listener it should be.
    pub fn arm(&mut self, cookie: u64, listeners: &[Listener]) -> Result<(), Error> {
        use std::os::fd::AsFd;
        for listener in listeners {
            self.redirector()?.arm(cookie, slot(listener.kind), listener.fd.as_fd())?;
        }
        Ok(())
    }

    /// Removes the listeners of a namespace from the map.
    ///
    /// # Errors
    /// Of redirection.
    pub fn disarm(&mut self, cookie: u64) -> Result<(), Error> {
        for kind in ambit_redirect::Kind::ALL {
            self.redirector()?.disarm(cookie, kind)?;
        }
        Ok(())
    }

    /// Sets which connections are redirected.
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
            tracing::warn!(
                cookie,
                limit = PROBES_MAX,
                "Some probes of a pod exceed the limit and are subject to policy as plaintext"
            );
        }
        self.redirector()?.switch(cookie, Some(config), probes)?;
        Ok(())
    }

    /// Ends redirection, then removes the listeners.
    ///
    /// # Errors
    /// Of redirection.
    pub fn forget(&mut self, cookie: u64) -> Result<(), Error> {
        Ok(self.redirector()?.forget(cookie)?)
    }

    /// Removes everything of a pod.
    ///
    /// # Errors
    /// Of redirection.
    pub fn detach(&mut self, uid: &str, netns: Option<&NetNs>) -> Result<(), Error> {
        Ok(self.redirector()?.detach(uid, netns)?)
    }

    /// Exempts the tasks in a process's cgroup from capture; returns the cgroup's id.
    ///
    /// # Errors
    /// When the process has no cgroup here, or shares it with processes outside its pod.
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

    /// Exemptions that earlier agents left. Those of empty cgroups are removed.
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

    /// Rejects a cgroup that does not identify the process: the root, which is above everything,
    /// and one that other pods' processes share.
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

    /// Removes the exemption of a cgroup.
    ///
    /// # Errors
    /// Of redirection.
    pub fn unexempt(&mut self, cgroup: u64) -> Result<(), Error> {
        Ok(self.redirector()?.unexempt(cgroup)?)
    }

    /// The exempt cgroups.
    ///
    /// # Errors
    /// Of redirection.
    pub fn exempted(&mut self) -> Result<Vec<u64>, Error> {
        Ok(self.redirector()?.exempted()?)
    }

    /// Admits the probes of a kubelet; returns its cgroup.
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

    /// Removes every pin. The value is unusable afterwards.
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

/// Whether the directory is still that cgroup, and contains processes.
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
