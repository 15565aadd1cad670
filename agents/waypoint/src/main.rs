//! The program: parse, start logging, run.

use std::num::NonZeroUsize;

use ambit_runtime::{env::ProcessEnvironment, telemetry};
use ambit_waypoint::{config, config::Config, run};
use anyhow::Context as _;
use clap::Command;

/// Returns freed memory to the kernel after a second (`.cargo/config.toml`); the C library's allocator keeps what ten
/// thousand connections once needed.
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    Command::new("ambit-waypoint").version(env!("CARGO_PKG_VERSION")).about(config::HELP).get_matches();
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let config = Config::parse(&ProcessEnvironment, cores)?;
    telemetry::init(&config.proxy.log_filter, config.proxy.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the control runtime cannot be started")?;
    runtime.block_on(run::run(config))?;
    Ok(())
}
