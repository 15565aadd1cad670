//! The reconciler of waypoints: observes, decides with the pure functions beside it, and writes if
//! this replica leads.
//!
//! Every replica reads parameters, because every replica sends ztunnels what to do while a waypoint
//! is down; only the leader writes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ambit_api::{
    Mesh,
    conditions::reason,
    gateway::Gateway,
    mesh::{FailurePolicy, Replicas},
};
use ambit_index::name_of;
use ambit_model::NamespacedName;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client, Resource, ResourceExt, api::PostParams, runtime::reflector::Store};
use tokio::sync::{mpsc, watch};

use super::{
    WaypointWorld,
    cache::WaypointCaches,
    classes, create,
    desired::{self, WaypointInputs, WaypointObjects},
    observe::observe,
    prune,
    reader::Reader,
    status::{self, RolloutProblem, WaypointRollout},
    validate::{Judgement, ValidWaypoint, judge},
};
use crate::{
    apply::{self, Claim},
    container::operator_ip,
    error::{Error, is_conflict},
    events::{Events, Severity},
    names,
    object_status::{self, Judged},
    spec::{settings::issued_in, trust::Trust, validate::validate},
    state::{MeshState, SharedIndex},
    watches::Seen,
};

/// Interval of reconciles without a change.
const RESYNC: Duration = Duration::from_secs(300);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Changes within this time are handled together.
const GATHER: Duration = Duration::from_millis(100);

/// Dependencies of the reconciler.
pub(crate) struct WaypointContext {
    /// Kubernetes client.
    pub client: Client,
    /// Watch caches.
    pub caches: WaypointCaches,
    /// Services of our own namespace: waypoints connect to the operator's.
    pub own_services: Store<Service>,
    /// The model.
    pub index: SharedIndex,
    /// The current Mesh.
    pub mesh: watch::Receiver<MeshState>,
    /// Whether this replica writes.
    pub leads: watch::Receiver<bool>,
    /// The current authority.
    pub trust: watch::Receiver<Option<Arc<Trust>>>,
    /// Image of the waypoint.
    pub image: String,
    /// Writer of Events.
    pub events: Events,
    /// Notified of every change.
    pub wake: watch::Receiver<()>,
    /// Receiver of failure policies.
    pub seen: mpsc::Sender<Seen>,
}

/// The failure policies sent to the index; `None` before all were sent.
type SentPolicies = Option<BTreeMap<NamespacedName, FailurePolicy>>;

/// One waypoint during a reconcile.
struct Waypoint<'a> {
    gateway: &'a Gateway,
    name: NamespacedName,
    judgement: Judgement,
}

/// Inputs common to all waypoints.
struct SharedInputs {
    mesh: Arc<Mesh>,
    trust: Option<Arc<Trust>>,
    operator_ip: Option<String>,
}

/// Reconciles until dropped.
pub(crate) async fn run(mut context: WaypointContext) {
    let mut reader = Reader::default();
    let mut sent = None;
    loop {
        let pause = match reconcile(&context, &mut reader, &mut sent).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "Waypoints cannot be reconciled, trying again");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = context.wake.changed() => tokio::time::sleep(GATHER).await,
            _ = context.mesh.changed() => {}
            _ = context.leads.changed() => {}
            _ = context.trust.changed() => {}
        }
        context.wake.mark_unchanged();
    }
}

/// Reconciles all waypoints. When the Mesh is being deleted, its own reconciler removes them.
async fn reconcile(
    context: &WaypointContext,
    reader: &mut Reader,
    sent: &mut SentPolicies,
) -> Result<Duration, Error> {
    let state = context.mesh.borrow().clone();
    let MeshState::Present(mesh) = state else { return Ok(RESYNC) };
    if mesh.metadata.deletion_timestamp.is_some() {
        return Ok(RESYNC);
    }
    let world = observe(&context.caches, &context.index.read(), Timestamp::now());
    let mut waypoints = Vec::new();
    for gateway in world.waypoints().filter(|gateway| gateway.metadata.deletion_timestamp.is_none()) {
        let found = reader.find(&context.client, gateway, &world.versions).await?;
        let judgement = judge(gateway, &found, &mesh.spec.waypoints);
        waypoints.push(Waypoint { gateway, name: name_of(&gateway.metadata), judgement });
    }
    send_failure_policies(context, &waypoints, sent).await;
    if !*context.leads.borrow() {
        return Ok(RESYNC);
    }
    let shared = SharedInputs {
        operator_ip: operator_ip(&context.own_services.state()),
        trust: context.trust.borrow().clone(),
        mesh,
    };
    let results = [
        keep_classes(context, &world).await,
        follow_labels(context, &world, shared.mesh.spec.waypoints.auto_create).await,
        prune::prune(&context.client, &world, |name| replicas_of(&waypoints, name)).await,
    ];
    let is_done = keep_waypoints(context, &world, &shared, &waypoints).await?;
    results.into_iter().collect::<Result<(), Error>>()?;
    Ok(if is_done { RESYNC } else { RETRY })
}

fn replicas_of(waypoints: &[Waypoint<'_>], name: &NamespacedName) -> Option<Replicas> {
    let waypoint = waypoints.iter().find(|waypoint| waypoint.name == *name)?;
    waypoint.judgement.valid.as_ref().map(|valid| valid.replicas)
}

/// Sends new failure policies to the index.
async fn send_failure_policies(
    context: &WaypointContext,
    waypoints: &[Waypoint<'_>],
    sent: &mut SentPolicies,
) {
    let policy =
        |waypoint: &Waypoint<'_>| waypoint.judgement.valid.as_ref().map(|valid| valid.failure_policy);
    let is_first = sent.is_none();
    let before = sent.take().unwrap_or_default();
    // Parameters that have become unreadable keep their last valid value.
    let now: BTreeMap<_, _> = waypoints
        .iter()
        .filter_map(|waypoint| {
            let policy = policy(waypoint).or_else(|| before.get(&waypoint.name).copied())?;
            Some((waypoint.name.clone(), policy))
        })
        .collect();
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        let _ = context.seen.send(Seen::FailurePolicy(name.clone(), None)).await;
    }
    for (name, policy) in now.iter().filter(|(name, policy)| before.get(*name) != Some(policy)) {
        let _ = context.seen.send(Seen::FailurePolicy(name.clone(), Some(*policy))).await;
    }
    if is_first {
        let _ = context.seen.send(Seen::FailurePoliciesSaid).await;
    }
    *sent = Some(now);
}

async fn keep_classes(context: &WaypointContext, world: &WaypointWorld) -> Result<(), Error> {
    if !world.is_served {
        return Ok(());
    }
    let api = Api::all(context.client.clone());
    let mut result = Ok(());
    for class in classes::missing(world) {
        let name = class.name_any();
        let made = match api.create(&PostParams::default(), &class).await {
            Ok(_) => Ok(()),
            // Another replica was faster.
            Err(error) if is_conflict(&error) => Ok(()),
            Err(source) => Err(Error::api(format!("creating GatewayClass {name}"), source)),
        };
        result = result.and(made);
    }
    for class in world.classes.iter().filter(|class| classes::is_ours(class)) {
        let status = classes::status(class, world.now);
        if class.status.as_ref() != Some(&status) {
            result =
                result.and(object_status::write(&context.client, &Judged::of(class.as_ref()), &status).await);
        }
    }
    result
}

/// Creates and deletes the Gateways that namespaces request.
async fn follow_labels(
    context: &WaypointContext,
    world: &WaypointWorld,
    auto_create: bool,
) -> Result<(), Error> {
    let plan = create::plan(world, auto_create && world.is_served);
    let mut result = Ok(());
    for gateway in &plan.create {
        let NamespacedName { namespace, name } = name_of(&gateway.metadata);
        let api: Api<Gateway> = Api::namespaced(context.client.clone(), &namespace);
        let made = match api.create(&PostParams::default(), gateway).await {
            Ok(_) => {
                tracing::info!(%namespace, %name, "Created the Gateway that a namespace requests");
                Ok(())
            }
            Err(error) if is_conflict(&error) => Ok(()),
            Err(source) => Err(Error::api(format!("creating Gateway {namespace}/{name}"), source)),
        };
        result = result.and(made);
    }
    for gateway in &world.gateways {
        if plan.delete.contains(&name_of(&gateway.metadata)) {
            result = result.and(apply::delete(&context.client, gateway.as_ref()).await);
        }
    }
    result
}

/// Applies the roots once in each namespace with a waypoint; returns the problems by namespace. Our
/// own namespace gets them from the Mesh.
async fn keep_roots(
    context: &WaypointContext,
    world: &WaypointWorld,
    shared: &SharedInputs,
    waypoints: &[Waypoint<'_>],
) -> BTreeMap<String, RolloutProblem> {
    let Some(trust) = &shared.trust else { return BTreeMap::new() };
    let mut owners: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for waypoint in waypoints.iter().filter(|waypoint| &*waypoint.name.namespace != names::NAMESPACE) {
        owners.entry(&waypoint.name.namespace).or_default().extend(waypoint.gateway.owner_ref(&()));
    }
    let pem = trust.authority.root_bundle();
    let mut problems = BTreeMap::new();
    for (namespace, owners) in owners {
        let wanted = desired::roots(namespace, &pem, owners);
        if let Err(error) = apply::one(&context.client, &wanted, &world.config_maps, Claim::Label).await {
            problems.insert(namespace.to_owned(), RolloutProblem::from(&error));
        }
    }
    problems
}

/// Rolls out every waypoint and writes its status; returns whether everything succeeded.
async fn keep_waypoints(
    context: &WaypointContext,
    world: &WaypointWorld,
    shared: &SharedInputs,
    waypoints: &[Waypoint<'_>],
) -> Result<bool, Error> {
    let roots = keep_roots(context, world, shared, waypoints).await;
    let (mut is_done, mut result) = (true, Ok(()));
    for waypoint in waypoints {
        let problem = match (&waypoint.judgement.valid, roots.get(&*waypoint.name.namespace)) {
            (None, _) => None,
            (Some(_), Some(problem)) => Some(problem.clone()),
            (Some(valid), None) => roll_out(context, world, shared, waypoint, valid).await,
        };
        is_done &= problem.as_ref().is_none_or(|problem| problem.reason != reason::APPLY_FAILED);
        result = result.and(write_status(context, world, waypoint, problem).await);
    }
    result.map(|()| is_done)
}

/// Rolls out one waypoint, or returns the problem.
async fn roll_out(
    context: &WaypointContext,
    world: &WaypointWorld,
    shared: &SharedInputs,
    waypoint: &Waypoint<'_>,
    valid: &ValidWaypoint,
) -> Option<RolloutProblem> {
    let live = world.deployment(&waypoint.name);
    let waiting = |message: &str| {
        // A running waypoint continues as it is.
        live.is_none().then(|| RolloutProblem { reason: reason::PENDING, message: message.to_owned() })
    };
    let Some(trust) = &shared.trust else { return waiting("the mesh has no authority yet") };
    let Some(operator_ip) = &shared.operator_ip else { return waiting("the operator has no address yet") };
    if validate(&shared.mesh.spec, issued_in(&shared.mesh)).is_err() {
        return waiting("the spec of the Mesh is not valid");
    }
    let owner = waypoint.gateway.controller_owner_ref(&())?;
    let given = WaypointInputs {
        image: &context.image,
        operator_ip,
        mesh: &shared.mesh.spec,
        trust_domain: &trust.domain,
        certificate_seconds: trust.certificate_ttl.as_secs(),
        owner: &owner,
        scaled: live.and_then(|live| live.spec.replicas),
    };
    let applied = apply_all(&context.client, world, &desired::desired(valid, &given)).await;
    applied.as_ref().err().map(RolloutProblem::from)
}

/// Accounts and Services are applied before the pods that need them.
async fn apply_all(client: &Client, world: &WaypointWorld, wanted: &WaypointObjects) -> Result<(), Error> {
    apply::one(client, &wanted.service_account, &world.service_accounts, Claim::Label).await?;
    apply::one(client, &wanted.service, &world.services, Claim::Label).await?;
    apply::one(client, &wanted.deployment, &world.deployments, Claim::Label).await?;
    if let Some(autoscaler) = &wanted.autoscaler {
        apply::one(client, autoscaler, &world.autoscalers, Claim::Label).await?;
    }
    if let Some(budget) = &wanted.disruption_budget {
        apply::one(client, budget, &world.disruption_budgets, Claim::Label).await?;
    }
    Ok(())
}

/// Writes the status if it has changed, and Events for users.
async fn write_status(
    context: &WaypointContext,
    world: &WaypointWorld,
    waypoint: &Waypoint<'_>,
    problem: Option<RolloutProblem>,
) -> Result<(), Error> {
    let Waypoint { gateway, name, judgement } = waypoint;
    let rollout = WaypointRollout {
        service_ip: world.service_ip(name).map(str::to_owned),
        ready: world.ready_pods(name),
        problem,
        routes: world.routes.get(name).copied().unwrap_or_default(),
    };
    let cluster_domain = context.index.read().settings().cluster_domain.clone();
    let status = status::status(gateway, judgement, &rollout, &cluster_domain, world.now);
    if gateway.status.as_ref() == Some(&status) {
        return Ok(());
    }
    object_status::write(&context.client, &Judged::of(*gateway), &status).await?;
    let before = gateway.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    for condition in status::news(before, &status.conditions) {
        let severity = if condition.status == "True" { Severity::Normal } else { Severity::Warning };
        let on = gateway.object_ref(&());
        context.events.object(&on, severity, &condition.reason, &condition.message).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
