//! The pods of this node: the operator's description of each, and its driver.
//!
//! Invariant: every pod that the operator describes, or that an earlier agent left attached, has
//! exactly one driver.

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
        driver::{Channels, Driver, Progress},
        effects::Effects,
        pod::{Inbound, Intent, Pod, Sandbox},
        stage::{Position, Wanted},
    },
    plugin::protocol::{Enrolled, Request},
    tools::Tools,
};

/// What the operator wants of the node as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// Serve the mesh.
    #[default]
    Serve,
    /// Leave the mesh without a trace.
    Leave,
}

/// What an earlier agent left on the node.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Uids of pods that are attached.
    pub attached: Vec<String>,
    /// Whether only the agent or the whole node has restarted.
    pub start: Start,
}

/// What has restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Only the agent; the node has been running, or never had an agent.
    #[default]
    OfAgent,
    /// The whole node: the kernel state of the last agent is gone, but its files are left.
    OfNode,
}

impl Start {
    /// Determined from the pins, which are lost at a reboot, and the state file, which is not.
    pub fn of(pins: &Path, state_file: &Path) -> Self {
        let has_pins = std::fs::read_dir(pins).is_ok_and(|mut entries| entries.next().is_some());
        if !has_pins && state_file.exists() { Self::OfNode } else { Self::OfAgent }
    }
}

/// The agent's channels to the driver of one pod.
#[derive(Clone, Debug)]
pub struct Member {
    /// The wanted state.
    pub intent: watch::Sender<Intent>,
    /// Sends the network that CNI created.
    pub sandbox: watch::Sender<Option<Sandbox>>,
    /// The progress of the driver.
    pub progress: watch::Receiver<Progress>,
}

/// All pods of the node.
#[derive(Clone, Debug)]
pub struct Node(Arc<NodeInner>);

#[derive(Debug)]
struct NodeInner {
    tools: Tools,
    runtime: Handle,
    state_file: PathBuf,
    state: Mutex<NodeState>,
    /// Locked while the state file is written, so that the newest state is written last.
    writing: Mutex<()>,
    /// The operator's stream is open and has sent its initial state.
    operator_connected: AtomicBool,
    changed: watch::Sender<u64>,
    duty: watch::Sender<Duty>,
}

#[derive(Debug, Default)]
struct NodeState {
    members: BTreeMap<String, Member>,
    /// Attached by an earlier agent and not described by the operator yet.
    inherited: BTreeSet<String>,
    enrolled: Enrolled,
    /// The node has rebooted since the last agent ran: pods of these that are already running must
    /// have their connections closed.
    restarted: Option<Enrolled>,
    /// The mesh has left the node: this process writes no more state, even if the mesh returns. Its
    /// successor finds neither file nor pins and starts as on a new node.
    has_left: bool,
    /// The operator has described every pod of the node, so the file's information about others is
    /// obsolete.
    is_complete: bool,
}

impl NodeState {
    /// Which pods may start only when enrolled, as far as this is known now.
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
    /// A node with the leftovers `past` of an earlier agent.
    pub fn new(tools: Tools, state_file: PathBuf, past: Past) -> Self {
        let enrolled = Enrolled::read(&state_file);
        let state = NodeState {
            restarted: (past.start == Start::OfNode).then(|| enrolled.clone()),
            enrolled,
            inherited: past.attached.into_iter().collect(),
            ..NodeState::default()
        };
        Self(Arc::new(NodeInner {
            tools,
            runtime: Handle::current(),
            state_file,
            state: Mutex::new(state),
            writing: Mutex::new(()),
            operator_connected: AtomicBool::new(false),
            changed: watch::channel(0).0,
            duty: watch::channel(Duty::Serve).0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, NodeState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the operator wants of the node, as a channel of changes.
    pub fn duty(&self) -> watch::Receiver<Duty> {
        self.0.duty.subscribe()
    }

    /// Applies the operator's description of a pod.
    ///
    /// # Errors
    /// The field that is invalid.
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
        let ips =
            enrollment.ips.iter().map(|ip| ip.parse().map_err(|_| format!("{ip:?} is not an IP address")));
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
        let channels = Channels { intent: intents, sandbox: sandboxes, progress };
        let driver = Driver::new(channels, Effects::new(self.0.tools.clone()), at);
        driver.announce();
        self.0.runtime.spawn(driver.run());
        Member { intent, sandbox, progress: progresses }
    }

    /// Handles the deletion of a pod.
    pub fn remove(&self, uid: &str) {
        let mut state = self.lock();
        state.members.retain(|_, member| !member.intent.is_closed());
        let Some(member) = state.members.get(uid) else { return };
        // Its driver stays until the last process has ended, and continues if the pod is described
        // again before that.
        member.intent.send_modify(|intent| intent.wanted = Wanted::Gone);
    }

    /// Applies the operator's description of the node.
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

    /// Writes the state file: which pods may start only when enrolled, for the time when no agent
    /// runs. Writes nothing once the mesh has left the node.
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
            tracing::error!(%path, %error, "The state file of enrolled pods cannot be written");
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

    /// The operator has described every pod of the node: other pods that an earlier agent attached
    /// were deleted.
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
            // A driver ends when its channels are dropped; this keeps them until the pod's
            // processes have ended.
            self.0.runtime.spawn(async move {
                let mut progress = member.progress.clone();
                let _ = progress.wait_for(|progress| progress.is_cleared).await;
                drop(member);
            });
        }
    }

    /// Whether a pod may start only when enrolled, according to the operator, now or in the state
    /// file.
    pub fn holds(&self, request: &Request) -> bool {
        self.lock().enrolled.holds(&request.namespace, &request.uid)
    }

    /// Whether the operator is connected, so that it can be expected to describe a new pod.
    pub fn is_operator_connected(&self) -> bool {
        self.0.operator_connected.load(Ordering::Relaxed)
    }

    /// Sets whether the operator's stream is up.
    pub fn set_operator_connected(&self, operator_connected: bool) {
        self.0.operator_connected.store(operator_connected, Ordering::Relaxed);
    }

    /// Waits up to `limit` until the operator has described the pod of this request.
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

    /// Waits up to `limit` until nothing of the mesh is left in any pod. Returns whether that is
    /// the case.
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
/// Converts a probe; `None` if its port is out of range.
fn probe(probe: &node::Probe) -> Option<Probe> {
    let sends = match probe.kind() {
        Kind::Tcp => Sends::Nothing,
        Kind::Http => Sends::Get { target: probe.target.clone(), host: probe.host.clone() },
        Kind::Tls => Sends::Tls,
        Kind::Http2 => Sends::Http2,
    };
    Some(Probe { port: u16::try_from(probe.port).ok()?, sends })
}
