//! The pods of this node: what the operator says about each, and the driver that takes it there.
//!
//! Invariant: every pod that the operator names, or that an earlier agent left attached, has exactly one driver.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ambit_proto::node::{self, NodeEnrollment, PodEnrollment, probe::Kind};
use ambit_redirect::{Probe, Sends};
use tokio::{runtime::Handle, sync::watch, time::timeout};

use crate::{
    enroll::{
        driver::{Driver, Progress, Wires},
        effects::Effects,
        pod::{Inbound, Intent, Pod, Sandbox},
        stage::{Position, Wanted},
    },
    plugin::protocol::{Enrolled, Request},
    tools::Tools,
};

/// What is wanted of the node as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// Serve the mesh.
    #[default]
    Serve,
    /// Leave it without a trace.
    Leave,
}

/// What an earlier agent left on the node.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Uids of pods that are attached.
    pub attached: Vec<String>,
    /// What has started.
    pub start: Start,
}

/// What has started, the agent being the first thing of ours that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// The agent, on a node that runs or has never had one.
    #[default]
    OfAgent,
    /// The whole node: nothing that lives in its kernel is left of the last agent, only its files.
    OfNode,
}

impl Start {
    /// From the pins, which are gone after a restart, and the state file, which is not.
    pub fn of(pins: &Path, state_file: &Path) -> Self {
        let has_pins = std::fs::read_dir(pins).is_ok_and(|mut entries| entries.next().is_some());
        if !has_pins && state_file.exists() { Self::OfNode } else { Self::OfAgent }
    }
}

/// One pod.
#[derive(Clone, Debug)]
pub struct Member {
    /// What is wanted of it.
    pub intent: watch::Sender<Intent>,
    /// Where the network that CNI made goes.
    pub sandbox: watch::Sender<Option<Sandbox>>,
    /// Where it is.
    pub progress: watch::Receiver<Progress>,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Node(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tools: Tools,
    runtime: Handle,
    state_file: PathBuf,
    state: Mutex<State>,
    /// Held while the state file is written, so that the newest state is written last.
    writing: Mutex<()>,
    /// The operator's stream is open and was heard completely.
    hears: AtomicBool,
    changed: watch::Sender<u64>,
    duty: watch::Sender<Duty>,
}

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<String, Member>,
    /// Attached by an earlier agent and not named by the operator yet.
    inherited: BTreeSet<String>,
    enrolled: Enrolled,
    /// The node was started again since the last agent: pods that may only start enrolled, and run, are late.
    restarted: Option<Enrolled>,
    /// The mesh left the node: this process writes nothing down any more, also when the mesh comes back. The next one,
    /// which finds neither file nor pins, starts as on a new node.
    has_left: bool,
    /// The operator has named every pod of the node: what the file said of others is over.
    is_complete: bool,
}

impl State {
    /// Which pods may only start enrolled, as far as this is known now.
    fn enrolled(&self) -> Enrolled {
        let mut enrolled = self.enrolled.clone();
        if self.is_complete {
            enrolled.pods.clear();
            enrolled.outside.clear();
        }
        for (uid, member) in &self.members {
            let intent = member.intent.borrow();
            let is_outside =
                intent.wanted == Wanted::Out && enrolled.namespaces.contains(&intent.pod.namespace);
            for (uids, is_one) in
                [(&mut enrolled.pods, intent.wanted == Wanted::L4), (&mut enrolled.outside, is_outside)]
            {
                if is_one {
                    uids.insert(uid.clone());
                } else {
                    uids.remove(uid);
                }
            }
        }
        enrolled
    }
}

impl Node {
    /// A node on which an earlier agent left what is in `past`.
    pub fn new(tools: Tools, state_file: PathBuf, past: Past) -> Self {
        let enrolled = Enrolled::read(&state_file);
        let state = State {
            restarted: (past.start == Start::OfNode).then(|| enrolled.clone()),
            enrolled,
            inherited: past.attached.into_iter().collect(),
            ..State::default()
        };
        Self(Arc::new(Shared {
            tools,
            runtime: Handle::current(),
            state_file,
            state: Mutex::new(state),
            writing: Mutex::new(()),
            hears: AtomicBool::new(false),
            changed: watch::channel(0).0,
            duty: watch::channel(Duty::Serve).0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wanted of the node, as it changes.
    pub fn duty(&self) -> watch::Receiver<Duty> {
        self.0.duty.subscribe()
    }

    /// The operator describes a pod.
    ///
    /// # Errors
    /// Says which field cannot be used.
    pub fn describe(&self, enrollment: PodEnrollment) -> Result<(), String> {
        let wanted = match enrollment.wanted() {
            node::Wanted::Out => Wanted::Out,
            node::Wanted::L4 => Wanted::L4,
        };
        if enrollment.uid.is_empty() {
            return Err("it has no uid".to_owned());
        }
        let restarted_enrolled = self
            .lock()
            .restarted
            .as_ref()
            .is_some_and(|past| past.holds(&enrollment.namespace, &enrollment.uid));
        let ips = enrollment.ips.iter().map(|ip| ip.parse().map_err(|_| format!("{ip:?} is no address")));
        let pod = Arc::new(Pod {
            ips: ips.collect::<Result<_, _>>()?,
            inbound: if enrollment.bypass_inbound { Inbound::Bypassed } else { Inbound::Captured },
            wanted_from_start: enrollment.wanted_from_start || restarted_enrolled,
            probes: enrollment.probes.iter().filter_map(probe).collect(),
            rerouted: enrollment.reroute_interfaces,
            uid: enrollment.uid,
            namespace: enrollment.namespace,
            name: enrollment.name,
            service_account: enrollment.service_account,
        });
        let wanted = self.dutiful(wanted);
        self.want(Intent { pod, wanted });
        Ok(())
    }

    fn dutiful(&self, wanted: Wanted) -> Wanted {
        match (*self.0.duty.borrow(), wanted) {
            (Duty::Leave, Wanted::L4 | Wanted::Out) => Wanted::Cleared,
            (_, wanted) => wanted,
        }
    }

    fn want(&self, intent: Intent) {
        let uid = intent.pod.uid.clone();
        let mut state = self.lock();
        if let Some(member) = state.members.get(&uid)
            && !member.intent.is_closed()
        {
            member.intent.send_if_modified(|old| {
                let changed = *old != intent;
                *old = intent;
                changed
            });
        } else {
            let at = if state.inherited.remove(&uid) { Position::inherited() } else { Position::default() };
            let member = self.drive(intent, at);
            state.members.insert(uid, member);
        }
        drop(state);
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn drive(&self, intent: Intent, at: Position) -> Member {
        let (intent, intents) = watch::channel(intent);
        let (progress, progresses) = watch::channel(Progress::default());
        let (sandbox, sandboxes) = watch::channel(None);
        let wires = Wires { intent: intents, sandbox: sandboxes, progress };
        let driver = Driver::new(wires, Effects::new(self.0.tools.clone()), at);
        driver.announce();
        self.0.runtime.spawn(driver.run());
        Member { intent, sandbox, progress: progresses }
    }

    /// A pod was deleted.
    pub fn remove(&self, uid: &str) {
        let mut state = self.lock();
        state.members.retain(|_, member| !member.intent.is_closed());
        let Some(member) = state.members.get(uid) else { return };
        // Its driver stays until the last process has ended, and goes on if the pod is named again before.
        member.intent.send_modify(|intent| intent.wanted = Wanted::Gone);
    }

    /// The operator describes the node.
    pub fn describe_node(&self, enrollment: NodeEnrollment) {
        let (whole, partly) = (enrollment.enrolled_namespaces, enrollment.partly_enrolled_namespaces);
        self.lock().enrolled.namespaces = whole.into_iter().chain(partly).collect();
        let duty = if enrollment.decommission { Duty::Leave } else { Duty::Serve };
        if duty == Duty::Leave {
            self.lock().has_left = true;
        }
        self.0.duty.send_if_modified(|old| std::mem::replace(old, duty) != duty);
        if duty == Duty::Leave {
            self.leave();
        }
        self.keep();
    }

    /// Writes down which pods may only start enrolled, for the time when no agent runs. A node that is left keeps
    /// nothing.
    pub fn keep(&self) {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (enrolled, has_left) = {
            let mut state = self.lock();
            state.enrolled = state.enrolled();
            (state.enrolled.clone(), state.has_left)
        };
        if !has_left
            && Enrolled::read(&self.0.state_file) != enrolled
            && let Err(error) = enrolled.write(&self.0.state_file)
        {
            let path = self.0.state_file.display();
            tracing::error!(%path, %error, "Which pods may only start enrolled cannot be written down");
        }
    }

    fn leave(&self) {
        for member in self.lock().members.values() {
            member.intent.send_if_modified(|intent| {
                let wanted = if intent.wanted == Wanted::Gone { Wanted::Gone } else { Wanted::Cleared };
                std::mem::replace(&mut intent.wanted, wanted) != wanted
            });
        }
    }

    /// The operator has named every pod of the node: what an earlier agent attached beyond them was deleted.
    pub fn synced(&self) {
        let (known, inherited) = {
            let mut state = self.lock();
            state.is_complete = true;
            let is_there = |member: &Member| member.intent.borrow().wanted != Wanted::Gone;
            let there = state.members.iter().filter(|(_, member)| is_there(member));
            let known = there.map(|(uid, _)| uid.clone()).collect();
            (known, std::mem::take(&mut state.inherited))
        };
        self.keep();
        self.0.tools.roster.set_known(known);
        for uid in inherited {
            let pod = Arc::new(Pod {
                uid,
                namespace: String::new(),
                name: String::new(),
                service_account: String::new(),
                ips: Vec::new(),
                inbound: Inbound::Captured,
                wanted_from_start: false,
                probes: Vec::new(),
                rerouted: Vec::new(),
            });
            let member = self.drive(Intent { pod, wanted: Wanted::Gone }, Position::inherited());
            // A driver whose channels are gone ends; this one lives until the pod's processes have ended.
            self.0.runtime.spawn(async move {
                let mut progress = member.progress.clone();
                let _ = progress.wait_for(|progress| progress.is_cleared).await;
                drop(member);
            });
        }
    }

    /// Whether a pod may only start enrolled, as far as the operator said, now or to an earlier agent.
    pub fn holds(&self, request: &Request) -> bool {
        self.lock().enrolled.holds(&request.namespace, &request.uid)
    }

    /// Whether the operator can be expected to name a pod that it has not named yet.
    pub fn hears_operator(&self) -> bool {
        self.0.hears.load(Ordering::Relaxed)
    }

    /// The operator's stream came up or broke.
    pub fn set_hears_operator(&self, hears: bool) {
        self.0.hears.store(hears, Ordering::Relaxed);
    }

    /// The pod that CNI speaks of, as soon as the operator named it, at the latest after `limit`.
    pub async fn find(&self, request: &Request, limit: Duration) -> Option<Member> {
        let mut changed = self.0.changed.subscribe();
        let found = async {
            loop {
                changed.borrow_and_update();
                if let Some(member) = self.get(request) {
                    return Some(member);
                }
                changed.changed().await.ok()?;
            }
        };
        timeout(limit, found).await.ok().flatten()
    }

    fn get(&self, request: &Request) -> Option<Member> {
        let state = self.lock();
        if !request.uid.is_empty() {
            return state.members.get(&request.uid).cloned();
        }
        let same = |member: &&Member| {
            let intent = member.intent.borrow();
            intent.pod.namespace == request.namespace && intent.pod.name == request.name
        };
        state.members.values().find(same).cloned()
    }

    /// Returns once no pod has anything of the mesh left, at the latest after `limit`; says whether it is so.
    pub async fn cleared(&self, limit: Duration) -> bool {
        let members: Vec<Member> = self.lock().members.values().cloned().collect();
        let all = async {
            for mut member in members {
                let _ = member.progress.wait_for(|progress| progress.is_cleared).await;
            }
        };
        timeout(limit, all).await.is_ok()
    }
}
/// A probe of a pod; none if its port is no port.
fn probe(probe: &node::Probe) -> Option<Probe> {
    let sends = match probe.kind() {
        Kind::Tcp => Sends::Nothing,
        Kind::Http => Sends::Get { target: probe.target.clone(), host: probe.host.clone() },
        Kind::Tls => Sends::Tls,
        Kind::Http2 => Sends::Http2,
    };
    Some(Probe { port: u16::try_from(probe.port).ok()?, sends })
}
