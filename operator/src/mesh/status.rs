//! The status of the Mesh. Pure; the transition time of an unchanged condition is kept.

use ambit_api::{
    Mesh, MeshStatus,
    conditions::{ACCEPTED, DATA_PLANE_READY, PROGRESSING, READY, TRUST_READY, reason},
    mesh::{NodesStatus, TrustPhase, TrustRoot, TrustStatus, WorkloadsStatus},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::observe::MeshWorld;
use crate::{
    names,
    spec::{
        trust::{self, Trust, TrustProblem},
        validate::{ValidMesh, Violation},
    },
};

/// Number of node names listed in a message.
const NODES_NAMED_MAX: usize = 5;

/// Results of the other steps of a reconcile.
pub(crate) struct Findings<'a> {
    /// The validated spec, or its violations.
    pub valid: Result<&'a ValidMesh, &'a [Violation]>,
    /// The current authority.
    pub trust: Option<&'a Trust>,
    /// What is wrong with the requested authority.
    pub trust_problem: Option<&'a TrustProblem>,
    /// The API server's error.
    pub apply_error: Option<&'a str>,
}

/// A condition without its transition time.
struct UndatedCondition {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn finding(
    kind: &'static str,
    holds: Option<bool>,
    reason: &'static str,
    message: impl Into<String>,
) -> UndatedCondition {
    let status = match holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    UndatedCondition { kind, status, reason, message: message.into() }
}

/// The status of a Mesh.
pub(crate) fn status(mesh: &Mesh, world: &MeshWorld, outcome: &Findings<'_>) -> MeshStatus {
    let rollout = rollout(world);
    let accepted = accepted(outcome);
    let trust_ready = trust_ready(world, outcome);
    let data_plane = data_plane(world, outcome, &rollout);
    let ready = ready([&accepted, &trust_ready, &data_plane]);
    let progressing = match rollout.is_complete() {
        true => {
            finding(PROGRESSING, Some(false), reason::ROLLOUT_COMPLETE, "every node is at the wanted state")
        }
        false => finding(PROGRESSING, Some(true), reason::ROLLING_OUT, rollout.summary()),
    };
    let findings = [ready, accepted, trust_ready, data_plane, progressing];
    let previous = mesh.status.clone().unwrap_or_default();
    let version =
        if rollout.is_complete() { Some(names::VERSION.to_owned()) } else { previous.version.clone() };
    MeshStatus {
        observed_generation: mesh.metadata.generation,
        version,
        nodes: Some(rollout.nodes()),
        workloads: Some(WorkloadsStatus { enrolled: count(world.enrolled), pending: count(world.pending) }),
        waypoints: Some(world.waypoints.counted()),
        trust: Some(trust_status(&previous, outcome.trust)),
        conditions: dated(findings, &previous.conditions, mesh.metadata.generation, world.now),
    }
}

/// The status of a Mesh that is being removed.
pub(crate) fn removing(mesh: &Mesh, world: &MeshWorld, message: &str) -> MeshStatus {
    let previous = mesh.status.clone().unwrap_or_default();
    let findings = [
        finding(READY, Some(false), reason::REMOVING, message),
        finding(PROGRESSING, Some(true), reason::REMOVING, message),
    ];
    MeshStatus {
        observed_generation: mesh.metadata.generation,
        workloads: Some(WorkloadsStatus { enrolled: count(world.enrolled), pending: count(world.pending) }),
        conditions: dated(findings, &previous.conditions, mesh.metadata.generation, world.now),
        ..previous
    }
}

fn accepted(outcome: &Findings<'_>) -> UndatedCondition {
    match outcome.valid {
        Ok(_) => finding(ACCEPTED, Some(true), reason::ACCEPTED, "the spec is in force"),
        Err(violations) => {
            let reason = violations.first().map_or(reason::INVALID_SPEC, |violation| violation.reason);
            let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
            finding(ACCEPTED, Some(false), reason, all.join("; "))
        }
    }
}

fn trust_ready(world: &MeshWorld, outcome: &Findings<'_>) -> UndatedCondition {
    if let Some(problem) = outcome.trust_problem {
        let kept = if outcome.trust.is_some() { "; the authority loaded before stays in force" } else { "" };
        return finding(TRUST_READY, Some(false), problem.reason, format!("{}{kept}", problem.message));
    }
    let Some(trust) = outcome.trust else {
        return finding(TRUST_READY, None, reason::BLOCKED, "no authority yet");
    };
    let end = Timestamp::try_from(trust.authority.not_after()).unwrap_or(Timestamp::MAX);
    let left = end.duration_since(world.now);
    let message = format!("certificates are issued in {}, the authority ends {end}", trust.domain);
    let is_expiring = left.is_negative() || left.unsigned_abs() < trust::EXPIRING;
    let why = if is_expiring { reason::CA_EXPIRING } else { reason::ISSUING };
    finding(TRUST_READY, Some(!left.is_negative()), why, message)
}

fn data_plane(world: &MeshWorld, outcome: &Findings<'_>, rollout: &AgentRollout) -> UndatedCondition {
    let not_ready = |reason, message: String| finding(DATA_PLANE_READY, Some(false), reason, message);
    if let Some(error) = outcome.apply_error {
        return not_ready(reason::APPLY_FAILED, error.to_owned());
    }
    if rollout.is_complete() {
        return finding(DATA_PLANE_READY, Some(true), reason::NODES_READY, rollout.summary());
    }
    if !rollout.is_started && outcome.trust.is_none() {
        return not_ready(reason::BLOCKED, "node agents start once there is an authority".into());
    }
    if !rollout.is_started && world.operator_ip.is_none() {
        let service =
            format!("Service {}/{} has no ClusterIP for agents to dial", names::NAMESPACE, names::OPERATOR);
        return not_ready(reason::OPERATOR_SERVICE_MISSING, service);
    }
    not_ready(reason::NODES_NOT_READY, rollout.summary())
}

fn ready(parts: [&UndatedCondition; 3]) -> UndatedCondition {
    match parts.into_iter().find(|part| part.status != "True") {
        Some(part) => finding(READY, Some(false), part.reason, part.message.clone()),
        None => finding(READY, Some(true), reason::READY, "the mesh serves every node"),
    }
}

fn trust_status(previous: &MeshStatus, trust: Option<&Trust>) -> TrustStatus {
    let Some(trust) = trust else { return previous.trust.clone().unwrap_or_default() };
    let end = Timestamp::try_from(trust.authority.not_after()).unwrap_or(Timestamp::MAX);
    let root =
        TrustRoot { sha256: trust::fingerprint(&trust.authority.root_bundle()), not_after: end.to_string() };
    TrustStatus { phase: TrustPhase::Stable, domain: trust.domain.to_string(), roots: vec![root] }
}

/// Progress of the agents' rollout.
struct AgentRollout {
    is_started: bool,
    is_current: bool,
    desired: i32,
    ready: i32,
    updated: i32,
    waiting: Vec<String>,
}

fn rollout(world: &MeshWorld) -> AgentRollout {
    let sets = [names::NODE_AGENT, names::ZTUNNEL].map(|name| world.daemon_set(name));
    let found = || sets.iter().flatten().map(|set| set.status.clone().unwrap_or_default());
    let is_current = sets.iter().flatten().all(|set| {
        let observed = set.status.as_ref().and_then(|status| status.observed_generation);
        observed.is_some() && observed == set.metadata.generation
    });
    let ready = world.ready_nodes();
    let mut waiting: Vec<String> =
        world.pods.iter().map(|p| p.node.clone()).filter(|node| !ready.contains(node.as_str())).collect();
    waiting.sort();
    waiting.dedup();
    AgentRollout {
        is_started: sets.iter().all(Option::is_some),
        is_current,
        desired: found().map(|status| status.desired_number_scheduled).max().unwrap_or_default(),
        ready: count(ready.len()),
        updated: found()
            .map(|status| status.updated_number_scheduled.unwrap_or_default())
            .min()
            .unwrap_or_default(),
        waiting,
    }
}

impl AgentRollout {
    fn is_complete(&self) -> bool {
        self.is_started && self.is_current && self.ready >= self.desired && self.updated >= self.desired
    }

    fn nodes(&self) -> NodesStatus {
        let summary = format!("{}/{}", self.ready, self.desired);
        NodesStatus { desired: self.desired, ready: self.ready, updated: self.updated, summary }
    }

    fn summary(&self) -> String {
        let base = format!("{} of {} nodes are served, {} updated", self.ready, self.desired, self.updated);
        if self.waiting.is_empty() {
            return base;
        }
        let named: Vec<&str> = self.waiting.iter().take(NODES_NAMED_MAX).map(String::as_str).collect();
        let more = if self.waiting.len() > NODES_NAMED_MAX { ", …" } else { "" };
        format!("{base}; waiting for {}{more}", named.join(", "))
    }
}

/// Adds transition times; conditions of other types are kept.
fn dated<const N: usize>(
    findings: [UndatedCondition; N],
    previous: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let new = findings.map(|found| {
        let old = previous
            .iter()
            .find(|condition| condition.type_ == found.kind && condition.status == found.status);
        Condition {
            type_: found.kind.into(),
            status: found.status.into(),
            reason: found.reason.into(),
            message: found.message,
            observed_generation: generation,
            last_transition_time: old.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        }
    });
    let kept =
        previous.iter().filter(|old| !new.iter().any(|condition| condition.type_ == old.type_)).cloned();
    let mut all: Vec<Condition> = kept.collect();
    all.extend(new);
    all.sort_by(|a, b| a.type_.cmp(&b.type_));
    all
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
