//! State shared by the tasks of one replica.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ambit_api::Mesh;
use ambit_index::Index;
use tokio::sync::watch;

use crate::ca::NodePods;

/// The Mesh, as last observed.
#[derive(Clone, Debug, Default)]
pub(crate) enum MeshState {
    /// Not observed yet.
    #[default]
    Unknown,
    /// There is no Mesh.
    Absent,
    /// There is a Mesh.
    Present(Arc<Mesh>),
}

/// Wakes all reconcilers; changes before a reconciler runs are merged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake(watch::Sender<()>);

impl Wake {
    /// Notifies all reconcilers.
    pub(crate) fn all(&self) {
        self.0.send_replace(());
    }

    /// A receiver for one reconciler.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

/// The model, written by one task and read by others.
#[derive(Clone, Debug)]
pub(crate) struct SharedIndex(Arc<RwLock<Index>>);

impl SharedIndex {
    /// Shares an index.
    pub(crate) fn new(index: Index) -> Self {
        Self(Arc::new(RwLock::new(index)))
    }

    /// Lookup of pods, for issuing and for reports.
    pub(crate) fn pods(&self) -> Arc<dyn NodePods> {
        self.0.clone()
    }

    /// Read access; hold it only briefly.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Write access, for the index task only.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
