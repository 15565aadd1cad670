//! What tasks of one replica share.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ambit_api::Mesh;
use ambit_index::Index;
use tokio::sync::watch;

use crate::ca::NodePods;

/// The Mesh, as last seen.
#[derive(Clone, Debug, Default)]
pub(crate) enum MeshState {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// There is one.
    Present(Arc<Mesh>),
}

/// Wakes every task that reconciles; changes that come before a task looks are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake(watch::Sender<()>);

impl Wake {
    /// Something changed.
    pub(crate) fn all(&self) {
        self.0.send_replace(());
    }

    /// For a task that reconciles.
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

    /// Where pods are bound, for who issues and who takes reports.
    pub(crate) fn pods(&self) -> Arc<dyn NodePods> {
        self.0.clone()
    }

    /// For reading; hold it for a moment only.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the one task that folds objects in.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
