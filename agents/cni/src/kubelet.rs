//! Finds the kubelet of this node and lets its probes through.
//!
//! Invariant: a kubelet that restarts in another cgroup is followed within [`INTERVAL`], and nothing that runs in a
//! pod is taken for one.

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
            let proc = root.clone();
            match kernel.call(move |kernel| kernel.pass_probes(process.pid, &proc)).await {
                Ok(cgroup) => {
                    tracing::info!(cgroup = %cgroup.display(), "Probes of the kubelet pass");
                    followed = found;
                }
                Err(error) if !std::mem::replace(&mut warned, true) => {
                    tracing::warn!(%error, "Probes of the kubelet are judged as plaintext");
                }
                Err(_) => {}
            }
        } else if found.is_none() && !std::mem::replace(&mut warned, true) {
            tracing::warn!("No kubelet of this node was found: its probes are judged as plaintext");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The kubelet whose network is the node's, which is ours.
fn find(root: &std::path::Path) -> Option<Process> {
    let host = NetNs::current().ok()?;
    let all = proc::named(root, NAME).map_err(Error::io("list processes")).ok()?;
    let mut own = all.into_iter().filter(|process| proc::is_of_node(root, process.pid));
    own.find(|process| NetNs::of_pid(process.pid).is_ok_and(|netns| netns.same(&host)))
}
