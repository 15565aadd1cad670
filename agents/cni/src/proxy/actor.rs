//! The task that owns all connections to proxies.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ambit_zds::{Connection, Connections, Hello, Kind, ZdsError};
use std::os::fd::{AsFd, BorrowedFd};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    command::{Link, ProxyCommand},
    queue,
};
use crate::{
    Error, Problem,
    kernel::{KernelThread, holds_processes},
    metrics::Metrics,
    proc::Process,
    reports::Reporter,
    roster::{Held, Roster},
};

/// How long connections wait in the listeners' queues for a proxy to come back before they are
/// refused.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// How often a proxy is asked for a sign of life. With the 5 s it has to answer, a wedged one is found in 10 s.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Interval for checking processes, and for emptying queues while the breaker is open.
const TICK: Duration = Duration::from_secs(1);
/// Stands for a timer that is not set.
const NEVER: Duration = Duration::from_secs(86_400);

/// The agent's parts that connections use.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Pods to pass to the proxy.
    pub roster: Arc<Roster>,
    /// Redirection.
    pub kernel: KernelThread,
    /// Reports to the operator.
    pub reporter: Reporter,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// The `/proc` directory.
    pub proc: PathBuf,
}

/// A proxy that has sent its hello.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) connection: Connection,
    pub(super) hello: Hello,
}

/// The proxy that has its snapshot and serves.
#[derive(Debug)]
struct Serving {
    connection: Connection,
    instance: String,
}

/// A cgroup exempt from capture.
#[derive(Debug)]
struct Exempt {
    cgroup: u64,
    of: Whose,
}

/// How long the exemption lasts.
#[derive(Debug)]
enum Whose {
    /// Until the process of a proxy ends.
    Process(Process),
    /// Inherited from an earlier agent, and its proxy has not sent a hello yet: until the cgroup is
    /// empty.
    Inherited(PathBuf),
}

/// An event between requests.
enum Event {
    Arrived(Option<Arrival>),
    Asked(Option<ProxyCommand>),
    Ended(ZdsError),
    Ping,
    Grace,
    Tick,
}

#[derive(Debug)]
pub(super) struct Actor {
    around: Surroundings,
    link: watch::Sender<Link>,
    breaker: watch::Sender<u64>,
    generation: u64,
    serving: Option<Serving>,
    /// Older proxies that finish their connections and get no more requests.
    draining: Vec<Connection>,
    exempt: Vec<Exempt>,
    /// When the breaker opens; `None` while a proxy serves, and once it is open.
    grace_ends: Option<Instant>,
    is_open: bool,
}

impl Actor {
    pub(super) fn new(around: Surroundings, link: watch::Sender<Link>, breaker: watch::Sender<u64>) -> Self {
        Self {
            around,
            link,
            breaker,
            generation: 0,
            serving: None,
            draining: Vec::new(),
            exempt: Vec::new(),
            grace_ends: Some(Instant::now() + GRACE),
            is_open: false,
        }
    }

    /// Runs until the agent stops.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<ProxyCommand>,
        mut arrivals: mpsc::Receiver<Arrival>,
    ) {
        self.inherit().await;
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let grace = self.grace_ends.unwrap_or_else(|| Instant::now() + NEVER);
            let event = tokio::select! {
                arrival = arrivals.recv() => Event::Arrived(arrival),
                command = commands.recv() => Event::Asked(command),
                error = ended(self.serving.as_mut()) => Event::Ended(error),
                _ = ping.tick() => Event::Ping,
                () = sleep_until(grace) => Event::Grace,
                _ = tick.tick() => Event::Tick,
            };
            match event {
                Event::Arrived(None) | Event::Asked(None) => return,
                Event::Arrived(Some(arrival)) => self.arrived(arrival).await,
                Event::Asked(Some(command)) => self.asked(command).await,
                Event::Ended(error) => self.lost(&error),
                Event::Ping => self.ping().await,
                Event::Grace => self.open_breaker().await,
                Event::Tick => self.tick().await,
            }
        }
    }

    /// Adopts exemptions of an earlier agent, whose proxies may have ended since.
    async fn inherit(&mut self) {
        match self.around.kernel.call(|kernel| kernel.inherited_exemptions()).await {
            Ok(inherited) => {
                let exempt = |(cgroup, directory)| Exempt { cgroup, of: Whose::Inherited(directory) };
                self.exempt.extend(inherited.into_iter().map(exempt));
            }
            Err(error) => tracing::warn!(%error, "Cgroups of proxies that are gone may stay exempt"),
        }
    }

    async fn arrived(&mut self, arrival: Arrival) {
        let pid = arrival.connection.peer().pid;
        match self.take(arrival).await {
            Ok(()) => {
                tracing::info!(peer.pid = pid, generation = self.generation, "A proxy serves this node")
            }
            Err(error) => {
                tracing::warn!(peer.pid = pid, %error, "A proxy was not accepted");
                self.around.reporter.proxy(self.serving.is_some(), Some(error.problem()));
            }
        }
    }

    /// Sends a proxy its snapshot, and makes it the serving one.
    async fn take(&mut self, arrival: Arrival) -> Result<(), Error> {
        let Arrival { mut connection, hello } = arrival;
        let instance = hello.instance.ok_or(Error::ForeignProxy)?;
        self.exempt(connection.peer().pid).await?;
        let kept = self.keeps(&hello.held);
        self.around.roster.adopt(hello.held);
        let held = self.around.roster.held();
        let mut acked: Vec<&str> = Vec::new();
        for pod in &held {
            match add(&mut connection, pod).await {
                Ok(()) => acked.push(&pod.pod.uid),
                // While another proxy serves, a newer one must accept every pod or none.
                Err(error) if error.is_fatal() || self.serving.is_some() => return Err(error.into()),
                Err(error) => tracing::warn!(pod.uid = pod.pod.uid, %error, "A pod was refused"),
            }
        }
        for uid in &kept {
            connection.keep(uid).await?;
            acked.push(uid);
        }
        connection.snapshot_sent().await?;
        self.generation += 1;
        for uid in acked {
            self.around.roster.set_acked(uid, Some(self.generation));
        }
        self.release_closed(&mut connection, &held).await?;
        self.replace(Serving { connection, instance }).await;
        Ok(())
    }

    /// Pods that the proxy serves and the agent has not opened (yet).
    fn keeps(&self, brought: &[ambit_zds::ListenerOf]) -> Vec<String> {
        let mut uids: Vec<String> = brought.iter().map(|of| of.uid.clone()).collect();
        uids.dedup();
        uids.retain(|uid| self.around.roster.is_kept(uid));
        uids
    }

    /// Removes pods from the proxy that were closed while the snapshot was being sent.
    async fn release_closed(&self, connection: &mut Connection, sent: &[Held]) -> Result<(), Error> {
        for pod in sent {
            let uid = &pod.pod.uid;
            if self.around.roster.get(uid).is_none() {
                connection.del(uid, Connections::Keep).await?;
                self.around.roster.set_acked(uid, None);
            }
        }
        Ok(())
    }

    async fn replace(&mut self, newer: Serving) {
        let instance = newer.instance.clone();
        let older = self.serving.replace(newer);
        self.grace_ends = None;
        self.is_open = false;
        self.around.metrics.proxy_connected.set(1);
        self.around.reporter.proxy(true, None);
        self.link.send_replace(Link::Ready(self.generation));
        let Some(mut older) = older else { return };
        if older.instance == instance {
            // The same process has reconnected: nothing to drain.
            return;
        }
        match older.connection.drain().await {
            Ok(()) => self.draining.push(older.connection),
            Err(error) => tracing::warn!(%error, "The older proxy does not drain"),
        }
    }

    async fn exempt(&mut self, pid: i32) -> Result<(), Error> {
        let gone = || Error::Io {
            doing: format!("find the process {pid} of the proxy; does the agent run with hostPID?"),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0).ok_or_else(gone)?;
        let process = Process::of(&self.around.proc, pid).ok_or_else(gone)?;
        let proc = self.around.proc.clone();
        let cgroup = self.around.kernel.call(move |kernel| kernel.exempt(pid, &proc)).await?;
        // From now on the exemption lasts as long as the process.
        let is_known = |exempt: &Exempt| match exempt.of {
            Whose::Process(other) => other == process,
            Whose::Inherited(_) => exempt.cgroup == cgroup,
        };
        self.exempt.retain(|exempt| !is_known(exempt));
        self.exempt.push(Exempt { cgroup, of: Whose::Process(process) });
        Ok(())
    }

    async fn asked(&mut self, command: ProxyCommand) {
        let (done, result) = match command {
            ProxyCommand::Add { uid, done } => (done, self.add(&uid).await),
            ProxyCommand::Del { uid, connections, done } => (done, self.del(&uid, connections).await),
        };
        let _ = done.send(result);
    }

    async fn add(&mut self, uid: &str) -> Result<(), Error> {
        let held = self.around.roster.get(uid).ok_or_else(|| Error::NotOpen { uid: uid.to_owned() })?;
        let serving = self.serving.as_mut().ok_or(Error::ProxyAway)?;
        let result = add(&mut serving.connection, &held).await;
        self.settle(result)?;
        self.around.roster.set_acked(uid, Some(self.generation));
        Ok(())
    }

    async fn del(&mut self, uid: &str, connections: Connections) -> Result<(), Error> {
        let serving = self.serving.as_mut().ok_or(Error::ProxyAway)?;
        let result = serving.connection.del(uid, connections).await;
        self.settle(result)?;
        self.around.roster.set_acked(uid, None);
        Ok(())
    }

    async fn ping(&mut self) {
        let Some(serving) = self.serving.as_mut() else { return };
        let result = serving.connection.ping().await;
        let _ = self.settle(result);
    }

    /// Drops the connection if an error broke it.
    fn settle(&mut self, result: Result<(), ZdsError>) -> Result<(), Error> {
        if let Err(error) = &result
            && error.is_fatal()
        {
            self.lost(error);
        }
        Ok(result?)
    }

    fn lost(&mut self, error: &ZdsError) {
        tracing::warn!(%error, "The proxy is gone");
        self.serving = None;
        self.grace_ends = Some(Instant::now() + GRACE);
        self.around.metrics.proxy_connected.set(0);
        self.around
            .reporter
            .proxy(false, Some(Problem { reason: "ProxyNotConnected", message: error.to_string() }));
        self.link.send_replace(Link::Away);
    }

    /// No proxy came back in time: refuse waiting connections at once.
    async fn open_breaker(&mut self) {
        self.grace_ends = None;
        self.is_open = true;
        let held = self.around.roster.held();
        tracing::warn!(pods = held.len(), "No proxy: connections of enrolled pods are refused");
        for pod in &held {
            let cookie = pod.opened.netns.cookie();
            if let Err(error) = self.around.kernel.call(move |kernel| kernel.disarm(cookie)).await {
                tracing::warn!(pod.uid = pod.pod.uid, %error, "The listeners of a pod cannot be removed");
            }
        }
        self.breaker.send_modify(|count| *count += 1);
        self.around.metrics.breaker_opened.inc();
        self.refuse_queued();
    }

    /// Refuses connections whose handshake was incomplete when the breaker opened.
    fn refuse_queued(&self) {
        let refused: usize =
            self.around.roster.held().iter().map(|pod| queue::refuse(&pod.opened.listeners)).sum();
        if refused > 0 {
            tracing::warn!(connections = refused, "Connections that waited for a proxy were reset");
        }
    }

    async fn tick(&mut self) {
        if self.is_open {
            self.refuse_queued();
        }
        let proc = &self.around.proc;
        let is_alive = |exempt: &Exempt| match &exempt.of {
            Whose::Process(process) => process.is_alive(proc),
            Whose::Inherited(directory) => holds_processes(directory, exempt.cgroup),
        };
        let (alive, gone): (Vec<_>, Vec<_>) = self.exempt.drain(..).partition(is_alive);
        self.exempt = alive;
        for cgroup in gone.into_iter().map(|exempt| exempt.cgroup) {
            if self.exempt.iter().any(|exempt| exempt.cgroup == cgroup) {
                continue;
            }
            if let Err(error) = self.around.kernel.call(move |kernel| kernel.unexempt(cgroup)).await {
                tracing::warn!(cgroup, %error, "The cgroup of a proxy that is gone stays exempt");
            }
        }
        let pid = |exempt: &Exempt| match &exempt.of {
            Whose::Process(process) => i32::try_from(process.pid).ok(),
            Whose::Inherited(_) => None,
        };
        let pids: Vec<i32> = self.exempt.iter().filter_map(pid).collect();
        self.draining.retain(|connection| pids.contains(&connection.peer().pid));
    }
}

/// Why the serving connection ended; never returns without one.
async fn ended(serving: Option<&mut Serving>) -> ZdsError {
    match serving {
        Some(serving) => serving.connection.ended().await,
        None => std::future::pending().await,
    }
}

async fn add(connection: &mut Connection, held: &Held) -> Result<(), ZdsError> {
    let listeners: Vec<(Kind, BorrowedFd<'_>)> =
        held.opened.listeners.iter().map(|listener| (listener.kind, listener.fd.as_fd())).collect();
    connection.add(&held.pod, held.opened.netns.as_fd(), &listeners).await
}
