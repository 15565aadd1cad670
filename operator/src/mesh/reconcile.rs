//! The reconciler of the Mesh: observes, decides with the pure functions beside it, and writes if
//! this replica leads.
//!
//! Every replica keeps the authority loaded, because every replica issues certificates; only the
//! leader writes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_api::{
    Mesh, MeshStatus,
    conditions::{PROGRESSING, READY},
    labels,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use tokio::sync::watch;

use super::{
    MeshWorld,
    apply::apply,
    cache::MeshCaches,
    desired::{MeshInputs, desired},
    observe::observe,
    removal::{self, Step},
    status::{self, Findings},
};
use crate::{
    apply::{delete, is_ours},
    config::Images,
    error::{Error, is_conflict, is_not_found},
    events::{Events, Severity},
    metrics::{Metrics, Outcome},
    names, pods,
    spec::{
        settings::issued_in,
        trust::{self, Trust, TrustProblem},
        validate::validate,
    },
    state::{MeshState, SharedIndex},
    waypoint,
};

/// Interval of reconciles without a change.
const RESYNC: Duration = Duration::from_secs(300);
/// Pause after a failure, and between steps of a removal.
const RETRY: Duration = Duration::from_secs(2);
/// Changes within this time are handled together.
const GATHER: Duration = Duration::from_millis(200);
/// Grace period of agents' pods when the Mesh is deleted, in seconds.
const POD_GRACE_SECONDS: u32 = 5;

/// Dependencies of the reconciler.
pub(crate) struct MeshContext {
    /// Kubernetes client.
    pub client: Client,
    /// Watch caches of our namespace.
    pub caches: MeshCaches,
    /// The model.
    pub index: SharedIndex,
    /// The current Mesh.
    pub mesh: watch::Receiver<MeshState>,
    /// Whether this replica writes.
    pub leads: watch::Receiver<bool>,
    /// The current authority, for issuing.
    pub trust: watch::Sender<Option<Arc<Trust>>>,
    /// Images of the components.
    pub images: Images,
    /// Writer of Events.
    pub events: Events,
    /// Notified of every change.
    pub wake: watch::Receiver<()>,
    /// Watch caches of waypoints' objects.
    pub waypoints: waypoint::cache::WaypointCaches,
    /// Metrics of the control plane.
    pub metrics: Metrics,
}

/// Reconciles until dropped.
pub(crate) async fn run(mut context: MeshContext) {
    loop {
        let pause = match reconcile(&context).await {
            Ok(pause) => {
                context.metrics.reconciled(Outcome::Done);
                pause
            }
            Err(error) => {
                context.metrics.reconciled(Outcome::Failed);
                tracing::warn!(%error, "The Mesh cannot be reconciled, trying again");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = context.wake.changed() => tokio::time::sleep(GATHER).await,
            _ = context.mesh.changed() => {}
            _ = context.leads.changed() => {}
        }
        context.wake.mark_unchanged();
    }
}

async fn reconcile(context: &MeshContext) -> Result<Duration, Error> {
    let state = context.mesh.borrow().clone();
    let MeshState::Present(mesh) = state else { return Ok(RESYNC) };
    let world = look(context);
    let is_leading = *context.leads.borrow();
    let problem = keep_trust(context, &mesh, &world, is_leading).await?;
    if !is_leading {
        return Ok(RESYNC);
    }
    if let Some(deleted) = mesh.metadata.deletion_timestamp.as_ref() {
        return remove(context, &mesh, &world, deleted.0).await;
    }
    add_finalizer(context, &mesh).await?;
    let trust = context.trust.borrow().clone();
    let valid = validate(&mesh.spec, issued_in(&mesh));
    let applied = match &valid {
        Ok(valid) => {
            let roots = trust.as_ref().map(|trust| trust.authority.root_bundle());
            let given = MeshInputs {
                images: &context.images,
                operator_ip: world.operator_ip.as_deref(),
                roots: roots.as_deref(),
                owner: mesh.owner_ref(&()),
            };
            apply(&context.client, &desired(valid, &given), &world).await
        }
        // The objects of the last valid spec are kept.
        Err(_) => Ok(()),
    };
    let apply_error = applied.as_ref().err().map(ToString::to_string);
    let found = Findings {
        valid: valid.as_ref().map_err(Vec::as_slice),
        trust: trust.as_deref(),
        trust_problem: problem.as_ref(),
        apply_error: apply_error.as_deref(),
    };
    write_status(context, &mesh, status::status(&mesh, &world, &found)).await?;
    applied.map(|()| RESYNC)
}

fn look(context: &MeshContext) -> MeshWorld {
    let (index, now) = (context.index.read(), Timestamp::now());
    let waypoints = waypoint::observe::observe(&context.waypoints, &index, now);
    MeshWorld { waypoints, ..observe(&context.caches, &index, now) }
}

/// Keeps the current authority loaded; returns what is wrong with the requested one.
async fn keep_trust(
    context: &MeshContext,
    mesh: &Mesh,
    world: &MeshWorld,
    is_leading: bool,
) -> Result<Option<TrustProblem>, Error> {
    let Some(wanted) = trust::wanted(mesh) else { return Ok(None) };
    let in_force = context.trust.borrow().clone();
    if in_force.as_deref().is_some_and(|trust| wanted.is_loaded(trust, &world.secrets)) {
        return Ok(None);
    }
    let now = SystemTime::from(world.now);
    match wanted.load(&world.secrets, now) {
        Ok(loaded) => {
            tracing::info!(secret = loaded.secret, domain = %loaded.domain, "The authority is loaded");
            context.trust.send_replace(Some(Arc::new(loaded)));
            Ok(None)
        }
        Err(problem) => {
            let has_secret = world.secrets.iter().any(|s| s.name_any() == wanted.secret());
            let is_going = mesh.metadata.deletion_timestamp.is_some();
            if is_leading
                && !is_going
                && !has_secret
                && let Some(secret) = wanted.new_secret(in_force.as_deref(), now)?
            {
                create_secret(&context.client, &secret).await?;
            }
            Ok(Some(problem))
        }
    }
}

/// If another replica was faster, its Secret arrives by the watch.
async fn create_secret(client: &Client, secret: &Secret) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), names::NAMESPACE);
    match api.create(&PostParams::default(), secret).await {
        Ok(_) => {
            tracing::info!(secret = names::CA_SECRET, "The self-signed authority is written");
            Ok(())
        }
        Err(error) if is_conflict(&error) => Ok(()),
        Err(error) => {
            Err(Error::api(format!("creating Secret {}/{}", names::NAMESPACE, names::CA_SECRET), error))
        }
    }
}

async fn add_finalizer(context: &MeshContext, mesh: &Mesh) -> Result<(), Error> {
    if mesh.finalizers().iter().any(|finalizer| finalizer == labels::FINALIZER) {
        return Ok(());
    }
    let mut finalizers = mesh.finalizers().to_vec();
    finalizers.push(labels::FINALIZER.to_owned());
    patch_finalizers(context, mesh, &finalizers).await
}

async fn patch_finalizers(context: &MeshContext, mesh: &Mesh, finalizers: &[String]) -> Result<(), Error> {
    let api: Api<Mesh> = Api::all(context.client.clone());
    let version = &mesh.metadata.resource_version;
    let patch = serde_json::json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}});
    match api.patch(&mesh.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(Error::api("writing the finalizers of the Mesh", error)),
    }
}

async fn remove(
    context: &MeshContext,
    mesh: &Mesh,
    world: &MeshWorld,
    deleted: Timestamp,
) -> Result<Duration, Error> {
    if !mesh.finalizers().iter().any(|finalizer| finalizer == labels::FINALIZER) {
        return Ok(RESYNC);
    }
    let elapsed = Duration::try_from(world.now.duration_since(deleted)).unwrap_or_default();
    let step = removal::next(world, elapsed);
    let client = &context.client;
    match &step {
        Step::AwaitClean { .. } | Step::AwaitGone => {}
        Step::DeleteAgents => delete_agents(client, world).await?,
        Step::RemoveAnnotations => {
            for pod in &world.redirected {
                pods::annotate(client, &pod.namespace, &pod.name, labels::REDIRECTION, None).await?;
            }
        }
        Step::DeleteObjects => delete_objects(client, world).await?,
        Step::RemoveFinalizer => {
            tracing::info!("Nothing of the mesh is left");
            context.trust.send_replace(None);
            let rest: Vec<String> = mesh
                .finalizers()
                .iter()
                .filter(|finalizer| *finalizer != labels::FINALIZER)
                .cloned()
                .collect();
            patch_finalizers(context, mesh, &rest).await?;
            return Ok(RESYNC);
        }
    }
    write_status(context, mesh, status::removing(mesh, world, &step.message())).await?;
    Ok(RETRY)
}

/// Deletes the agents' pods by name, because deleting a DaemonSet leaves them their full grace
/// period.
async fn delete_agents(client: &Client, world: &MeshWorld) -> Result<(), Error> {
    for object in world.daemon_sets_of_ours() {
        delete(client, object).await?;
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), names::NAMESPACE);
    for pod in world.pods.iter().filter(|pod| !pod.is_leaving) {
        match api.delete(&pod.name, &DeleteParams::default().grace_period(POD_GRACE_SECONDS)).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(Error::api(format!("deleting Pod {}", pod.name), error)),
        }
    }
    Ok(())
}

async fn delete_objects(client: &Client, world: &MeshWorld) -> Result<(), Error> {
    for object in world.config_maps.iter().filter(|object| is_ours(&object.metadata)) {
        delete(client, object.as_ref()).await?;
    }
    for object in world.service_accounts.iter().filter(|object| is_ours(&object.metadata)) {
        delete(client, object.as_ref()).await?;
    }
    for object in world.secrets.iter().filter(|object| is_ours(&object.metadata)) {
        delete(client, object.as_ref()).await?;
    }
    waypoint::prune::remove(client, &world.waypoints).await
}

/// Writes the status if it has changed, and Events for users.
async fn write_status(context: &MeshContext, mesh: &Mesh, status: MeshStatus) -> Result<(), Error> {
    if mesh.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<Mesh> = Api::all(context.client.clone());
    let patch = serde_json::json!({
        "apiVersion": Mesh::api_version(&()), "kind": Mesh::kind(&()), "status": &status,
    });
    let params = PatchParams::apply(labels::FIELD_MANAGER).force();
    match api.patch_status(&mesh.name_any(), &params, &Patch::Apply(patch)).await {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(Error::api("writing the status of the Mesh", error)),
    }
    announce(context, mesh, &status).await;
    Ok(())
}

/// Writes an Event for every condition whose status or reason changed, except Ready, which only
/// summarizes the others.
async fn announce(context: &MeshContext, mesh: &Mesh, status: &MeshStatus) {
    let before = mesh.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    for condition in status.conditions.iter().filter(|condition| condition.type_ != READY) {
        let old = before.iter().find(|old| old.type_ == condition.type_);
        if old.is_some_and(|old| old.status == condition.status && old.reason == condition.reason) {
            continue;
        }
        let is_fine = condition.status == "True" || condition.type_ == PROGRESSING;
        let severity = if is_fine { Severity::Normal } else { Severity::Warning };
        context.events.mesh(mesh, severity, &condition.reason, &condition.message).await;
    }
}

#[cfg(test)]
mod tests;
