//! Inspection of the nodes: a privileged pod on each, with access to the node's processes and
//! files.
//!
//! Invariant: it kills only processes of the requested pods, found by the pod's uid in their
//! cgroup.

use anyhow::{Result, bail};

use crate::{capture::NAMESPACE, kubectl, mesh};

/// Starts an inspector on every node and waits for it.
///
/// # Errors
/// When they do not start.
pub fn start() -> Result<()> {
    kubectl::apply(MANIFEST)?;
    kubectl::run(&["rollout", "status", "-n", NAMESPACE, "daemonset/inspector", "--timeout=60s"]).map(|_| ())
}

/// Runs a shell command on a node, with its processes, its network, and its files below `/host`.
///
/// # Errors
/// When it fails, with its output.
pub fn shell(node: &str, line: &str) -> Result<String> {
    let field = format!("spec.nodeName={node}");
    let pods =
        kubectl::items(&["get", "pods", "-n", NAMESPACE, "-l", "app=inspector", "--field-selector", &field])?;
    let Some(pod) = pods.first() else { bail!("no inspector on {node}") };
    let (ok, text) =
        kubectl::exec(NAMESPACE, kubectl::text(pod, "/metadata/name"), &["/bin/sh", "-c", line])?;
    if ok { Ok(text) } else { bail!("on {node}: {line}: {text}") }
}

/// Kills the processes of an app on a node, as a crash would.
///
/// # Errors
/// When there is no such app, or no such process.
pub fn crash(app: &str, node: &str) -> Result<()> {
    let name = mesh::part_on(app, node)?;
    let pod = kubectl::json(&["get", "pod", "-n", mesh::SYSTEM, &name])?;
    let uid = kubectl::text(&pod, "/metadata/uid");
    let line = format!(
        "found=; for p in /proc/[0-9]*; do if grep -q 'pod{uid}' $p/cgroup 2>/dev/null && grep -q '^ambit-' $p/comm; \
         then kill -9 ${{p#/proc/}} && found=1; fi; done; [ -n \"$found\" ]"
    );
    shell(node, &line).map(|_| ())
}

/// What the mesh has left on a node, one line each; empty when nothing is left.
///
/// # Errors
/// When the node cannot be inspected.
pub fn traces(node: &str) -> Result<Vec<String>> {
    let found = shell(node, TRACES)?;
    Ok(found.lines().map(str::to_owned).filter(|line| !line.trim().is_empty()).collect())
}

/// Searches every place where the mesh could leave something. Empty directories that the kubelet
/// created for a hostPath may stay.
const TRACES: &str = r"
for f in /host/sys/fs/bpf/ambit /host/opt/cni/bin/ambit-cni; do [ ! -e $f ] || echo file $f; done
find /host/run/ambit /host/var/lib/ambit ! -type d 2>/dev/null | sed 's/^/file /'
grep -l ambit-cni /host/etc/cni/net.d/* 2>/dev/null | sed 's/^/conflist /'
for n in /host/run/netns/*; do
  nsenter --net=$n ip rule 2>/dev/null | grep 0x111 | sed s,^,rule\ $n\ ,
  nsenter --net=$n ip route show table 100 2>/dev/null | sed s,^,route\ $n\ ,
done
true
";

const MANIFEST: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: ambit-observer, labels: {pod-security.kubernetes.io/enforce: privileged}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: inspector, namespace: ambit-observer}
spec:
  selector: {matchLabels: {app: inspector}}
  template:
    metadata: {labels: {app: inspector}}
    spec:
      hostNetwork: true
      hostPID: true
      terminationGracePeriodSeconds: 0
      tolerations: [{operator: Exists}]
      containers:
      - name: inspector
        image: localhost/ambit-box:dev
        imagePullPolicy: IfNotPresent
        command: [/bin/sleep, '1000000']
        securityContext: {privileged: true}
        volumeMounts: [{name: host, mountPath: /host, mountPropagation: HostToContainer}]
      volumes: [{name: host, hostPath: {path: /}}]
";
