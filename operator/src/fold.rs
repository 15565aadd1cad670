//! The only task that writes the index: applies what watches receive, then publishes what changed.
//!
//! Invariant: nothing is published before every kind and the Mesh were listed once, so that no
//! agent receives a partial state.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ambit_index::{Changes, Kind, Presence};
use ambit_runtime::Blocker;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    discovery::Feeds,
    jwks::schedule::Wanted,
    publish,
    spec::settings::settings,
    state::{MeshState, SharedIndex, Wake},
    watches::{KINDS, SEEN_MAX, Seen},
};

/// How long proxies get to receive one step before the next is taken.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
/// How long to wait for key sets and failure policies before the first complete state is published.
const ANSWERS_TIME_MAX: Duration = Duration::from_secs(10);
/// Steps within this time are settled together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Inputs and outputs of the task.
pub(crate) struct Fold {
    /// The model.
    pub index: SharedIndex,
    /// The feeds of agents.
    pub feeds: Arc<Feeds>,
    /// The Mesh, for the reconcilers.
    pub mesh: watch::Sender<MeshState>,
    /// Wakes the reconcilers.
    pub wake: Wake,
    /// Wakes the writer of statuses.
    pub status: Arc<Notify>,
    /// Key sets to be fetched.
    pub jwks: watch::Sender<Wanted>,
}

impl Fold {
    /// Runs until the watches end; `blocker` is dropped when the first complete state is published.
    pub(crate) async fn run(self, mut seen: mpsc::Receiver<Seen>, blocker: Blocker) {
        let mut blocker = Some(blocker);
        let (mut opening, mut steps, mut batch) = (Opening::default(), Steps::default(), Vec::new());
        loop {
            let due = if blocker.is_some() { opening.by } else { steps.due() };
            let changes = tokio::select! {
                received = seen.recv_many(&mut batch, SEEN_MAX) => {
                    if received == 0 {
                        return;
                    }
                    self.fold(batch.drain(..), &mut opening)
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    steps.take(Instant::now()).map(|step| self.index.write().settle(step)).unwrap_or_default()
                }
            };
            if blocker.is_some() {
                if self.is_complete(&mut opening) {
                    blocker = None;
                    self.begin();
                }
                continue;
            }
            if !changes.is_empty() {
                publish::changes(&self.index.read(), &changes, &self.feeds);
            }
            // The time starts now, when the step is published.
            if let Some(step) = changes.settling {
                steps.add(step, Instant::now());
            }
            self.notify(&changes);
        }
    }

    /// Whether everything was listed, and every key set and Gateway has its result. A new replica
    /// must not publish that an issuer has no keys, nor open what a Gateway wants closed, only
    /// because it has not fetched yet.
    fn is_complete(&self, opening: &mut Opening) -> bool {
        if !opening.unlisted.is_empty() || matches!(*self.mesh.borrow(), MeshState::Unknown) {
            return false;
        }
        let (wanted, asks_gateways) = {
            let index = self.index.read();
            // Nothing fetches them if there is no Mesh, or it is being deleted.
            let is_present = index.settings().presence == Presence::Present;
            (index.key_set_uris(), is_present && index.waypoints().next().is_some())
        };
        let now = Instant::now();
        let by = *opening.by.get_or_insert(now + ANSWERS_TIME_MAX);
        let is_answered = wanted.keys().all(|address| opening.answered.contains(address))
            && (opening.policies_said || !asks_gateways);
        self.jwks.send_if_modified(|known| {
            let is_new = *known != wanted;
            *known = wanted;
            is_new
        });
        is_answered || now >= by
    }

    /// Publishes the first complete state at once; from now on steps take their time.
    fn begin(&self) {
        self.index.write().serve();
        // Only this task writes to the index, so the read lock is enough, and other readers need not wait.
        let index = self.index.read();
        publish::all(&index, &self.feeds);
        tracing::info!(workloads = index.workloads().count(), "The first complete state is published");
        drop(index);
        self.status.notify_one();
        self.wake.all();
    }

    /// Notifies the tasks that depend on what changed.
    fn notify(&self, changes: &Changes) {
        if changes.policy_status || changes.route_status {
            self.status.notify_one();
        }
        if changes.key_set_uris {
            self.jwks.send_replace(self.index.read().key_set_uris());
        }
        if !changes.is_empty() {
            self.wake.all();
        }
    }

    fn fold(&self, batch: impl Iterator<Item = Seen>, opening: &mut Opening) -> Changes {
        let mut index = self.index.write();
        let mut changes = Changes::default();
        for seen in batch {
            changes.merge(match seen {
                Seen::Apply(object) => index.apply(object),
                Seen::Delete(key) => index.delete(&key),
                Seen::Listed(kind, names) => {
                    opening.unlisted.remove(&kind);
                    index.retain(kind, &names)
                }
                Seen::Mesh(mesh) => {
                    let changes = index.configure(settings(mesh.as_deref()));
                    self.mesh.send_replace(mesh.map_or(MeshState::Absent, MeshState::Present));
                    changes
                }
                Seen::FailurePolicy(waypoint, policy) => index.set_failure_policy(&waypoint, policy),
                Seen::FailurePoliciesSaid => {
                    opening.policies_said = true;
                    Changes::default()
                }
                Seen::KeySet(address, fetched) => {
                    opening.answered.insert(address.clone());
                    index.set_key_set(&address, fetched)
                }
            });
        }
        changes
    }
}

/// What must be known before the first publication.
#[derive(Debug)]
struct Opening {
    unlisted: BTreeSet<Kind>,
    /// URIs of key sets that were fetched, or failed.
    answered: BTreeSet<Arc<str>>,
    /// The failure policies of all Gateways are known.
    policies_said: bool,
    /// When to stop waiting for results.
    by: Option<Instant>,
}

impl Default for Opening {
    fn default() -> Self {
        let unlisted = KINDS.into_iter().collect();
        Self { unlisted, answered: BTreeSet::new(), policies_said: false, by: None }
    }
}

/// Steps of services to waypoints, and when each is settled.
#[derive(Debug, Default)]
struct Steps {
    waiting: VecDeque<Step>,
    newest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    first: Instant,
    last: Instant,
    number: u64,
}

impl Steps {
    /// The index reports a step until it is settled; only the first report counts.
    fn add(&mut self, number: u64, now: Instant) {
        if number <= self.newest {
            return;
        }
        self.newest = number;
        match self.waiting.back_mut().filter(|step| now.duration_since(step.first) < TOGETHER) {
            Some(step) => (step.last, step.number) = (now, number),
            None => self.waiting.push_back(Step { first: now, last: now, number }),
        }
    }

    fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|step| step.last + SETTLE)
    }

    fn take(&mut self, now: Instant) -> Option<u64> {
        self.due().filter(|due| *due <= now)?;
        self.waiting.pop_front().map(|step| step.number)
    }
}

#[cfg(test)]
mod tests;
