//! The mesh as its user sees it: the `Mesh` object, enrolled pods, nodes.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{kubectl, wait};

/// Namespace of the mesh's own components.
pub const SYSTEM: &str = "ambit-system";
/// Label of a namespace or pod that enrolls it.
pub const MODE: &str = "istio.io/dataplane-mode";
/// Annotation of an enrolled pod.
const REDIRECTION: &str = "/metadata/annotations/ambient.istio.io~1redirection";
/// How long a rollout, an enrollment or a removal may take.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Status, reason and message of a condition of the Mesh.
///
/// # Errors
/// When there is no Mesh, or it lacks the condition.
pub fn condition(kind: &str) -> Result<(String, String, String)> {
    let mesh = kubectl::json(&["get", "meshes.ambit.dev", "default"])?;
    let conditions =
        mesh.pointer("/status/conditions").and_then(Value::as_array).context("no conditions yet")?;
    let found = conditions.iter().find(|condition| kubectl::text(condition, "/type") == kind);
    let found = found.with_context(|| format!("no condition {kind} yet"))?;
    let field = |name: &str| kubectl::text(found, name).to_owned();
    Ok((field("/status"), field("/reason"), field("/message")))
}

/// Waits until a condition of the Mesh has this status.
///
/// # Errors
/// After [`LIMIT`], with the current reason and message.
pub fn until_condition(kind: &str, status: &str) -> Result<Duration> {
    let (_, took) = wait::until(&format!("Mesh condition {kind}={status}"), LIMIT, || {
        let (is, reason, message) = condition(kind)?;
        if is == status { Ok(Some(())) } else { bail!("{kind} is {is}: {reason}: {message}") }
    })?;
    Ok(took)
}

/// The pods of a namespace, except those that are never enrolled, such as a waypoint's.
///
/// # Errors
/// When they cannot be listed.
pub fn pods(namespace: &str) -> Result<Vec<Value>> {
    kubectl::items(&["get", "pods", "-n", namespace, "-l", "istio.io/dataplane-mode!=none"])
}

/// Waits until every running pod of a namespace is enrolled, or none is.
///
/// # Errors
/// After [`LIMIT`], with the names of the other pods.
pub fn until_enrolled(namespace: &str, wanted: Enrolled) -> Result<(usize, Duration)> {
    wait::until(&format!("pods of {namespace} to be {wanted:?}"), LIMIT, || {
        let pods = pods(namespace)?;
        let running: Vec<&Value> =
            pods.iter().filter(|pod| kubectl::text(pod, "/status/phase") == "Running").collect();
        let is = |pod: &&&Value| (kubectl::text(pod, REDIRECTION) == "enabled") == (wanted == Enrolled::All);
        let others: Vec<&str> =
            running.iter().filter(|pod| !is(pod)).map(|pod| kubectl::text(pod, "/metadata/name")).collect();
        if others.is_empty() && !running.is_empty() {
            Ok(Some(running.len()))
        } else {
            bail!("not yet: {}", others.join(", "))
        }
    })
}

/// How many pods of a namespace should be enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// Every pod.
    All,
    /// No pod.
    None,
}

/// Labels a namespace; an empty value removes the label.
///
/// # Errors
/// When the API server rejects it.
pub fn label(namespace: &str, key: &str, value: &str) -> Result<()> {
    let label = if value.is_empty() { format!("{key}-") } else { format!("{key}={value}") };
    kubectl::run(&["label", "namespace", namespace, &label, "--overwrite"]).map(|_| ())
}

/// Names of the schedulable nodes, sorted.
///
/// # Errors
/// When they cannot be listed, or there are fewer than two.
pub fn nodes() -> Result<Vec<String>> {
    let nodes = kubectl::items(&["get", "nodes"])?;
    let schedulable = nodes.iter().filter(|node| node.pointer("/spec/taints").is_none());
    let mut names: Vec<String> =
        schedulable.map(|node| kubectl::text(node, "/metadata/name").to_owned()).collect();
    names.sort();
    if names.len() < 2 {
        bail!("two nodes that take pods are needed, found {names:?}");
    }
    Ok(names)
}

/// The name of the mesh's pod with this `app` label on a node.
///
/// # Errors
/// When there is none.
pub fn part_on(app: &str, node: &str) -> Result<String> {
    let selector = format!("app={app}");
    let field = format!("spec.nodeName={node}");
    let pods = kubectl::items(&["get", "pods", "-n", SYSTEM, "-l", &selector, "--field-selector", &field])?;
    let live = pods.iter().find(|pod| kubectl::text(pod, "/metadata/deletionTimestamp").is_empty());
    live.map(|pod| kubectl::text(pod, "/metadata/name").to_owned())
        .with_context(|| format!("no {app} on {node}"))
}

/// Applies the sample Mesh if there is none, and waits until the Mesh is ready. An existing Mesh is
/// not changed.
///
/// # Errors
/// After [`LIMIT`], with the reason why it is not ready.
pub fn require_ready() -> Result<()> {
    if kubectl::items(&["get", "meshes.ambit.dev"])?.is_empty() {
        kubectl::apply(include_str!("../../../config/samples/mesh.yaml"))?;
    }
    until_condition("Ready", "True").map(|_| ())
}

/// The trust domain of the Mesh.
///
/// # Errors
/// When there is no Mesh.
pub fn trust_domain() -> Result<String> {
    let mesh = kubectl::json(&["get", "meshes.ambit.dev", "default"])?;
    let domain = kubectl::text(&mesh, "/spec/trust/domain");
    ensure!(!domain.is_empty(), "the Mesh has no trust domain");
    Ok(domain.to_owned())
}

/// Creates a namespace with this value of the enrollment label (empty: no label), and waits until
/// pods can be created in it.
///
/// # Errors
/// When it has no service account within [`LIMIT`].
pub fn namespace(name: &str, mode: &str) -> Result<()> {
    let labels = if mode.is_empty() { String::new() } else { format!(", labels: {{{MODE}: {mode}}}") };
    kubectl::apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}{labels}}}}}"))?;
    wait::until(&format!("the service account of {name}"), LIMIT, || {
        kubectl::json(&["get", "serviceaccount", "-n", name, "default"]).map(Some)
    })?;
    Ok(())
}
