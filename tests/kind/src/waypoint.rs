//! Waypoints as their user sees them: the label, the Gateway, bound services, and the status of
//! routes and policies.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{kubectl, mesh, wait};

/// Label of a namespace, Service or pod that requests a waypoint.
pub const LABEL: &str = "istio.io/use-waypoint";
/// Name of the waypoint in tests; the operator creates its Gateway.
pub const NAME: &str = "waypoint";
/// Selector for the pods of that waypoint.
pub const PODS: &str = "gateway.networking.k8s.io/gateway-name=waypoint";
/// Condition type of a Service.
const BOUND: &str = "istio.io/WaypointBound";
/// How soon a route or policy must take effect.
pub const APPLIED: Duration = Duration::from_secs(20);

/// Opts a namespace in and waits until its Services are bound.
///
/// # Errors
/// When they are not within [`mesh::LIMIT`].
pub fn opt_in(namespace: &str) -> Result<Duration> {
    mesh::label(namespace, LABEL, NAME)?;
    until_programmed(namespace)?;
    until_bound(namespace, Bound::All)
}

/// Opts it out again and waits until nothing is bound; the Gateway stays until it is deleted.
///
/// # Errors
/// When Services stay bound.
pub fn opt_out(namespace: &str) -> Result<Duration> {
    mesh::label(namespace, LABEL, "")?;
    until_bound(namespace, Bound::None)
}

/// Waits until the waypoint of a namespace exists and is ready.
///
/// # Errors
/// After [`mesh::LIMIT`], with the Gateway's status.
pub fn until_programmed(namespace: &str) -> Result<Duration> {
    let (_, took) = wait::until(&format!("Gateway {namespace}/{NAME}"), mesh::LIMIT, || {
        let gateway = kubectl::json(&["get", "gateways.gateway.networking.k8s.io", "-n", namespace, NAME])?;
        let condition = condition(&gateway, "/status/conditions", "Programmed").context("no status yet")?;
        ensure!(condition.status == "True", "{condition:?}");
        Ok(Some(()))
    })?;
    Ok(took)
}

/// How many Services of a namespace are bound to a waypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Every Service.
    All,
    /// No Service.
    None,
}

/// Waits until the status of every Service of a namespace is bound, or none is.
///
/// # Errors
/// After [`mesh::LIMIT`], with the names of the others.
pub fn until_bound(namespace: &str, wanted: Bound) -> Result<Duration> {
    let (_, took) = wait::until(&format!("bound Services of {namespace}: {wanted:?}"), mesh::LIMIT, || {
        let services = kubectl::items(&["get", "services", "-n", namespace])?;
        let own = |service: &&Value| kubectl::text(service, "/metadata/name") != NAME;
        let is = |service: &Value| {
            condition(service, "/status/conditions", BOUND).is_some_and(|bound| bound.status == "True")
        };
        let others: Vec<&str> = services
            .iter()
            .filter(own)
            .filter(|service| is(service) != (wanted == Bound::All))
            .map(|service| kubectl::text(service, "/metadata/name"))
            .collect();
        ensure!(others.is_empty(), "not yet: {}", others.join(", "));
        Ok(Some(()))
    })?;
    Ok(took)
}

/// A condition of any object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// True, False or Unknown.
    pub status: String,
    /// CamelCase reason.
    pub reason: String,
    /// Human-readable message.
    pub message: String,
}

/// A condition in the list at `pointer`.
pub fn condition(object: &Value, pointer: &str, kind: &str) -> Option<Condition> {
    let list = object.pointer(pointer)?.as_array()?;
    let found = list.iter().find(|condition| kubectl::text(condition, "/type") == kind)?;
    let field = |name: &str| kubectl::text(found, name).to_owned();
    Some(Condition { status: field("/status"), reason: field("/reason"), message: field("/message") })
}

/// Waits until a route has this condition for its first parent.
///
/// # Errors
/// After [`APPLIED`], with the actual condition.
pub fn until_route(namespace: &str, route: &str, kind: &str, status: &str) -> Result<Condition> {
    until_says(namespace, &format!("httproute/{route}"), "/status/parents/0/conditions", kind, status)
}

/// Waits until a policy has this condition.
///
/// # Errors
/// After [`APPLIED`], with the actual condition.
pub fn until_policy(namespace: &str, policy: &str, kind: &str, status: &str) -> Result<Condition> {
    until_says(namespace, policy, "/status/conditions", kind, status)
}

fn until_says(namespace: &str, object: &str, pointer: &str, kind: &str, status: &str) -> Result<Condition> {
    let (said, _) = wait::until(&format!("{object} to say {kind}={status}"), APPLIED, || {
        let found = kubectl::json(&["get", "-n", namespace, object])?;
        match condition(&found, pointer, kind) {
            Some(condition) if condition.status == status => Ok(Some(condition)),
            other => bail!("it says {other:?}"),
        }
    })?;
    Ok(said)
}

/// Kills all pods of the waypoint at once, as when its nodes are lost.
///
/// # Errors
/// When there is none.
pub fn kill(namespace: &str) -> Result<usize> {
    let pods = kubectl::items(&["get", "pods", "-n", namespace, "-l", PODS])?;
    ensure!(!pods.is_empty(), "no pod of waypoint {namespace}/{NAME}");
    kubectl::run(&[
        "delete",
        "pods",
        "-n",
        namespace,
        "-l",
        PODS,
        "--grace-period=0",
        "--force",
        "--wait=false",
    ])?;
    Ok(pods.len())
}
