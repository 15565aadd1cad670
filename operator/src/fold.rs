//! The one task that writes the index: folds what watches saw, then publishes what changed.
//!
//! Invariant: nothing is published before every kind and the Mesh were listed once, so that no agent ever hears a
//! partial state.

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

/// How long everybody needs to hear of one step before the next is taken.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
/// How long key sets and failure policies are waited for before the first complete state is published.
const ANSWERS_TIME_MAX: Duration = Duration::from_secs(10);
/// Steps that come together settle together.
const TOGETHER: Duration = Duration::from_millis(100);

/// What the task writes to.
pub(crate) struct Fold {
    /// The model.
    pub index: SharedIndex,
    /// What agents read.
    pub feeds: Arc<Feeds>,
    /// The Mesh, for who reconciles it.
    pub mesh: watch::Sender<MeshState>,
    /// Something changed that status speaks of.
    pub wake: Wake,
    /// An object may need another status.
    pub status: Arc<Notify>,
    /// Where key sets are to be fetched.
    pub jwks: watch::Sender<Wanted>,
}

impl Fold {
    /// Folds until the watches are gone; `blocker` goes when the first complete state is published.
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
            // Counted from when everybody is being told.
            if let Some(step) = changes.settling {
                steps.add(step, Instant::now());
            }
            self.tell(&changes);
        }
    }

    /// Whether everything was listed, and every key set and Gateway answered for: a replica that starts must not tell
    /// waypoints that an issuer has no keys, nor open what a Gateway of its own wants closed, only because it did not ask
    /// yet.
    fn is_complete(&self, opening: &mut Opening) -> bool {
        if !opening.unlisted.is_empty() || matches!(*self.mesh.borrow(), MeshState::Unknown) {
            return false;
        }
        let (wanted, asks_gateways) = {
            let index = self.index.read();
            // Nobody asks them for a Mesh that is not there to stay.
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

    /// The first complete state: what it says is so at once, and from now on every step takes its time.
    fn begin(&self) {
        let mut index = self.index.write();
        index.serve();
        publish::all(&index, &self.feeds);
        tracing::info!(workloads = index.workloads().count(), "The first complete state is published");
        self.status.notify_one();
        self.wake.all();
    }

    /// Wakes whoever has something to do about what changed.
    fn tell(&self, changes: &Changes) {
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

/// What must be known before anything is published.
#[derive(Debug)]
struct Opening {
    unlisted: BTreeSet<Kind>,
    /// Addresses of key sets that answered, or did not.
    answered: BTreeSet<Arc<str>>,
    /// Every Gateway's own failure policy is known.
    policies_said: bool,
    /// When answers are no longer waited for.
    by: Option<Instant>,
}

impl Default for Opening {
    fn default() -> Self {
        let unlisted = KINDS.into_iter().collect();
        Self { unlisted, answered: BTreeSet::new(), policies_said: false, by: None }
    }
}

/// Steps of services on their way to waypoints, and when everybody has heard of them.
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
    /// The index names a step until it is settled; only its first naming counts.
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
