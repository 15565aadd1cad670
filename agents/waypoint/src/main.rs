//! The program: parse, start logging, run.

use ambit_proxy::process;
use ambit_runtime::env::ProcessEnvironment;
use ambit_waypoint::{config, config::Config, run};

/// Returns freed memory to the kernel after a second (`.cargo/config.toml`); the C library's allocator keeps what ten
/// thousand connections once needed.
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    process::parse_arguments("ambit-waypoint", env!("CARGO_PKG_VERSION"), config::HELP);
    let config = Config::parse(&ProcessEnvironment, process::cores())?;
    process::block_on(&config.proxy.clone(), run::run(config))?;
    Ok(())
}
