//! Nodes of the test cluster, controlled from the host by `tests/kind/ctl.sh`.
//!
//! Invariant: only the cluster of `CLUSTER` is changed; other clusters have no such nodes, and the
//! call fails.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

const CTL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ctl.sh");

fn ctl(args: &[&str]) -> Result<String> {
    let output = Command::new(CTL).args(args).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("ctl.sh {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Restarts a node like a reboot: all processes, `/run` and bpffs are lost, the disk stays.
///
/// # Errors
/// When there is no such node.
pub fn restart(node: &str) -> Result<()> {
    ctl(&["restart", node]).map(|_| ())
}

/// Runs a shell command on a node.
///
/// # Errors
/// When the node is not running, or the command fails.
pub fn shell(node: &str, line: &str) -> Result<String> {
    ctl(&["in", node, "sh", "-c", line])
}
