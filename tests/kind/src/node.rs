//! Nodes of the test cluster from the machine that carries them: `tests/kind/ctl.sh`.
//!
//! Invariant: only the cluster of `CLUSTER` is touched; a cluster of another kind has no such nodes, and the call fails.

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

/// Restarts a node as a reboot does: every process, `/run` and bpffs are gone, the disk stays.
///
/// # Errors
/// When there is no such node.
pub fn restart(node: &str) -> Result<()> {
    ctl(&["restart", node]).map(|_| ())
}

/// Runs a shell line inside a node.
///
/// # Errors
/// When the node does not run, or the line fails.
pub fn shell(node: &str, line: &str) -> Result<String> {
    ctl(&["in", node, "sh", "-c", line])
}
