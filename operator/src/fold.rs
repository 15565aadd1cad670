//! The one task that writes the index: folds what watches saw, then publishes what changed.
//!
//! Invariant: nothing is published before every kind and the Mesh were listed once, so that no agent ever hears a
//! partial state.

use std::{collections::BTreeSet, sync::Arc};

use ambit_index::{Changes, Kind};
use ambit_runtime::Blocker;
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    discovery::Feeds,
    mesh::settings::settings,
    publish,
    state::{MeshState, SharedIndex, Wake},
    watches::{KINDS, SEEN_MAX, Seen},
};

/// What the task writes to.
pub struct Fold {
    /// The model.
    pub index: SharedIndex,
    /// What agents read.
    pub feeds: Arc<Feeds>,
    /// The Mesh, for who reconciles it.
    pub mesh: watch::Sender<MeshState>,
    /// Something changed that status speaks of.
    pub wake: Wake,
    /// A policy may need another status.
    pub policy_status: Arc<Notify>,
}

impl Fold {
    /// Folds until the watches are gone; `blocker` goes when the first complete state is published.
    pub async fn run(self, mut seen: mpsc::Receiver<Seen>, blocker: Blocker) {
        let mut unlisted: BTreeSet<Kind> = KINDS.into_iter().collect();
        let mut blocker = Some(blocker);
        let mut batch = Vec::new();
        while seen.recv_many(&mut batch, SEEN_MAX).await > 0 {
            let changes = self.fold(batch.drain(..), &mut unlisted);
            let is_complete = unlisted.is_empty() && !matches!(*self.mesh.borrow(), MeshState::Unknown);
            let index = self.index.read();
            if !is_complete {
                continue;
            }
            if let Some(blocker) = blocker.take() {
                publish::all(&index, &self.feeds);
                drop(blocker);
                tracing::info!(
                    workloads = index.workloads().count(),
                    "The first complete state is published"
                );
                self.policy_status.notify_one();
            } else if !changes.is_empty() {
                publish::changes(&index, &changes, &self.feeds);
            }
            drop(index);
            if changes.policy_status {
                self.policy_status.notify_one();
            }
            if !changes.is_empty() {
                self.wake.all();
            }
        }
    }

    fn fold(&self, batch: impl Iterator<Item = Seen>, unlisted: &mut BTreeSet<Kind>) -> Changes {
        let mut index = self.index.write();
        let mut changes = Changes::default();
        for seen in batch {
            changes.merge(match seen {
                Seen::Apply(object) => index.apply(object),
                Seen::Delete(key) => index.delete(&key),
                Seen::Listed(kind, names) => {
                    unlisted.remove(&kind);
                    index.retain(kind, &names)
                }
                Seen::FailurePolicies(_) => Changes::default(),
                Seen::Mesh(mesh) => {
                    let changes = index.configure(settings(mesh.as_deref()));
                    self.mesh.send_replace(mesh.map_or(MeshState::Absent, MeshState::Present));
                    changes
                }
            });
        }
        changes
    }
}
