//! Finds the node's kubelet and admits its probes.
//!
//! Invariant: a kubelet that restarts in another cgroup is found within [`INTERVAL`], and no
//! process in a pod is mistaken for it.

use std::{convert::Infallible, path::PathBuf, time::Duration};

use ambit_netns::NetNs;

use crate::{
    Error,
    kernel::KernelThread,
    proc::{self, Process},
};

/// Interval of the search.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Name of the kubelet's program.
const NAME: &str = "kubelet";

/// Follows the kubelet until dropped.
pub(crate) async fn follow(kernel: KernelThread, root: PathBuf) -> Infallible {
    let mut followed: Option<Process> = None;
    let mut warned = false;
    loop {
        let path = root.clone();
        let found = tokio::task::spawn_blocking(move || find(&path)).await.ok().flatten();
        if let Some(process) = found
            && followed != found
        {
            let proc = root.clone();
            match kernel.call(move |kernel| kernel.pass_probes(process.pid, &proc)).await {
                Ok(cgroup) => {
                    tracing::info!(cgroup = %cgroup.display(), "Probes of the kubelet are admitted");
                    followed = found;
                }
                Err(error) if !std::mem::replace(&mut warned, true) => {
                    tracing::warn!(%error, "Probes of the kubelet are subject to policy as plaintext");
                }
                Err(_) => {}
            }
        } else if found.is_none() && !std::mem::replace(&mut warned, true) {
            tracing::warn!(
                "No kubelet of this node was found: its probes are subject to policy as plaintext"
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The kubelet that runs in the node's network namespace, which is also ours.
fn find(root: &std::path::Path) -> Option<Process> {
    let host = NetNs::current().ok()?;
    let all = proc::named(root, NAME).map_err(Error::io("list processes")).ok()?;
    let mut own = all.into_iter().filter(|process| proc::is_of_node(root, process.pid));
    own.find(|process| NetNs::of_pid(process.pid).is_ok_and(|netns| netns.same(&host)))
}
