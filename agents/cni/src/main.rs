//! `ambit-node-agent`: enrolls the pods of one node. Configured by its environment, see `--help`.

use ambit_cni::{config::Config, run};
use ambit_runtime::{env::ProcessEnvironment, telemetry};
use clap::Parser;

/// Enrolls the pods of one node into the mesh: redirection, hand-over to ztunnel, CNI plugin.
///
/// Configured by environment variables. Required: NODE_NAME, POD_NAME, AMBIT_OPERATOR_ADDRESS (ip:port).
/// Optional: POD_NAMESPACE, AMBIT_OPERATOR_NAME, AMBIT_ROOTS_PATH, AMBIT_TOKEN_PATH, AMBIT_HEALTH_PORT (15023),
/// AMBIT_METRICS_PORT (15022), AMBIT_RUN_DIR, AMBIT_STATE_DIR, AMBIT_CNI_CONF_DIR, AMBIT_CNI_BIN_DIR,
/// AMBIT_PLUGIN_SOURCE, AMBIT_BPFFS_DIR, AMBIT_CGROUP_ROOT, RUST_LOG, AMBIT_LOG_FORMAT (text or json).
#[derive(Debug, Parser)]
#[command(version, name = "ambit-node-agent")]
struct Arguments {}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Arguments::parse();
    let config = Config::parse(&ProcessEnvironment)?;
    telemetry::init(&config.log_filter, config.log_format);
    run::run(config).await
}
