use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::api::apps::v1::DaemonSet;

use super::*;
use crate::{
    mesh::observe::AgentPod,
    spec::{trust::wanted, validate::validate},
};

const NOW: i64 = 1_800_000_000;

fn mesh() -> Mesh {
    let mut mesh = Mesh::new("default", ambit_api::MeshSpec::default());
    mesh.metadata.generation = Some(3);
    mesh
}

fn trust() -> Trust {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.unsigned_abs());
    let wanted = wanted(&mesh()).unwrap();
    let secret = wanted.new_secret(None, now).unwrap().unwrap();
    wanted.load(&[Arc::new(secret)], now).unwrap()
}

fn daemon_set(name: &str, updated: i32) -> Arc<DaemonSet> {
    let json = serde_json::json!({
        "metadata": {"name": name, "generation": 1, "labels": {"ambit.dev/mesh": "default"}},
        "status": {"observedGeneration": 1, "desiredNumberScheduled": 1, "updatedNumberScheduled": updated,
                   "currentNumberScheduled": 1, "numberMisscheduled": 0, "numberReady": 1}
    });
    Arc::new(serde_json::from_value(json).unwrap())
}

fn pod(app: &str, ready: bool) -> AgentPod {
    AgentPod {
        name: app.into(),
        app: app.into(),
        node: "n1".into(),
        ready,
        clean: false,
        has_node: true,
        is_leaving: false,
    }
}

fn world(is_ready: bool) -> MeshWorld {
    MeshWorld {
        now: Timestamp::from_second(NOW).unwrap(),
        operator_ip: Some("10.96.0.7".into()),
        daemon_sets: vec![daemon_set(names::NODE_AGENT, 1), daemon_set(names::ZTUNNEL, 1)],
        pods: vec![pod(names::NODE_AGENT, true), pod(names::ZTUNNEL, is_ready)],
        enrolled: 4,
        pending: 1,
        ..MeshWorld::default()
    }
}

fn conditions(status: &MeshStatus) -> Vec<(&str, &str, &str)> {
    status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect()
}

#[test]
fn every_condition_is_there_from_the_first_reconcile_on() {
    let valid = validate(&mesh().spec, None).unwrap();
    let outcome = Findings { valid: Ok(&valid), trust: None, trust_problem: None, apply_error: None };
    let world = MeshWorld { now: Timestamp::from_second(NOW).unwrap(), ..MeshWorld::default() };
    let found = status(&mesh(), &world, &outcome);
    assert_eq!(
        conditions(&found),
        [
            ("Accepted", "True", "Accepted"),
            ("DataPlaneReady", "False", "Blocked"),
            ("Progressing", "True", "RollingOut"),
            ("Ready", "False", "Blocked"),
            ("TrustReady", "Unknown", "Blocked"),
        ]
    );
    assert!(found.conditions.iter().all(|c| c.observed_generation == Some(3)));
    assert_eq!((found.version, found.observed_generation), (None, Some(3)));
}

#[test]
fn a_served_mesh_is_ready_and_says_which_version_runs() {
    let (valid, trust) = (validate(&mesh().spec, None).unwrap(), trust());
    let outcome = Findings { valid: Ok(&valid), trust: Some(&trust), trust_problem: None, apply_error: None };
    let found = status(&mesh(), &world(true), &outcome);
    assert!(conditions(&found).contains(&("Ready", "True", "Ready")), "{:?}", conditions(&found));
    assert!(conditions(&found).contains(&("Progressing", "False", "RolloutComplete")));
    assert_eq!(found.version.as_deref(), Some(names::VERSION));
    assert_eq!(found.nodes.unwrap().summary, "1/1");
    assert_eq!(found.workloads.unwrap(), WorkloadsStatus { enrolled: 4, pending: 1 });
    assert_eq!(found.trust.unwrap().phase, TrustPhase::Stable);
}

#[test]
fn the_first_thing_that_fails_is_the_reason_of_ready() {
    let (valid, trust) = (validate(&mesh().spec, None).unwrap(), trust());
    let violations = [Violation {
        reason: reason::TRUST_DOMAIN_IMMUTABLE,
        field: "spec.trust.domain",
        message: "x".into(),
    }];
    let problem = TrustProblem { reason: reason::CA_NOT_FOUND, message: "missing".into() };
    let ok = || Findings { valid: Ok(&valid), trust: Some(&trust), trust_problem: None, apply_error: None };
    for (name, outcome, is_ready, expected) in [
        ("spec", Findings { valid: Err(&violations), ..ok() }, true, "TrustDomainImmutable"),
        ("secret", Findings { trust_problem: Some(&problem), ..ok() }, true, "CANotFound"),
        ("write", Findings { apply_error: Some("refused"), ..ok() }, true, "ApplyFailed"),
        ("node", ok(), false, "NodesNotReady"),
    ] {
        let found = status(&mesh(), &world(is_ready), &outcome);
        assert!(
            conditions(&found).contains(&("Ready", "False", expected)),
            "{name}: {:?}",
            conditions(&found)
        );
    }
    let mut no_service = world(true);
    no_service.operator_ip = None;
    no_service.daemon_sets.clear();
    let found = status(&mesh(), &no_service, &ok());
    assert!(conditions(&found).contains(&("Ready", "False", "OperatorServiceMissing")));
}

#[test]
fn time_stands_still_until_a_condition_changes() {
    let (valid, trust) = (validate(&mesh().spec, None).unwrap(), trust());
    let outcome = Findings { valid: Ok(&valid), trust: Some(&trust), trust_problem: None, apply_error: None };
    let mut mesh = mesh();
    let first = status(&mesh, &world(true), &outcome);
    mesh.status = Some(first.clone());
    let mut later = world(true);
    later.now = Timestamp::from_second(NOW + 60).unwrap();
    assert_eq!(status(&mesh, &later, &outcome), first, "nothing to write");
    later.pods = vec![pod(names::NODE_AGENT, true), pod(names::ZTUNNEL, false)];
    let changed = status(&mesh, &later, &outcome);
    let time = |status: &MeshStatus, kind: &str| {
        status.conditions.iter().find(|c| c.type_ == kind).unwrap().last_transition_time.0.as_second()
    };
    assert_eq!((time(&changed, "Ready"), time(&changed, "Accepted")), (NOW + 60, NOW));
}
