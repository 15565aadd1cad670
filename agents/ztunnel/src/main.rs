//! The program: parse, start logging, run.

use std::num::NonZeroUsize;

use ambit_runtime::{env::ProcessEnvironment, telemetry};
use ambit_ztunnel::{config, config::Config, limits, run};
use anyhow::Context as _;
use clap::Command;

fn main() -> anyhow::Result<()> {
    Command::new("ambit-ztunnel").version(env!("CARGO_PKG_VERSION")).about(config::HELP).get_matches();
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let config = Config::parse(&ProcessEnvironment, cores)?;
    telemetry::init(&config.proxy.log_filter, config.proxy.log_format);
    limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the control runtime cannot be started")?;
    runtime.block_on(run::run(config))?;
    Ok(())
}
