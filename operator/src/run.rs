//! Starts the tasks of a replica, and connects them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_index::{Index, Settings};
use ambit_runtime::{Blocker, Readiness, admin, signal};
use anyhow::Context as _;
use kube::Client;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    ca::{Authenticator, Issuer, IssuerWatch, KubeReviewer},
    config::{Config, Images},
    discovery::{self, Discovery, DiscoveryMetrics, Feeds},
    events::Events,
    fold::Fold,
    jwks::{self, fetch::Fetcher, mesh::MeshClient, schedule::Wanted},
    leader,
    mesh::{self, reconcile},
    metrics::Metrics,
    pods::Writer,
    reports,
    spec::trust::Trust,
    state::{MeshState, SharedIndex, Wake},
    statuses,
    watches::{self, Seen},
    waypoint::{cache, driver},
};

/// How long tasks may take to end.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(12);

/// State shared by the tasks of one replica.
struct Shared {
    client: Client,
    index: SharedIndex,
    feeds: Arc<Feeds>,
    mesh: watch::Receiver<MeshState>,
    leads: watch::Receiver<bool>,
    events: Events,
    wake: Wake,
    status: Arc<Notify>,
    seen: mpsc::Sender<Seen>,
}

/// Runs until a signal.
///
/// # Errors
/// When a port is in use, or the API server's address is not known.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("no API server: run in a cluster, or set KUBECONFIG")?;
    let readiness = Readiness::default();
    let metrics = admin::Metrics::default();
    let discovery_metrics = DiscoveryMetrics::default();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let (mesh_sender, mesh) = watch::channel(MeshState::Unknown);
    let (lead, leads) = watch::channel(false);
    let (seen, folded) = mpsc::channel(watches::SEEN_MAX);
    let shared = Shared {
        index: SharedIndex::new(Index::new(Settings::default())),
        feeds: Arc::new(Feeds::default()),
        mesh,
        leads,
        events: Events::new(client.clone(), config.pod_name.clone()),
        wake: Wake::default(),
        status: Arc::new(Notify::new()),
        seen,
        client,
    };

    let own = Metrics::default();
    metrics.register(|registry| {
        discovery_metrics.register(registry);
        let (pods, clock) = (shared.index.pods(), Arc::new(SystemTime::now));
        discovery_metrics.ca.register_outliving(registry, pods, clock);
        own.register(registry, shared.index.clone(), shared.leads.clone());
    });

    let health = admin::bind(config.health_port).await?;
    let scrape = admin::bind(config.metrics_port).await?;
    let port = admin::bind(config.discovery_port).await?;
    tasks.spawn(admin::serve_health(health, readiness.clone()));
    tasks.spawn(admin::serve_metrics(scrape, metrics));
    let wanted = fold(&shared, mesh_sender, folded, readiness.block("watches"), &mut tasks);
    let trusted = manage(&shared, config.images, own, &mut tasks);
    let issuer = issuer(&mut tasks, trusted);
    let mesh = MeshClient::new(shared.index.clone(), issuer.clone(), &config.pod_name);
    tasks.spawn(jwks::run(Fetcher::new(mesh)?, wanted, shared.seen.clone()));
    let agents = agents(&shared, issuer, discovery_metrics, &mut tasks);
    let mut server = tokio::spawn(discovery::serve(port, agents, stop.clone()));
    let election = tasks.spawn(leader::elect(shared.client.clone(), config.pod_name.clone(), lead));
    tracing::info!(replica = config.pod_name, "The operator runs");

    tokio::select! {
        stopped = signal::shutdown() => stopped?,
        served = &mut server => served.context("the agents' port")??,
        Some(ended) = tasks.join_next() => {
            ended.context("a task of the operator failed")?;
            anyhow::bail!("a task of the operator ended by itself");
        }
    }
    // Stops the election first, because a candidate would take the Lease again.
    election.abort();
    leader::release(shared.client, &config.pod_name).await;
    stop.cancel();
    match tokio::time::timeout(DRAIN_TIME_MAX, server).await {
        Ok(served) => served.context("the agents' port")??,
        Err(_elapsed) => tracing::warn!(waited = ?DRAIN_TIME_MAX, "Calls of agents did not end in time"),
    }
    tasks.shutdown().await;
    Ok(())
}

/// Starts the watches and the index task; returns the wanted key sets.
fn fold(
    shared: &Shared,
    mesh: watch::Sender<MeshState>,
    folded: mpsc::Receiver<Seen>,
    blocker: Blocker,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Wanted> {
    let (wanted, wants) = watch::channel(Wanted::new());
    watches::index(&shared.client, &shared.seen).into_iter().for_each(|watch| drop(tasks.spawn(watch)));
    tasks.spawn(watches::mesh(&shared.client, shared.seen.clone()));
    let fold = Fold {
        index: shared.index.clone(),
        feeds: shared.feeds.clone(),
        mesh,
        wake: shared.wake.clone(),
        status: shared.status.clone(),
        jwks: wanted,
    };
    tasks.spawn(fold.run(folded, blocker));
    wants
}

/// Starts the writers to Kubernetes; returns the current authority.
fn manage(
    shared: &Shared,
    images: Images,
    metrics: Metrics,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Option<Arc<Trust>>> {
    let (trust, trusted) = watch::channel(None);
    let (caches, fills) = mesh::cache::caches(&shared.client, &shared.wake);
    let (waypoints, more) = cache::caches(&shared.client, &shared.wake);
    fills.into_iter().chain(more).for_each(|fill| drop(tasks.spawn(fill)));
    let waypoint_image = images.waypoint.clone();
    let context = reconcile::MeshContext {
        client: shared.client.clone(),
        caches: caches.clone(),
        index: shared.index.clone(),
        mesh: shared.mesh.clone(),
        leads: shared.leads.clone(),
        trust,
        images,
        events: shared.events.clone(),
        wake: shared.wake.subscribe(),
        waypoints: waypoints.clone(),
        metrics,
    };
    let driver = driver::WaypointContext {
        client: shared.client.clone(),
        caches: waypoints.clone(),
        own_services: caches.services.clone(),
        index: shared.index.clone(),
        mesh: shared.mesh.clone(),
        leads: shared.leads.clone(),
        trust: trusted.clone(),
        image: waypoint_image,
        events: shared.events.clone(),
        wake: shared.wake.subscribe(),
        seen: shared.seen.clone(),
    };
    tasks.spawn(async move {
        mesh::cache::warm(&caches).await;
        cache::warm(&waypoints).await;
        tokio::join!(reconcile::run(context), driver::run(driver));
    });
    let (client, index, leads) = (shared.client.clone(), shared.index.clone(), shared.leads.clone());
    tasks.spawn(statuses::run(client, shared.events.clone(), index, leads, shared.status.clone()));
    trusted
}

/// The dependencies of the agents' port; starts the writer of reports.
fn agents(
    shared: &Shared,
    issuer: IssuerWatch,
    metrics: DiscoveryMetrics,
    tasks: &mut JoinSet<()>,
) -> Discovery {
    let (reports, written) = mpsc::channel(reports::EVENTS_MAX);
    let writer = Writer {
        client: shared.client.clone(),
        index: shared.index.clone(),
        events: shared.events.clone(),
        mesh: shared.mesh.clone(),
    };
    tasks.spawn(writer.run(written));
    let reviewer = KubeReviewer::new(shared.client.clone());
    Discovery {
        feeds: shared.feeds.clone(),
        authenticator: Arc::new(Authenticator::new(
            reviewer,
            Arc::new(SystemTime::now),
            metrics.callers.clone(),
        )),
        pods: shared.index.pods(),
        issuer,
        reports,
        clock: Arc::new(SystemTime::now),
        metrics,
    }
}

/// The issuer, following changes of the authority.
fn issuer(
    tasks: &mut JoinSet<()>,
    mut trusted: watch::Receiver<Option<Arc<Trust>>>,
) -> watch::Receiver<Option<Arc<Issuer>>> {
    let (sender, receiver) = watch::channel(None);
    tasks.spawn(async move {
        loop {
            let issuer = trusted.borrow_and_update().as_ref().map(|trust| {
                Arc::new(Issuer {
                    authority: trust.authority.clone(),
                    trust_domain: trust.domain.clone(),
                    certificate_ttl: trust.certificate_ttl,
                })
            });
            sender.send_replace(issuer);
            if trusted.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}
