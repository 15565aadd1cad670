//! Packet capture between the nodes, in a privileged pod on the node's network.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{kubectl, wait};

/// Duration of a capture in seconds.
const SECONDS: u64 = 4;
/// How long creating its pod may take, and then starting its process.
const LISTENS: Duration = Duration::from_secs(30);

/// The result of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// TCP packets whose payload contains the marker.
    pub marker: u64,
    /// TCP packets from or to port 15008.
    pub hbone: u64,
    /// Payloads that start with a TLS record.
    pub tls: u64,
}

/// Captures on the interface of `node` for some seconds while traffic flows, and looks for
/// `marker`.
///
/// # Errors
/// When the pod cannot run or prints something else.
pub fn on(node: &str, marker: &str) -> Result<Seen> {
    let capture = start(node, marker, SECONDS)?;
    capture.seen()
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    name: String,
    seconds: u64,
}

/// Starts a capture of at most `seconds`, and waits until it is capturing.
///
/// # Errors
/// When the pod cannot run.
pub fn start(node: &str, marker: &str, seconds: u64) -> Result<Capture> {
    let name = format!("capture-{node}");
    kubectl::run(&[
        "delete",
        "pod",
        "-n",
        NAMESPACE,
        &name,
        "--ignore-not-found",
        "--grace-period=0",
        "--force",
    ])?;
    // A namespace that was just created has no service account yet and accepts no pod.
    wait::until("the capture's pod to be taken", LISTENS, || {
        kubectl::apply(&manifest(&name, node, marker, seconds)).map(Some)
    })?;
    let capture = Capture { name, seconds };
    capture.until(&["Running", "Succeeded", "Failed"])?;
    wait::until("the capture to listen", LISTENS, || {
        let log = kubectl::run(&["logs", "-n", NAMESPACE, &capture.name])?;
        Ok(log.contains("capturing on").then_some(()))
    })?;
    Ok(capture)
}

impl Capture {
    fn until(&self, phases: &[&str]) -> Result<()> {
        let limit = Duration::from_secs(self.seconds + 60);
        let (seen, _) = wait::until("the capture", limit, || {
            let pod = kubectl::json(&["get", "pod", "-n", NAMESPACE, &self.name])?;
            Ok(phases.contains(&kubectl::text(&pod, "/status/phase")).then_some(()))
        })?;
        Ok(seen)
    }

    /// Ends the capture, and returns what it has seen.
    ///
    /// # Errors
    /// When it has already ended, or as [`Self::seen`].
    pub fn end(&self) -> Result<Seen> {
        let (ended, said) = kubectl::exec(NAMESPACE, &self.name, &["/bin/kill", "-TERM", "1"])?;
        ensure!(ended, "the capture listened for less than was asked about: {}", said.trim());
        self.seen()
    }

    /// What it has seen, once it has ended.
    ///
    /// # Errors
    /// When it lost packets or printed something else.
    pub fn seen(&self) -> Result<Seen> {
        self.until(&["Succeeded", "Failed"])?;
        read(&kubectl::run(&["logs", "-n", NAMESPACE, &self.name])?)
    }
}

fn read(log: &str) -> Result<Seen> {
    let line = log.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = line.with_context(|| format!("the capture printed {log:?}"))?;
    let number =
        |name: &str| line.get(name).and_then(Value::as_u64).with_context(|| format!("no {name} in {line}"));
    // A capture that lost packets cannot prove that something is absent.
    ensure!(number("dropped")? == 0, "the capture dropped packets: {line}");
    Ok(Seen { marker: number("marker")?, hbone: number("port")?, tls: number("tls")? })
}

/// Captures until the marker is no longer readable: connections opened before a change continue as
/// they were.
///
/// # Errors
/// When it is still readable after `limit`, with the last result.
pub fn until_hidden(node: &str, marker: &str, limit: Duration) -> Result<Seen> {
    let (seen, _) = wait::until("the marker to be unreadable", limit, || {
        let seen = on(node, marker)?;
        ensure!(seen.marker == 0 && seen.hbone > 0 && seen.tls > 0, "{seen:?}");
        Ok(Some(seen))
    })?;
    Ok(seen)
}

/// Namespace of the captures.
pub const NAMESPACE: &str = "ambit-observer";

fn manifest(name: &str, node: &str, marker: &str, seconds: u64) -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}, labels: {{pod-security.kubernetes.io/enforce: privileged}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  nodeName: {node}
  hostNetwork: true
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
  containers:
  - name: capture
    image: localhost/ambit-box:dev
    imagePullPolicy: IfNotPresent
    command: [/bin/shop, capture, --iface, eth0, --port, "15008", --marker, "{marker}", --seconds, "{seconds}"]
    securityContext: {{privileged: true}}
"#
    )
}
