//! `ambit-node-agent`: enrolls the pods of one node. Configured by environment variables, see
//! `--help`.

use ambit_cni::{Config, run};
use ambit_runtime::{env::ProcessEnvironment, telemetry};
use clap::Parser;

/// Enrolls the pods of one node into the mesh: redirection, hand-over to ztunnel, CNI plugin.
///
/// Configured by environment variables. Required: NODE_NAME, POD_NAME, POD_NAMESPACE,
/// AMBIT_OPERATOR_ADDRESS (ip:port). Optional: XDS_ROOT_CA, AUTH_TOKEN, AMBIT_HEALTH_PORT (15023),
/// AMBIT_METRICS_PORT (15022), RUST_LOG, LOG_FORMAT (text or json).
#[derive(Debug, Parser)]
#[command(version, name = "ambit-node-agent")]
struct Arguments {}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Arguments::parse();
    let config = Config::parse(&ProcessEnvironment)?;
    telemetry::init(&config.agent.log_filter, config.agent.log_format);
    run(config).await
}
