//! The program: parse, start logging, run.

use ambit_proxy::process;
use ambit_runtime::env::ProcessEnvironment;
use ambit_waypoint::{config, config::Config, run};

fn main() -> anyhow::Result<()> {
    process::parse_arguments("ambit-waypoint", env!("CARGO_PKG_VERSION"), config::HELP);
    let config = Config::parse(&ProcessEnvironment, process::cores())?;
    process::block_on(&config.proxy.clone(), run::run(config))?;
    Ok(())
}
