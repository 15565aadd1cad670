//! Wires the parts together, and takes them apart when the mesh leaves the node.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use ambit_identity::{ChannelConfig, Token, channel};
use ambit_redirect::{Config as RedirectConfig, cgroup};
use ambit_runtime::{Blocker, Readiness, admin, signal};
use anyhow::Context;
use tokio::sync::watch;

use crate::{
    Problem, admission,
    config::Config,
    enroll::effects::Tools,
    forwarding,
    install::{self, Installer, State, conflist},
    kernel::KernelThread,
    kubelet,
    metrics::Metrics,
    node::{Duty, Node, Past, Start},
    proxy::{Proxy, Surroundings},
    reports::{self, Reporter},
    roster::Roster,
    subscribe::Enrollments,
};

/// How long the pods may take to leave before what is left is removed with the pins.
const CLEAR_TIME_MAX: Duration = Duration::from_secs(30);
/// Processes of the node.
const PROC: &str = "/proc";
/// Pause before a step of leaving is tried again.
const LEAVE_PAUSE: Duration = Duration::from_secs(1);

/// Runs until SIGTERM, which leaves everything on the node as it is: enrolled pods stay protected.
///
/// # Errors
/// When the node lacks something without which the agent cannot work.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let all_metrics = admin::Metrics::default();
    let metrics = Metrics::register(&all_metrics);
    let readiness = Readiness::default();
    let (xds_pending, install_pending) = (readiness.block("xds"), readiness.block("cni"));
    tokio::spawn(admin::serve_health(admin::bind(config.health_port).await?, readiness));
    tokio::spawn(admin::serve_metrics(admin::bind(config.metrics_port).await?, all_metrics));

    directories(&config).context("prepare the directories of the node")?;
    // Looked at before redirection pins anything.
    let start = Start::of(&config.bpffs_dir, &config.state_file());
    let tools = tools(&config, metrics.clone()).await?;
    // Said before the first report: a node serves only once the plugin is installed.
    tools.reporter.install(Some(Problem { reason: "NodeAgentStarting", message: "the agent starts".into() }));
    let attached = tools.kernel.call(|kernel| kernel.inherited()).await?;
    tracing::info!(pods = attached.len(), ?start, "Redirection is loaded");
    let node = Node::new(tools.clone(), config.state_file(), Past { attached, start });
    let socket = admission::bind(&config.cni_socket())?;
    tokio::spawn(admission::serve(socket, node.clone(), metrics.clone()));
    tokio::spawn(forwarding::count(tools.clone()));
    tokio::spawn(kubelet::follow(tools.kernel.clone(), PROC.into()));
    converse(&config, &node, &tools.reporter, xds_pending)?;

    // The plugin comes last: from here on pods that start rely on the agent.
    let installer = install::watch(paths(&config), entry(&config)).context("start the installer")?;
    tokio::spawn(follow_install(installer.state(), tools.reporter.clone(), metrics, install_pending));
    tokio::select! {
        stopped = signal::shutdown() => stopped.context("wait for a signal"),
        () = leave(&config, &node, &tools, &installer) => Ok(()),
    }
}

async fn tools(config: &Config, metrics: Metrics) -> anyhow::Result<Tools> {
    let cgroup = match &config.cgroup_root {
        Some(root) => root.clone(),
        None => cgroup::root().context("find the cgroup v2 hierarchy of the node")?,
    };
    let kernel = KernelThread::start(RedirectConfig { bpffs: config.bpffs_dir.clone(), cgroup })
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
    let proxy = Proxy::start(&config.zds_socket(), around).context("listen for the proxy")?;
    Ok(Tools { roster, kernel, proxy, reporter, metrics, proc: PROC.into() })
}

/// Starts what talks to the operator.
fn converse(config: &Config, node: &Node, reporter: &Reporter, pending: Blocker) -> anyhow::Result<()> {
    let operator = ChannelConfig {
        address: config.operator_address,
        server_name: config.operator_name.clone(),
        roots_path: config.roots_path.clone(),
    };
    let xds = ambit_xds::Config {
        node: ambit_xds::Node {
            id: format!(
                "nodeagent~0.0.0.0~{}.{}~{}.svc.cluster.local",
                config.pod_name, config.namespace, config.namespace
            ),
            metadata: [("NODE_NAME".to_owned(), config.node_name.clone())].into(),
        },
        types: vec![ambit_proto::ENROLLMENT],
        token_path: Some(config.token_path.clone()),
        cluster_id: "Kubernetes".to_owned(),
    };
    let (status, mut statuses) = watch::channel(ambit_xds::Status::default());
    let connect = {
        let operator = operator.clone();
        move || std::future::ready(channel::connect(operator.clone()).map_err(Into::into))
    };
    tokio::spawn(ambit_xds::run(xds, connect, Enrollments(node.clone()), status));
    let channel = channel::connect(operator).context("prepare the channel to the operator")?;
    let token = Token::new(&config.token_path);
    tokio::spawn(follow_stream(statuses.clone(), node.clone()));
    let (node, reporter) = (node.clone(), reporter.clone());
    tokio::spawn(async move {
        if statuses.wait_for(|status| status.synced).await.is_ok() {
            tracing::info!("The operator named the pods of this node");
            node.synced();
            drop(pending);
            // Before that, the agent could not tell a pod that left from one it has not heard of.
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
        node.set_hears_operator(hears);
        if statuses.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_install(
    mut states: watch::Receiver<State>,
    reporter: Reporter,
    metrics: Metrics,
    pending: Blocker,
) {
    let mut pending = Some(pending);
    loop {
        let state = states.borrow_and_update().clone();
        match state {
            State::Installed => {
                pending.take();
                metrics.plugin_installed.set(1);
                reporter.install(None);
            }
            State::Waiting(problem) => {
                metrics.plugin_installed.set(0);
                reporter.install(Some(problem));
            }
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until the mesh leaves the node, removes every trace, says so, and returns when the mesh comes back: the
/// next process starts from nothing.
async fn leave(config: &Config, node: &Node, tools: &Tools, installer: &Installer) {
    let mut duty = node.duty();
    if duty.wait_for(|duty| *duty == Duty::Leave).await.is_err() {
        return std::future::pending().await;
    }
    tracing::info!("The mesh leaves this node");
    if !node.cleared(CLEAR_TIME_MAX).await {
        tracing::warn!("Some pods did not leave in time; what is left of them goes with the pins");
    }
    while let Err(error) = installer.remove().await {
        tracing::warn!(%error, "The CNI plugin cannot be removed");
        tokio::time::sleep(LEAVE_PAUSE).await;
    }
    // Files go before pins: an agent that finds the state file and no pins concludes that the node was restarted.
    if let Err(error) = sweep(config) {
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

/// Removes the files of the agent. Its directories may be mount points here, so only what is in them.
fn sweep(config: &Config) -> io::Result<()> {
    let files = [config.state_file(), config.cni_socket(), config.zds_socket()];
    files.iter().try_for_each(|path| install::files::remove(path))?;
    let _ = fs::remove_dir(config.run_dir.join("zds"));
    Ok(())
}

fn directories(config: &Config) -> io::Result<()> {
    let zds = config.run_dir.join("zds");
    for path in [config.run_dir.as_path(), zds.as_path(), config.state_dir.as_path()] {
        private(path)?;
    }
    Ok(())
}

fn private(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

fn paths(config: &Config) -> install::Paths {
    install::Paths {
        conf_dir: config.conf_dir.clone(),
        bin_dir: config.bin_dir.clone(),
        plugin_source: config.plugin_source.clone(),
    }
}

fn entry(config: &Config) -> conflist::Entry {
    conflist::Entry {
        plugin: conflist::PLUGIN.to_owned(),
        socket: config.cni_socket().display().to_string(),
        state_file: config.state_file().display().to_string(),
        system_namespace: config.namespace.clone(),
        embeds: None,
        replaces: None,
    }
}
