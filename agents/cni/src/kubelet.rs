//! Finds the kubelet of this node and lets its probes through.
//!
//! Invariant: a kubelet that restarts in another cgroup is followed within [`INTERVAL`].

use std::{convert::Infallible, path::PathBuf, time::Duration};

use ambit_netns::NetNs;

use crate::{
    Error,
    kernel::KernelThread,
    proc::{self, Process},
};

/// How often it is looked for.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Name of its program.
const NAME: &str = "kubelet";

/// Follows the kubelet until dropped.
pub async fn follow(kernel: KernelThread, root: PathBuf) -> Infallible {
    let mut followed: Option<Process> = None;
    let mut warned = false;
    loop {
        let path = root.clone();
        let found = tokio::task::spawn_blocking(move || find(&path)).await.ok().flatten();
        if let Some(process) = found
            && followed != found
        {
            match kernel.call(move |kernel| kernel.pass_probes(process.pid)).await {
                Ok(cgroup) => {
                    tracing::info!(cgroup = %cgroup.display(), "Probes of the kubelet pass");
                    followed = found;
                }
                Err(error) => tracing::warn!(%error, "Probes of the kubelet do not pass"),
            }
        } else if found.is_none() && !std::mem::replace(&mut warned, true) {
            tracing::warn!(
                "No kubelet runs in this network namespace: its probes are not told from other traffic"
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The kubelet whose network is the node's, which is ours.
fn find(root: &std::path::Path) -> Option<Process> {
    let host = NetNs::current().ok()?;
    let all = proc::named(root, NAME).map_err(Error::io("list processes")).ok()?;
    all.into_iter().find(|process| NetNs::of_pid(process.pid).is_ok_and(|netns| netns.same(&host)))
}
