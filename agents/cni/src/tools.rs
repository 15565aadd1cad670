//! What the parts of the agent act upon: redirection, the proxy, and where they report to.
//!
//! Invariant: clones act upon the same.

use std::{path::PathBuf, sync::Arc};

use crate::{kernel::KernelThread, metrics::Metrics, proxy::Proxy, reports::Reporter, roster::Roster};

/// What effects operate on.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Pods to pass to the proxy.
    pub roster: Arc<Roster>,
    /// Redirection.
    pub kernel: KernelThread,
    /// The connection to the proxy.
    pub proxy: Proxy,
    /// Reports to the operator.
    pub reporter: Reporter,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// The `/proc` directory.
    pub proc: PathBuf,
}
