//! Starts the parts of the agent, and stops them when the mesh leaves the node.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use ambit_identity::{ChannelConfig, OPERATOR_NAME, Token, channel};
use ambit_redirect::{Config as RedirectConfig, cgroup};
use ambit_runtime::{Blocker, Readiness, admin, env::AgentConfig, signal};
use anyhow::Context;
use tokio::sync::watch;

use crate::{
    Problem, admission,
    config::{self, Config},
    forwarding,
    install::{self, InstallState, Installer, conflist},
    kernel::KernelThread,
    kubelet,
    metrics::Metrics,
    node::{Duty, Node, Past, Start},
    proxy::{Proxy, Surroundings},
    reports::{self, Reporter},
    roster::Roster,
    subscribe::Enrollments,
    tools::Tools,
};

/// How long pods may take to leave before the rest is removed with the pins.
const CLEAR_TIME_MAX: Duration = Duration::from_secs(30);
/// The node's `/proc`.
const PROC: &str = "/proc";
/// Pause before a step of leaving is retried.
const LEAVE_PAUSE: Duration = Duration::from_secs(1);

/// Runs until SIGTERM, which leaves everything on the node in place: enrolled pods stay protected.
///
/// # Errors
/// When the node lacks something that the agent needs.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let all_metrics = admin::Metrics::default();
    let metrics = Metrics::register(&all_metrics);
    let readiness = Readiness::default();
    let (xds_pending, install_pending) = (readiness.block("xds"), readiness.block("cni"));
    tokio::spawn(admin::serve_health(admin::bind(config.health_port).await?, readiness));
    tokio::spawn(admin::serve_metrics(admin::bind(config.metrics_port).await?, all_metrics));

    directories().context("prepare the directories of the node")?;
    // Checked before redirection pins anything.
    let start = Start::of(config::BPFFS_DIR.as_ref(), config::STATE_FILE.as_ref());
    let tools = tools(metrics.clone()).await?;
    // Set before the first report: a node serves only once the plugin is installed.
    tools.reporter.install(Some(Problem { reason: "NodeAgentStarting", message: "the agent starts".into() }));
    let attached = tools.kernel.call(|kernel| kernel.inherited()).await?;
    tracing::info!(pods = attached.len(), ?start, "Redirection is loaded");
    let node = Node::new(tools.clone(), config::STATE_FILE.into(), Past { attached, start });
    let socket = admission::bind(config::CNI_SOCKET.as_ref())?;
    tokio::spawn(admission::serve(socket, node.clone(), metrics.clone()));
    tokio::spawn(forwarding::count(tools.clone()));
    tokio::spawn(kubelet::follow(tools.kernel.clone(), PROC.into()));
    converse(&config.agent, &node, &tools.reporter, xds_pending)?;

    // The plugin is installed last, because new pods depend on the agent from then on.
    let installer = install::watch(paths(), entry(&config.agent.namespace)).context("start the installer")?;
    tokio::spawn(follow_install(installer.state(), tools.reporter.clone(), metrics, install_pending));
    tokio::select! {
        stopped = signal::shutdown() => stopped.context("wait for a signal"),
        () = leave(&node, &tools, &installer) => Ok(()),
    }
}

async fn tools(metrics: Metrics) -> anyhow::Result<Tools> {
    let cgroup = cgroup::root().context("find the cgroup v2 hierarchy of the node")?;
    let kernel = KernelThread::start(RedirectConfig { bpffs: config::BPFFS_DIR.into(), cgroup })
        .await
        .context("load redirection")?;
    let (roster, reporter) = (Arc::new(Roster::default()), Reporter::default());
    let around = Surroundings {
        roster: roster.clone(),
        kernel: kernel.clone(),
        reporter: reporter.clone(),
        metrics: metrics.clone(),
        proc: PROC.into(),
    };
    let proxy = Proxy::start(config::ZDS_SOCKET.as_ref(), around).context("listen for the proxy")?;
    Ok(Tools { roster, kernel, proxy, reporter, metrics, proc: PROC.into() })
}

/// Starts the connections to the operator.
fn converse(config: &AgentConfig, node: &Node, reporter: &Reporter, pending: Blocker) -> anyhow::Result<()> {
    let operator = ChannelConfig {
        address: config.operator,
        server_name: OPERATOR_NAME.to_owned(),
        roots_path: config.roots.clone(),
    };
    let AgentConfig { node: node_name, pod, namespace, .. } = config;
    let xds = ambit_xds::Config {
        node: ambit_xds::Node {
            id: format!("nodeagent~0.0.0.0~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: [("NODE_NAME".to_owned(), node_name.clone())].into(),
        },
        types: vec![ambit_proto::ENROLLMENT],
        token_path: Some(config.token.clone()),
        cluster_id: "Kubernetes".to_owned(),
    };
    let (status, mut statuses) = watch::channel(ambit_xds::Status::default());
    let connect = {
        let operator = operator.clone();
        move || std::future::ready(channel::connect(operator.clone()).map_err(Into::into))
    };
    tokio::spawn(ambit_xds::run(xds, connect, Enrollments(node.clone()), status));
    let channel = channel::connect(operator).context("prepare the channel to the operator")?;
    let token = Token::new(&config.token);
    tokio::spawn(follow_stream(statuses.clone(), node.clone()));
    let (node, reporter) = (node.clone(), reporter.clone());
    tokio::spawn(async move {
        if statuses.wait_for(|status| status.synced).await.is_ok() {
            tracing::info!("The operator has described all pods of this node");
            node.synced();
            drop(pending);
            // Before that, the agent could not distinguish a deleted pod from one it does not know
            // yet.
            reports::run(reporter, channel, token).await;
        }
    });
    Ok(())
}

async fn follow_stream(mut statuses: watch::Receiver<ambit_xds::Status>, node: Node) {
    loop {
        let hears = {
            let status = statuses.borrow_and_update();
            status.connected && status.synced
        };
        node.set_operator_connected(hears);
        if statuses.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_install(
    mut states: watch::Receiver<InstallState>,
    reporter: Reporter,
    metrics: Metrics,
    pending: Blocker,
) {
    let mut pending = Some(pending);
    loop {
        let state = states.borrow_and_update().clone();
        match state {
            InstallState::Installed => {
                pending.take();
                metrics.plugin_installed.set(1);
                reporter.install(None);
            }
            InstallState::Waiting(problem) => {
                metrics.plugin_installed.set(0);
                reporter.install(Some(problem));
            }
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until the mesh leaves the node, removes and reports every trace, and returns when the mesh
/// comes back: the next process starts from scratch.
async fn leave(node: &Node, tools: &Tools, installer: &Installer) {
    let mut duty = node.duty();
    if duty.wait_for(|duty| *duty == Duty::Leave).await.is_err() {
        return std::future::pending().await;
    }
    tracing::info!("The mesh leaves this node");
    if !node.cleared(CLEAR_TIME_MAX).await {
        tracing::warn!(
            "Some pods did not leave in time; the rest of their redirection is removed with the pins"
        );
    }
    while let Err(error) = installer.remove().await {
        tracing::warn!(%error, "The CNI plugin cannot be removed");
        tokio::time::sleep(LEAVE_PAUSE).await;
    }
    // Files go before pins: an agent that finds the state file but no pins concludes that the node
    // was rebooted.
    if let Err(error) = sweep() {
        tracing::error!(%error, "Files are left on the node");
    }
    if let Err(error) = tools.kernel.call(|kernel| kernel.remove_everything()).await {
        tracing::error!(%error, "Pins are left in the BPF file system");
    }
    tools.reporter.clean();
    tracing::info!("Nothing of the mesh is left on this node");
    if duty.wait_for(|duty| *duty == Duty::Serve).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Removes the agent's files. Its directories may be mount points here, so only their content is
/// removed.
fn sweep() -> io::Result<()> {
    let files = [config::STATE_FILE, config::CNI_SOCKET, config::ZDS_SOCKET];
    files.iter().try_for_each(|path| install::files::remove(path.as_ref()))?;
    let _ = fs::remove_dir(config::ZDS_DIR);
    Ok(())
}

fn directories() -> io::Result<()> {
    [config::RUN_DIR, config::ZDS_DIR, config::STATE_DIR].iter().try_for_each(|path| private(path.as_ref()))
}

fn private(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

fn paths() -> install::Paths {
    install::Paths {
        conf_dir: config::CONF_DIR.into(),
        bin_dir: config::BIN_DIR.into(),
        plugin_source: config::PLUGIN_SOURCE.into(),
    }
}

fn entry(system_namespace: &str) -> conflist::Entry {
    conflist::Entry {
        plugin: conflist::PLUGIN.to_owned(),
        socket: config::CNI_SOCKET.to_owned(),
        state_file: config::STATE_FILE.to_owned(),
        system_namespace: system_namespace.to_owned(),
        embeds: None,
        replaces: None,
    }
}
