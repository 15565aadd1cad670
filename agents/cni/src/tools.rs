//! What the parts of the agent act upon: redirection, the proxy, and where they report to.
//!
//! Invariant: clones act upon the same.

use std::{path::PathBuf, sync::Arc};

use crate::{kernel::KernelThread, metrics::Metrics, proxy::Proxy, reports::Reporter, roster::Roster};

/// What effects act upon.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Pods handed to the proxy.
    pub roster: Arc<Roster>,
    /// Redirection.
    pub kernel: KernelThread,
    /// The proxy.
    pub proxy: Proxy,
    /// What the operator is told.
    pub reporter: Reporter,
    /// What Prometheus is told.
    pub metrics: Metrics,
    /// Where processes are listed.
    pub proc: PathBuf,
}
